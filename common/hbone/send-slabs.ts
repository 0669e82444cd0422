/**
 * Memory for what leaves in many pieces: frames, heads, bodies that are copied beside them. The connections of a thread write into it in
 * turn, front to back, and it is used again when all of it has left. New memory for every write would cost the garbage collector more than
 * the copying: it counts as much as any object, and makes it look through all the others.
 */
import type { Holder } from './receive-buffers.ts';
import { Spares } from './spares.ts';

/**
 * What a turn of a bulk transfer writes should lie in few pieces: Node's TLS encrypts one piece from where it is, and copies several together
 * first. 1 MB bodies through the waypoint cost 0.86 of what they do with 64 kB.
 */
export const SLAB_BYTES = 256 << 10;
/** Slabs kept for the next time. */
const MAX_SPARE = 16;

class Slab implements Holder {
  readonly bytes: Buffer;
  /** Runs in it, writes of it, and its being the current one. */
  #holders = 1;

  constructor(bytes: number) {
    this.bytes = Buffer.allocUnsafeSlow(bytes);
  }

  hold(): void {
    this.#holders++;
  }

  /** A function and no method, so that it can be a write's callback as it is. */
  readonly release = (): void => {
    this.#holders--;
    if (this.#holders === 0 && this.bytes.length === SLAB_BYTES) spares.put(this);
  };
}

const spares = new Spares<Slab>(MAX_SPARE);
let current = new Slab(SLAB_BYTES);
let currentAt = 0;

function nextSlab(bytes: number): void {
  current.release();
  const again = bytes <= SLAB_BYTES ? spares.take() : undefined;
  again?.hold();
  current = again ?? new Slab(Math.max(SLAB_BYTES, bytes));
  currentAt = 0;
}

/** What one connection has not written yet: a contiguous piece of one slab. */
export class SendRun {
  #slab: Slab = current;
  #from = 0;
  #to = 0;

  get length(): number {
    return this.#to - this.#from;
  }

  /** Where the offsets of `add` point into. */
  get memory(): Buffer {
    return this.#slab.bytes;
  }

  /** Whether so much can be added without `take` before. */
  fits(bytes: number): boolean {
    if (this.#to === this.#from) return true;
    return this.#slab === current && this.#to === currentAt && currentAt + bytes <= current.bytes.length;
  }

  /** What would fit, of anything that may be split; never 0. */
  get room(): number {
    const left = current.bytes.length - currentAt;
    return left > 0 && this.fits(1) ? left : SLAB_BYTES;
  }

  /** Where it does not fit, what is here has to be taken first. @returns the offset of so many bytes, to be written to at once */
  add(bytes: number): number {
    if (this.#to === this.#from) {
      if (currentAt + bytes > current.bytes.length) nextSlab(bytes);
      this.#slab = current;
      this.#slab.hold();
      this.#from = currentAt;
      this.#to = currentAt;
    }
    const at = this.#to;
    this.#to += bytes;
    currentAt += bytes;
    return at;
  }

  /** Takes back what was added from this offset on. */
  cut(at: number): void {
    if (this.#to === this.#from) return;
    this.#to = at;
    if (this.#to === this.#from) this.#slab.release();
  }

  /** What is here; then nothing is. The slab is to be released when it has left. */
  take(): { readonly bytes: Buffer; readonly slab: Holder } {
    const taken = { bytes: this.#slab.bytes.subarray(this.#from, this.#to), slab: this.#slab };
    this.#from = this.#to;
    return taken;
  }

  drop(): void {
    this.cut(this.#from);
  }
}
