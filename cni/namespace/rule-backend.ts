/** What nftables and iptables have in common for one pod: rules written, replaced, taken away, and compared with what is wanted. */
import { readFileSync } from 'node:fs';
import type { PodRulesConfig } from '../rules/pod-rules.ts';
import type { Inside, PodNetns } from './run-inside.ts';

export interface PodNamespace extends Inside {
  readonly netns: PodNetns;
}

/** `absent`: nothing of ours is there. `different`: something is, and it is not what would be written now. */
export type RuleState = 'wanted' | 'different' | 'absent';

/** Everything can be repeated. What fails says the pod, the command and what it printed: CommandError. */
export interface RuleBackend {
  readonly name: 'nftables' | 'iptables';
  /** In one transaction for each table: a connection meets the rules from before, or these. */
  apply(pod: PodNamespace, config: PodRulesConfig): Promise<void>;
  /** Captures nothing new, and keeps what is being relayed alive. */
  drain(pod: PodNamespace): Promise<void>;
  remove(pod: PodNamespace): Promise<void>;
  inspect(pod: PodNamespace, config: PodRulesConfig): Promise<RuleState>;
  /** Writes the rules into an empty network namespace, to see whether this kernel and these programs can. */
  try(config: PodRulesConfig): Promise<void>;
  /** Cheap: whether anything of ours is there at all. */
  present(pod: PodNamespace): Promise<boolean>;
}

/** Whether the pod's loopback has IPv6: where it is off, routes and rules of IPv6 cannot be made, and nothing would come. */
export function loopbackHasIpv6(netns: PodNetns): boolean {
  try {
    return netns.run(() => readFileSync('/proc/sys/net/ipv6/conf/lo/disable_ipv6', 'utf8')).trim() === '0';
  } catch {
    // A kernel without IPv6 has no such file.
    return false;
  }
}

/**
 * What a program would print for wanted rules, by writing them into an empty namespace and asking there: versions print the same rule
 * differently, so texts are only compared with what this machine's own program says. One question for each form of rules.
 */
export class CanonicalTexts {
  readonly #known = new Map<string, Promise<string>>();
  readonly #ask: (config: PodRulesConfig, ipv6: boolean) => Promise<string>;

  constructor(ask: (config: PodRulesConfig, ipv6: boolean) => Promise<string>) {
    this.#ask = ask;
  }

  of(config: PodRulesConfig, ipv6: boolean): Promise<string> {
    const key = JSON.stringify([config, ipv6]);
    const known = this.#known.get(key);
    if (known) return known;
    if (this.#known.size >= MAX_FORMS) this.#known.clear();
    const asking = this.#ask(config, ipv6);
    this.#known.set(key, asking);
    asking.catch(() => this.#known.delete(key));
    return asking;
  }
}

// Pods differ in a few annotations only; interfaces by name are the one thing without end.
const MAX_FORMS = 64;
