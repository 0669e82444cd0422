/**
 * What a relay needs of the two kinds of pipe: bytes out of it by call (so that a read costs no event), bytes into it with a word on
 * whether it wants more, and the news of its end. Only this folder implements it.
 */
import type { ProxyError } from '../base/errors.ts';
import type { ReadBuffer } from './read-buffers.ts';
import type { Pipe } from './types.ts';

/** Who reads a pipe. Where a method returns false it has taken the bytes and wants no more until the pipe's `resume`. */
export interface PipeReader {
  /** `length` bytes at the start of `buffer.view`; a borrowed buffer now is the reader's to give back, the shared one is to be copied. */
  read(buffer: ReadBuffer, length: number): boolean;
  /** Bytes that are kept as receive-buffers.ts says. */
  slice(bytes: Buffer): boolean;
  /** Bytes that were taken and are still held; `resume` is called when they are not any more. The pipe's peer may send no more for them. */
  readonly backlog: number;
  /** The pipe's incoming direction ended in order. */
  ended(): void;
  /** After a write that returned false: the pipe takes more. */
  writable(): void;
  /** The last word: both directions are over. Without an error they ended in order, or with a reset that counts as an end. */
  closed(error: ProxyError | undefined): void;
}

export interface Endpoint extends Pipe {
  /** Begins to deliver; once. What happened before is delivered at once, from within. */
  start(reader: PipeReader): void;
  /**
   * Undoes `start`, for a reader that has only looked: it returned false and has written nothing.
   * @param bytes all that was delivered to it, copied; delivered again, before anything else, to whoever starts next
   */
  giveBack(bytes: Buffer): void;
  /** Goes on delivering after the reader returned false. */
  resume(): void;
  /** Takes `length` bytes of a read buffer, as PipeReader.read says; false: no more until `writable`. */
  writeRead(buffer: ReadBuffer, length: number): boolean;
  /** Takes bytes, keeping them as receive-buffers.ts says; false: no more until `writable`. */
  writeSlice(bytes: Buffer): boolean;
  /** Bytes that were written and wait here; where it is not 0, `writable` will tell that it is. */
  readonly backlog: number;
  /** Ends the outgoing direction after what was written. */
  end(): void;
  /** Wants nothing any more and ends in order as far as what was written allows. */
  close(): void;
}

/** @throws {TypeError} for a pipe that this folder did not make */
export function endpointOf(pipe: Pipe): Endpoint {
  if (!isEndpoint(pipe)) throw new TypeError('a relay carries pipes of common/hbone only');
  return pipe;
}

const isEndpoint = (pipe: Pipe): pipe is Endpoint => 'writeRead' in pipe && 'start' in pipe;
