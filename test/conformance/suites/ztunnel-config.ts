/** Tables that istioctl printed from recorded dumps of ztunnels: ours have the same cells in the same order; only their padding is our own. */
import { readConnections, readDump } from '../../../meshctl/ztunnel-config/dump.ts';
import { allTables, certificateTable, connectionTable, policyTable, workloadTable } from '../../../meshctl/ztunnel-config/tables.ts';
import { attempt, type CaseResult, type Cases, type Suite } from '../suite.ts';

const FOLDER = 'istio/istioctl/pkg/writer/ztunnel/configdump/testdata';

export const suite: Suite = {
  suite: FOLDER,
  *run(cases: Cases): Iterable<CaseResult> {
    const files = cases.list(FOLDER);
    if (!files.includes('dump.json')) return;
    const dump = readDump(JSON.parse(cases.read(`${FOLDER}/dump.json`)));
    const connections = { ...dump, workloadState: JSON.parse(cases.read(`${FOLDER}/connectionsdump.json`)).map(readConnections) };
    // The root of the dump expired by this time, the rest did not.
    const nowMs = Date.parse('2026-01-01T00:00:00Z');
    const tables: Record<string, () => string> = {
      'allsummary.txt': () => allTables(dump, nowMs, false),
      'allsummary_withheaders.txt': () => allTables(dump, nowMs, true),
      'connectionsummary.txt': () => connectionTable(connections, { raw: true }),
      'connectionsummary_workload.txt': () =>
        connectionTable(
          {
            ...connections,
            workloadState: connections.workloadState.filter(({ info }: { info: { name: string } }) => info.name.startsWith('productpage')),
          },
          { raw: true },
        ),
      'policies.txt': () => policyTable(dump),
      'secretsummary.txt': () => certificateTable(dump, nowMs),
      'workloadsummary.txt': () => workloadTable(dump),
      'workloadsummary_default.txt': () => workloadTable(dump, { namespace: 'default' }),
      'workloadsummary_workload.txt': () => workloadTable(dump, { address: '10.244.2.53' }),
    };
    for (const file of files.filter((name) => name.endsWith('.txt'))) {
      const made = tables[file];
      yield attempt(file.slice(0, -4), () => {
        if (!made) return { case: file.slice(0, -4), verdict: 'skip', reason: 'no table of ours for it' };
        return compare(file.slice(0, -4), made(), cases.read(`${FOLDER}/${file}`));
      });
    }
  },
};

function compare(name: string, ours: string, recorded: string): CaseResult {
  const [mine, theirs] = [cells(ours), cells(recorded)];
  const at = theirs.findIndex((line, i) => line !== mine[i]);
  if (at < 0 && mine.length === theirs.length) return { case: name, verdict: 'pass', reason: '' };
  const line = at < 0 ? theirs.length : at;
  return {
    case: name,
    verdict: 'fail',
    reason: `line ${line + 1}: expected ${JSON.stringify(theirs[line])}, got ${JSON.stringify(mine[line])}`,
  };
}

const cells = (text: string): string[] =>
  text
    .trim()
    .split('\n')
    .map((line) => line.trim().replace(/ +/g, ' '));
