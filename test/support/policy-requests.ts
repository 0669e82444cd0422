/**
 * Requests that policies tell apart: for each field the values that the policies name, one that a wildcard takes, and one that nobody named; some put
 * together at random, some so that a rule of theirs matches but for one field.
 */
import type { RbacRequest } from './envoy-rbac.ts';

type Json = Readonly<Record<string, unknown>>;

const REQUESTS = 300;

interface Candidates {
  readonly trustDomains: Set<string>;
  readonly namespaces: Set<string>;
  readonly accounts: Set<string>;
  readonly principals: Set<string>;
  readonly ips: Set<string>;
  readonly ports: Set<number>;
  readonly methods: Set<string>;
  readonly hosts: Set<string>;
  readonly paths: Set<string>;
  readonly headers: Map<string, Set<string>>;
  readonly claims: Map<string, Set<string>>;
  readonly requestPrincipals: Set<string>;
}

/** @param seed the same requests for the same text */
export function* requestsFor(policies: readonly Json[], seed: string): Iterable<RbacRequest> {
  const random = randomOf(seed);
  const found = candidates(policies);
  const wanted = policies.flatMap(rulesOf).map((rule) => candidates([{ spec: { rules: [rule] } }]));
  for (let i = 0; i < REQUESTS; i++) {
    // Mostly one rule's own values, and then something that it does not ask for.
    const from = i % 3 === 0 || wanted.length === 0 ? found : (wanted[i % wanted.length] ?? found);
    yield requestOf(from, found, random, i % 3 === 2 ? 0.1 : i % 3 === 1 ? 0 : 0.3);
  }
}

const rulesOf = (policy: Json): readonly Json[] => (policy.spec as { readonly rules?: readonly Json[] } | undefined)?.rules ?? [];

type Random = () => number;

function requestOf(from: Candidates, all: Candidates, random: Random, foreign: number): RbacRequest {
  const pick = <T>(own: ReadonlySet<T>, any: ReadonlySet<T>, other: T): T => {
    const set = random() < foreign ? any : own;
    const list = [...set];
    return random() < foreign / 2 || list.length === 0 ? other : (list[Math.floor(random() * list.length)] ?? other);
  };
  const trustDomain = pick(from.trustDomains, all.trustDomains, 'elsewhere');
  const namespace = pick(from.namespaces, all.namespaces, 'elsewhere');
  const account = pick(from.accounts, all.accounts, 'somebody');
  const whole = [...from.principals].filter((principal) => /^[^/]+\/ns\/[^/]+\/sa\/[^/]+$/.test(principal));
  const principal =
    whole.length > 0 && random() < 0.7 ? pick(new Set(whole), new Set(whole), '') : `${trustDomain}/ns/${namespace}/sa/${account}`;
  const claims: Record<string, unknown> = {};
  const [issuer = '', ...subject] = pick(from.requestPrincipals, all.requestPrincipals, 'nobody/else').split('/');
  claims.iss = issuer;
  if (subject.length > 0 && subject.join('/') !== '') claims.sub = subject.join('/');
  for (const [path, values] of from.claims) {
    const value = pick(values, values, 'other');
    put(claims, path.split('.'), random() < 0.3 && path !== 'iss' ? [value, 'more'] : value);
  }
  const headers: Record<string, string> = {};
  for (const [name, values] of all.headers)
    if (random() > foreign / 2) headers[name] = pick(from.headers.get(name) ?? values, values, 'other');
  return {
    principal: random() < foreign / 3 ? '' : principal,
    ip: pick(from.ips, all.ips, '203.0.113.9'),
    destinationIp: pick(from.ips, all.ips, '203.0.113.9'),
    destinationPort: pick(from.ports, all.ports, 4711),
    method: pick(from.methods, all.methods, 'GET'),
    authority: pick(from.hosts, all.hosts, 'elsewhere.org'),
    path: pick(from.paths, all.paths, '/elsewhere'),
    headers,
    claims: random() < foreign / 3 ? undefined : claims,
  };
}

function put(claims: Record<string, unknown>, names: readonly string[], value: unknown): void {
  const [first = '', ...rest] = names;
  if (rest.length === 0) claims[first] = value;
  else {
    const inner = (claims[first] ?? {}) as Record<string, unknown>;
    claims[first] = inner;
    put(inner, rest, value);
  }
}

