/** Choosing among endpoints: balancers, hash tables, tiers, shares of localities, ejection. All pure. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hash32, maglevTable, primeFrom, ringTable } from '../../../common/decision/hash-tables.ts';
import { covers, sharesOf } from '../../../common/decision/localities.ts';
import type { Workload } from '../../../common/decision/mesh-view.ts';
import { EndpointHealth, mayEject, outlierSettings, resultOfStatus } from '../../../common/decision/outliers.ts';
import { atRandom, chooseTier, inTurn, leastRequest, type Members, peakEwma } from '../../../common/decision/pick.ts';
import { warmupFactor } from '../../../common/decision/traffic-model.ts';
import { workload } from '../../support/builders.ts';

const members = (weights: readonly number[], more: Partial<Members> = {}): Members => ({
  size: weights.length,
  even: weights.every((weight) => weight === weights[0]),
  weight: (i) => weights[i] ?? 0,
  active: () => 0,
  cost: () => 0,
  ...more,
});

/** 0, 1/n, 2/n, … and again. */
const spread = (steps: number): (() => number) => {
  let i = 0;
  return () => (i++ % steps) / steps;
};

const counts = (choose: () => number | undefined, times: number): number[] => {
  const found: number[] = [];
  for (let i = 0; i < times; i++) {
    const chosen = choose();
    if (chosen !== undefined) found[chosen] = (found[chosen] ?? 0) + 1;
  }
  return found;
};

test('turns pass over what is not usable, and end where nothing is', () => {
  const next = inTurn(members([1, 1, 1]), () => 0);
  assert.deepEqual(
    [1, 2, 3, 4].map(() => next((i) => i !== 1, undefined)),
    [2, 0, 2, 0],
  );
  assert.equal(
    next(() => false, undefined),
    undefined,
  );
  const heavy = inTurn(members([3, 1, 1]), () => 0);
  assert.deepEqual(
    counts(() => heavy((i) => i !== 2, undefined), 8),
    [6, 2],
  );
});

test('chance follows weights, and a weight of nothing is never chosen', () => {
  const any = atRandom(members([3, 0, 1]), spread(4));
  assert.deepEqual(counts(() => any(undefined, undefined), 40)[0], 30);
  assert.equal(counts(() => any(undefined, undefined), 40)[1], undefined);
});

test('of two, the one with fewer requests under way, or the one that is expected to answer sooner', () => {
  const busy = leastRequest(members([1, 1], { active: (i) => [5, 1][i] ?? 0 }), spread(2));
  assert.equal(busy(undefined, undefined), 1);
  const slow = peakEwma(members([1, 1], { active: (i) => [0, 3][i] ?? 0, cost: (i) => [100, 10][i] ?? 0 }), spread(2));
  assert.equal(slow(undefined, undefined), 1, 'four requests of 10 ms are sooner than one of 100');
});

const keys = Array.from({ length: 10 }, (_, i) => `10.0.0.${i}:8080`);
const even = keys.map(() => 1);

for (const [name, make] of [
  [
    'ring',
    (of: readonly string[]) =>
      ringTable(
        of,
        of.map(() => 1),
        1024,
      ),
  ],
  [
    'Maglev',
    (of: readonly string[]) =>
      maglevTable(
        of,
        of.map(() => 1),
        primeFrom(65_537),
      ),
  ],
] as const) {
  test(`with a table of ${name}, the same key goes to the same endpoint, and few move when one leaves`, () => {
    const [all, fewer] = [make(keys), make(keys.slice(0, 9))];
    let moved = 0;
    const hits = new Array<number>(10).fill(0);
    for (let i = 0; i < 2000; i++) {
      const hash = hash32(`user-${i}`);
      const before = all.lookup(hash, undefined) ?? -1;
      hits[before] = (hits[before] ?? 0) + 1;
      assert.equal(all.lookup(hash, undefined), before);
      if (before !== 9 && fewer.lookup(hash, undefined) !== before) moved++;
    }
    assert.ok(Math.min(...hits) > 80, `nobody is left out: ${hits}`);
    assert.ok(moved < 200, `${moved} of 2000 moved`);
  });

  test(`with a table of ${name}, keys of an endpoint that is not usable go elsewhere and come back`, () => {
    const table = make(keys);
    const hash = Array.from({ length: 100 }, (_, i) => hash32(`k${i}`)).find((one) => table.lookup(one, undefined) === 4) ?? 0;
    assert.notEqual(
      table.lookup(hash, (i) => i !== 4),
      4,
    );
    assert.equal(table.lookup(hash, undefined), 4);
    assert.equal(
      table.lookup(hash, () => false),
      undefined,
    );
  });
}

test('a heavier endpoint has more of the table', () => {
  for (const table of [ringTable(['a:1', 'b:1'], [3, 1], 4096), maglevTable(['a:1', 'b:1'], [3, 1], 4099)]) {
    const [first = 0] = counts(() => table.lookup(hash32(String(Math.random())), undefined), 4000);
    assert.ok(first > 2600 && first < 3400, `${first} of 4000, where 3000 are due`);
  }
  assert.equal(maglevTable([], [], 7).lookup(1, undefined), undefined);
  assert.equal(ringTable(keys, even, 0).lookup(0xffff_ffff, undefined) !== undefined, true);
});

test('MurmurHash3 is the one that others compute', () => {
  assert.deepEqual([hash32(''), hash32('hello'), hash32('hello, world')], [0, 0x248bfa47, 0x149bbb7f]);
});

