/** What is larger than anybody needs, or leads nowhere: it is refused by name, or carried, and nothing else notices. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Address } from '../../../common/codec/gen/workload.ts';
import { readParameters } from '../../../istiod-lite/gateway/parameters.ts';
import { MeshIndex } from '../../../istiod-lite/model/index.ts';
import { readMeshConfig } from '../../../istiod-lite/model/mesh-config.ts';
import * as make from '../../support/kube-objects.ts';

const config = {
  clusterId: 'Kubernetes',
  domain: 'cluster.local',
  rootNamespace: 'istio-system',
  trustDomain: 'cluster.local',
  network: '',
};

const MEGABYTE = 1 << 20;
const gateway = {
  metadata: { name: 'wp', namespace: 'shop' },
  spec: { gatewayClassName: 'istio-waypoint', infrastructure: { parametersRef: { group: '', kind: 'ConfigMap', name: 'opts' } } },
};

/** What the Gateway's status says of a ConfigMap with this overlay. */
function problemWith(deployment: string): string {
  const configMap = { metadata: { name: 'opts', namespace: 'shop' }, data: { deployment } };
  const parameters = readParameters(gateway, [], () => configMap);
  return 'problem' in parameters ? parameters.problem.message : '';
}

test('a ConfigMap for a waypoint that has a megabyte, or stands for more by aliases, is refused by name', () => {
  assert.match(problemWith(`metadata: { annotations: { a: ${'x'.repeat(MEGABYTE)} } }`), /ConfigMap shop\/opts, deployment: longer than/);
  const bomb = Array.from({ length: 12 }, (_, i) =>
    i === 0 ? 'a0: &a0 [x, x, x, x, x, x, x, x, x]' : `a${i}: &a${i} [${`*a${i - 1}, `.repeat(9)}]`,
  );
  const overlay = `${bomb.map((line) => `    ${line}`).join('\n')}`;
  assert.match(
    problemWith(`spec: { template: { spec: {} } }\nmetadata:\n  annotations:\n${overlay}`),
    /shop\/opts, deployment: more than 5000 values/,
  );
  assert.match(problemWith('metadata: &m { annotations: *m }'), /shop\/opts, deployment: /, 'one that leads to itself');
});

test('a mesh configuration of a megabyte is read, and what it has no use for is named in one line', () => {
  const said: string[] = [];
  const mesh = `accessLogFile: /dev/stdout\nnoSuchField: ${'x'.repeat(MEGABYTE)}\n`;
  const started = { trustDomain: 'cluster.local', rootNamespace: 'istio-system' };
  const read = readMeshConfig({ metadata: { name: 'istio' }, data: { mesh } }, started, (line) => said.push(line));
  assert.equal(read?.accessLogFile, '/dev/stdout');
  assert.deepEqual(
    said.map((line) => line.length < 300),
    said.map(() => true),
  );
});

test('a thousand policies of one workload are all named by it, and a change of one is told alone', () => {
  const index = new MeshIndex(config);
  for (const name of ['a', 'b']) index.apply({ type: 'added', kind: 'Pod', object: make.pod({ name, labels: { app: name } }) });
  const policy = (n: number, port: string) =>
    make.authorizationPolicy({
      name: `p${n}`,
      spec: { selector: { matchLabels: { app: 'a' } }, action: 'DENY', rules: [{ to: [{ operation: { ports: [port] } }] }] },
    });
  for (let n = 0; n < 1000; n++) index.apply({ type: 'added', kind: 'AuthorizationPolicy', object: policy(n, '80') });
  index.flush();
  const { type } = Address.decode(index.address('Kubernetes//Pod/shop/a')?.bytes ?? new Uint8Array());
  assert.equal(type?.$case === 'workload' && type.value.authorizationPolicies.length, 1000);
  index.apply({ type: 'modified', kind: 'AuthorizationPolicy', object: policy(7, '81') });
  const { address, authorization } = index.flush();
  assert.deepEqual([address.changed.length, authorization.changed.map(({ name }) => name)], [0, ['shop/p7']]);
});

test('ranges and addresses that are none, or of the wrong family, are named with their object and never widen what a policy allows', () => {
  const index = new MeshIndex(config);
  for (const [i, range] of ['10.0.0.0/33', 'fd00::/129', '10.0.0.0/', '1.2.3', '::ffff:10.0.0.0/200'].entries()) {
    const rules = [{ from: [{ source: { ipBlocks: [range] } }] }];
    index.apply({ type: 'added', kind: 'AuthorizationPolicy', object: make.authorizationPolicy({ name: `p${i}`, spec: { rules } }) });
    const spec = { hosts: [`h${i}.example`], addresses: [range], resolution: 'STATIC', endpoints: [{ address: '192.0.2.1' }] };
    index.apply({ type: 'added', kind: 'ServiceEntry', object: make.serviceEntry({ name: `e${i}`, spec }) });
  }
  const { problems } = index.flush();
  for (let i = 0; i < 5; i++) {
    assert.ok(
      problems.some(({ object }) => object === `AuthorizationPolicy shop/p${i}`),
      `policy ${i}`,
    );
    assert.ok(
      problems.some(({ object }) => object === `ServiceEntry shop/e${i}`),
      `entry ${i}`,
    );
  }
});
