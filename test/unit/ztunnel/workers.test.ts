import assert from 'node:assert/strict';
import { test } from 'node:test';
import { silentLog } from '../../../common/base/log.ts';
import { createSegment, SeriesReader, SeriesWriter } from '../../../common/server/shared-series.ts';
import { metricFamilies, metrics } from '../../../ztunnel/metrics.ts';
import type { FromWorker, PodSpec, ToWorker, WorkerStart } from '../../../ztunnel/protocol.ts';
import { readZtunnelSettings } from '../../../ztunnel/settings.ts';
import { WorkerFleet, type WorkerThread } from '../../../ztunnel/supervisor/workers.ts';
import { sharedGathering } from '../../../ztunnel/worker/gathering.ts';
import { FakeClock } from '../../support/fake-clock.ts';

class FakeThread implements WorkerThread {
  readonly threadId: number;
  readonly start: WorkerStart;
  readonly sent: ToWorker[] = [];
  terminated = false;
  #message: (message: FromWorker) => void = () => undefined;
  #exit: (code: number) => void = () => undefined;

  constructor(threadId: number, start: WorkerStart) {
    this.threadId = threadId;
    this.start = start;
  }
  postMessage(message: ToWorker): void {
    this.sent.push(message);
  }
  async terminate(): Promise<void> {
    if (this.terminated) return;
    this.terminated = true;
    this.#exit(1);
  }
  onMessage(listener: (message: FromWorker) => void): void {
    this.#message = listener;
  }
  onError(): void {}
  onExit(listener: (code: number) => void): void {
    this.#exit = listener;
  }
  says(message: FromWorker): void {
    this.#message(message);
  }
  beat(): void {
    Atomics.add(new Int32Array(this.start.heartbeat), 0, 1);
  }
  exits(code = 1): void {
    this.terminated = true;
    this.#exit(code);
  }
  of<T extends ToWorker['type']>(type: T): Extract<ToWorker, { type: T }>[] {
    return this.sent.filter((message): message is Extract<ToWorker, { type: T }> => message.type === type);
  }
}

async function fleetOf(workers: number) {
  const clock = new FakeClock();
  const threads: FakeThread[] = [];
  const wanted: string[] = [];
  const ended: number[] = [];
  const cpu = new Map<number, number>();
  let stuck = 0;
  const reader = new SeriesReader(metricFamilies);
  const segment = createSegment(100);
  reader.attach(-1, segment);
  const fleet = new WorkerFleet({
    spawn: (start) => {
      const thread = new FakeThread(threads.length + 1, start);
      threads.push(thread);
      return thread;
    },
    settings: { ...readZtunnelSettings({}), workers },
    state: { arena: new SharedArrayBuffer(8), control: new SharedArrayBuffer(8) },
    nameservers: [],
    onThreadEnded: (thread) => ended.push(thread),
    clock,
    log: silentLog,
    reader,
    series: new SeriesWriter(segment, (announcement) => reader.announce(-1, [announcement])),
    onRefused: () => undefined,
    onTapped: () => undefined,
    openFiles: 20_000,
    onUsage: () => undefined,
    threadCpuMs: (tid) => cpu.get(tid),
    onStuck: () => void stuck++,
    onCertificateWanted: (identity) => wanted.push(identity),
  });
  const started = fleet.start();
  for (const thread of [...threads]) thread.says({ type: 'ready', tid: thread.threadId });
  await started;
  threads.at(-1)?.says({ type: 'ready', tid: threads.length });
  const thread = (i: number): FakeThread => {
    const found = threads[i];
    assert.ok(found);
    return found;
  };
  /** Seconds in which all workers but the given ones are alive. */
  const seconds = async (count: number, ...hanging: FakeThread[]): Promise<void> => {
    for (let i = 0; i < count; i++) {
      for (let quarter = 0; quarter < 4; quarter++) {
        for (const one of threads) if (!hanging.includes(one)) one.beat();
        await clock.advance(250);
      }
    }
  };
  return { fleet, clock, threads, thread, wanted, ended, reader, seconds, cpu, stuck: () => stuck };
}

const pod: PodSpec = {
  uid: 'a',
  info: { name: 'a', namespace: 'shop', serviceAccount: 'a' },
  netnsFd: 7,
  kind: 'pod',
  gathering: sharedGathering(),
};
const certificate = { identity: 'spiffe://cluster.local/ns/shop/sa/a', key: 'key', chain: 'chain', roots: 'roots' };

test('a pod is served when every worker listens for it', async () => {
  const { fleet, thread } = await fleetOf(2);
  let served = false;
  const adding = fleet.addPod(pod).then(() => (served = true));
  thread(0).says({ type: 'pod-bound', uid: 'a' });
  await Promise.resolve();
  assert.equal(served, false);
  thread(1).says({ type: 'pod-bound', uid: 'a' });
  await adding;
});

