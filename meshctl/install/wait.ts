/** Waits until workloads have rolled out; what stands in the way is said as soon as it is seen, and ends the wait when it will not mend itself. */
import type { Clock } from '../../common/base/clock.ts';
import { KubeApiError, type KubeObject } from '../../common/client/kube-api.ts';
import { type Finding, failure, findingLine, oneLine } from '../check/finding.ts';
import { find, type InstallApi, pause } from './apply.ts';
import { objectPath, titleOf } from './kinds.ts';
import type { Progress } from './progress.ts';
import { creationTrouble, podTrouble, type Rollout, rolloutOf } from './rollout.ts';

export interface WaitOptions {
  readonly api: InstallApi;
  readonly clock: Clock;
  readonly timeoutMs: number;
  readonly progress: Progress;
  readonly colour: boolean;
}

const POLL_MS = 1000;
const MAX_LOG_CHARS = 300;

/** @returns what is wrong; empty where everything has come up. @throws what the API server's absence throws */
export async function waitForRollout(workloads: readonly KubeObject[], options: WaitOptions): Promise<Finding[]> {
  const { clock, timeoutMs, progress, colour } = options;
  const started = clock.monotonic();
  const firstSeen = new Map<string, number>();
  for (;;) {
    const seen = await Promise.all(workloads.map((workload) => look(workload, options)));
    progress.show(seen.map(({ rollout }) => rolloutLine(rollout)));
    if (seen.every(({ rollout }) => rollout.done)) return [];
    const troubles = seen.filter(({ rollout }) => !rollout.done).flatMap(({ troubles: found }) => found);
    const now = clock.monotonic();
    for (const trouble of troubles) {
      const key = `${trouble.check} ${trouble.mend}`;
      if (!firstSeen.has(key)) {
        firstSeen.set(key, now);
        // Only what is wrong for certain: a pod that is starting is not ready either.
        if (Number.isFinite(trouble.hopeMs)) progress.note(findingLine({ ...trouble, severity: 'warning' }, colour));
      }
    }
    const hopeless = troubles.filter((trouble) => now - (firstSeen.get(`${trouble.check} ${trouble.mend}`) ?? now) >= trouble.hopeMs);
    if (hopeless.length > 0) return hopeless.map(({ hopeMs: _, ...finding }) => finding);
    if (now - started >= timeoutMs) return unfinished(seen, timeoutMs);
    await pause(clock, Math.min(POLL_MS, Math.max(1, timeoutMs - (now - started))));
  }
}

interface Looked {
  readonly rollout: Rollout;
  readonly troubles: readonly (Finding & { readonly hopeMs: number })[];
}

function unfinished(seen: readonly Looked[], timeoutMs: number): Finding[] {
  return seen
    .filter(({ rollout }) => !rollout.done)
    .flatMap(({ rollout, troubles }) =>
      troubles.length > 0
        ? troubles.map(({ hopeMs: _, ...finding }) => finding)
        : [
            failure(
              rollout.title,
              `${rollout.ready} of ${rollout.wanted} ready after ${timeoutMs / 1000} s`,
              'wait longer by --timeout, or look at its pods',
            ),
          ],
    );
}

const rolloutLine = ({ title, ready, wanted, done }: Rollout): string => `${done ? '✔' : '…'} ${title}: ${ready} of ${wanted} ready`;

/** Pods on the same trouble are many on a large cluster: a few of them say enough. */
const MAX_TROUBLES = 3;

async function look(workload: KubeObject, { api }: WaitOptions): Promise<Looked> {
  const found = await find<KubeObject>(api, objectPath(workload));
  if (!found) {
    const missing = failure(titleOf(workload), 'is gone', 'somebody deleted it: run the command again');
    return { rollout: { title: titleOf(workload), ready: 0, wanted: 1, done: false }, troubles: [{ ...missing, hopeMs: 0 }] };
  }
  const current: KubeObject = { ...found, kind: workload.kind ?? '', apiVersion: workload.apiVersion ?? '' };
  const rollout = rolloutOf(current);
  if (rollout.done) return { rollout, troubles: [] };
  const { namespace = '' } = workload.metadata;
  const labels = (current.spec as { selector?: { matchLabels?: Record<string, string> } } | undefined)?.selector?.matchLabels ?? {};
  const labelSelector = Object.entries(labels)
    .map(([key, value]) => `${key}=${value}`)
    .join(',');
  const [pods, events] = await Promise.all([
    api.list<KubeObject>(`/api/v1/namespaces/${namespace}/pods`, { labelSelector }),
    api.list<KubeObject>(`/api/v1/namespaces/${namespace}/events`).catch(nothing),
  ]);
  const troubles: (Finding & { hopeMs: number })[] = creationTrouble(current, events).map((finding) => ({ ...finding, hopeMs: 20_000 }));
  for (const pod of pods.filter(({ metadata }) => metadata.deletionTimestamp === undefined)) {
    if (troubles.length >= MAX_TROUBLES) break;
    const trouble = podTrouble(pod, events, await lastLines(api, pod));
    if (trouble) troubles.push(trouble);
  }
  return { rollout, troubles };
}

/** The last thing that containers said before they ended. */
async function lastLines(api: InstallApi, pod: KubeObject): Promise<Map<string, string>> {
  const { containerStatuses = [] } = (pod.status ?? {}) as { containerStatuses?: { name: string; lastState?: { terminated?: object } }[] };
  const lines = new Map<string, string>();
  for (const { name, lastState } of containerStatuses) {
    if (!lastState?.terminated) continue;
    const path = `/api/v1/namespaces/${pod.metadata.namespace}/pods/${pod.metadata.name}/log`;
    const text = await api.getText(path, { container: name, previous: true, tailLines: 20 }).catch(() => '');
    const line = lastTelling(text);
    if (line) lines.set(name, line);
  }
  return lines;
}

/** The last line that says something: not a stack, not Node's version. */
export function lastTelling(text: string): string | undefined {
  const lines = text.split('\n').map(oneLine);
  return lines
    .findLast((line) => line !== '' && !/^(at |Node\.js v|[{}[\]^]|code: |unable to retrieve container logs)/.test(line))
    ?.slice(0, MAX_LOG_CHARS);
}

/** Without the right to read events the rest is said all the same. */
function nothing(error: unknown): KubeObject[] {
  if (error instanceof KubeApiError) return [];
  throw error;
}