function candidates(policies: readonly Json[]): Candidates {
  const found: Candidates = {
    trustDomains: new Set(['cluster.local']),
    namespaces: new Set(),
    accounts: new Set(['account']),
    principals: new Set(),
    ips: new Set(),
    ports: new Set(),
    methods: new Set(),
    hosts: new Set(),
    paths: new Set(),
    headers: new Map(),
    claims: new Map(),
    requestPrincipals: new Set(),
  };
  for (const policy of policies) {
    const home = String((policy.metadata as Json | undefined)?.namespace ?? '');
    for (const rule of rulesOf(policy)) collect(rule, found, home);
  }
  return found;
}

const texts = (value: unknown): string[] => (Array.isArray(value) ? value.map(String) : []);
const records = (value: unknown): readonly Json[] => (Array.isArray(value) ? (value as readonly Json[]) : []);

/** What a `*` may stand for, and `{*}` and `{**}`. */
const examples = (pattern: string): string[] => {
  if (/\{\*{1,2}\}/.test(pattern)) return ['a', 'a/b'].map((text) => pattern.replaceAll('{**}', text).replaceAll('{*}', 'b'));
  return pattern.includes('*') ? [pattern.replaceAll('*', 'x'), pattern.replaceAll('*', '')] : [pattern];
};

function collect(rule: Json, found: Candidates, home: string): void {
  const add = (set: Set<string>, values: unknown): void => {
    for (const text of texts(values).flatMap(examples)) if (text !== '') set.add(text);
  };
  const ranges = (values: unknown): void => {
    for (const text of texts(values)) found.ips.add(inside(text));
  };
  const ports = (values: unknown): void => {
    for (const text of texts(values)) found.ports.add(Number(text));
  };
  const principals = (values: unknown): void => {
    add(found.principals, values);
    for (const text of texts(values).flatMap(examples)) {
      const [trustDomain = ''] = text.split('/');
      if (!text.includes('/') && trustDomain !== '') found.trustDomains.add(trustDomain);
      if (text.startsWith('x-') || text.startsWith('-')) found.accounts.add(text);
    }
  };
  for (const source of records(rule.from).map(({ source: one }) => (one ?? {}) as Json)) {
    for (const not of [false, true]) {
      const field = (name: string): unknown => source[not ? `not${name[0]?.toUpperCase()}${name.slice(1)}` : name];
      principals(field('principals'));
      add(found.namespaces, field('namespaces'));
      add(found.trustDomains, field('trustDomains'));
      add(found.requestPrincipals, field('requestPrincipals'));
      for (const account of texts(field('serviceAccounts'))) {
        const [namespace = '', name] = account.includes('/') ? account.split('/') : [home, account];
        found.namespaces.add(namespace);
        if (name !== undefined) found.accounts.add(name);
      }
      ranges(field('ipBlocks'));
      ranges(field('remoteIpBlocks'));
    }
  }
  for (const operation of records(rule.to).map(({ operation: one }) => (one ?? {}) as Json)) {
    for (const [plain, negated] of [
      ['methods', 'notMethods'],
      ['hosts', 'notHosts'],
      ['paths', 'notPaths'],
    ] as const) {
      add(found[plain], operation[plain]);
      add(found[plain], operation[negated]);
    }
    ports(operation.ports);
    ports(operation.notPorts);
  }
  for (const { key, values, notValues } of records(rule.when)) condition(String(key), [...texts(values), ...texts(notValues)]);

  function condition(key: string, values: readonly string[]): void {
    const header = /^request\.headers\[(.+)\]$/.exec(key)?.[1];
    const claim = /^request\.auth\.claims\[(.+)\]$/.exec(key)?.[1];
    if (header !== undefined) add(into(found.headers, header.toLowerCase()), values);
    else if (claim !== undefined) add(into(found.claims, claim.replaceAll('][', '.')), values);
    else if (key.endsWith('.ip')) ranges(values);
    else if (key === 'destination.port') ports(values);
    else if (key === 'source.namespace') add(found.namespaces, values);
    else if (key === 'source.principal') principals(values);
    else if (key === 'request.auth.principal') add(found.requestPrincipals, values);
    else if (key === 'request.auth.audiences') add(into(found.claims, 'aud'), values);
    else if (key === 'request.auth.presenter') add(into(found.claims, 'azp'), values);
  }
}

function into(map: Map<string, Set<string>>, key: string): Set<string> {
  const set = map.get(key) ?? new Set();
  map.set(key, set);
  return set;
}

/** An address of the range that is not its first. */
function inside(range: string): string {
  const [address = '', length = '32'] = range.split('/');
  return Number(length) >= 31 ? address : address.replace(/\d+$/, '7');
}

function randomOf(seed: string): Random {
  let state = 0x811c9dc5;
  for (const byte of Buffer.from(seed)) state = Math.imul(state ^ byte, 0x01000193) >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}
