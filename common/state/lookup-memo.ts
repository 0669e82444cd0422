/**
 * Answers of one picture of the mesh, by two keys. A proxy asks the same few questions with every connection, and each costs a hash of both
 * keys, a scan of the index and a list or two (a twentieth of a new connection's processor time: bench ztunnel, new connections).
 */

/** Questions that are remembered; whoever asks for more begins anew, so that a scan of addresses fills nothing. */
const MAX_ANSWERS = 512;

export class LookupMemo<T extends object> {
  #of: object | undefined;
  #answers = new Map<string, Map<string, T>>();
  #count = 0;

  /** @param picture another object than the last time forgets everything */
  get(picture: object, first: string, second: string): T | undefined {
    return this.#of === picture ? this.#answers.get(first)?.get(second) : undefined;
  }

  /** @returns the answer itself */
  put(picture: object, first: string, second: string, answer: T): T {
    if (this.#of !== picture || this.#count >= MAX_ANSWERS) {
      this.#of = picture;
      this.#answers = new Map();
      this.#count = 0;
    }
    this.#count++;
    const among = this.#answers.get(first);
    if (among) among.set(second, answer);
    else this.#answers.set(first, new Map([[second, answer]]));
    return answer;
  }
}
