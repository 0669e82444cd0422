/** What every namespace has (a `default` service account and the cluster's root certificate), and its end: first its content, then itself. */
import type { Store } from '../store/store.ts';

const ROOT_CERTIFICATE_MAP = 'kube-root-ca.crt';

export function keepNamespaces(store: Store, caPem: string): void {
  const namespaces = store.typeOf('Namespace');
  const scheduled = new Set<string>();

  const furnish = (namespace: string): void => {
    const home = store.get('Namespace', namespace);
    if (!home || home.metadata.deletionTimestamp) return;
    const metadata = { namespace };
    if (!store.get('ServiceAccount', 'default', namespace))
      store.create({ apiVersion: 'v1', kind: 'ServiceAccount', metadata: { ...metadata, name: 'default' } });
    if (!store.get('ConfigMap', ROOT_CERTIFICATE_MAP, namespace)) {
      const annotations = { 'kubernetes.io/description': 'Contains a CA bundle that verifies the API server of this cluster.' };
      store.create({
        apiVersion: 'v1',
        kind: 'ConfigMap',
        metadata: { ...metadata, name: ROOT_CERTIFICATE_MAP, annotations },
        data: { 'ca.crt': caPem },
      });
    }
  };

  const empty = (namespace: string): void => {
    const home = store.get('Namespace', namespace);
    if (!home?.metadata.deletionTimestamp) return;
    let left = 0;
    for (const type of store.registry.types) {
      if (!type.namespaced) continue;
      const collection = store.collection(type);
      for (const object of [...collection.values(namespace)]) {
        if (!object.metadata.deletionTimestamp) store.remove(type, namespace, object.metadata.name, { propagationPolicy: 'Background' });
        if (collection.get(namespace, object.metadata.name)) left++;
      }
    }
    if (left === 0) {
      store.rewrite(namespaces, home, (object) => {
        object.spec = { finalizers: [] };
      });
    }
  };

  const later = (namespace: string, work: (namespace: string) => void): void => {
    if (scheduled.has(namespace)) return;
    scheduled.add(namespace);
    queueMicrotask(() => {
      scheduled.delete(namespace);
      work(namespace);
    });
  };

  store.observe((type, { type: kind, object }) => {
    const { namespace = '', name } = object.metadata;
    if (type === namespaces) {
      // At once, so that a pod can be created in the next statement.
      if (kind === 'ADDED') furnish(name);
      else if (kind === 'MODIFIED' && object.metadata.deletionTimestamp) later(name, empty);
    } else if (kind === 'DELETED' && namespace !== '') {
      if (store.get('Namespace', namespace)?.metadata.deletionTimestamp) later(namespace, empty);
      else if (type.kind === 'ServiceAccount' || name === ROOT_CERTIFICATE_MAP) later(namespace, furnish);
    }
  });
}
