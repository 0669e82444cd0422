/**
 * Lists of references under a key (the endpoints of a service, the policies of a namespace), changed once per push however many of their
 * members the push touches: a rollout of a thousand pods writes the service's list once, not a thousand times.
 */
import type { Arena, BlockRef } from './arena.ts';
import type { IndexWriter } from './index-table.ts';
import { isListOf, listItems, writeList } from './records.ts';

interface Change {
  /** Items by their reference. */
  readonly added: Map<BlockRef, Uint32Array>;
  readonly removed: Set<BlockRef>;
}

/** Where lists lie, and how their keys are hashed. */
export interface ListWriterOptions {
  readonly arena: Arena;
  readonly index: IndexWriter;
  readonly hash: (key: string) => number;
  /** Words of an item, the reference included. */
  readonly width: number;
}

/** Collects additions and removals by key; `flush` writes them. Keeps the items that it is given until then. */
export class ListWriter {
  readonly #options: ListWriterOptions;
  readonly #changes = new Map<string, Change>();

  constructor(options: ListWriterOptions) {
    this.#options = options;
  }

  /** @param item its words; the first is the reference that it is removed by */
  add(key: string, item: Uint32Array): void {
    this.#change(key).added.set(item[0] ?? 0, item);
  }

  remove(key: string, ref: BlockRef): void {
    const change = this.#change(key);
    if (!change.added.delete(ref)) change.removed.add(ref);
  }

  /** Writes what was added and removed since the last time. Items keep their order; new ones go to the end. */
  flush(): void {
    const { arena, index, hash, width } = this.#options;
    for (const [key, change] of this.#changes) {
      const at = hash(key);
      const before = this.#find(at, key);
      const items = merge(before === 0 ? new Uint32Array(0) : listItems(arena, before), change, width);
      const after = items.length === 0 ? 0 : writeList(arena, key, width, items);
      if (before === 0 && after !== 0) index.add(at, after);
      else if (before !== 0 && after === 0) index.remove(at, before);
      else if (before !== 0) index.replace(at, before, after);
      arena.retire(before);
      // One by one, so that what could not be written for lack of memory is written with the next push.
      this.#changes.delete(key);
    }
  }

  #change(key: string): Change {
    const change = this.#changes.get(key) ?? { added: new Map(), removed: new Set() };
    this.#changes.set(key, change);
    return change;
  }

  #find(hash: number, key: string): BlockRef {
    const { arena, index } = this.#options;
    let found = 0;
    index.scan(hash, (ref) => {
      if (isListOf(arena, ref, key)) found = ref;
      return found !== 0;
    });
    return found;
  }
}

function merge(before: Uint32Array, { added, removed }: Change, width: number): Uint32Array {
  const items = new Uint32Array(before.length + added.size * width);
  let end = 0;
  for (let at = 0; at < before.length; at += width) {
    if (removed.has(before[at] ?? 0)) continue;
    items.set(before.subarray(at, at + width), end);
    end += width;
  }
  for (const item of added.values()) {
    items.set(item, end);
    end += width;
  }
  return items.subarray(0, end);
}
