/**
 * Which of several endpoints is next: in turn, the less busy of two, by chance, by hash, or the one that is expected to answer first. Pure but
 * for what a balancer remembers of its own turns; what is known about endpoints is asked for, and chance is an argument.
 */
import type { HashTable } from './hash-tables.ts';

/** What balancers ask about endpoints, which have numbers from 0 to `size` - 1. */
export interface Members {
  readonly size: number;
  /** All weigh the same just now. */
  readonly even: boolean;
  weight(i: number): number;
  /** Requests under way. */
  active(i: number): number;
  /** What a request there is expected to cost: for `peakEwma` alone. */
  cost(i: number): number;
}

/** Chooses a number; undefined where none is usable. `usable` is undefined where all are. */
export type Balancer = (usable: ((i: number) => boolean) | undefined, hash: number | undefined) => number | undefined;

/** Uniform in [0, 1). */
export type Random = () => number;

/** Beyond so many members of different weight a turn would cost too much; chance comes to the same. */
const MAX_TURNS = 256;

/**
 * Each in turn; where weights differ, smoothly: each is owed its weight at every turn, the one that is owed most goes and pays the sum (nginx).
 * Begins somewhere, lest the first endpoint get everybody's first request.
 */
export function inTurn(members: Members, random: Random): Balancer {
  const { size } = members;
  let next = Math.floor(random() * Math.max(1, size));
  const owed = new Float64Array(size);
  const byChance = atRandom(members, random);
  return (usable) => {
    if (members.even) {
      for (let i = 0; i < size; i++) {
        next = (next + 1) % size;
        if (usable === undefined || usable(next)) return next;
      }
      return undefined;
    }
    if (size > MAX_TURNS) return byChance(usable, undefined);
    let best: number | undefined;
    let sum = 0;
    for (let i = 0; i < size; i++) {
      if (usable && !usable(i)) continue;
      const weight = members.weight(i);
      sum += weight;
      owed[i] = (owed[i] ?? 0) + weight;
      if (best === undefined || (owed[i] ?? 0) > (owed[best] ?? 0)) best = i;
    }
    if (best !== undefined) owed[best] = (owed[best] ?? 0) - sum;
    return best;
  };
}

/** Of two by chance the one with fewer requests under way (Mitzenmacher, 2001). */
export const leastRequest = (members: Members, random: Random): Balancer => ofTwo(members, random, (i) => members.active(i));

/** Of two by chance the one that is expected to answer first: its usual time, times the requests that wait there already. */
export const peakEwma = (members: Members, random: Random): Balancer =>
  ofTwo(members, random, (i) => members.cost(i) * (members.active(i) + 1));

export function atRandom(members: Members, random: Random): Balancer {
  return (usable) => {
    if (usable === undefined && members.even) return members.size === 0 ? undefined : Math.floor(random() * members.size);
    let total = 0;
    for (let i = 0; i < members.size; i++) if (!usable || usable(i)) total += members.weight(i);
    let point = random() * total;
    let last: number | undefined;
    for (let i = 0; i < members.size; i++) {
      const weight = members.weight(i);
      if (weight <= 0 || (usable && !usable(i))) continue;
      if (point < weight) return i;
      point -= weight;
      // Rounding may leave a hair after the last one.
      last = i;
    }
    return last;
  };
}

/** By a request's hash; requests without one go by chance. */
export function byHash(table: HashTable, members: Members, random: Random): Balancer {
  const byChance = atRandom(members, random);
  return (usable, hash) => (hash === undefined ? byChance(usable, undefined) : table.lookup(hash, usable));
}

function ofTwo(members: Members, random: Random, cost: (i: number) => number): Balancer {
  const any = atRandom(members, random);
  return (usable) => {
    const first = any(usable, undefined);
    if (first === undefined) return undefined;
    let second = any(usable, undefined);
    if (second === first) second = nextUsable(members.size, first, usable);
    return second !== undefined && cost(second) < cost(first) ? second : first;
  };
}

function nextUsable(size: number, after: number, usable: ((i: number) => boolean) | undefined): number | undefined {
  for (let i = 1; i < size; i++) {
    const at = (after + i) % size;
    if (usable === undefined || usable(at)) return at;
  }
  return undefined;
}

/** Per cent of the traffic that a tier can take: four tenths more than its usable share, so that a tier that is a little ill keeps it all (Envoy). */
const OVERPROVISIONING = 140;

/**
 * The tier that gets a request: the first one as long as enough of it is usable, then more and more of the next ones.
 * @returns the number of the tier; undefined where nothing is usable in any of them
 */
export function chooseTier(tiers: readonly { readonly usable: number; readonly size: number }[], random: Random): number | undefined {
  const first = tiers[0];
  if (first && first.usable === first.size && first.size > 0) return 0;
  const health = tiers.map(({ usable, size }) => (size === 0 ? 0 : Math.min(100, (OVERPROVISIONING * usable) / size)));
  const total = Math.min(
    100,
    health.reduce((sum, one) => sum + one, 0),
  );
  if (total === 0) return undefined;
  let point = random() * total;
  let last: number | undefined;
  for (const [i, one] of health.entries()) {
    if (one === 0) continue;
    if (point < one) return i;
    point -= one;
    last = i;
  }
  return last;
}
