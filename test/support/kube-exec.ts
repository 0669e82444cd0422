/**
 * Commands in pods, as `kubectl exec` has them run (its WebSocket protocol, v4.channel.k8s.io), from this process: tests ask hundreds of times,
 * and each kubectl would take as much of a processor as what it starts. That the real kubectl's exec works is a test of its own
 * (mesh/kubectl.test.ts), and the demo calls it throughout.
 */
import WebSocket from 'ws';
import type { ApiReader } from './kube-reader.ts';

export interface Executed {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

interface RawPod {
  readonly metadata: { readonly name: string; readonly deletionTimestamp?: string };
  readonly status: { readonly phase?: string; readonly conditions?: readonly { readonly type: string; readonly status: string }[] };
}

interface RawStatus {
  readonly status?: string;
  readonly message?: string;
  readonly details?: { readonly causes?: readonly { readonly reason?: string; readonly message?: string }[] };
}

const PROTOCOL = 'v4.channel.k8s.io';
const [STDIN, STDOUT, STDERR, STATUS] = [0, 1, 2, 3];

/** @param pod `name` or `deploy/name`. @returns the command's exit status, or 1 with the reason in `stderr` where it did not come to run or to an end */
export async function execInPod(
  api: ApiReader,
  namespace: string,
  pod: string,
  argv: readonly string[],
  timeoutMs: number,
): Promise<Executed> {
  try {
    return await run(api, await urlOf(api, namespace, pod), argv, timeoutMs);
  } catch (error) {
    return { code: 1, stdout: '', stderr: error instanceof Error ? error.message : String(error) };
  }
}

/** Of the pod's first container, as kubectl chooses: the API server wants it named where there are several. */
async function urlOf(api: ApiReader, namespace: string, pod: string): Promise<string> {
  const name = pod.startsWith('deploy/') ? await podOf(api, namespace, pod.slice('deploy/'.length)) : pod;
  const path = `/api/v1/namespaces/${namespace}/pods/${name}`;
  const { spec } = (await api.read(path)) as { readonly spec: { readonly containers: readonly { readonly name: string }[] } };
  return `${path}/exec?container=${spec.containers[0]?.name ?? ''}`;
}

/** A ready pod of a Deployment rather than one that is not, as kubectl chooses. */
async function podOf(api: ApiReader, namespace: string, deployment: string): Promise<string> {
  const { spec } = (await api.read(`/apis/apps/v1/namespaces/${namespace}/deployments/${deployment}`)) as {
    spec: { selector: { matchLabels?: Record<string, string> } };
  };
  const selector = Object.entries(spec.selector.matchLabels ?? {}).map(([key, value]) => `${key}=${value}`);
  const { items } = (await api.read(`/api/v1/namespaces/${namespace}/pods?labelSelector=${encodeURIComponent(selector.join(','))}`)) as {
    items: readonly RawPod[];
  };
  const running = items.filter(({ metadata, status }) => metadata.deletionTimestamp === undefined && status.phase === 'Running');
  const isReady = ({ status }: RawPod): boolean => (status.conditions ?? []).some((one) => one.type === 'Ready' && one.status === 'True');
  const chosen = running.find(isReady) ?? running[0];
  if (!chosen) throw new Error(`no pod of deploy/${deployment} in ${namespace} runs`);
  return chosen.metadata.name;
}

function run(api: ApiReader, url: string, argv: readonly string[], timeoutMs: number): Promise<Executed> {
  return new Promise((resolve) => {
    const output: Record<number, Buffer[]> = { [STDOUT]: [], [STDERR]: [] };
    const text = (channel: number): string => Buffer.concat(output[channel] ?? []).toString();
    const socket = open(api, url, argv, { stdin: false, onOutput: (channel, data) => output[channel]?.push(data), onEnd: end });
    const timer = setTimeout(() => {
      socket.terminate();
      end(1, `no end after ${timeoutMs / 1000} s`);
    }, timeoutMs);
    function end(code: number, complaint: string): void {
      clearTimeout(timer);
      resolve({ code, stdout: text(STDOUT), stderr: text(STDERR) + complaint });
    }
  });
}

interface Listeners {
  readonly stdin: boolean;
  onOutput(channel: number, data: Buffer): void;
  /** May be called more than once; the first call counts. */
  onEnd(code: number, complaint: string): void;
}

function open(api: ApiReader, url: string, argv: readonly string[], { stdin, onOutput, onEnd }: Listeners): WebSocket {
  const streams = { stdin: String(stdin), stdout: 'true', stderr: 'true' };
  const query = new URLSearchParams([...argv.map((word): [string, string] => ['command', word]), ...Object.entries(streams)]);
  const { server, ca, authorization } = api.access();
  const socket = new WebSocket(new URL(`${url}&${query}`, server.replace(/^http/, 'ws')), PROTOCOL, { ca, headers: { authorization } });
  let said = '';
  socket.on('message', (data: Buffer) => {
    if (data[0] === STATUS) said += data.toString('utf8', 1);
    else onOutput(data[0] ?? -1, data.subarray(1));
  });
  socket.on('error', (error) => onEnd(1, error.message));
  socket.on('close', () => {
    if (said === '') return onEnd(1, 'the stream ended without a status');
    const { status, message = '', details } = JSON.parse(said) as RawStatus;
    if (status === 'Success') return onEnd(0, '');
    const exit = details?.causes?.find(({ reason }) => reason === 'ExitCode')?.message;
    onEnd(exit === undefined ? 1 : Number(exit), message);
  });
  return socket;
}

/** A program in a pod that goes on, and answers each line that it is told with a line. */
export interface Companion {
  /** One question after the other. @throws where the program has ended */
  ask(line: string): Promise<string>;
  end(): void;
}

/**
 * Multi-byte characters may come in two pieces: answers are ASCII. The program sees the end of its standard input when it is to end.
 * @param pod `name` or `deploy/name`. @throws where there is no such pod
 */
export async function startCompanion(api: ApiReader, namespace: string, pod: string, argv: readonly string[]): Promise<Companion> {
  const waiting: PromiseWithResolvers<string>[] = [];
  let rest = '';
  let complaint = '';
  let ended: string | undefined;
  const socket = open(api, await urlOf(api, namespace, pod), argv, {
    stdin: true,
    onOutput(channel, data) {
      if (channel === STDERR) complaint += data.toString();
      if (channel !== STDOUT) return;
      const lines = (rest + data.toString()).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) waiting.shift()?.resolve(line);
    },
    onEnd(code, why) {
      ended ??= `the program in ${namespace}/${pod} ended with ${code}: ${complaint}${why}`;
      for (const { reject } of waiting.splice(0)) reject(new Error(ended));
    },
  });
  await new Promise<void>((resolve) => socket.once('open', () => resolve()).once('close', () => resolve()));
  return {
    async ask(line) {
      if (ended !== undefined) throw new Error(ended);
      const answer = Promise.withResolvers<string>();
      waiting.push(answer);
      socket.send(Buffer.concat([Buffer.of(STDIN), Buffer.from(`${line}\n`)]));
      return await answer.promise;
    },
    end: () => socket.terminate(),
  };
}
