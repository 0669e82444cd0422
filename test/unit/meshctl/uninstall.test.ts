import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { createDefinitions } from '../../../meshctl/install/apply.ts';
import { runInstall } from '../../../meshctl/install/install.ts';
import { loadSource } from '../../../meshctl/install/source.ts';
import { runUninstall, type UninstallWork } from '../../../meshctl/install/uninstall.ts';
import type { KubeObject } from '../../../playground/apiserver/object.ts';
import { type ClusterApi, everything, hastyClock, startClusterApi, workloadsComeUp } from '../../support/cluster-api.ts';

const source = loadSource({ namespace: 'istio-system', values: [], set: [], env: {} });
const NAMESPACE = 'istio-system';

async function run({ api }: ClusterApi, options: Partial<UninstallWork> = {}): Promise<{ status: number; lines: string[] }> {
  let text = '';
  const out = {
    write(piece: string) {
      text += piece;
    },
  };
  const purge = { purgeCrds: false, purgeLabels: false, purgeGateways: false };
  const status = await runUninstall({
    api,
    clock: hastyClock(),
    namespace: NAMESPACE,
    dryRun: false,
    timeoutMs: 10_000,
    colour: false,
    ...purge,
    ...options,
    out,
  });
  return { status, lines: text.split('\n').slice(0, -1) };
}

/** A cluster with an application; `before` is what is there without the mesh. */
async function installed(t: TestContext): Promise<{ mesh: ClusterApi; before: string[] }> {
  const mesh = await startClusterApi(t);
  const { store, api } = mesh;
  workloadsComeUp(store);
  store.create({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'shop', labels: { 'istio.io/dataplane-mode': 'ambient' } } });
  const before = everything(store, false);
  await runInstall({
    api,
    clock: hastyClock(),
    source,
    namespace: NAMESPACE,
    upgrade: false,
    dryRun: false,
    wait: true,
    timeoutMs: 10_000,
    force: false,
    colour: false,
    out: { write: () => undefined },
  });
  return { mesh, before };
}

const create = (
  { store }: ClusterApi,
  apiVersion: string,
  kind: string,
  metadata: KubeObject['metadata'],
  fields: object = {},
): KubeObject => store.create({ apiVersion, kind, metadata, ...fields } as KubeObject);

const waypoint = { gatewayClassName: 'istio-waypoint', listeners: [{ name: 'mesh', port: 15008, protocol: 'HBONE' }] };

/** What istiod makes while it runs. */
function istiodWorks(mesh: ClusterApi): void {
  const managed = { 'gateway.istio.io/managed': 'istio.io-mesh-controller' };
  const labels = { app: 'waypoint' };
  create(
    mesh,
    'gateway.networking.k8s.io/v1',
    'GatewayClass',
    { name: 'istio-waypoint' },
    { spec: { controllerName: 'istio.io/mesh-controller' } },
  );
  create(
    mesh,
    'apps/v1',
    'Deployment',
    { name: 'waypoint', namespace: 'shop', labels: managed },
    {
      spec: {
        selector: { matchLabels: labels },
        template: { metadata: { labels }, spec: { containers: [{ name: 'istio-proxy', image: 'w' }] } },
      },
    },
  );
  create(mesh, 'v1', 'ServiceAccount', { name: 'waypoint', namespace: 'shop', labels: managed });
  create(mesh, 'v1', 'Service', { name: 'waypoint', namespace: 'shop', labels: managed }, { spec: { ports: [{ port: 15008 }] } });
  create(
    mesh,
    'policy/v1',
    'PodDisruptionBudget',
    { name: 'waypoint', namespace: 'shop', labels: managed },
    {
      spec: { minAvailable: 1, selector: { matchLabels: labels } },
    },
  );
  for (const namespace of ['shop', NAMESPACE, 'default'])
    create(
      mesh,
      'v1',
      'ConfigMap',
      { name: 'istio-ca-root-cert', namespace, labels: { 'istio.io/config': 'true' } },
      { data: { 'root-cert.pem': 'x' } },
    );
  create(mesh, 'v1', 'Secret', { name: 'istio-ca-secret', namespace: NAMESPACE }, { type: 'istio.io/ca-root', data: { 'ca-key.pem': '' } });
  create(mesh, 'coordination.k8s.io/v1', 'Lease', { name: 'istio-leader', namespace: NAMESPACE });
}

test('uninstalling leaves the cluster as it was before the installation', async (t) => {
  const { mesh, before } = await installed(t);
  istiodWorks(mesh);
  const { status, lines } = await run(mesh);
  assert.equal(status, 0, lines.join('\n'));
  assert.deepEqual(everything(mesh.store, false), before);
  assert.equal(lines.at(-1), 'Warren is uninstalled.');
});

