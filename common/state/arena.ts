/**
 * One growing buffer cut into blocks. A block is named by a 32-bit reference (its offset in units of 8 bytes, 0 for none) and starts with
 * its size, its kind and a serial number that no other block ever has, so a cache can tell whether what it remembers is still there.
 * Freed blocks are kept by size class and used again; sizes repeat (resources of one kind are alike, index pages are equal), so little is lost.
 */

/** Reference of a block; 0 is none. */
export type BlockRef = number;

/** What a block holds; the first word of its header, beside its size. */
export const kinds = { workload: 1, service: 2, policy: 3, list: 4, page: 5, directory: 6, root: 7 } as const;
/** One of `kinds`. */
export type BlockKind = (typeof kinds)[keyof typeof kinds];

/** Bytes of the unit that references and sizes are counted in. */
export const UNIT = 8;
/** u32 size in units, u32 kind, f64 serial. */
export const HEADER_BYTES = 16;

/** Thrown where the buffer has reached its largest size. */
export class ArenaFull extends Error {
  constructor(maxBytes: number) {
    super(`the mesh state has reached its limit of ${maxBytes} bytes`);
    this.name = 'ArenaFull';
  }
}

/** Read access. Views of a fixed length are ten times as fast as ones that follow a growing buffer, so they are renewed when it has grown. */
export class ArenaView {
  readonly buffer: SharedArrayBuffer;
  u8: Uint8Array;
  u32: Uint32Array;
  f64: Float64Array;
  readonly #scratch = new Uint8Array(SCRATCH_BYTES);

  constructor(buffer: SharedArrayBuffer) {
    this.buffer = buffer;
    const length = buffer.byteLength;
    this.u8 = new Uint8Array(buffer, 0, length);
    this.u32 = new Uint32Array(buffer, 0, length >> 2);
    this.f64 = new Float64Array(buffer, 0, length >> 3);
  }

  /** To be called before references are followed that another thread may have made since. */
  renew(): void {
    const length = this.buffer.byteLength;
    if (length === this.u8.length) return;
    this.u8 = new Uint8Array(this.buffer, 0, length);
    this.u32 = new Uint32Array(this.buffer, 0, length >> 2);
    this.f64 = new Float64Array(this.buffer, 0, length >> 3);
  }

  kind(ref: BlockRef): number {
    return this.u32[ref * 2 + 1] ?? 0;
  }

  serial(ref: BlockRef): number {
    return this.f64[ref + 1] ?? 0;
  }

  /** One 32-bit word of a block, counted from the end of its header. */
  word(ref: BlockRef, index: number): number {
    return this.u32[ref * 2 + HEADER_BYTES / 4 + index] ?? 0;
  }

  /**
   * A copy of bytes of a block, counted from the end of its header: decoders do not take shared memory. It is good until the next call:
   * a buffer of its own for each resource would cost more than decoding it.
   */
  bytes(ref: BlockRef, start: number, length: number): Uint8Array {
    const from = ref * UNIT + HEADER_BYTES + start;
    if (length > this.#scratch.length) return this.u8.slice(from, from + length);
    const copy = this.#scratch.subarray(0, length);
    copy.set(this.u8.subarray(from, from + length));
    return copy;
  }

  /** A copy of 32-bit words of a block, counted as `word` counts them. */
  words(ref: BlockRef, index: number, count: number): Uint32Array {
    const from = ref * 2 + HEADER_BYTES / 4 + index;
    return this.u32.slice(from, from + count);
  }

  /** Whether bytes of a block are this text; without making a text of them as long as it is ASCII. */
  holdsText(ref: BlockRef, start: number, length: number, text: string): boolean {
    const from = ref * UNIT + HEADER_BYTES + start;
    for (let i = 0; i < text.length; i++) {
      const code = text.charCodeAt(i);
      if (code >= 0x80) return this.text(ref, start, length) === text;
      if (this.u8[from + i] !== code) return false;
    }
    return text.length === length;
  }

  text(ref: BlockRef, start: number, length: number): string {
    const bytes = this.bytes(ref, start, length);
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('utf8');
  }
}

interface Retired {
  readonly generation: number;
  readonly refs: readonly BlockRef[];
}

const SCRATCH_BYTES = 64 << 10;
const FIRST_BYTES = 1 << 20;
const RECORDS_SHARE = 7 / 8;

/** Write access: allocates and frees blocks. There is one in all threads together. */
export class Arena extends ArenaView {
  readonly maxBytes: number;
  /** Bytes in blocks that are in use, headers and rounding included. */
  usedBytes = 0;
  /** Bytes in blocks that an old picture may still need. */
  retiredBytes = 0;
  #end = 1;
  #serial = 0;
  readonly #free = new Map<number, BlockRef[]>();
  #retiring: BlockRef[] = [];
  #retired: Retired[] = [];

