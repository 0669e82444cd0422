/**
 * Whether a pod belongs to the mesh: the selectors of the node's setting, and what no selector can override (Istio,
 * cni/pkg/util). Pure; the reason is for the log and for people.
 */
import { type IpAddress, parseIp } from '../../common/base/address.ts';
import type { KubeObject } from '../../common/client/kube-api.ts';
import { type LabelSelector, type Labels, selectorMatches } from '../../common/decision/label-selector.ts';
import type { ProbedContainer } from '../../common/decision/network-policy.ts';
import type { BypassScope } from '../bypass/bypass.ts';

export const DATAPLANE_MODE = 'istio.io/dataplane-mode';
export const SIDECAR_STATUS = 'sidecar.istio.io/status';

/** The fields of a Pod that the node agent reads. */
export interface Pod extends KubeObject {
  readonly spec?: {
    readonly nodeName?: string;
    readonly hostNetwork?: boolean;
    readonly serviceAccountName?: string;
    readonly containers?: readonly ProbedContainer[];
  };
  readonly status?: {
    readonly phase?: string;
    readonly podIP?: string;
    readonly podIPs?: readonly { readonly ip?: string }[];
  };
}

export interface EnablementSelector {
  readonly podSelector: LabelSelector;
  readonly namespaceSelector: LabelSelector;
}

/** The pod's own label decides; without one, or with another value than none, its namespace's. */
export const DEFAULT_SELECTORS: readonly EnablementSelector[] = [
  { podSelector: { matchLabels: { [DATAPLANE_MODE]: 'ambient' } }, namespaceSelector: {} },
  {
    podSelector: { matchExpressions: [{ key: DATAPLANE_MODE, operator: 'NotIn', values: ['none'] }] },
    namespaceSelector: { matchLabels: { [DATAPLANE_MODE]: 'ambient' } },
  },
];

export interface EnrolmentRules {
  readonly selectors: readonly EnablementSelector[];
  readonly excludedNamespaces: readonly string[];
}

export type EnrolmentDecision =
  | { readonly enrol: true }
  /** `selected`: its labels ask for the mesh, and something else forbids it, which deserves a warning. */
  | {
      readonly enrol: false;
      readonly selected: boolean;
      readonly reason: string;
      /** It would belong to the mesh and is taken out of its path for now, at once. */
      readonly bypass?: BypassScope;
    };

/** @param namespaceLabels of the pod's namespace; none where the namespace is not known (then only the pod's own label can select it) */
export function decideEnrolment(rules: EnrolmentRules, pod: Pod, namespaceLabels: Labels | undefined): EnrolmentDecision {
  const selected = rules.selectors.some(
    ({ podSelector, namespaceSelector }) =>
      selectorMatches(podSelector, pod.metadata.labels ?? {}) && selectorMatches(namespaceSelector, namespaceLabels ?? {}),
  );
  if (!selected) return { enrol: false, selected, reason: 'not selected by its labels' };
  const reason = exclusion(rules, pod);
  return reason === undefined ? { enrol: true } : { enrol: false, selected, reason };
}

/** Its containers have ended for good. */
export const isFinished = ({ status }: Pod): boolean => status?.phase === 'Succeeded' || status?.phase === 'Failed';

/** Its addresses; none before it has a network. */
export function podIps({ status }: Pod): IpAddress[] {
  const { podIP, podIPs = [] } = status ?? {};
  const texts = podIPs.length > 0 ? podIPs.map(({ ip }) => ip) : [podIP];
  return texts.flatMap((text) => parseIp(text ?? '') ?? []);
}

function exclusion({ excludedNamespaces }: EnrolmentRules, pod: Pod): string | undefined {
  const { namespace = '', annotations = {} } = pod.metadata;
  if (excludedNamespaces.includes(namespace)) return `namespace ${namespace} is excluded`;
  if (pod.spec?.hostNetwork) return "it uses the node's network";
  if (annotations[SIDECAR_STATUS] !== undefined) return 'it has a sidecar';
  if (isFinished(pod)) return 'it has finished';
  return undefined;
}
