/**
 * Consistent hashing: a request with the same key goes to the same endpoint, and when endpoints come and go, few keys move. Two tables do
 * that: points on a ring (Karger et al., 1997) and Maglev's permutations (Eisenbud et al., 2016, section 3.4), which spreads more evenly.
 */

/** Where a hash leads. `usable` says of each number whether it may be chosen now; what it skips goes to the next one, and comes back later. */
export interface HashTable {
  lookup(hash: number, usable: ((i: number) => boolean) | undefined): number | undefined;
}

/** 32 bits of MurmurHash3 (A. Appleby), of the text's UTF-8. */
export function hash32(text: string, seed = 0): number {
  const bytes = Buffer.from(text);
  let hash = seed;
  const blocks = bytes.length & ~3;
  for (let i = 0; i < blocks; i += 4) {
    hash ^= mixed(bytes.readUInt32LE(i));
    hash = rotated(hash, 13);
    hash = (Math.imul(hash, 5) + 0xe6546b64) | 0;
  }
  let tail = 0;
  for (let i = bytes.length - 1; i >= blocks; i--) tail = (tail << 8) | (bytes[i] ?? 0);
  if (bytes.length > blocks) hash ^= mixed(tail);
  hash ^= bytes.length;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

const mixed = (block: number): number => Math.imul(rotated(Math.imul(block, 0xcc9e2d51), 15), 0x1b873593);
const rotated = (value: number, bits: number): number => (value << bits) | (value >>> (32 - bits));

/** Envoy's limit of a ring; beyond it memory would be spent on nothing. */
const MAX_POINTS = 1 << 20;

/** @param keys of the endpoints, by which they keep their places @param minimum points of all of them together */
export function ringTable(keys: readonly string[], weights: readonly number[], minimum: number): HashTable {
  const total = weights.reduce((sum, weight) => sum + weight, 0) || 1;
  const size = Math.min(Math.max(minimum, keys.length), MAX_POINTS);
  const points: { readonly at: number; readonly owner: number }[] = [];
  keys.forEach((key, owner) => {
    const count = Math.max(1, Math.round(((weights[owner] ?? 0) / total) * size));
    for (let i = 0; i < count; i++) points.push({ at: hash32(`${key}_${i}`), owner });
  });
  points.sort((a, b) => a.at - b.at || a.owner - b.owner);
  const at = Uint32Array.from(points, (point) => point.at);
  const owners = Uint32Array.from(points, (point) => point.owner);
  return {
    lookup(hash, usable) {
      let low = 0;
      let high = at.length;
      while (low < high) {
        const middle = (low + high) >>> 1;
        if ((at[middle] ?? 0) < hash) low = middle + 1;
        else high = middle;
      }
      return firstUsable(owners, low, usable);
    },
  };
}

/** @param size a prime, larger than the number of endpoints */
export function maglevTable(keys: readonly string[], weights: readonly number[], size: number): HashTable {
  const entries = new Uint32Array(size).fill(NOBODY);
  const heaviest = Math.max(1, ...weights);
  const claims = keys.map((key) => ({ offset: hash32(key, 1) % size, skip: (hash32(key, 2) % (size - 1)) + 1, next: 0, due: 0 }));
  let filled = 0;
  while (filled < size && keys.length > 0) {
    for (let owner = 0; owner < claims.length && filled < size; owner++) {
      const claim = claims[owner];
      if (!claim) continue;
      // A lighter one sits out turns.
      claim.due += (weights[owner] ?? 0) / heaviest;
      if (claim.due < 1) continue;
      claim.due -= 1;
      let place = (claim.offset + claim.next * claim.skip) % size;
      while (entries[place] !== NOBODY) {
        claim.next++;
        place = (claim.offset + claim.next * claim.skip) % size;
      }
      entries[place] = owner;
      claim.next++;
      filled++;
    }
  }
  return { lookup: (hash, usable) => (keys.length === 0 ? undefined : firstUsable(entries, hash % size, usable)) };
}

const NOBODY = 0xffff_ffff;

function firstUsable(owners: Uint32Array, from: number, usable: ((i: number) => boolean) | undefined): number | undefined {
  for (let i = 0; i < owners.length; i++) {
    const owner = owners[(from + i) % owners.length];
    if (owner !== undefined && (usable === undefined || usable(owner))) return owner;
  }
  return undefined;
}

/** The smallest prime that is no smaller: Maglev's permutations need one. */
export function primeFrom(number: number): number {
  for (let candidate = Math.max(2, number); ; candidate++) if (isPrime(candidate)) return candidate;
}

function isPrime(number: number): boolean {
  for (let divisor = 2; divisor * divisor <= number; divisor++) if (number % divisor === 0) return false;
  return true;
}