test('the node agent goes first, with all its rights still there; then ztunnel, then istiod, then the rest', async (t) => {
  const { mesh } = await installed(t);
  istiodWorks(mesh);
  mesh.requests.length = 0;
  await run(mesh);
  const deleted = mesh.requests.filter(({ method }) => method === 'DELETE').map(({ path }) => path.split('/').slice(-2).join('/'));
  assert.deepEqual(deleted.slice(0, 4), ['daemonsets/istio-cni-node', 'daemonsets/ztunnel', 'deployments/istiod', 'deployments/waypoint']);
  const roles = deleted.findIndex((name) => /^(cluster)?role/.test(name));
  assert.ok(roles > deleted.indexOf('secrets/istio-ca-secret'));
  assert.ok(deleted.indexOf('serviceaccounts/istio-cni') > deleted.indexOf('rolebindings/istio-cni'));
  assert.equal(deleted.at(-1), 'namespaces/istio-system');
});

test('nothing further is deleted before the pods of a piece have ended', async (t) => {
  const { mesh } = await installed(t);
  const pods = [{ metadata: { name: 'istio-cni-node-1', namespace: NAMESPACE }, spec: { nodeName: 'node1' } }];
  let asked = 0;
  mesh.refuse = ({ method, path, query }) => {
    if (method !== 'GET' || !path.endsWith('/pods') || query.get('labelSelector') !== 'k8s-app=istio-cni-node') return undefined;
    const daemonSet = mesh.store.get('DaemonSet', 'istio-cni-node', NAMESPACE);
    if (daemonSet) return undefined;
    assert.ok(mesh.store.get('DaemonSet', 'ztunnel', NAMESPACE), 'ztunnel went while an agent was at work');
    return ++asked < 4 ? { status: 200, body: { items: pods } } : undefined;
  };
  const { status } = await run(mesh);
  assert.equal(status, 0);
  assert.equal(asked, 4);
});

test('an agent that does not end is named with its node, and the rest goes on', async (t) => {
  const { mesh } = await installed(t);
  mesh.refuse = ({ method, path, query }) =>
    method === 'GET' && path.endsWith('/pods') && query.get('labelSelector') === 'k8s-app=istio-cni-node'
      ? { status: 200, body: { items: [{ metadata: { name: 'istio-cni-node-1', namespace: NAMESPACE }, spec: { nodeName: 'node1' } }] } }
      : undefined;
  const { status, lines } = await run(mesh);
  assert.equal(status, 1);
  assert.ok(
    lines.includes(
      '✘ Pod istio-system/istio-cni-node-1: on node1 does not end (is its node there? kubectl delete pod --force once it is known to be gone)',
    ),
    lines.join('\n'),
  );
  assert.equal(mesh.store.get('DaemonSet', 'ztunnel', NAMESPACE), undefined);
});

test('pods that nobody took out of the mesh are named: they have no network', async (t) => {
  const { mesh } = await installed(t);
  create(
    mesh,
    'v1',
    'Pod',
    { name: 'orders', namespace: 'shop', annotations: { 'ambient.istio.io/redirection': 'enabled' } },
    {
      spec: { nodeName: 'node1', containers: [{ name: 'c', image: 'i' }] },
    },
  );
  const { status, lines } = await run(mesh);
  assert.equal(status, 1);
  assert.ok(
    lines.includes(
      '! node node1: its agent was not at work, so its rules and CNI configuration may be left (restart its pods, or run meshctl bypass there)',
    ),
    lines.join('\n'),
  );
  assert.ok(
    lines.includes('✘ pods: shop/orders were not taken out of the mesh and have no network now (restart these pods: kubectl delete pod)'),
    lines.join('\n'),
  );
});

test('what users wrote stays, and is named', async (t) => {
  const { mesh } = await installed(t);
  istiodWorks(mesh);
  create(mesh, 'gateway.networking.k8s.io/v1', 'Gateway', { name: 'waypoint', namespace: 'shop' }, { spec: waypoint });
  create(mesh, 'security.istio.io/v1', 'AuthorizationPolicy', { name: 'deny', namespace: 'shop' }, { spec: {} });
  const { status, lines } = await run(mesh);
  assert.equal(status, 0);
  assert.deepEqual(
    lines.filter((line) => line.startsWith('stays: ')),
    [
      'stays: 1 Gateway of class istio-waypoint (--purge-gateways)',
      'stays: label istio.io/dataplane-mode of shop (--purge-labels)',
      'stays: 1 × AuthorizationPolicy, which nobody enforces any more',
    ],
  );
  assert.ok(mesh.store.get('AuthorizationPolicy', 'deny', 'shop'));
});

