/**
 * What the agent must know of policies: whether STRICT or a policy applies to a pod (connections outside the mesh may not stay then), and
 * which NetworkPolicies the mesh changes. Read by their names from the API server, which is the least that works under any control plane
 * and any ztunnel: neither xDS nor ZDS tells a node agent, and a ztunnel's own state could only be had by entering its namespace. The
 * agent needs list and watch on these three types, and no more than selectors, modes and actions of the first two is kept.
 */
import type { Clock } from '../../common/base/clock.ts';
import type { Log } from '../../common/base/log.ts';
import type { KubeObject } from '../../common/client/kube-api.ts';
import { type ObjectStore, type WatchableApi, watchObjects } from '../../common/client/kube-watch.ts';
import { type NetworkPolicy, networkPolicyFindings, policedPod, probeSourcesOf } from '../../common/decision/network-policy.ts';
import type { Pod } from '../enrol/decision.ts';
import { type AppliedPolicy, appliedPolicy, keepPolicy, type PolicyObject } from '../enrol/policies.ts';

export interface PolicyWatchesOptions {
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
  readonly signal: AbortSignal;
  readonly rootNamespace: string;
  /** Addresses that the node's probes come from. */
  readonly probeSources: readonly string[];
  /** NetworkPolicies of a namespace have changed. */
  onNetworkPolicy(namespace: string): void;
}

type StoredNetworkPolicy = KubeObject & NetworkPolicy;

export class PolicyWatches {
  readonly #options: PolicyWatchesOptions;
  readonly #peerAuthentications: ObjectStore<PolicyObject>;
  readonly #authorizationPolicies: ObjectStore<PolicyObject>;
  readonly #networkPolicies: ObjectStore<StoredNetworkPolicy>;

  constructor(api: WatchableApi, options: PolicyWatchesOptions) {
    this.#options = options;
    const { clock, random, log, signal } = options;
    const policies = (path: string): ObjectStore<PolicyObject> =>
      watchObjects<PolicyObject>(api, { path, clock, random, log, signal, keep: keepPolicy, onChange: () => {} });
    this.#peerAuthentications = policies('/apis/security.istio.io/v1/peerauthentications');
    this.#authorizationPolicies = policies('/apis/security.istio.io/v1/authorizationpolicies');
    this.#networkPolicies = watchObjects<StoredNetworkPolicy>(api, {
      ...{ path: '/apis/networking.k8s.io/v1/networkpolicies', clock, random, log, signal },
      onChange: ({ object }) => options.onNetworkPolicy(object.metadata.namespace ?? ''),
    });
  }

  /** Types that the cluster does not have are known to be empty. */
  get known(): boolean {
    return this.#peerAuthentications.synced && this.#authorizationPolicies.synced;
  }

  /** undefined where every connection to the pod is let in; also as long as the policies are not known yet. */
  appliedTo(pod: Pod): AppliedPolicy | undefined {
    return appliedPolicy(
      {
        peerAuthentications: this.#peerAuthentications.values(),
        authorizationPolicies: this.#authorizationPolicies.values(),
        rootNamespace: this.#options.rootNamespace,
      },
      pod,
    );
  }

  /** One sentence with its mend for each NetworkPolicy that the mesh changes for the pod. */
  networkFindings(pod: Pod): string[] {
    const findings = networkPolicyFindings(
      this.#networkPolicies.values(),
      policedPod(pod),
      probeSourcesOf(pod, this.#options.probeSources),
    );
    return findings.map(({ message, mend }) => `${message}; ${mend}`);
  }
}
