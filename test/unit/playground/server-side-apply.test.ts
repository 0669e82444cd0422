import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ApiError } from '../../../playground/apiserver/api-error.ts';
import { type FieldSet, intersect, paths, subtract, union } from '../../../playground/apiserver/patch/field-set.ts';
import type { Store } from '../../../playground/apiserver/store/store.ts';
import { apiStore, deployment, object } from '../../support/api-store.ts';

interface Spec {
  replicas?: number;
  template: {
    spec: {
      containers: {
        name: string;
        image: string;
        env?: { name: string; value?: string }[];
        ports?: { containerPort: number; protocol?: string }[];
      }[];
    };
  };
}

function apply(store: Store, manager: string, fields: Record<string, unknown>, force = false) {
  const body = { apiVersion: 'apps/v1', kind: 'Deployment', metadata: { name: 'web' }, ...fields };
  return store.patch('Deployment', 'web', 'default', { type: 'apply', body, force }, { fieldManager: manager });
}

const containers = (...list: object[]) => ({
  spec: { selector: { matchLabels: { app: 'web' } }, template: { metadata: { labels: { app: 'web' } }, spec: { containers: list } } },
});
const specOf = (store: Store): Spec => store.get('Deployment', 'web', 'default')?.spec as Spec;
const managers = (store: Store): string[] =>
  (store.get('Deployment', 'web', 'default')?.metadata.managedFields ?? []).map(({ manager, operation }) => `${manager} ${operation}`);

test('two managers apply different containers of one pod template, and each keeps its own', () => {
  const { store } = apiStore();
  apply(store, 'a', containers({ name: 'app', image: 'app:1', ports: [{ containerPort: 80 }] }));
  apply(store, 'b', { spec: { template: { spec: { containers: [{ name: 'proxy', image: 'proxy:1' }] } } } });
  assert.deepEqual(
    specOf(store).template.spec.containers.map(({ name, image }) => `${name} ${image}`),
    ['app app:1', 'proxy proxy:1'],
  );
  apply(store, 'a', containers({ name: 'app', image: 'app:2' }));
  const [app, proxy] = specOf(store).template.spec.containers;
  assert.equal(app?.image, 'app:2');
  assert.equal(app?.ports, undefined, 'what the manager no longer applies is gone, with the defaults inside');
  assert.equal(proxy?.image, 'proxy:1');
});

test('a field of another manager is a conflict that names both, and force takes it', () => {
  const { store } = apiStore();
  apply(store, 'a', { ...containers({ name: 'app', image: 'app:1' }) });
  const wants = { spec: { template: { spec: { containers: [{ name: 'app', image: 'app:2' }] } } } };
  assert.throws(
    () => apply(store, 'b', wants),
    (error: unknown) =>
      error instanceof ApiError &&
      error.code === 409 &&
      error.message === 'Apply failed with 1 conflict: conflict with "a": .spec.template.spec.containers[name="app"].image' &&
      error.details?.causes?.[0]?.reason === 'FieldManagerConflict',
  );
  apply(store, 'b', wants, true);
  assert.equal(specOf(store).template.spec.containers[0]?.image, 'app:2');
  assert.throws(() => apply(store, 'a', containers({ name: 'app', image: 'app:1' })), /conflict with "b"/);
});

test('the same value from two managers is shared, and stays until both have let go', () => {
  const { store } = apiStore();
  const base = containers({ name: 'app', image: 'app:1' });
  apply(store, 'a', { ...base, metadata: { name: 'web', labels: { team: 'x' } } });
  apply(store, 'b', { metadata: { name: 'web', labels: { team: 'x' } } });
  apply(store, 'a', base);
  assert.deepEqual(store.get('Deployment', 'web', 'default')?.metadata.labels, { team: 'x' });
  apply(store, 'b', { metadata: { name: 'web' } });
  assert.equal(store.get('Deployment', 'web', 'default')?.metadata.labels, undefined);
});

