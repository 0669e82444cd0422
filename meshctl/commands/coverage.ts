/** `meshctl coverage`: where every authorization policy and rate limit is enforced, and why not where it is not. */
import picocolors from 'picocolors';
import { type KubeApi, KubeApiError, type KubeObject } from '../../common/client/kube-api.ts';
import { CommandError } from '../command-error.ts';
import { type Covered, coverage, type Passed } from '../coverage/coverage.ts';
import { Istiod } from '../istiod.ts';
import { callersByService, type ProxyReport } from '../status/report.ts';
import { type Connection, checkFormat, clusterError, connect, inColour, print, TABLE_WIDTH, table } from '../terminal.ts';

export async function coverageCommand({
  namespace,
  output,
  ...connection
}: Connection & { readonly namespace?: string; readonly output: string }): Promise<number> {
  checkFormat(output);
  const api = connect(connection);
  try {
    const [policies, rateLimits, pods, passedBy] = await Promise.all([
      policiesOf(api),
      limitsOf(api),
      api.list<KubeObject>('/api/v1/pods'),
      passedWaypoints(api, connection.systemNamespace),
    ]);
    const rows = coverage({ policies, rateLimits, pods, passedBy, rootNamespace: connection.systemNamespace }).filter(
      ({ policy }) => namespace === undefined || policy.startsWith(`${namespace}/`),
    );
    await print(rows, output, (width) => coverageTable(rows, inColour(), width));
    return rows.every(({ enforced }) => enforced === 'node' || enforced === 'waypoint') ? 0 : 1;
  } catch (error) {
    throw error instanceof CommandError ? error : clusterError(error);
  } finally {
    api.close();
  }
}

export function coverageTable(rows: readonly Covered[], colour: boolean, width: number = TABLE_WIDTH): string {
  if (rows.length === 0) return 'no policies';
  const paint = picocolors.createColors(colour);
  const shade = { node: paint.green, waypoint: paint.green, 'in part': paint.yellow, nowhere: paint.red };
  return table(
    ['POLICY', 'ACTION', 'ENFORCED', 'BECAUSE'],
    rows.map(({ policy, action, enforced, because }) => [policy, action, enforced, because]),
    { width, paint: (row, line) => shade[rows[row]?.enforced ?? 'nowhere'](line) },
  );
}

/** What proxies have told istiod of who passes waypoints by; nothing where istiod cannot be asked, which `meshctl status` says. */
async function passedWaypoints(api: KubeApi, systemNamespace: string): Promise<Passed[]> {
  const istiod = await Istiod.open(api, systemNamespace).catch(() => undefined);
  if (!istiod) return [];
  try {
    const pages = await Promise.all(istiod.pods.map((pod) => istiod.get<readonly ProxyReport[]>(pod, '/debug/proxies').catch(() => [])));
    return callersByService(pages.flat().flatMap(({ refusals }) => refusals.filter(({ letThrough }) => letThrough === true)));
  } finally {
    istiod.close();
  }
}

/** An older installation does not know the kind. */
async function limitsOf(api: KubeApi): Promise<KubeObject[]> {
  try {
    return await api.list<KubeObject>('/apis/warren.dev/v1alpha1/ratelimitpolicies');
  } catch (error) {
    if (error instanceof KubeApiError && error.status === 404) return [];
    throw error;
  }
}

async function policiesOf(api: KubeApi): Promise<KubeObject[]> {
  try {
    return await api.list<KubeObject>('/apis/security.istio.io/v1/authorizationpolicies');
  } catch (error) {
    if (error instanceof KubeApiError && error.status === 404)
      throw new CommandError('this cluster does not know AuthorizationPolicies: is the mesh installed (meshctl install)?');
    throw error;
  }
}
