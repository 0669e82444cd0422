/** The store's rules about single objects: versions, what a change is, when a deletion is done. */
import { isObject, type JsonObject } from '../json.ts';
import type { KubeObject } from '../object.ts';
import { apiVersionOf, type ResourceType, type ServedVersion } from '../registry.ts';
import { type LabelMatcher, labelSelectorMatcher, type ObjectMatcher, parseFieldSelector, parseLabelSelector } from '../selectors.ts';
import type { ListOptions } from './writes.ts';

/** The object as another version of its type shows it: no conversion, only its apiVersion. */
export function inVersion(object: KubeObject, type: ResourceType, version: ServedVersion): KubeObject {
  const apiVersion = apiVersionOf(type.group, version.name);
  return object.apiVersion === apiVersion ? object : { ...object, apiVersion };
}

export function matcher({ labelSelector, fieldSelector }: ListOptions): ObjectMatcher {
  const labels: LabelMatcher | undefined =
    typeof labelSelector === 'string'
      ? labelSelector === ''
        ? undefined
        : parseLabelSelector(labelSelector)
      : labelSelector && labelSelectorMatcher(labelSelector);
  const fields = fieldSelector ? parseFieldSelector(fieldSelector) : undefined;
  return (object) => (!labels || labels(object.metadata.labels ?? {})) && (!fields || fields(object));
}

export function preferred(type: ResourceType): ServedVersion {
  const [first] = type.versions;
  if (!first) throw new Error(`${type.plural} has no version`);
  return first;
}

export const KEPT_IN_STATUS_APPLY = new Set(['apiVersion', 'kind', 'metadata', 'status']);

export const nameMismatch = (found: string, wanted: string): string =>
  `the name of the object (${found}) does not match the name on the URL (${wanted})`;

export const isNamespace = (type: ResourceType): boolean => type.group === '' && type.kind === 'Namespace';

export function inStorage(object: KubeObject, type: ResourceType): KubeObject {
  object.apiVersion = apiVersionOf(type.group, type.storageVersion);
  return object;
}

/** Kubernetes' own kinds take labels and annotations with a write of the status (how agents annotate pods); custom resources do not. */
export const statusCarriesMetadata = ({ group }: ResourceType): boolean => !group.includes('.');

/** What a change of raises the generation: everything but metadata, and but status where that is a subresource. */
export function specOf(object: KubeObject, type: ResourceType): JsonObject {
  const { metadata: _m, apiVersion: _a, status, ...rest } = object;
  return type.status ? rest : { ...rest, status };
}

/** What makes two states the same: ownership counts, the time at which it was written down does not. */
export function withoutTimes(object: KubeObject): JsonObject {
  const { managedFields, resourceVersion: _, ...metadata } = object.metadata;
  return { ...object, metadata: { ...metadata, managedFields: managedFields?.map(({ time: _time, ...entry }) => entry) ?? [] } };
}

/** Ownership as the writer sent it (kubectl hands fields over from client-side to server-side apply like this), else as it was. */
export function withManagers(object: KubeObject, old: KubeObject | undefined): KubeObject {
  const { managedFields: sent, ...metadata } = object.metadata;
  const managers = sent && sent.length > 0 ? sent : old?.metadata.managedFields;
  return { ...object, metadata: managers ? { ...metadata, managedFields: managers } : metadata };
}

export function isDoneDeleting(object: KubeObject): boolean {
  const { deletionTimestamp, deletionGracePeriodSeconds = 0, finalizers = [] } = object.metadata;
  const spec = object.spec;
  const holdsContent = object.kind === 'Namespace' && isObject(spec) && Array.isArray(spec.finalizers) && spec.finalizers.length > 0;
  return deletionTimestamp !== undefined && deletionGracePeriodSeconds === 0 && finalizers.length === 0 && !holdsContent;
}

/** Only a pod that a kubelet runs is given time; everything else goes as soon as its finalizers are done. */
export function gracePeriod(type: ResourceType, object: KubeObject, asked: number | undefined): number {
  if (type.group !== '' || type.kind !== 'Pod') return 0;
  const spec = isObject(object.spec) ? object.spec : {};
  const status = isObject(object.status) ? object.status : {};
  if (!spec.nodeName || status.phase === 'Succeeded' || status.phase === 'Failed') return 0;
  if (asked !== undefined) return Math.max(0, asked);
  return typeof spec.terminationGracePeriodSeconds === 'number' ? spec.terminationGracePeriodSeconds : 30;
}
