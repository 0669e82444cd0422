/**
 * One hash table for everything that is looked up by a key: open addressing with linear probing, 8 bytes for each entry (hash, reference),
 * cut into pages. The writer copies a page before it changes it for the first time after a publication, so a picture once published stays
 * as it is and an update costs a few pages, not a table. One key may have several entries, and a hash says nothing for certain: whoever
 * looks something up checks what it finds.
 */
import { type Arena, type ArenaView, type BlockRef, kinds } from './arena.ts';

const PAGE_BITS = 9;
const PAGE_ENTRIES = 1 << PAGE_BITS;
const PAGE_BYTES = PAGE_ENTRIES * 8;

/** Where a picture's table is. */
export interface IndexRoot {
  readonly directory: BlockRef;
  /** Entries minus one; the number of entries is a power of two. */
  readonly mask: number;
}

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
  /** Pages that no published picture has yet. */
  readonly #fresh = new Set<BlockRef>();
  #published: IndexRoot = { directory: 0, mask: 0 };
  #changed = true;

  constructor(arena: Arena) {
    this.#arena = arena;
    this.#pages = Uint32Array.of(this.#newPage());
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

  /** The table as it is at this moment, unpublished changes included, for looking things up while writing. */
  scan(hash: number, visit: (ref: BlockRef) => boolean): void {
    for (let i = hash & this.#mask; this.#refAt(i) !== 0; i = (i + 1) & this.#mask) {
      if (this.#hashAt(i) === hash && visit(this.#refAt(i))) return;
    }
  }

  /** The table as it is now, for the picture about to be published; later changes do not touch it. */
  seal(): IndexRoot {
    if (!this.#changed) return this.#published;
    const directory = this.#arena.allocate(kinds.directory, this.#pages.byteLength);
    for (const [i, page] of this.#pages.entries()) this.#arena.setWord(directory, i, page);
    this.#arena.retire(this.#published.directory);
    this.#published = { directory, mask: this.#mask };
    this.#fresh.clear();
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
    let i = hash & this.#mask;
    while (this.#refAt(i) !== 0) i = (i + 1) & this.#mask;
    this.#write(i, hash, ref);
  }

  #hashAt(i: number): number {
    return this.#arena.word(this.#pages[i >>> PAGE_BITS] ?? 0, (i & (PAGE_ENTRIES - 1)) * 2);
  }

  #refAt(i: number): BlockRef {
    return this.#arena.word(this.#pages[i >>> PAGE_BITS] ?? 0, (i & (PAGE_ENTRIES - 1)) * 2 + 1);
  }

  #write(i: number, hash: number, ref: BlockRef): void {
    const page = this.#ownPage(i >>> PAGE_BITS);
    const at = (i & (PAGE_ENTRIES - 1)) * 2;
    this.#arena.setWord(page, at, hash);
    this.#arena.setWord(page, at + 1, ref);
  }

  #ownPage(number: number): BlockRef {
    const page = this.#pages[number] ?? 0;
    if (this.#fresh.has(page)) return page;
    const copy = this.#arena.copy(page);
    this.#arena.retire(page);
    this.#fresh.add(copy);
    this.#pages[number] = copy;
    return copy;
  }

  #newPage(): BlockRef {
    const page = this.#arena.allocate(kinds.page, PAGE_BYTES);
    for (let i = 0; i < PAGE_ENTRIES * 2; i++) this.#arena.setWord(page, i, 0);
    this.#fresh.add(page);
    return page;
  }

  #rebuild(capacity: number): void {
    const pageCount = capacity >>> PAGE_BITS;
    this.#arena.demand(pageCount * PAGE_BYTES * 1.1);
    const before = this.#pages;
    this.#pages = Uint32Array.from({ length: pageCount }, () => this.#newPage());
    this.#mask = capacity - 1;
    for (const page of before) {
      for (let at = 0; at < PAGE_ENTRIES * 2; at += 2) {
        const ref = this.#arena.word(page, at + 1);
        if (ref !== 0) this.#place(this.#arena.word(page, at), ref);
      }
      if (this.#fresh.delete(page)) this.#arena.discard(page);
      else this.#arena.retire(page);
    }
    this.#changed = true;
  }
}
