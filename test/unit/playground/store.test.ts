import assert from 'node:assert/strict';
import { test } from 'node:test';
import { minutes } from '../../../common/base/clock.ts';
import { ApiError } from '../../../playground/apiserver/api-error.ts';
import { expireEvents } from '../../../playground/apiserver/controllers/event-expiry.ts';
import type { KubeObject, OwnerReference } from '../../../playground/apiserver/object.ts';
import { Journal } from '../../../playground/apiserver/store/journal.ts';
import type { Store } from '../../../playground/apiserver/store/store.ts';
import type { WatchEvent } from '../../../playground/apiserver/store/writes.ts';
import { apiStore, deployment, object, pod, settle } from '../../support/api-store.ts';

const is =
  (code: number, message: RegExp) =>
  (error: unknown): boolean =>
    error instanceof ApiError && error.code === code && message.test(error.message);

const copy = (found: KubeObject | undefined): KubeObject => structuredClone(found ?? assert.fail('the object is not there'));
const ownedBy = (owner: KubeObject): OwnerReference[] => [
  { apiVersion: owner.apiVersion, kind: owner.kind, name: owner.metadata.name, uid: owner.metadata.uid ?? '' },
];
const names = (store: Store, kind: string): string[] => store.list(kind, { namespace: 'default' }).map(({ metadata }) => metadata.name);

test('a created object has uid, creation time, generation and resource version, and cannot be changed in place', () => {
  const { store } = apiStore();
  const created = store.create(deployment('web'));
  const { uid, creationTimestamp, generation, resourceVersion } = created.metadata;
  assert.match(uid ?? '', /^[0-9a-f-]{36}$/);
  assert.equal(creationTimestamp, '2026-01-01T00:00:00Z');
  assert.equal(generation, 1);
  assert.equal(resourceVersion, String(store.resourceVersion));
  assert.throws(() => {
    created.metadata.name = 'other';
  }, TypeError);
});

test('an object that is there, or whose namespace is not, cannot be created', () => {
  const { store } = apiStore();
  store.create(pod('a'));
  assert.throws(() => store.create(pod('a')), is(409, /^pods "a" already exists$/));
  assert.throws(() => store.create(pod('a', { namespace: 'nowhere' })), is(404, /^namespaces "nowhere" not found$/));
});

test('generateName makes names that are free', () => {
  const { store } = apiStore();
  const made = [1, 2, 3].map(
    () => store.create({ ...pod(''), metadata: { name: '', generateName: 'web-', namespace: 'default' } }).metadata.name,
  );
  assert.equal(new Set(made).size, 3);
  for (const name of made) assert.match(name, /^web-[a-z0-9]{5}$/);
});

test('an update with an old resource version conflicts, and one without wins', () => {
  const { store } = apiStore();
  const first = copy(store.create(deployment('web')));
  store.update({ ...copy(first), metadata: { ...first.metadata, labels: { a: '1' } } });
  assert.throws(() => store.update(first), is(409, /the object has been modified; please apply your changes to the latest version/));
  const { resourceVersion: _, ...metadata } = first.metadata;
  assert.equal(store.update({ ...first, metadata }).metadata.labels, undefined);
});

test('the generation counts changes of the specification, not of labels or status', () => {
  const { store } = apiStore();
  store.create(deployment('web'));
  const labelled = store.patch('Deployment', 'web', 'default', { type: 'merge', body: { metadata: { labels: { a: 'b' } } } });
  assert.equal(labelled.metadata.generation, 1);
  store.updateStatus({ ...copy(labelled), status: { replicas: 1 } });
  assert.equal(store.get('Deployment', 'web', 'default')?.metadata.generation, 1);
  const scaled = store.patch('Deployment', 'web', 'default', { type: 'merge', body: { spec: { replicas: 3 } } });
  assert.equal(scaled.metadata.generation, 2);
  assert.deepEqual(scaled.status, { replicas: 1 }, 'the status survives');
});

test('status and specification are written by their own endpoints only', () => {
  const { store } = apiStore();
  const created = store.create({ ...deployment('web'), status: { replicas: 9 } });
  assert.equal(created.status, undefined);
  const changed: KubeObject = store.updateStatus({
    ...copy(created),
    spec: { ...((created as KubeObject).spec as object), replicas: 7 },
    status: { replicas: 1 },
  });
  assert.equal((changed.spec as { replicas: number }).replicas, 1);
  const updated = store.update({ ...copy(changed), status: { replicas: 2 } });
  assert.deepEqual(updated.status, { replicas: 1 });
});

test('a write that changes nothing leaves the object and its watchers alone', async () => {
  const { store } = apiStore();
  const created = store.create(deployment('web'));
  const events: WatchEvent[] = [];
  store.watch('Deployment', {}, (event) => events.push(event));
  assert.equal(store.update(copy(created)), created);
  await settle();
  assert.equal(events.length, 1);
});

