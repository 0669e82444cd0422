/** Hashes of the keys that resources are found by. Seeded at random, so that nobody who names things can choose where they collide. */

/** What a key is of; part of the hash, so that one table holds them all. */
export const keyKinds = {
  workloadUid: 1,
  workloadAddress: 2,
  workloadPod: 3,
  workloadHostname: 4,
  service: 5,
  serviceAddress: 6,
  serviceRange: 7,
  serviceHostname: 8,
  endpoints: 9,
  policy: 10,
  namespacePolicies: 11,
} as const;
/** One of `keyKinds`. */
export type KeyKind = (typeof keyKinds)[keyof typeof keyKinds];

/** 32 bits, unsigned. */
export function hashText(seed: number, kind: KeyKind, first: string, second = ''): number {
  let h = mix(seed ^ Math.imul(kind, 0x9e3779b1), first.length);
  h = mixText(h, first);
  h = mixText(h, second);
  return finish(h);
}

/**
 * The same hash as `hashText` gives, of texts that lie in bytes. They must be ASCII, where a byte is a UTF-16 unit.
 * @param first a piece of bytes from `firstStart` up to `firstEnd`; `second` likewise, empty where it is not wanted
 */
export function hashAscii(
  seed: number,
  kind: KeyKind,
  first: Uint8Array,
  firstStart: number,
  firstEnd: number,
  second: Uint8Array = first,
  secondStart = 0,
  secondEnd = 0,
): number {
  let h = mix(seed ^ Math.imul(kind, 0x9e3779b1), firstEnd - firstStart);
  h = mixAscii(h, first, firstStart, firstEnd);
  h = mixAscii(h, second, secondStart, secondEnd);
  return finish(h);
}

/** Of a network and the first `length` bits of an address; the other bits must be clear. */
export function hashRange(seed: number, network: string, bytes: Uint8Array, length: number): number {
  let h = mix(seed ^ Math.imul(keyKinds.serviceRange, 0x9e3779b1), length * 32 + bytes.length);
  h = mixText(h, network);
  for (const byte of bytes) h = mix(h, byte);
  return finish(h);
}

/** Two UTF-16 units at a time: names are long, and hashing them is a good part of taking a push. */
function mixText(start: number, text: string): number {
  let h = start;
  const pairs = text.length & ~1;
  for (let i = 0; i < pairs; i += 2) h = mix(h, text.charCodeAt(i) | (text.charCodeAt(i + 1) << 16));
  return text.length > pairs ? mix(h, text.charCodeAt(pairs)) : h;
}

function mixAscii(start: number, bytes: Uint8Array, from: number, to: number): number {
  let h = start;
  const pairs = to - ((to - from) & 1);
  for (let i = from; i < pairs; i += 2) h = mix(h, (bytes[i] ?? 0) | ((bytes[i + 1] ?? 0) << 16));
  return to > pairs ? mix(h, bytes[pairs] ?? 0) : h;
}

const mix = (h: number, value: number): number => {
  const k = Math.imul(h ^ value, 0xcc9e2d51);
  return (Math.imul((k << 15) | (k >>> 17), 0x1b873593) + h) | 0;
};

function finish(h: number): number {
  let x = h ^ (h >>> 16);
  x = Math.imul(x, 0x85ebca6b);
  x ^= x >>> 13;
  x = Math.imul(x, 0xc2b2ae35);
  return (x ^ (x >>> 16)) >>> 0;
}
