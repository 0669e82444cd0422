/** What the translation needs to know about the mesh as a whole. */
import type { AutoAddressRanges } from './auto-addresses.ts';
import type { Labels } from './objects.ts';

export interface MeshModelConfig {
  /** First segment of every workload's uid; CLUSTER_ID. */
  readonly clusterId: string;
  /** DNS domain of the cluster, `cluster.local`. */
  readonly domain: string;
  /** Namespace whose policies without a selector hold for the whole mesh. */
  readonly rootNamespace: string;
  /** Where the control plane runs, and the mesh's configuration is; the root namespace where it is missing. */
  readonly systemNamespace?: string;
  readonly trustDomain: string;
  /** Network of this cluster; empty where everything is one network. */
  readonly network: string;
  /** Gateways whose label istio.io/rev says otherwise are another control plane's; without it, all are ours that carry no such label. */
  readonly revision?: string;
  /** Sends policies annotated `istio.io/dry-run: "true"` instead of refusing them; ztunnels before 1.29 would enforce them. */
  readonly dryRunPolicies?: boolean;
  /** Gives ServiceEntries without addresses one of these; none where it is missing. */
  readonly autoAddresses?: AutoAddressRanges;
  /** ServiceEntries may not claim what is other namespaces' (entry-claims.ts). */
  readonly guardClaims?: boolean;
  /** `namespace=host`: claims that the administrator allows all the same. */
  readonly grantedHosts?: readonly string[];
  /** Who may see a namespace's ServiceEntries, by the namespace's labels; everybody where it is missing. */
  readonly serviceEntryVisibility?: (namespaceLabels: Labels) => Visibility;
}

export type Visibility = 'PUBLIC' | 'NAMESPACE' | 'NONE';

/** ztunnel fills in the default itself, so it does not travel. */
export const sentTrustDomain = ({ trustDomain }: MeshModelConfig): string => (trustDomain === 'cluster.local' ? '' : trustDomain);
