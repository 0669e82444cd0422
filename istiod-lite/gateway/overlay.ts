/**
 * What users may change about the objects of a waypoint, by a ConfigMap: one YAML document for each kind, merged over what render.ts makes
 * (Istio, pilot/pkg/config/kube/gatewaycommon/deploymentcontroller.go). Ours is limited to an allow list: how many, how large, where, how
 * scaled and how labelled. Whoever may write a ConfigMap in a namespace could otherwise run any image with a waypoint's identity.
 */
import { load, YAMLException } from 'js-yaml';
import type { KubeObject } from '../../common/client/kube-api.ts';
import { isBounded } from '../model/objects.ts';

type Json = Record<string, unknown>;
export type OverlayKind = keyof typeof ALLOWED;
export type Overlay = Partial<Record<OverlayKind, Json>>;

/** Kubernetes limits a ConfigMap to 1 MiB; a sensible overlay has a few lines. */
const MAX_DOCUMENT_CHARS = 64 * 1024;
// A Deployment with everything in it has a few hundred.
const MAX_VALUES = 5000;

const METADATA = ['metadata.labels.*', 'metadata.annotations.*'];
const POD = 'spec.template.spec';
/** Fields that may be given, with all below them; `*` is any key. */
const ALLOWED = {
  deployment: [
    ...METADATA,
    'spec.replicas',
    'spec.strategy',
    'spec.minReadySeconds',
    'spec.progressDeadlineSeconds',
    'spec.revisionHistoryLimit',
    'spec.template.metadata.labels.*',
    'spec.template.metadata.annotations.*',
    `${POD}.nodeSelector`,
    `${POD}.affinity`,
    `${POD}.tolerations`,
    `${POD}.topologySpreadConstraints`,
    `${POD}.priorityClassName`,
    `${POD}.schedulerName`,
    `${POD}.terminationGracePeriodSeconds`,
    `${POD}.containers.name`,
    `${POD}.containers.resources`,
  ],
  service: [
    ...METADATA,
    'spec.type',
    'spec.sessionAffinity',
    'spec.sessionAffinityConfig',
    'spec.ipFamilies',
    'spec.ipFamilyPolicy',
    'spec.internalTrafficPolicy',
    'spec.externalTrafficPolicy',
    'spec.trafficDistribution',
    'spec.loadBalancerClass',
    'spec.loadBalancerSourceRanges',
  ],
  serviceAccount: METADATA,
  horizontalPodAutoscaler: [...METADATA, 'spec.minReplicas', 'spec.maxReplicas', 'spec.metrics', 'spec.behavior'],
  podDisruptionBudget: [...METADATA, 'spec.minAvailable', 'spec.maxUnavailable', 'spec.unhealthyPodEvictionPolicy'],
} as const;

const KINDS: Readonly<Record<OverlayKind, string>> = {
  deployment: 'Deployment',
  service: 'Service',
  serviceAccount: 'ServiceAccount',
  horizontalPodAutoscaler: 'HorizontalPodAutoscaler',
  podDisruptionBudget: 'PodDisruptionBudget',
};
export const CONTAINER = 'istio-proxy';

/** @throws OverlayError with the ConfigMap, the key and the field */
export function readOverlay(configMap: KubeObject): Overlay {
  const from = `ConfigMap ${configMap.metadata.namespace}/${configMap.metadata.name}`;
  const overlay: Overlay = {};
  for (const [key, text] of Object.entries((configMap.data ?? {}) as Record<string, string>)) {
    if (!isKind(key)) throw new OverlayError(`${from} has a key ${key}; known are ${Object.keys(ALLOWED).join(', ')}`);
    if (text.length > MAX_DOCUMENT_CHARS) throw new OverlayError(`${from}, ${key}: longer than ${MAX_DOCUMENT_CHARS} characters`);
    const document = parse(text, `${from}, ${key}`);
    const stray = strayField(document, '', ALLOWED[key]);
    if (stray) throw new OverlayError(`${from}, ${key}: ${stray} may not be changed`);
    overlay[key] = document;
  }
  return overlay;
}

export class OverlayError extends Error {}

