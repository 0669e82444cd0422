/** The objects of one type, by namespace and name, and their journal. */
import type { KubeObject } from '../object.ts';
import { Journal } from './journal.ts';

// Enough for a playground's whole life in most types; a client that slept through more lists again.
const MAX_CHANGES = 2000;

export class Collection {
  readonly journal: Journal;
  readonly #byNamespace = new Map<string, Map<string, KubeObject>>();
  size = 0;

  constructor(startVersion: number, maxChanges = MAX_CHANGES) {
    this.journal = new Journal(startVersion, maxChanges);
  }

  get(namespace: string, name: string): KubeObject | undefined {
    return this.#byNamespace.get(namespace)?.get(name);
  }

  set(object: KubeObject): void {
    const { namespace = '', name } = object.metadata;
    let names = this.#byNamespace.get(namespace);
    if (!names) {
      names = new Map();
      this.#byNamespace.set(namespace, names);
    }
    if (!names.has(name)) this.size++;
    names.set(name, object);
  }

  delete(object: KubeObject): void {
    const { namespace = '', name } = object.metadata;
    const names = this.#byNamespace.get(namespace);
    if (!names?.delete(name)) return;
    this.size--;
    if (names.size === 0) this.#byNamespace.delete(namespace);
  }

  /** In order of namespace and name, as etcd lists. */
  *values(namespace?: string): Generator<KubeObject> {
    const namespaces = namespace === undefined ? [...this.#byNamespace.keys()].sort() : [namespace];
    for (const each of namespaces) {
      const names = this.#byNamespace.get(each);
      if (!names) continue;
      for (const name of [...names.keys()].sort()) {
        const object = names.get(name);
        if (object) yield object;
      }
    }
  }
}
