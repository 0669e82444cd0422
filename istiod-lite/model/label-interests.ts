/**
 * Which labels of workloads each waypoint asks for: those of subsets, of routes that match by the caller's labels, of failover by labels.
 * Waypoints are told no others.
 */
import { isDeepStrictEqual } from 'node:util';

/** Labels of the workloads of a namespace, or of all namespaces where it is undefined. */
export interface LabelInterest {
  readonly namespace: string | undefined;
  readonly names: readonly string[];
}

/** By waypoint, `namespace/name`. */
export type LabelInterestsOf = ReadonlyMap<string, readonly LabelInterest[]>;

const EVERYWHERE = '*';

export class LabelInterests {
  readonly #byOwner = new Map<string, LabelInterestsOf>();
  /** Namespace → waypoint → names. */
  readonly #names = new Map<string, Map<string, Set<string>>>();

  /** @returns the namespaces whose workloads have to be told anew; undefined stands for all of them */
  record(owner: string, interests: LabelInterestsOf): Set<string | undefined> {
    const before = this.#byOwner.get(owner) ?? new Map();
    const touched = new Set<string | undefined>();
    if (isDeepStrictEqual(before, interests)) return touched;
    if (interests.size > 0) this.#byOwner.set(owner, interests);
    else this.#byOwner.delete(owner);
    for (const list of [...before.values(), ...interests.values()]) for (const { namespace } of list) touched.add(namespace);
    this.#rebuild();
    return touched;
  }

  /** What each waypoint wants to know of a workload of this namespace. */
  of(namespace: string): Map<string, Set<string>> {
    const found = new Map<string, Set<string>>();
    for (const key of [EVERYWHERE, namespace]) {
      for (const [waypoint, names] of this.#names.get(key) ?? []) found.set(waypoint, new Set([...(found.get(waypoint) ?? []), ...names]));
    }
    return found;
  }

  /** Owners are services with such settings: few. */
  #rebuild(): void {
    this.#names.clear();
    for (const interests of this.#byOwner.values()) {
      for (const [waypoint, list] of interests) {
        for (const { namespace, names } of list) {
          const byWaypoint = this.#names.get(namespace ?? EVERYWHERE) ?? new Map<string, Set<string>>();
          byWaypoint.set(waypoint, new Set([...(byWaypoint.get(waypoint) ?? []), ...names]));
          this.#names.set(namespace ?? EVERYWHERE, byWaypoint);
        }
      }
    }
  }
}
