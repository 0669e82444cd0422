import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { hours, minutes, seconds } from '../../../common/base/clock.ts';
import { silentLog } from '../../../common/base/log.ts';
import { CertificateKeeper, type FetchedCertificate, MAX_FETCHES } from '../../../common/certificates/keeper.ts';
import { assemble, caSource, fileSource } from '../../../common/certificates/sources.ts';
import { WallClockSchedule } from '../../../common/certificates/wall-clock-schedule.ts';
import type { SigningRequest } from '../../../common/client/ca-client.ts';
import { parseCsr } from '../../../common/codec/x509/csr.ts';
import { Prefetch } from '../../../ztunnel/supervisor/certificates.ts';
import { workload } from '../../support/builders.ts';
import { testAuthority, writeCertificate } from '../../support/certificates.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const identityOf = (name: string): string => `spiffe://cluster.local/ns/shop/sa/${name}`;

/** A keeper over a source in the test's hand: each fetch waits until it is answered. */
function keep({
  lookAgainMs,
  kept,
  random = () => 0.5,
}: {
  lookAgainMs?: number;
  random?: () => number;
  kept?: (identity: string) => FetchedCertificate | undefined;
} = {}) {
  const clock = new FakeClock();
  const fetches: {
    identity: string;
    answer(life?: { ms?: number; chain?: string; datedBackMs?: number }): Promise<void>;
    fail(reason: string): Promise<void>;
  }[] = [];
  const events: string[] = [];
  const settle = async (): Promise<void> => clock.advance(0);
  let serial = 0;
  const keeper = new CertificateKeeper({
    source: {
      fetch: (identity) =>
        new Promise<FetchedCertificate>((resolve, reject) =>
          fetches.push({
            identity,
            answer: ({ ms = hours(24), chain = `chain ${serial++}`, datedBackMs = 0 } = {}) => {
              const now = clock.now();
              resolve({ identity, key: 'key', chain, roots: 'roots', notBefore: now - datedBackMs, notAfter: now + ms });
              return settle();
            },
            fail: (reason) => {
              reject(new Error(reason));
              return settle();
            },
          }),
        ),
      ...(lookAgainMs === undefined ? {} : { lookAgainMs }),
    },
    clock,
    random,
    log: silentLog,
    ...(kept ? { kept } : {}),
    listener: {
      arrived: ({ identity, chain }) => events.push(`${identity.split('/').at(-1)}: ${chain}`),
      failed: (identity, reason) => events.push(`${identity.split('/').at(-1)} failed: ${reason}`),
    },
  });
  const next = () => {
    const fetch = fetches.shift();
    assert.ok(fetch, 'a fetch is under way');
    return fetch;
  };
  return { keeper, clock, fetches, events, next };
}

test('an identity is fetched once however many ask for it, and is told to each', async () => {
  const { keeper, fetches, events, next } = keep();
  for (let i = 0; i < 3; i++) keeper.want(identityOf('a'), 'realtime');
  assert.equal(fetches.length, 1);
  await next().answer();
  assert.deepEqual(events, ['a: chain 0']);
  keeper.want(identityOf('a'), 'realtime');
  assert.deepEqual(events, ['a: chain 0', 'a: chain 0']);
  assert.equal(fetches.length, 0);
});

test('no more than eight are fetched at a time, those that a connection waits for first', async () => {
  const { keeper, fetches, next } = keep();
  for (let i = 0; i < MAX_FETCHES; i++) keeper.want(identityOf(`busy${i}`), 'warmup');
  keeper.want(identityOf('warm'), 'warmup');
  keeper.want(identityOf('urgent'), 'realtime');
  keeper.want(identityOf('raised'), 'background');
  assert.equal(fetches.length, MAX_FETCHES);
  keeper.want(identityOf('raised'), 'realtime');
  const order: string[] = [];
  for (let i = 0; i < MAX_FETCHES; i++) {
    await next().answer();
    order.push(...fetches.slice(MAX_FETCHES - 1).map(({ identity }) => identity.split('/').at(-1) ?? ''));
  }
  assert.deepEqual(order.slice(0, 3), ['urgent', 'raised', 'warm']);
});