  /** @param maxBytes reserved as addresses at once, used as memory only as far as it is needed */
  constructor(maxBytes: number) {
    const limit = Math.floor(maxBytes / UNIT) * UNIT;
    super(new SharedArrayBuffer(Math.min(FIRST_BYTES, limit), { maxByteLength: limit }));
    this.maxBytes = limit;
  }

  /**
   * Makes sure that so many bytes can still be handed out beside a reserve for the index and the lists, so that a resource is refused as a
   * whole before anything of it was stored. @throws {ArenaFull}
   */
  demand(bytes: number): void {
    if (this.#end * UNIT + bytes > this.maxBytes * RECORDS_SHARE) throw new ArenaFull(this.maxBytes);
  }

  /**
   * A block with room for `bytes` after its header; its contents are whatever was there before.
   * @throws {ArenaFull}
   */
  allocate(kind: BlockKind, bytes: number): BlockRef {
    const units = sizeClass(Math.ceil((HEADER_BYTES + bytes) / UNIT));
    const ref = this.#free.get(units)?.pop() ?? this.#append(units);
    this.u32[ref * 2] = units;
    this.u32[ref * 2 + 1] = kind;
    this.f64[ref + 1] = ++this.#serial;
    this.usedBytes += units * UNIT;
    return ref;
  }

  setWord(ref: BlockRef, index: number, value: number): void {
    this.u32[ref * 2 + HEADER_BYTES / 4 + index] = value;
  }

  setWords(ref: BlockRef, index: number, words: Uint32Array): void {
    this.u32.set(words, ref * 2 + HEADER_BYTES / 4 + index);
  }

  setBytes(ref: BlockRef, start: number, bytes: Uint8Array): void {
    this.u8.set(bytes, ref * UNIT + HEADER_BYTES + start);
  }

  /** A text of ASCII, one byte for each of its characters. */
  setAscii(ref: BlockRef, start: number, text: string): void {
    const from = ref * UNIT + HEADER_BYTES + start;
    const { u8 } = this;
    for (let i = 0; i < text.length; i++) u8[from + i] = text.charCodeAt(i);
  }

  /** A copy of a block under another reference, with a serial of its own. */
  copy(ref: BlockRef): BlockRef {
    const units = this.u32[ref * 2] ?? 0;
    const copy = this.allocate(this.kind(ref) as BlockKind, units * UNIT - HEADER_BYTES);
    const from = ref * UNIT + HEADER_BYTES;
    this.u8.copyWithin(copy * UNIT + HEADER_BYTES, from, from + units * UNIT - HEADER_BYTES);
    return copy;
  }

  /** The next picture no longer has this block. */
  retire(ref: BlockRef): void {
    if (ref !== 0) this.#retiring.push(ref);
  }

  /** Frees a block that no published picture ever had. */
  discard(ref: BlockRef): void {
    const units = this.u32[ref * 2] ?? 0;
    this.usedBytes -= units * UNIT;
    const free = this.#free.get(units);
    if (free) free.push(ref);
    else this.#free.set(units, [ref]);
  }

  /** Called with each publication: what was retired since the last one is not in this generation. */
  seal(generation: number): void {
    if (this.#retiring.length === 0) return;
    for (const ref of this.#retiring) this.retiredBytes += (this.u32[ref * 2] ?? 0) * UNIT;
    this.#retired.push({ generation, refs: this.#retiring });
    this.#retiring = [];
  }

  /** Makes blocks available again that only generations before `oldestPinned` had. */
  reclaim(oldestPinned: number): void {
    const kept = this.#retired.findIndex(({ generation }) => generation > oldestPinned);
    for (const { refs } of this.#retired.splice(0, kept < 0 ? this.#retired.length : kept)) {
      for (const ref of refs) {
        this.retiredBytes -= (this.u32[ref * 2] ?? 0) * UNIT;
        this.discard(ref);
      }
    }
  }

  #append(units: number): BlockRef {
    const ref = this.#end;
    const needed = (ref + units) * UNIT;
    if (needed > this.maxBytes) throw new ArenaFull(this.maxBytes);
    if (needed > this.buffer.byteLength) {
      // An eighth at a time: few steps for a large mesh, little unused memory at any size.
      const step = Math.max(FIRST_BYTES, this.buffer.byteLength >> 3);
      const wanted = Math.max(needed, Math.ceil((this.buffer.byteLength + step) / UNIT) * UNIT);
      this.buffer.grow(Math.min(this.maxBytes, wanted));
      this.renew();
    }
    this.#end += units;
    return ref;
  }
}

/** Rounds a size up, in units: in steps of one up to 16, above that in steps of a sixteenth, so that a freed block fits its successors. */
export function sizeClass(units: number): number {
  if (units <= 16) return units;
  const step = 2 ** (Math.floor(Math.log2(units)) - 4);
  return Math.ceil(units / step) * step;
}
