/** What is wrong with users' objects, for the log and for `meshctl status`: kept for as long as the object stays as it is. */

export interface Problem {
  /** `Kind namespace/name` */
  readonly object: string;
  readonly message: string;
}

/** More about one object helps nobody, and objects can be huge. */
const LIMIT_FOR_EACH = 20;

export class ProblemList {
  readonly #byObject = new Map<string, string[]>();
  readonly #fresh = new Map<string, string[]>();

  /** Replaces what was said about an object; nothing clears it. */
  set(object: string, messages: readonly string[]): void {
    const before = this.#byObject.get(object) ?? [];
    if (before.length === 0 && messages.length === 0) return;
    const kept = [...new Set(messages)].slice(0, LIMIT_FOR_EACH);
    const untold = this.#fresh.get(object) ?? [];
    const fresh = kept.filter((message) => untold.includes(message) || !before.includes(message));
    if (fresh.length > 0) this.#fresh.set(object, fresh);
    else this.#fresh.delete(object);
    if (kept.length > 0) this.#byObject.set(object, kept);
    else this.#byObject.delete(object);
  }

  *values(): Generator<Problem> {
    for (const [object, messages] of this.#byObject) for (const message of messages) yield { object, message };
  }

  /** What is new since the last call: each is to be logged once. */
  takeFresh(): Problem[] {
    const fresh = [...this.#fresh].flatMap(([object, messages]) => messages.map((message) => ({ object, message })));
    this.#fresh.clear();
    return fresh;
  }
}
