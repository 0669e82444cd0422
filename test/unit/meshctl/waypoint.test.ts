/** `meshctl waypoint`: istioctl's objects, columns and messages, and what is ours: nothing is bound to a waypoint that is not ready. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import {
  type Applied,
  applyGateway,
  gatewayOf,
  gatewayText,
  listWaypoints,
  remove,
  removeWaypoints,
  statusOfWaypoints,
} from '../../../meshctl/commands/waypoint.ts';
import { FakeKubeApi } from '../../support/fake-kube-api.ts';

const GATEWAYS = '/apis/gateway.networking.k8s.io/v1/gateways';

interface Gateway {
  readonly namespace?: string;
  readonly className?: string;
  readonly programmed?: boolean;
  readonly labels?: Record<string, string>;
}

function put(
  cluster: FakeKubeApi,
  name: string,
  { namespace = 'default', className = 'istio-waypoint', programmed, labels = {} }: Gateway,
): void {
  const met = { type: 'Programmed', status: programmed ? 'True' : 'False', reason: programmed ? 'Programmed' : 'Pending', message: 'said' };
  cluster.put(GATEWAYS, {
    metadata: { namespace, name, labels },
    spec: { gatewayClassName: className },
    status: {
      addresses: [{ value: '10.96.0.9' }],
      conditions: programmed === undefined ? [] : [met, { type: 'ResolvedRefs', status: 'True' }],
    },
  });
}

/** What is printed while `run` runs. */
async function printed(t: TestContext, run: () => Promise<number>): Promise<{ out: string[]; err: string[]; code: number }> {
  const out = t.mock.method(console, 'log', () => undefined);
  const err = t.mock.method(console, 'error', () => undefined);
  const lines = (mock: typeof out): string[] => mock.mock.calls.flatMap(({ arguments: [text] }) => String(text).split('\n'));
  try {
    const code = await run();
    return { out: lines(out), err: lines(err), code };
  } finally {
    out.mock.restore();
    err.mock.restore();
  }
}

const LIST = { namespace: 'default', allNamespaces: false, output: 'text' };
const APPLY: Applied = { namespace: 'shop', enrollNamespace: false, overwrite: false, wait: false, timeoutMs: 0 };

test('a waypoint is a Gateway with one HBONE listener; labels and a namespace appear where their flag was given', () => {
  assert.deepEqual(gatewayOf({ namespace: 'shop', name: 'waypoint' }), {
    apiVersion: 'gateway.networking.k8s.io/v1',
    kind: 'Gateway',
    metadata: { name: 'waypoint', namespace: 'shop' },
    spec: { gatewayClassName: 'istio-waypoint', listeners: [{ name: 'mesh', port: 15008, protocol: 'HBONE' }] },
  });
  const { metadata } = gatewayOf({ namespace: 'shop', name: 'w', for: 'all', revision: 'canary' });
  assert.deepEqual(metadata.labels, { 'istio.io/waypoint-for': 'all', 'istio.io/rev': 'canary' });
  assert.equal(
    gatewayText({ name: '', for: 'service' }),
    `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  labels:
    istio.io/waypoint-for: service
  name: waypoint
spec:
  gatewayClassName: istio-waypoint
  listeners:
  - name: mesh
    port: 15008
    protocol: HBONE
`,
  );
});

test('a name or a traffic type that cannot be is refused before anything is applied', () => {
  assert.throws(() => gatewayOf({ namespace: 'shop', name: 'none' }), /'none' is a reserved value/);
  assert.throws(
    () => gatewayOf({ namespace: 'shop', name: 'w', for: 'everything' }),
    /invalid traffic type: everything\. Valid options are: \[all none service workload\]/,
  );
});

