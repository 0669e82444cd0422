import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { loadBalance, pickWeighted, scoreOf } from '../../../common/decision/load-balance.ts';
import type { LoadBalancing, Scope, Service, Workload } from '../../../common/decision/mesh-view.ts';
import { memberOf, service, waypointAt, workload } from '../../support/builders.ts';
import { meshes } from '../../support/meshes.ts';

/** Fractions that come again and again in the same order. */
function fractions(): () => number {
  let state = 1;
  return () => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return state / 2 ** 32;
  };
}

const client = workload({ name: 'client', locality: { region: 'r1', zone: 'z1', subzone: '' }, node: 'n1', addresses: ['10.0.0.9'] });

const balancing = (mode: LoadBalancing['mode'], ...preferences: Scope[]): LoadBalancing => ({ mode, preferences, allowUnhealthy: false });

for (const [kind, meshOf] of Object.entries(meshes)) {
  describe(`load balancing (${kind} mesh)`, () => {
    /** How often each endpoint is picked in `rounds`. */
    function picks(
      own: Service,
      workloads: readonly Workload[],
      { port = 80, purpose = 'standard' as 'standard' | 'waypoint', rounds = 400 } = {},
    ): Record<string, number> {
      const view = meshOf({ services: [own], workloads });
      const random = fractions();
      const counts: Record<string, number> = {};
      for (let i = 0; i < rounds; i++) {
        const upstream = loadBalance(view, own, { source: client, port, purpose, random });
        const name = upstream ? `${upstream.workload.name}:${upstream.port}` : 'none';
        counts[name] = (counts[name] ?? 0) + 1;
      }
      return counts;
    }

    test('spreads over all endpoints, in proportion to their capacity', () => {
      const own = service({ name: 's' });
      const member = memberOf(own);
      const counts = picks(
        own,
        [
          workload({ name: 'a', addresses: ['10.0.0.1'], services: member, capacity: 3 }),
          workload({ name: 'b', addresses: ['10.0.0.2'], services: member, capacity: 1 }),
          workload({ name: 'zero', addresses: ['10.0.0.3'], services: member, capacity: 0 }),
        ],
        { rounds: 4000 },
      );
      assert.deepEqual(Object.keys(counts).sort(), ['a:8080', 'b:8080']);
      const share = (counts['a:8080'] ?? 0) / 4000;
      assert.ok(share > 0.71 && share < 0.79, `a got ${share}`);
    });

    test('picks nobody where all weigh nothing, or nobody is there', () => {
      const own = service({ name: 's' });
      assert.deepEqual(picks(own, []), { none: 400 });
      assert.deepEqual(picks(own, [workload({ name: 'a', addresses: ['10.0.0.1'], services: memberOf(own), capacity: 0 })]), { none: 400 });
    });

    test('never picks an unhealthy endpoint, unless the service allows them', () => {
      const own = service({ name: 's' });
      const sick = workload({ name: 'sick', addresses: ['10.0.0.1'], services: memberOf(own), healthy: false });
      assert.deepEqual(picks(own, [sick]), { none: 400 });
      const tolerant = service({ name: 's', loadBalancing: { mode: 'STANDARD', preferences: [], allowUnhealthy: true } });
      assert.deepEqual(picks(tolerant, [sick]), { 'sick:8080': 400 });
    });

    test('never picks an endpoint without address, hostname or a gateway to it', () => {
      const own = service({ name: 's' });
      const member = memberOf(own);
      const counts = picks(own, [
        workload({ name: 'nowhere', services: member }),
        workload({ name: 'named', services: member, hostname: 'db.example.com' }),
        workload({ name: 'far', services: member, network: 'net-2' }),
        workload({ name: 'behind', services: member, network: 'net-2', networkGateway: waypointAt('10.9.9.9') }),
        workload({ name: 'gateway-of-own-network', services: member, networkGateway: waypointAt('10.9.9.9') }),
      ]);
      assert.deepEqual(Object.keys(counts).sort(), ['behind:8080', 'named:8080']);
    });

    test('refuses a port that the service does not have', () => {
      const own = service({ name: 's' });
      assert.deepEqual(picks(own, [workload({ name: 'a', addresses: ['10.0.0.1'], services: memberOf(own) })], { port: 81 }), {
        none: 400,
      });
    });

    test('takes the port of the endpoint before that of the service, and skips endpoints without a named port', () => {
      const own = service({ name: 's', ports: { 80: 8080, 90: 0 } });
      const workloads = [
        workload({ name: 'mapped', addresses: ['10.0.0.1'], services: memberOf([own, { 80: 1234, 90: 9090 }]) }),
        workload({ name: 'plain', addresses: ['10.0.0.2'], services: memberOf(own) }),
      ];
      assert.deepEqual(Object.keys(picks(own, workloads)).sort(), ['mapped:1234', 'plain:8080']);
      assert.deepEqual(picks(own, workloads, { port: 90 }), { 'mapped:9090': 400 });
    });

    test('a waypoint with an application tunnel may be reached on a port that its service does not list', () => {
      const own = service({ name: 's', ports: { 80: 8080 } });
      const member = memberOf(own);
      const workloads = [
        workload({ name: 'plain', addresses: ['10.0.0.1'], services: member }),
        workload({ name: 'sandwich', addresses: ['10.0.0.2'], services: member, applicationTunnel: { protocol: 'PROXY', port: 15088 } }),
      ];
      assert.deepEqual(picks(own, workloads, { port: 15008, purpose: 'waypoint' }), { 'sandwich:15008': 400 });
      assert.deepEqual(Object.keys(picks(own, workloads, { port: 80, purpose: 'waypoint' })).sort(), ['plain:8080', 'sandwich:8080']);
    });

    describe('where the caller knows how busy they are', () => {
      const made = (names: readonly string[], fields: (name: string, at: number) => Partial<Workload> = () => ({})) => {
        const own = service({ name: 's' });
        const workloads = names.map((name, at) =>
          workload({ name, addresses: [`10.0.1.${at + 1}`], services: memberOf(own), ...fields(name, at) }),
        );
        return { own, view: meshOf({ services: [own], workloads }) };
      };
      /** Opens connections one after another, each counted from then on. @returns how many each endpoint has at the end */
      const opened = ({ own, view }: ReturnType<typeof made>, connections: number, busy: Record<string, number> = {}) => {
        const random = fractions();
        const load = ({ name }: Workload): number => busy[name] ?? 0;
        for (let i = 0; i < connections; i++) {
          const name = loadBalance(view, own, { source: client, port: 80, purpose: 'waypoint', random, load })?.workload.name ?? 'none';
          busy[name] = (busy[name] ?? 0) + 1;
        }
        return busy;
      };

      test('the least busy one is taken, so that all have the same, and of equal ones any', () => {
        assert.deepEqual(new Set(Object.values(opened(made(['a', 'b', 'c', 'd', 'e']), 100))), new Set([20]));
        const first = Array.from({ length: 50 }, (_, i) => {
          const { own, view } = made(['a', 'b', 'c', 'd', 'e']);
          const random = fractions();
          for (let skipped = 0; skipped < i; skipped++) random();
          return loadBalance(view, own, { source: client, port: 80, purpose: 'waypoint', random, load: () => 0 })?.workload.name;
        });
        assert.equal(new Set(first).size, 5, 'callers that know nothing do not all begin with the same one');
      });

      test('who has just come gets what leaves the others', () => {
        const busy = opened(made(['a', 'b', 'c', 'new']), 40, { a: 40, b: 40, c: 40 });
        assert.deepEqual(busy, { a: 40, b: 40, c: 40, new: 40 });
      });

      test('of very many the best of some is taken', () => {
        const names = Array.from({ length: 100 }, (_, i) => `e${i}`);
        const counts = Object.values(opened(made(names), 1000));
        assert.ok(counts.length === 100 && Math.max(...counts) <= 12, `busiest of 10 on average: ${Math.max(...counts)}`);
      });

      test('capacity counts: twice the weight carries twice as much', () => {
        const { big = 0, small = 0 } = opened(
          made(['big', 'small'], (name) => ({ capacity: name === 'big' ? 2 : 1 })),
          90,
        );
        assert.ok(Math.abs(big - 60) <= 2 && Math.abs(small - 30) <= 2, `${big} and ${small}`);
      });

      test('one that is to be avoided is taken only where there is no other', () => {
        assert.deepEqual(opened(made(['gone', 'there']), 50, { gone: Infinity }), { gone: Infinity, there: 50 });
        assert.deepEqual(opened(made(['gone']), 1, { gone: Infinity }), { gone: Infinity });
      });

      test('a busy near one stays the choice where locality keeps to it, and a sick one is none', () => {
        const own = service({ name: 's', loadBalancing: balancing('FAILOVER', 'NODE') });
        const at = (name: string, ip: string, fields: Partial<Workload>): Workload =>
          workload({ name, addresses: [ip], services: memberOf(own), ...fields });
        const view = meshOf({
          services: [own],
          workloads: [
            at('near', '10.0.2.1', { node: 'n1' }),
            at('sick', '10.0.2.2', { node: 'n1', healthy: false }),
            at('far', '10.0.2.3', { node: 'n2' }),
          ],
        });
        assert.deepEqual(opened({ own, view }, 10, { near: 100 }), { near: 110 });
      });
    });

    describe('with places', () => {
      const at = (name: string, region: string, zone: string, fields: Partial<Workload> = {}): Workload =>
        workload({ name, addresses: [`10.1.0.${name.length}`], locality: { region, zone, subzone: '' }, node: 'other', ...fields });
      const names = (mode: LoadBalancing, workloads: readonly Workload[]): string[] => {
        const own = service({ name: 's', loadBalancing: mode });
        const members = workloads.map((one) => ({ ...one, services: memberOf(own) }));
        return Object.keys(picks(own, members))
          .map((name) => name.replace(':8080', ''))
          .sort();
      };

      test('FAILOVER keeps to the nearest tier that has anybody', () => {
        const near = at('near', 'r1', 'z1');
        const region = at('region', 'r1', 'z2');
        const far = at('far', 'r2', 'z1');
        const mode = balancing('FAILOVER', 'REGION', 'ZONE');
        assert.deepEqual(names(mode, [far, region, near]), ['near']);
        assert.deepEqual(names(mode, [far, region]), ['region']);
        assert.deepEqual(names(mode, [far]), ['far']);
      });

      test('FAILOVER skips a nearer tier whose endpoints are all unhealthy or weigh nothing', () => {
        const mode = balancing('FAILOVER', 'NODE');
        const sick = at('sick', 'r1', 'z1', { node: 'n1', healthy: false });
        const zero = at('zero', 'r1', 'z1', { node: 'n1', capacity: 0 });
        assert.deepEqual(names(mode, [sick, zero, at('far', 'r2', 'z1')]), ['far']);
      });

      test('STRICT takes full matches only, which may be none', () => {
        const mode = balancing('STRICT', 'NODE');
        const here = at('here', 'r1', 'z1', { node: 'n1' });
        assert.deepEqual(names(mode, [here, at('there', 'r1', 'z1')]), ['here']);
        assert.deepEqual(names(mode, [at('there', 'r1', 'z1')]), ['none']);
      });

      test('any endpoint of the own network beats any of another one, however near', () => {
        const mode = balancing('FAILOVER', 'NETWORK', 'REGION', 'ZONE');
        const gateway = { networkGateway: waypointAt('10.9.9.9'), network: 'net-2' };
        assert.deepEqual(names(mode, [at('own', 'r9', 'z9'), at('other', 'r1', 'z1', gateway)]), ['own']);
        assert.deepEqual(names(mode, [at('far', 'r9', 'z1', gateway), at('near', 'r1', 'z1', gateway)]), ['near']);
      });
    });
  });
}

describe('scores', () => {
  const score = (held: string): number => scoreOf(['NETWORK', 'REGION', 'ZONE'], (scope) => held.includes(scope.charAt(0)));

  test('of network, region, zone are five, four, three with the network and two, one, none without', () => {
    assert.deepEqual(['NRZ', 'NR', 'N', 'RZ', 'R', ''].map(score), [5, 4, 3, 2, 1, 0]);
  });

  test('end at the first preference that fails', () => {
    assert.equal(
      scoreOf(['REGION', 'ZONE'], (scope) => scope === 'ZONE'),
      0,
    );
  });
});

describe('a weighted choice', () => {
  test('takes each item over exactly its share', () => {
    const items = [2, 0, 1, 1];
    const chosen = (at: number): number | undefined =>
      pickWeighted(
        [0, 1, 2, 3],
        (i) => items[i] ?? 0,
        () => at,
      );
    assert.deepEqual([0, 0.49, 0.5, 0.74, 0.75, 0.999999].map(chosen), [0, 0, 2, 2, 3, 3]);
    assert.equal(
      pickWeighted(
        [1],
        () => 0,
        () => 0,
      ),
      undefined,
    );
  });
});
