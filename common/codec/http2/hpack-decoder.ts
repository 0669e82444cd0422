/** Header blocks to header fields (RFC 7541). One decoder lives as long as its connection, because each block may refer to those before. */
import { ErrorCode, Http2ConnectionError } from './errors.ts';
import { DEFAULT_TABLE_SIZE, DynamicTable, fieldSize, type HeaderField, STATIC_TABLE } from './header-tables.ts';
import { huffmanDecode } from './huffman.ts';

export interface DecodedHeaders {
  readonly fields: HeaderField[];
  /** The list is larger than allowed and `fields` ends early. The table is up to date all the same, so the connection can go on. */
  readonly tooLarge: boolean;
}

/**
 * @see RFC 7541, sections 3, 5 and 6
 */
export class HpackDecoder {
  readonly #maxListSize: number;
  readonly #maxTableSize: number;
  readonly #table: DynamicTable;
  #block: Buffer = Buffer.alloc(0);
  #at = 0;

  /**
   * @param maxListSize what SETTINGS_MAX_HEADER_LIST_SIZE says: names and values, 32 bytes more for each field
   * @param maxTableSize what our SETTINGS_HEADER_TABLE_SIZE says
   */
  constructor(maxListSize: number, maxTableSize: number = DEFAULT_TABLE_SIZE) {
    this.#maxListSize = maxListSize;
    this.#maxTableSize = maxTableSize;
    this.#table = new DynamicTable(maxTableSize);
  }

  /**
   * @param block one whole header block; nothing of it is kept
   * @throws {Http2ConnectionError} COMPRESSION_ERROR; then the decoder is spent, and so is the connection
   */
  decode(block: Buffer): DecodedHeaders {
    this.#block = block;
    this.#at = 0;
    const fields: HeaderField[] = [];
    let size = 0;
    let updates = 0;
    let seen = false;
    while (this.#at < block.length) {
      const first = block[this.#at] ?? 0;
      if ((first & 0xe0) === 0x20) {
        // Two at most: the smallest size in between, and the last (section 4.2).
        if (seen || ++updates > 2) throw broken('a table size update that does not stand at the beginning of its header block');
        this.#updateSize();
        continue;
      }
      seen = true;
      const field = (first & 0x80) !== 0 ? this.#field(this.#integer(7)) : this.#literal(first);
      size += fieldSize(field[0], field[1]);
      if (size <= this.#maxListSize) fields.push(field);
    }
    return { fields, tooLarge: size > this.#maxListSize };
  }

  #updateSize(): void {
    const size = this.#integer(5);
    if (size > this.#maxTableSize) throw broken(`a header table of ${size} bytes, more than the ${this.#maxTableSize} that we allow`);
    this.#table.resize(size);
  }

  #literal(first: number): HeaderField {
    const indexed = (first & 0x40) !== 0;
    const index = this.#integer(indexed ? 6 : 4);
    const name = index === 0 ? this.#string() : this.#field(index)[0];
    const field: HeaderField = [name, this.#string()];
    if (indexed) this.#table.add(field);
    return field;
  }

  #field(index: number): HeaderField {
    const field = index <= STATIC_TABLE.length ? STATIC_TABLE[index - 1] : this.#table.get(index - STATIC_TABLE.length - 1);
    if (!field) throw broken(`index ${index}, which the header tables do not have`);
    return field;
  }

  /** Section 5.1. The prefix is the low bits of the byte where we stand. */
  #integer(prefixBits: number): number {
    const block = this.#block;
    const max = (1 << prefixBits) - 1;
    let value = (block[this.#at++] ?? 0) & max;
    if (value < max) return value;
    // Four bytes more carry 28 bits: far beyond every limit that we have.
    for (let shift = 0; shift < 28; shift += 7) {
      const next = block[this.#at++];
      if (next === undefined) throw broken('a header block that ends inside a number');
      value += (next & 0x7f) * 2 ** shift;
      if ((next & 0x80) === 0) return value;
    }
    throw broken('a number that is too large');
  }

  #string(): string {
    const first = this.#block[this.#at];
    if (first === undefined) throw broken('a header block that ends before a string');
    const length = this.#integer(7);
    const start = this.#at;
    const end = start + length;
    if (end > this.#block.length) throw broken('a header block that ends inside a string');
    this.#at = end;
    return (first & 0x80) !== 0 ? huffmanDecode(this.#block, start, end) : this.#block.toString('latin1', start, end);
  }
}

const broken = (message: string): Http2ConnectionError => new Http2ConnectionError(ErrorCode.COMPRESSION_ERROR, message);
