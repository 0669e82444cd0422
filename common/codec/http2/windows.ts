/** The two ends of a flow-control window (RFC 9113, section 5.2): what we may send, and what we let the peer send. */
import { LARGEST_WINDOW } from './frames.ts';

/** How much the peer lets us send. May go below zero when the peer shrinks its initial window (section 6.9.2). */
export class SendWindow {
  available: number;

  constructor(size: number) {
    this.available = size;
  }

  /** @returns false where the window would pass 2^31-1: a FLOW_CONTROL_ERROR */
  grow(increment: number): boolean {
    this.available += increment;
    return this.available <= LARGEST_WINDOW;
  }
}

/** How much the peer may send. Announcements are saved up to half a window, so that a bulk transfer costs few of them. */
export class ReceiveWindow {
  readonly #threshold: number;
  #available: number;
  #consumed = 0;

  /**
   * @param size bytes that the peer may have under way
   * @param tolerated bytes that it may have under way for now, because it may not have heard of a smaller size yet (section 6.9.3)
   */
  constructor(size: number, tolerated = size) {
    this.#available = Math.max(size, tolerated);
    this.#threshold = Math.max(1, size >> 1);
  }

  /** Accounts for bytes that arrived. @returns false where the peer sent more than it was allowed: a FLOW_CONTROL_ERROR */
  receive(bytes: number): boolean {
    this.#available -= bytes;
    return this.#available >= 0;
  }

  /** Accounts for bytes that were consumed. @returns the increment to announce now, or 0 */
  release(bytes: number): number {
    this.#consumed += bytes;
    if (this.#consumed < this.#threshold) return 0;
    const increment = this.#consumed;
    this.#consumed = 0;
    this.#available += increment;
    return increment;
  }
}