test('where one worker cannot listen nobody does, and the reason is told', async () => {
  const { fleet, thread } = await fleetOf(2);
  const adding = fleet.addPod(pod);
  thread(0).says({ type: 'pod-bound', uid: 'a' });
  thread(1).says({ type: 'pod-bound', uid: 'a', problem: 'port taken' });
  await assert.rejects(adding, /port taken/);
  assert.deepEqual(thread(0).of('pod-remove'), [{ type: 'pod-remove', uid: 'a' }]);
});

test('a worker that ends has its place taken in the same moment by one that was ready, which is told everything; the others are told nothing', async () => {
  const { fleet, thread, threads, ended, reader } = await fleetOf(2);
  const adding = fleet.addPod(pod);
  for (const one of threads) one.says({ type: 'pod-bound', uid: 'a' });
  await adding;
  fleet.setLogLevels('debug', 'warn');
  const before = thread(1).sent.length;
  thread(0).exits();
  assert.deepEqual(ended, [1]);
  assert.equal(fleet.readyCount, 2);
  assert.deepEqual(thread(2).of('pod-add'), [{ type: 'pod-add', pod }]);
  assert.deepEqual(thread(2).of('log-level'), [{ type: 'log-level', level: 'debug', accessLevel: 'warn' }]);
  assert.equal(thread(1).sent.length, before);
  assert.equal(reader.samples(metrics.workersReplaced)[0]?.value, 1);
});

test('after that another spare is loaded, which serves nobody', async () => {
  const { fleet, clock, thread, threads } = await fleetOf(2);
  const adding = fleet.addPod(pod);
  for (const one of threads) one.says({ type: 'pod-bound', uid: 'a' });
  await adding;
  thread(0).exits();
  await clock.advance(100);
  assert.equal(threads.length, 4);
  thread(3).says({ type: 'ready', tid: 4 });
  assert.deepEqual(thread(3).of('pod-add'), []);
  assert.equal(fleet.readyCount, 2);
});

test('a pod that is being added while its only worker ends is served by the one that takes its place', async () => {
  const { fleet, thread } = await fleetOf(1);
  let served = false;
  const adding = fleet.addPod(pod).then(() => (served = true));
  thread(0).exits();
  await Promise.resolve();
  assert.equal(served, false);
  thread(1).says({ type: 'pod-bound', uid: 'a' });
  await adding;
});

test('where the spare is still loading a worker is started in the place of the one that ended', async () => {
  const { fleet, clock, thread, threads } = await fleetOf(1);
  thread(0).exits();
  thread(1).exits();
  assert.equal(fleet.readyCount, 0);
  const adding = fleet.addPod(pod);
  await clock.advance(200);
  assert.ok(threads.length >= 3);
  assert.deepEqual(thread(2).of('pod-add'), [{ type: 'pod-add', pod }]);
  thread(2).says({ type: 'pod-bound', uid: 'a' });
  await adding;
});

test('workers that keep ending are started with growing waits, until there was calm for a minute', async () => {
  const { clock, threads, seconds } = await fleetOf(1);
  const nextAfter = async (wait: number): Promise<void> => {
    threads.find(({ terminated }) => !terminated)?.exits();
    const count = threads.length;
    await clock.advance(wait - 1);
    assert.equal(threads.length, count);
    await clock.advance(1);
    assert.equal(threads.length, count + 1);
    threads.at(-1)?.says({ type: 'ready', tid: 9 });
  };
  for (const wait of [100, 200, 400, 800]) await nextAfter(wait);
  await seconds(61);
  await nextAfter(100);
});

test('a worker whose heart stops is ended and replaced; one that beats is not', async () => {
  const { fleet, thread, seconds } = await fleetOf(2);
  await seconds(14, thread(0));
  assert.equal(thread(0).terminated, false);
  await seconds(2, thread(0));
  assert.equal(thread(0).terminated, true);
  assert.equal(thread(1).terminated, false);
  assert.equal(fleet.readyCount, 2);
});

test('a worker that is in a loop is replaced within two seconds; one that waits for the processor is not', async () => {
  for (const [share, lost] of [
    [1, true],
    [0.3, false],
  ] as const) {
    const { fleet, clock, thread, threads, cpu } = await fleetOf(2);
    for (let ms = 0; ms < 2000; ms += 50) {
      for (const one of threads) if (one !== thread(0)) one.beat();
      cpu.set(1, ms * share);
      await clock.advance(50);
    }
    assert.equal(thread(0).terminated, lost, `${share} of the processor`);
    assert.equal(fleet.readyCount, 2);
  }
});