/** The objects with the overlays merged in, in their order; an autoscaler stands in the list as one object that is there only if an overlay has it. */
export function applyOverlays(objects: readonly KubeObject[], overlays: readonly Overlay[]): KubeObject[] {
  return objects.flatMap((object) => {
    const key = (Object.keys(KINDS) as OverlayKind[]).find((kind) => KINDS[kind] === object.kind);
    const documents = overlays.flatMap((overlay) => (key && overlay[key] ? [overlay[key]] : []));
    if (object.kind === 'HorizontalPodAutoscaler' && documents.length === 0) return [];
    const merged = documents.reduce<Json>((all, document) => merge(beforeMerge(key, all, document), document), object as unknown as Json);
    if (key === 'deployment' && overlays.some(({ horizontalPodAutoscaler }) => horizontalPodAutoscaler))
      return [withoutReplicas(merged, documents)];
    return [merged as unknown as KubeObject];
  });
}

/** A budget says one of two things: the one that an overlay gives takes the other's place. */
function beforeMerge(key: OverlayKind | undefined, object: Json, document: Json): Json {
  const given = document.spec;
  if (key !== 'podDisruptionBudget' || !isObject(given) || !isObject(object.spec)) return object;
  if (given.minAvailable === undefined && given.maxUnavailable === undefined) return object;
  const { minAvailable: _min, maxUnavailable: _max, ...spec } = object.spec;
  return { ...object, spec };
}

/** Their number is the autoscaler's, unless an overlay says where to start. */
function withoutReplicas(deployment: Json, documents: readonly Json[]): KubeObject {
  const given = documents.some(({ spec }) => isObject(spec) && spec.replicas !== undefined);
  const { replicas, ...spec } = deployment.spec as Json;
  return { ...deployment, spec: given ? { ...spec, replicas } : spec } as unknown as KubeObject;
}

function parse(text: string, where: string): Json {
  let document: unknown;
  try {
    document = load(text) ?? {};
  } catch (error) {
    if (error instanceof YAMLException) throw new OverlayError(`${where}: no YAML: ${error.reason}`);
    throw error;
  }
  if (!isBounded(document, MAX_VALUES)) throw new OverlayError(`${where}: more than ${MAX_VALUES} values, aliases included`);
  if (!isObject(document))
    throw new OverlayError(`${where}: expected fields of the object, got ${Array.isArray(document) ? 'a list' : typeof document}`);
  return document;
}

/** The first field that the list does not have. Containers are looked into: only our own one, and only what the list says of it. */
function strayField(value: Json, path: string, allowed: readonly string[]): string | undefined {
  for (const [key, field] of Object.entries(value)) {
    const at = path === '' ? key : `${path}.${key}`;
    if (allowed.some((pattern) => pattern === at || (pattern.endsWith('.*') && pattern.slice(0, -2) === path))) continue;
    if (!allowed.some((pattern) => pattern.startsWith(`${at}.`))) return at;
    if (at === `${POD}.containers`) {
      const stray = strayContainer(field, at, allowed);
      if (stray) return stray;
      continue;
    }
    if (field === null) return at;
    if (!isObject(field)) return at;
    const stray = strayField(field, at, allowed);
    if (stray) return stray;
  }
  return undefined;
}

function strayContainer(containers: unknown, path: string, allowed: readonly string[]): string | undefined {
  if (!Array.isArray(containers)) return path;
  for (const container of containers) {
    if (!isObject(container)) return path;
    if (container.name !== CONTAINER) return `${path}[${String(container.name)}]`;
    const stray = strayField(container, path, allowed);
    if (stray) return stray;
  }
  return undefined;
}

/** A strategic merge as far as the allow list needs one: objects by key, null takes away, containers by name, other lists as a whole. */
function merge(base: Json, patch: Json): Json {
  const merged: Json = { ...base };
  for (const [key, value] of Object.entries(patch)) {
    const present = base[key];
    if (value === null) delete merged[key];
    else if (key === 'containers' && Array.isArray(value) && Array.isArray(present)) merged[key] = mergeByName(present, value);
    else merged[key] = isObject(value) && isObject(present) ? merge(present, value) : value;
  }
  return merged;
}

const mergeByName = (base: readonly unknown[], patch: readonly unknown[]): unknown[] =>
  base.map((item) =>
    patch
      .filter((other) => isObject(other) && isObject(item) && other.name === item.name)
      .reduce((all, other) => merge(all as Json, other as Json), item),
  );

const isKind = (key: string): key is OverlayKind => Object.hasOwn(ALLOWED, key);

const isObject = (value: unknown): value is Json => value !== null && typeof value === 'object' && !Array.isArray(value);
