/** `meshctl version`: this program, the control plane, the proxies, as istioctl prints them; and whether they fit together. */
import { VERSION } from '../../common/base/version.ts';
import { CommandError } from '../command-error.ts';
import { Istiod } from '../istiod.ts';
import { type Connection, checkFormat, clusterError, connect, plural, print } from '../terminal.ts';

export interface Versions {
  readonly clientVersion: string;
  /** Of each replica. */
  readonly controlPlane?: readonly { readonly pod: string; readonly version: string }[];
  /** By version. */
  readonly dataPlane?: readonly { readonly version: string; readonly proxies: number }[];
}

export async function versionCommand({
  client,
  output,
  ...connection
}: Connection & { readonly client: boolean; readonly output: string }): Promise<number> {
  checkFormat(output);
  const own = { clientVersion: VERSION };
  const versions = client
    ? own
    : await ask(connection).catch(async (error: unknown) => {
        // As kubectl: what is known, then why there is no more.
        await print(own, output, () => versionLines(own).join('\n'));
        throw error;
      });
  await print(versions, output, () => versionLines(versions).join('\n'));
  return 0;
}

export function versionLines({ clientVersion, controlPlane, dataPlane }: Versions): string[] {
  const control = [...new Set(controlPlane?.map(({ version }) => version))];
  return [
    `client version: ${clientVersion}`,
    ...(controlPlane === undefined
      ? []
      : control.length <= 1
        ? [`control plane version: ${control[0] ?? 'none is running'}`]
        : controlPlane.map(({ pod, version }) => `control plane version: ${version} (${pod})`)),
    ...(dataPlane === undefined
      ? []
      : [
          `data plane version: ${dataPlane.map(({ version, proxies }) => `${version} (${proxies === 1 ? '1 proxy' : `${proxies} proxies`})`).join(', ') || 'none'}`,
        ]),
    ...skew({ clientVersion, ...(controlPlane && { controlPlane }), ...(dataPlane && { dataPlane }) }),
  ];
}

/** Versions that differ run together, and are worth a word. */
function skew({ clientVersion, controlPlane = [], dataPlane = [] }: Versions): string[] {
  const others = new Set([...controlPlane.map(({ version }) => version), ...dataPlane.map(({ version }) => version)]);
  others.delete(clientVersion);
  return others.size === 0
    ? []
    : [`${plural(others.size, 'other version')} than this program's: meshctl upgrade brings all to ${clientVersion}`];
}

async function ask(connection: Connection): Promise<Versions> {
  const api = connect(connection);
  let istiod: Istiod | undefined;
  try {
    istiod = await Istiod.open(api, connection.systemNamespace);
    const of = istiod;
    const replicas = await Promise.all(
      of.pods.map(async (pod) => ({
        pod: pod.metadata.name ?? '',
        version: (await of.get<{ version: string }>(pod, '/version')).version,
        proxies: await of.get<{ istio_version: string }[]>(pod, '/debug/syncz'),
      })),
    );
    const counts = new Map<string, number>();
    for (const { istio_version: version } of replicas.flatMap(({ proxies }) => proxies))
      counts.set(version, (counts.get(version) ?? 0) + 1);
    return {
      clientVersion: VERSION,
      controlPlane: replicas.map(({ pod, version }) => ({ pod, version })),
      dataPlane: [...counts].map(([version, proxies]) => ({ version, proxies })),
    };
  } catch (error) {
    throw error instanceof CommandError ? error : clusterError(error);
  } finally {
    istiod?.close();
    api.close();
  }
}
