import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConfigError, containerEnvironment, expand, podField, resourceField } from '../../../playground/kubelet/environment.ts';
import type { Container, Pod } from '../../../playground/objects.ts';

const pod: Pod = {
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: 'p', namespace: 'n', uid: 'u', labels: { b: '2', a: '1' }, annotations: { note: 'x' } },
  spec: { nodeName: 'node1', serviceAccountName: 'sa', containers: [] },
  status: { podIP: '10.0.0.1', podIPs: [{ ip: '10.0.0.1' }, { ip: 'fd00::1' }], hostIP: '172.30.0.11' },
};
const sources = {
  configMap: (name: string) =>
    name === 'there' ? { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name }, data: { key: 'value', other: 'more' } } : undefined,
  secret: (name: string) =>
    name === 'there'
      ? { apiVersion: 'v1', kind: 'Secret', metadata: { name }, data: { key: Buffer.from('hidden').toString('base64') } }
      : undefined,
};
const environment = (container: Partial<Container>): Record<string, string> =>
  containerEnvironment(pod, { name: 'c', ...container }, sources);

for (const [text, expected] of [
  ['$(A)', 'one'],
  ['x$(A)y$(B)', 'xoneytwo'],
  ['$(UNKNOWN)', '$(UNKNOWN)'],
  ['$$(A)', '$(A)'],
  ['$A', '$A'],
  ['$$', '$'],
  ['$(A', '$(A'],
] as const) {
  test(`${text} expands to ${expected}`, () => assert.equal(expand(text, { A: 'one', B: 'two' }), expected));
}

test('later variables may refer to earlier ones, not the other way round', () => {
  const env = environment({
    env: [
      { name: 'EARLY', value: '$(LATE)' },
      { name: 'LATE', value: 'x' },
      { name: 'LAST', value: '$(LATE)$(LATE)' },
    ],
  });
  assert.deepEqual([env.EARLY, env.LAST], ['$(LATE)', 'xx']);
});

test('values come from ConfigMaps and Secrets, one key or all of them with a prefix', () => {
  const env = environment({
    env: [
      { name: 'ONE', valueFrom: { configMapKeyRef: { name: 'there', key: 'key' } } },
      { name: 'TWO', valueFrom: { secretKeyRef: { name: 'there', key: 'key' } } },
      { name: 'NONE', valueFrom: { secretKeyRef: { name: 'gone', key: 'key', optional: true } } },
    ],
    envFrom: [{ prefix: 'ALL_', configMapRef: { name: 'there' } }, { secretRef: { name: 'gone', optional: true } }],
  });
  assert.deepEqual([env.ONE, env.TWO, env.ALL_key, env.ALL_other, 'NONE' in env], ['value', 'hidden', 'value', 'more', false]);
});

test('what is missing is named', () => {
  assert.throws(() => environment({ envFrom: [{ configMapRef: { name: 'gone' } }] }), new ConfigError('configmap "gone" not found'));
  assert.throws(
    () => environment({ env: [{ name: 'X', valueFrom: { secretKeyRef: { name: 'there', key: 'no' } } }] }),
    /X: couldn't find key no in Secret n\/there/,
  );
  assert.throws(() => podField(pod, 'spec.colour'), /field label not supported: spec\.colour/);
});

for (const [path, expected] of [
  ['metadata.name', 'p'],
  ["metadata.labels['a']", '1'],
  ["metadata.annotations['none']", ''],
  ['metadata.labels', 'a="1"\nb="2"'],
  ['spec.serviceAccountName', 'sa'],
  ['status.podIPs', '10.0.0.1,fd00::1'],
] as const) {
  test(`${path} is ${JSON.stringify(expected)}`, () => assert.equal(podField(pod, path), expected));
}

for (const [limit, resource, divisor, expected] of [
  ['250m', 'limits.cpu', '1m', '250'],
  ['250m', 'limits.cpu', undefined, '1'],
  ['2', 'limits.cpu', '0', '2'],
  ['1Gi', 'limits.memory', '1Mi', '1024'],
  [undefined, 'limits.cpu', undefined, '8'],
] as const) {
  test(`${resource} of ${limit ?? 'nothing'} in units of ${divisor ?? 1} is ${expected}`, () => {
    const name = resource.split('.')[1] ?? '';
    const container: Container = { name: 'c', ...(limit === undefined ? {} : { resources: { limits: { [name]: limit } } }) };
    assert.equal(resourceField(pod, container, { resource, ...(divisor === undefined ? {} : { divisor }) }), expected);
  });
}
