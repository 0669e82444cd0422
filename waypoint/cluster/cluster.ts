/**
 * The endpoints of one service's port (or of a subset) in one picture of the mesh, and the choice among them: shares by locality, tiers from
 * near to far, and a balancer in each. A cluster without special settings has one tier, all of it usable, and costs one call of its balancer.
 */
import { maglevTable, ringTable } from '../../common/decision/hash-tables.ts';
import { atRandom, type Balancer, byHash, chooseTier, inTurn, leastRequest, type Members, peakEwma } from '../../common/decision/pick.ts';
import { type BalancingName, warmupFactor } from '../../common/decision/traffic-model.ts';
import type { ClusterState } from './cluster-state.ts';
import type { PickedEndpoint } from './endpoint.ts';

export interface ClusterMember {
  readonly endpoint: PickedEndpoint;
  readonly weight: number;
}

export interface ClusterOptions {
  readonly state: ClusterState;
  readonly balancing: BalancingName;
  /** What they share, and tiers from near to far. */
  readonly shares: readonly { readonly weight: number; readonly tiers: readonly (readonly ClusterMember[])[] }[];
  readonly random: () => number;
  /** Milliseconds, monotonic. */
  readonly now: () => number;
}

export class Cluster {
  readonly size: number;
  readonly #state: ClusterState;
  readonly #shares: readonly { readonly weight: number; readonly tiers: readonly Tier[] }[];
  readonly #random: () => number;
  readonly #now: () => number;
  /** The tier that has everything as long as it is well, where shares leave no choice. */
  readonly #near: Tier | undefined;
  readonly #byAddress = new Map<string, PickedEndpoint>();

  constructor({ state, balancing, shares, random, now }: ClusterOptions) {
    this.#state = state;
    this.#random = random;
    this.#now = now;
    this.#shares = shares.map(({ weight, tiers }) => ({
      weight,
      tiers: tiers.map((members) => new Tier(members, { state, balancing, random, now })),
    }));
    const tiers = this.#shares.flatMap((share) => share.tiers);
    this.#near = this.#shares.length === 1 ? tiers[0] : undefined;
    this.size = tiers.reduce((sum, tier) => sum + tier.size, 0);
    state.size = this.size;
    for (const { tiers: all } of shares) {
      for (const { endpoint } of all.flat()) this.#byAddress.set(addressText(endpoint), endpoint);
    }
  }

  /** @param refused keys of endpoints that are not to be chosen, unless there is no other @returns undefined where there is none at all */
  pick(refused: ReadonlySet<string>, hash?: number): PickedEndpoint | undefined {
    if (refused.size > 0 && refused.size < this.size) {
      const other = this.#pick(refused, hash);
      if (other) return other;
    }
    return this.#pick(NOBODY, hash);
  }

  /** The endpoint of this address, where it is there and well: that of a session. */
  at(address: string): PickedEndpoint | undefined {
    const found = this.#byAddress.get(address);
    return found && !found.load.health.isEjected(this.#now()) ? found : undefined;
  }

  #pick(refused: ReadonlySet<string>, hash: number | undefined): PickedEndpoint | undefined {
    const now = this.#state.ejectedUntil === 0 ? NO_EJECTIONS : this.#ejectionTime();
    if (this.#near && now === NO_EJECTIONS && refused.size === 0) return this.#near.pick(refused, hash, NO_EJECTIONS);
    const ejectedFrom = this.#inPanic(now) ? NO_EJECTIONS : now;
    const share = this.#share(ejectedFrom);
    if (!share) return undefined;
    const first = chooseTier(
      share.tiers.map((tier) => tier.health(ejectedFrom)),
      this.#random,
    );
    if (first === undefined) return undefined;
    const chosen = share.tiers[first]?.pick(refused, hash, ejectedFrom);
    if (chosen || refused.size === 0) return chosen;
    // Everybody in it has refused: the others, from near to far.
    for (const tier of share.tiers) {
      const other = tier.pick(refused, hash, ejectedFrom);
      if (other) return other;
    }
    return undefined;
  }

  /** The time by which ejections are judged. */
  #ejectionTime(): number {
    const now = this.#now();
    if (now < this.#state.ejectedUntil) return now;
    this.#state.ejectedUntil = 0;
    return NO_EJECTIONS;
  }

  /** So few are well that it is better to ask all (Envoy, panic threshold). */
  #inPanic(now: number): boolean {
    const least = this.#state.policy?.outliers?.minHealthPercent ?? 0;
    if (now === NO_EJECTIONS || least === 0) return false;
    let usable = 0;
    for (const { tiers } of this.#shares) for (const tier of tiers) usable += tier.health(now).usable;
    return (usable * 100) / Math.max(1, this.size) < least;
  }

  #share(now: number): { readonly tiers: readonly Tier[] } | undefined {
    if (this.#shares.length <= 1) return this.#shares[0];
    const open = this.#shares.filter(({ tiers }) => tiers.some((tier) => tier.health(now).usable > 0));
    let point = this.#random() * open.reduce((sum, { weight }) => sum + weight, 0);
    for (const share of open) {
      if (point < share.weight) return share;
      point -= share.weight;
    }
    return open.at(-1);
  }
}