test('list has the columns of istioctl, in its order, and waypoints only', async (t) => {
  const cluster = await FakeKubeApi.start(t);
  const api = cluster.client();
  assert.deepEqual((await printed(t, () => listWaypoints(api, LIST))).out, ['No waypoints found.']);
  put(cluster, 'waypoint', { programmed: true });
  put(cluster, 'ingress', { className: 'istio', programmed: true });
  put(cluster, 'canary', { namespace: 'book', programmed: false, labels: { 'istio.io/rev': 'v2', 'istio.io/waypoint-for': 'all' } });
  put(cluster, 'new', { namespace: 'book' });
  assert.deepEqual((await printed(t, () => listWaypoints(api, LIST))).out, [
    'NAME         REVISION     TRAFFIC TYPE     PROGRAMMED',
    'waypoint     default      service          True',
  ]);
  assert.deepEqual((await printed(t, () => listWaypoints(api, { ...LIST, allNamespaces: true }))).out, [
    'NAMESPACE     NAME         REVISION     TRAFFIC TYPE     PROGRAMMED',
    'book          canary       v2           all              False',
    'book          new          default      service          False',
    'default       waypoint     default      service          True',
  ]);
  const wide = await printed(t, () => listWaypoints(api, { ...LIST, output: 'wide' }));
  assert.match(wide.out.join('\n'), /ADDRESS\n.*10\.96\.0\.9$/);
  const { out } = await printed(t, () => listWaypoints(api, { ...LIST, output: 'json', allNamespaces: true, name: 'canary' }));
  assert.deepEqual(JSON.parse(out.join('\n')), [
    { namespace: 'book', name: 'canary', revision: 'v2', trafficType: 'all', programmed: 'False', address: '10.96.0.9' },
  ]);
  cluster.uninstall(GATEWAYS);
  await assert.rejects(listWaypoints(api, LIST), /missing Kubernetes Gateway CRDs need to be installed/);
});

test('status waits for what is not ready yet, and says which did not become so', async (t) => {
  const cluster = await FakeKubeApi.start(t);
  const api = cluster.client();
  put(cluster, 'waypoint', { programmed: false });
  assert.deepEqual(await printed(t, () => statusOfWaypoints(api, { ...LIST, timeoutMs: 0 })), {
    out: ['NAME         STATUS     TYPE           REASON      MESSAGE', 'waypoint     False      Programmed     Pending     said'],
    err: [],
    code: 1,
  });
  const late = await printed(t, () => statusOfWaypoints(api, { ...LIST, timeoutMs: 1 }));
  assert.deepEqual(late.err, ['meshctl: timed out while retrieving status for waypoint default/waypoint']);
  cluster.intercept = ({ method }) => {
    if (method === 'GET' && cluster.requests.length % 2 === 0) put(cluster, 'waypoint', { programmed: true });
    return undefined;
  };
  const ready = await printed(t, () => statusOfWaypoints(api, { ...LIST, allNamespaces: true, timeoutMs: 60_000, pollMs: 1 }));
  assert.equal(ready.code, 0);
  assert.deepEqual(ready.out, [
    'NAMESPACE     NAME         STATUS     TYPE           REASON         MESSAGE',
    'default       waypoint     True       Programmed     Programmed     said',
  ]);
});

