/** Which webhooks a request concerns: rules, scope, and the selectors on the object and on its namespace. */
import { arrayOf, at, objectOf, stringOf } from '../json.ts';
import type { KubeObject } from '../object.ts';
import type { ResourceType } from '../registry.ts';
import { labelSelectorMatcher } from '../selectors.ts';

export type Operation = 'CREATE' | 'UPDATE' | 'DELETE';

export interface AdmissionRequest {
  readonly operation: Operation;
  readonly type: ResourceType;
  readonly version: string;
  readonly subresource: string;
  /** Undefined for a deletion. */
  readonly object: KubeObject | undefined;
  readonly old: KubeObject | undefined;
}

/** @param namespaceLabels of the object's namespace; of the object itself where it is one; undefined for what belongs to the cluster */
export function webhookMatches(
  webhook: unknown,
  request: AdmissionRequest,
  namespaceLabels: Readonly<Record<string, string>> | undefined,
): boolean {
  if (!arrayOf(at(webhook, 'rules')).some((rule) => ruleMatches(rule, request))) return false;
  if (namespaceLabels && !labelSelectorMatcher(at(webhook, 'namespaceSelector'))(namespaceLabels)) return false;
  const selects = labelSelectorMatcher(at(webhook, 'objectSelector'));
  return [request.object, request.old].some((object) => object !== undefined && selects(object.metadata.labels ?? {}));
}

function ruleMatches(rule: unknown, { operation, type, version, subresource }: AdmissionRequest): boolean {
  const { operations, apiGroups, apiVersions, resources, scope } = objectOf(rule);
  const allows = (list: unknown, value: string): boolean => arrayOf(list).some((each) => each === '*' || each === value);
  // Without conversion every version of a type is equivalent, so a rule for one of them concerns requests in the others.
  const versionMatches = allows(apiVersions, version) || type.versions.some(({ name }) => allows(apiVersions, name));
  if (!allows(operations, operation) || !allows(apiGroups, type.group) || !versionMatches) return false;
  if (scope === 'Cluster' && type.namespaced) return false;
  if (scope === 'Namespaced' && !type.namespaced) return false;
  return arrayOf(resources).some((each) => {
    const [plural = '', sub = ''] = stringOf(each).split('/');
    return (plural === '*' || plural === type.plural) && (sub === '*' || sub === subresource);
  });
}
