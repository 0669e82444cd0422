/**
 * Rate limits: token buckets, kept as one time each (the generic cell rate algorithm: a bucket is the time at which it will be full again, and
 * a request moves that time by its share of the period). What buckets lie in, and what time it is, are arguments; every limit that a request
 * counts for is looked at before anything is taken of any, so that a request that one limit refuses costs the others nothing.
 */
import type { Limit, RateLimits, Target } from '../codec/gen/waypoint.ts';
import { attributeValues, conditionHolds, type Facts } from './http-authorization.ts';
import { ADDRESS_KEYS, type Attribute, attributeOf, type CompiledCondition, compileCondition } from './http-model.ts';

export interface CompiledLimit {
  /** `namespace/name` of the policy. */
  readonly policy: string;
  readonly dryRun: boolean;
  readonly name: string;
  /** What the keys of its buckets begin with. */
  readonly key: string;
  readonly requests: number;
  /** Microseconds. */
  readonly period: number;
  /** Of one request: microseconds of the period. */
  readonly interval: number;
  readonly burst: number;
  readonly by: readonly Attribute[];
  readonly when: readonly CompiledCondition[];
  readonly fairBetween: readonly Attribute[];
  /** Its item of `RateLimit-Policy`. */
  readonly header: string;
}

export interface CompiledRateLimits {
  /** `namespace/name` */
  readonly key: string;
  /** Services (namespace/hostname) all of whose requests count; undefined for everything that the waypoint serves. */
  readonly services: ReadonlySet<string> | undefined;
  readonly routes: readonly { readonly service: string; readonly route: string; readonly section: string }[];
  readonly limits: readonly CompiledLimit[];
}

const MICROSECONDS = 1000;
const MAX_LIMITS = 32;

/** @throws {Error} that says what cannot be used; the resource is then rejected as a whole */
export function compileRateLimits(policy: RateLimits): CompiledRateLimits {
  const key = `${policy.namespace}/${policy.name}`;
  const everything = policy.targets.some(({ type }) => type?.$case === 'everything');
  if (policy.limits.length > MAX_LIMITS) throw new Error(`${policy.limits.length} limits are more than ${MAX_LIMITS}`);
  return {
    key,
    services: everything ? undefined : new Set(policy.targets.flatMap(serviceTarget)),
    routes: policy.targets.flatMap(({ type }) => (type?.$case === 'route' ? [type.value] : [])),
    limits: policy.limits.map((limit) => compileLimit(limit, key, policy.dryRun)),
  };
}

const serviceTarget = ({ type }: Target): string[] => (type?.$case === 'service' ? [type.value] : []);

function compileLimit(limit: Limit, policy: string, dryRun: boolean): CompiledLimit {
  const { name, requests, periodMs, burst } = limit;
  if (requests === 0 || periodMs === 0 || burst === 0) throw new Error(`limit ${name}: requests, period and burst are more than 0`);
  const attributes = (keys: readonly string[]): Attribute[] =>
    keys.map((key) => {
      const found = limitAttribute(key);
      if (!found) throw new Error(`limit ${name}: there is no attribute ${key}`);
      return found;
    });
  const period = periodMs * MICROSECONDS;
  const window = periodMs % 1000 === 0 ? `;w=${periodMs / 1000}` : '';
  return {
    policy,
    dryRun,
    name,
    // With its numbers: where they change, buckets begin anew.
    key: [policy, name, requests, periodMs, burst].join(' '),
    requests,
    period,
    interval: Math.max(1, Math.round(period / requests)),
    burst,
    by: attributes(limit.by),
    when: limit.when.map((condition) => compileCondition(condition, limitAttribute)),
    fairBetween: attributes(limit.fairBetween),
    header: `${quoted(name)};q=${requests}${window}`,
  };
}

const MORE: Readonly<Record<string, Attribute>> = {
  'source.ip': { of: 'ip' },
  'remote.ip': { of: 'ip' },
  'request.path': { of: 'path' },
  'request.method': { of: 'method' },
  'request.host': { of: 'host' },
};

/** What buckets can be kept by, and conditions be about: the keys of an AuthorizationPolicy's `when`, and a request's path, method, host, parameters. */
export function limitAttribute(key: string): Attribute | undefined {
  if (Object.hasOwn(MORE, key)) return MORE[key];
  const query = /^request\.query\[([^\]]+)\]$/.exec(key)?.[1];
  // Requests are counted, and no request has a server name: TLS that is passed on is bytes.
  if (key === 'connection.sni') return undefined;
  return query === undefined ? attributeOf(key) : { query };
}

/** Addresses compare by range. */
export const isLimitCondition = (key: string): boolean => ADDRESS_KEYS.includes(key) || limitAttribute(key) !== undefined;

/** Structured fields' strings (RFC 9651, section 3.3.3). */
const quoted = (text: string): string => `"${text.replaceAll(/[^\x20-\x7e]/g, '?').replaceAll(/["\\]/g, '\\$&')}"`;

/** Time is in microseconds of a clock that everybody who shares the buckets has in common. */
export interface Bucket {
  /** When it is full again, in the past for one that is. */
  fullAt(): number;
  /**
   * Takes one request's interval out of it.
   * @param room how far ahead of now `fullAt` may be
   * @returns false where somebody else was faster, and nothing was taken
   */
  take(interval: number, room: number, now: number): boolean;
  /** How many such buckets have been asked of since the window before this one began; this one counts. */
  companions(group: string, windowNumber: number): number;
}

export interface Buckets {
  now(): number;
  /** A bucket that is not known is full. */
  bucket(key: string): Bucket;
}

