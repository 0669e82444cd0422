/** `meshctl waypoint apply|generate|list|status|delete`, with istioctl's flags and columns. A waypoint is a Gateway; istiod makes the rest of it. */
import yaml from 'js-yaml';
import { type KubeApi, KubeApiError, type KubeObject } from '../../common/client/kube-api.ts';
import { CommandError } from '../command-error.ts';
import { withApi } from '../session.ts';
import { DATAPLANE_MODE } from '../status/enrolment.ts';
import { type Condition, conditionsOf } from '../status/report.ts';
import { type Connection, plural, table } from '../terminal.ts';

const CLASS = 'istio-waypoint';
const WAYPOINT_FOR = 'istio.io/waypoint-for';
const USE_WAYPOINT = 'istio.io/use-waypoint';
const TRAFFIC = ['service', 'workload', 'all', 'none'];
const FIELD_MANAGER = 'meshctl';
const POLL_MS = 500;

export interface WaypointOptions extends Connection {
  readonly namespace: string;
  readonly name: string;
}

export interface ApplyOptions extends WaypointOptions {
  readonly for?: string;
  readonly revision?: string;
  readonly enrollNamespace: boolean;
  readonly overwrite: boolean;
  readonly wait: boolean;
  readonly timeoutS: number;
}

const gatewaysPath = (namespace: string | undefined): string =>
  namespace === undefined
    ? '/apis/gateway.networking.k8s.io/v1/gateways'
    : `/apis/gateway.networking.k8s.io/v1/namespaces/${namespace}/gateways`;

/** @throws {CommandError} for a name or a traffic type that cannot be */
export function gatewayOf({
  namespace,
  name,
  for: traffic,
  revision,
}: Pick<ApplyOptions, 'namespace' | 'name' | 'for' | 'revision'>): KubeObject {
  if (name === 'none') throw new CommandError('a waypoint cannot be called none: that is how a label says "no waypoint"');
  if (traffic !== undefined && !TRAFFIC.includes(traffic)) throw new CommandError(`--for ${traffic}: expected ${TRAFFIC.join(', ')}`);
  const labels = { ...(traffic && { [WAYPOINT_FOR]: traffic }), ...(revision && { 'istio.io/rev': revision }) };
  return {
    apiVersion: 'gateway.networking.k8s.io/v1',
    kind: 'Gateway',
    metadata: { name, namespace, ...(Object.keys(labels).length > 0 && { labels }) },
    spec: { gatewayClassName: CLASS, listeners: [{ name: 'mesh', port: 15008, protocol: 'HBONE' }] },
  };
}

export function generate(options: Pick<ApplyOptions, 'namespace' | 'name' | 'for' | 'revision'>): number {
  console.log(yaml.dump(gatewayOf(options)).trimEnd());
  return 0;
}

export async function apply(options: ApplyOptions): Promise<number> {
  const gateway = gatewayOf(options);
  const { namespace, name } = options;
  return withApi(options, async (api) => {
    const target = await api.get<KubeObject>(`/api/v1/namespaces/${namespace}`).catch((error: unknown) => {
      if (error instanceof KubeApiError && error.status === 404) throw new CommandError(`namespace ${namespace} does not exist`);
      throw error;
    });
    const bound = target.metadata.labels?.[USE_WAYPOINT];
    if (options.enrollNamespace && bound !== undefined && bound !== name && !options.overwrite) {
      throw new CommandError(`namespace ${namespace} already uses waypoint ${bound}; --overwrite changes that`);
    }
    await api.patch(`${gatewaysPath(namespace)}/${name}`, gateway, { type: 'apply', fieldManager: FIELD_MANAGER, force: true });
    console.log(`waypoint ${namespace}/${name} applied`);
    // Bound before it is ready, everything would be refused meanwhile.
    if ((options.wait || options.enrollNamespace) && !(await ready(api, options))) return 1;
    if (!options.enrollNamespace) return 0;
    await api.patch(`/api/v1/namespaces/${namespace}`, { metadata: { labels: { [USE_WAYPOINT]: name } } }, { type: 'merge' });
    console.log(`namespace ${namespace} labelled ${USE_WAYPOINT}=${name}`);
    if (target.metadata.labels?.[DATAPLANE_MODE] !== 'ambient') {
      console.error(
        `warning: namespace ${namespace} is not in the mesh, so nothing goes through the waypoint yet (meshctl ambient enable ${namespace})`,
      );
    }
    return 0;
  });
}

async function ready(api: KubeApi, { namespace, name, timeoutS }: ApplyOptions): Promise<boolean> {
  const deadline = performance.now() + timeoutS * 1000;
  for (;;) {
    const condition = programmed(await api.get<KubeObject>(`${gatewaysPath(namespace)}/${name}`));
    if (condition?.status === 'True') {
      console.log(`waypoint ${namespace}/${name} is ready`);
      return true;
    }
    if (performance.now() > deadline) {
      console.error(
        `waypoint ${namespace}/${name} is not ready after ${timeoutS} s: ${condition ? `${condition.reason}: ${condition.message}` : 'istiod has not looked at it'}`,
      );
      return false;
    }
    await new Promise<void>((resolve) => setTimeout(resolve, POLL_MS));
  }
}

