/**
 * One hash table for everything that is looked up by a key: open addressing with linear probing, 8 bytes for each entry (hash, reference),
 * cut into pages. The writer copies a page before it changes it for the first time after a publication, so a picture once published stays
 * as it is and an update costs a few pages, not a table. One key may have several entries, and a hash says nothing for certain: whoever
 * looks something up checks what it finds.
 */
import { type Arena, type ArenaView, type BlockRef, HEADER_BYTES, kinds } from './arena.ts';

const PAGE_BITS = 9;
const PAGE_ENTRIES = 1 << PAGE_BITS;
const PAGE_BYTES = PAGE_ENTRIES * 8;
const EMPTY_PAGE = new Uint32Array(PAGE_ENTRIES * 2);

/** Where a picture's table is. */
export interface IndexRoot {
  readonly directory: BlockRef;
  /** Entries minus one; the number of entries is a power of two. */
  readonly mask: number;
}

/** The word of all memory where an entry is. */
const wordOf = (pages: Uint32Array, i: number): number =>
  (pages[i >>> PAGE_BITS] ?? 0) * 2 + HEADER_BYTES / 4 + (i & (PAGE_ENTRIES - 1)) * 2;

/** Calls `visit` with each reference under a hash, in no order, until it returns true. */
export function scanIndex(arena: ArenaView, { directory, mask }: IndexRoot, hash: number, visit: (ref: BlockRef) => boolean): void {
  if (directory === 0) return;
  for (let i = hash & mask; ; i = (i + 1) & mask) {
    const page = arena.word(directory, i >>> PAGE_BITS);
    const at = (i & (PAGE_ENTRIES - 1)) * 2;
    const ref = arena.word(page, at + 1);
    if (ref === 0) return;
    if (arena.word(page, at) === hash && visit(ref)) return;
  }
}

/** All entries, in no order. */
export function* indexEntries(arena: ArenaView, { directory, mask }: IndexRoot): Iterable<{ hash: number; ref: BlockRef }> {
  if (directory === 0) return;
  for (let i = 0; i <= mask; i++) {
    const page = arena.word(directory, i >>> PAGE_BITS);
    const at = (i & (PAGE_ENTRIES - 1)) * 2;
    const ref = arena.word(page, at + 1);
    if (ref !== 0) yield { hash: arena.word(page, at), ref };
  }
}

/** The table as its one writer has it: changed in place between two publications, never after one. */
export class IndexWriter {
  readonly #arena: Arena;
  #pages: Uint32Array;
  #mask: number;
  #count = 0;
  /** By number: 1 for pages that no published picture has yet. */
  #fresh: Uint8Array;
  #published: IndexRoot = { directory: 0, mask: 0 };
  #changed = true;

  constructor(arena: Arena) {
    this.#arena = arena;
    this.#pages = Uint32Array.of(this.#newPage());
    this.#fresh = Uint8Array.of(1);
    this.#mask = PAGE_ENTRIES - 1;
  }

  get count(): number {
    return this.#count;
  }

