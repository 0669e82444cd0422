/**
 * Text of one byte for each char, in and out of buffers. `toString` and `write` find out at every call what 'latin1' means; what they call then
 * has been part of Buffer since it exists, though Node's types leave it out (bench waypoint: kept connections).
 */

interface Latin1 {
  latin1Slice(from: number, to: number): string;
  latin1Write(text: string, at: number): number;
}

const { latin1Slice, latin1Write } = Buffer.prototype as unknown as Latin1;

/** The bytes from `from` up to and without `to`, as text. */
export const latin1Of = (bytes: Buffer, from: number, to: number): string => latin1Slice.call(bytes, from, to);

/** Writes as much of the text as there is room for; of a char beyond 0xff the lower byte. @returns bytes written */
export const writeLatin1 = (into: Buffer, text: string, at: number): number => latin1Write.call(into, text, at);