test('a certificate is renewed at half of its life, and the old one serves until the new one is there', async () => {
  const { keeper, clock, events, next, fetches } = keep();
  keeper.want(identityOf('a'), 'warmup');
  await next().answer({ ms: hours(24) });
  await clock.advance(hours(12) - 1);
  assert.equal(fetches.length, 0);
  await clock.advance(1);
  assert.equal(fetches.length, 1);
  assert.equal(keeper.states()[0]?.at, 'available');
  await next().answer();
  assert.deepEqual(events, ['a: chain 0', 'a: chain 1']);
});

test('of one that was dated back by more than it lives, half of what is left counts', async () => {
  const { keeper, clock, next, fetches } = keep();
  keeper.want(identityOf('a'), 'warmup');
  await next().answer({ ms: 24_000, datedBackMs: 120_000 });
  await clock.advance(11_999);
  assert.equal(fetches.length, 0);
  await clock.advance(1);
  assert.equal(fetches.length, 1);
});

test('certificates that were issued in one moment are not renewed in one', async () => {
  for (const [random, hoursLater] of [
    [0, 10.8],
    [1, 13.2],
  ] as const) {
    const { keeper, clock, next, fetches } = keep({ random: () => random });
    keeper.want(identityOf('a'), 'warmup');
    await next().answer({ ms: hours(24) });
    await clock.advance(hours(hoursLater) - 1000);
    assert.equal(fetches.length, 0, `${hoursLater} h`);
    await clock.advance(2000);
    assert.equal(fetches.length, 1, `${hoursLater} h`);
  }
});

test('where renewal fails the valid certificate is kept, and tried again with growing waits', async () => {
  const { keeper, clock, events, next, fetches } = keep();
  keeper.want(identityOf('a'), 'warmup');
  await next().answer({ ms: hours(24) });
  await clock.advance(hours(12));
  const waits: number[] = [];
  for (let i = 0; i < 10; i++) {
    await next().fail('the CA is away');
    let waited = 0;
    while (fetches.length === 0) {
      await clock.advance(500);
      waited += 500;
    }
    waits.push(waited / 1000);
  }
  assert.deepEqual(waits, [1, 2, 4, 8, 16, 32, 64, 128, 150, 150]);
  assert.deepEqual(events, ['a: chain 0']);
  const [state] = keeper.states();
  assert.equal(state?.at === 'available' && state.renewalError, 'the CA is away');
  await next().answer();
  assert.deepEqual(events, ['a: chain 0', 'a: chain 1']);
  await clock.advance(hours(12));
  await next().fail('again');
  await clock.advance(seconds(1));
  assert.equal(fetches.length, 1, 'a success has reset the waits');
});

test('who asks after a failure is told at once, and the retry goes on by itself', async () => {
  const { keeper, clock, events, next, fetches } = keep();
  keeper.want(identityOf('a'), 'realtime');
  await next().fail('not on this node');
  assert.deepEqual(events, ['a failed: not on this node']);
  keeper.want(identityOf('a'), 'realtime');
  assert.deepEqual(events, ['a failed: not on this node', 'a failed: not on this node']);
  assert.equal(fetches.length, 0);
  assert.deepEqual(keeper.states(), [{ identity: identityOf('a'), at: 'unavailable', reason: 'not on this node' }]);
  await clock.advance(seconds(1));
  await next().answer();
  assert.equal(events.at(-1), 'a: chain 0');
});

test('an expired certificate is told to be gone when renewal never succeeds', async () => {
  const { keeper, clock, events, fetches } = keep();
  keeper.want(identityOf('a'), 'warmup');
  await fetches.shift()?.answer({ ms: minutes(10) });
  for (let i = 0; i < 200; i++) {
    await clock.advance(seconds(10));
    await fetches.shift()?.fail('away');
  }
  assert.equal(events[1], 'a failed: away');
  assert.equal(keeper.states()[0]?.at, 'unavailable');
});

