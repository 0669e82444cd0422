/** `meshctl proxy-status`: what each istiod says of the proxies that are connected to it. */

import { CommandError } from '../command-error.ts';
import { Istiod } from '../istiod.ts';
import { type Connection, checkFormat, clusterError, connect, print, TABLE_WIDTH, table } from '../terminal.ts';

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
  'type.googleapis.com/warren.waypoint.v1.ServiceRoutes': 'routes',
  'type.googleapis.com/warren.waypoint.v1.ServiceTraffic': 'traffic',
  'type.googleapis.com/warren.waypoint.v1.HttpAuthorization': 'authorizations',
  'type.googleapis.com/warren.waypoint.v1.JwtAuthentication': 'tokens',
  'type.googleapis.com/warren.waypoint.v1.ServiceTelemetry': 'telemetry',
  'type.googleapis.com/warren.waypoint.v1.RateLimits': 'limits',
  'type.googleapis.com/warren.waypoint.v1.WorkloadLabels': 'labels',
};

const MOST_NAMED = 3;

export async function proxyStatus({
  namespace,
  output,
  ...connection
}: Connection & { readonly namespace?: string; readonly output: string }): Promise<number> {
  checkFormat(output, ['table', 'wide', 'json', 'yaml']);
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
    // A proxy is POD.NAMESPACE, and a namespace has no dot.
    const wanted = rows.flat().filter(({ proxy }) => namespace === undefined || proxy.endsWith(`.${namespace}`));
    const sorted = wanted.sort((a, b) => (a.proxy < b.proxy ? -1 : 1));
    await print(sorted, output, (width) => statusTable(sorted, width));
    return 0;
  } catch (error) {
    throw error instanceof CommandError ? error : clusterError(error);
  } finally {
    istiod?.close();
    api.close();
  }
}

export function statusTable(rows: readonly (SyncRow & { readonly istiod: string })[], width: number = TABLE_WIDTH): string {
  return table(
    ['NAME', 'CLUSTER', 'ISTIOD', 'VERSION', 'SUBSCRIBED TYPES'],
    rows.map(({ proxy, cluster_id, istiod, istio_version, resources }) => [
      proxy,
      cluster_id,
      istiod,
      istio_version,
      subscribed(resources, width === Infinity),
    ]),
    { width },
  );
}

/** `2 (WADS,WDS)`, and what was not taken; many are named where there is room, so that the proxies' own names have some. */
function subscribed(resources: SyncRow['resources'], all: boolean): string {
  const names = Object.keys(resources)
    .map((type) => TYPES[type] ?? type.slice(type.lastIndexOf('.') + 1))
    .sort();
  const refused = Object.values(resources).filter(({ lastError }) => lastError).length;
  const stale = Object.values(resources).filter(({ sent, acked, lastError }) => sent !== undefined && sent !== acked && !lastError).length;
  const notes = [refused > 0 ? `${refused} rejected` : '', stale > 0 ? `${stale} stale` : ''].filter((note) => note !== '');
  const named = all || names.length <= MOST_NAMED ? names.join(',') : `${names.slice(0, 1).join()},…`;
  return `${names.length} (${named})${notes.length > 0 ? ` ${notes.join(', ')}` : ''}`;
}
