/** A cluster in memory, for controllers and kubelets without an API server: collections that tell their watchers at once. */
import type { Change, Cluster, Collection, EventInput } from '../../playground/cluster/collections.ts';
import type { AnyObject } from '../../playground/objects.ts';

export class FakeCollection<T extends AnyObject> implements Collection<T> {
  readonly objects = new Map<string, T>();
  readonly #watchers = new Set<(change: Change<T>) => void>();
  #version = 0;
  #names = 0;
  #uids = 0;

  get(namespace: string, name: string): T | undefined {
    return this.objects.get(`${namespace}/${name}`);
  }

  list(namespace?: string): T[] {
    return [...this.objects.values()].filter(({ metadata }) => namespace === undefined || (metadata.namespace ?? '') === namespace);
  }

  async create(object: T): Promise<T> {
    const copy = structuredClone(object);
    const { metadata } = copy;
    if (!metadata.name && metadata.generateName) metadata.name = `${metadata.generateName}${String(++this.#names).padStart(5, 'x')}`;
    metadata.uid ??= `${String(++this.#uids).padStart(8, '0')}-0000-4000-8000-000000000000`;
    metadata.creationTimestamp ??= new Date(0).toISOString();
    metadata.generation = 1;
    const key = `${metadata.namespace ?? ''}/${metadata.name}`;
    if (this.objects.has(key)) throw new Error(`${key} already exists`);
    this.#store(key, copy, 'added');
    return copy;
  }

  async modify(namespace: string, name: string, edit: (draft: T) => boolean | undefined): Promise<T | undefined> {
    const found = this.get(namespace, name);
    if (!found) return undefined;
    const draft = structuredClone(found);
    if (edit(draft) === false) return found;
    draft.metadata.generation = (draft.metadata.generation ?? 1) + 1;
    this.#store(`${namespace}/${name}`, draft, 'modified');
    return draft;
  }

  async modifyStatus(namespace: string, name: string, edit: (draft: T) => boolean | undefined): Promise<T | undefined> {
    const found = this.get(namespace, name);
    if (!found) return undefined;
    const draft = structuredClone(found);
    if (edit(draft) === false) return found;
    this.#store(`${namespace}/${name}`, draft, 'modified');
    return draft;
  }

  async delete(namespace: string, name: string, options: { uid?: string | undefined; graceSeconds?: number } = {}): Promise<void> {
    const found = this.get(namespace, name);
    if (!found || (options.uid !== undefined && found.metadata.uid !== options.uid)) return;
    if (found.kind === 'Pod' && options.graceSeconds !== 0 && 'spec' in found && isAssigned(found.spec)) {
      const draft = structuredClone(found);
      draft.metadata.deletionTimestamp = new Date(0).toISOString();
      draft.metadata.deletionGracePeriodSeconds = options.graceSeconds ?? 30;
      this.#store(`${namespace}/${name}`, draft, 'modified');
      return;
    }
    this.objects.delete(`${namespace}/${name}`);
    for (const watcher of this.#watchers) watcher({ type: 'deleted', object: found });
  }

  watch(onChange: (change: Change<T>) => void): () => void {
    this.#watchers.add(onChange);
    for (const object of this.objects.values()) onChange({ type: 'added', object });
    return () => this.#watchers.delete(onChange);
  }

  #store(key: string, object: T, type: Change<T>['type']): void {
    object.metadata.resourceVersion = String(++this.#version);
    this.objects.set(key, object);
    for (const watcher of this.#watchers) watcher({ type, object });
  }
}

const isAssigned = (spec: unknown): boolean => typeof spec === 'object' && spec !== null && 'nodeName' in spec && Boolean(spec.nodeName);

export type FakeCluster = { readonly [K in keyof Cluster]: Cluster[K] extends Collection<infer T> ? FakeCollection<T> : Cluster[K] } & {
  readonly events: EventInput[];
};

export function fakeCluster(): FakeCluster {
  const events: EventInput[] = [];
  return {
    pods: new FakeCollection(),
    nodes: new FakeCollection(),
    leases: new FakeCollection(),
    namespaces: new FakeCollection(),
    services: new FakeCollection(),
    endpointSlices: new FakeCollection(),
    configMaps: new FakeCollection(),
    secrets: new FakeCollection(),
    serviceAccounts: new FakeCollection(),
    deployments: new FakeCollection(),
    replicaSets: new FakeCollection(),
    daemonSets: new FakeCollection(),
    statefulSets: new FakeCollection(),
    jobs: new FakeCollection(),
    issueToken: ({ audiences }) => `token-for-${audiences.join('+')}`,
    events,
    record: (event) => events.push(event),
  };
}
