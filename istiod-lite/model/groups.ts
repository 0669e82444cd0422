/** Sets by key, without empty ones. */

const EMPTY: ReadonlySet<never> = new Set<never>();

/** Another map with the same keys. */
export const mapEach = <V, W>(map: ReadonlyMap<string, V>, make: (value: V) => W): Map<string, W> =>
  new Map([...map].map(([key, value]) => [key, make(value)]));

export class Groups<T> {
  readonly #sets = new Map<string, Set<T>>();

  of(key: string): ReadonlySet<T> {
    return this.#sets.get(key) ?? EMPTY;
  }

  keys(): Iterable<string> {
    return this.#sets.keys();
  }

  add(key: string, item: T): void {
    const set = this.#sets.get(key);
    if (set) set.add(item);
    else this.#sets.set(key, new Set([item]));
  }

  remove(key: string, item: T): void {
    const set = this.#sets.get(key);
    if (set?.delete(item) && set.size === 0) this.#sets.delete(key);
  }
}
