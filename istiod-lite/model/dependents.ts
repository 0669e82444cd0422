/** Who depends on what, as the making of an output found it: asked when what it was made from changes. */
import { isDeepStrictEqual } from 'node:util';
import { Groups } from './groups.ts';

/** Who was made from what, of which there are few each. */
export class Dependents {
  readonly #users = new Groups<string>();
  readonly #used = new Map<string, readonly string[]>();

  users(of: string): ReadonlySet<string> {
    return this.#users.of(of);
  }

  /** Everything that has a user. */
  all(): Iterable<string> {
    return this.#users.keys();
  }

  record(source: string, used: ReadonlySet<string>): void {
    for (const key of this.#used.get(source) ?? []) if (!used.has(key)) this.#users.remove(key, source);
    for (const key of used) this.#users.add(key, source);
    if (used.size > 0) this.#used.set(source, [...used]);
    else this.#used.delete(source);
  }
}

/** Which services each waypoint's routes send to. */
export class BackendUse {
  /** Source → service → waypoints. */
  readonly #made = new Map<string, Map<string, Set<string>>>();
  readonly #sources = new Groups<string>();

  /** @param used by waypoint @returns services whose users may be others now */
  record(source: string, used: ReadonlyMap<string, ReadonlySet<string>>): Set<string> {
    const before = this.#made.get(source) ?? new Map<string, Set<string>>();
    const next = new Map<string, Set<string>>();
    for (const [waypoint, services] of used) {
      for (const service of services) next.set(service, (next.get(service) ?? new Set()).add(waypoint));
    }
    if (isDeepStrictEqual(before, next)) return new Set();
    for (const service of before.keys()) this.#sources.remove(service, source);
    for (const service of next.keys()) this.#sources.add(service, source);
    if (next.size > 0) this.#made.set(source, next);
    else this.#made.delete(source);
    return new Set([...before.keys(), ...next.keys()]);
  }

  waypointsOf(service: string): ReadonlySet<string> {
    const waypoints = new Set<string>();
    for (const source of this.#sources.of(service))
      for (const waypoint of this.#made.get(source)?.get(service) ?? []) waypoints.add(waypoint);
    return waypoints;
  }
}
