import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { minutes, seconds } from '../../../common/base/clock.ts';
import type { DeltaDiscoveryRequest, DeltaDiscoveryResponse } from '../../../common/codec/gen/discovery.ts';
import { DeltaStream, type StreamTransport } from '../../../istiod-lite/xds/delta-stream.ts';
import { PushThrottle } from '../../../istiod-lite/xds/push-throttle.ts';
import { type ResourceChange, ResourceStore, type ResourceUpdate } from '../../../istiod-lite/xds/resource-store.ts';
import { decodeResponse } from '../../../istiod-lite/xds/response.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const POLICY = 'type/policy';
const ADDRESS = 'type/address';

/** A peer that takes a response when the test says so. */
class SlowTransport implements StreamTransport {
  readonly sent: DeltaDiscoveryResponse[] = [];
  #ended: { code: string; message: string; how: string } | undefined;
  #done: (() => void) | undefined;
  auto = true;

  write(frame: Buffer, done: () => void): void {
    assert.equal(this.#done, undefined, 'a second write before the first one was done');
    this.sent.push(decodeResponse(frame));
    this.#done = done;
    if (this.auto) this.take();
  }

  take(): void {
    const done = this.#done;
    this.#done = undefined;
    done?.();
  }

  fail(code: string, message: string, how: string): void {
    this.#ended = { code, message, how };
  }

  /** How the stream was ended; undefined while it is open. */
  end(): { code: string; message: string; how: string } | undefined {
    return this.#ended;
  }
}

function start(limits: Partial<{ writeTimeoutMs: number; ackTimeoutMs: number; maxUnanswered: number }> = {}) {
  const clock = new FakeClock();
  const stores = new Map([POLICY, ADDRESS].map((typeUrl) => [typeUrl, new ResourceStore(typeUrl)] as const));
  const transport = new SlowTransport();
  const events: string[] = [];
  let nonces = 0;
  const stream = new DeltaStream({
    stores: () => stores,
    transport,
    clock,
    throttle: new PushThrottle({ clock, slots: 20 }),
    limits: { writeTimeoutMs: seconds(60), ackTimeoutMs: minutes(5), maxUnanswered: 100, ...limits },
    observer: {
      sent: ({ typeUrl, changedSince }) => void events.push(`sent ${typeUrl} ${changedSince ?? 'request'}`),
      rejected: ({ error }) => void events.push(`rejected ${error}`),
      staleNonce: (typeUrl) => void events.push(`stale ${typeUrl}`),
      unknownType: (typeUrl) => void events.push(`unknown ${typeUrl}`),
      writeTimeout: () => void events.push('write timeout'),
    },
    systemVersion: () => 'v1',
    nonce: () => `n${++nonces}`,
  });
  const request = (fields: Partial<DeltaDiscoveryRequest>): void =>
    stream.receive({
      typeUrl: ADDRESS,
      resourceNamesSubscribe: [],
      resourceNamesUnsubscribe: [],
      initialResourceVersions: {},
      responseNonce: '',
      ...fields,
    });
  const apply = (typeUrl: string, updated: (string | ResourceUpdate)[], removed: string[] = []): ResourceChange | undefined => {
    const updates = updated.map((update) => (typeof update === 'string' ? resource(update) : update));
    return stores.get(typeUrl)?.apply(updates, removed, clock.monotonic());
  };
  const change = (typeUrl: string, updated: (string | ResourceUpdate)[], removed: string[] = []): void => {
    const made = apply(typeUrl, updated, removed);
    if (made) stream.changed(made);
  };
  return { clock, stores, transport, events, stream, request, apply, change };
}

const resource = (name: string, content = name, aliases: string[] = []): ResourceUpdate => ({
  name,
  version: '',
  bytes: Buffer.from(content),
  aliases,
});
const names = (response: DeltaDiscoveryResponse | undefined): string[] => response?.resources.map(({ name }) => name).sort() ?? [];

test('the first request of a type without names is for everything, and is answered even if there is nothing', () => {
  const { transport, request, apply } = start();
  request({});
  assert.deepEqual(transport.sent[0], { systemVersionInfo: 'v1', resources: [], typeUrl: ADDRESS, nonce: 'n1', removedResources: [] });
  apply(POLICY, ['p']);
  request({ typeUrl: POLICY });
  assert.deepEqual(names(transport.sent[1]), ['p']);
  assert.equal(transport.sent[1]?.resources[0]?.resource?.typeUrl, POLICY);
  assert.deepEqual(Buffer.from(transport.sent[1]?.resources[0]?.resource?.value ?? []).toString(), 'p');
});

test('a type that was not asked for is not sent', () => {
  const { transport, request, change } = start();
  request({});
  change(POLICY, ['p']);
  assert.equal(transport.sent.length, 1);
});

test('a reconnect sends what differs and removes what is gone', () => {
  const { transport, stores, request, apply } = start();
  apply(ADDRESS, ['same', resource('different', 'new'), 'unknown']);
  const same = stores.get(ADDRESS)?.get('same')?.version ?? '';
  request({ initialResourceVersions: { same, different: 'old', gone: 'x' } });
  assert.deepEqual(names(transport.sent[0]), ['different', 'unknown']);
  assert.deepEqual(transport.sent[0]?.removedResources, ['gone']);
});

test('a reconnect with nothing new is still answered, for the client waits for it', () => {
  const { transport, stores, request, apply } = start();
  apply(ADDRESS, ['a']);
  request({ initialResourceVersions: { a: stores.get(ADDRESS)?.get('a')?.version ?? '' } });
  assert.deepEqual([transport.sent.length, names(transport.sent[0]), transport.sent[0]?.removedResources], [1, [], []]);
});

test('a first request with the nonce of another life is a first request', () => {
  const { transport, events, request, apply } = start();
  apply(ADDRESS, ['a']);
  request({ responseNonce: 'from-before' });
  assert.deepEqual(names(transport.sent[0]), ['a']);
  assert.deepEqual(events, ['sent type/address request']);
});

test('an acknowledgement sends nothing and is remembered', () => {
  const { transport, stream, request } = start();
  request({});
  request({ responseNonce: 'n1' });
  assert.equal(transport.sent.length, 1);
  assert.equal(stream.status()[ADDRESS]?.acked, 'n1');
  assert.equal(stream.status()[ADDRESS]?.sent, 'n1');
});

test('a rejection is remembered with its reason, reported, and not answered', () => {
  const { transport, stream, events, request } = start();
  request({});
  request({ responseNonce: 'n1', errorDetail: { code: 3, message: 'bad enum', details: [] } });
  assert.equal(transport.sent.length, 1);
  assert.equal(stream.status()[ADDRESS]?.lastError, 'bad enum (code 3)');
  assert.equal(stream.status()[ADDRESS]?.acked, '');
  assert.ok(events.includes('rejected bad enum (code 3)'));
});

test('after a rejection the next acknowledgement clears the error', () => {
  const { stream, request, change } = start();
  request({});
  request({ responseNonce: 'n1', errorDetail: { code: 3, message: 'bad', details: [] } });
  change(ADDRESS, ['a']);
  request({ responseNonce: 'n2' });
  assert.deepEqual([stream.status()[ADDRESS]?.lastError, stream.status()[ADDRESS]?.acked], ['', 'n2']);
});

test('an answer to an earlier response is stale: counted, and no acknowledgement', () => {
  const { stream, events, request, change } = start();
  request({});
  change(ADDRESS, ['a']);
  request({ responseNonce: 'n1' });
  assert.ok(events.includes('stale type/address'));
  assert.equal(stream.status()[ADDRESS]?.acked, '');
  request({ responseNonce: 'n2' });
  assert.equal(stream.status()[ADDRESS]?.acked, 'n2');
});

test('a change goes out once, at once', () => {
  const { transport, request, change } = start();
  request({});
  change(ADDRESS, ['a', 'b']);
  change(ADDRESS, [], ['a']);
  assert.deepEqual(transport.sent.slice(1).map(names), [['a', 'b'], []]);
  assert.deepEqual(transport.sent[2]?.removedResources, ['a']);
});

test('the same content again is no change', () => {
  const { apply } = start();
  apply(ADDRESS, ['a']);
  assert.equal(apply(ADDRESS, ['a'], ['never there']), undefined);
});

test('while a proxy is busy changes merge, and it gets the newest state in one response', () => {
  const { transport, request, change } = start();
  request({});
  transport.auto = false;
  change(ADDRESS, ['first']);
  change(ADDRESS, [resource('a', 'one')]);
  change(ADDRESS, [resource('a', 'two'), 'b']);
  change(ADDRESS, ['c']);
  change(ADDRESS, [], ['b', 'first']);
  assert.equal(transport.sent.length, 2);
  transport.take();
  assert.equal(transport.sent.length, 3);
  assert.deepEqual(names(transport.sent[2]), ['a', 'c']);
  assert.equal(Buffer.from(transport.sent[2]?.resources.find(({ name }) => name === 'a')?.resource?.value ?? []).toString(), 'two');
  assert.deepEqual(transport.sent[2]?.removedResources.sort(), ['b', 'first']);
});

test('policies go before addresses, whatever came first', () => {
  const { transport, request, change } = start();
  request({ typeUrl: ADDRESS });
  request({ typeUrl: POLICY });
  transport.auto = false;
  change(ADDRESS, ['busy']);
  change(ADDRESS, ['workload']);
  change(POLICY, ['policy']);
  transport.auto = true;
  transport.take();
  assert.deepEqual(
    transport.sent.slice(3).map(({ typeUrl }) => typeUrl),
    [POLICY, ADDRESS],
  );
});

test('how old the oldest change in a response is, is told', async () => {
  const { clock, transport, events, request, change } = start();
  request({});
  await clock.advance(100);
  transport.auto = false;
  change(ADDRESS, ['a']);
  await clock.advance(50);
  change(ADDRESS, ['b']);
  await clock.advance(50);
  change(ADDRESS, ['c']);
  transport.auto = true;
  transport.take();
  assert.deepEqual(events, ['sent type/address request', 'sent type/address 100', 'sent type/address 150']);
});

test('a proxy that does not take a response is let go, at once', async () => {
  const { clock, transport, events, request, change } = start();
  transport.auto = false;
  request({});
  await clock.advance(seconds(59));
  assert.equal(transport.end(), undefined);
  await clock.advance(seconds(1));
  assert.equal(transport.end()?.code, 'DEADLINE_EXCEEDED');
  assert.equal(transport.end()?.how, 'reset');
  assert.match(transport.end()?.message ?? '', /was not taken for 60 s/);
  assert.deepEqual(events, ['write timeout']);
  change(ADDRESS, ['a']);
  transport.take();
  assert.equal(transport.sent.length, 1);
  assert.equal(clock.pending, 0);
});

test('a proxy that never answers is let go, one that answers late is not', async () => {
  const quiet = start();
  quiet.request({});
  await quiet.clock.advance(minutes(5) - 1);
  assert.equal(quiet.transport.end(), undefined);
  await quiet.clock.advance(1);
  assert.match(quiet.transport.end()?.message ?? '', /was not acknowledged for 300 s/);

  const late = start();
  late.request({});
  await late.clock.advance(minutes(4));
  late.change(ADDRESS, ['a']);
  late.request({ responseNonce: 'n1' });
  await late.clock.advance(minutes(4));
  assert.equal(late.transport.end(), undefined);
  late.request({ responseNonce: 'n2' });
  await late.clock.advance(minutes(60));
  assert.equal(late.transport.end(), undefined);
  assert.equal(late.clock.pending, 0);
});

test('too many unanswered responses end a stream', () => {
  const { transport, request, change } = start({ maxUnanswered: 3 });
  request({});
  for (let i = 0; i < 5; i++) change(ADDRESS, [`a${i}`]);
  assert.equal(transport.sent.length, 3);
  assert.match(transport.end()?.message ?? '', /3 responses .* were not acknowledged/);
});

test('draining sends what is due first', () => {
  const { transport, stream, request, change } = start();
  request({});
  transport.auto = false;
  change(ADDRESS, ['busy']);
  change(ADDRESS, ['last']);
  stream.drain('old');
  assert.equal(transport.end(), undefined);
  transport.auto = true;
  transport.take();
  assert.deepEqual(names(transport.sent.at(-1)), ['last']);
  assert.deepEqual(transport.end(), { code: 'UNAVAILABLE', message: 'old', how: 'after-writes' });
});

test('large responses wait for a slot, small ones do not, and a slow proxy keeps its slot only for a while', async () => {
  const clock = new FakeClock();
  const store = new ResourceStore(ADDRESS);
  store.apply([resource('large', 'x'.repeat(300_000))], [], 0);
  const throttle = new PushThrottle({ clock, slots: 2 });
  const proxies = Array.from({ length: 5 }, () => {
    const transport = new SlowTransport();
    transport.auto = false;
    const stream = new DeltaStream({
      stores: () => new Map([[ADDRESS, store]]),
      transport,
      clock,
      throttle,
      limits: { writeTimeoutMs: seconds(60), ackTimeoutMs: minutes(5), maxUnanswered: 100 },
      observer: { sent: () => undefined, rejected: () => undefined, staleNonce: () => undefined, writeTimeout: () => undefined },
      systemVersion: () => '',
      nonce: () => 'n',
    });
    const initialResourceVersions = {};
    stream.receive({
      typeUrl: ADDRESS,
      resourceNamesSubscribe: [],
      resourceNamesUnsubscribe: [],
      initialResourceVersions,
      responseNonce: '',
    });
    return { transport, stream };
  });
  const sent = (): number[] => proxies.map(({ transport }) => transport.sent.length);
  assert.deepEqual(sent(), [1, 1, 0, 0, 0]);
  proxies[0]?.transport.take();
  assert.deepEqual(sent(), [1, 1, 1, 0, 0]);
  proxies[2]?.stream.closed();
  assert.deepEqual(sent(), [1, 1, 1, 1, 0]);
  await clock.advance(seconds(5));
  assert.deepEqual(sent(), [1, 1, 1, 1, 1]);
  const small = store.apply([resource('small')], [], 0);
  assert.ok(small);
  proxies[0]?.stream.changed(small);
  assert.deepEqual(sent(), [2, 1, 1, 1, 1]);
});

test('a type of ours that only a newer proxy knows is answered as empty, so that the proxy gets ready, and is reported once', () => {
  const { transport, events, stream, request, change } = start();
  const newer = 'type.googleapis.com/warren.waypoint.v9.Teleports';
  request({ typeUrl: newer });
  assert.deepEqual(transport.sent[0], { systemVersionInfo: 'v1', resources: [], typeUrl: newer, nonce: 'n1', removedResources: [] });
  request({ typeUrl: newer, responseNonce: 'n1' });
  assert.equal(stream.status()[newer]?.acked, 'n1');
  request({});
  change(ADDRESS, ['a']);
  assert.deepEqual(names(transport.sent[2]), ['a'], 'the stream goes on');
  assert.deepEqual(
    events.filter((event) => event.startsWith('unknown')),
    [`unknown ${newer}`],
  );
  assert.equal(transport.end(), undefined);
});

test('what a newer proxy says to have of such a type is taken back', () => {
  const { transport, request } = start();
  request({ typeUrl: 'type.googleapis.com/warren.waypoint.v9.Teleports', initialResourceVersions: { 'shop/web': '1' } });
  assert.deepEqual(transport.sent[0]?.removedResources, ['shop/web']);
});

test('a type of a waypoint is refused to who is none, and so is the thirty-third unknown one', () => {
  const ztunnel = start();
  ztunnel.request({ typeUrl: 'type.googleapis.com/warren.waypoint.v1.ServiceRoutes' });
  assert.equal(ztunnel.transport.end()?.code, 'INVALID_ARGUMENT');
  const { transport, request } = start();
  for (let i = 0; i < 32; i++) request({ typeUrl: `type.googleapis.com/warren.v9.Type${i}` });
  assert.equal(transport.end(), undefined);
  request({ typeUrl: 'type.googleapis.com/warren.v9.Type32' });
  assert.equal(transport.end()?.code, 'INVALID_ARGUMENT');
});

test('a type that is not served ends the stream with its name', () => {
  const { transport, request } = start();
  request({ typeUrl: 'type.googleapis.com/envoy.config.cluster.v3.Cluster' });
  assert.equal(transport.end()?.code, 'INVALID_ARGUMENT');
  assert.match(transport.end()?.message ?? '', /envoy\.config\.cluster\.v3\.Cluster" is not served/);
});

test('a subscriber by name gets what it asked for, learns what does not exist, and hears of nothing else', () => {
  const { transport, request, apply, change } = start();
  apply(ADDRESS, ['a', 'b']);
  request({ resourceNamesSubscribe: ['a', 'nowhere'], resourceNamesUnsubscribe: ['*'] });
  assert.deepEqual(names(transport.sent[0]), ['a']);
  assert.deepEqual(transport.sent[0]?.removedResources, ['nowhere']);
  change(ADDRESS, [resource('b', 'changed')]);
  assert.equal(transport.sent.length, 1);
  change(ADDRESS, ['nowhere']);
  assert.deepEqual(names(transport.sent[1]), ['nowhere']);
  request({ responseNonce: 'n2', resourceNamesSubscribe: ['b'] });
  assert.deepEqual(names(transport.sent[2]), ['b']);
  request({ resourceNamesUnsubscribe: ['a'] });
  change(ADDRESS, [resource('a', 'changed')]);
  assert.equal(transport.sent.length, 3);
});

test('everything and not everything in one request is nothing yet, whatever comes later', () => {
  const { transport, request, apply, change } = start();
  apply(ADDRESS, ['a']);
  request({ resourceNamesSubscribe: ['*'], resourceNamesUnsubscribe: ['*'] });
  assert.deepEqual(names(transport.sent[0]), []);
  change(ADDRESS, [resource('a', 'changed')]);
  assert.equal(transport.sent.length, 1);
});

test('a subscriber by address gets the resource behind it, and its removal by name', () => {
  const { transport, request, apply, change } = start();
  apply(ADDRESS, [resource('pod', 'pod', ['/10.0.0.1'])]);
  request({ resourceNamesSubscribe: ['/10.0.0.1'] });
  assert.deepEqual(names(transport.sent[0]), ['pod']);
  assert.deepEqual(transport.sent[0]?.resources[0]?.aliases, ['/10.0.0.1']);
  change(ADDRESS, [], ['pod']);
  assert.deepEqual(transport.sent[1]?.removedResources, ['pod']);
});

test('names without end are refused', () => {
  const { transport, request } = start();
  request({ resourceNamesSubscribe: Array.from({ length: 100_001 }, (_, i) => `n${i}`) });
  assert.equal(transport.end()?.code, 'RESOURCE_EXHAUSTED');
});

test('whatever happens in whatever order, a proxy that acknowledges ends up with exactly what is there', () => {
  const step = fc.oneof(
    fc.record({ do: fc.constant('set' as const), name: fc.integer({ min: 0, max: 5 }), content: fc.integer({ min: 0, max: 3 }) }),
    fc.record({ do: fc.constant('remove' as const), name: fc.integer({ min: 0, max: 5 }) }),
    fc.record({ do: fc.constantFrom('take' as const, 'busy' as const, 'reconnect' as const, 'again' as const) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const stores = new Map([[ADDRESS, new ResourceStore(ADDRESS)]]);
      const store = stores.get(ADDRESS);
      const held = new Map<string, { version: string; content: string }>();
      const clock = new FakeClock();
      let nonces = 0;
      const connect = () => {
        const transport = new SlowTransport();
        const stream = new DeltaStream({
          stores: () => stores,
          transport,
          clock,
          throttle: new PushThrottle({ clock, slots: 20 }),
          limits: { writeTimeoutMs: 1e9, ackTimeoutMs: 1e9, maxUnanswered: 1000 },
          observer: { sent: () => undefined, rejected: () => undefined, staleNonce: () => undefined, writeTimeout: () => undefined },
          systemVersion: () => '',
          nonce: () => String(++nonces),
        });
        let read = 0;
        const receive = (): void => {
          for (; read < transport.sent.length; read++) {
            const response = transport.sent[read];
            for (const name of response?.removedResources ?? []) held.delete(name);
            for (const { name, version, resource: any } of response?.resources ?? [])
              held.set(name, { version, content: Buffer.from(any?.value ?? []).toString() });
          }
        };
        const ask = (versions: boolean): void =>
          stream.receive({
            typeUrl: ADDRESS,
            resourceNamesSubscribe: versions ? [] : ['*'],
            resourceNamesUnsubscribe: [],
            initialResourceVersions: versions ? Object.fromEntries([...held].map(([name, { version }]) => [name, version])) : {},
            responseNonce: '',
          });
        ask(true);
        return { transport, stream, receive, ask };
      };
      let peer = connect();
      for (const action of steps) {
        if (action.do === 'set' || action.do === 'remove') {
          const update = action.do === 'set' ? [resource(`r${action.name}`, `c${action.content}`)] : [];
          const change = store?.apply(update, action.do === 'remove' ? [`r${action.name}`] : [], 0);
          if (change) peer.stream.changed(change);
        }
        if (action.do === 'busy') peer.transport.auto = false;
        if (action.do === 'again') peer.ask(false);
        if (action.do === 'take') {
          peer.transport.auto = true;
          peer.transport.take();
        }
        if (action.do === 'reconnect') {
          peer.receive();
          peer.stream.closed();
          peer = connect();
        }
      }
      peer.transport.auto = true;
      peer.transport.take();
      peer.receive();
      const there = [...(store?.values() ?? [])].map(({ name, version }) => `${name} ${version}`).sort();
      assert.deepEqual([...held].map(([name, { version }]) => `${name} ${version}`).sort(), there);
    }),
    { numRuns: 500 },
  );
});
