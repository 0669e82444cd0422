/** The API server's store without its HTTP side: built-in and custom types, garbage collection, namespaces; time in the test's hand. */

import { builtInTypes } from '../../playground/apiserver/built-in-types.ts';
import { serveCustomTypes } from '../../playground/apiserver/controllers/custom-types.ts';
import { collectGarbage } from '../../playground/apiserver/controllers/garbage-collector.ts';
import { keepNamespaces } from '../../playground/apiserver/controllers/namespaces.ts';
import { builtInBehaviours } from '../../playground/apiserver/kinds/behaviours.ts';
import type { KubeObject, ObjectMeta } from '../../playground/apiserver/object.ts';
import { Registry } from '../../playground/apiserver/registry.ts';
import { loadDefinitions } from '../../playground/apiserver/schemas/definitions.ts';
import { Store } from '../../playground/apiserver/store/store.ts';
import { FakeClock } from './fake-clock.ts';

const definitions = loadDefinitions();

/** A store with the namespace `default`, whose "random" numbers count up. */
export function apiStore(): { store: Store; clock: FakeClock } {
  const clock = new FakeClock();
  let next = 0;
  const random = (): number => {
    next = (next + 0.137) % 1;
    return next;
  };
  const store = new Store({ registry: new Registry(builtInTypes(definitions)), clock, random, behaviours: builtInBehaviours });
  serveCustomTypes(store, definitions);
  collectGarbage(store);
  keepNamespaces(store, 'CA');
  store.create(object('v1', 'Namespace', { name: 'default' }));
  return { store, clock };
}

export function object(apiVersion: string, kind: string, metadata: ObjectMeta, fields: Record<string, unknown> = {}): KubeObject {
  return { apiVersion, kind, metadata, ...fields };
}

export function pod(name: string, metadata: Partial<ObjectMeta> = {}, spec: Record<string, unknown> = {}): KubeObject {
  return object(
    'v1',
    'Pod',
    { namespace: 'default', ...metadata, name },
    { spec: { containers: [{ name: 'app', image: 'echo:1' }], ...spec } },
  );
}

export function deployment(name: string, replicas = 1): KubeObject {
  const labels = { app: name };
  const template = { metadata: { labels }, spec: { containers: [{ name: 'app', image: 'echo:1' }] } };
  return object(
    'apps/v1',
    'Deployment',
    { name, namespace: 'default' },
    { spec: { replicas, selector: { matchLabels: labels }, template } },
  );
}

/** Lets what waits in microtasks run: watches, garbage collection. */
export const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
