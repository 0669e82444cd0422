import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seconds } from '../../../common/base/clock.ts';
import { KubeApiError } from '../../../common/client/kube-api.ts';
import { WriterLease } from '../../../istiod-lite/kube/lease.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { recordingLog } from '../../support/recording-log.ts';

interface Lease {
  metadata: { resourceVersion?: string };
  spec?: { holderIdentity?: string; renewTime?: string; leaseTransitions?: number };
}

/** One Lease object with compare-and-swap. */
class LeaseServer {
  lease: Lease | undefined;
  down = false;
  #version = 0;

  async get<T>(): Promise<T> {
    this.#check();
    if (!this.lease) throw new KubeApiError(404, 'NotFound', 'no lease');
    return structuredClone(this.lease) as T;
  }

  async create<T>(_path: string, body: unknown): Promise<T> {
    this.#check();
    if (this.lease) throw new KubeApiError(409, 'AlreadyExists', 'exists');
    return this.#store(body as Lease) as T;
  }

  async replace<T>(_path: string, body: unknown): Promise<T> {
    this.#check();
    if ((body as Lease).metadata.resourceVersion !== this.lease?.metadata.resourceVersion)
      throw new KubeApiError(409, 'Conflict', 'conflict');
    return this.#store(body as Lease) as T;
  }

  #store(lease: Lease): Lease {
    this.lease = { ...structuredClone(lease), metadata: { ...lease.metadata, resourceVersion: String(++this.#version) } };
    return this.lease;
  }

  #check(): void {
    if (this.down) throw new Error('connection refused');
  }
}

function replica(server: LeaseServer, clock: FakeClock, identity: string) {
  const abort = new AbortController();
  const events: string[] = [];
  const lease = new WriterLease({
    api: server,
    clock,
    random: () => 0.5,
    log: recordingLog(),
    signal: abort.signal,
    namespace: 'istio-system',
    name: 'istio-leader',
    identity,
    onAcquired: () => void events.push('acquired'),
    onLost: () => void events.push('lost'),
  });
  void lease.run();
  return { lease, events, abort };
}

test('of two replicas one writes, and the other takes over when it is gone', async () => {
  const [server, clock] = [new LeaseServer(), new FakeClock()];
  const a = replica(server, clock, 'a');
  const b = replica(server, clock, 'b');
  await clock.advance(seconds(60));
  assert.deepEqual([a.lease.held, b.lease.held], [true, false]);
  a.abort.abort();
  await clock.advance(seconds(25));
  assert.deepEqual([a.lease.held, b.lease.held], [false, false]);
  await clock.advance(seconds(20));
  assert.equal(b.lease.held, true);
  assert.equal(server.lease?.spec?.holderIdentity, 'b');
  assert.equal(server.lease?.spec?.leaseTransitions, 1);
  b.abort.abort();
});

test('a released lease is taken at the next attempt', async () => {
  const [server, clock] = [new LeaseServer(), new FakeClock()];
  const a = replica(server, clock, 'a');
  const b = replica(server, clock, 'b');
  await clock.advance(seconds(10));
  a.abort.abort();
  await a.lease.release();
  assert.equal(a.lease.held, false);
  await clock.advance(seconds(8));
  assert.equal(b.lease.held, true);
  b.abort.abort();
});

test('a replica that let its lease go does not take it again, even where an attempt was under way', async () => {
  const [server, clock] = [new LeaseServer(), new FakeClock()];
  const a = replica(server, clock, 'a');
  // The first attempt has not come back yet.
  await a.lease.release();
  assert.equal(server.lease?.spec?.holderIdentity, '');
  await clock.advance(seconds(60));
  assert.equal(a.lease.held, false);
  assert.equal(server.lease?.spec?.holderIdentity, '');
  a.abort.abort();
});

test('a holder that cannot renew stops before another may start', async () => {
  const [server, clock] = [new LeaseServer(), new FakeClock()];
  const a = replica(server, clock, 'a');
  await clock.advance(seconds(1));
  assert.equal(a.lease.held, true);
  server.down = true;
  await clock.advance(seconds(16));
  assert.equal(a.lease.held, false);
  await clock.advance(seconds(10));
  assert.deepEqual(a.events, ['acquired', 'lost']);
  server.down = false;
  await clock.advance(seconds(8));
  assert.deepEqual(a.events, ['acquired', 'lost', 'acquired']);
  a.abort.abort();
});

test('never do two hold it, whatever the wall clocks say', async () => {
  const [server, clock] = [new LeaseServer(), new FakeClock()];
  const replicas = ['a', 'b', 'c'].map((identity) => replica(server, clock, identity));
  for (let i = 0; i < 300; i++) {
    await clock.advance(seconds(1));
    if (i % 50 === 10) server.down = true;
    if (i % 50 === 45) server.down = false;
    if (i % 30 === 0) clock.jump(seconds(i % 60 === 0 ? 3600 : -7200));
    assert.ok(replicas.filter(({ lease }) => lease.held).length <= 1);
  }
  for (const { abort } of replicas) abort.abort();
});
