/**
 * Cancelling for what every connection has. An `AbortController` with its signal, its map of listeners and an object for each of them costs
 * a connection as much as finding out where it goes (bench ztunnel, new connections), and hardly any is ever aborted.
 */

/** What of an AbortSignal is used where connections are made; an AbortSignal is one. */
export interface CancelSignal {
  readonly aborted: boolean;
  /** What was said when it was aborted. */
  readonly reason: unknown;
  addEventListener(type: 'abort', listener: () => void, options?: { readonly once: true }): void;
  removeEventListener(type: 'abort', listener: () => void): void;
}

/** Controller and signal in one. Listeners are called once, in order; one that is added after the abort is not called, as with AbortSignal. */
export class Cancellation implements CancelSignal {
  #aborted = false;
  #reason: unknown;
  #listeners: (() => void)[] | undefined;
  #native: AbortController | undefined;

  get aborted(): boolean {
    return this.#aborted;
  }

  get reason(): unknown {
    return this.#reason;
  }

  /** The same for those who want Node's; made when somebody asks. */
  get signal(): AbortSignal {
    if (!this.#native) {
      this.#native = new AbortController();
      if (this.#aborted) this.#native.abort(this.#reason);
    }
    return this.#native.signal;
  }

  addEventListener(_type: 'abort', listener: () => void): void {
    if (this.#aborted) return;
    this.#listeners ??= [];
    this.#listeners.push(listener);
  }

  removeEventListener(_type: 'abort', listener: () => void): void {
    const at = this.#listeners?.indexOf(listener) ?? -1;
    if (at >= 0) this.#listeners?.splice(at, 1);
  }

  /** A second call does nothing. */
  abort(reason: unknown): void {
    if (this.#aborted) return;
    this.#aborted = true;
    this.#reason = reason;
    const listeners = this.#listeners ?? [];
    this.#listeners = undefined;
    this.#native?.abort(reason);
    for (const listener of listeners) listener();
  }
}
