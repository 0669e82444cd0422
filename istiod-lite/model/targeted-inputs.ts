/** Policies with targets by what they are for, and the keys that those for end users' tokens need. */
import { isDeepStrictEqual } from 'node:util';
import { Groups } from './groups.ts';
import { type TargetedPolicy, targetSource } from './policy-targets.ts';
import { type FetchedKeys, keySources } from './request-authentication.ts';

export class TargetedInputs {
  /** By `Kind namespace/name`. */
  readonly #policies = new Map<string, TargetedPolicy>();
  readonly #ofTarget = new Groups<string>();
  /** Policies that ask somebody, who may come and go. */
  readonly #asking = new Set<string>();
  readonly #keys = new Map<string, FetchedKeys>();
  /** Worked out when it is asked for. */
  #keySources: ReadonlySet<string> | undefined;
  readonly #staleBackends: (target: string) => void;
  /** Policies whose targets may be bound otherwise now. */
  readonly stale = new Set<string>();

  /** @param staleBackends how what is sent to a target, `Kind/namespace/name`, is made anew */
  constructor(staleBackends: (target: string) => void) {
    this.#staleBackends = staleBackends;
  }

  get(id: string): TargetedPolicy | undefined {
    return this.#policies.get(id);
  }

  /** @param key `Kind namespace/name` */
  set(key: string, next: TargetedPolicy | undefined): void {
    const before = this.#policies.get(key);
    if (isDeepStrictEqual(before, next)) return;
    for (const target of before?.targets ?? []) this.#ofTarget.remove(targetSource(target), key);
    for (const target of next?.targets ?? []) this.#ofTarget.add(targetSource(target), key);
    if (next) this.#policies.set(key, next);
    else this.#policies.delete(key);
    // Of several with one target one counts.
    if (before?.limits || next?.limits || before?.tls || next?.tls)
      for (const target of [...(before?.targets ?? []), ...(next?.targets ?? [])]) this.staleSource(targetSource(target));
    for (const policy of [before, next]) if (policy?.tls) this.staleBackends(policy);
    if (before?.tokens || next?.tokens) this.#keySources = undefined;
    if (next?.http?.provider !== undefined) this.#asking.add(key);
    else this.#asking.delete(key);
    this.stale.add(key);
  }

  /** What a policy says of connections to its targets may be otherwise now. */
  staleBackends({ targets }: TargetedPolicy): void {
    for (const target of targets) this.#staleBackends(targetSource(target));
  }

  /** Policies that name a target, whatever its part. */
  of(source: string): TargetedPolicy[] {
    return [...this.#ofTarget.of(source)].flatMap((id) => this.#policies.get(id) ?? []);
  }

  /** @param source what policies may name as a target: a Service, a ServiceEntry, a Gateway or a GatewayClass */
  staleSource(source: string): void {
    for (const key of this.#ofTarget.of(source)) this.stale.add(key);
  }

  staleAll(): void {
    for (const id of this.#policies.keys()) this.stale.add(id);
  }

  /** Of those that are asked, one may have come or gone. */
  staleAsking(): void {
    for (const id of this.#asking) this.stale.add(id);
  }

  keysAt(address: string): FetchedKeys | undefined {
    return this.#keys.get(address);
  }

  /** Where keys for tokens come from, as the objects say now. */
  keySources(): ReadonlySet<string> {
    this.#keySources ??= new Set([...this.#policies.values()].flatMap(({ tokens }) => (tokens ? keySources(tokens) : [])));
    return this.#keySources;
  }

  setKeys(address: string, found: FetchedKeys | undefined): void {
    if (isDeepStrictEqual(this.#keys.get(address), found)) return;
    if (found) this.#keys.set(address, found);
    else this.#keys.delete(address);
    for (const { id, tokens } of this.#policies.values()) {
      if (tokens && keySources(tokens).includes(address)) this.stale.add(id);
    }
  }
}
