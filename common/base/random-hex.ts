/** Random ids as text. Both the generator and the way from bytes to text cost more for each call than for each byte, so many ids are made at once. */
import { randomFillSync } from 'node:crypto';

const BYTES = 4096;
/** Become text at once: ten ids or so, because one that lives long keeps the text that it is a part of. */
const PIECE = 256;

/** @returns hexadecimal digits, as many as are asked for (512 at most), never the same ones twice */
export function randomHexSource(): (digits: number) => string {
  const bytes = Buffer.alloc(BYTES);
  let used = BYTES;
  let text = '';
  let at = 0;
  return (digits) => {
    if (at + digits > text.length) {
      if (used === BYTES) {
        randomFillSync(bytes);
        used = 0;
      }
      text = bytes.toString('hex', used, used + PIECE);
      used += PIECE;
      at = 0;
    }
    at += digits;
    return text.slice(at - digits, at);
  };
}
