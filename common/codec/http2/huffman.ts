/**
 * HPACK's string code. The code is canonical (codes ascend by length, then by symbol), so the lengths are all there is to know.
 * Decoding walks a table of nibbles: no code is shorter than five bits, so four bits complete at most one symbol.
 */
import { ErrorCode, Http2ConnectionError } from './errors.ts';

/** Bits of each symbol's code, 0 to 255, then the end-of-string symbol (RFC 7541, appendix B). */
// biome-ignore format: sixteen symbols to a row, as in the RFC's order
const LENGTHS: readonly number[] = [
  13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
  28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
  6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
  5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
  13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
  7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
  15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
  6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
  20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
  24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
  22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
  21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
  26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
  19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
  20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
  26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
  30,
];
const EOS = 256;

const CODES = canonicalCodes(LENGTHS);
const BIT_LENGTHS = Uint8Array.from(LENGTHS);

// One entry for each inner node and nibble: next node | flags | symbol.
const EMITS = 0x100;
const FAILS = 0x200;
const NODE_SHIFT = 16;
const { table: DECODE, accepting: ACCEPTING } = decodeTable();

/** Bytes that the text takes when it is coded; every char must be below 256. */
export function huffmanLength(text: string): number {
  let bits = 0;
  for (let i = 0; i < text.length; i++) bits += BIT_LENGTHS[text.charCodeAt(i)] ?? 0;
  return (bits + 7) >> 3;
}

/** Writes the coded text at `at`, padded with ones. @returns the offset after it */
export function huffmanEncode(text: string, out: Buffer, at: number): number {
  let bits = 0;
  let count = 0;
  for (let i = 0; i < text.length; i++) {
    const symbol = text.charCodeAt(i);
    const length = BIT_LENGTHS[symbol] ?? 0;
    let code = CODES[symbol] ?? 0;
    let left = length;
    // At most 7 bits are waiting, so 24 more fit into a 32-bit number.
    if (left > 24) {
      left -= 8;
      bits = (bits << 8) | (code >>> left);
      code &= (1 << left) - 1;
      out[at++] = bits >>> count;
      bits &= (1 << count) - 1;
    }
    bits = (bits << left) | code;
    count += left;
    while (count >= 8) {
      count -= 8;
      out[at++] = bits >>> count;
    }
    bits &= (1 << count) - 1;
  }
  if (count > 0) out[at++] = (bits << (8 - count)) | (0xff >> count);
  return at;
}

let scratch = Buffer.allocUnsafeSlow(4096);

/**
 * The text of `from[start..end)`.
 * @throws {Http2ConnectionError} COMPRESSION_ERROR for the end-of-string symbol, and for padding that is too long or not all ones
 * @see RFC 7541, section 5.2
 */
export function huffmanDecode(from: Buffer, start: number, end: number): string {
  const longest = ((end - start) * 8) / 5;
  if (scratch.length < longest) scratch = Buffer.allocUnsafeSlow(Math.ceil(longest));
  const out = scratch;
  let length = 0;
  let node = 0;
  for (let i = start; i < end; i++) {
    const byte = from[i] ?? 0;
    let entry = DECODE[(node << 4) | (byte >> 4)] ?? FAILS;
    if ((entry & EMITS) !== 0) out[length++] = entry;
    if ((entry & FAILS) !== 0) throw badCode();
    entry = DECODE[((entry >>> NODE_SHIFT) << 4) | (byte & 15)] ?? FAILS;
    if ((entry & EMITS) !== 0) out[length++] = entry;
    if ((entry & FAILS) !== 0) throw badCode();
    node = entry >>> NODE_SHIFT;
  }
  if (ACCEPTING[node] !== 1) throw new Http2ConnectionError(ErrorCode.COMPRESSION_ERROR, 'bad padding of a Huffman-coded string');
  return out.toString('latin1', 0, length);
}

const badCode = (): Http2ConnectionError =>
  new Http2ConnectionError(ErrorCode.COMPRESSION_ERROR, 'the end-of-string symbol in a Huffman-coded string');

function canonicalCodes(lengths: readonly number[]): Uint32Array {
  const codes = new Uint32Array(lengths.length);
  let code = 0;
  for (let length = 1; length <= 30; length++) {
    lengths.forEach((bits, symbol) => {
      if (bits === length) codes[symbol] = code++;
    });
    code *= 2;
  }
  return codes;
}

function decodeTable(): { table: Uint32Array; accepting: Uint8Array } {
  // Children of inner nodes: another inner node (>= 0), or a symbol (~symbol, below 0).
  const children: [number | undefined, number | undefined][] = [[undefined, undefined]];
  LENGTHS.forEach((length, symbol) => {
    let node = 0;
    for (let bit = length - 1; bit >= 0; bit--) {
      const side = ((CODES[symbol] ?? 0) >>> bit) & 1;
      const pair = children[node];
      if (!pair) return;
      if (bit === 0) pair[side] = ~symbol;
      else {
        pair[side] ??= children.push([undefined, undefined]) - 1;
        node = pair[side] ?? 0;
      }
    }
  });
  const table = new Uint32Array(children.length * 16);
  for (let node = 0; node < children.length; node++) {
    for (let nibble = 0; nibble < 16; nibble++) table[node * 16 + nibble] = step(children, node, nibble);
  }
  // A string may end where fewer than eight bits, all ones, lead from the root.
  const accepting = new Uint8Array(children.length);
  let node = 0;
  for (let ones = 0; ones < 8; ones++) {
    accepting[node] = 1;
    node = children[node]?.[1] ?? 0;
  }
  return { table, accepting };
}

function step(children: readonly (readonly [number | undefined, number | undefined])[], from: number, nibble: number): number {
  let node = from;
  let emitted = 0;
  for (let bit = 3; bit >= 0; bit--) {
    const child = children[node]?.[(nibble >> bit) & 1];
    if (child === undefined || child === ~EOS) return FAILS;
    if (child < 0) {
      emitted = EMITS | ~child;
      node = 0;
    } else node = child;
  }
  return (node << NODE_SHIFT) | emitted;
}