/** Limits for requests of one service. */
export interface ServiceLimits {
  readonly always: readonly CompiledLimit[];
  /** Of routes that are attached to it. */
  readonly routes: readonly { readonly route: string; readonly section: string; readonly limits: readonly CompiledLimit[] }[];
}

/** Those that count a request which takes this rule; a route's are for all of its rules, or for the one that is named. */
export function limitsOfRule({ always, routes }: ServiceLimits, rule: string | undefined): readonly CompiledLimit[] {
  if (rule === undefined || routes.length === 0) return always;
  const own = routes.flatMap(({ route, section, limits }) =>
    (section === '' ? rule.startsWith(`${route} rule `) : rule === `${route} rule ${section}`) ? limits : [],
  );
  return [...always, ...own];
}

/** What one limit says of a request. */
export interface LimitOutcome {
  readonly limit: CompiledLimit;
  readonly allowed: boolean;
  readonly remaining: number;
  /** Seconds until the bucket is full, and until the next request is let through; both rounded up. */
  readonly resetS: number;
  readonly retryS: number;
}

interface Look {
  readonly limit: CompiledLimit;
  readonly bucket: Bucket;
  /** The caller's own share, where the bucket is shared fairly. */
  readonly own: { readonly bucket: Bucket; readonly interval: number; readonly room: number } | undefined;
  readonly allowed: boolean;
}

/** Asks all limits, and takes a request out of each bucket only where none of those that are enforced refuses. */
export function askLimits(limits: readonly CompiledLimit[], facts: Facts, buckets: Buckets): LimitOutcome[] {
  const now = buckets.now();
  const looks = limits.flatMap((limit) =>
    limit.when.every((one) => conditionHolds(one, facts, 'DENY')) ? [look(limit, facts, buckets, now)] : [],
  );
  const refused = looks.some(({ allowed, limit }) => !allowed && !limit.dryRun);
  return looks.map((seen) => {
    const allowed = seen.allowed && (refused || takeOf(seen, now));
    return outcome(seen, allowed, now);
  });
}

function look(limit: CompiledLimit, facts: Facts, buckets: Buckets, now: number): Look {
  const key = `${limit.key}\n${valuesOf(limit.by, facts)}`;
  const bucket = buckets.bucket(key);
  const left = now + limit.burst * limit.interval - bucket.fullAt();
  if (limit.fairBetween.length === 0) return { limit, bucket, own: undefined, allowed: left >= limit.interval };
  return lookFairly(limit, bucket, buckets.bucket(`${key}\n${valuesOf(limit.fairBetween, facts)}`), { key, left, now });
}

/**
 * Half of a shared bucket is for whoever comes first. The other half is kept for shares: everybody who has asked lately may have an even part
 * of what flows in, and of that half at once. So however much one asks for, another one who stays within its part is not refused.
 */
function lookFairly(
  limit: CompiledLimit,
  bucket: Bucket,
  ownBucket: Bucket,
  { key, left, now }: { readonly key: string; readonly left: number; readonly now: number },
): Look {
  const companions = ownBucket.companions(key, Math.floor(now / Math.max(limit.period, SHORTEST_WINDOW)));
  const interval = limit.interval * companions;
  const reserve = (limit.burst * limit.interval) / 2;
  const room = Math.max(interval, reserve);
  const own = { bucket: ownBucket, interval, room };
  const within = ownBucket.fullAt() + interval - now <= room;
  const spare = left - limit.interval >= reserve;
  return { limit, bucket, own: within ? own : undefined, allowed: left >= limit.interval && (within || spare) };
}

const SHORTEST_WINDOW = 1_000_000;

function takeOf({ limit, bucket, own }: Look, now: number): boolean {
  if (!bucket.take(limit.interval, limit.burst * limit.interval, now)) return false;
  own?.bucket.take(own.interval, own.room, now);
  return true;
}

function outcome({ limit, bucket }: Look, allowed: boolean, now: number): LimitOutcome {
  const ahead = Math.max(0, bucket.fullAt() - now);
  const room = limit.burst * limit.interval;
  return {
    limit,
    allowed,
    remaining: allowed ? Math.max(0, Math.floor((room - ahead) / limit.interval)) : 0,
    resetS: Math.ceil(ahead / 1e6),
    retryS: allowed ? 0 : Math.max(1, Math.ceil((ahead + limit.interval - room) / 1e6)),
  };
}

const valuesOf = (attributes: readonly Attribute[], facts: Facts): string =>
  attributes.map((attribute) => attributeValues(attribute, facts).join(',')).join('\n');

export const limitRefusal = ({ policy, name, requests, period }: CompiledLimit): string =>
  `limit ${name} of ${policy}: ${requests} requests in ${period / 1e6} s`;

/** Buckets to look at: nothing is taken out of them. */
export const unchanged = (buckets: Buckets): Buckets => ({
  now: () => buckets.now(),
  bucket(key) {
    const found = buckets.bucket(key);
    return { fullAt: () => found.fullAt(), take: () => true, companions: (group, window) => found.companions(group, window) };
  },
});

/** `RateLimit-Policy` and `RateLimit` (IETF, draft-ietf-httpapi-ratelimit-headers-10), flat. */
export function limitFields(outcomes: readonly LimitOutcome[]): string[] {
  const told = outcomes.filter(({ limit }) => !limit.dryRun);
  if (told.length === 0) return [];
  return [
    'ratelimit-policy',
    told.map(({ limit }) => limit.header).join(', '),
    'ratelimit',
    told.map(({ limit, remaining, resetS }) => `${quoted(limit.name)};r=${remaining};t=${resetS}`).join(', '),
  ];
}
