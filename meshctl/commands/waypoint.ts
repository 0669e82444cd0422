/**
 * `meshctl waypoint apply|generate|list|status|delete`, with istioctl's flags, columns and messages. A waypoint is a Gateway; istiod makes the
 * rest of it. Two things differ: a namespace is bound to a waypoint only once that is ready, since until then everything would be refused; and
 * what is still bound to a waypoint that is deleted is said, for the same reason.
 */
import { dump } from 'js-yaml';
import { duration } from '../../common/base/settings.ts';
import { type KubeApi, KubeApiError, type KubeObject } from '../../common/client/kube-api.ts';
import { CommandError } from '../command-error.ts';
import { withApi } from '../session.ts';
import { DATAPLANE_MODE } from '../status/enrolment.ts';
import { type Condition, conditionsOf } from '../status/report.ts';
import { type Connection, checkFormat, plural, print, table } from '../terminal.ts';

const CLASS = 'istio-waypoint';
const WAYPOINT_FOR = 'istio.io/waypoint-for';
const USE_WAYPOINT = 'istio.io/use-waypoint';
const REVISION = 'istio.io/rev';
const TRAFFIC = ['all', 'none', 'service', 'workload'];
const FIELD_MANAGER = 'meshctl';
const POLL_MS = 500;
/** Between columns, istioctl's. */
const GAP = '     ';

export interface GatewayFlags {
  readonly namespace?: string;
  readonly name: string;
  readonly for?: string;
  readonly revision?: string;
}

export interface ApplyFlags extends GatewayFlags {
  readonly enrollNamespace: boolean;
  readonly overwrite: boolean;
  readonly wait: boolean;
  readonly waypointTimeout: string;
}

export interface ListFlags {
  readonly namespace?: string;
  readonly allNamespaces: boolean;
  readonly name?: string;
  readonly output: string;
}

export interface StatusFlags extends ListFlags {
  readonly wait: boolean;
  readonly waypointTimeout: string;
}

export interface DeleteFlags {
  readonly namespace?: string;
  readonly all: boolean;
  readonly revision?: string;
}

/** Flags, with the namespace decided. */
type In<Flags> = Connection & Flags & { readonly namespace: string };

const gatewaysPath = (namespace: string | undefined): string =>
  namespace === undefined
    ? '/apis/gateway.networking.k8s.io/v1/gateways'
    : `/apis/gateway.networking.k8s.io/v1/namespaces/${namespace}/gateways`;

/** @throws {CommandError} for a name or a traffic type that cannot be */
export function gatewayOf({ namespace, name, for: traffic, revision }: GatewayFlags): KubeObject {
  if (name === 'none') throw new CommandError("failed to create gateway: invalid name provided for waypoint, 'none' is a reserved value");
  if (traffic !== undefined && !TRAFFIC.includes(traffic))
    throw new CommandError(`failed to create gateway: invalid traffic type: ${traffic}. Valid options are: [${TRAFFIC.join(' ')}]`);
  const labels = { ...(traffic && { [WAYPOINT_FOR]: traffic }), ...(revision && { [REVISION]: revision }) };
  return {
    apiVersion: 'gateway.networking.k8s.io/v1',
    kind: 'Gateway',
    metadata: { name: name || 'waypoint', ...(namespace && { namespace }), ...(Object.keys(labels).length > 0 && { labels }) },
    spec: { gatewayClassName: CLASS, listeners: [{ name: 'mesh', port: 15008, protocol: 'HBONE' }] },
  };
}

export function generate(flags: GatewayFlags): number {
  process.stdout.write(gatewayText(flags));
  return 0;
}

/** As istioctl's YAML: fields by their names, lists not indented. */
export const gatewayText = (flags: GatewayFlags): string => dump(gatewayOf(flags), { sortKeys: true, noArrayIndent: true });

