/**
 * Owner references: what nobody owns any more is deleted, what was deleted in the foreground waits for its dependents, what was deleted as
 * an orphan lets them go. Works through a queue after each change, never inside a write.
 */
import type { KubeObject } from '../object.ts';
import type { ResourceType } from '../registry.ts';
import type { Store } from '../store/store.ts';

interface Located {
  readonly type: ResourceType;
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
}

export function collectGarbage(store: Store): void {
  /** By the owner's uid; the dependents by their own. */
  const dependents = new Map<string, Map<string, Located>>();
  const living = new Map<string, Located>();
  let queue: (() => void)[] = [];

  const later = (work: () => void): void => {
    if (queue.push(work) > 1) return;
    queueMicrotask(() => {
      const batch = queue;
      queue = [];
      for (const each of batch) each();
    });
  };

  const current = ({ type, namespace, name, uid }: Located): KubeObject | undefined => {
    const object = store.collection(type).get(namespace, name);
    return object?.metadata.uid === uid ? object : undefined;
  };

  const dependentsOf = (uid: string): Located[] => [...(dependents.get(uid)?.values() ?? [])].filter((each) => current(each) !== undefined);

  const link = (located: Located, object: KubeObject): void => {
    for (const { uid } of object.metadata.ownerReferences ?? []) {
      let set = dependents.get(uid);
      if (!set) {
        set = new Map();
        dependents.set(uid, set);
      }
      set.set(located.uid, located);
    }
  };

  const unlink = (located: Located, object: KubeObject): void => {
    for (const { uid } of object.metadata.ownerReferences ?? []) {
      const set = dependents.get(uid);
      set?.delete(located.uid);
      if (set?.size === 0) dependents.delete(uid);
    }
  };

  const withdraw = (located: Located, gone: (uid: string) => boolean): void => {
    const object = current(located);
    if (!object) return;
    store.rewrite(located.type, object, ({ metadata }) => {
      const rest = (metadata.ownerReferences ?? []).filter(({ uid }) => !gone(uid));
      if (rest.length > 0) metadata.ownerReferences = rest;
      else delete metadata.ownerReferences;
    });
  };

  /** Deletes an object whose owners are all gone; forgets owners that are gone where others are left. */
  const examine = (located: Located): void => {
    const object = current(located);
    const owners = object?.metadata.ownerReferences ?? [];
    if (!object || owners.length === 0 || object.metadata.deletionTimestamp) return;
    const left = owners.filter(({ uid }) => living.has(uid));
    if (left.length === owners.length) return;
    if (left.length > 0) withdraw(located, (uid) => !living.has(uid));
    else store.remove(located.type, located.namespace, located.name, { propagationPolicy: 'Background' });
  };

  const dropFinalizer = (located: Located, finalizer: string): void => {
    const object = current(located);
    if (!object?.metadata.finalizers?.includes(finalizer)) return;
    store.rewrite(located.type, object, ({ metadata }) => {
      const rest = (metadata.finalizers ?? []).filter((name) => name !== finalizer);
      if (rest.length > 0) metadata.finalizers = rest;
      else delete metadata.finalizers;
    });
  };

  /** Carries on with an owner that is being deleted in the foreground or as an orphan. */
  const advance = (located: Located): void => {
    const object = current(located);
    if (!object?.metadata.deletionTimestamp) return;
    const finalizers = object.metadata.finalizers ?? [];
    if (finalizers.includes('orphan')) {
      for (const dependent of dependentsOf(located.uid)) withdraw(dependent, (uid) => uid === located.uid);
      dropFinalizer(located, 'orphan');
    } else if (finalizers.includes('foregroundDeletion')) {
      const waiting = dependentsOf(located.uid);
      for (const dependent of waiting) {
        if (!current(dependent)?.metadata.deletionTimestamp)
          store.remove(dependent.type, dependent.namespace, dependent.name, { propagationPolicy: 'Foreground' });
      }
      if (dependentsOf(located.uid).length === 0) dropFinalizer(located, 'foregroundDeletion');
    }
  };

  store.observe((type, { type: kind, object, previous }) => {
    const { namespace = '', name, uid = '' } = object.metadata;
    const located: Located = { type, namespace, name, uid };
    if (previous) unlink(located, previous);
    if (kind === 'DELETED') {
      living.delete(uid);
      const owners = object.metadata.ownerReferences ?? [];
      later(() => {
        for (const dependent of dependentsOf(uid)) examine(dependent);
        for (const owner of owners) {
          const waiting = living.get(owner.uid);
          if (waiting) advance(waiting);
        }
      });
      return;
    }
    living.set(uid, located);
    link(located, object);
    if (object.metadata.ownerReferences && !previous) later(() => examine(located));
    if (object.metadata.deletionTimestamp) later(() => advance(located));
  });
}
