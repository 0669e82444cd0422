/** The kinds that an installation is made of, in the order in which they are applied; where the API keeps them. */
import type { KubeObject } from '../../common/client/kube-api.ts';

export interface InstallKind {
  readonly kind: string;
  readonly apiVersion: string;
  readonly plural: string;
  readonly namespaced: boolean;
}

// A pod must find its account, its settings and its rights; what watches over pods (budgets, policies) comes before them too.
const ORDER = `
  v1 Namespace namespaces -
  v1 ResourceQuota resourcequotas ns
  v1 ServiceAccount serviceaccounts ns
  v1 ConfigMap configmaps ns
  rbac.authorization.k8s.io/v1 ClusterRole clusterroles -
  rbac.authorization.k8s.io/v1 ClusterRoleBinding clusterrolebindings -
  rbac.authorization.k8s.io/v1 Role roles ns
  rbac.authorization.k8s.io/v1 RoleBinding rolebindings ns
  networking.k8s.io/v1 NetworkPolicy networkpolicies ns
  policy/v1 PodDisruptionBudget poddisruptionbudgets ns
  v1 Service services ns
  apps/v1 Deployment deployments ns
  apps/v1 DaemonSet daemonsets ns
  admissionregistration.k8s.io/v1 ValidatingWebhookConfiguration validatingwebhookconfigurations -
  admissionregistration.k8s.io/v1 MutatingWebhookConfiguration mutatingwebhookconfigurations -`;

export const installKinds: readonly InstallKind[] = ORDER.trim()
  .split('\n')
  .map((row) => {
    const [apiVersion = '', kind = '', plural = '', scope] = row.trim().split(' ');
    return { apiVersion, kind, plural, namespaced: scope === 'ns' };
  });

export const DEFINITIONS_PATH = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions';
/** Every object of an installation carries it, with the installation's namespace as value. */
export const INSTALLATION = 'warren.dev/installation';
/** On definitions that are ours: `istio` of Istio's kinds, `warren` of our own. */
export const DEFINITION = 'warren.dev/definition';
export const OWN_DEFINITION = 'warren';
export const VERSION_LABEL = 'app.kubernetes.io/version';
export const FIELD_MANAGER = 'meshctl-install';

export const isPod = ({ kind }: { readonly kind?: string }): boolean => kind === 'Deployment' || kind === 'DaemonSet';

/** @throws {Error} for a kind that is none of an installation */
export function kindOf({ apiVersion, kind }: Pick<KubeObject, 'apiVersion' | 'kind'>): InstallKind {
  const found = installKinds.find((each) => each.kind === kind && each.apiVersion === apiVersion);
  if (!found) throw new Error(`${apiVersion} ${kind}: no kind that an installation is made of`);
  return found;
}

/** Of all namespaces where none is given. */
export function collectionPath({ apiVersion, plural, namespaced }: InstallKind, namespace?: string): string {
  const root = apiVersion.includes('/') ? `/apis/${apiVersion}` : `/api/${apiVersion}`;
  return namespaced && namespace !== undefined ? `${root}/namespaces/${namespace}/${plural}` : `${root}/${plural}`;
}

export function objectPath(object: KubeObject): string {
  return `${collectionPath(kindOf(object), object.metadata.namespace ?? '')}/${object.metadata.name}`;
}

/** `Deployment istio-system/istiod`, as people read it. */
export const titleOf = ({ kind, metadata }: KubeObject): string =>
  `${kind} ${metadata.namespace === undefined ? '' : `${metadata.namespace}/`}${metadata.name}`;

export function inOrder(objects: readonly KubeObject[]): KubeObject[] {
  const rank = (object: KubeObject): number => installKinds.indexOf(kindOf(object));
  return [...objects].sort((a, b) => rank(a) - rank(b));
}