export async function apply(options: In<ApplyFlags>): Promise<number> {
  const gateway = gatewayOf(options);
  const timeoutMs = timeoutOf(options.waypointTimeout);
  return withApi(options, (api) => applyGateway(api, gateway, { ...options, timeoutMs }));
}

export interface Applied {
  readonly namespace: string;
  readonly enrollNamespace: boolean;
  readonly overwrite: boolean;
  readonly wait: boolean;
  readonly timeoutMs: number;
}

export async function applyGateway(api: KubeApi, gateway: KubeObject, options: Applied): Promise<number> {
  const { namespace, enrollNamespace, overwrite, wait, timeoutMs } = options;
  const name = gateway.metadata.name ?? '';
  const target = await api.get<KubeObject>(`/api/v1/namespaces/${namespace}`).catch((error: unknown) => {
    if (error instanceof KubeApiError && error.status === 404) throw new CommandError(`namespace: ${namespace} not found`);
    throw error;
  });
  if (enrollNamespace) {
    const bound = target.metadata.labels?.[USE_WAYPOINT];
    if (bound && bound !== name && !overwrite) {
      console.log(
        `⚠️ Warning: namespace (${namespace}) already has an enrolled Waypoint. Consider adding the \`--overwrite\` flag to your apply command.`,
      );
      return 0;
    }
    if (target.metadata.labels?.[DATAPLANE_MODE] !== 'ambient')
      console.log(
        `⚠️ Warning: namespace is not enrolled in ambient. Consider running\t\`kubectl label namespace ${namespace} ${DATAPLANE_MODE}=ambient\``,
      );
  }
  await api
    .patch(`${gatewaysPath(namespace)}/${name}`, gateway, { type: 'apply', fieldManager: FIELD_MANAGER, force: true })
    .catch((error: unknown) => {
      if (error instanceof KubeApiError && error.status === 404) throw noGatewayApi();
      throw error;
    });
  console.log(`✅ waypoint ${namespace}/${name} applied`);
  if (wait || enrollNamespace) {
    const [last] = await settled(async () => [await api.get<KubeObject>(`${gatewaysPath(namespace)}/${name}`)], timeoutMs);
    if (!last || !isProgrammed(last)) {
      const { reason, message } = (last && shown(last)) ?? {};
      const why = reason ? `${reason}: ${message}` : 'istiod has not looked at it (meshctl status)';
      console.error(`meshctl: timed out while waiting for waypoint ${namespace}/${name}: ${why}`);
      return 1;
    }
    console.log(`✅ waypoint ${namespace}/${name} is ready!`);
  }
  if (enrollNamespace) {
    await api.patch(`/api/v1/namespaces/${namespace}`, { metadata: { labels: { [USE_WAYPOINT]: name } } }, { type: 'merge' });
    console.log(`✅ namespace ${namespace} labeled with "${USE_WAYPOINT}: ${name}"`);
  }
  return 0;
}

/** Asks until all are programmed, or the time is over. @returns what was seen last */
async function settled(
  ask: () => Promise<readonly KubeObject[]>,
  timeoutMs: number,
  pollMs: number = POLL_MS,
): Promise<readonly KubeObject[]> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const gateways = await ask();
    if (gateways.every(isProgrammed) || performance.now() >= deadline) return gateways;
    await new Promise<void>((resolve) => setTimeout(resolve, Math.min(pollMs, Math.max(deadline - performance.now(), 1))));
  }
}

export const list = (options: In<ListFlags>): Promise<number> => {
  checkFormat(options.output);
  return withApi(options, (api) => listWaypoints(api, options));
};