test('the next tier gets its share when a tier is more than a little ill, and everything when it is gone', () => {
  const tier = (usable: number, size: number) => ({ usable, size });
  const share = (...tiers: { usable: number; size: number }[]) => counts(() => chooseTier(tiers, spread(100)), 1)[0];
  assert.equal(share(tier(10, 10), tier(10, 10)), 1);
  const random = spread(100);
  assert.deepEqual(
    counts(() => chooseTier([tier(5, 10), tier(10, 10)], random), 100),
    [70, 30],
  );
  assert.equal(
    chooseTier([tier(0, 10), tier(1, 10)], () => 0.99),
    1,
  );
  assert.equal(
    chooseTier([tier(8, 10), tier(10, 10)], () => 0.99),
    0,
    'eight of ten carry it all',
  );
  assert.equal(
    chooseTier([tier(0, 2)], () => 0),
    undefined,
  );
});

const at = (name: string, region: string, zone = '', subzone = ''): { workload: Workload } => ({
  workload: workload({ name, locality: { region, zone, subzone } }),
});
const self = at('self', 'r1', 'z1', 's1').workload;
const places = [at('a', 'r1', 'z1', 's1'), at('b', 'r1', 'z2'), at('c', 'r2', 'z1'), at('d', 'r3')];
const none = { distribute: [], failover: [], failoverPriority: [] };
const named = (tiers: readonly (readonly { workload: Workload }[])[]) => tiers.map((tier) => tier.map((one) => one.workload.name).join());

test('endpoints stand in tiers from near to far, and a region can be named as the next one', () => {
  assert.deepEqual(named(sharesOf(none, self, places, () => undefined)[0]?.tiers ?? []), ['a', 'b', 'c,d']);
  const failover = { ...none, failover: [{ from: 'r1', to: 'r3' }] };
  assert.deepEqual(named(sharesOf(failover, self, places, () => undefined)[0]?.tiers ?? []), ['a', 'b', 'd', 'c']);
});

test('shares are by locality, from the most specific word about ours', () => {
  const distribute = [{ from: 'r1/z1/*', to: { 'r1/*': 70, 'r2/*': 30, 'r9/*': 5 } }];
  const shares = sharesOf({ ...none, distribute }, self, places, () => undefined);
  assert.deepEqual(
    shares.map(({ weight, tiers }) => [weight, ...named(tiers)]),
    [
      [70, 'a,b'],
      [30, 'c'],
    ],
  );
  assert.deepEqual([covers('*', ['r']), covers('r/z', ['r', 'z', 's']), covers('r/z', ['r', 'y', ''])], [true, true, false]);
});

test('labels order endpoints by how many of them agree, up to the first that does not', () => {
  const labels: Record<string, Record<string, string>> = {
    self: { a: '1', b: '1' },
    a: { a: '1', b: '2' },
    b: { a: '1', b: '1' },
    c: { b: '1' },
  };
  const tiers = sharesOf({ ...none, failoverPriority: ['a', 'b'] }, self, places, (one, name) => labels[one.name]?.[name])[0]?.tiers ?? [];
  assert.deepEqual(named(tiers), ['b', 'a', 'c,d']);
});

const settings = outlierSettings({ splitLocalErrors: false, intervalMs: 0, baseEjectionMs: 0, maxEjectionPercent: 0, minHealthPercent: 0 });

test('five errors in a row eject, for longer each time; a success in between starts the count anew', () => {
  const health = new EndpointHealth();
  for (let i = 0; i < 4; i++) assert.equal(health.record('server-error', settings), false);
  health.record('ok', settings);
  for (let i = 0; i < 4; i++) assert.equal(health.record('gateway-error', settings), false);
  assert.equal(health.record('local-failure', settings), true);
  health.eject(1000, settings);
  assert.deepEqual([health.isEjected(30_999), health.isEjected(31_000)], [true, false]);
  health.eject(32_000, settings);
  assert.equal(health.ejectedUntil, 92_000, 'twice as long');
  health.eject(92_000 + 60_000, settings);
  assert.equal(health.ejectedUntil, 92_000 + 60_000 + 30_000, 'after a minute without, the past is forgiven');
});

test('gateway errors and failures of our own have limits of their own where they are asked for', () => {
  const own = outlierSettings({
    consecutive5xx: 0,
    consecutiveGatewayErrors: 2,
    consecutiveLocalFailures: 1,
    splitLocalErrors: true,
    intervalMs: 0,
    baseEjectionMs: 0,
    maxEjectionPercent: 0,
    minHealthPercent: 0,
  });
  const health = new EndpointHealth();
  assert.deepEqual(
    [503, 500, 502, 504].map((status) => health.record(resultOfStatus(status), own)),
    [false, false, false, true],
  );
  assert.equal(new EndpointHealth().record('local-failure', own), true);
});

test('one endpoint may always be ejected, more only within the limit', () => {
  assert.deepEqual([mayEject(0, 1, settings), mayEject(1, 10, settings), mayEject(1, 20, settings)], [true, false, true]);
});

test('a new endpoint gets its share little by little', () => {
  const warmup = { durationMs: 100_000, minimumPercent: 10, aggressionMilli: 1000 };
  assert.deepEqual(
    [0, 50_000, 100_000].map((age) => warmupFactor(warmup, age)),
    [0.1, 0.5, 1],
  );
  assert.ok(warmupFactor({ ...warmup, aggressionMilli: 2000 }, 25_000) === 0.5);
});
