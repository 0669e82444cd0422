/** Rules of routes that no request reaches, seen in the tables that waypoints are given; and grants that routes of the mesh do not need. */
import { type PortRoutes, ServiceRoutes } from '../../common/codec/gen/waypoint.ts';
import { at, records, text } from '../model/objects.ts';
import type { ObjectCheck, SetCheck } from './analyzer.ts';
import { covers } from './match-coverage.ts';
import { message } from './messages.ts';

// Each entry is compared with those before it.
const MOST_ENTRIES = 2000;

export const shadowedRoutes: SetCheck = {
  name: 'route.Shadowed',
  doc: 'rules of routes that no request reaches, as rules that go before them take all of it',
  *check({ set, index }) {
    // A rule may stand in several tables; it is idle where it is so in all of them.
    const rules = new Map<string, { shadowed: string | undefined; reached: boolean }>();
    for (const waypoint of index.waypoints()) {
      const [namespace = '', name = ''] = waypoint.split('/');
      for (const { bytes } of index.waypointResources(namespace, name).routes) {
        for (const port of ServiceRoutes.decode(bytes).ports) {
          for (const [rule, by] of shadows(port)) {
            const known = rules.get(rule) ?? { shadowed: undefined, reached: false };
            rules.set(rule, { shadowed: known.shadowed ?? by, reached: known.reached || by === undefined });
          }
        }
      }
    }
    for (const [rule, { shadowed, reached }] of rules) {
      const [kind = '', key = ''] = rule.split(' ');
      const origin = reached || shadowed === undefined ? undefined : set.find(kind, key)?.origin;
      // Of a VirtualService's own rules another analyzer speaks.
      if (!origin || (kind === 'VirtualService' && shadowed?.startsWith(`${kind} ${key} `))) continue;
      yield message('shadowed', origin, `${rule} is never reached: ${shadowed} takes all of its requests`);
    }
  },
};

const ROUTES: ReadonlySet<string> = new Set(['HTTPRoute', 'GRPCRoute', 'TCPRoute', 'TLSRoute']);

export const referenceGrants: ObjectCheck = {
  name: 'gateway.ReferenceGrants',
  doc: 'ReferenceGrants that routes of the mesh do not need, or that grant a namespace to itself',
  *check({ kind, origin, object }) {
    if (kind !== 'ReferenceGrant') return;
    const [from, to] = [records(at(object, 'spec', 'from')), records(at(object, 'spec', 'to'))];
    for (const each of from) {
      const place = `${text(each.kind)} of namespace ${text(each.namespace)}`;
      if (text(each.namespace) === origin.namespace)
        yield message('mild', origin, `spec.from: ${place} is in the namespace of the grant, and needs none`);
      else if (ROUTES.has(text(each.kind)) && to.some((target) => text(target.kind) === 'Service'))
        yield message('grantNotNeeded', origin, `${place} may send to Services here without it, where it attaches to a Service`);
    }
  },
};

/** For each rule of a table, the rule that takes all of its requests; undefined where it has some of its own. */
export function shadows({ table, rules }: Pick<PortRoutes, 'table' | 'rules'>): Map<string, string | undefined> {
  const found = new Map<string, string | undefined>();
  const open = new Set<string>();
  const passed: PortRoutes['table'] = [];
  for (const entry of table.slice(0, MOST_ENTRIES)) {
    const { match, rule } = entry;
    const name = rules[rule]?.name;
    if (name === undefined || match === undefined) continue;
    const before = passed.find((one) => one.match !== undefined && one.rule !== rule && covers(one.match, match));
    passed.push(entry);
    if (!before) open.add(name);
    else if (!found.has(name)) found.set(name, rules[before.rule]?.name);
  }
  for (const name of open) found.set(name, undefined);
  return found;
}
