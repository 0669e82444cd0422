/**
 * A DeltaDiscoveryResponse, read where it lies: the first one of a large mesh has a hundred thousand resources, and an object for each of their
 * fields would cost more than taking them. What is checked is what the general decoding checks; where a resource is written in an
 * unusual way, it is that decoding which reads it.
 */
import { DeltaDiscoveryResponse, Resource } from '../codec/gen/discovery.ts';

/** A resource as it came. Its bytes are a piece of the response's. */
export interface ReceivedResource {
  readonly name: string;
  readonly version: string;
  readonly bytes: Uint8Array;
}

/** What one response says; keeps its bytes. */
export class DeltaResponse {
  readonly typeUrl: string;
  readonly nonce: string;
  readonly removed: readonly string[];
  /** The whole response, encoded. */
  readonly encoded: Buffer;
  readonly #found: Found;

  /** @throws {Error} for what is no such message */
  static decode(bytes: Uint8Array): DeltaResponse {
    return new DeltaResponse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length));
  }

  private constructor(encoded: Buffer) {
    this.encoded = encoded;
    this.#found = new Scan(encoded).result() ?? { places: new Uint32Array(0), rest: DeltaDiscoveryResponse.decode(encoded) };
    const { typeUrl, nonce, removedResources } = this.#found.rest;
    this.typeUrl = typeUrl;
    this.nonce = nonce;
    this.removed = removedResources;
  }

  /** Can be gone through any number of times; each time makes its texts again. */
  get resources(): Iterable<ReceivedResource> {
    return { [Symbol.iterator]: () => this.#resources() };
  }

  /** Names and aliases of resources, and names of removed ones. */
  *names(): Iterable<string> {
    const { places, rest } = this.#found;
    for (let at = 0; at < places.length; at += PLACE_WORDS) {
      const { name, aliases } = Resource.decode(this.encoded.subarray(places[at + START], places[at + END]));
      yield name;
      yield* aliases;
    }
    for (const { name, aliases } of rest.resources) {
      yield name;
      yield* aliases;
    }
    yield* this.removed;
  }

  *#resources(): Generator<ReceivedResource> {
    const { encoded } = this;
    const { places, rest } = this.#found;
    for (let at = 0; at < places.length; at += PLACE_WORDS) {
      yield {
        name: encoded.toString('latin1', places[at + NAME_START], places[at + NAME_START + 1]),
        version: encoded.toString('latin1', places[at + VERSION_START], places[at + VERSION_START + 1]),
        bytes: encoded.subarray(places[at + BYTES_START], places[at + BYTES_START + 1]),
      };
    }
    for (const { name, version, resource } of rest.resources) yield { name, version, bytes: resource?.value ?? NO_BYTES };
  }
}

// Tags of the fields that a plain resource has.
const RESOURCE = 18;
const VERSION = 10;
const ANY = 18;
const NAME = 26;
const ALIAS = 34;
const ANY_TYPE = 10;
const ANY_VALUE = 18;

// Where a resource and its parts are; each end stands behind its start.
const START = 0;
const END = 1;
const NAME_START = 2;
const VERSION_START = 4;
const BYTES_START = 6;
const PLACE_WORDS = 8;
const NO_BYTES = new Uint8Array(0);

interface Found {
  readonly places: Uint32Array;
  /** The message without what `places` tells of. */
  readonly rest: DeltaDiscoveryResponse;
}

/** One pass over a response. */
class Scan {
  readonly #bytes: Buffer;
  #at = 0;
  #places = new Uint32Array(PLACE_WORDS * 64);
  #end = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  /** @returns undefined where the general decoding has to look at all of it */
  result(): Found | undefined {
    const bytes = this.#bytes;
    const others: Buffer[] = [];
    while (this.#at < bytes.length) {
      const from = this.#at;
      const tag = this.#varint();
      const length = this.#varint();
      const end = this.#at + length;
      // A number, or a length that leads too far.
      if (tag < 8 || (tag & 7) !== 2 || length < 0 || end > bytes.length) return undefined;
      if (tag !== RESOURCE) others.push(bytes.subarray(from, end));
      else if (!this.#resource(end)) return undefined;
      this.#at = end;
    }
    return { places: this.#places.subarray(0, this.#end), rest: DeltaDiscoveryResponse.decode(Buffer.concat(others)) };
  }

  /** @returns whether all of it is a name and a version in ASCII, bytes, and aliases */
  #resource(end: number): boolean {
    const at = this.#end;
    if (at + PLACE_WORDS > this.#places.length) {
      const larger = new Uint32Array(this.#places.length * 2);
      larger.set(this.#places);
      this.#places = larger;
    }
    const places = this.#places;
    places.fill(0, at, at + PLACE_WORDS);
    places[at + START] = this.#at;
    places[at + END] = end;
    this.#end += PLACE_WORDS;
    while (this.#at < end) {
      const tag = this.#varint();
      const length = this.#varint();
      const stop = this.#at + length;
      if (length < 0 || stop > end) return false;
      if (tag === ANY) {
        if (!this.#any(at + BYTES_START, stop)) return false;
      } else if (tag === NAME || tag === VERSION) {
        if (!this.#isAscii(stop)) return false;
        const place = at + (tag === NAME ? NAME_START : VERSION_START);
        places[place] = this.#at;
        places[place + 1] = stop;
      } else if (tag !== ALIAS) return false;
      this.#at = stop;
    }
    return this.#at === end;
  }

  #any(place: number, end: number): boolean {
    const places = this.#places;
    places.fill(0, place, place + 2);
    while (this.#at < end) {
      const tag = this.#varint();
      const length = this.#varint();
      const stop = this.#at + length;
      if (length < 0 || stop > end || (tag !== ANY_TYPE && tag !== ANY_VALUE)) return false;
      if (tag === ANY_VALUE) {
        places[place] = this.#at;
        places[place + 1] = stop;
      }
      this.#at = stop;
    }
    return this.#at === end;
  }

  #isAscii(end: number): boolean {
    const bytes = this.#bytes;
    for (let i = this.#at; i < end; i++) if ((bytes[i] ?? 0x80) >= 0x80) return false;
    return true;
  }

  /** @returns -1 for what is longer than five bytes, or beyond the end */
  #varint(): number {
    const bytes = this.#bytes;
    let value = 0;
    for (let shift = 1; shift < 2 ** 35; shift *= 128) {
      const byte = bytes[this.#at++] ?? 0x80;
      value += (byte & 0x7f) * shift;
      if (byte < 0x80) return value;
    }
    return -1;
  }
}
