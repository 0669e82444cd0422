/**
 * Collections over the API server's store, in process: no HTTP, no JSON, and no conflicts, as a read, an edit and a write are one turn of
 * the event loop. The store's own objects are frozen; edits work on copies.
 */

import type { Clock } from '../../common/base/clock.ts';
import { errorMessage } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';
import { ApiError } from '../apiserver/api-error.ts';
import type { ApiServer } from '../apiserver/apiserver.ts';
import type { KubeObject } from '../apiserver/object.ts';
import type { Store } from '../apiserver/store/store.ts';
import type { AnyObject } from '../objects.ts';
import type { Cluster, Collection } from './collections.ts';
import { eventRecorder } from './events.ts';

export function clusterFromServer(server: ApiServer, clock: Clock, log: Log): Cluster {
  const { store } = server;
  const collection = <T extends AnyObject>(kind: string): Collection<T> => collectionOf<T>(store, kind, log);
  return {
    pods: collection('Pod'),
    nodes: collection('Node'),
    leases: collection('Lease'),
    namespaces: collection('Namespace'),
    services: collection('Service'),
    endpointSlices: collection('EndpointSlice'),
    configMaps: collection('ConfigMap'),
    secrets: collection('Secret'),
    serviceAccounts: collection('ServiceAccount'),
    deployments: collection('Deployment'),
    replicaSets: collection('ReplicaSet'),
    daemonSets: collection('DaemonSet'),
    statefulSets: collection('StatefulSet'),
    jobs: collection('Job'),
    issueToken: (request) => server.issueToken(request),
    record: eventRecorder(collection('Event'), clock),
  };
}

function collectionOf<T extends AnyObject>(store: Store, kind: string, log: Log): Collection<T> {
  // The store's objects are JSON that has passed the kind's schema: this is where they get their type.
  const typed = (object: KubeObject): T => object as unknown as T;
  const stored = (object: T): KubeObject => object as unknown as KubeObject;
  const edit = (
    namespace: string,
    name: string,
    change: (draft: T) => boolean | undefined,
    write: (draft: KubeObject) => KubeObject,
  ): T | undefined => {
    const found = store.get(kind, name, namespace);
    if (!found) return undefined;
    const draft = structuredClone(typed(found));
    return change(draft) === false ? typed(found) : typed(write(stored(draft)));
  };
  return {
    get(namespace, name) {
      const found = store.get(kind, name, namespace);
      return found && typed(found);
    },
    list: (namespace) => store.list(kind, namespace === undefined ? {} : { namespace }).map(typed),
    create: async (object) => typed(store.create(stored(object))),
    modify: async (namespace, name, change) => edit(namespace, name, change, (draft) => store.update(draft)),
    modifyStatus: async (namespace, name, change) => edit(namespace, name, change, (draft) => store.updateStatus(draft)),
    async delete(namespace, name, { uid, graceSeconds } = {}) {
      try {
        store.delete(kind, name, namespace, {
          propagationPolicy: 'Background',
          ...(graceSeconds === undefined ? {} : { gracePeriodSeconds: graceSeconds }),
          ...(uid === undefined ? {} : { preconditions: { uid } }),
        });
      } catch (error) {
        // Gone, or another object took its name: either way it is no more.
        if (!(error instanceof ApiError && (error.code === 404 || error.code === 409))) throw error;
      }
    },
    watch(onChange) {
      const type = { ADDED: 'added', MODIFIED: 'modified', DELETED: 'deleted' } as const;
      const watch = store.watch(kind, {}, (event) => {
        try {
          onChange({ type: type[event.type], object: typed(event.object) });
        } catch (error) {
          // One object that a watcher cannot digest must not end the cluster.
          log.error({ kind, name: event.object.metadata.name, error: errorMessage(error) }, 'watcher failed');
        }
      });
      return () => watch.close();
    },
  };
}
