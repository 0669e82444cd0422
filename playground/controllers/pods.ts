/** What controllers ask about pods, and how they make them. Pure. */
import { createHash } from 'node:crypto';
import type { AnyObject, Condition, IntOrString, LabelSelector, OwnerReference, Pod, PodTemplate, Requirement } from '../objects.ts';

export type Labels = Readonly<Record<string, string>>;

export function selects(selector: LabelSelector | undefined, labels: Labels | undefined): boolean {
  if (!selector) return false;
  const own = labels ?? {};
  const pairs = Object.entries(selector.matchLabels ?? {}).every(([key, value]) => own[key] === value);
  return pairs && (selector.matchExpressions ?? []).every((requirement) => meets(requirement, own[requirement.key]));
}

/** A selector of a Service: all of its pairs; none at all selects nothing. */
export const selectsByPairs = (selector: Labels | undefined, labels: Labels | undefined): boolean =>
  selector !== undefined && Object.keys(selector).length > 0 && Object.entries(selector).every(([key, value]) => labels?.[key] === value);

export function meets({ operator, values = [] }: Requirement, value: string | undefined): boolean {
  switch (operator) {
    case 'In':
      return value !== undefined && values.includes(value);
    case 'NotIn':
      return value === undefined || !values.includes(value);
    case 'Exists':
      return value !== undefined;
    case 'DoesNotExist':
      return value === undefined;
    case 'Gt':
      return Number(value) > Number(values[0]);
    case 'Lt':
      return Number(value) < Number(values[0]);
    default:
      return false;
  }
}

export const conditionOf = (object: { status?: { conditions?: Condition[] } }, type: string): Condition | undefined =>
  object.status?.conditions?.find((condition) => condition.type === type);

export const isReady = (pod: Pod): boolean => conditionOf(pod, 'Ready')?.status === 'True';

export const isTerminating = (pod: Pod): boolean => pod.metadata.deletionTimestamp !== undefined;

/** Not ended, and nobody has asked for its end. */
export const isActive = (pod: Pod): boolean => !isTerminating(pod) && pod.status?.phase !== 'Succeeded' && pod.status?.phase !== 'Failed';

/** Ready for at least so long. */
export function isAvailable(pod: Pod, minReadySeconds: number, nowMs: number): boolean {
  if (!isReady(pod)) return false;
  const since = conditionOf(pod, 'Ready')?.lastTransitionTime;
  return minReadySeconds === 0 || (since !== undefined && nowMs - Date.parse(since) >= minReadySeconds * 1000);
}

export const ownerReference = ({ apiVersion, kind, metadata }: AnyObject): OwnerReference => ({
  apiVersion,
  kind,
  name: metadata.name,
  uid: metadata.uid ?? '',
  controller: true,
  blockOwnerDeletion: true,
});

export function podFromTemplate(
  owner: AnyObject,
  template: PodTemplate,
  extra: { name?: string; labels?: Labels; nodeName?: string; hostname?: string; subdomain?: string },
): Pod {
  const spec = {
    ...template.spec,
    ...(extra.nodeName === undefined ? {} : { nodeName: extra.nodeName }),
    ...(extra.hostname === undefined ? {} : { hostname: extra.hostname }),
    ...(extra.subdomain === undefined ? {} : { subdomain: extra.subdomain }),
  };
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      ...(extra.name === undefined ? { name: '', generateName: `${owner.metadata.name.slice(0, 57)}-` } : { name: extra.name }),
      namespace: owner.metadata.namespace ?? '',
      labels: { ...template.metadata?.labels, ...extra.labels },
      annotations: { ...template.metadata?.annotations },
      ownerReferences: [ownerReference(owner)],
    },
    spec: structuredClone(spec),
  };
}

const ALPHABET = 'bcdfghjklmnpqrstvwxz2456789';

/** The name of a template's version, as in `pod-template-hash`: ten characters that cannot spell anything. */
export function templateHash(template: PodTemplate): string {
  const digest = createHash('sha256').update(canonical(template)).digest();
  return [...digest.subarray(0, 10)].map((byte) => ALPHABET[byte % ALPHABET.length]).join('');
}

/** A number, or a percentage of `total`. */
export function resolveCount(value: IntOrString | undefined, fallback: IntOrString, total: number, round: 'up' | 'down'): number {
  const wanted = value ?? fallback;
  if (typeof wanted === 'number') return wanted;
  const percent = /^(\d+)%$/.exec(wanted);
  if (!percent) return Number(wanted) || 0;
  const exact = (Number(percent[1]) * total) / 100;
  return round === 'up' ? Math.ceil(exact) : Math.floor(exact);
}

/** Those to lose first: unassigned, then not ready, then the youngest. */
export function byExpendability(a: Pod, b: Pod): number {
  return (
    Number(Boolean(a.spec.nodeName)) - Number(Boolean(b.spec.nodeName)) ||
    Number(isReady(a)) - Number(isReady(b)) ||
    Date.parse(b.metadata.creationTimestamp ?? '') - Date.parse(a.metadata.creationTimestamp ?? '') ||
    b.metadata.name.localeCompare(a.metadata.name)
  );
}

/** A condition with the transition time kept while its status stays. */
export function setCondition(list: readonly Condition[] | undefined, next: Condition, nowText: string): Condition[] {
  const before = list?.find(({ type }) => type === next.type);
  const same = before?.status === next.status;
  const merged: Condition = {
    ...next,
    lastTransitionTime: same && before.lastTransitionTime ? before.lastTransitionTime : nowText,
    lastUpdateTime: same && before.reason === next.reason && before.message === next.message ? (before.lastUpdateTime ?? nowText) : nowText,
  };
  return [...(list ?? []).filter(({ type }) => type !== next.type), merged];
}

const canonical = (value: unknown): string =>
  JSON.stringify(value, (_key, field: unknown) =>
    typeof field === 'object' && field !== null && !Array.isArray(field)
      ? Object.fromEntries(Object.entries(field).sort(([a], [b]) => (a < b ? -1 : 1)))
      : field,
  );