export async function list(options: Connection & { readonly namespace: string; readonly allNamespaces: boolean }): Promise<number> {
  return withApi(options, async (api) => {
    const waypoints = await waypointsIn(api, options.allNamespaces ? undefined : options.namespace);
    if (waypoints.length === 0) {
      console.log('No waypoints found.');
      return 0;
    }
    const rows = waypoints.map(({ metadata, ...rest }) => [
      ...(options.allNamespaces ? [metadata.namespace ?? ''] : []),
      metadata.name ?? '',
      metadata.labels?.['istio.io/rev'] ?? 'default',
      metadata.labels?.[WAYPOINT_FOR] ?? 'service',
      programmed({ metadata, ...rest })?.status ?? 'Unknown',
    ]);
    console.log(table([...(options.allNamespaces ? ['NAMESPACE'] : []), 'NAME', 'REVISION', 'TRAFFIC TYPE', 'PROGRAMMED'], rows));
    return 0;
  });
}

export async function waypointStatus(
  options: Connection & { readonly namespace: string; readonly allNamespaces: boolean },
): Promise<number> {
  return withApi(options, async (api) => {
    const waypoints = await waypointsIn(api, options.allNamespaces ? undefined : options.namespace);
    if (waypoints.length === 0) {
      console.log('No waypoints found.');
      return 0;
    }
    const shown = waypoints.map((gateway) => ({ gateway, condition: programmed(gateway) ?? conditionsOf(gateway).at(-1) }));
    const rows = shown.map(({ gateway: { metadata }, condition }) => [
      ...(options.allNamespaces ? [metadata.namespace ?? ''] : []),
      metadata.name ?? '',
      condition?.status ?? 'Unknown',
      condition?.type ?? '',
      condition?.reason ?? '',
      condition?.message ?? '',
    ]);
    console.log(table([...(options.allNamespaces ? ['NAMESPACE'] : []), 'NAME', 'STATUS', 'TYPE', 'REASON', 'MESSAGE'], rows));
    return shown.every(({ condition }) => condition?.type === 'Programmed' && condition.status === 'True') ? 0 : 1;
  });
}

export async function remove(
  options: Connection & { readonly namespace: string; readonly names: readonly string[]; readonly all: boolean },
): Promise<number> {
  if (options.names.length === 0 && !options.all) throw new CommandError('say which: names, or --all');
  return withApi(options, async (api) => {
    const names = options.all ? (await waypointsIn(api, options.namespace)).map(({ metadata }) => metadata.name ?? '') : options.names;
    if (names.length === 0) console.log(`no waypoint in namespace ${options.namespace}`);
    let missing = 0;
    for (const name of names) {
      try {
        await api.delete(`${gatewaysPath(options.namespace)}/${name}`);
        console.log(`waypoint ${options.namespace}/${name} deleted`);
      } catch (error) {
        if (!(error instanceof KubeApiError && error.status === 404)) throw error;
        console.error(`waypoint ${options.namespace}/${name} not found`);
        missing++;
      }
    }
    await warnOfBound(api, options.namespace, names);
    return missing > 0 ? 1 : 0;
  });
}

/** What is still bound to a waypoint that is gone is refused; the user should hear of it now, not from an outage. */
async function warnOfBound(api: KubeApi, namespace: string, names: readonly string[]): Promise<void> {
  const bound = (object: KubeObject): boolean => names.includes(object.metadata.labels?.[USE_WAYPOINT] ?? '');
  const [target, services] = await Promise.all([
    api.get<KubeObject>(`/api/v1/namespaces/${namespace}`),
    api.list<KubeObject>(`/api/v1/namespaces/${namespace}/services`),
  ]);
  if (bound(target))
    console.error(`warning: namespace ${namespace} still has the label ${USE_WAYPOINT}: connections to its services are refused`);
  const still = services.filter(bound);
  if (still.length > 0)
    console.error(`warning: ${plural(still.length, 'service')} still bound: ${still.map(({ metadata }) => metadata.name).join(', ')}`);
}

async function waypointsIn(api: KubeApi, namespace: string | undefined): Promise<KubeObject[]> {
  const gateways = await api.list<KubeObject>(gatewaysPath(namespace)).catch((error: unknown) => {
    if (error instanceof KubeApiError && error.status === 404) {
      throw new CommandError("this cluster has no Gateway API: install its CRDs first (the Gateway API project's release has them)");
    }
    throw error;
  });
  return gateways.filter(({ spec }) => (spec as { gatewayClassName?: string } | undefined)?.gatewayClassName === CLASS);
}

const programmed = (gateway: KubeObject): Condition | undefined => conditionsOf(gateway).find(({ type }) => type === 'Programmed');
