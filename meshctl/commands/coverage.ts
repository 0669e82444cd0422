/** `meshctl coverage`: where every rule of the mesh's objects is enforced, and why not where it is not. */
import picocolors from 'picocolors';
import { type KubeApi, KubeApiError } from '../../common/client/kube-api.ts';
import { CommandError } from '../command-error.ts';
import { type CoveredRule, isEnforced, type Passed, withPassed } from '../coverage/coverage.ts';
import { Istiod } from '../istiod.ts';
import { callersByService, type ProxyReport } from '../status/report.ts';
import { type Connection, checkFormat, clusterError, connect, inColour, print, TABLE_WIDTH, table, wrap } from '../terminal.ts';

export async function coverageCommand({
  namespace,
  output,
  ...connection
}: Connection & { readonly namespace?: string; readonly output: string }): Promise<number> {
  checkFormat(output);
  const api = connect(connection);
  try {
    const { rules, more } = await coverageOf(api, connection.systemNamespace, namespace);
    await print(rules, output, (width) => coverageTable(rules, inColour(), width));
    if (more > 0) console.error(`${more} more rules are not shown: ask for one namespace (-n)`);
    return rules.every(isEnforced) && more === 0 ? 0 : 1;
  } catch (error) {
    throw error instanceof CommandError ? error : clusterError(error);
  } finally {
    api.close();
  }
}

/** Any replica of istiod knows all rules; each knows of the callers that its own proxies saw. */
async function coverageOf(
  api: KubeApi,
  systemNamespace: string,
  namespace: string | undefined,
): Promise<{ readonly rules: CoveredRule[]; readonly more: number }> {
  const istiod = await Istiod.open(api, systemNamespace);
  try {
    const [first] = istiod.pods;
    if (!first) throw new CommandError('istiod is not running: look with meshctl status');
    const query = namespace === undefined ? '' : `?${new URLSearchParams({ namespace })}`;
    const [page, reports] = await Promise.all([
      istiod.get<{ rules: CoveredRule[]; more: number }>(first, `/debug/coverage${query}`),
      Promise.all(istiod.pods.map((pod) => istiod.get<readonly ProxyReport[]>(pod, '/debug/proxies'))),
    ]);
    return { rules: withPassed(page.rules, passedIn(reports.flat()), namespace), more: page.more };
  } catch (error) {
    if (error instanceof KubeApiError && error.status === 404)
      throw new CommandError('this istiod says nothing of coverage: it is older than meshctl (meshctl version)');
    throw error;
  } finally {
    istiod.close();
  }
}

const passedIn = (reports: readonly ProxyReport[]): Passed[] =>
  callersByService(reports.flatMap(({ refusals }) => refusals.filter(({ letThrough }) => letThrough === true)));

export function coverageTable(rows: readonly CoveredRule[], colour: boolean, width: number = TABLE_WIDTH): string {
  if (rows.length === 0) return 'no rules: no policy, route or setting of the mesh is there';
  const paint = picocolors.createColors(colour);
  const shade = { node: paint.green, waypoint: paint.green, elsewhere: paint.gray, 'in part': paint.yellow, nowhere: paint.red };
  const objectOf = ({ kind, namespace, name }: CoveredRule): string => `${kind} ${namespace === '' ? '' : `${namespace}/`}${name}`;
  const seen = new Set<string>();
  /** An object is named once, over all of its rules. */
  const above = (row: CoveredRule | undefined): string => {
    if (!row || seen.has(objectOf(row))) return '';
    seen.add(objectOf(row));
    return `${wrap(objectOf(row), width).join('\n')}\n`;
  };
  return table(
    ['RULE', 'ENFORCED', 'BECAUSE'],
    rows.map(({ rule, enforced, because }) => [`  ${rule}`, enforced, because]),
    { width, paint: (row, line) => `${above(rows[row])}${shade[rows[row]?.enforced ?? 'nowhere'](line)}` },
  );
}
