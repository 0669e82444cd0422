/** HPACK's two tables: the static one of the RFC, and the dynamic one that grows with what was said before. */

/** A header field; name and value are latin1 text, one char for each byte. */
export type HeaderField = readonly [name: string, value: string];

/** RFC 7541, appendix A; index 1 is the first row. */
// biome-ignore format: one table
export const STATIC_TABLE: readonly HeaderField[] = [
  [':authority', ''], [':method', 'GET'], [':method', 'POST'], [':path', '/'], [':path', '/index.html'], [':scheme', 'http'],
  [':scheme', 'https'], [':status', '200'], [':status', '204'], [':status', '206'], [':status', '304'], [':status', '400'],
  [':status', '404'], [':status', '500'], ['accept-charset', ''], ['accept-encoding', 'gzip, deflate'], ['accept-language', ''],
  ['accept-ranges', ''], ['accept', ''], ['access-control-allow-origin', ''], ['age', ''], ['allow', ''], ['authorization', ''],
  ['cache-control', ''], ['content-disposition', ''], ['content-encoding', ''], ['content-language', ''], ['content-length', ''],
  ['content-location', ''], ['content-range', ''], ['content-type', ''], ['cookie', ''], ['date', ''], ['etag', ''], ['expect', ''],
  ['expires', ''], ['from', ''], ['host', ''], ['if-match', ''], ['if-modified-since', ''], ['if-none-match', ''], ['if-range', ''],
  ['if-unmodified-since', ''], ['last-modified', ''], ['link', ''], ['location', ''], ['max-forwards', ''], ['proxy-authenticate', ''],
  ['proxy-authorization', ''], ['range', ''], ['referer', ''], ['refresh', ''], ['retry-after', ''], ['server', ''], ['set-cookie', ''],
  ['strict-transport-security', ''], ['transfer-encoding', ''], ['user-agent', ''], ['vary', ''], ['via', ''], ['www-authenticate', ''],
];

/** What SETTINGS_HEADER_TABLE_SIZE is until somebody changes it. */
export const DEFAULT_TABLE_SIZE = 4096;

/** What a field takes of a table or of a header list (RFC 7541, section 4.1; RFC 9113, section 6.5.2). */
export const fieldSize = (name: string, value: string): number => name.length + value.length + 32;

/** The fields that were added, newest first, within a size (RFC 7541, section 2.3.2). */
export class DynamicTable {
  /** Oldest first; those before #first are evicted. */
  #fields: (HeaderField | undefined)[] = [];
  #first = 0;
  #size = 0;
  #maxSize: number;
  /** Called with each field that leaves, and its number in the order of adding. */
  readonly #onEvict: ((field: HeaderField, serial: number) => void) | undefined;
  #evicted = 0;

  constructor(maxSize: number, onEvict?: (field: HeaderField, serial: number) => void) {
    this.#maxSize = maxSize;
    this.#onEvict = onEvict;
  }

  get length(): number {
    return this.#fields.length - this.#first;
  }

  get size(): number {
    return this.#size;
  }

  get maxSize(): number {
    return this.#maxSize;
  }

  /** Fields added so far: the next one's serial number. */
  get added(): number {
    return this.#evicted + this.length;
  }

  /** @param index 0 for the newest */
  get(index: number): HeaderField | undefined {
    const at = this.#fields.length - 1 - index;
    return at < this.#first ? undefined : this.#fields[at];
  }

  /** Adds a field, evicting as many of the oldest as it needs; one that is larger than the table empties it (section 4.4). */
  add(field: HeaderField): void {
    const size = fieldSize(field[0], field[1]);
    this.#evictTo(this.#maxSize - size);
    if (size > this.#maxSize) return;
    this.#fields.push(field);
    this.#size += size;
  }

  resize(maxSize: number): void {
    this.#maxSize = maxSize;
    this.#evictTo(maxSize);
  }

  #evictTo(size: number): void {
    while (this.#size > size && this.#first < this.#fields.length) {
      const field = this.#fields[this.#first];
      this.#fields[this.#first] = undefined;
      this.#first++;
      if (!field) continue;
      this.#size -= fieldSize(field[0], field[1]);
      this.#onEvict?.(field, this.#evicted);
      this.#evicted++;
    }
    // Evicted places are reclaimed in bulk, so that eviction costs a constant on average.
    if (this.#first > 64 && this.#first * 2 > this.#fields.length) {
      this.#fields = this.#fields.slice(this.#first);
      this.#first = 0;
    }
  }
}
