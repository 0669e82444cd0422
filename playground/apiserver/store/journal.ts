/** The changes of one type in order, with a bound: watchers that ask for more than is kept get 410 and list again. */
import { ApiError } from '../api-error.ts';
import type { KubeObject } from '../object.ts';

export interface Change {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED';
  readonly object: KubeObject;
  readonly previous: KubeObject | undefined;
  readonly version: number;
}

export type ChangeListener = (change: Change) => void;

export class Journal {
  readonly #maxChanges: number;
  #changes: Change[] = [];
  /** Changes up to this version are forgotten. */
  #forgotten: number;
  readonly #listeners = new Set<ChangeListener>();

  /** @param startVersion the store's version when the type began to be served */
  constructor(startVersion: number, maxChanges: number) {
    this.#forgotten = startVersion;
    this.#maxChanges = maxChanges;
  }

  get watchers(): number {
    return this.#listeners.size;
  }

  publish(change: Change): void {
    this.#changes.push(change);
    // Trimmed in halves, so that a full journal does not move its whole array for each change.
    if (this.#changes.length > this.#maxChanges * 2) this.#forget(this.#changes.length - this.#maxChanges);
    for (const listener of [...this.#listeners]) listener(change);
  }

  /** Forgets all changes up to now: every watch that resumes from before gets 410. */
  compact(): void {
    this.#forget(this.#changes.length);
  }

  /**
   * Calls `listener` for each change after `version` that is still kept, and then for each new one, at once and in order.
   * @throws {ApiError} Expired
   */
  subscribe(version: number, listener: ChangeListener): () => void {
    if (version < this.#forgotten) throw ApiError.expired(this.#forgotten, version);
    for (const change of this.#changes) if (change.version > version) listener(change);
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  #forget(count: number): void {
    const last = this.#changes[count - 1];
    if (last) this.#forgotten = last.version;
    this.#changes = this.#changes.slice(count);
  }
}
