/** Random ids as text. Both the generator and the way from bytes to text cost more for each call than for each byte, so many ids are made at once. */

const BYTES = 2048;

/**
 * @param randomBytes a generator, asked for 2 kB at a time
 * @returns hexadecimal digits, as many as are asked for, never the same ones twice
 */
export function hexSource(randomBytes: (length: number) => Uint8Array): (digits: number) => string {
  let text = '';
  let at = 0;
  return (digits) => {
    if (at + digits > text.length) {
      const bytes = randomBytes(BYTES);
      text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('hex');
      at = 0;
    }
    at += digits;
    return text.slice(at - digits, at);
  };
}