test('an update takes over what it changes, so that a later apply meets a conflict', () => {
  const { store } = apiStore();
  apply(store, 'a', { spec: { replicas: 1, ...containers({ name: 'app', image: 'app:1' }).spec } });
  store.patch('Deployment', 'web', 'default', { type: 'merge', body: { spec: { replicas: 5 } } }, { fieldManager: 'scaler' });
  assert.deepEqual(managers(store), ['a Apply', 'scaler Update']);
  assert.throws(() => apply(store, 'a', { spec: { replicas: 2 } }), /conflict with "scaler" using apps\/v1: .spec.replicas/);
});

test('a manager that stops applying a field leaves it to whoever owns it as well', () => {
  const { store } = apiStore();
  apply(store, 'a', { spec: { replicas: 1, ...containers({ name: 'app', image: 'app:1' }).spec } });
  store.patch('Deployment', 'web', 'default', { type: 'merge', body: { spec: { replicas: 5 } } }, { fieldManager: 'scaler' });
  apply(store, 'a', containers({ name: 'app', image: 'app:1' }));
  assert.equal(specOf(store).replicas, 5);
});

test('environment variables are told apart by name, and ports by number and protocol', () => {
  const { store } = apiStore();
  apply(
    store,
    'a',
    containers({
      name: 'app',
      image: 'x',
      env: [
        { name: 'A', value: '1' },
        { name: 'B', value: '1' },
      ],
      ports: [{ containerPort: 53 }],
    }),
  );
  apply(store, 'b', {
    spec: {
      template: {
        spec: { containers: [{ name: 'app', env: [{ name: 'C', value: '1' }], ports: [{ containerPort: 53, protocol: 'UDP' }] }] },
      },
    },
  });
  apply(store, 'a', containers({ name: 'app', image: 'x', env: [{ name: 'B', value: '2' }], ports: [{ containerPort: 53 }] }));
  const [app] = specOf(store).template.spec.containers;
  assert.deepEqual(app?.env, [
    { name: 'B', value: '2' },
    { name: 'C', value: '1' },
  ]);
  assert.deepEqual(
    app?.ports?.map(({ protocol }) => protocol),
    ['TCP', 'UDP'],
  );
});

test('elements come in the order of the configuration, and those of others stay behind their neighbour', () => {
  const { store } = apiStore();
  const list = (...names: string[]) => containers(...names.map((name) => ({ name, image: 'x' })));
  const order = () => specOf(store).template.spec.containers.map(({ name }) => name);
  apply(store, 'a', list('one', 'two'));
  apply(store, 'b', { spec: { template: { spec: { containers: [{ name: 'other', image: 'y' }] } } } });
  assert.deepEqual(order(), ['one', 'two', 'other']);
  apply(store, 'a', list('two', 'one'));
  assert.deepEqual(order(), ['two', 'other', 'one']);
  apply(store, 'a', list('two', 'three', 'one'));
  assert.deepEqual(order(), ['two', 'other', 'three', 'one']);
});

test('applying the same again changes nothing, not even the resource version', () => {
  const { store } = apiStore();
  const first = apply(store, 'a', containers({ name: 'app', image: 'app:1' }));
  assert.equal(apply(store, 'a', containers({ name: 'app', image: 'app:1' })), first);
});

test('an apply without a manager, or with managed fields of its own, is refused', () => {
  const { store } = apiStore();
  assert.throws(
    () => store.patch('ConfigMap', 'm', 'default', { type: 'apply', body: { metadata: { name: 'm' } } }, { fieldManager: '' }),
    /fieldManager is required/,
  );
  const body = { metadata: { name: 'm', managedFields: [{ manager: 'x', operation: 'Apply', apiVersion: 'v1' }] } };
  assert.throws(
    () => store.patch('ConfigMap', 'm', 'default', { type: 'apply', body }, { fieldManager: 'x' }),
    /managedFields must be nil/,
  );
});