test('apply says what istioctl says, and binds the namespace only to a waypoint that is ready', async (t) => {
  const cluster = await FakeKubeApi.start(t);
  const api = cluster.client();
  cluster.put('/api/v1/namespaces', { metadata: { name: 'shop', labels: { 'istio.io/dataplane-mode': 'ambient' } } });
  const gateway = gatewayOf({ namespace: 'shop', name: 'waypoint' });
  const run = (options: Partial<Applied>) => printed(t, () => applyGateway(api, gateway, { ...APPLY, ...options }));
  const bound = (): unknown => cluster.requests.find(({ method, path }) => method === 'PATCH' && path === '/api/v1/namespaces/shop')?.body;

  assert.deepEqual(await run({}), { out: ['✅ waypoint shop/waypoint applied'], err: [], code: 0 });
  const late = await run({ enrollNamespace: true });
  assert.deepEqual([late.code, bound()], [1, undefined]);
  assert.match(late.err.join(), /timed out while waiting for waypoint shop\/waypoint: istiod has not looked at it/);
  put(cluster, 'waypoint', { namespace: 'shop', programmed: true });
  assert.deepEqual(await run({ enrollNamespace: true }), {
    out: [
      '✅ waypoint shop/waypoint applied',
      '✅ waypoint shop/waypoint is ready!',
      '✅ namespace shop labeled with "istio.io/use-waypoint: waypoint"',
    ],
    err: [],
    code: 0,
  });
  assert.deepEqual(bound(), { metadata: { labels: { 'istio.io/use-waypoint': 'waypoint' } } });
  await assert.rejects(applyGateway(api, gateway, { ...APPLY, namespace: 'absent' }), /namespace: absent not found/);
});

test('a namespace that is bound to another waypoint stays so without --overwrite, and one outside of the mesh is warned of', async (t) => {
  const cluster = await FakeKubeApi.start(t);
  const api = cluster.client();
  cluster.put('/api/v1/namespaces', { metadata: { name: 'shop', labels: { 'istio.io/use-waypoint': 'other' } } });
  put(cluster, 'waypoint', { namespace: 'shop', programmed: true });
  const gateway = gatewayOf({ namespace: 'shop', name: 'waypoint' });
  const kept = await printed(t, () => applyGateway(api, gateway, { ...APPLY, enrollNamespace: true }));
  assert.deepEqual(kept.out, [
    '⚠️ Warning: namespace (shop) already has an enrolled Waypoint. Consider adding the `--overwrite` flag to your apply command.',
  ]);
  assert.ok(!cluster.requests.some(({ method }) => method === 'PATCH'));
  const { out, code } = await printed(t, () => applyGateway(api, gateway, { ...APPLY, enrollNamespace: true, overwrite: true }));
  assert.equal(code, 0);
  assert.match(out[0] ?? '', /namespace is not enrolled in ambient\. Consider running\t`kubectl label namespace shop/);
  assert.match(out.at(-1) ?? '', /labeled with "istio\.io\/use-waypoint: waypoint"/);
});

test('delete takes names, or all, or those of a revision; other Gateways stay, and what is still bound is said', async (t) => {
  const cluster = await FakeKubeApi.start(t);
  const api = cluster.client();
  cluster.put('/api/v1/namespaces', { metadata: { name: 'default' } });
  cluster.put('/api/v1/services', { metadata: { namespace: 'default', name: 'web', labels: { 'istio.io/use-waypoint': 'old' } } });
  put(cluster, 'old', { labels: { 'istio.io/rev': 'v1' } });
  put(cluster, 'new', { labels: { 'istio.io/rev': 'v2' } });
  put(cluster, 'ingress', { className: 'istio' });
  const namespace = 'default';
  const named = await printed(t, () => removeWaypoints(api, { namespace, names: ['new', 'ingress'] }));
  assert.deepEqual(named, { out: ['waypoint default/new deleted', 'waypoint default/ingress not found'], err: [], code: 1 });
  const revision = await printed(t, () => removeWaypoints(api, { namespace, names: [], revision: 'v1' }));
  assert.deepEqual([revision.out, revision.code], [['waypoint default/old deleted'], 0]);
  assert.match(revision.err.join(), /1 service still bound to it.*kubectl label service -n default web istio\.io\/use-waypoint-/);
  assert.deepEqual(cluster.keys(GATEWAYS), ['default/ingress']);
  const options = { systemNamespace: 'istio-system', env: {}, namespace };
  await assert.rejects(remove({ ...options, names: [], all: false }), /must specify a waypoint name or delete all using --all/);
  await assert.rejects(remove({ ...options, names: ['x'], all: true }), /cannot specify waypoint names when deleting all waypoints/);
});
