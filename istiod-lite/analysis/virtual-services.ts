/** VirtualServices: rules that nothing reaches, destinations without a port, and several for the same host. */
import { fullHost, hostCovers } from '../model/istio-values.ts';
import { at, quote, records, text, texts } from '../model/objects.ts';
import { readVirtualService } from '../model/virtual-service.ts';
import { readVirtualMatch, type VirtualMatch } from '../model/virtual-service-match.ts';
import { destinationsOf } from '../model/virtual-service-table.ts';
import type { ObjectCheck, SetCheck } from './analyzer.ts';
import { covers } from './match-coverage.ts';
import { message } from './messages.ts';
import type { AnalyzedObject } from './object-set.ts';
import { areSeenTogether } from './visibility.ts';

/** Istio, pkg/config/validation: a duplicate makes a rule unreachable, an overlap a match ineffective. */
export const unreachableRules: ObjectCheck = {
  name: 'virtualservice.UnreachableRules',
  doc: 'rules and matches that no request reaches, as earlier ones of the same VirtualService take them',
  *check({ kind, origin, object }) {
    if (kind !== 'VirtualService') return;
    for (const list of ['http', 'tcp', 'tls'] as const) {
      for (const [name, detail] of unreachable(records(at(object, 'spec', list)), list === 'http')) yield message(name, origin, detail);
    }
  },
};

type Note = readonly ['unreachableRule' | 'ineffectiveMatch', string];

interface Seen {
  readonly rule: string;
  readonly match: VirtualMatch | undefined;
}

// Each is compared with those before it.
const MOST_COMPARED = 500;

function* unreachable(rules: readonly Record<string, unknown>[], http: boolean): Generator<Note> {
  const written = new Map<string, Seen>();
  let catchAll = false;
  for (const [index, rule] of rules.entries()) {
    const name = text(rule.name) === '' ? `#${index}` : quote(rule.name);
    const matches = records(rule.match);
    if (matches.length === 0) {
      if (catchAll) yield ['unreachableRule', `${name} is not used (only the last rule can have no matches)`];
      catchAll = true;
      continue;
    }
    if (catchAll) {
      yield ['unreachableRule', `${name} is not used (a rule without matches stands before it)`];
      continue;
    }
    let duplicates = 0;
    for (const [number, match] of matches.entries()) {
      const { name: label, ...rest } = match;
      const id = JSON.stringify(rest);
      const title = text(label) === '' ? `#${number}` : quote(label);
      const same = written.get(id);
      const prefix = http && same === undefined ? prefixMatch(match) : undefined;
      const wider = same ?? (prefix && widerThan(prefix, written));
      if (wider)
        yield ['ineffectiveMatch', `${name} match ${title} is not used (${same ? 'the same' : 'a wider'} match is in rule ${wider.rule})`];
      if (same) duplicates++;
      else written.set(id, { rule: name, match: prefix });
    }
    if (duplicates === matches.length) yield ['unreachableRule', `${name} is not used (all its matches are in earlier rules)`];
  }
}

function widerThan({ match, port }: VirtualMatch, written: ReadonlyMap<string, Seen>): Seen | undefined {
  let left = MOST_COMPARED;
  for (const seen of written.values()) {
    if (left-- <= 0) return undefined;
    if (seen.match && (seen.match.port === undefined || seen.match.port === port) && covers(seen.match.match, match)) return seen;
  }
  return undefined;
}

/** Istio looks at prefixes only: an exact path after a prefix is how people write a default for one rule. */
function prefixMatch(match: Record<string, unknown>): VirtualMatch | undefined {
  return typeof at(match, 'uri', 'prefix') === 'string' ? readVirtualMatch(match, []) : undefined;
}

export const destinationPorts: SetCheck = {
  name: 'virtualservice.DestinationPorts',
  doc: 'destinations without a port where the service has several',
  *check({ set, config, index }) {
    for (const { origin, object } of set.of('VirtualService')) {
      const virtual = readVirtualService(config, object, () => undefined);
      for (const { host, port } of virtual ? destinationsOf(virtual) : []) {
        const [service] = port === undefined ? index.view.claims.servicesOfHost(host) : [];
        if (service && service.ports.length > 1)
          yield message(
            'portRequired',
            origin,
            `${host} has the ports ${service.ports.map((one) => one.port).join(', ')}, and none is named`,
          );
      }
    }
  },
};

export const conflictingHosts: SetCheck = {
  name: 'virtualservice.ConflictingHosts',
  doc: 'several VirtualServices of the mesh for the same host, seen from the same namespaces',
  *check({ set, config }) {
    const claims: Claim[] = [];
    for (const one of set.of('VirtualService')) {
      const gateways = texts(at(one.object, 'spec', 'gateways'));
      if (gateways.length > 0 && !gateways.includes('mesh')) continue;
      const hosts = texts(at(one.object, 'spec', 'hosts')).map((host) => fullHost(host, one.origin.namespace, config.domain));
      for (const host of new Set(hosts)) claims.push({ one, host });
    }
    const wide = claims.filter(({ host }) => host.startsWith('*'));
    const byHost = new Map<string, Claim[]>();
    for (const claim of claims) byHost.set(claim.host, [...(byHost.get(claim.host) ?? []), claim]);
    for (const claim of claims) {
      // Wildcards are few; an exact host beside a wildcard is how exceptions are written.
      const near = claim.host.startsWith('*') ? wide.filter((other) => meet(claim.host, other.host)) : (byHost.get(claim.host) ?? []);
      const others = near.filter((other) => other.one !== claim.one && areSeenTogether(claim.one, other.one));
      if (others.length === 0) continue;
      const keys = [...new Set([claim.one.key, ...others.map(({ one }) => one.key)])].sort();
      yield message('conflictingHosts', claim.one.origin, `${keys.join(', ')} are for the same host ${claim.host}, and one of them counts`);
    }
  },
};

interface Claim {
  readonly one: AnalyzedObject;
  readonly host: string;
}

const meet = (a: string, b: string): boolean => hostCovers(a, b) || hostCovers(b, a) || a.endsWith(b.slice(1)) || b.endsWith(a.slice(1));
