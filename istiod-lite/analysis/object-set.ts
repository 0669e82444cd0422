/** The objects that are analyzed, by kind and key, each with where it comes from. Of the same object from two sources the later one counts. */
import { at, isRecord, objectKey, readMeta, text } from '../model/objects.ts';
import { type WatchedKindName, watchedKinds } from '../model/watched-kinds.ts';
import type { Origin } from './messages.ts';

export interface AnalyzedObject {
  readonly kind: string;
  /** API group; empty for Kubernetes' core. */
  readonly group: string;
  /** `namespace/name`, or `name`. */
  readonly key: string;
  readonly origin: Origin;
  readonly object: Readonly<Record<string, unknown>>;
  /** Whether a cluster has it, maybe as it was before. */
  readonly live: boolean;
}

export interface ObjectSource {
  /** Place in a file: `shop/policy.yaml:12`. */
  readonly reference?: string;
  /** Of objects that say none. */
  readonly defaultNamespace: string;
}

/** Kinds of Kubernetes that live in no namespace, of those that analysis meets. */
const CLUSTER_KINDS: ReadonlySet<string> = new Set([
  'Namespace',
  'Node',
  'GatewayClass',
  'CustomResourceDefinition',
  'ClusterRole',
  'ClusterRoleBinding',
  'PersistentVolume',
  'StorageClass',
  'PriorityClass',
  'ValidatingWebhookConfiguration',
  'MutatingWebhookConfiguration',
]);

export class ObjectSet {
  readonly #objects = new Map<string, AnalyzedObject>();
  /** By kind and key, whatever the group. */
  readonly #named = new Map<string, AnalyzedObject>();

  /** @returns whether it was an object at all */
  add(value: unknown, { reference, defaultNamespace }: ObjectSource): boolean {
    if (!isRecord(value)) return false;
    const meta = readMeta(value);
    const kind = text(value.kind);
    if (!meta || kind === '') return false;
    const group = groupOf(text(value.apiVersion));
    const namespace = CLUSTER_KINDS.has(kind) ? '' : meta.namespace || defaultNamespace;
    const origin: Origin = { kind, namespace, name: meta.name, reference };
    const key = objectKey({ namespace, name: meta.name });
    const id = `${kind}.${group} ${key}`;
    const before = this.#objects.get(id);
    const object = { ...value, metadata: { ...(value.metadata as object), ...(namespace === '' ? {} : { namespace }) } };
    // Where a waypoint is, only its status says, and files have none.
    const kept = reference !== undefined && before?.live ? withAddresses(object, before.object) : object;
    const added = { kind, group, key, origin, object: kept, live: reference === undefined || before?.live === true };
    this.#objects.set(id, added);
    this.#named.set(`${kind} ${key}`, added);
    return true;
  }

  values(): IterableIterator<AnalyzedObject> {
    return this.#objects.values();
  }

  /** All of a kind. @param group where several groups have the kind */
  of(kind: string, group?: string): AnalyzedObject[] {
    return [...this.#objects.values()].filter((one) => one.kind === kind && (group === undefined || one.group === group));
  }

  find(kind: string, key: string): AnalyzedObject | undefined {
    return this.#named.get(`${kind} ${key}`);
  }

  get size(): number {
    return this.#objects.size;
  }
}

export const groupOf = (apiVersion: string): string => (apiVersion.includes('/') ? (apiVersion.split('/')[0] ?? '') : '');

/** The kind as the translation knows it; undefined for what it does not read. */
export function watchedKind({ kind, group }: Pick<AnalyzedObject, 'kind' | 'group'>): WatchedKindName | undefined {
  const known = Object.hasOwn(watchedKinds, kind) ? watchedKinds[kind as WatchedKindName] : undefined;
  return known && groupOf(known.apiVersion) === group ? (kind as WatchedKindName) : undefined;
}

function withAddresses(object: Record<string, unknown>, live: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const addresses = at(live, 'status', 'addresses');
  return addresses === undefined || isRecord(object.status) ? object : { ...object, status: { addresses } };
}
