/** What the API server asks of kubelets for `kubectl logs`, `exec` and `port-forward`, answered by the node's Kubelet. */
import { PassThrough } from 'node:stream';
import { ApiError } from '../apiserver/api-error.ts';
import type { KubeletStreams, LogOptions, PodReference } from '../apiserver/kubelet.ts';
import { type Kubelet, StreamError } from '../kubelet/kubelet.ts';
import type { LogBuffer, LogLine } from '../kubelet/log-buffer.ts';

/** Lines that a slow follower may be behind before it loses some. */
const MOST_PENDING = 10_000;

export const kubeletStreams =
  (kubelets: ReadonlyMap<string, Kubelet>) =>
  (nodeName: string): KubeletStreams | undefined => {
    const kubelet = kubelets.get(nodeName);
    if (!kubelet) return undefined;
    return {
      logs: (pod, container, options) =>
        logs(
          answering(() => kubelet.log(pod.uid, container, options.previous)),
          options,
        ),
      exec: async (pod, container, command, options) => answering(() => startExec(kubelet, pod, container, command, options)),
      portForward: async (pod, port) => kubelet.portForward(pod.uid, port),
    };
  };

function startExec(
  kubelet: Kubelet,
  pod: PodReference,
  container: string,
  command: readonly string[],
  options: { stdin: boolean; tty: boolean },
) {
  const { child, resize, end } = kubelet.exec(pod.uid, container, command, options);
  const exit = new Promise<{ code: number; signal?: string }>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => resolve(signal ? { code: 137, signal } : { code: code ?? 1 }));
  });
  child.stdin?.on('error', () => undefined);
  return {
    ...(child.stdin ? { stdin: child.stdin } : {}),
    stdout: child.stdout ?? new PassThrough().end(),
    ...(child.stderr && !options.tty ? { stderr: child.stderr } : {}),
    exit,
    resize,
    kill: end,
  };
}

async function* logs(buffer: LogBuffer, options: LogOptions): AsyncGenerator<Buffer> {
  const sinceMs =
    options.sinceTime !== undefined
      ? Date.parse(options.sinceTime)
      : options.sinceSeconds !== undefined
        ? Date.now() - options.sinceSeconds * 1000
        : undefined;
  let left = options.limitBytes ?? Number.POSITIVE_INFINITY;
  const bytes = ({ atMs, text }: LogLine): Buffer => {
    const line = Buffer.from(`${options.timestamps ? `${new Date(atMs).toISOString().replace('Z', '000000Z')} ` : ''}${text}\n`);
    const cut = line.length > left ? line.subarray(0, left) : line;
    left -= cut.length;
    return cut;
  };
  const pending: LogLine[] = buffer.read({ tailLines: options.tailLines, sinceMs });
  let ended = false;
  let wake: () => void = () => undefined;
  const unfollow = options.follow
    ? buffer.follow({
        line(line) {
          if (pending.length < MOST_PENDING) pending.push(line);
          wake();
        },
        end() {
          ended = true;
          wake();
        },
      })
    : () => undefined;
  try {
    for (;;) {
      const batch = pending.splice(0).map(bytes);
      if (batch.length > 0) yield Buffer.concat(batch);
      if (left <= 0 || (!options.follow && pending.length === 0) || (ended && pending.length === 0)) return;
      if (pending.length === 0) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    }
  } finally {
    unfollow();
  }
}

/** The kubelet's refusals, with their status. */
function answering<T>(run: () => T): T {
  try {
    return run();
  } catch (error) {
    if (error instanceof StreamError)
      throw error.status === 404 ? new ApiError(404, 'NotFound', error.message) : ApiError.badRequest(error.message);
    throw error;
  }
}
