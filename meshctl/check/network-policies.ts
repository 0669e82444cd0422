/**
 * NetworkPolicies that the mesh would change, before any pod is in it: those that shut tunnels or probes out, and those that would no longer
 * filter ports. The same analysis says it at each pod when it is enrolled. Pure.
 */
import type { KubeObject } from '../../common/client/kube-api.ts';
import {
  type NetworkPolicy,
  type NetworkPolicyFinding,
  networkPolicyFindings,
  type PodWithProbes,
  policedPod,
  probeSourcesOf,
} from '../../common/decision/network-policy.ts';
import { DATAPLANE_MODE, isCandidate } from '../status/enrolment.ts';
import { plural } from '../terminal.ts';
import { type Finding, ok, warning } from './finding.ts';

export interface PolicedCluster {
  readonly pods: readonly KubeObject[];
  readonly networkPolicies: readonly KubeObject[];
}

/** Where the node's probes come from by default (the node agent's HOST_PROBE_SNAT_IP and HOST_PROBE_SNAT_IPV6). */
const PROBE_SOURCES = ['169.254.7.127', 'fd16:9254:7127:1337:ffff:ffff:ffff:ffff'];
/** Never enrolled, whatever its labels say. */
const EXCLUDED = 'kube-system';
const MAX_FINDINGS = 50;

export function networkPolicies({ pods, networkPolicies: policies }: PolicedCluster): Finding[] {
  const seen = new Map<string, { finding: NetworkPolicyFinding; pods: number }>();
  const byNamespace = Map.groupBy(policies, ({ metadata }) => metadata.namespace);
  // The mesh's own pods, and others that say for themselves that they stay out, are changed by nothing.
  const mayJoin = (pod: KubeObject): boolean =>
    isCandidate(pod) && pod.metadata.namespace !== EXCLUDED && pod.metadata.labels?.[DATAPLANE_MODE] !== 'none';
  for (const pod of pods.filter(mayJoin)) {
    const own = (byNamespace.get(pod.metadata.namespace) ?? []) as readonly (KubeObject & NetworkPolicy)[];
    const policed = pod as KubeObject & PodWithProbes;
    for (const finding of networkPolicyFindings(own, policedPod(policed), probeSourcesOf(policed, PROBE_SOURCES))) {
      const key = `${finding.policy} ${finding.what}`;
      seen.set(key, { finding, pods: (seen.get(key)?.pods ?? 0) + 1 });
    }
  }
  if (seen.size === 0) return policies.length === 0 ? [] : [ok('NetworkPolicies', 'the mesh changes what none of them does')];
  const found = [...seen.values()]
    .slice(0, MAX_FINDINGS)
    .map(({ finding, pods: count }) => warning('NetworkPolicies', `${finding.message} (${plural(count, 'pod')})`, finding.mend));
  const more = seen.size - found.length;
  return more > 0 ? [...found, warning('NetworkPolicies', `${more} more like these`, 'mend those above and check again')] : found;
}
