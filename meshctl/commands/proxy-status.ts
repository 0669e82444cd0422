/** `meshctl proxy-status`: what each istiod says of the proxies that are connected to it. */
import yaml from 'js-yaml';
import { Istiod } from '../istiod.ts';
import { CommandError, type Connection, clusterError, connect, table } from '../terminal.ts';

interface SyncRow {
  readonly proxy: string;
  readonly proxy_type: string;
  readonly istio_version: string;
  readonly cluster_id: string;
  readonly resources: Readonly<Record<string, { readonly sent?: string; readonly acked?: string; readonly lastError?: string }>>;
}

/** Istio's short names of types, as proxy-status prints them; ours by their message. */
const TYPES: Readonly<Record<string, string>> = {
  'type.googleapis.com/istio.workload.Address': 'WDS',
  'type.googleapis.com/istio.security.Authorization': 'WADS',
};

export async function proxyStatus({ output, ...connection }: Connection & { readonly output: string }): Promise<number> {
  if (!['table', 'json', 'yaml'].includes(output)) throw new CommandError(`-o ${output}: expected table, json or yaml`);
  const api = connect(connection);
  let istiod: Istiod | undefined;
  try {
    istiod = await Istiod.open(api, connection.systemNamespace);
    const of = istiod;
    const rows = await Promise.all(
      of.pods.map(async (pod) =>
        (await of.get<SyncRow[]>(pod, '/debug/syncz')).map((row) => ({ ...row, istiod: pod.metadata.name ?? '' })),
      ),
    );
    const sorted = rows.flat().sort((a, b) => (a.proxy < b.proxy ? -1 : 1));
    if (output === 'json') console.log(JSON.stringify(sorted, undefined, 2));
    else if (output === 'yaml') console.log(yaml.dump(sorted).trimEnd());
    else console.log(statusTable(sorted));
    return 0;
  } catch (error) {
    throw error instanceof CommandError ? error : clusterError(error);
  } finally {
    istiod?.close();
    api.close();
  }
}

export function statusTable(rows: readonly (SyncRow & { readonly istiod: string })[]): string {
  return table(
    ['NAME', 'CLUSTER', 'ISTIOD', 'VERSION', 'SUBSCRIBED TYPES'],
    rows.map(({ proxy, cluster_id, istiod, istio_version, resources }) => [
      proxy,
      cluster_id,
      istiod,
      istio_version,
      subscribed(resources),
    ]),
  );
}

/** `2 (WADS,WDS)`, and what was not taken. */
function subscribed(resources: SyncRow['resources']): string {
  const names = Object.keys(resources)
    .map((type) => TYPES[type] ?? type.slice(type.lastIndexOf('.') + 1))
    .sort();
  const refused = Object.values(resources).filter(({ lastError }) => lastError).length;
  const stale = Object.values(resources).filter(({ sent, acked, lastError }) => sent !== undefined && sent !== acked && !lastError).length;
  const notes = [refused > 0 ? `${refused} rejected` : '', stale > 0 ? `${stale} stale` : ''].filter((note) => note !== '');
  return `${names.length} (${names.join(',')})${notes.length > 0 ? ` ${notes.join(', ')}` : ''}`;
}