const NOBODY: ReadonlySet<string> = new Set();
/** In the place of a time: nobody is put aside. */
const NO_EJECTIONS = -1;

/** What a session's cookie or header says of its endpoint. */
export const addressText = ({ address, workload, port }: PickedEndpoint): string =>
  address ? `${address.ip}:${address.port}` : `${workload.hostname}:${port}`;

interface Health {
  readonly size: number;
  readonly usable: number;
}

class Tier {
  readonly #members: readonly ClusterMember[];
  readonly #state: ClusterState;
  readonly #balancer: Balancer;
  readonly #whole: Health;
  #health: Health;
  #countedEjections = -1;
  #countAgainAt = 0;

  constructor(members: readonly ClusterMember[], { state, balancing, random, now }: Omit<ClusterOptions, 'shares'>) {
    this.#members = members;
    this.#state = state;
    this.#balancer = balancer(balancing, members, state, random, now);
    this.#whole = { size: members.length, usable: members.length };
    this.#health = this.#whole;
  }

  get size(): number {
    return this.#members.length;
  }

  /** @param now NO_EJECTIONS where they do not count */
  pick(refused: ReadonlySet<string>, hash: number | undefined, now: number): PickedEndpoint | undefined {
    const all = refused.size === 0 && now === NO_EJECTIONS;
    const chosen = this.#balancer(all ? undefined : (i) => this.#isUsable(i, refused, now), hash);
    return chosen === undefined ? undefined : this.#members[chosen]?.endpoint;
  }

  health(now: number): Health {
    if (now === NO_EJECTIONS) return this.#whole;
    if (this.#countedEjections === this.#state.ejections && now < this.#countAgainAt) return this.#health;
    let usable = 0;
    let next = Number.POSITIVE_INFINITY;
    for (const { endpoint } of this.#members) {
      const { health } = endpoint.load;
      if (!health.isEjected(now)) usable++;
      else next = Math.min(next, health.ejectedUntil);
    }
    this.#countedEjections = this.#state.ejections;
    this.#countAgainAt = next;
    this.#health = { size: this.#members.length, usable };
    return this.#health;
  }

  #isUsable(i: number, refused: ReadonlySet<string>, now: number): boolean {
    const endpoint = this.#members[i]?.endpoint;
    if (!endpoint || refused.has(endpoint.key)) return false;
    return now === NO_EJECTIONS || !endpoint.load.health.isEjected(now);
  }
}

function balancer(
  name: BalancingName,
  list: readonly ClusterMember[],
  { policy }: ClusterState,
  random: () => number,
  now: () => number,
): Balancer {
  const members = membersOf(list, policy?.warmup, now);
  const keys = (): string[] => list.map(({ endpoint }) => addressText(endpoint));
  const weights = (): number[] => list.map(({ weight }) => weight);
  switch (name) {
    case 'round_robin':
    case 'passthrough':
      return inTurn(members, random);
    case 'least_request':
      return leastRequest(members, random);
    case 'random':
      return atRandom(members, random);
    case 'peak_ewma':
      return peakEwma(members, random);
    case 'ring':
      return byHash(ringTable(keys(), weights(), policy?.hash?.size ?? 0), members, random);
    case 'maglev':
      return byHash(maglevTable(keys(), weights(), policy?.hash?.size ?? 0), members, random);
  }
}

function membersOf(list: readonly ClusterMember[], warmup: Parameters<typeof warmupFactor>[0] | undefined, now: () => number): Members {
  const base = {
    size: list.length,
    active: (i: number) => list[i]?.endpoint.load.active ?? 0,
    cost: (i: number) => list[i]?.endpoint.load.expectedMs ?? 0,
  };
  const even = list.every(({ weight }) => weight === list[0]?.weight);
  if (!warmup) return { ...base, even, weight: (i) => list[i]?.weight ?? 0 };
  const warmUntil = Math.max(0, ...list.map(({ endpoint }) => endpoint.load.since)) + warmup.durationMs;
  return {
    ...base,
    get even() {
      return even && now() >= warmUntil;
    },
    weight: (i) => {
      const member = list[i];
      return member ? member.weight * warmupFactor(warmup, now() - member.endpoint.load.since) : 0;
    },
  };
}
