/**
 * The node's rules for its own probes, kept equal to what is enrolled. The sets are rewritten as a whole, in one transaction: a node has a
 * few hundred pods at most, and nothing that was missed once stays wrong. Changes that come while one is written are written together.
 */
import type { IpAddress } from '../../common/base/address.ts';
import { type HostRulesConfig, hostRules, noHostRules, probeSets } from '../rules/host-rules.ts';

export class ProbeSets {
  readonly #config: HostRulesConfig;
  readonly #apply: (commands: readonly string[]) => Promise<void>;
  readonly #pods = new Map<string, readonly IpAddress[]>();
  #writing: Promise<void> | undefined;
  #waiting: Promise<void> | undefined;

  /** @param apply runs nft commands in the node's namespace, in one transaction */
  constructor(config: HostRulesConfig, apply: (commands: readonly string[]) => Promise<void>) {
    this.#config = config;
    this.#apply = apply;
  }

  /** Writes rules and sets, in one transaction: probes of pods that were enrolled before pass all the time. @throws {CommandError} */
  start(enrolled: ReadonlyMap<string, readonly IpAddress[]>): Promise<void> {
    for (const [uid, ips] of enrolled) this.#pods.set(uid, ips);
    return this.#apply([...this.#sets(), ...hostRules(this.#config)]);
  }

  /** Resolves when the node's sets say so. @param ips canonical; none takes the pod out. @throws {CommandError} */
  set(uid: string, ips: readonly IpAddress[]): Promise<void> {
    if (ips.length > 0) this.#pods.set(uid, ips);
    else if (!this.#pods.delete(uid)) return Promise.resolve();
    return this.#write();
  }

  /** Takes everything away. @throws {CommandError} */
  remove(): Promise<void> {
    this.#pods.clear();
    return this.#apply(noHostRules());
  }

  #write(): Promise<void> {
    if (!this.#writing) {
      this.#writing = this.#apply(this.#sets()).finally(() => {
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

  #sets(): string[] {
    return probeSets(new Map([...this.#pods].flatMap(([uid, ips]) => ips.map((ip) => [ip, uid] as const))));
  }
}