export async function listWaypoints(api: KubeApi, options: ListFlags & { readonly namespace: string }): Promise<number> {
  const { allNamespaces, output } = options;
  const waypoints = (await waypointsIn(api, options)).map((gateway) => ({
    namespace: gateway.metadata.namespace ?? '',
    name: gateway.metadata.name ?? '',
    revision: gateway.metadata.labels?.[REVISION] || 'default',
    trafficType: gateway.metadata.labels?.[WAYPOINT_FOR] || 'service',
    programmed: conditionsOf(gateway).find(({ type }) => type === 'Programmed')?.status ?? 'False',
    address: addressOf(gateway),
  }));
  const head = ['NAME', 'REVISION', 'TRAFFIC TYPE', 'PROGRAMMED', ...(output === 'wide' ? ['ADDRESS'] : [])];
  await print(waypoints, output, (width) =>
    placedTable(
      head,
      waypoints.map(({ namespace, ...rest }) => [namespace, ...Object.values(rest).slice(0, head.length)]),
      { allNamespaces, width },
    ),
  );
  return 0;
}

/** @param rows each with its namespace first, which is shown where those of all are */
export function placedTable(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  { allNamespaces, width }: { readonly allNamespaces: boolean; readonly width: number },
): string {
  if (rows.length === 0) return 'No waypoints found.';
  return allNamespaces
    ? table(['NAMESPACE', ...head], rows, { gap: GAP, width })
    : table(
        head,
        rows.map((row) => row.slice(1)),
        { gap: GAP, width },
      );
}

export const waypointStatus = (options: In<StatusFlags>): Promise<number> => {
  checkFormat(options.output);
  const timeoutMs = options.wait ? timeoutOf(options.waypointTimeout) : 0;
  return withApi(options, (api) => statusOfWaypoints(api, { ...options, timeoutMs }));
};

export async function statusOfWaypoints(
  api: KubeApi,
  options: ListFlags & { readonly namespace: string; readonly timeoutMs: number; readonly pollMs?: number },
): Promise<number> {
  const { allNamespaces, output, timeoutMs } = options;
  const gateways = await settled(() => waypointsIn(api, options), timeoutMs, options.pollMs);
  const waypoints = gateways.map((gateway) => {
    const { status = 'Unknown', type = '', reason = '', message = '' } = shown(gateway) ?? {};
    return { namespace: gateway.metadata.namespace ?? '', name: gateway.metadata.name ?? '', status, type, reason, message };
  });
  await print(waypoints, output, (width) =>
    placedTable(
      ['NAME', 'STATUS', 'TYPE', 'REASON', 'MESSAGE'],
      waypoints.map((each) => Object.values(each)),
      { allNamespaces, width },
    ),
  );
  const late = gateways.filter((gateway) => !isProgrammed(gateway));
  if (timeoutMs > 0)
    for (const { metadata } of late)
      console.error(`meshctl: timed out while retrieving status for waypoint ${metadata.namespace}/${metadata.name}`);
  return late.length > 0 ? 1 : 0;
}

export async function remove(options: In<DeleteFlags> & { readonly names: readonly string[] }): Promise<number> {
  const { names, all, revision } = options;
  const several = all || revision !== undefined;
  if (several && names.length > 0) throw new CommandError('cannot specify waypoint names when deleting all waypoints');
  if (!several && names.length === 0)
    throw new CommandError(
      'must specify a waypoint name or delete all using --all or delete specific revision using --revision (meshctl waypoint list has the names)',
    );
  return withApi(options, (api) => removeWaypoints(api, options));
}

export async function removeWaypoints(
  api: KubeApi,
  options: { readonly namespace: string; readonly names: readonly string[]; readonly revision?: string },
): Promise<number> {
  const { namespace, names: wanted, revision } = options;
  const there = (await waypointsIn(api, { namespace, allNamespaces: false }))
    .filter(({ metadata }) => revision === undefined || metadata.labels?.[REVISION] === revision)
    .map(({ metadata }) => metadata.name ?? '');
  if (wanted.length === 0 && there.length === 0) console.log('No waypoints found.');
  let missing = 0;
  const gone: string[] = [];
  for (const name of wanted.length > 0 ? wanted : there) {
    // Another class of Gateway of that name is not ours to delete.
    const deleted = there.includes(name) && (await wasDeleted(api, `${gatewaysPath(namespace)}/${name}`));
    console.log(`waypoint ${namespace}/${name} ${deleted ? 'deleted' : 'not found'}`);
    if (deleted) gone.push(name);
    else missing++;
  }
  await warnOfBound(api, namespace, gone);
  return missing > 0 ? 1 : 0;
}