test('an answer that has expired already is a failure', async () => {
  const { keeper, events, next } = keep();
  keeper.want(identityOf('a'), 'realtime');
  await next().answer({ ms: 0 });
  assert.match(events[0] ?? '', /expired already/);
});

test('a forgotten identity is not renewed, and who waits for it is told', async () => {
  const { keeper, clock, events, next, fetches } = keep();
  keeper.want(identityOf('a'), 'warmup');
  await next().answer();
  keeper.want(identityOf('b'), 'realtime');
  keeper.forget(identityOf('a'));
  keeper.forget(identityOf('b'));
  assert.deepEqual(events.slice(1), ['a failed: identity is no longer needed', 'b failed: identity is no longer needed']);
  await next().answer();
  assert.equal(events.length, 3, 'an answer that nobody wants any more is told to nobody');
  await clock.advance(hours(30));
  assert.equal(fetches.length, 0);
  assert.deepEqual(keeper.states(), []);
});

test('a source that is looked at again is quiet while nothing has changed', async () => {
  const { keeper, clock, events, next } = keep({ lookAgainMs: minutes(1) });
  keeper.want(identityOf('a'), 'warmup');
  await next().answer({ chain: 'same' });
  await clock.advance(minutes(1));
  await next().answer({ chain: 'same' });
  await clock.advance(minutes(1));
  await next().answer({ chain: 'rotated' });
  assert.deepEqual(events, ['a: same', 'a: rotated']);
});

test('after a suspend everything that is due runs within a minute, and nothing runs early', async () => {
  const clock = new FakeClock();
  const schedule = new WallClockSchedule(clock);
  const ran: string[] = [];
  schedule.at('soon', clock.now() + hours(1), () => ran.push('soon'));
  schedule.at('far', clock.now() + hours(24 * 365), () => ran.push('far'));
  clock.jump(hours(2));
  await clock.advance(minutes(1));
  assert.deepEqual(ran, ['soon']);
  clock.jump(-hours(5));
  await clock.advance(hours(3));
  assert.deepEqual(ran, ['soon']);
  schedule.cancel('far');
  await clock.advance(hours(1));
  assert.equal(clock.pending, 0);
});

test('the CA is asked with a fresh key, the identity in the request, and whom it is for', async () => {
  const authority = testAuthority();
  const requests: SigningRequest[] = [];
  const source = caSource({
    ca: {
      sign: async (request) => {
        requests.push(request);
        const { publicKeySpkiDer, uris } = parseCsr(request.csr);
        return [authority.sign(publicKeySpkiDer, uris), authority.root];
      },
    },
    validitySeconds: 3600,
    impersonate: true,
  });
  const first = await source.fetch(identityOf('a'));
  const second = await source.fetch(identityOf('a'));
  assert.equal(first.identity, identityOf('a'));
  assert.notEqual(first.key, second.key);
  assert.match(first.key, /^-----BEGIN PRIVATE KEY-----/);
  assert.equal(first.roots, authority.root);
  assert.ok(!first.chain.includes(authority.root), 'the root is not part of the chain');
  assert.deepEqual([requests[0]?.impersonate, requests[0]?.validitySeconds], [identityOf('a'), 3600]);
  assert.deepEqual(parseCsr(requests[0]?.csr ?? '').uris, [identityOf('a')]);
});

test('an answer for somebody else, without roots, not PEM, or for another key is refused, saying why', () => {
  const authority = testAuthority();
  const mine = authority.issue(identityOf('a'));
  assert.throws(() => assemble(mine.key, [], identityOf('a')), /sent 0 certificates/);
  assert.throws(() => assemble(mine.key, [mine.chain], identityOf('a')), /sent 1 certificates/);
  assert.throws(() => assemble(mine.key, [mine.chain, authority.root], identityOf('b')), /is for .*sa\/a, expected .*sa\/b/);
  assert.throws(() => assemble(mine.key, ['garbage', authority.root], identityOf('a')), /expected a PEM certificate/);
  const other = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
  assert.throws(() => assemble(other, [mine.chain, authority.root], identityOf('a')), /do not belong together/);
  assert.equal(assemble(mine.key, [mine.chain, authority.root], undefined).identity, identityOf('a'));
});

