/**
 * The network of one pod, taken over and given back: the routing of relayed packets, and the rules of the node's back-end. Where another
 * back-end left rules of an earlier agent in the pod, they go once ours are in place.
 */
import { addMarkedDelivery, type MarkedDelivery, removeMarkedDelivery } from '../../common/linux/policy-route.ts';
import { MARK_MASK, RELAY_MARK, RELAY_RULE_PRIORITY, RELAY_TABLE } from '../rules/constants.ts';
import type { PodRulesConfig } from '../rules/pod-rules.ts';
import { loopbackHasIpv6, type PodNamespace, type RuleBackend, type RuleState } from './rule-backend.ts';
import { CommandError } from './run-inside.ts';

// Replies to ztunnel's sockets that carry a client's address come back through loopback (Istio, cni/pkg/iptables).
const RELAYED: MarkedDelivery = { mark: RELAY_MARK, mask: MARK_MASK, table: RELAY_TABLE, priority: RELAY_RULE_PRIORITY };

/** All of it can be repeated. @throws {CommandError} naming pod and command, {LinuxError} */
export class PodNetwork {
  readonly #backend: RuleBackend;
  readonly #others: readonly RuleBackend[];

  /** @param others back-ends that an earlier agent on this node may have used */
  constructor(backend: RuleBackend, others: readonly RuleBackend[] = []) {
    this.#backend = backend;
    this.#others = others;
  }

  /** Captures the pod's traffic. */
  async apply(pod: PodNamespace, config: PodRulesConfig): Promise<void> {
    this.#route(pod, config);
    await this.#backend.apply(pod, config);
  }

  /**
   * For a pod whose rules somebody else may have written or changed: leaves it as `apply` would.
   * @returns what was found; for `wanted` no rule was touched
   */
  async mend(pod: PodNamespace, config: PodRulesConfig): Promise<RuleState> {
    this.#route(pod, config);
    const found = await this.#backend.inspect(pod, config);
    if (found !== 'wanted') await this.#backend.apply(pod, config);
    const removed = await this.#removeOthers(pod);
    return found === 'absent' && removed ? 'different' : found;
  }

  /** Captures nothing new, and keeps what is being relayed alive. */
  async drain(pod: PodNamespace): Promise<void> {
    await this.#backend.drain(pod);
    await this.#removeOthers(pod);
  }

  /** Leaves nothing of ours in the pod. */
  async remove(pod: PodNamespace): Promise<void> {
    await this.#backend.remove(pod);
    await this.#removeOthers(pod);
    inPod(pod, 'remove routing', () => removeMarkedDelivery(RELAYED, loopbackHasIpv6(pod.netns)));
  }

  /** Whether an agent has left rules in the pod, of capture or of a drain that it did not finish. */
  async present(pod: PodNamespace): Promise<boolean> {
    for (const backend of [this.#backend, ...this.#others]) if (await backend.present(pod)) return true;
    return false;
  }

  #route(pod: PodNamespace, config: PodRulesConfig): void {
    inPod(pod, 'set up routing', () => addMarkedDelivery(RELAYED, config.ipv6 && loopbackHasIpv6(pod.netns)));
  }

  async #removeOthers(pod: PodNamespace): Promise<boolean> {
    let removed = false;
    for (const other of this.#others) {
      if (!(await other.present(pod))) continue;
      await other.remove(pod);
      removed = true;
    }
    return removed;
  }
}

/** System calls inside the pod, with the pod's name in what they throw. */
function inPod({ netns, about }: PodNamespace, what: string, run: () => void): void {
  try {
    netns.run(run);
  } catch (error) {
    throw new CommandError(about, what, error instanceof Error ? error.message : String(error), '');
  }
}
