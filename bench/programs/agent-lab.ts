/**
 * A node of its own for bench/agent.ts, started in an empty network namespace: an API server, pods that are network namespaces, a ztunnel
 * that acknowledges at once, and the real agent as a process. Prints its measurements as one line of JSON. Argument: the number of pods.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { NAT_TABLE } from '../../cni/rules/constants.ts';
import { Netns } from '../../common/linux/netns.ts';
import { openNftables } from '../../common/linux/nftables.ts';
import { SeqpacketSocket } from '../../common/linux/seqpacket.ts';
import { closeFd } from '../../common/linux/sockets.ts';
import { FakeKubeApi } from '../../test/support/fake-kube-api.ts';
import { ack, HELLO, requestText } from '../../test/support/zds-client.ts';
import { median } from '../rows.ts';

const PODS = '/api/v1/pods';
const NAMESPACES = '/api/v1/namespaces';
const REDIRECTION = 'ambient.istio.io/redirection';
const LABEL = 'istio.io/dataplane-mode';
const SINGLES = 30;
// Of /proc/PID/stat, the same on every Linux.
const MS_PER_TICK = 10;
const WAIT_MS = 120_000;

const root = join(import.meta.dirname, '../..');
const folder = mkdtempSync(join(tmpdir(), 'warren-bench-'));
const ends: (() => Promise<void> | void)[] = [];
const namespaces: Netns[] = [];
const count = Number(process.argv[2]);
let agent: ChildProcess | undefined;

try {
  console.log(JSON.stringify(await measure()));
} finally {
  agent?.kill('SIGKILL');
  for (const end of ends.reverse()) await end();
  for (const netns of namespaces) netns.close();
  rmSync(folder, { recursive: true, force: true });
}

async function measure(): Promise<Record<string, number>> {
  const kube = await FakeKubeApi.start({ after: (run) => void ends.push(run) });
  const annotated = watchAnnotations(kube);
  mkdirSync(join(folder, 'netns'));
  for (const name of ['single', 'many']) kube.put(NAMESPACES, { metadata: { name } });
  for (let i = 0; i < SINGLES; i++) makePod(kube, 'single', i);
  for (let i = 0; i < count; i++) makePod(kube, 'many', i);
  kube.put('/apis/apps/v1/daemonsets', { metadata: { namespace: 'istio-system', name: 'istio-cni-node' } });
  await startAgent(kube);
  let ztunnel = await connectZtunnel();

  const singles: number[] = [];
  const cpuBefore = cpuMs();
  for (let i = 0; i < SINGLES; i++) {
    const key = `single/pod-${i}`;
    const pod = kube.get(PODS, key);
    if (!pod) throw new Error(`no pod ${key}`);
    const begun = performance.now();
    kube.put(PODS, { ...pod, metadata: { ...pod.metadata, labels: { [LABEL]: 'ambient' } } });
    await annotated(key);
    singles.push(performance.now() - begun);
  }

  const singleCpuMs = (cpuMs() - cpuBefore) / SINGLES;

  const labelled = performance.now();
  kube.put(NAMESPACES, { metadata: { name: 'many', labels: { [LABEL]: 'ambient' } } });
  await Promise.all(Array.from({ length: count }, (_, i) => annotated(`many/pod-${i}`)));
  const manyMs = performance.now() - labelled;

  // Some have lost their rules while no agent looked: when all of them are mended, all pods have been looked at.
  agent?.kill('SIGKILL');
  await ztunnel.closed;
  const nftables = openNftables();
  if (!nftables) throw new Error('libnftables is not installed');
  const broken = namespaces.filter((_, i) => i % 50 === 0 || i === namespaces.length - 1);
  for (const netns of broken) await removeRules(netns);
  const intact = (): boolean => broken.every((netns) => netns.run(() => nftables.listTable('inet', NAT_TABLE)) !== undefined);
  const restarted = performance.now();
  await startAgent(kube);
  ztunnel = await connectZtunnel();
  await Promise.all([ztunnel.snapshot, until(intact)]);
  const restartMs = performance.now() - restarted;
  const restartCpuMs = cpuMs();
  return {
    singleMs: median(singles),
    singleWorstMs: Math.max(...singles),
    singleCpuMs,
    manyMs,
    restartMs,
    restartCpuMs,
    rssMegabytes: rss(),
  };
}

function makePod(kube: FakeKubeApi, namespace: string, i: number): void {
  const netns = Netns.create();
  namespaces.push(netns);
  netns.run(() => execFileSync('ip', ['link', 'set', 'lo', 'up']));
  const podIP = `10.${namespace === 'many' ? 1 : 2}.${i >> 8}.${i & 255}`;
  const { metadata } = kube.put(PODS, {
    metadata: { namespace, name: `pod-${i}` },
    spec: { nodeName: 'node-1', serviceAccountName: 'default' },
    status: { phase: 'Running', podIP, podIPs: [{ ip: podIP }] },
  });
  symlinkSync(`/proc/${process.pid}/fd/${netns.fd}`, join(folder, 'netns', metadata.uid ?? ''));
}

/** Applies what the agent patches. @returns resolves when the agent has said that a pod is enrolled */
function watchAnnotations(kube: FakeKubeApi): (key: string) => Promise<void> {
  const waiting = new Map<string, () => void>();
  const enabled = new Set<string>();
  kube.intercept = ({ method, path, body }) => {
    if (path.endsWith('/events')) return { status: 201 };
    const pod = /^\/api\/v1\/namespaces\/([^/]+)\/pods\/([^/]+)\/status$/.exec(path);
    if (method !== 'PATCH' || !pod) return undefined;
    const key = `${pod[1]}/${pod[2]}`;
    const existing = kube.get(PODS, key);
    if (!existing) return { status: 404 };
    const changed = (body as { metadata: { annotations: Record<string, string | null> } }).metadata.annotations;
    const merged = Object.entries({ ...existing.metadata.annotations, ...changed }).filter(
      (entry): entry is [string, string] => entry[1] !== null,
    );
    kube.put(PODS, { ...existing, metadata: { ...existing.metadata, annotations: Object.fromEntries(merged) } });
    if (changed[REDIRECTION] === 'enabled') {
      enabled.add(key);
      waiting.get(key)?.();
    }
    return { status: 200 };
  };
  return async (key) => {
    if (enabled.has(key)) return;
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`${key} was not enrolled; ${agentLog()}`)), WAIT_MS);
      waiting.set(key, () => {
        clearTimeout(timer);
        resolve();
      });
    });
  };
}

