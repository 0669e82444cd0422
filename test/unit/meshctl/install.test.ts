import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { type InstallWork, isOlder, runInstall } from '../../../meshctl/install/install.ts';
import { loadSource, type Source } from '../../../meshctl/install/source.ts';
import { objectOf } from '../../../playground/apiserver/json.ts';
import type { KubeObject } from '../../../playground/apiserver/object.ts';
import { type ClusterApi, everything, hastyClock, startClusterApi, workloadsComeUp } from '../../support/cluster-api.ts';

const source = loadSource({ namespace: 'istio-system', values: [], set: [], env: {} });

async function cluster(t: TestContext): Promise<ClusterApi> {
  const found = await startClusterApi(t);
  found.store.create({ apiVersion: 'v1', kind: 'Node', metadata: { name: 'node1' } });
  return found;
}

interface Result {
  readonly status: number;
  readonly lines: readonly string[];
}

async function run({ api }: ClusterApi, options: Partial<InstallWork> = {}): Promise<Result> {
  let text = '';
  const status = await runInstall({
    api,
    clock: hastyClock(),
    source,
    namespace: 'istio-system',
    upgrade: false,
    dryRun: false,
    wait: true,
    timeoutMs: 300_000,
    force: false,
    colour: false,
    ...options,
    out: {
      write(piece: string) {
        text += piece;
      },
    },
  });
  return { status, lines: text.split('\n').slice(0, -1) };
}

/** Another version: what differs is said as a function of each object. */
const versioned = (version: string, change: (object: Source['objects'][number]) => object | undefined = (object) => object): Source => ({
  ...source,
  version,
  objects: source.objects.flatMap((object) => {
    const changed = change(structuredClone(object)) as Source['objects'][number] | undefined;
    if (!changed) return [];
    return [
      { ...changed, metadata: { ...changed.metadata, labels: { ...changed.metadata.labels, 'app.kubernetes.io/version': version } } },
    ];
  }),
});

