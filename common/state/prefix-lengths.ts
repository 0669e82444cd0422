/** Which prefix lengths the ranges of all services have, so that a look-up by range tries these and no others. */
import type { Service } from '../decision/mesh-view.ts';
import { PREFIX_WORDS_4, PREFIX_WORDS_6 } from './records.ts';

/** Counts ranges by family and prefix length. */
export class PrefixLengths {
  readonly #counts4 = new Uint32Array(33);
  readonly #counts6 = new Uint32Array(129);

  add(service: Service): void {
    this.#count(service, 1);
  }

  remove(service: Service): void {
    this.#count(service, -1);
  }

  /** One bit for each length that some range has. */
  bits(): { readonly prefixes4: Uint32Array; readonly prefixes6: Uint32Array } {
    return { prefixes4: bitsOf(this.#counts4, PREFIX_WORDS_4), prefixes6: bitsOf(this.#counts6, PREFIX_WORDS_6) };
  }

  #count(service: Service, by: number): void {
    for (const { cidr } of service.ranges) {
      const counts = cidr.bytes.length === 4 ? this.#counts4 : this.#counts6;
      counts[cidr.length] = (counts[cidr.length] ?? 0) + by;
    }
  }
}

function bitsOf(counts: Uint32Array, words: number): Uint32Array {
  const bits = new Uint32Array(words);
  for (const [length, count] of counts.entries()) if (count > 0) bits[length >>> 5] = (bits[length >>> 5] ?? 0) | (1 << (length & 31));
  return bits;
}