async function startAgent(kube: FakeKubeApi): Promise<void> {
  const kubeconfig = join(folder, 'kubeconfig');
  writeFileSync(
    kubeconfig,
    JSON.stringify({
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [{ name: 'c', cluster: { server: kube.url, 'certificate-authority-data': Buffer.from(kube.ca).toString('base64') } }],
      users: [{ name: 'u', user: { token: 'admin' } }],
      contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
      'current-context': 'x',
    }),
  );
  const logFile = openSync(join(folder, 'agent.log'), 'a');
  agent = spawn(process.execPath, [join(root, 'cni/main.ts')], {
    stdio: ['ignore', logFile, logFile],
    env: {
      PATH: process.env.PATH,
      KUBECONFIG: kubeconfig,
      NODE_NAME: 'node-1',
      POD_NETNS_DIR: join(folder, 'netns'),
      ZTUNNEL_UDS_ADDRESS: join(folder, 'ztunnel.sock'),
      CNI_AGENT_RUN_DIR: join(folder, 'run'),
      MOUNTED_CNI_NET_DIR: folder,
      MOUNTED_CNI_BIN_DIR: folder,
      WARREN_CNI_EXECUTABLE: '',
      NATIVE_NFTABLES: 'true',
      LOG_LEVEL: 'warn',
    },
  });
  closeSync(logFile);
  agent.on('exit', (code) => {
    if (code !== null && code !== 0) console.error(readFileSync(join(folder, 'agent.log'), 'utf8'));
  });
}

async function connectZtunnel(): Promise<{ readonly snapshot: Promise<void>; readonly closed: Promise<void> }> {
  let socket: SeqpacketSocket | undefined;
  await until(() => {
    try {
      socket = SeqpacketSocket.connect(join(folder, 'ztunnel.sock'));
      return true;
    } catch {
      // The agent is still starting.
      return false;
    }
  });
  const snapshot = Promise.withResolvers<void>();
  const closed = Promise.withResolvers<void>();
  socket?.onMessage((data, fds) => {
    for (const fd of fds) closeFd(fd);
    if (requestText(data) === 'snapshot sent') snapshot.resolve();
    socket?.send(ack());
  });
  socket?.onClose(() => closed.resolve());
  socket?.send(HELLO);
  const connected = socket;
  ends.push(() => connected?.close());
  return { snapshot: snapshot.promise, closed: closed.promise };
}

async function removeRules(netns: Netns): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const child = netns.run(() => spawn('nft', ['flush', 'ruleset'], { stdio: 'ignore' }));
    child.on('exit', (code) => (code === 0 ? resolve() : reject(new Error(`nft flush ruleset: exit status ${code}`))));
  });
}

async function until(condition: () => boolean): Promise<void> {
  const deadline = performance.now() + WAIT_MS;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`it did not happen within ${WAIT_MS} ms; ${agentLog()}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

const agentLog = (): string => readFileSync(join(folder, 'agent.log'), 'utf8').slice(0, 2000);

/** Processor time of the agent and of the programs that it has started, since its start. */
function cpuMs(): number {
  const stat = readFileSync(`/proc/${agent?.pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const ticks = fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0);
  return ticks * MS_PER_TICK;
}

/** Of the agent's process. */
function rss(): number {
  const status = readFileSync(`/proc/${agent?.pid}/status`, 'utf8');
  return Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1] ?? 0) / 1024;
}
