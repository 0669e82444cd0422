/**
 * Lists of references under a key (the endpoints of a service, the policies of a namespace), changed once per push however many of their
 * members the push touches: a rollout of a thousand pods writes the service's list once, not a thousand times.
 */
import type { Arena, BlockRef } from './arena.ts';
import type { IndexWriter } from './index-table.ts';
import { isListOf, listItems, writeList } from './records.ts';

/** The end of a chain of added items. */
const NONE = 0xffffffff;
const FIRST_WORDS = 1024;

interface Change {
  /** Where the first and the last of the added items are among all added ones; -1 for none. */
  first: number;
  last: number;
  added: number;
  removed: Set<BlockRef> | undefined;
}

/** Where lists lie, and how their keys are hashed. */
export interface ListWriterOptions {
  readonly arena: Arena;
  readonly index: IndexWriter;
  readonly hash: (key: string) => number;
  /** Words of an item, the reference included. */
  readonly width: number;
}

/** Collects additions and removals by key; `flush` writes them. */
export class ListWriter {
  readonly #options: ListWriterOptions;
  readonly #changes = new Map<string, Change>();
  /** All added items, each with the place of the next one of its list behind it: a push of a whole mesh adds one for each workload. */
  #added = new Uint32Array(0);
  #end = 0;

  constructor(options: ListWriterOptions) {
    this.#options = options;
  }

  /** @param item its words from `at` on; the first is the reference that it is removed by, `ref` whatever stands there */
  add(key: string, ref: BlockRef, item: Uint32Array, at = 0): void {
    const { width } = this.#options;
    const place = this.#end;
    if (place + width + 1 > this.#added.length) this.#grow(width + 1);
    for (let i = 0; i < width; i++) this.#added[place + i] = item[at + i] ?? 0;
    this.#added[place] = ref;
    this.#added[place + width] = NONE;
    this.#end += width + 1;
    const change = this.#change(key);
    if (change.last < 0) change.first = place;
    else this.#added[change.last + width] = place;
    change.last = place;
    change.added++;
  }

  /** What was added since the last flush may be removed too: no two blocks have one reference meanwhile. */
  remove(key: string, ref: BlockRef): void {
    const change = this.#change(key);
    change.removed ??= new Set();
    change.removed.add(ref);
  }

  /** Writes what was added and removed since the last time. Items keep their order; new ones go to the end. */
  flush(): void {
    for (const [key, change] of this.#changes) this.#flushOne(key, change);
    this.#added = new Uint32Array(0);
    this.#end = 0;
  }

  #flushOne(key: string, change: Change): void {
    const { arena, index, hash, width } = this.#options;
    const at = hash(key);
    const before = this.#find(at, key);
    const items = this.#merge(before === 0 ? new Uint32Array(0) : listItems(arena, before), change);
    const after = items.length === 0 ? 0 : writeList(arena, key, width, items);
    if (before === 0 && after !== 0) index.add(at, after);
    else if (before !== 0 && after === 0) index.remove(at, before);
    else if (before !== 0) index.replace(at, before, after);
    arena.retire(before);
    // One by one, so that what could not be written for lack of memory is written with the next push.
    this.#changes.delete(key);
  }

  #change(key: string): Change {
    const known = this.#changes.get(key);
    if (known) return known;
    const change = { first: -1, last: -1, added: 0, removed: undefined };
    this.#changes.set(key, change);
    return change;
  }

  #grow(words: number): void {
    const larger = new Uint32Array(Math.max(FIRST_WORDS, this.#end * 2, this.#end + words));
    larger.set(this.#added.subarray(0, this.#end));
    this.#added = larger;
  }

  #merge(before: Uint32Array, { first, added, removed }: Change): Uint32Array {
    const { width } = this.#options;
    const items = new Uint32Array(before.length + added * width);
    let end = 0;
    const take = (from: Uint32Array, at: number): void => {
      if (removed?.has(from[at] ?? 0)) return;
      items.set(from.subarray(at, at + width), end);
      end += width;
    };
    for (let at = 0; at < before.length; at += width) take(before, at);
    for (let at = added > 0 ? first : NONE; at !== NONE; at = this.#added[at + width] ?? NONE) take(this.#added, at);
    return items.subarray(0, end);
  }

  #find(hash: number, key: string): BlockRef {
    const { arena, index } = this.#options;
    return index.find(hash, (ref) => isListOf(arena, ref, key));
  }
}