test('on request the waypoints’ Gateways, the labels and our own definitions go too; Istio’s definitions do not', async (t) => {
  const { mesh } = await installed(t);
  mesh.store.delete('CustomResourceDefinition', 'telemetries.telemetry.istio.io');
  await createDefinitions(mesh.api, source.definitions, hastyClock());
  create(mesh, 'gateway.networking.k8s.io/v1', 'Gateway', { name: 'waypoint', namespace: 'shop' }, { spec: waypoint });
  create(
    mesh,
    'v1',
    'Service',
    { name: 'orders', namespace: 'shop', labels: { 'istio.io/use-waypoint': 'waypoint', team: 'a' } },
    { spec: { ports: [{ port: 80 }] } },
  );
  const { status, lines } = await run(mesh, { purgeCrds: true, purgeGateways: true, purgeLabels: true });
  assert.equal(status, 0, lines.join('\n'));
  assert.equal(mesh.store.get('Gateway.gateway.networking.k8s.io', 'waypoint', 'shop'), undefined);
  assert.deepEqual(mesh.store.get('Service', 'orders', 'shop')?.metadata.labels, { team: 'a' });
  assert.equal(mesh.store.get('Namespace', 'shop')?.metadata.labels?.['istio.io/dataplane-mode'], undefined);
  assert.equal(mesh.store.get('CustomResourceDefinition', 'telemetries.telemetry.istio.io'), undefined);
  assert.ok(mesh.store.get('CustomResourceDefinition', 'virtualservices.networking.istio.io'));
});

test('a namespace where somebody keeps something of his own stays, with the reason', async (t) => {
  const { mesh } = await installed(t);
  create(mesh, 'v1', 'Secret', { name: 'cacerts', namespace: NAMESPACE });
  const { status, lines } = await run(mesh);
  assert.equal(status, 0);
  assert.ok(
    lines.includes('! Namespace istio-system: stays, since it has Secret cacerts (kubectl delete namespace istio-system)'),
    lines.join('\n'),
  );
  assert.ok(mesh.store.get('Namespace', NAMESPACE));
});

test('the namespace is waited for; one that something holds is named', async (t) => {
  const { mesh } = await installed(t);
  const namespace = mesh.store.get('Namespace', NAMESPACE);
  mesh.refuse = ({ method, path }) =>
    method === 'GET' && path === `/api/v1/namespaces/${NAMESPACE}` ? { status: 200, body: namespace } : undefined;
  const { status, lines } = await run(mesh);
  assert.equal(status, 1);
  assert.ok(
    lines.includes('✘ Namespace istio-system: is still being deleted (kubectl get namespace istio-system -o yaml says what holds it)'),
    lines.join('\n'),
  );
});

test('somebody else’s ConfigMap of the same name stays', async (t) => {
  const { mesh } = await installed(t);
  create(mesh, 'v1', 'ConfigMap', { name: 'istio-ca-root-cert', namespace: 'shop' });
  await run(mesh);
  assert.ok(mesh.store.get('ConfigMap', 'istio-ca-root-cert', 'shop'));
});

test('a dry run names what would go, and changes nothing', async (t) => {
  const { mesh } = await installed(t);
  istiodWorks(mesh);
  await new Promise((resolve) => setImmediate(resolve));
  const before = everything(mesh.store);
  const { status, lines } = await run(mesh, { dryRun: true });
  assert.equal(status, 0);
  for (const title of [
    'DaemonSet istio-system/ztunnel',
    'Secret istio-system/istio-ca-secret',
    'ConfigMap shop/istio-ca-root-cert',
    'Deployment shop/waypoint',
  ])
    assert.ok(lines.includes(`${title}: would be deleted`), title);
  assert.deepEqual(everything(mesh.store), before);
});

test('a second uninstall finds nothing and says so', async (t) => {
  const { mesh } = await installed(t);
  await run(mesh);
  const { status, lines } = await run(mesh);
  assert.equal(status, 0);
  assert.match(lines[0] ?? '', /^Nothing of Warren carries the label warren\.dev\/installation=istio-system/);
});

test('after helm uninstall the rest is found: what istiod made, and annotations that the agent could not take away', async (t) => {
  const { mesh, before } = await installed(t);
  istiodWorks(mesh);
  create(
    mesh,
    'v1',
    'Pod',
    { name: 'orders', namespace: 'shop', annotations: { 'ambient.istio.io/redirection': 'enabled' } },
    { spec: { nodeName: 'node1', containers: [{ name: 'c', image: 'i' }] } },
  );
  for (const { kind = '', metadata } of source.objects)
    if (kind !== 'Namespace') mesh.store.delete(kind, metadata.name ?? '', metadata.namespace);
  const { status, lines } = await run(mesh);
  assert.equal(status, 0, lines.join('\n'));
  assert.equal(mesh.store.get('Pod', 'orders', 'shop')?.metadata.annotations?.['ambient.istio.io/redirection'], undefined);
  const left = everything(mesh.store, false).filter((name) => name !== 'Pod/shop/orders');
  assert.deepEqual(left, before);
});
