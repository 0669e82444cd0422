/** What another control plane beside this one looks after is left alone; what nothing carries out says so, object by object. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readSettings } from '../../../common/base/settings.ts';
import { labelSelectors } from '../../../istiod-lite/kube/scope.ts';
import { MeshIndex } from '../../../istiod-lite/model/index.ts';
import { settingsTable } from '../../../istiod-lite/settings.ts';
import type { FakeKubeApi } from '../../support/fake-kube-api.ts';
import { ADDRESS, AUTHORIZATION, startTestIstiod } from '../../support/istiod.ts';
import * as make from '../../support/kube-objects.ts';
import { until } from '../../support/until.ts';

const POLICIES = '/apis/security.istio.io/v1/authorizationpolicies';

function fill(kube: FakeKubeApi, namespace: string, labels: Record<string, string>): void {
  kube.put('/api/v1/namespaces', { metadata: { name: namespace, labels } });
  kube.put('/api/v1/services', {
    metadata: { name: 'web', namespace, labels: { 'istio.io/use-waypoint': 'wp' } },
    spec: { clusterIP: '10.96.0.9', ports: [{ port: 80 }] },
  });
  const rules = [{ to: [{ operation: { methods: ['GET'] } }] }];
  kube.put(POLICIES, { metadata: { name: 'get', namespace }, spec: { rules } });
}

/** Names of all that is served. */
async function served(mesh: Awaited<ReturnType<typeof startTestIstiod>>, typeUrl: string): Promise<string[]> {
  const stream = mesh.stream('ztunnel-node1');
  stream.subscribe(typeUrl);
  const { resources } = await stream.next();
  stream.cancel();
  return resources.map(({ name }) => name).sort();
}

const writesTo = (kube: FakeKubeApi, namespace: string): string[] =>
  kube.requests
    .filter(({ method, path }) => method !== 'GET' && path.includes(`/namespaces/${namespace}/`))
    .map(({ method, path }) => `${method} ${path}`);

test('namespaces that no selector picks are not served, written to or given roots, until their labels say otherwise', async (t) => {
  const mesh = await startTestIstiod(t, {
    settings: { discoverySelectors: [{ matchLabels: { mesh: 'warren' } }] },
    prepare(kube) {
      fill(kube, 'ours', { mesh: 'warren' });
      fill(kube, 'theirs', { mesh: 'istio' });
    },
  });
  await until(() => writesTo(mesh.kube, 'ours').length >= 3);
  assert.deepEqual(writesTo(mesh.kube, 'theirs'), []);
  assert.ok(mesh.kube.get('/api/v1/configmaps', 'istio-system/istio-ca-root-cert'), 'the system namespace is always in scope');
  assert.deepEqual(
    (await served(mesh, ADDRESS)).filter((name) => name.includes('web')),
    ['ours/web.ours.svc.cluster.local'],
  );

  mesh.kube.put('/api/v1/namespaces', { metadata: { name: 'theirs', labels: { mesh: 'warren' } } });
  await until(() => writesTo(mesh.kube, 'theirs').length >= 3);
  const names = await served(mesh, ADDRESS);
  assert.ok(names.includes('theirs/web.theirs.svc.cluster.local'), names.join());

  mesh.kube.put('/api/v1/namespaces', { metadata: { name: 'ours', labels: {} } });
  await until(() => mesh.kube.requests.length > 0);
  let left: string[] = [];
  for (let i = 0; i < 100 && (left.length === 0 || left.includes('ours/web.ours.svc.cluster.local')); i++) {
    left = await served(mesh, ADDRESS);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  assert.ok(!left.includes('ours/web.ours.svc.cluster.local') && left.includes('theirs/web.theirs.svc.cluster.local'), left.join());
});

test('configuration of another revision is not read, judged or written to; what has no label is', async (t) => {
  const rules = [{ from: [{ source: { namespaces: ['bank'] } }] }];
  const mesh = await startTestIstiod(t, {
    settings: { revision: 'warren' },
    prepare(kube) {
      for (const [name, labels] of Object.entries({ ours: { 'istio.io/rev': 'warren' }, theirs: { 'istio.io/rev': 'istio' }, open: {} }))
        kube.put(POLICIES, { metadata: { name, namespace: 'shop', labels }, spec: { rules } });
    },
  });
  await until(() => writesTo(mesh.kube, 'shop').filter((line) => line.includes('authorizationpolicies')).length >= 2);
  assert.deepEqual(await served(mesh, AUTHORIZATION), ['shop/open', 'shop/ours']);
  assert.deepEqual(
    writesTo(mesh.kube, 'shop').filter((line) => line.includes('theirs')),
    [],
  );
});

test('selectors are read as meshConfig.discoverySelectors are, and what cannot be read ends the start', () => {
  const of = (value: string) => readSettings(settingsTable, { WARREN_DISCOVERY_SELECTORS: value }).discoverySelectors;
  assert.deepEqual(of('[{matchLabels: {a: b}}, {matchExpressions: [{key: c, operator: Exists}]}]').length, 2);
  for (const [value, complaint] of [
    ['a=b', /expected a YAML list/],
    ['[{}]', /entry 1 is empty/],
    ['[{matchLabels: {a: 1}}]', /entry 1: matchLabels/],
    ['[{matchExpressions: [{key: a, operator: Like, values: [b]}]}]', /entry 1: matchExpressions/],
    ['[{labels: {a: b}}]', /entry 1: labels/],
  ] as const)
    assert.throws(() => labelSelectors.parse(value), complaint, value);
});

test('each object of a kind that nothing carries out says so in its status and in the list of problems', () => {
  const index = new MeshIndex({
    clusterId: 'Kubernetes',
    domain: 'cluster.local',
    rootNamespace: 'istio-system',
    trustDomain: 'cluster.local',
    network: '',
  });
  for (const kind of ['EnvoyFilter', 'WasmPlugin', 'Sidecar', 'TrafficExtension'] as const)
    for (const name of ['one', 'two'])
      index.apply({ type: 'added', kind, object: make.destinationRule({ name, namespace: 'shop', spec: {} }) });
  const { statuses, problems } = index.flush();
  assert.equal(statuses.length, 8);
  for (const { conditions } of statuses)
    assert.deepEqual(
      conditions.map(({ type, status, reason }) => `${type} ${status} ${reason}`),
      ['warren.dev/Enforced False NotImplemented'],
    );
  assert.ok(statuses.some(({ path }) => path === '/apis/extensions.istio.io/v1alpha1/namespaces/shop/wasmplugins/two/status'));
  assert.equal(problems.filter(({ message }) => message.startsWith('not enforced: ')).length, 8);
  index.apply({ type: 'deleted', kind: 'EnvoyFilter', object: make.destinationRule({ name: 'one', namespace: 'shop', spec: {} }) });
  assert.ok(![...index.problems()].some(({ object }) => object === 'EnvoyFilter shop/one'));
});