/** Each says where to read on, which is not what these tests are about. */
const problems = ({ lines }: Result): string[] =>
  lines
    .filter((line) => line.startsWith('✘'))
    .map((line) => {
      assert.match(line, /; see docs\/[\w-]+\.md#[\w-]+\)$/);
      return line.replace(/; see docs\/[\w.#-]+\)$/, ')');
    });

test('an installation applies every object of the manifest, waits for the pods, and says so', async (t) => {
  const mesh = await cluster(t);
  workloadsComeUp(mesh.store);
  const { status, lines } = await run(mesh);
  assert.equal(status, 0, lines.join('\n'));
  for (const { kind = '', metadata } of source.objects)
    assert.ok(mesh.store.get(kind, metadata.name ?? '', metadata.namespace), `${kind} ${metadata.name}`);
  assert.ok(lines.includes('✔ Deployment istio-system/istiod is ready'), lines.join('\n'));
  assert.ok(lines.includes('Warren is installed, version 0.1.0, in namespace istio-system.'));
});

test('a pod’s account, settings and rights are there before it is', async (t) => {
  const mesh = await cluster(t);
  workloadsComeUp(mesh.store);
  await run(mesh);
  const applied = mesh.requests.filter(({ method, query }) => method === 'PATCH' && !query.has('dryRun')).map(({ path }) => path);
  const at = (part: string): number => applied.findLastIndex((path) => path.includes(part));
  const firstPod = applied.findIndex((path) => path.includes('/deployments/') || path.includes('/daemonsets/'));
  // Definitions come before everything.
  assert.equal(applied.filter((path) => !path.includes('/customresourcedefinitions/'))[0], '/api/v1/namespaces/istio-system');
  for (const part of ['/serviceaccounts/', '/configmaps/', '/clusterrolebindings/', '/rolebindings/']) assert.ok(at(part) < firstPod, part);
});

test('definitions of Istio’s kinds are made where they are missing, and those that are there stay as they are', async (t) => {
  const mesh = await cluster(t);
  workloadsComeUp(mesh.store);
  mesh.store.delete('CustomResourceDefinition', 'telemetries.telemetry.istio.io');
  const before = mesh.store.get('CustomResourceDefinition', 'virtualservices.networking.istio.io');
  const { status, lines } = await run(mesh);
  assert.equal(status, 0);
  assert.ok(lines.includes('✔ 2 definitions of kinds created'), lines.join('\n'));
  assert.equal(
    mesh.store.get('CustomResourceDefinition', 'telemetries.telemetry.istio.io')?.metadata.labels?.['warren.dev/definition'],
    'istio',
  );
  assert.deepEqual(mesh.store.get('CustomResourceDefinition', 'virtualservices.networking.istio.io'), before);
});

test('installing once more changes nothing', async (t) => {
  const mesh = await cluster(t);
  workloadsComeUp(mesh.store);
  await run(mesh);
  await new Promise((resolve) => setImmediate(resolve));
  const before = everything(mesh.store);
  const { status, lines } = await run(mesh, { dryRun: true });
  assert.equal(status, 0);
  assert.ok(lines.includes('Deployment istio-system/istiod: would be unchanged'), lines.join('\n'));
  assert.ok(!lines.some((line) => /would be (changed|created)/.test(line)), lines.join('\n'));
  assert.equal((await run(mesh)).status, 0);
  assert.deepEqual(everything(mesh.store), before);
});

test('a dry run says what would be created, and changes nothing', async (t) => {
  const mesh = await cluster(t);
  const before = everything(mesh.store);
  const { status, lines } = await run(mesh, { dryRun: true });
  assert.equal(status, 0);
  assert.ok(lines.includes('DaemonSet istio-system/ztunnel: would be created'), lines.join('\n'));
  assert.deepEqual(everything(mesh.store), before);
});

test('a dry run for machines is one object', async (t) => {
  const mesh = await cluster(t);
  const printed: object[] = [];
  const { lines } = await run(mesh, { dryRun: true, data: async (value) => void printed.push(value) });
  assert.deepEqual(lines, []);
  const [answer] = printed as {
    ok: boolean;
    findings: { check: string }[];
    changes: { object: string; change: string }[];
  }[];
  assert.equal(answer?.ok, true);
  assert.ok(answer.findings.some(({ check }) => check === 'version'));
  assert.deepEqual(answer.changes.find(({ object }) => object === 'ServiceAccount istio-system/istiod')?.change, 'created');
});

test('a cluster that is too old is refused in one line, before anything is changed', async (t) => {
  const mesh = await cluster(t);
  mesh.refuse = ({ path }) =>
    path === '/version' ? { status: 200, body: { major: '1', minor: '30+', gitVersion: 'v1.30.4-eks-1' } } : undefined;
  const before = everything(mesh.store);
  const result = await run(mesh);
  assert.equal(result.status, 1);
  assert.deepEqual(problems(result), ['✘ version: Kubernetes v1.30.4-eks-1 is older than 1.31 (upgrade the cluster)']);
  assert.equal(result.lines.at(-1), 'Nothing was changed.');
  assert.deepEqual(everything(mesh.store), before);
});

test('who may not install is told which rights are missing, before anything is changed', async (t) => {
  const mesh = await cluster(t);
  mesh.refuse = ({ path, body }) => {
    if (!path.endsWith('/selfsubjectaccessreviews')) return undefined;
    const { resource, verb } = (body as { spec: { resourceAttributes: { resource: string; verb: string } } }).spec.resourceAttributes;
    const allowed = resource !== '*' && !(resource === 'clusterroles' && verb === 'create');
    return { status: 201, body: { status: { allowed } } };
  };
  const before = everything(mesh.store);
  const result = await run(mesh);
  assert.equal(result.status, 1);
  assert.deepEqual(problems(result), [
    '✘ permissions: you may not create clusterroles (use an account that is bound to cluster-admin (--context NAME))',
  ]);
  assert.deepEqual(everything(mesh.store), before);
});

test('an Istio that is there is named, with what to do about it, and nothing is changed', async (t) => {
  const mesh = await cluster(t);
  mesh.store.create({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'istio-system' } });
  mesh.store.create({
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name: 'istiod', namespace: 'istio-system', labels: { app: 'istiod', release: 'istiod' } },
    spec: {
      selector: { matchLabels: { app: 'istiod' } },
      template: { metadata: { labels: { app: 'istiod' } }, spec: { containers: [{ name: 'discovery', image: 'pilot' }] } },
    },
  } as KubeObject);
  const before = everything(mesh.store);
  const result = await run(mesh);
  assert.equal(result.status, 1);
  assert.deepEqual(problems(result), [
    "✘ other meshes: Istio's istiod is installed already (Deployment istio-system/istiod, by istiod) (remove it (istioctl uninstall --purge, or helm uninstall), or keep it and leave ours out: --set istiod.enabled=false)",
  ]);
  assert.deepEqual(everything(mesh.store), before);
});

test('an object of our name that is somebody else’s is not taken over', async (t) => {
  const mesh = await cluster(t);
  mesh.store.create({
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'ClusterRole',
    metadata: { name: 'istio-cni' },
    rules: [],
  } as KubeObject);
  const result = await run(mesh);
  assert.equal(result.status, 1);
  assert.deepEqual(problems(result), [
    '✘ ClusterRole istio-cni: is there already and is not of Warren (remove it, or turn off the piece that it belongs to)',
  ]);
  assert.equal(mesh.store.get('Namespace', 'istio-system'), undefined);
});

test('an installation of another version is not overwritten by install', async (t) => {
  const mesh = await cluster(t);
  workloadsComeUp(mesh.store);
  await run(mesh, { source: versioned('0.0.9') });
  const result = await run(mesh);
  assert.equal(result.status, 1);
  assert.deepEqual(problems(result), ['✘ installation: version 0.0.9 is installed already (meshctl upgrade, which keeps the right order)']);
});

test('an image that cannot be pulled ends the wait with the pod, the reason and the mend', async (t) => {
  const mesh = await cluster(t);
  mesh.store.observe((type, { type: change, object }) => {
    if (type.kind !== 'DaemonSet' || change !== 'ADDED' || object.metadata.name !== 'ztunnel') return;
    setImmediate(() => {
      const labels = { app: 'ztunnel' };
      mesh.store.create({
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: { name: 'ztunnel-1', namespace: 'istio-system', labels },
        spec: { containers: [{ name: 'istio-proxy', image: 'warren/ztunnel:0.1.0' }] },
      } as KubeObject);
      const waiting = { reason: 'ImagePullBackOff', message: 'Back-off pulling image "warren/ztunnel:0.1.0"' };
      const status = {
        phase: 'Pending',
        containerStatuses: [
          { name: 'istio-proxy', image: 'warren/ztunnel:0.1.0', imageID: '', ready: false, restartCount: 0, state: { waiting } },
        ],
      };
      mesh.store.patch('Pod', 'ztunnel-1', 'istio-system', { type: 'merge', body: { status } }, { subresource: 'status' });
    });
  });
  const result = await run(mesh, { timeoutMs: 3_600_000 });
  assert.equal(result.status, 1);
  assert.deepEqual(problems(result), [
    '✘ Pod istio-system/ztunnel-1: image warren/ztunnel:0.1.0 cannot be pulled (ImagePullBackOff: Back-off pulling image "warren/ztunnel:0.1.0") (check image.hub, image.tag and image.pullSecrets, or load the image onto the nodes)',
  ]);
});

test('what does not come up in time is named, each with its count', async (t) => {
  const mesh = await cluster(t);
  const result = await run(mesh, { timeoutMs: 5000 });
  assert.equal(result.status, 1);
  assert.deepEqual(problems(result), [
    '✘ Deployment istio-system/istiod: 0 of 2 ready after 5 s (wait longer by --timeout, or look at its pods)',
    '✘ DaemonSet istio-system/istio-cni-node: 0 of 0 ready after 5 s (wait longer by --timeout, or look at its pods)',
    '✘ DaemonSet istio-system/ztunnel: 0 of 0 ready after 5 s (wait longer by --timeout, or look at its pods)',
  ]);
});

// ---- upgrade

test('an upgrade where nothing is installed says so', async (t) => {
  const mesh = await cluster(t);
  const result = await run(mesh, { upgrade: true });
  assert.equal(result.status, 1);
  assert.deepEqual(problems(result), ['✘ installation: nothing is installed in this namespace (meshctl install)']);
});

test('an upgrade brings istiod up first, then the node agent, then ztunnel, and deletes what the new version has no more', async (t) => {
  const mesh = await cluster(t);
  workloadsComeUp(mesh.store);
  const old = versioned('0.0.9');
  const extra = structuredClone(old.objects.find(({ kind }) => kind === 'ConfigMap'));
  assert.ok(extra);
  extra.metadata.name = 'settings-of-before';
  await run(mesh, { source: { ...old, objects: [...old.objects, extra] } });
  mesh.requests.length = 0;
  const { status, lines } = await run(mesh, { upgrade: true });
  assert.equal(status, 0, lines.join('\n'));
  const ready = lines.filter(
    (line) => line.endsWith('is ready') || line.endsWith('istio-cni-node applied') || line.endsWith('ztunnel applied'),
  );
  assert.deepEqual(
    ready.filter((line) => /Deployment|DaemonSet/.test(line)),
    [
      '✔ Deployment istio-system/istiod is ready',
      '✔ DaemonSet istio-system/istio-cni-node applied',
      '✔ DaemonSet istio-system/istio-cni-node is ready',
      '✔ DaemonSet istio-system/ztunnel applied',
      '✔ DaemonSet istio-system/ztunnel is ready',
    ],
  );
  assert.equal(mesh.store.get('ConfigMap', 'settings-of-before', 'istio-system'), undefined);
  assert.ok(mesh.store.get('ConfigMap', 'istio-cni-config', 'istio-system'));
  assert.equal(lines.at(-1), 'Warren is upgraded to 0.1.0, in namespace istio-system.');
});

test('an upgrade stops where istiod does not come up: the node’s pieces stay as they are', async (t) => {
  const mesh = await cluster(t);
  workloadsComeUp(mesh.store);
  await run(mesh, { source: versioned('0.0.9') });
  const broken = versioned('0.1.0', (object) =>
    object.kind === 'Deployment' ? { ...object, spec: { ...(object.spec as object), minReadySeconds: 1 } } : object,
  );
  const agent = mesh.store.get('DaemonSet', 'ztunnel', 'istio-system')?.metadata.resourceVersion;
  mesh.refuse = ({ method, path }) =>
    method === 'GET' && path.endsWith('/deployments/istiod')
      ? {
          status: 200,
          body: {
            metadata: { name: 'istiod', namespace: 'istio-system', generation: 9, labels: { 'warren.dev/installation': 'istio-system' } },
            spec: { replicas: 2 },
          },
        }
      : undefined;
  const result = await run(mesh, { upgrade: true, source: broken, timeoutMs: 3000 });
  assert.equal(result.status, 1);
  assert.match(problems(result).join(), /Deployment istio-system\/istiod: 0 of 2 ready after 3 s/);
  assert.equal(mesh.store.get('DaemonSet', 'ztunnel', 'istio-system')?.metadata.resourceVersion, agent);
});

test('a field that a user has set is named before anything is changed, and taken over only when asked, by name', async (t) => {
  const mesh = await cluster(t);
  workloadsComeUp(mesh.store);
  await run(mesh);
  const body = {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name: 'istiod', namespace: 'istio-system' },
    spec: { replicas: 5 },
  };
  await mesh.api.patch('/apis/apps/v1/namespaces/istio-system/deployments/istiod', body, {
    type: 'apply',
    fieldManager: 'gitops',
    force: true,
  });
  await new Promise((resolve) => setImmediate(resolve));
  const before = everything(mesh.store);
  const refused = await run(mesh, { upgrade: true });
  assert.equal(refused.status, 1);
  assert.deepEqual(problems(refused), [
    '✘ Deployment istio-system/istiod: .spec.replicas was set by gitops (set it back, give the value to the chart, or take it over by --force-conflicts)',
  ]);
  assert.deepEqual(everything(mesh.store), before);
  const forced = await run(mesh, { upgrade: true, force: true });
  assert.equal(forced.status, 0, forced.lines.join('\n'));
  assert.ok(
    forced.lines.includes(
      '! Deployment istio-system/istiod: .spec.replicas, which gitops has set, is taken over (see docs/install.md#1-ask-first)',
    ),
    forced.lines.join('\n'),
  );
  const { replicas } = objectOf(mesh.store.get('Deployment', 'istiod', 'istio-system')?.spec);
  assert.equal(replicas, 2);
});

