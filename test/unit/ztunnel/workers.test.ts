import assert from 'node:assert/strict';
import { test } from 'node:test';
import { silentLog } from '../../../common/base/log.ts';
import { createSegment, SeriesReader, SeriesWriter } from '../../../common/server/shared-series.ts';
import { metricFamilies, metrics } from '../../../ztunnel/metrics.ts';
import type { FromWorker, PodSpec, ToWorker, WorkerStart } from '../../../ztunnel/protocol.ts';
import { readZtunnelSettings } from '../../../ztunnel/settings.ts';
import { WorkerFleet, type WorkerThread } from '../../../ztunnel/supervisor/workers.ts';
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
    onCertificateWanted: (identity) => wanted.push(identity),
  });
  const started = fleet.start();
  for (const thread of threads) thread.says({ type: 'ready' });
  await started;
  const thread = (i: number): FakeThread => {
    const found = threads[i];
    assert.ok(found);
    return found;
  };
  /** Seconds in which all workers but the given ones are alive. */
  const seconds = async (count: number, ...hanging: FakeThread[]): Promise<void> => {
    for (let i = 0; i < count; i++) {
      for (const one of threads) if (!hanging.includes(one)) one.beat();
      await clock.advance(1000);
    }
  };
  return { fleet, clock, threads, thread, wanted, ended, reader, seconds };
}

const pod: PodSpec = { uid: 'a', info: { name: 'a', namespace: 'shop', serviceAccount: 'a' }, netnsFd: 7, kind: 'pod' };
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

test('a worker that ends is replaced, and the new one is told everything; the others are told nothing', async () => {
  const { fleet, clock, thread, threads, ended, reader } = await fleetOf(2);
  const adding = fleet.addPod(pod);
  for (const one of threads) one.says({ type: 'pod-bound', uid: 'a' });
  await adding;
  fleet.setLogLevels('debug', 'warn');
  const before = thread(1).sent.length;
  thread(0).exits();
  assert.deepEqual(ended, [1]);
  assert.equal(fleet.readyCount, 1);
  await clock.advance(100);
  assert.equal(threads.length, 3);
  assert.deepEqual(thread(2).of('pod-add'), [{ type: 'pod-add', pod }]);
  assert.deepEqual(thread(2).of('log-level'), [{ type: 'log-level', level: 'debug', accessLevel: 'warn' }]);
  assert.equal(thread(1).sent.length, before);
  assert.equal(reader.samples(metrics.workersReplaced)[0]?.value, 1);
});

test('a pod that is being added while its only worker ends waits for the next worker', async () => {
  const { fleet, clock, thread } = await fleetOf(1);
  let served = false;
  const adding = fleet.addPod(pod).then(() => (served = true));
  thread(0).exits();
  await clock.advance(100);
  assert.equal(served, false);
  thread(1).says({ type: 'pod-bound', uid: 'a' });
  await adding;
});

test('a worker that keeps ending is started with growing waits', async () => {
  const { clock, threads, thread } = await fleetOf(1);
  for (const wait of [100, 200, 400, 800]) {
    thread(threads.length - 1).exits();
    const count = threads.length;
    await clock.advance(wait - 1);
    assert.equal(threads.length, count);
    await clock.advance(1);
    assert.equal(threads.length, count + 1);
  }
});

test('a worker whose heart stops is ended and replaced; one that beats is not', async () => {
  const { threads, thread, seconds } = await fleetOf(2);
  await seconds(14, thread(0));
  assert.equal(thread(0).terminated, false);
  await seconds(2, thread(0));
  assert.equal(thread(0).terminated, true);
  assert.equal(thread(1).terminated, false);
  await seconds(1);
  assert.equal(threads.length, 3);
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
