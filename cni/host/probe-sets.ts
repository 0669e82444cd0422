/**
 * The node's rules for its own probes, kept equal to what is enrolled. The sets are rewritten as a whole, in one transaction: a node has a
 * few hundred pods at most, and nothing that was missed once stays wrong. Changes that come while one is written are written together.
 */
import type { IpAddress } from '../../common/base/address.ts';
import type { ProbedAddresses, ProbeRules } from './probe-rules.ts';

export class ProbeSets {
  readonly #rules: ProbeRules;
  readonly #pods = new Map<string, readonly IpAddress[]>();
  #writing: Promise<void> | undefined;
  #waiting: Promise<void> | undefined;
  #rulesToo = false;
  /** What the sets say is not certain. */
  #failed = false;

  constructor(rules: ProbeRules) {
    this.#rules = rules;
  }

  /** Writes rules and sets: probes of pods that were enrolled before pass all the time. @throws {CommandError} */
  start(enrolled: ReadonlyMap<string, readonly IpAddress[]>): Promise<void> {
    for (const [uid, ips] of enrolled) this.#pods.set(uid, ips);
    return this.#rules.install(this.#addresses());
  }

  /** Resolves when the node's sets say so. @param ips canonical; none takes the pod out. @throws {CommandError} */
  set(uid: string, ips: readonly IpAddress[]): Promise<void> {
    // After a restart each pod says what `start` has written already, one after the other.
    if (ips.join() === (this.#pods.get(uid) ?? []).join() && !this.#failed) return this.#waiting ?? this.#writing ?? Promise.resolve();
    if (ips.length > 0) this.#pods.set(uid, ips);
    else this.#pods.delete(uid);
    return this.#write();
  }

  /** Writes rules and sets again: another program may have changed them. @throws {CommandError} */
  refresh(): Promise<void> {
    this.#rulesToo = true;
    return this.#write();
  }

  /** Takes everything away. @throws {CommandError} */
  async remove(): Promise<void> {
    this.#pods.clear();
    // A write that is under way would bring everything back.
    await (this.#waiting ?? this.#writing)?.catch(() => {});
    await this.#rules.remove();
  }

  #write(): Promise<void> {
    if (!this.#writing) {
      const rules = this.#rulesToo;
      this.#rulesToo = false;
      this.#writing = (rules ? this.#rules.install(this.#addresses()) : this.#rules.write(this.#addresses()))
        .then(
          () => {
            this.#failed = false;
          },
          (error: unknown) => {
            this.#failed = true;
            throw error;
          },
        )
        .finally(() => {
          this.#writing = undefined;
        });
      return this.#writing;
    }
    // One write is under way, with the state before this change; all changes from now until it ends share the next one.
    this.#waiting ??= this.#writing
      .catch(() => {
        // Its caller has been told; the next write repeats everything.
      })
      .then(() => {
        this.#waiting = undefined;
        return this.#write();
      });
    return this.#waiting;
  }

  #addresses(): ProbedAddresses {
    return new Map([...this.#pods].flatMap(([uid, ips]) => ips.map((ip) => [ip, uid] as const)));
  }
}