test('dry run answers what would be and keeps nothing', () => {
  const { store } = apiStore();
  const version = store.resourceVersion;
  assert.equal(store.create(pod('a'), { dryRun: true }).metadata.name, 'a');
  assert.equal(store.get('Pod', 'a', 'default'), undefined);
  assert.equal(store.resourceVersion, version);
});

test('a watcher hears of what is there, then of every change in order, with its former state', async () => {
  const { store } = apiStore();
  store.create(pod('a', { labels: { app: 'x' } }));
  const heard: string[] = [];
  const watch = store.watch('Pod', { namespace: 'default', labelSelector: 'app=x' }, ({ type, object: { metadata }, previous }) =>
    heard.push(`${type} ${metadata.name} ${previous ? 'had' : 'new'}`),
  );
  store.create(pod('b'));
  store.patch('Pod', 'b', 'default', { type: 'merge', body: { metadata: { labels: { app: 'x' } } } });
  store.patch('Pod', 'b', 'default', { type: 'merge', body: { metadata: { annotations: { n: '1' } } } });
  store.patch('Pod', 'b', 'default', { type: 'merge', body: { metadata: { labels: { app: 'y' } } } });
  store.delete('Pod', 'a', 'default');
  await settle();
  assert.deepEqual(heard, ['ADDED a new', 'ADDED b new', 'MODIFIED b had', 'DELETED b had', 'DELETED a had']);
  watch.close();
  store.create(pod('c', { labels: { app: 'x' } }));
  await settle();
  assert.equal(heard.length, 5);
});

test('a watcher may write, and its own changes come after the one that it is told of', async () => {
  const { store } = apiStore();
  const heard: string[] = [];
  store.watch('Pod', {}, ({ type, object: { metadata } }) => {
    heard.push(`${type} ${metadata.name}`);
    if (type === 'ADDED' && metadata.name === 'a') store.create(pod('b'));
  });
  store.create(pod('a'));
  store.create(pod('c'));
  await settle();
  assert.deepEqual(heard, ['ADDED a', 'ADDED c', 'ADDED b']);
});

test('a watch from a version that is forgotten is refused with 410, and one from a version that is kept goes on from there', () => {
  const { store } = apiStore();
  const type = store.typeOf('ConfigMap');
  const start = store.resourceVersion;
  for (let i = 0; i < 5; i++) store.create(object('v1', 'ConfigMap', { name: `m${i}`, namespace: 'default' }));
  const heard: string[] = [];
  store.subscribe(type, start + 2, {}, ({ object: { metadata } }) => heard.push(metadata.name));
  assert.deepEqual(heard, ['m2', 'm3', 'm4']);
  store.collection(type).journal.compact();
  assert.throws(() => store.subscribe(type, start + 2, {}, () => undefined), is(410, /too old resource version/));
  store.subscribe(type, store.resourceVersion, {}, () => undefined);
});

test('a journal keeps a bounded number of changes', () => {
  const journal = new Journal(0, 10);
  for (let version = 1; version <= 100; version++)
    journal.publish({ type: 'ADDED', object: pod(`p${version}`), previous: undefined, version });
  const kept: number[] = [];
  journal.subscribe(90, ({ version }) => kept.push(version));
  assert.deepEqual(kept, [91, 92, 93, 94, 95, 96, 97, 98, 99, 100]);
  assert.throws(() => journal.subscribe(70, () => undefined), is(410, /too old resource version: 70/));
});

test('an object with a finalizer waits for it, and takes no new one', () => {
  const { store } = apiStore();
  store.create(object('v1', 'ConfigMap', { name: 'm', namespace: 'default', finalizers: ['example.com/hold'] }));
  assert.equal(store.delete('ConfigMap', 'm', 'default').metadata.deletionTimestamp, '2026-01-01T00:00:00Z');
  assert.throws(
    () =>
      store.patch('ConfigMap', 'm', 'default', {
        type: 'merge',
        body: { metadata: { finalizers: ['example.com/hold', 'example.com/more'] } },
      }),
    is(422, /metadata.finalizers: Forbidden: no new finalizers/),
  );
  store.patch('ConfigMap', 'm', 'default', { type: 'json', body: [{ op: 'remove', path: '/metadata/finalizers' }] });
  assert.equal(store.get('ConfigMap', 'm', 'default'), undefined);
});

test('a pod that runs is given its grace period, and goes when its kubelet says so', () => {
  const { store } = apiStore();
  store.create(pod('a', {}, { nodeName: 'n1', terminationGracePeriodSeconds: 7 }));
  const dying = store.delete('Pod', 'a', 'default');
  assert.equal(dying.metadata.deletionTimestamp, '2026-01-01T00:00:07Z');
  assert.equal(dying.metadata.deletionGracePeriodSeconds, 7);
  assert.equal(
    store.delete('Pod', 'a', 'default', { gracePeriodSeconds: 60 }).metadata.deletionGracePeriodSeconds,
    7,
    'never longer than before',
  );
  assert.equal(store.delete('Pod', 'a', 'default', { gracePeriodSeconds: 2 }).metadata.deletionTimestamp, '2026-01-01T00:00:02Z');
  store.delete('Pod', 'a', 'default', { gracePeriodSeconds: 0 });
  assert.equal(store.get('Pod', 'a', 'default'), undefined);
});

