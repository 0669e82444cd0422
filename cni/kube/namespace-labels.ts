/**
 * Labels of namespaces: from the watch, or newer, where a CNI call made us ask. A pod that is created right after its namespace was labelled
 * must not start outside the mesh only because the watch is a moment late.
 */
import type { KubeObject } from '../../common/client/kube-api.ts';
import type { ObjectStore } from '../../common/client/kube-watch.ts';
import type { Labels } from '../../common/decision/label-selector.ts';
import { isOlder } from './resource-version.ts';

export class NamespaceLabels {
  readonly #store: ObjectStore<KubeObject>;
  readonly #ahead = new Map<string, KubeObject>();

  constructor(store: ObjectStore<KubeObject>) {
    this.#store = store;
  }

  /** undefined where the namespace is not known. */
  get(name: string): Labels | undefined {
    const namespace = this.#ahead.get(name) ?? this.#store.get(name);
    return namespace && (namespace.metadata.labels ?? {});
  }

  /** All that are known. */
  *entries(): Iterable<readonly [name: string, labels: Labels]> {
    for (const { metadata } of this.#store.values()) {
      const { name = '' } = metadata;
      yield [name, this.get(name) ?? {}];
    }
    for (const [name, { metadata }] of this.#ahead) if (!this.#store.get(name)) yield [name, metadata.labels ?? {}];
  }

  /** undefined where the namespace is not known. */
  annotations(name: string): Readonly<Record<string, string>> | undefined {
    return (this.#ahead.get(name) ?? this.#store.get(name))?.metadata.annotations;
  }

  /** A namespace as the API server has it now; holds until the watch has come as far. */
  learn(namespace: KubeObject): void {
    const { name = '' } = namespace.metadata;
    const watched = this.#store.get(name);
    if (!watched || isOlder(watched, namespace)) this.#ahead.set(name, namespace);
  }

  /** The watch has reported the namespace, in this state or as deleted. */
  watched(namespace: KubeObject): void {
    const { name = '' } = namespace.metadata;
    const ahead = this.#ahead.get(name);
    if (ahead && !isOlder(namespace, ahead)) this.#ahead.delete(name);
  }
}