/** Somebody else may have been first. */
async function wasDeleted(api: KubeApi, path: string): Promise<boolean> {
  try {
    await api.delete(path);
    return true;
  } catch (error) {
    if (error instanceof KubeApiError && error.status === 404) return false;
    throw error;
  }
}

/** What is still bound to a waypoint that is gone is refused; the user should hear of it now, not from an outage. */
async function warnOfBound(api: KubeApi, namespace: string, names: readonly string[]): Promise<void> {
  if (names.length === 0) return;
  const bound = (object: KubeObject): boolean => names.includes(object.metadata.labels?.[USE_WAYPOINT] ?? '');
  const [target, services] = await Promise.all([
    api.get<KubeObject>(`/api/v1/namespaces/${namespace}`),
    api.list<KubeObject>(`/api/v1/namespaces/${namespace}/services`),
  ]);
  if (bound(target))
    console.error(
      `⚠️ Warning: namespace ${namespace} is still bound to it, so connections to its services are refused. Consider running \`kubectl label namespace ${namespace} ${USE_WAYPOINT}-\``,
    );
  const still = services.filter(bound).map(({ metadata }) => metadata.name);
  if (still.length > 0)
    console.error(
      `⚠️ Warning: ${plural(still.length, 'service')} still bound to it, so connections to ${still.length === 1 ? 'it' : 'them'} are refused. Consider running \`kubectl label service -n ${namespace} ${still.join(' ')} ${USE_WAYPOINT}-\``,
    );
}

interface Wanted {
  readonly namespace: string;
  readonly allNamespaces: boolean;
  readonly name?: string;
}

/** By namespace and name. @throws {CommandError} where the cluster does not know Gateways */
async function waypointsIn(api: KubeApi, { namespace, allNamespaces, name }: Wanted): Promise<KubeObject[]> {
  const gateways = await api.list<KubeObject>(gatewaysPath(allNamespaces ? undefined : namespace)).catch((error: unknown) => {
    if (error instanceof KubeApiError && error.status === 404) throw noGatewayApi();
    throw error;
  });
  const order = ({ metadata }: KubeObject): string => `${metadata.namespace}/${metadata.name}`;
  return gateways
    .filter(({ spec, metadata }) => isOurs(spec) && (name === undefined || metadata.name === name))
    .sort((a, b) => (order(a) < order(b) ? -1 : 1));
}

const isOurs = (spec: unknown): boolean => (spec as { gatewayClassName?: string } | undefined)?.gatewayClassName === CLASS;

const noGatewayApi = (): CommandError =>
  new CommandError(
    "missing Kubernetes Gateway CRDs need to be installed before applying a waypoint (the Gateway API project's release has them; docs/install.md#what-you-need)",
  );

const addressOf = ({ status }: KubeObject): string =>
  (status as { addresses?: readonly { value?: string }[] } | undefined)?.addresses?.[0]?.value ?? '';

/** The condition that is told of: Programmed where istiod has got so far, else the last one. */
const shown = (gateway: KubeObject): Condition | undefined =>
  conditionsOf(gateway).find(({ type }) => type === 'Programmed') ?? conditionsOf(gateway).at(-1);

const isProgrammed = (gateway: KubeObject): boolean => shown(gateway)?.type === 'Programmed' && shown(gateway)?.status === 'True';

/** Milliseconds. @throws {CommandError} naming the flag */
function timeoutOf(text: string): number {
  try {
    return duration.parse(text);
  } catch {
    throw new CommandError(`--waypoint-timeout ${text}: expected a duration such as 90s or 2m`);
  }
}