test('a deletion with another uid in its preconditions is refused', () => {
  const { store } = apiStore();
  store.create(pod('a'));
  assert.throws(() => store.delete('Pod', 'a', 'default', { preconditions: { uid: 'other' } }), is(409, /precondition/));
});

test('dependents go with the last of their owners', async () => {
  const { store } = apiStore();
  const [one, two] = ['one', 'two'].map((name) => store.create(object('v1', 'ConfigMap', { name, namespace: 'default' })));
  assert.ok(one && two);
  store.create(pod('a', { ownerReferences: ownedBy(one) }));
  store.create(pod('b', { ownerReferences: [...ownedBy(one), ...ownedBy(two)] }));
  store.delete('ConfigMap', 'one', 'default');
  await settle();
  assert.deepEqual(names(store, 'Pod'), ['b']);
  assert.deepEqual(store.get('Pod', 'b', 'default')?.metadata.ownerReferences, ownedBy(two));
  store.delete('ConfigMap', 'two', 'default');
  await settle();
  assert.deepEqual(names(store, 'Pod'), []);
});

test('deleted in the foreground, an owner waits for its dependents; as an orphan, it lets them go', async () => {
  const { store } = apiStore();
  const owner = store.create(deployment('web'));
  store.create(pod('a', { ownerReferences: ownedBy(owner), finalizers: ['example.com/hold'] }));
  store.delete('Deployment', 'web', 'default', { propagationPolicy: 'Foreground' });
  await settle();
  assert.deepEqual(store.get('Deployment', 'web', 'default')?.metadata.finalizers, ['foregroundDeletion']);
  store.patch('Pod', 'a', 'default', { type: 'merge', body: { metadata: { finalizers: null } } });
  await settle();
  assert.equal(store.get('Deployment', 'web', 'default'), undefined);

  const other = store.create(deployment('other'));
  store.create(pod('b', { ownerReferences: ownedBy(other) }));
  store.delete('Deployment', 'other', 'default', { propagationPolicy: 'Orphan' });
  await settle();
  assert.equal(store.get('Deployment', 'other', 'default'), undefined);
  assert.equal(store.get('Pod', 'b', 'default')?.metadata.ownerReferences, undefined);
});

test('what is created for an owner that is not there is collected', async () => {
  const { store } = apiStore();
  store.create(pod('a', { ownerReferences: [{ apiVersion: 'v1', kind: 'ConfigMap', name: 'gone', uid: 'gone' }] }));
  await settle();
  assert.deepEqual(names(store, 'Pod'), []);
});

test('a namespace is furnished when it is made, and takes its content along when it goes', async () => {
  const { store } = apiStore();
  store.create(object('v1', 'Namespace', { name: 'shop' }));
  assert.ok(store.get('ServiceAccount', 'default', 'shop'));
  assert.deepEqual(store.get('ConfigMap', 'kube-root-ca.crt', 'shop')?.data, { 'ca.crt': 'CA' });
  store.create(pod('a', { namespace: 'shop' }, { nodeName: 'n1' }));
  store.delete('Namespace', 'shop');
  await settle();
  assert.deepEqual(store.get('Namespace', 'shop')?.status, { phase: 'Terminating' }, 'its pod is still stopping');
  assert.throws(() => store.create(pod('b', { namespace: 'shop' })), is(403, /because it is being terminated/));
  store.delete('Pod', 'a', 'shop', { gracePeriodSeconds: 0 });
  await settle();
  assert.equal(store.get('Namespace', 'shop'), undefined);
  assert.equal(store.list('ConfigMap', { namespace: 'shop' }).length, 0);
});

test('a default service account that is deleted comes back', async () => {
  const { store } = apiStore();
  const { uid } = store.get('ServiceAccount', 'default', 'default')?.metadata ?? {};
  store.delete('ServiceAccount', 'default', 'default');
  await settle();
  assert.notEqual(store.get('ServiceAccount', 'default', 'default')?.metadata.uid, uid);
});

test('events are forgotten after an hour, and the oldest when there are too many', async () => {
  const { store, clock } = apiStore();
  const stop = expireEvents(store, 50);
  const event = (name: string): KubeObject =>
    object('v1', 'Event', { name, namespace: 'default' }, { involvedObject: { kind: 'Pod', name: 'p' }, reason: 'R', message: '' });
  store.create(event('early'));
  await clock.advance(minutes(40));
  store.create(event('late'));
  await clock.advance(minutes(25));
  assert.deepEqual(names(store, 'Event.'), ['late']);
  for (let i = 0; i < 50; i++) store.create(event(`e${i}`));
  await settle();
  const left = names(store, 'Event.');
  assert.deepEqual([left.length, left.includes('late'), left.includes('e0')], [50, false, true]);
  stop();
  assert.equal(clock.pending, 0);
});