test('files are read from the folder of the identity, else from the common one, and must be for it', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'warren-certificates-'));
  t.after(() => rm(folder, { recursive: true }));
  const authority = testAuthority();
  const source = fileSource(folder);
  await assert.rejects(source.fetch(identityOf('a')), /ENOENT/);
  writeCertificate(folder, authority.issue(identityOf('a')));
  writeCertificate(join(folder, 'shop', 'b'), authority.issue(identityOf('b')));
  assert.equal((await source.fetch(identityOf('a'))).identity, identityOf('a'));
  assert.equal((await source.fetch(identityOf('b'))).identity, identityOf('b'));
  await assert.rejects(source.fetch(identityOf('c')), /the certificate is for .*sa\/a, expected .*sa\/c/);
  await assert.rejects(source.fetch('spiffe://cluster.local/ns/../sa/..'), /expected spiffe/, 'a name never leads out of the folder');
});

test('identities of HBONE workloads on the own node are fetched ahead, and forgotten with the last of them', () => {
  const calls: string[] = [];
  const prefetch = new Prefetch({
    want: (identity, priority) => calls.push(`want ${identity} ${priority}`),
    forget: (identity) => calls.push(`forget ${identity}`),
  });
  const one = workload({ name: 'one', serviceAccount: 'a', protocol: 'HBONE' });
  const two = workload({ name: 'two', serviceAccount: 'a', protocol: 'HBONE' });
  const plain = workload({ name: 'plain', serviceAccount: 'p' });
  const native = workload({ name: 'native', serviceAccount: 'n', nativeTunnel: true });
  prefetch.changed({ local: [one, two, plain, native].map((after) => ({ before: undefined, after })) });
  assert.deepEqual(calls, [`want ${identityOf('a')} warmup`, `want ${identityOf('n')} warmup`]);
  prefetch.changed({ local: [{ before: one, after: { ...one, canonicalName: 'x' } }] });
  prefetch.changed({ local: [{ before: one, after: undefined }] });
  assert.equal(calls.length, 2);
  prefetch.changed({ local: [{ before: two, after: undefined }] });
  assert.deepEqual(calls.slice(2), [`forget ${identityOf('a')}`]);
  prefetch.changed({ local: [{ before: plain, after: { ...plain, protocol: 'HBONE' } }] });
  assert.deepEqual(calls.slice(3), [`want ${identityOf('p')} warmup`]);
});

const keptOf = (identity: string): FetchedCertificate => ({
  identity,
  key: 'key',
  chain: 'kept',
  roots: 'roots',
  notBefore: Date.UTC(2025, 11, 31),
  notAfter: Date.UTC(2026, 0, 1) + hours(2),
});

test('a certificate that an earlier process left serves at once, and a newer one is fetched all the same', async () => {
  const { keeper, events, next } = keep({ kept: keptOf });
  keeper.want(identityOf('a'), 'realtime');
  assert.deepEqual(events, ['a: kept']);
  await next().answer();
  assert.deepEqual(events, ['a: kept', 'a: chain 0']);
});

test('with the CA away a kept certificate serves until it expires, and then its end is told with the reason', async () => {
  const { keeper, clock, events, fetches } = keep({ kept: keptOf });
  keeper.want(identityOf('a'), 'realtime');
  const pass = async (ms: number): Promise<void> => {
    for (let passed = 0; passed < ms; passed += seconds(10)) {
      await clock.advance(seconds(10));
      for (const fetch of fetches.splice(0)) await fetch.fail('the CA is away');
    }
  };
  await pass(hours(2) - seconds(10));
  assert.deepEqual(events, ['a: kept']);
  assert.equal(keeper.states()[0]?.at, 'available');
  await pass(minutes(3));
  assert.equal(events.at(-1), 'a failed: the CA is away');
  assert.equal(keeper.states()[0]?.at, 'unavailable');
  keeper.want(identityOf('a'), 'realtime');
  assert.ok(
    events.every((event) => event === 'a: kept' || event === 'a failed: the CA is away'),
    events.join(', '),
  );
});
