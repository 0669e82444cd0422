/** The shop on its playground, as the story sees it: kubectl, calls from pods, the wire between the nodes, logs and metrics. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Narrator, StepFailed } from './narrator.ts';

export interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Pod {
  readonly name: string;
  readonly node: string;
  readonly ip: string;
  readonly uid: string;
  readonly restarts: number;
  readonly annotations: Readonly<Record<string, string>>;
}

const root = join(import.meta.dirname, '../..');
const START_TIMEOUT_MS = 60_000;
const POLL_MS = 100;
const LONGEST_POLL_MS = 1000;

export class Shop {
  readonly kubeconfig: string;
  /** Resolves when the playground has ended, for whatever reason. */
  readonly ended: Promise<void>;
  /** Where it is ours to end. */
  readonly #playground: ChildProcess | undefined;

  private constructor(playground: ChildProcess | undefined, kubeconfig: string) {
    this.#playground = playground;
    this.kubeconfig = kubeconfig;
    this.ended = new Promise((resolve) => playground?.once('exit', () => resolve()));
  }

  /** On a playground that runs already, with the mesh. */
  static attach(kubeconfig: string): Shop {
    return new Shop(undefined, kubeconfig);
  }

  /** @throws {StepFailed} where the playground does not come up */
  static async start(name: string, narrator: Narrator): Promise<Shop> {
    narrator.chapter('A cluster of two nodes, with the mesh installed and nobody in it');
    const folder = mkdtempSync(join(tmpdir(), 'warren-demo-'));
    const kubeconfig = join(folder, 'kubeconfig');
    const ready = join(folder, 'ready');
    const args = [
      join(root, 'playground/main.ts'),
      'up',
      '--name',
      name,
      '--nodes',
      '2',
      '--mesh',
      '--kubeconfig',
      kubeconfig,
      '--ready-file',
      ready,
    ];
    const playground = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'pipe'] });
    const complaints: string[] = [];
    playground.stderr?.setEncoding('utf8').on('data', (text: string) => complaints.splice(0, complaints.length - 200, ...complaints, text));
    const shop = new Shop(playground, kubeconfig);
    void shop.ended.then(() => rmSync(folder, { recursive: true, force: true }));
    await narrator.during(
      'the playground is up',
      shop.#until(
        () => readFileSync(ready, 'utf8') !== undefined,
        START_TIMEOUT_MS,
        () => complaints.join(''),
      ),
    );
    narrator.command(`export KUBECONFIG=${kubeconfig}`);
    return shop;
  }

  async stop(): Promise<void> {
    if (!this.#playground) return;
    if (this.#playground.exitCode === null && this.#playground.signalCode === null) this.#playground.kill('SIGTERM');
    await this.ended;
  }

  /** Runs kubectl to its end, whatever its exit status. */
  kubectl(...args: readonly string[]): Promise<Ran> {
    return this.#run('kubectl', args);
  }

  /** kubectl that must succeed. @throws {StepFailed} with what it said */
  async must(...args: readonly string[]): Promise<string> {
    const { code, stdout, stderr } = await this.kubectl(...args);
    if (code !== 0) throw new StepFailed(`kubectl ${args.join(' ')} failed: ${stderr.trim() || stdout.trim()}`);
    return stdout;
  }

  meshctl(...args: readonly string[]): Promise<Ran> {
    return this.#run(process.execPath, [join(root, 'meshctl/main.ts'), ...args]);
  }

  /** Applies a manifest from a string. */
  async apply(manifest: string): Promise<void> {
    const { code, stderr } = await this.#run('kubectl', ['apply', '-f', '-'], manifest);
    if (code !== 0) throw new StepFailed(`kubectl apply failed: ${stderr.trim()}`);
  }

  /** One request by the echo client inside a pod of a Deployment; its lines are the answer, its exit status says whether there was one. */
  call(namespace: string, deployment: string, ...request: readonly string[]): Promise<Ran> {
    return this.kubectl('exec', '-n', namespace, `deploy/${deployment}`, '--', 'client', ...request);
  }

  async pods(namespace: string): Promise<Pod[]> {
    const list = JSON.parse(await this.must('get', 'pods', '-n', namespace, '-o', 'json')) as { items: RawPod[] };
    return list.items
      .filter(({ metadata }) => metadata.deletionTimestamp === undefined)
      .map(({ metadata, spec, status }) => ({
        name: metadata.name,
        node: spec.nodeName,
        ip: status.podIP ?? '',
        uid: metadata.uid,
        restarts: (status.containerStatuses ?? []).reduce((sum, { restartCount }) => sum + restartCount, 0),
        annotations: metadata.annotations ?? {},
      }));
  }

  /** What passes between the nodes while `during` runs: tcpdump's text for the given filter. */
  async wire(filter: string, during: () => Promise<unknown>): Promise<string> {
    const capture = spawn(
      'kubectl',
      ['exec', '-n', 'wire', 'tap', '--', 'timeout', '10', 'tcpdump', '-i', 'eth0', '-n', '-l', '-A', '-s', '0', ...filter.split(' ')],
      {
        env: this.#env,
        stdio: ['ignore', 'pipe', 'pipe'],
      },
    );
    let text = '';
    let said = '';
    capture.stdout.setEncoding('latin1').on('data', (chunk: string) => {
      text += chunk;
    });
    capture.stderr.setEncoding('utf8').on('data', (chunk: string) => {
      said += chunk;
    });
    const exited = new Promise<void>((resolve) => capture.once('exit', () => resolve()));
    await this.#until(
      () => said.includes('listening on'),
      10_000,
      () => `tcpdump did not start: ${said}`,
    );
    await during();
    // tcpdump hands packets over in blocks; what was sent just now comes with the next one.
    await this.#until(
      () => text !== '',
      5_000,
      () => 'tcpdump saw nothing',
    );
    await pause(500);
    await this.kubectl('exec', '-n', 'wire', 'tap', '--', 'pkill', '-x', 'tcpdump');
    await exited;
    return text;
  }

  /** Access-log lines of the ztunnel on a node that contain every word. Polls, since a line is written when its connection has ended. */
  async accessLog(node: string, words: readonly string[]): Promise<string> {
    const pod = (await this.pods('istio-system')).find(({ name, node: on }) => on === node && name.startsWith('ztunnel-'));
    if (!pod) throw new StepFailed(`no ztunnel on ${node}`);
    let found: string | undefined;
    await this.#until(
      async () => {
        const lines = (await this.must('logs', '-n', 'istio-system', pod.name, '--tail=400')).split('\n');
        found = lines.filter((line) => words.every((word) => line.includes(word))).at(-1);
        return found !== undefined;
      },
      10_000,
      () => `no line with ${words.join(', ')} in the log of ${pod.name}`,
    );
    return found ?? '';
  }

  /** A metrics page through the API server's proxy. */
  metrics(pod: Pod, port: number): Promise<string> {
    return this.must('get', '--raw', `/api/v1/namespaces/istio-system/pods/${pod.name}:${port}/proxy/metrics`);
  }

  /** Polls until `holds`, or fails with what the complaint says. */
  async eventually(holds: () => Promise<boolean> | boolean, complaint: () => string, timeoutMs = 15_000): Promise<void> {
    await this.#until(holds, timeoutMs, complaint);
  }

  /** What helps to understand a failed step. */
  async evidence(): Promise<string> {
    const asked = await Promise.all([
      this.meshctl('status'),
      this.kubectl('get', 'pods', '-A', '-o', 'wide'),
      this.kubectl('logs', '-n', 'istio-system', '-l', 'app=istiod', '--tail=20'),
      this.kubectl('logs', '-n', 'istio-system', '-l', 'app=istio-cni-node', '--tail=20'),
      this.kubectl('logs', '-n', 'istio-system', '-l', 'app=ztunnel', '--tail=20'),
    ]);
    return asked.map(({ stdout, stderr }) => `${stdout}${stderr}`).join('\n');
  }

  async #until(holds: () => Promise<boolean> | boolean, timeoutMs: number, complaint: () => string): Promise<void> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const askedMs = performance.now();
      if (this.#playground && this.#playground.exitCode !== null) throw new StepFailed(`the playground ended: ${complaint()}`);
      try {
        if (await holds()) return;
      } catch (error) {
        if (error instanceof StepFailed) throw error;
        // A file that is not there yet, for example: the deadline decides.
      }
      const now = performance.now();
      if (now > deadline) throw new StepFailed(complaint());
      // What takes long to ask is asked less often: asking must not be what keeps the machine busy.
      await pause(Math.min(Math.max(POLL_MS, 2 * (now - askedMs)), LONGEST_POLL_MS));
    }
  }

  get #env(): NodeJS.ProcessEnv {
    return { ...process.env, KUBECONFIG: this.kubeconfig };
  }

  #run(program: string, args: readonly string[], input?: string): Promise<Ran> {
    return new Promise((resolve) => {
      const child = execFile(program, [...args], { env: this.#env, maxBuffer: 64 << 20, timeout: 60_000 }, (error, stdout, stderr) => {
        const code = error === null ? 0 : typeof error.code === 'number' ? error.code : 1;
        resolve({ code, stdout, stderr });
      });
      child.stdin?.end(input);
    });
  }
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

interface RawPod {
  readonly metadata: {
    readonly name: string;
    readonly uid: string;
    readonly annotations?: Record<string, string>;
    readonly deletionTimestamp?: string;
  };
  readonly spec: { readonly nodeName: string };
  readonly status: { readonly podIP?: string; readonly containerStatuses?: readonly { readonly restartCount: number }[] };
}
