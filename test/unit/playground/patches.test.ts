import assert from 'node:assert/strict';
import { test } from 'node:test';
import { applyJsonPatch, applyMergePatch } from '../../../playground/apiserver/patch/json-patch.ts';
import { applyStrategicMerge } from '../../../playground/apiserver/patch/strategic-merge.ts';
import { loadDefinitions } from '../../../playground/apiserver/schemas/definitions.ts';
import { SchemaNode } from '../../../playground/apiserver/schemas/schema.ts';

const podSchema = new SchemaNode({ $ref: 'V1Pod' }, loadDefinitions());
const merged = (target: object, patch: object): unknown => applyStrategicMerge(target, patch, podSchema);

test('a JSON patch adds, replaces, removes, moves, copies and tests', () => {
  const target = { a: { b: [1, 2] }, 'x/y': 1 };
  assert.deepEqual(applyJsonPatch(target, [{ op: 'add', path: '/a/b/1', value: 9 }]), { a: { b: [1, 9, 2] }, 'x/y': 1 });
  assert.deepEqual(applyJsonPatch(target, [{ op: 'add', path: '/a/b/-', value: 9 }]), { a: { b: [1, 2, 9] }, 'x/y': 1 });
  assert.deepEqual(applyJsonPatch(target, [{ op: 'replace', path: '/x~1y', value: 2 }]), { a: { b: [1, 2] }, 'x/y': 2 });
  assert.deepEqual(applyJsonPatch(target, [{ op: 'remove', path: '/a/b/0' }]), { a: { b: [2] }, 'x/y': 1 });
  assert.deepEqual(applyJsonPatch(target, [{ op: 'move', from: '/x~1y', path: '/a/c' }]), { a: { b: [1, 2], c: 1 } });
  assert.deepEqual(applyJsonPatch(target, [{ op: 'copy', from: '/a/b', path: '/c' }]), { a: { b: [1, 2] }, 'x/y': 1, c: [1, 2] });
  assert.deepEqual(applyJsonPatch(target, [{ op: 'test', path: '/a/b', value: [1, 2] }]), target);
  assert.deepEqual(target, { a: { b: [1, 2] }, 'x/y': 1 }, 'the target stays as it was');
});

for (const [name, patch, error] of [
  ['removes what is not there', [{ op: 'remove', path: '/no' }], /path \/no does not exist/],
  ['replaces what is not there', [{ op: 'replace', path: '/a/no', value: 1 }], /does not exist/],
  ['adds beyond the end of a list', [{ op: 'add', path: '/l/5', value: 1 }], /index 5 is out of range/],
  ['fails a test', [{ op: 'test', path: '/a', value: 2 }], /testing path \/a/],
  ['has an unknown operation', [{ op: 'merge', path: '/a' }], /unknown operation "merge"/],
  ['is no list', { op: 'add' }, /is an array/],
] as const) {
  test(`a JSON patch that ${name} is refused`, () => {
    assert.throws(() => applyJsonPatch({ a: {}, l: [] }, patch), error);
  });
}

test('a merge patch sets, nests and deletes with null', () => {
  assert.deepEqual(applyMergePatch({ a: { b: 1, c: 2 }, d: [1] }, { a: { b: null, e: { f: 1 } }, d: [2] }), {
    a: { c: 2, e: { f: 1 } },
    d: [2],
  });
});

test('a strategic patch merges containers by name and their ports by number', () => {
  const target = {
    spec: {
      containers: [
        { name: 'a', image: '1', ports: [{ containerPort: 80, name: 'http' }] },
        { name: 'b', image: '1' },
      ],
    },
  };
  const patch = { spec: { containers: [{ name: 'a', image: '2', ports: [{ containerPort: 90 }] }] } };
  assert.deepEqual(merged(target, patch), {
    spec: {
      containers: [
        { name: 'a', image: '2', ports: [{ containerPort: 80, name: 'http' }, { containerPort: 90 }] },
        { name: 'b', image: '1' },
      ],
    },
  });
});

test('a strategic patch deletes an element, replaces a list, and replaces lists without a merge key', () => {
  const target = { spec: { containers: [{ name: 'a', command: ['x'] }, { name: 'b' }] } };
  assert.deepEqual(merged(target, { spec: { containers: [{ name: 'b', $patch: 'delete' }] } }), {
    spec: { containers: [{ name: 'a', command: ['x'] }] },
  });
  assert.deepEqual(merged(target, { spec: { containers: [{ $patch: 'replace' }, { name: 'c' }] } }), {
    spec: { containers: [{ name: 'c' }] },
  });
  assert.deepEqual(merged(target, { spec: { containers: [{ name: 'a', command: ['y'] }] } }), {
    spec: { containers: [{ name: 'a', command: ['y'] }, { name: 'b' }] },
  });
});

test('a strategic patch orders elements, retains keys and deletes from lists of scalars', () => {
  const containers = { spec: { containers: [{ name: 'a' }, { name: 'b' }] } };
  const ordered = merged(containers, {
    spec: { '$setElementOrder/containers': [{ name: 'c' }, { name: 'b' }, { name: 'a' }], containers: [{ name: 'c' }] },
  });
  assert.deepEqual(ordered, { spec: { containers: [{ name: 'c' }, { name: 'b' }, { name: 'a' }] } });
  const finalizers = { metadata: { finalizers: ['x/a', 'x/b'] } };
  assert.deepEqual(merged(finalizers, { metadata: { '$deleteFromPrimitiveList/finalizers': ['x/a'], finalizers: ['x/c'] } }), {
    metadata: { finalizers: ['x/b', 'x/c'] },
  });
  const volumes = { spec: { volumes: [{ name: 'v', emptyDir: {} }] } };
  assert.deepEqual(merged(volumes, { spec: { volumes: [{ name: 'v', $retainKeys: ['name', 'configMap'], configMap: { name: 'm' } }] } }), {
    spec: { volumes: [{ name: 'v', configMap: { name: 'm' } }] },
  });
});

test('a strategic patch whose element has no merge key is refused with the key', () => {
  assert.throws(
    () => merged({ spec: { containers: [] } }, { spec: { containers: [{ image: 'x' }] } }),
    /does not contain declared merge key: name/,
  );
});
