/** The pieces of a data worker that hold state of their own. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ProxyError } from '../../../common/base/errors.ts';
import { HostnameResolver } from '../../../common/client/hostname-resolver.ts';
import { refusalHeaders } from '../../../common/hbone/refusal-header.ts';
import type { Relay } from '../../../common/hbone/types.ts';
import { WorkerCertificates } from '../../../common/tls/worker-certificates.ts';
import { proxyHeader } from '../../../ztunnel/inbound/proxy-protocol.ts';
import { ConnectionTable } from '../../../ztunnel/worker/connections.ts';
import { LocalWorkload, StateChanges } from '../../../ztunnel/worker/local-workload.ts';
import { workload } from '../../support/builders.ts';
import { testAuthority } from '../../support/certificates.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { PlainMesh } from '../../support/plain-mesh.ts';

const info = { name: 'a', namespace: 'shop', serviceAccount: 'default' };
const gone = new ProxyError('POD_REMOVED', 'gone');

function local() {
  const mesh = new PlainMesh();
  const clock = new FakeClock();
  const changes = new StateChanges();
  return { mesh, clock, changes, local: new LocalWorkload({ view: mesh, info, changes, clock }) };
}

test('a connection waits for its pod’s workload until the control plane tells about it', async () => {
  const made = local();
  const waiting = made.local.wait(new AbortController().signal);
  await made.clock.advance(4000);
  made.changes.emit();
  made.mesh.put({ workload: workload({ name: 'a' }) });
  made.changes.emit();
  assert.equal((await waiting).name, 'a');
  assert.equal(made.clock.pending, 0, 'no timer is left');
  assert.equal((await made.local.wait(new AbortController().signal)).name, 'a');
});

test('after five seconds without a workload the connection is given up, naming the pod', async () => {
  const made = local();
  const waiting = assert.rejects(made.local.wait(new AbortController().signal), (error: ProxyError) => {
    assert.equal(error.code, 'WORKLOAD_UNKNOWN');
    assert.match(error.message, /shop\/a \(service account default\) within 5 s/);
    return true;
  });
  await made.clock.advance(5000);
  await waiting;
});

test('a pod that is removed meanwhile ends the wait', async () => {
  const made = local();
  const controller = new AbortController();
  const waiting = assert.rejects(made.local.wait(controller.signal), gone);
  controller.abort(gone);
  await waiting;
});

const authority = testAuthority();
const A = 'spiffe://cluster.local/ns/shop/sa/a';

function certificates() {
  const clock = new FakeClock();
  const wanted: string[] = [];
  const kept = new WorkerCertificates({ tls: { postQuantumOnly: false }, clock, want: (identity) => wanted.push(identity) });
  return { clock, wanted, kept };
}

test('a worker asks for an identity once and gives all who wait the same context', async () => {
  const { kept, wanted, clock } = certificates();
  const waiting = [kept.get(A), kept.get(A)];
  assert.deepEqual(wanted, [A]);
  kept.arrived(authority.issue(A));
  const [first, second] = await Promise.all(waiting);
  assert.equal(first?.context, second?.context);
  assert.equal((await kept.get(A)).context, first?.context);
  assert.equal(clock.pending, 0);
});

test('a renewed certificate replaces the context, and watchers hear of it and of its end', async () => {
  const { kept, wanted } = certificates();
  const heard: (string | undefined)[] = [];
  const unwatch = kept.watch(A, (ready) => heard.push(ready?.certificate.chain));
  const [one, two] = [authority.issue(A), authority.issue(A)];
  kept.arrived(one);
  kept.arrived(two);
  kept.failed(A, 'expired');
  unwatch();
  kept.arrived(one);
  assert.deepEqual(heard, [one.chain, two.chain, undefined]);
  kept.failed(A, 'expired');
  void kept.get(A).catch(() => undefined);
  assert.deepEqual(wanted, [A]);
});

test('a failure reaches who waits with its reason, and the next one asks again', async () => {
  const { kept, wanted } = certificates();
  const waiting = kept.get(A);
  kept.failed(A, 'not on this node');
  await assert.rejects(waiting, (error: ProxyError) => error.code === 'IDENTITY_UNAVAILABLE' && /not on this node/.test(error.message));
  void kept.get(A).catch(() => undefined);
  assert.deepEqual(wanted, [A, A]);
});

test('a certificate that cannot be used fails those who wait, and a supervisor that is silent is given up on', async () => {
  const { kept, clock } = certificates();
  const waiting = kept.get(A);
  kept.arrived({ ...authority.issue(A), key: 'no key' });
  await assert.rejects(waiting, /the certificate cannot be used/);
  const silent = assert.rejects(kept.get(A), /within 10 s/);
  await clock.advance(10_000);
  await silent;
});

const relayOf = (aborted: ProxyError[], waiting = 0): Relay => ({
  forward: 0,
  backward: 0,
  waiting,
  done: new Promise(() => undefined),
  abort: (error) => void aborted.push(error),
});

test('a recheck ends exactly the connections that are no longer allowed', () => {
  const table = new ConnectionTable();
  const refusal = new ProxyError('POLICY_REVOKED', 'no');
  const [allowed, refused, other] = [table.add('one'), table.add('one'), table.add('two')];
  const describe = { uid: '', direction: 'inbound', src: '', originalDst: null, actualDst: '', protocol: 'HBONE' } as const;
  allowed.tracked = { ...describe, recheck: () => undefined };
  refused.tracked = { ...describe, recheck: () => refusal };
  other.tracked = { ...describe, recheck: () => refusal };
  assert.equal(table.recheck('one'), 1);
  assert.equal(refused.signal.reason, refusal);
  assert.equal(allowed.signal.aborted || other.signal.aborted, false);
  assert.equal(table.recheck(), 2, 'a connection that is on its way out is looked at again, and nothing happens to it');
});

test('an abort before the relay starts reaches the relay, and a second one does nothing', () => {
  const table = new ConnectionTable();
  const early = table.add('one');
  early.abort(gone);
  const aborted: ProxyError[] = [];
  early.relaying(relayOf(aborted));
  assert.deepEqual(aborted, [gone]);
  const late = table.add('one');
  late.relaying(relayOf(aborted));
  table.abortAll(gone, 'two');
  table.abortAll(gone, 'one');
  table.abortAll(new ProxyError('DRAINED', 'again'));
  assert.deepEqual(aborted, [gone, gone]);
});

test('the table says when it is empty', async () => {
  const table = new ConnectionTable();
  await table.empty();
  const one = table.add('one');
  let empty = false;
  const waiting = table.empty().then(() => (empty = true));
  await Promise.resolve();
  assert.equal(empty, false);
  table.remove(one);
  await waiting;
});

test('a PROXY header names both ends and carries the identity', () => {
  const header = proxyHeader({ ip: '10.0.0.1', port: 4242 }, { ip: '10.96.0.1', port: 80 }, A);
  assert.equal(
    header.toString('hex'),
    `0d0a0d0a000d0a515549540a2111${(12 + 3 + A.length).toString(16).padStart(4, '0')}0a0000010a600001${'1092'}0050d0${A.length.toString(16).padStart(4, '0')}${Buffer.from(A).toString('hex')}`,
  );
  const six = proxyHeader({ ip: 'fd00::1', port: 1 }, { ip: '10.96.0.1', port: 80 }, undefined);
  assert.equal(
    six.toString('hex'),
    '0d0a0d0a000d0a515549540a21210024fd000000000000000000000000000001' + '00000000000000000000ffff0a600001' + '00010050',
  );
  assert.throws(() => proxyHeader({ ip: '10.0.0.1', port: 1 }, { ip: '10.0.0.2', port: 1 }, 'x'.repeat(3000)), RangeError);
});

test('callers of the same namespace learn which policy refused them, others only code and id', () => {
  const error = new ProxyError('POLICY_DENIED', 'no', { policy: 'shop/no-client' });
  const caller = { trustDomain: 'cluster.local', namespace: 'shop', serviceAccount: 'a' };
  assert.deepEqual(refusalHeaders(error, 'id1', caller, 'shop'), [
    ['x-warren-refusal', 'code=POLICY_DENIED; policy=shop/no-client; id=id1'],
  ]);
  assert.deepEqual(refusalHeaders(error, 'id1', { ...caller, namespace: 'other' }, 'shop'), [
    ['x-warren-refusal', 'code=POLICY_DENIED; id=id1'],
  ]);
  assert.deepEqual(refusalHeaders(error, 'id1', caller, undefined), [['x-warren-refusal', 'code=POLICY_DENIED; id=id1']]);
});

test('a hostname is resolved once for all who ask, remembered for a while, and a failure is tried again soon', async () => {
  const clock = new FakeClock();
  const asked: string[] = [];
  let answer: string[] | Error = ['10.0.0.1', 'not an address', '::ffff:10.0.0.2'];
  const resolver = new HostnameResolver({
    clock,
    lookup: async (hostname) => {
      asked.push(hostname);
      if (answer instanceof Error) throw answer;
      return answer;
    },
  });
  const [one, two] = await Promise.all([resolver.resolve('db.example'), resolver.resolve('db.example')]);
  assert.deepEqual([one, two, asked.length], [['10.0.0.1', '10.0.0.2'], ['10.0.0.1', '10.0.0.2'], 1]);
  answer = new Error('ENOTFOUND');
  await clock.advance(29_000);
  assert.equal((await resolver.resolve('db.example')).length, 2);
  await clock.advance(1000);
  assert.deepEqual(await resolver.resolve('db.example'), []);
  await clock.advance(1999);
  await resolver.resolve('db.example');
  assert.equal(asked.length, 2);
  await clock.advance(1);
  await resolver.resolve('db.example');
  assert.equal(asked.length, 3);
});

test('of a pod that holds too much memory those connections are cut that hold most, and of others none', () => {
  const table = new ConnectionTable();
  const error = new ProxyError('OVERLOADED', 'memory');
  const cut: Record<string, ProxyError[]> = { large: [], middle: [], small: [], other: [] };
  for (const [name, pod, waiting] of [
    ['large', 'one', 600],
    ['middle', 'one', 300],
    ['small', 'one', 100],
    ['other', 'two', 9000],
  ] as const) {
    table.add(pod).relaying(relayOf(cut[name] ?? [], waiting));
  }
  assert.deepEqual(
    [...table.waiting()],
    [
      ['one', 1000],
      ['two', 9000],
    ],
  );
  assert.equal(table.cutLargest('one', error), 1);
  assert.deepEqual(
    Object.entries(cut).map(([name, errors]) => `${name} ${errors.length}`),
    ['large 1', 'middle 0', 'small 0', 'other 0'],
  );
});

test('connections are counted by pod, and one that ends twice is counted once', () => {
  const table = new ConnectionTable();
  const [a, b] = [table.add('one'), table.add('one')];
  assert.equal(table.countOf('one'), 2);
  table.remove(a);
  table.remove(a);
  assert.equal(table.countOf('one'), 1);
  table.remove(b);
  assert.equal(table.countOf('one'), 0);
});
