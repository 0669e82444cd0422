/** Refusals, and what somebody may want to refuse, since somebody last asked, equal ones as one with a count; bounded, since whoever knocks on a closed door may do so a lot. */

export interface CountedRefusal {
  /** Of the table in errors.ts. */
  readonly code: string;
  /** namespace/name of the policy that decided; empty where none did. */
  readonly policy: string;
  readonly source: string;
  readonly destination: string;
  /** Of the latest one. */
  readonly message: string;
  readonly count: number;
  /** It was not refused; said because somebody may want to refuse it. */
  readonly letThrough?: boolean;
}

const MAX_KINDS = 100;

export class RefusalTally {
  readonly #kinds = new Map<string, CountedRefusal>();

  /** Kinds beyond the limit are dropped: metrics count them all the same. */
  add(refusal: CountedRefusal): void {
    const key = [refusal.letThrough === true, refusal.code, refusal.policy, refusal.source, refusal.destination].join(' ');
    const known = this.#kinds.get(key);
    if (!known && this.#kinds.size >= MAX_KINDS) return;
    this.#kinds.set(key, { ...refusal, count: refusal.count + (known?.count ?? 0) });
  }

  get size(): number {
    return this.#kinds.size;
  }

  take(): CountedRefusal[] {
    const taken = [...this.#kinds.values()];
    this.#kinds.clear();
    return taken;
  }
}
