/**
 * The buckets of rate limits, in memory that all workers of a waypoint share: a caller's requests may come to any of them, and its limit is one.
 * A bucket is a key's hash and a time, in a table of fixed size without locks. One that is full again says nothing that its absence does not,
 * so its place is anybody's; where all places that a key may have are taken by buckets that are not full, it shares one with others of its
 * kind. Two keys of one hash (64 bits, with a secret of this process in it) would share one too.
 */
import { randomFillSync } from 'node:crypto';
import { hash32 } from '../../common/decision/hash-tables.ts';
import type { Bucket, Buckets } from '../../common/decision/rate-limit.ts';

/** Of 64-bit numbers: the secret, the table's size, and how often there was no place. */
const HEADER = 4;
const SIZE_AT = 1;
const CROWDED_AT = 2;
/** Hash of the key, microseconds at which it is full, and the window in which its companions were last told of it. */
const SLOT = 3;
/** Places that a key may have. */
const WAYS = 16;
/** Buckets for those that have no place, and counters of companions. */
const SHARED = 1024;
/** Window, how many in it, and how many in the one before. */
const COUNTER = 3;
/** Other workers take places too. */
const TRIES = 3;

/** @param size how many buckets there may be */
export function createBuckets(size: number): SharedArrayBuffer {
  const slots = Math.max(WAYS, 2 ** Math.ceil(Math.log2(size)));
  const memory = new SharedArrayBuffer((HEADER + SLOT * slots + SHARED) * 8 + SHARED * COUNTER * 4);
  const words = new BigInt64Array(memory, 0, HEADER);
  words[0] = randomFillSync(new BigInt64Array(1))[0] ?? 0n;
  words[SIZE_AT] = BigInt(slots);
  return memory;
}

export class SharedBuckets implements Buckets {
  readonly #words: BigInt64Array;
  readonly #counters: Int32Array;
  readonly #slots: number;
  readonly #seeds: readonly [number, number];
  readonly #now: () => number;

  /** @param now microseconds of a clock that all threads have in common */
  constructor(memory: SharedArrayBuffer, now: () => number) {
    const [secret = 0n, slots = 0n] = new BigInt64Array(memory, 0, HEADER);
    this.#slots = Number(slots);
    const words = HEADER + SLOT * this.#slots + SHARED;
    this.#words = new BigInt64Array(memory, 0, words);
    this.#counters = new Int32Array(memory, words * 8, SHARED * COUNTER);
    this.#seeds = [Number(BigInt.asIntN(32, secret)), Number(BigInt.asIntN(32, secret >> 32n))];
    this.#now = now;
  }

  now(): number {
    return this.#now();
  }

  /** How often a bucket had to be shared because there was no place for one more. */
  get crowded(): number {
    return Number(Atomics.load(this.#words, CROWDED_AT));
  }

  bucket(key: string): Bucket {
    const [high, low] = [hash32(key, this.#seeds[0]), hash32(key, this.#seeds[1])];
    // An empty place has 0.
    const hash = BigInt.asIntN(64, (BigInt(high) << 32n) | BigInt(low)) || 1n;
    const at = this.#place(hash, low, TRIES);
    if (at >= 0) return new SlotBucket(this, at);
    Atomics.add(this.#words, CROWDED_AT, 1n);
    // By the limit and whom it is kept by, or the limit alone: what stands before the last line.
    const kind = hash32(key.slice(0, key.lastIndexOf('\n')), this.#seeds[0]);
    return new SlotBucket(this, HEADER + SLOT * this.#slots + (kind % SHARED) - 1);
  }

  /** @returns where the slot begins; -1 where there is no place */
  #place(hash: bigint, low: number, tries: number): number {
    const now = BigInt(Math.floor(this.#now()));
    let free = -1;
    for (let way = 0; way < WAYS; way++) {
      const at = HEADER + SLOT * ((low + way) & (this.#slots - 1));
      const held = Atomics.load(this.#words, at);
      if (held === hash) return at;
      if (free < 0 && (held === 0n || Atomics.load(this.#words, at + 1) <= now)) free = at;
    }
    if (free < 0 || tries === 0) return -1;
    const held = Atomics.load(this.#words, free);
    if (held !== hash && Atomics.load(this.#words, free + 1) > now) return this.#place(hash, low, tries - 1);
    // Another worker may take it at this moment: then both take from it, for this one time.
    Atomics.store(this.#words, free + 2, -1n);
    Atomics.compareExchange(this.#words, free, held, hash);
    return free;
  }

  fullAt(at: number): number {
    return Number(Atomics.load(this.#words, at + 1));
  }

  take(at: number, interval: number, room: number, now: number): boolean {
    for (;;) {
      const before = Atomics.load(this.#words, at + 1);
      const after = Math.max(Number(before), now) + interval;
      if (after - now > room) return false;
      if (Atomics.compareExchange(this.#words, at + 1, before, BigInt(Math.floor(after))) === before) return true;
    }
  }

  companions(at: number, group: string, windowNumber: number): number {
    const counter = COUNTER * (hash32(group, this.#seeds[1]) % SHARED);
    const window = windowNumber | 0;
    const seen = Atomics.load(this.#counters, counter);
    if (seen !== window && Atomics.compareExchange(this.#counters, counter, seen, window) === seen) {
      const last = Atomics.exchange(this.#counters, counter + 1, 0);
      Atomics.store(this.#counters, counter + 2, seen === window - 1 ? last : 0);
    }
    const told = Atomics.load(this.#words, at + 2);
    const isOwn = at + SLOT <= HEADER + SLOT * this.#slots;
    if (isOwn && told !== BigInt(window) && Atomics.compareExchange(this.#words, at + 2, told, BigInt(window)) === told)
      Atomics.add(this.#counters, counter + 1, 1);
    return Math.max(1, Atomics.load(this.#counters, counter + 1), Atomics.load(this.#counters, counter + 2));
  }
}

class SlotBucket implements Bucket {
  readonly #buckets: SharedBuckets;
  readonly #at: number;

  constructor(buckets: SharedBuckets, at: number) {
    this.#buckets = buckets;
    this.#at = at;
  }

  fullAt(): number {
    return this.#buckets.fullAt(this.#at);
  }

  take(interval: number, room: number, now: number): boolean {
    return this.#buckets.take(this.#at, interval, room, now);
  }

  companions(group: string, windowNumber: number): number {
    return this.#buckets.companions(this.#at, group, windowNumber);
  }
}
