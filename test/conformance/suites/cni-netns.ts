/**
 * Processes of a recorded /proc, to the pods that they belong to: the oldest process of each pod names its network namespace. The recording
 * has no list of expectations; they follow from its files, read here in another way than the product reads them.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { findPodProcesses } from '../../../cni/namespace/proc-scan.ts';
import { attempt, type CaseResult, type Cases, compare, type Suite } from '../suite.ts';

const FOLDER = 'istio/cni/pkg/nodeagent/testdata';

export const suite: Suite = {
  suite: FOLDER,
  *run(cases: Cases): Iterable<CaseResult> {
    for (const name of cases.list(FOLDER)) {
      const root = cases.fixture(join(FOLDER, name));
      if (!existsSync(join(root, '0', 'cgroup'))) continue;
      yield attempt(name, () => {
        const found = Object.fromEntries(
          [...findPodProcesses(root)].map(([uid, { pid, startTime }]) => [uid, `${pid} since ${startTime}`]),
        );
        return compare(name, found, expected(root), 'oldest process of each pod');
      });
    }
  },
};

function expected(root: string): Record<string, string> {
  const oldest: Record<string, string> = {};
  for (const pid of readdirSync(root)) {
    const slice = /-pod([0-9a-f_]+)\.slice/.exec(readFileSync(join(root, pid, 'cgroup'), 'utf8'))?.[1];
    // The recorded names hold no blanks, so the fields can be counted from the front.
    const start = readFileSync(join(root, pid, 'stat'), 'utf8').split(' ')[21];
    if (slice === undefined || start === undefined) continue;
    const uid = slice.replaceAll('_', '-');
    const known = oldest[uid];
    if (known === undefined || Number(start) < Number(known.split(' ').at(-1))) oldest[uid] = `${pid} since ${start}`;
  }
  return oldest;
}
