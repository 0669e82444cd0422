import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createSegment, SeriesReader, SeriesWriter } from '../../../common/server/shared-series.ts';
import { MeshStateWriter } from '../../../common/state/writer.ts';
import { metricFamilies } from '../../../waypoint/metrics.ts';
import type { FromWorker, ToWorker, WorkerStart } from '../../../waypoint/protocol.ts';
import { readWaypointSettings } from '../../../waypoint/settings.ts';
import { WorkerFleet, type WorkerThread } from '../../../waypoint/supervisor/workers.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { recordingLog } from '../../support/recording-log.ts';

class FakeThread implements WorkerThread {
  readonly threadId: number;
  readonly start: WorkerStart;
  readonly got: ToWorker[] = [];
  terminated = false;
  #message: (message: FromWorker) => void = () => undefined;
  #exit: (code: number) => void = () => undefined;

  constructor(threadId: number, start: WorkerStart) {
    this.threadId = threadId;
    this.start = start;
  }

  postMessage(message: ToWorker): void {
    this.got.push(message);
  }

  terminate(): Promise<unknown> {
    this.terminated = true;
    this.exits(1);
    return Promise.resolve();
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

  exits(code = 1): void {
    this.#exit(code);
  }

  types(): string[] {
    return this.got.map(({ type }) => type);
  }
}

function fleetOf(workers: number) {
  const clock = new FakeClock();
  const threads: FakeThread[] = [];
  const reader = new SeriesReader(metricFamilies);
  const series = new SeriesWriter(createSegment(100), () => undefined);
  const wanted: string[] = [];
  const ended: number[] = [];
  const fleet = new WorkerFleet({
    spawn(start) {
      const thread = new FakeThread(threads.length + 1, start);
      threads.push(thread);
      return thread;
    },
    settings: readWaypointSettings({ WARREN_WORKER_THREADS: String(workers) }),
    state: new MeshStateWriter().shared,
    configuration: () => [{ kind: 'routes', resources: [], removed: [] }],
    onThreadEnded: (thread) => void ended.push(thread),
    onCertificateWanted: (identity) => void wanted.push(identity),
    onRefused: () => undefined,
    onTapped: () => undefined,
    clock,
    log: recordingLog(),
    reader,
    series,
  });
  const started = fleet.start();
  const thread = (index: number): FakeThread => {
    const found = threads[index];
    if (!found) throw new Error(`no thread ${index}`);
    return found;
  };
  return { fleet, clock, threads, thread, started, wanted, ended };
}

const certificate = { identity: 'spiffe://a/ns/b/sa/c', key: '', chain: '', roots: '' };

test('a worker hears of routes and policies before it is told to listen, a later one too', async () => {
  const { fleet, clock, threads, thread, started } = fleetOf(1);
  thread(0).says({ type: 'ready' });
  await started;
  fleet.certificateArrived(certificate);
  const serving = fleet.serve();
  thread(0).says({ type: 'listening' });
  await serving;
  assert.deepEqual(thread(0).types(), ['configuration', 'certificate', 'listen']);
  thread(0).exits();
  assert.equal(fleet.listeningCount, 0);
  await clock.advance(100);
  assert.equal(threads.length, 2);
  assert.deepEqual(thread(1).types(), ['certificate', 'configuration', 'listen']);
});

test('a port that is taken is a problem of the whole', async () => {
  const { fleet, thread } = fleetOf(2);
  const serving = fleet.serve();
  thread(0).says({ type: 'listening' });
  thread(1).says({ type: 'listening', problem: 'cannot listen on port 15008: EADDRINUSE' });
  await assert.rejects(serving, /port 15008/);
});

test('a worker that asks for the certificate gets it, or the keeper is asked', () => {
  const { fleet, thread, wanted } = fleetOf(1);
  thread(0).says({ type: 'certificate-wanted', identity: certificate.identity });
  assert.deepEqual(wanted, [certificate.identity]);
  fleet.certificateArrived(certificate);
  thread(0).says({ type: 'certificate-wanted', identity: certificate.identity });
  assert.deepEqual(
    [
      wanted.length,
      thread(0)
        .types()
        .filter((type) => type === 'certificate').length,
    ],
    [1, 2],
  );
});

test('a worker whose heart stops is replaced; one that has not begun to live is given longer', async () => {
  const { clock, thread, threads, ended } = fleetOf(2);
  thread(0).says({ type: 'ready' });
  await clock.advance(16_000);
  assert.deepEqual([thread(0).terminated, thread(1).terminated, ended], [true, false, [1]]);
  assert.equal(threads.length, 3);
  await clock.advance(50_000);
  assert.equal(thread(1).terminated, true);
});

test('a drain asks clients to leave, goes on accepting for a while, then waits for what is open', async () => {
  const { fleet, clock, thread } = fleetOf(1);
  let over = false;
  const draining = fleet.drain({ acceptMs: 3000, deadlineMs: 20_000 }).then(() => {
    over = true;
  });
  assert.deepEqual(thread(0).types().slice(1), ['drain']);
  await clock.advance(3000);
  assert.deepEqual(thread(0).types().slice(1), ['drain', 'close']);
  await clock.advance(16_999);
  assert.equal(over, false);
  await clock.advance(1);
  assert.deepEqual(thread(0).types().slice(1), ['drain', 'close', 'drain-deadline']);
  thread(0).says({ type: 'drained' });
  await draining;
  assert.equal(over, true);
});

test('a drain ends as soon as nothing is open, and at the latest shortly after its deadline', async () => {
  const quick = fleetOf(1);
  const draining = quick.fleet.drain({ acceptMs: 10, deadlineMs: 20_000 });
  await quick.clock.advance(10);
  quick.thread(0).says({ type: 'drained' });
  await draining;
  const stuck = fleetOf(1);
  const late = stuck.fleet.drain({ acceptMs: 10, deadlineMs: 1000 });
  await stuck.clock.advance(2000);
  await late;
});
