/** Header fields to header blocks (RFC 7541). What repeats from block to block goes into the dynamic table and costs a byte from then on. */
import { writeLatin1 } from '../../base/latin1.ts';
import { DEFAULT_TABLE_SIZE, DynamicTable, fieldSize, type HeaderField, STATIC_TABLE } from './header-tables.ts';
import { huffmanEncode, huffmanLength } from './huffman.ts';

export interface HpackEncoderOptions {
  /** Names whose values hardly ever repeat: kept out of the table, where they would push out what does. */
  readonly unindexed?: ReadonlySet<string>;
  /** Names whose values no table on the way may keep (RFC 7541, section 7.1.3). */
  readonly sensitive?: ReadonlySet<string>;
  /** Whether strings are Huffman-coded where that makes them shorter: fewer bytes, more CPU. */
  readonly huffman?: boolean;
  /** Largest table that we fill, whatever the peer allows. */
  readonly maxTableSize?: number;
}

const NOTHING: ReadonlySet<string> = new Set();
/** By name and then by value: a name with its value in one string would have to be made and hashed for each field (bench ztunnel, new connections). */
type FieldNumbers = Map<string, Map<string, number>>;
const staticFields: FieldNumbers = new Map();
const staticNames = new Map<string, number>();
STATIC_TABLE.forEach(([name, value], i) => {
  if (value !== '') setField(staticFields, name, value, i + 1);
  if (!staticNames.has(name)) staticNames.set(name, i + 1);
});

/** One encoder lives as long as its connection. */
export class HpackEncoder {
  readonly #unindexed: ReadonlySet<string>;
  readonly #sensitive: ReadonlySet<string>;
  readonly #huffman: boolean;
  readonly #ownLimit: number;
  readonly #table: DynamicTable;
  /** Serial numbers of the newest dynamic field with this name and value, or with this name. */
  readonly #fields: FieldNumbers = new Map();
  readonly #names = new Map<string, number>();
  /** Smallest and last table size since the last block, where they must be announced (section 4.2). */
  #pendingSize: { smallest: number; last: number } | undefined;
  #out = Buffer.allocUnsafeSlow(1024);
  #at = 0;

  constructor(options: HpackEncoderOptions = {}) {
    this.#unindexed = options.unindexed ?? NOTHING;
    this.#sensitive = options.sensitive ?? NOTHING;
    this.#huffman = options.huffman ?? false;
    this.#ownLimit = options.maxTableSize ?? DEFAULT_TABLE_SIZE;
    this.#table = new DynamicTable(DEFAULT_TABLE_SIZE, ([name, value], serial) => {
      const values = this.#fields.get(name);
      if (values?.get(value) === serial) values.delete(value);
      if (values?.size === 0) this.#fields.delete(name);
      if (this.#names.get(name) === serial) this.#names.delete(name);
    });
    if (this.#ownLimit < DEFAULT_TABLE_SIZE) this.setPeerTableSize(DEFAULT_TABLE_SIZE);
  }

  /** What the peer's SETTINGS_HEADER_TABLE_SIZE says. */
  setPeerTableSize(bytes: number): void {
    const size = Math.min(bytes, this.#ownLimit);
    if (size === (this.#pendingSize?.last ?? this.#table.maxSize)) return;
    this.#pendingSize = { smallest: Math.min(size, this.#pendingSize?.smallest ?? size), last: size };
  }

  /**
   * @param fields names in lower case; every char is below 256
   * @returns the block, valid until the next call
   */
  encode(fields: readonly HeaderField[]): Buffer {
    this.#at = 0;
    if (this.#pendingSize) this.#announceSize(this.#pendingSize);
    for (const [name, value] of fields) this.#field(name, value);
    return this.#out.subarray(0, this.#at);
  }

  #announceSize({ smallest, last }: { smallest: number; last: number }): void {
    this.#pendingSize = undefined;
    this.#room(16);
    if (smallest < last) this.#resize(smallest);
    this.#resize(last);
  }

  #resize(size: number): void {
    this.#integer(size, 5, 0x20);
    this.#table.resize(size);
  }

  #field(name: string, value: string): void {
    // A coded string may be longer than the text (30 bits for a byte); it is used only where it is not.
    this.#room(name.length + value.length + 24);
    const unindexed = this.#unindexed.has(name);
    const known = staticFields.get(name)?.get(value) ?? (unindexed ? undefined : this.#dynamicIndex(this.#fields.get(name)?.get(value)));
    if (this.#sensitive.has(name)) this.#literal(name, value, 4, 0x10);
    else if (known !== undefined) this.#integer(known, 7, 0x80);
    // One field that would empty half the table is not worth it.
    else if (unindexed || fieldSize(name, value) * 2 > this.#table.maxSize) this.#literal(name, value, 4, 0);
    else {
      this.#literal(name, value, 6, 0x40);
      const serial = this.#table.added;
      this.#table.add([name, value]);
      setField(this.#fields, name, value, serial);
      this.#names.set(name, serial);
    }
  }

  #literal(name: string, value: string, prefixBits: number, pattern: number): void {
    const index = staticNames.get(name) ?? this.#dynamicIndex(this.#names.get(name)) ?? 0;
    this.#integer(index, prefixBits, pattern);
    if (index === 0) this.#string(name);
    this.#string(value);
  }

  #dynamicIndex(serial: number | undefined): number | undefined {
    return serial === undefined ? undefined : STATIC_TABLE.length + this.#table.added - serial;
  }

  #string(text: string): void {
    const coded = this.#huffman ? huffmanLength(text) : text.length;
    if (coded < text.length) {
      this.#integer(coded, 7, 0x80);
      this.#at = huffmanEncode(text, this.#out, this.#at);
      return;
    }
    this.#integer(text.length, 7, 0);
    this.#at += writeLatin1(this.#out, text, this.#at);
  }

  /** Section 5.1. */
  #integer(value: number, prefixBits: number, pattern: number): void {
    const max = (1 << prefixBits) - 1;
    if (value < max) {
      this.#out[this.#at++] = pattern | value;
      return;
    }
    this.#out[this.#at++] = pattern | max;
    let rest = value - max;
    while (rest > 0x7f) {
      this.#out[this.#at++] = (rest & 0x7f) | 0x80;
      rest = Math.floor(rest / 128);
    }
    this.#out[this.#at++] = rest;
  }

  #room(bytes: number): void {
    if (this.#at + bytes <= this.#out.length) return;
    const larger = Buffer.allocUnsafeSlow(Math.max(this.#out.length * 2, this.#at + bytes));
    this.#out.copy(larger, 0, 0, this.#at);
    this.#out = larger;
  }
}

function setField(fields: FieldNumbers, name: string, value: string, number: number): void {
  const values = fields.get(name);
  if (values) values.set(value, number);
  else fields.set(name, new Map([[value, number]]));
}
