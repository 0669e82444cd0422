/**
 * Buffers that applications' sockets read into. Each leaves nine bytes in front for a frame header, so a large read leaves in one
 * contiguous write without being moved. Idle sockets share one buffer per thread (a buffer each would cost 640 MB for 10,000
 * connections); a socket that fills it borrows buffers of its own until it stops.
 */
import { FRAME_HEADER_BYTES } from '../codec/http2/frames.ts';
import { Spares } from './spares.ts';

/** Bytes of one read. Header and payload together fill four TLS records exactly. */
export const READ_BYTES = (64 << 10) - FRAME_HEADER_BYTES;

/** Buffers that may be lent at once; beyond that, reads are copied out of the shared one. 512 are 32 MiB. */
const MAX_LENT = 512;
/** Buffers kept for the next borrower. */
const MAX_SPARE = 64;

export class ReadBuffer {
  /** Header room, then what was read. */
  readonly bytes: Buffer = Buffer.allocUnsafeSlow(FRAME_HEADER_BYTES + READ_BYTES);
  /** Where the kernel writes. */
  readonly view: Buffer = this.bytes.subarray(FRAME_HEADER_BYTES);
  #holders = 0;
  #returned = false;

  /** Keeps what was read as it is until `release`, whoever returns the buffer meanwhile (receive-buffers.ts). */
  hold(): void {
    this.#holders++;
  }

  /** A function and no method, so that it can be a write's callback as it is. */
  readonly release = (): void => {
    this.#holders--;
    if (this.#holders > 0 || !this.#returned) return;
    this.#returned = false;
    putBack(this);
  };

  /** Its borrower is done with it. @returns whether nobody else holds it */
  giveUp(): boolean {
    this.#returned = this.#holders > 0;
    return !this.#returned;
  }
}

/** Whoever is handed this one takes what it wants before it returns. */
export const sharedReadBuffer = new ReadBuffer();

const spares = new Spares<ReadBuffer>(MAX_SPARE);
let lent = 0;

/** A buffer of one's own, to be given back once; undefined when too many are lent. */
export function borrowReadBuffer(): ReadBuffer | undefined {
  if (lent >= MAX_LENT) return undefined;
  lent++;
  return spares.take() ?? new ReadBuffer();
}

/** Gives back a borrowed buffer; the shared one may be given back too, which does nothing. */
export function returnReadBuffer(buffer: ReadBuffer): void {
  if (buffer !== sharedReadBuffer && buffer.giveUp()) putBack(buffer);
}

function putBack(buffer: ReadBuffer): void {
  lent--;
  spares.put(buffer);
}

/** Ends a loan without giving the buffer back, because pieces of it are still being written. */
export function forfeitReadBuffer(buffer: ReadBuffer): void {
  if (buffer !== sharedReadBuffer) lent--;
}

/** Buffers on loan on this thread: for tests, which want none left. */
export const lentReadBuffers = (): number => lent;
