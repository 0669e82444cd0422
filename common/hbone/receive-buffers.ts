/**
 * Buffers that TLS sockets decrypt into. Node makes new memory for every read, and in bulk its garbage collection costs more than the
 * decryption. Here idle connections share one buffer per thread, whose bytes are copied by whoever keeps them; a connection that is busy
 * borrows a buffer, and whoever keeps bytes of it holds the buffer until they are written. Where Node does not let us, its own are used.
 */
import type { Duplex } from 'node:stream';
import { Spares } from './spares.ts';

const BYTES = 64 << 10;
/** Node hands decrypted bytes on in pieces of this size at most. */
const LARGEST_PIECE = 16 << 10;
/** From here on a piece is part of a bulk transfer. */
const BULK_PIECE = 8 << 10;
/** A read seldom ends where a record does: between large pieces there are small ones. */
const BULK_PAUSE = 4;
/** Buffers kept for the next borrower: as many as queues hold of them in a bulk transfer (byte-queue.ts). */
const MAX_SPARE = 128;

/** Memory whose bytes stay as they are while somebody holds it. */
export interface Holder {
  readonly bytes: Buffer;
  hold(): void;
  readonly release: () => void;
}

export class ReceiveBuffer implements Holder {
  readonly bytes: Buffer = Buffer.allocUnsafeSlow(BYTES);
  /** Bytes from the beginning that have been read into. */
  used = 0;
  #holders = 0;
  #lent = true;

  /** Whether nobody holds bytes of it. */
  get free(): boolean {
    return this.#holders === 0;
  }

  /** Keeps the bytes as they are until `release`. */
  hold(): void {
    this.#holders++;
  }

  /** A function and no method, so that it can be a write's callback as it is. */
  readonly release = (): void => {
    this.#holders--;
    if (this.#holders === 0 && !this.#lent) spares.put(this);
  };

  lend(): void {
    this.#lent = true;
    this.used = 0;
  }

  /** The connection reads into it no more. */
  giveBack(): void {
    this.#lent = false;
    if (this.#holders === 0) spares.put(this);
  }
}

const shared = Buffer.allocUnsafeSlow(LARGEST_PIECE);
const spares = new Spares<ReceiveBuffer>(MAX_SPARE);
/** What the piece that is being handled lies in, where that is a borrowed buffer. */
let current: Holder | undefined;

function borrow(): ReceiveBuffer {
  const buffer = spares.take() ?? new ReceiveBuffer();
  buffer.lend();
  return buffer;
}

/** The buffer that has to be held for these bytes to stay as they are; undefined where there is none. */
export const holderOf = (bytes: Buffer): Holder | undefined => (current?.bytes.buffer === bytes.buffer ? current : undefined);

/**
 * Says what the bytes lie in that are handled from now on: a borrowed read buffer, or what was held back of one.
 * @returns what it was before, to be said again afterwards
 */
export function handling(holder: Holder | undefined): Holder | undefined {
  const before = current;
  current = holder;
  return before;
}

/** The bytes themselves where they stay as they are, or a copy. For those who keep them without holding a buffer. */
export const keep = (bytes: Buffer): Buffer => (bytes.buffer === shared.buffer || holderOf(bytes) ? Buffer.from(bytes) : bytes);

/** As `keep`, for those who can hold a buffer: a copy only of what lies in the shared one. */
export const keepUnlessHeld = (bytes: Buffer): Buffer => (bytes.buffer === shared.buffer ? Buffer.from(bytes) : bytes);

/** Hands on what the socket receives, by call; the pieces are good during the call, unless they are kept as above says. */
export function receiveFrom(socket: Duplex, onPiece: (piece: Buffer) => void): void {
  const slots = bufferSlots(socket);
  if (!slots) {
    socket.on('data', onPiece);
    return;
  }
  let own: ReceiveBuffer | undefined;
  /** Pieces that may be small before the transfer counts as over. */
  let bulk = 0;
  const next = (): Buffer => {
    if (bulk === 0) {
      own?.giveBack();
      own = undefined;
      return shared;
    }
    own ??= borrow();
    if (own.free) own.used = 0;
    else if (own.bytes.length - own.used < LARGEST_PIECE) {
      own.giveBack();
      own = borrow();
    }
    return own.used === 0 ? own.bytes : own.bytes.subarray(own.used);
  };
  const received = (length: number): void => {
    const from = own?.used ?? 0;
    if (own) own.used += length;
    bulk = length >= BULK_PIECE ? BULK_PAUSE : Math.max(0, bulk - 1);
    current = own;
    try {
      onPiece((own?.bytes ?? shared).subarray(from, from + length));
    } finally {
      current = undefined;
    }
  };
  // What was decrypted before we came.
  const early: Buffer | null = socket.read();
  if (early) process.nextTick(onPiece, early);
  slots.install(next, received);
  socket.on('close', () => {
    bulk = 0;
    next();
  });
  socket.resume();
}

/**
 * Node reads into a caller's buffers (`onread`) where a socket was made with them, which TLS sockets of a server never are. The fields
 * behind it are not documented: where one is missing, undefined is the answer.
 */
function bufferSlots(socket: Duplex): { install(next: () => Buffer, received: (length: number) => void): void } | undefined {
  const handle = '_handle' in socket ? socket._handle : undefined;
  if (typeof handle !== 'object' || handle === null || !('useUserBuffer' in handle) || typeof handle.useUserBuffer !== 'function')
    return undefined;
  const slot = (name: string): symbol | undefined => Object.getOwnPropertySymbols(socket).find(({ description }) => description === name);
  const [buffer, callback, generator] = [slot('kBuffer'), slot('kBufferCb'), slot('kBufferGen')];
  if (!buffer || !callback || !generator) return undefined;
  const { useUserBuffer } = handle;
  return {
    install(next, received) {
      const first = next();
      useUserBuffer.call(handle, first);
      Object.assign(socket, { [buffer]: first, [callback]: received, [generator]: next });
    },
  };
}