test('where a thread cannot be ended its place is taken all the same, and the process is told that it has to end', async () => {
  const { fleet, thread, seconds, stuck } = await fleetOf(2);
  thread(0).terminate = () => new Promise(() => undefined);
  await seconds(16, thread(0));
  assert.equal(fleet.readyCount, 2);
  assert.equal(stuck(), 0);
  await seconds(6, thread(0));
  assert.equal(stuck(), 1);
});

test("a pod's network namespace is let go of when every worker has said so, or has ended", async () => {
  const { fleet, thread, threads } = await fleetOf(2);
  const adding = fleet.addPod(pod);
  for (const one of threads) one.says({ type: 'pod-bound', uid: 'a' });
  await adding;
  let gone = false;
  const removing = fleet.removePod('a').then(() => (gone = true));
  thread(0).says({ type: 'pod-removed', uid: 'a' });
  await Promise.resolve();
  assert.equal(gone, false);
  thread(1).exits();
  await removing;
});

test('a certificate goes to the workers that asked for it, renewals as well, and a new worker gets it at once', async () => {
  const { fleet, thread, wanted, clock } = await fleetOf(2);
  thread(0).says({ type: 'certificate-wanted', identity: certificate.identity });
  assert.deepEqual(wanted, [certificate.identity]);
  fleet.certificateArrived(certificate);
  fleet.certificateArrived({ ...certificate, chain: 'renewed' });
  assert.equal(thread(0).of('certificate').length, 2);
  assert.equal(thread(1).of('certificate').length, 0);
  thread(1).says({ type: 'certificate-wanted', identity: certificate.identity });
  assert.equal(thread(1).of('certificate')[0]?.certificate.chain, 'renewed');
  assert.equal(wanted.length, 1);
  fleet.certificateFailed(certificate.identity, 'expired');
  assert.deepEqual(thread(0).of('certificate-failed')[0], {
    type: 'certificate-failed',
    identity: certificate.identity,
    reason: 'expired',
  });
  thread(0).says({ type: 'certificate-wanted', identity: certificate.identity });
  assert.equal(wanted.length, 2);
  await clock.advance(0);
});

test('a dump asks all workers, and does not wait for one that is silent', async () => {
  const { fleet, thread, clock } = await fleetOf(2);
  const dump = fleet.connections();
  const question = thread(0).of('connections')[0]?.question ?? -1;
  const connection = { uid: 'a', direction: 'inbound', src: '', originalDst: null, actualDst: '', protocol: 'TCP' } as const;
  thread(0).says({ type: 'connections', question, connections: [connection] });
  await clock.advance(1000);
  assert.deepEqual(await dump, [connection]);
});

test('a drain ends when all workers are done, and at its deadline tells those that are not', async () => {
  const { fleet, thread, clock, seconds } = await fleetOf(2);
  let drained = false;
  const draining = fleet.drain(5000).then(() => (drained = true));
  thread(0).says({ type: 'drained' });
  await clock.advance(4999);
  assert.equal(drained, false);
  assert.deepEqual(thread(1).of('drain-deadline'), []);
  await clock.advance(1);
  assert.equal(thread(1).of('drain-deadline').length, 1);
  thread(1).says({ type: 'drained' });
  await draining;
  thread(1).exits();
  await seconds(20);
  assert.equal(fleet.readyCount, 1, 'nobody is started any more');
});

test('counters of a worker that ended stay counted', async () => {
  const { thread, reader } = await fleetOf(2);
  for (const i of [0, 1]) {
    const series = new SeriesWriter(thread(i).start.segment, (announcement) => thread(i).says({ type: 'series', series: [announcement] }));
    series.add(series.slot(metrics.refusals, ['POLICY_DENIED', '']), 3);
  }
  assert.equal(reader.samples(metrics.refusals)[0]?.value, 6);
  thread(0).exits();
  assert.equal(reader.samples(metrics.refusals)[0]?.value, 6);
});

test("a worker that takes a lost one's place and finds the ports taken tries again until they are free", async () => {
  const { fleet, clock, thread } = await fleetOf(1);
  const served = fleet.addPod(pod);
  thread(0).says({ type: 'pod-bound', uid: 'a' });
  await served;
  thread(0).exits();
  const spare = thread(1);
  assert.equal(spare.of('pod-add').length, 1);
  spare.says({ type: 'pod-bound', uid: 'a', problem: 'EADDRINUSE' });
  await clock.advance(500);
  assert.equal(spare.of('pod-add').length, 2);
  spare.says({ type: 'pod-bound', uid: 'a' });
  await clock.advance(5000);
  assert.equal(spare.of('pod-add').length, 2);
  void fleet.removePod('a');
  spare.says({ type: 'pod-bound', uid: 'a', problem: 'late' });
  await clock.advance(5000);
  assert.equal(spare.of('pod-add').length, 2, 'nobody wants it any more');
});
