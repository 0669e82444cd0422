/** What is wrong with users' objects, for the log and for `meshctl status`: kept for as long as the object stays as it is. */

export interface Problem {
  /** `Kind namespace/name` */
  readonly object: string;
  readonly message: string;
}

/** More about one object helps nobody, and objects can be huge. */
const LIMIT_FOR_EACH = 20;

// No name of an object has one.
const SEPARATOR = '\n';

const objectOf = (slot: string): string => slot.split(SEPARATOR, 1)[0] ?? slot;

export class ProblemList {
  readonly #byObject = new Map<string, string[]>();
  readonly #fresh = new Map<string, string[]>();

  /**
   * Replaces what was said about an object; nothing clears it.
   * @param about an aspect of the object, whose problems stand beside those of the others
   */
  set(object: string, messages: readonly string[], about = ''): void {
    const slot = about === '' ? object : `${object}${SEPARATOR}${about}`;
    const before = this.#byObject.get(slot) ?? [];
    if (before.length === 0 && messages.length === 0) return;
    const kept = [...new Set(messages)].slice(0, LIMIT_FOR_EACH);
    const untold = this.#fresh.get(slot) ?? [];
    const fresh = kept.filter((message) => untold.includes(message) || !before.includes(message));
    if (fresh.length > 0) this.#fresh.set(slot, fresh);
    else this.#fresh.delete(slot);
    if (kept.length > 0) this.#byObject.set(slot, kept);
    else this.#byObject.delete(slot);
  }

  *values(): Generator<Problem> {
    for (const [slot, messages] of this.#byObject) for (const message of messages) yield { object: objectOf(slot), message };
  }

  /** What is new since the last call: each is to be logged once. */
  takeFresh(): Problem[] {
    const fresh = [...this.#fresh].flatMap(([slot, messages]) => messages.map((message) => ({ object: objectOf(slot), message })));
    this.#fresh.clear();
    return fresh;
  }
}
