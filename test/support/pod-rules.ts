/** Capture of a pod as the node agent does it, without an agent. */
import { NftBackend } from '../../cni/namespace/nft-backend.ts';
import { PodNetwork } from '../../cni/namespace/pod-network.ts';
import type { PodNamespace } from '../../cni/namespace/rule-backend.ts';
import type { PodRulesConfig } from '../../cni/rules/pod-rules.ts';

export const applyPodRules = (pod: PodNamespace, config: PodRulesConfig): Promise<void> =>
  new PodNetwork(new NftBackend()).apply(pod, config);