test('what a user added beside our fields survives an upgrade', async (t) => {
  const mesh = await cluster(t);
  workloadsComeUp(mesh.store);
  await run(mesh, { source: versioned('0.0.9') });
  const path = '/apis/apps/v1/namespaces/istio-system/deployments/istiod';
  await mesh.api.patch(
    path,
    { metadata: { annotations: { 'example.com/owner': 'platform' } } },
    { type: 'merge', fieldManager: 'kubectl-annotate' },
  );
  assert.equal((await run(mesh, { upgrade: true })).status, 0);
  assert.equal(mesh.store.get('Deployment', 'istiod', 'istio-system')?.metadata.annotations?.['example.com/owner'], 'platform');
});

test('an installation that Helm keeps is left to Helm', async (t) => {
  const mesh = await cluster(t);
  workloadsComeUp(mesh.store);
  await run(mesh);
  const annotations = { 'meta.helm.sh/release-name': 'warren', 'meta.helm.sh/release-namespace': 'istio-system' };
  await mesh.api.patch('/apis/apps/v1/namespaces/istio-system/deployments/istiod', { metadata: { annotations } }, { type: 'merge' });
  const result = await run(mesh, { upgrade: true });
  assert.equal(result.status, 1);
  assert.deepEqual(problems(result), [
    "✘ Deployment istio-system/istiod: belongs to Helm's release istio-system/warren (helm upgrade warren -n istio-system)",
  ]);
});

test('versions are compared by their numbers', () => {
  assert.equal(isOlder('0.9.0', '0.10.0'), true);
  assert.equal(isOlder('1.0.0', '1.0.0'), false);
  assert.equal(isOlder('1.2.3-rc1', 'v1.2.2'), false);
  assert.equal(isOlder('main', '1.0.0'), false);
});