  /** Makes room for so many more entries, so that adding them cannot fail half-way. @throws {ArenaFull} */
  reserve(more: number): void {
    let capacity = this.#mask + 1;
    // Three quarters: with linear probing a miss then looks at about eight entries.
    while (this.#count + more > capacity * 0.75) capacity *= 2;
    if (capacity > this.#mask + 1) this.#rebuild(capacity);
  }

  add(hash: number, ref: BlockRef): void {
    this.reserve(1);
    this.#place(hash, ref);
    this.#count++;
    this.#changed = true;
  }

  /** Takes one entry out; the entries behind it move up, so that no probe ends early. */
  remove(hash: number, ref: BlockRef): void {
    const at = this.#positionOf(hash, ref);
    if (at === undefined) return;
    let hole = at;
    for (let i = (hole + 1) & this.#mask; this.#refAt(i) !== 0; i = (i + 1) & this.#mask) {
      const home = this.#hashAt(i) & this.#mask;
      if (((i - home) & this.#mask) < ((i - hole) & this.#mask)) continue;
      this.#write(hole, this.#hashAt(i), this.#refAt(i));
      hole = i;
    }
    this.#write(hole, 0, 0);
    this.#count--;
    this.#changed = true;
  }

  /** Puts another reference in the place of an entry's. */
  replace(hash: number, before: BlockRef, after: BlockRef): void {
    const at = this.#positionOf(hash, before);
    if (at === undefined) throw new Error('there is no such entry to replace');
    this.#write(at, hash, after);
    this.#changed = true;
  }

  /** Whether there is an entry under a hash at this moment, unpublished changes included. */
  has(hash: number): boolean {
    return this.#next(hash, hash & this.#mask) >= 0;
  }

  /** The first entry under a hash that is the one, at this moment, unpublished changes included; 0 where there is none. */
  find(hash: number, isIt: (ref: BlockRef) => boolean): BlockRef {
    for (let i = this.#next(hash, hash & this.#mask); i >= 0; i = this.#next(hash, (i + 1) & this.#mask)) {
      const ref = this.#refAt(i);
      if (isIt(ref)) return ref;
    }
    return 0;
  }

  /** The table as it is now, for the picture about to be published; later changes do not touch it. */
  seal(): IndexRoot {
    if (!this.#changed) return this.#published;
    const directory = this.#arena.allocate(kinds.directory, this.#pages.byteLength);
    this.#arena.setWords(directory, 0, this.#pages);
    this.#arena.retire(this.#published.directory);
    this.#published = { directory, mask: this.#mask };
    this.#fresh.fill(0);
    this.#changed = false;
    return this.#published;
  }

  #positionOf(hash: number, ref: BlockRef): number | undefined {
    for (let i = hash & this.#mask; this.#refAt(i) !== 0; i = (i + 1) & this.#mask) {
      if (this.#refAt(i) === ref && this.#hashAt(i) === hash) return i;
    }
    return undefined;
  }

  #place(hash: number, ref: BlockRef): void {
    const { u32 } = this.#arena;
    const pages = this.#pages;
    const mask = this.#mask;
    let i = hash & mask;
    while (u32[wordOf(pages, i) + 1] !== 0) i = (i + 1) & mask;
    this.#write(i, hash, ref);
  }

  /** Where the next entry under a hash is, from a position on; -1 where there is none. */
  #next(hash: number, from: number): number {
    const { u32 } = this.#arena;
    const pages = this.#pages;
    const mask = this.#mask;
    for (let i = from; ; i = (i + 1) & mask) {
      const at = wordOf(pages, i);
      if (u32[at + 1] === 0) return -1;
      if (u32[at] === hash) return i;
    }
  }

  #hashAt(i: number): number {
    return this.#arena.word(this.#pages[i >>> PAGE_BITS] ?? 0, (i & (PAGE_ENTRIES - 1)) * 2);
  }

  #refAt(i: number): BlockRef {
    return this.#arena.word(this.#pages[i >>> PAGE_BITS] ?? 0, (i & (PAGE_ENTRIES - 1)) * 2 + 1);
  }

  #write(i: number, hash: number, ref: BlockRef): void {
    this.#ownPage(i >>> PAGE_BITS);
    const { u32 } = this.#arena;
    const at = wordOf(this.#pages, i);
    u32[at] = hash;
    u32[at + 1] = ref;
  }

  #ownPage(number: number): void {
    if (this.#fresh[number] === 1) return;
    const page = this.#pages[number] ?? 0;
    const copy = this.#arena.copy(page);
    this.#arena.retire(page);
    this.#fresh[number] = 1;
    this.#pages[number] = copy;
  }

  #newPage(): BlockRef {
    const page = this.#arena.allocate(kinds.page, PAGE_BYTES);
    this.#arena.setWords(page, 0, EMPTY_PAGE);
    return page;
  }

  #rebuild(capacity: number): void {
    const pageCount = capacity >>> PAGE_BITS;
    this.#arena.demand(pageCount * PAGE_BYTES * 1.1);
    const before = this.#pages;
    const wasFresh = this.#fresh;
    this.#pages = Uint32Array.from({ length: pageCount }, () => this.#newPage());
    this.#fresh = new Uint8Array(pageCount).fill(1);
    this.#mask = capacity - 1;
    for (const [number, page] of before.entries()) {
      for (let at = 0; at < PAGE_ENTRIES * 2; at += 2) {
        const ref = this.#arena.word(page, at + 1);
        if (ref !== 0) this.#place(this.#arena.word(page, at), ref);
      }
      if (wasFresh[number] === 1) this.#arena.discard(page);
      else this.#arena.retire(page);
    }
    this.#changed = true;
  }
}
