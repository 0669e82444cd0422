/**
 * Lists of references under a key (the endpoints of a service, the policies of a namespace), changed once per push however many of their
 * members the push touches: a rollout of a thousand pods writes the service's list once, not a thousand times.
 */
import { type Arena, type BlockRef, kinds } from './arena.ts';
import type { IndexWriter } from './index-table.ts';
import { listItems, listKey, writeList } from './records.ts';

interface Change {
  readonly added: Set<BlockRef>;
  readonly removed: Set<BlockRef>;
}

export class ListWriter {
  readonly #arena: Arena;
  readonly #index: IndexWriter;
  readonly #hash: (key: string) => number;
  readonly #changes = new Map<string, Change>();

  constructor(arena: Arena, index: IndexWriter, hash: (key: string) => number) {
    this.#arena = arena;
    this.#index = index;
    this.#hash = hash;
  }

  add(key: string, ref: BlockRef): void {
    this.#change(key).added.add(ref);
  }

  remove(key: string, ref: BlockRef): void {
    const change = this.#change(key);
    if (!change.added.delete(ref)) change.removed.add(ref);
  }

  /** Writes what was added and removed since the last time. Members keep their order; new ones go to the end. */
  flush(): void {
    for (const [key, { added, removed }] of this.#changes) {
      const hash = this.#hash(key);
      const before = this.#find(hash, key);
      const kept = before === 0 ? [] : listItems(this.#arena, before).filter((ref) => !removed.has(ref));
      const items = [...kept, ...added];
      const after = items.length === 0 ? 0 : writeList(this.#arena, key, items);
      if (before === 0 && after !== 0) this.#index.add(hash, after);
      else if (before !== 0 && after === 0) this.#index.remove(hash, before);
      else if (before !== 0) this.#index.replace(hash, before, after);
      this.#arena.retire(before);
    }
    this.#changes.clear();
  }

  #change(key: string): Change {
    const change = this.#changes.get(key) ?? { added: new Set(), removed: new Set() };
    this.#changes.set(key, change);
    return change;
  }

  #find(hash: number, key: string): BlockRef {
    let found = 0;
    this.#index.scan(hash, (ref) => {
      if (this.#arena.kind(ref) === kinds.list && listKey(this.#arena, ref) === key) found = ref;
      return found !== 0;
    });
    return found;
  }
}