test('status belongs to who writes it through its subresource', () => {
  const { store } = apiStore();
  store.create(deployment('web'), { fieldManager: 'user' });
  const live = structuredClone(store.get('Deployment', 'web', 'default')) ?? deployment('web');
  store.updateStatus({ ...live, status: { replicas: 1 } }, { fieldManager: 'controller' });
  const entries = store.get('Deployment', 'web', 'default')?.metadata.managedFields ?? [];
  assert.deepEqual(
    entries.map(({ manager, subresource, fieldsV1 }) => [manager, subresource, Object.keys(fieldsV1 ?? {})]),
    [
      ['user', undefined, ['f:spec']],
      ['controller', 'status', ['f:status']],
    ],
  );
});

test('an atomic map has one owner as a whole', () => {
  const { store } = apiStore();
  const service = (selector: object) => object('v1', 'Service', { name: 's' }, { spec: { selector, ports: [{ port: 80 }] } });
  store.patch('Service', 's', 'default', { type: 'apply', body: service({ a: '1' }) }, { fieldManager: 'a' });
  assert.throws(
    () =>
      store.patch(
        'Service',
        's',
        'default',
        { type: 'apply', body: { apiVersion: 'v1', kind: 'Service', metadata: { name: 's' }, spec: { selector: { b: '1' } } } },
        { fieldManager: 'b' },
      ),
    /conflict with "a": .spec.selector/,
  );
});

const fieldSets: fc.Arbitrary<FieldSet> = fc.letrec<{ set: FieldSet }>((tie) => ({
  set: fc.oneof(
    { maxDepth: 3 },
    fc.constant({}),
    fc
      .dictionary(fc.constantFrom('f:a', 'f:b', 'k:{"n":"1"}', '.'), tie('set'), { maxKeys: 3 })
      .map(({ '.': self, ...rest }) => (self && Object.keys(rest).length > 0 ? { '.': {}, ...rest } : rest)),
  ),
})).set;
const members = (set: FieldSet | undefined): string[] => (set ? paths(set, '$').sort() : []);

test('field sets are sets: union, difference and intersection agree with sets of paths', () => {
  fc.assert(
    fc.property(fieldSets, fieldSets, (a, b) => {
      const [inA, inB] = [members(a), members(b)];
      assert.deepEqual(members(union(a, b)), [...new Set([...inA, ...inB])].sort());
      assert.deepEqual(
        members(subtract(a, b)),
        inA.filter((path) => !inB.includes(path)),
      );
      assert.deepEqual(
        members(intersect(a, b)),
        inA.filter((path) => inB.includes(path)),
      );
    }),
    { numRuns: 300 },
  );
});

test('an apply that changes nothing leaves the object as it is, also where somebody else has written since', () => {
  const { store } = apiStore();
  const wanted = containers({ name: 'app', image: 'app:1' });
  apply(store, 'a', wanted);
  store.patch(
    'Deployment',
    'web',
    'default',
    { type: 'merge', body: { status: { replicas: 1 } } },
    { subresource: 'status', fieldManager: 'b' },
  );
  const before = store.get('Deployment', 'web', 'default');
  apply(store, 'a', wanted);
  assert.equal(store.get('Deployment', 'web', 'default')?.metadata.resourceVersion, before?.metadata.resourceVersion);
});

test('an apply to a status makes no object: one that is gone stays gone', () => {
  const { store } = apiStore();
  const late = { apiVersion: 'apps/v1', kind: 'Deployment', metadata: { name: 'web' }, status: { replicas: 1 } };
  assert.throws(
    () =>
      store.patch('Deployment', 'web', 'default', { type: 'apply', body: late, force: true }, { fieldManager: 'a', subresource: 'status' }),
    (error) => error instanceof ApiError && error.code === 404,
  );
  assert.equal(store.get('Deployment', 'web', 'default'), undefined);
});
