/**
 * From a control plane's push to its effect on connections, and what a push of a whole mesh does to a connection that is open: a ztunnel with two
 * workers carries both ends of a pair of pods.
 */
import { type ChildProcess, type Serializable, spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { startNodeAgent } from '../test/support/fake-node-agent.ts';
import { makeNetns, type TestNetns } from '../test/support/netns.ts';
import { makePair, meshYaml, NAMESPACE, type Pair } from '../test/support/pair.ts';
import { controlled, podInfo, startEcho } from '../test/support/pair-programs.ts';
import type { ProbeOrder } from './programs/connection-probe.ts';
import type { PushOrder } from './programs/push-source.ts';
import { absoluteRow, type Bench, type Row } from './rows.ts';
import { ztunnelCommand } from './support/release.ts';
import { testContext, unwindable } from './support/unwinding.ts';

const PORT = 8080;
/** Enough that the 99th percentile is not the worst of all. */
const PUSHES = 400;
const WORKLOADS = 100_000;
/** As long as a full push may take. */
const IDLE_MS = 2000;
/** V8's memory reducer waits for eight seconds of quiet. */
const SETTLE_MS = 12_000;

const DENY = `
- name: nobody
  namespace: ${NAMESPACE}
  scope: Namespace
  action: Deny
  rules: [[[{destinationPorts: [${PORT}]}]]]
`;

interface Told {
  readonly event: string;
  readonly at: number;
  readonly longestMs?: number;
}

/** A program of this bench: what it is told to do, and what it tells. */
interface Conversation<Order extends Serializable> {
  say(order: Order): void;
  /** The next event of this name. */
  hear(event: string): Promise<Told>;
}

export const bench: Bench = {
  name: 'pushes',
  doc: `from an xDS push to its effect, and what a push of ${WORKLOADS} workloads does to an open connection and to memory`,
  async run() {
    await using stack = unwindable();
    const t = testContext(stack);
    const pair = await makePair(t);
    const home = makeNetns(t);
    await startEcho(t, pair.server.netns, PORT);
    const source = start<PushOrder>(t, home, 'push-source.ts', ['15010', pair.config, String(WORKLOADS)]);
    await source.hear('listening');
    const pid = await startZtunnel(t, pair, home);
    const probe = (): Conversation<ProbeOrder> =>
      start<ProbeOrder>(t, pair.client.netns, 'connection-probe.ts', [pair.server.v4, String(PORT)]);
    const effects = await effectRows(pair, source, probe());
    return [...effects, ...(await fullPushRows(pid, source, probe()))];
  },
};

/** A policy that closes the port comes and goes: until an open connection has ended, and until one can be opened. */
async function effectRows(pair: Pair, source: Conversation<PushOrder>, probe: Conversation<ProbeOrder>): Promise<Row[]> {
  const open = { yaml: meshYaml(pair.client, pair.server, {}) };
  const closed = { yaml: meshYaml(pair.client, pair.server, { policies: DENY }) };
  const took: number[] = [];
  for (let i = 0; i < PUSHES; i++) {
    probe.say('hold');
    await probe.hear('open');
    const ended = probe.hear('closed');
    const { pushed } = await push(source, closed);
    took.push((await ended).at - pushed.at);
    await push(source, open);
  }
  took.sort((a, b) => a - b);
  const at = (part: number): number => took[Math.ceil(took.length * part) - 1] ?? Number.NaN;
  const row = { bench: 'pushes', case: 'a DENY policy, until the open connection has ended', unit: 'ms', better: 'less' } as const;
  return [absoluteRow({ ...row, metric: 'p50', ours: at(0.5) }), absoluteRow({ ...row, metric: 'p99', ours: at(0.99), target: 20 })];
}

async function fullPushRows(pid: number, source: Conversation<PushOrder>, probe: Conversation<ProbeOrder>): Promise<Row[]> {
  const longest = async (meanwhile: () => Promise<unknown>): Promise<number> => {
    probe.say('ping');
    await sleep(500);
    await meanwhile();
    const stopped = probe.hear('stopped');
    probe.say('stop');
    return (await stopped).longestMs ?? Number.NaN;
  };
  const idle = await longest(() => sleep(IDLE_MS));
  const before = residentMegabytes(pid);
  forgetPeak(pid);
  let appliedMs = Number.NaN;
  const during = await longest(async () => {
    const { pushed, acked } = await push(source, 'everything');
    appliedMs = acked.at - pushed.at;
    // Until the workers have looked at it too.
    await sleep(500);
  });
  const peak = residentMegabytes(pid, 'VmHWM');
  await sleep(SETTLE_MS);
  const row = { bench: 'pushes', case: `${WORKLOADS} workloads at once`, unit: 'ms', better: 'less' } as const;
  return [
    absoluteRow({ ...row, metric: 'applied and acknowledged', ours: appliedMs, target: 2000 }),
    absoluteRow({ ...row, metric: 'longest round trip before', ours: idle }),
    absoluteRow({ ...row, metric: 'longest round trip meanwhile', ours: during, target: 50 }),
    absoluteRow({ ...row, metric: 'resident memory more at the peak', unit: 'MB', ours: peak - before, target: 250 }),
    absoluteRow({ ...row, metric: 'resident memory more afterwards', unit: 'MB', ours: residentMegabytes(pid) - before, target: 250 }),
  ];
}

/** Resolves when it is acknowledged. */
async function push(source: Conversation<PushOrder>, order: PushOrder): Promise<{ readonly pushed: Told; readonly acked: Told }> {
  const heard = [source.hear('pushed'), source.hear('acked')] as const;
  source.say(order);
  const [pushed, acked] = await Promise.all(heard);
  return { pushed, acked };
}

/** @returns its process, when it serves both pods */
async function startZtunnel(t: TestContext, pair: Pair, home: TestNetns): Promise<number> {
  const agent = startNodeAgent(t, join(pair.folder, 'ztunnel.sock'));
  const ztunnel = spawn('nsenter', [`--net=${home.path}`, '--', ...ztunnelCommand()], {
    env: {
      PATH: process.env.PATH ?? '',
      CERT_DIR: pair.certificates,
      INPOD_UDS: agent.path,
      CA_ADDRESS: '',
      ZTUNNEL_WORKER_THREADS: '2',
      RUST_LOG: 'warn',
      ISTIO_META_DNS_CAPTURE: 'false',
      ...controlled,
    },
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  endWith(t, ztunnel);
  const connection = await agent.connection(0);
  for (const pod of [pair.client, pair.server]) {
    const problem = await connection.add(`uid-${pod.name}`, podInfo(pod), pod.netns.netns.fd);
    if (problem !== '') throw new Error(`${pod.name}: ${problem}`);
  }
  await connection.snapshotSent();
  return ztunnel.pid ?? 0;
}

function start<Order extends Serializable>(
  t: TestContext,
  { path }: TestNetns,
  program: string,
  args: readonly string[],
): Conversation<Order> {
  const file = join(import.meta.dirname, 'programs', program);
  const child = spawn('nsenter', [`--net=${path}`, '--', process.execPath, file, ...args], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  endWith(t, child);
  const heard: Told[] = [];
  const waiting: { readonly event: string; tell(told: Told): void; fail(error: Error): void }[] = [];
  child.on('message', (message) => {
    const told = message as Told;
    const at = waiting.findIndex(({ event }) => event === told.event);
    if (at < 0) heard.push(told);
    else waiting.splice(at, 1)[0]?.tell(told);
  });
  child.once('exit', (code) => {
    for (const { fail } of waiting) fail(new Error(`${program} ended with ${code}`));
  });
  return {
    say: (order) => void child.send(order),
    hear: (event) => {
      const at = heard.findIndex((told) => told.event === event);
      const [told] = at < 0 ? [] : heard.splice(at, 1);
      if (told) return Promise.resolve(told);
      return new Promise((tell, fail) => {
        waiting.push({ event, tell, fail });
      });
    },
  };
}

function endWith(t: TestContext, child: ChildProcess): void {
  const ended = new Promise((resolve) => child.once('exit', resolve));
  t.after(async () => {
    child.kill('SIGKILL');
    await ended;
  });
}

/** @param field now, or the most since `forgetPeak` */
function residentMegabytes(pid: number, field: 'VmRSS' | 'VmHWM' = 'VmRSS'): number {
  const [, kilobytes] = new RegExp(`${field}:\\s+(\\d+)`).exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
  return Number(kilobytes) / 1024;
}

/** proc(5), clear_refs. */
const forgetPeak = (pid: number): void => writeFileSync(`/proc/${pid}/clear_refs`, '5');

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
