/**
 * The story on real Kubernetes, with the product as it is shipped: its images, its manifest, `meshctl`. A shop whose frontend on node1 calls
 * orders on node2 is put into the mesh, held to policies, given a waypoint, has every component replaced under it, and is let go again.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { startCluster, type TestCluster, withoutCluster } from '../support/cluster.ts';
import { everyCommandWorks } from '../support/every-command.ts';
import { imageBundle } from '../support/image-bundle.ts';
import { runProgram, succeeded } from '../support/kube-commands.ts';
import { NEXT, nextMeshctl, tagNext } from '../support/next-version.ts';
import { type PodLoad, startPodLoad } from '../support/pod-load.ts';
import { hasText, hasTunnel, onTheWire } from '../support/wire.ts';
import { ztunnelLine } from '../support/ztunnel-pods.ts';

const MESHCTL_TIMEOUT_MS = 240_000;
const ROLLOUT = '240s';
/** Old pods get 30 s to end what is open. */
const SETTLE_MS = 120_000;
const MARKER = 'rabbit-in-the-clear';

const deployment = (name: string, app: string, node: string): string => `
---
apiVersion: apps/v1
kind: Deployment
metadata: { name: ${name}, namespace: shop }
spec:
  selector: { matchLabels: { app: ${app}, version: ${name} } }
  strategy: { rollingUpdate: { maxSurge: 1, maxUnavailable: 0 } }
  template:
    metadata: { labels: { app: ${app}, version: ${name} } }
    spec:
      serviceAccountName: ${app}
      nodeSelector: { kubernetes.io/hostname: ${node} }
      terminationGracePeriodSeconds: 15
      containers:
        - name: echo
          image: warren/echo:0.1.0
          imagePullPolicy: Never
          args: ["--port=8080", "--version=${name}"]
          # Kubernetes takes a pod out of its Services while it ends, not before.
          lifecycle: { preStop: { sleep: { seconds: 4 } } }
          readinessProbe: { httpGet: { path: /, port: 8080 }, periodSeconds: 1 }
`;

const service = (name: string, selector: string): string => `
---
apiVersion: v1
kind: Service
metadata: { name: ${name}, namespace: shop }
spec: { selector: { ${selector} }, ports: [{ name: http, port: 80, targetPort: 8080 }] }
`;

const SHOP = `
apiVersion: v1
kind: Namespace
metadata: { name: shop }
---
apiVersion: v1
kind: Namespace
metadata: { name: legacy }
${['frontend', 'orders', 'stock'].map((name) => `---\napiVersion: v1\nkind: ServiceAccount\nmetadata: { name: ${name}, namespace: shop }`).join('\n')}
${deployment('frontend', 'frontend', 'node1')}
${deployment('orders-v1', 'orders', 'node2')}
${deployment('orders-v2', 'orders', 'node2')}
${deployment('stock', 'stock', 'node2')}
${service('orders', 'app: orders')}
${service('orders-v1', 'version: orders-v1')}
${service('orders-v2', 'version: orders-v2')}
${service('stock', 'app: stock')}
---
apiVersion: v1
kind: Pod
metadata: { name: client, namespace: legacy }
spec:
  nodeSelector: { kubernetes.io/hostname: node1 }
  terminationGracePeriodSeconds: 0
  containers: [{ name: echo, image: "warren/echo:0.1.0", imagePullPolicy: Never, args: ["--port=8080"] }]
`;

const STRICT = `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: strict, namespace: shop }
spec: { mtls: { mode: STRICT } }
`;

const ONLY_FRONTEND = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: only-frontend, namespace: shop }
spec:
  selector: { matchLabels: { app: stock } }
  action: ALLOW
  rules: [{ from: [{ source: { principals: [cluster.local/ns/shop/sa/frontend] } }] }]
`;

const SPLIT = `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: orders, namespace: shop }
spec:
  parentRefs: [{ group: "", kind: Service, name: orders, port: 80 }]
  rules: [{ backendRefs: [{ name: orders-v1, port: 80, weight: 90 }, { name: orders-v2, port: 80, weight: 10 }] }]
`;

interface RawObject {
  readonly metadata: {
    readonly name: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
  };
}

test('the story, on Kubernetes with two nodes', { skip: withoutCluster ?? false, timeout: 900_000 }, async (t) => {
  const cluster = await startCluster(t, { nodes: 2, images: [await imageBundle(t)], gatewayApi: true });
  const call = (from: string, url: string, ...more: string[]) => cluster.exec('shop', `deploy/${from}`, 'client', url, ...more);
  const answered = async (from: string, url: string, ...more: string[]): Promise<string> =>
    succeeded(`client ${url} in ${from}`, await call(from, url, ...more));
  const ordersInTheClear = (): Promise<boolean> =>
    onTheWire(cluster.node('node2'), () => answered('frontend', 'http://orders/', '-H', `x-marker:${MARKER}`)).then((seen) =>
      hasText(seen, MARKER),
    );

  await t.test('meshctl install brings up the mesh from its images', async () => {
    await cluster.apply(SHOP);
    await cluster.meshctl('install');
    await cluster.podsReady('shop', SETTLE_MS);
    await cluster.podsReady('legacy');
    await cluster.eventually('outside of the mesh, what the frontend says to orders cannot be read on the wire', ordersInTheClear);
  });

  const startLoad = (targets: readonly string[]): Promise<PodLoad> =>
    startPodLoad({ cluster, namespace: 'shop', serviceAccount: 'frontend', node: 'node1', targets, tell: (line) => t.diagnostic(line) });

  await t.test('a label puts the shop into it, and connections that are open stay open', async () => {
    const load = await startLoad(['http://orders/', 'http://stock/']);
    const before = await podNames(cluster);
    const change = await load.during(async () => {
      await cluster.kubectl('label', 'namespace', 'shop', 'istio.io/dataplane-mode=ambient');
      await enrolled(cluster);
    });
    for (const [target, { lost, cut, renewed }] of Object.entries(change))
      assert.deepEqual({ target, lost, cut, renewed }, { target, lost: 0, cut: 0, renewed: 0 });
    assert.deepEqual(await podNames(cluster), before, 'no pod was restarted');
    const outside = await cluster.kubectl('get', 'pod', '-n', 'shop', 'load', '-o', 'yaml');
    assert.match(outside, /warren\.dev\/connections-outside/, 'the pod says that it has connections from before');
    await cluster.kubectl('delete', 'pod', '-n', 'shop', 'load', '--wait');
  });

  await t.test('what they say to each other from now on goes through mutual TLS, with both identities in both logs', async () => {
    // A pod's peers learn of it a moment later than its node agent says so.
    await cluster.eventually('what the frontend says to orders is not in a tunnel, or can be read on the wire', async () => {
      const seen = await onTheWire(cluster.node('node2'), () => answered('frontend', 'http://orders/', '-H', `x-marker:${MARKER}`));
      return hasTunnel(seen) && !hasText(seen, MARKER);
    });
    const identities = [
      'src.identity="spiffe://cluster.local/ns/shop/sa/frontend"',
      'dst.identity="spiffe://cluster.local/ns/shop/sa/orders"',
    ];
    await ztunnelLine(cluster, 'node1', 'direction="outbound"', ...identities);
    await ztunnelLine(cluster, 'node2', 'direction="inbound"', ...identities);
  });

  await t.test('under STRICT, plaintext is refused and the kubelet still gets through', async () => {
    await cluster.apply(STRICT);
    await cluster.eventually('a client outside of the mesh is not refused', async () => {
      return (await cluster.exec('legacy', 'client', 'client', 'http://orders.shop/')).code !== 0;
    });
    await ztunnelLine(cluster, 'node2', 'warren.code="MTLS_REQUIRED"', 'src.namespace="legacy"');
    // A pod that starts now passes its probes under it, or the replacement comes to no end; those that ran before stay ready.
    await cluster.kubectl('rollout', 'restart', '-n', 'shop', 'deploy/orders-v1');
    await cluster.kubectl('rollout', 'status', '-n', 'shop', 'deploy/orders-v1', `--timeout=${ROLLOUT}`);
    await cluster.podsReady('shop', SETTLE_MS);
    await answered('frontend', 'http://orders/');
  });

  await t.test('an AuthorizationPolicy lets in whom it names, and refuses the others by its name', async () => {
    await cluster.apply(ONLY_FRONTEND);
    await cluster.eventually('orders may still call stock', async () => (await call('orders-v1', 'http://stock/')).code !== 0);
    const line = await ztunnelLine(cluster, 'node2', 'direction="inbound"', 'warren.policy="shop/only-frontend"');
    assert.match(line, /src\.identity="spiffe:\/\/cluster\.local\/ns\/shop\/sa\/orders"/);
    assert.match(line, /warren\.code="POLICY_DENIED"/);
    await answered('frontend', 'http://stock/');
  });

  await t.test('meshctl waypoint apply deploys a waypoint, and a route sends nine of ten requests to the old version', async () => {
    await cluster.meshctl('waypoint', 'apply', '-n', 'shop', '--wait');
    await cluster.apply(SPLIT);
    await cluster.kubectl('label', 'service', '-n', 'shop', 'orders', 'istio.io/use-waypoint=waypoint');
    await cluster.eventually('requests to orders do not pass the waypoint', async () => {
      return /x-request-id/i.test((await call('frontend', 'http://orders/')).stdout);
    });
    const requests = 200;
    const answers = await answered('frontend', 'http://orders/', `--count=${requests}`);
    const newer = answers.match(/ServiceVersion=orders-v2/g)?.length ?? 0;
    assert.equal((answers.match(/StatusCode=200/g) ?? []).length, requests);
    // Five standard deviations of 200 requests at 10 %.
    assert.ok(newer > 0 && newer < 0.207 * requests, `${newer} of ${requests} requests went to the new version`);
  });

  await t.test('every command of meshctl that asks works here as in the playground', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'warren-story-'));
    const calling = call('frontend', 'http://orders/', '--count=300', '--qps=10', '--timeout=60s');
    try {
      const caller = (await podNames(cluster)).find((name) => name.includes('frontend'))?.slice('pod/'.length) ?? '';
      await everyCommandWorks(cluster.kubeconfig, { caller, served: 'orders', guarded: 'stock', policy: 'only-frontend', folder });
      assert.equal((await calling).code, 0);
      // They look once a minute whether somebody has changed the rules, which count packets by now.
      const agents = await cluster.kubectl('logs', '-n', 'istio-system', '-l', 'k8s-app=istio-cni-node', '--tail=-1');
      assert.match(agents, /the pod is in the mesh/);
      assert.doesNotMatch(agents, /not as the agent had written them|what it cannot have/);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  // Half of it goes through the waypoint, half from ztunnel to ztunnel.
  const load = await startLoad(['http://orders/', 'http://stock/']);
  const replace = async (namespace: string, what: string): Promise<void> => {
    t.diagnostic(`${what} is replaced`);
    await cluster.kubectl('rollout', 'restart', '-n', namespace, what);
    succeeded(
      'kubectl rollout status',
      await runProgram(
        'kubectl',
        [`--kubeconfig=${cluster.kubeconfig}`, 'rollout', 'status', '-n', namespace, what, `--timeout=${ROLLOUT}`],
        undefined,
        MESHCTL_TIMEOUT_MS,
      ),
    );
    await cluster.podsReady(namespace, SETTLE_MS);
  };
  for (const what of ['deployment/istiod', 'daemonset/istio-cni-node']) {
    await t.test(`replacing ${what} under load loses no request and cuts no connection`, async () => {
      const change = await load.during(() => replace('istio-system', what));
      for (const [target, { lost, cut, renewed }] of Object.entries(change))
        assert.deepEqual({ target, lost, cut, renewed }, { target, lost: 0, cut: 0, renewed: 0 });
    });
  }

  await t.test('replacing the waypoint under load loses no request', async () => {
    const change = await load.during(() => replace('shop', 'deployment/waypoint'));
    for (const [target, { lost }] of Object.entries(change)) assert.deepEqual({ target, lost }, { target, lost: 0 });
    assert.equal(change['stock']?.cut, 0);
  });

  // Connections that stay open longer than the drain are what may be lost of ztunnel's replacement, as they are with Istio's.
  await t.test('meshctl upgrade brings every component to the next version under load, waypoints too, and loses no request', async (t) => {
    const components = ['istiod', 'cni', 'ztunnel', 'waypoint'];
    await tagNext(cluster, ['node1', 'node2'], components);
    const next = nextMeshctl(t);
    const images = async (): Promise<string> => {
      const path = 'jsonpath={range .items[*]}{range .spec.containers[*]}{.image} {end}{end}';
      return await cluster.kubectl('get', 'pods', '-A', '-o', path);
    };
    const change = await load.during(async () => {
      const upgrade = [next, '--kubeconfig', cluster.kubeconfig, 'upgrade'];
      const said = succeeded('meshctl upgrade', await runProgram(process.execPath, upgrade, undefined, MESHCTL_TIMEOUT_MS));
      assert.match(said, new RegExp(`^Warren is upgraded to ${NEXT}, in namespace istio-system\\.$`, 'm'));
      const wanted = components.map((name) => `warren/${name}:${NEXT}`);
      await cluster.eventually(
        'a component is not of the next version',
        async () => {
          const there = (await images()).split(' ').filter((image) => components.some((name) => image.startsWith(`warren/${name}:`)));
          return wanted.every((image) => there.includes(image)) && there.every((image) => wanted.includes(image));
        },
        SETTLE_MS,
      );
      await cluster.podsReady('istio-system', SETTLE_MS);
      await cluster.podsReady('shop', SETTLE_MS);
    });
    for (const [target, { lost }] of Object.entries(change)) assert.deepEqual({ target, lost }, { target, lost: 0 });
  });

  await t.test('replacing the applications under load loses no request, with a preStop pause as without a mesh', async () => {
    const change = await load.during(async () => {
      await replace('shop', 'deployment/orders-v1');
      await replace('shop', 'deployment/stock');
    });
    for (const [target, { lost }] of Object.entries(change)) assert.deepEqual({ target, lost }, { target, lost: 0 });
  });

  await t.test('meshctl uninstall lets running pods go: their traffic goes on in plaintext, and nothing is left with them', async () => {
    const before = await podNames(cluster);
    const change = await load.during(async () => {
      await cluster.meshctl('uninstall', '--skip-confirmation', '--purge-gateways', '--purge-labels', '--purge-crds');
    });
    for (const [target, { lost }] of Object.entries(change)) assert.deepEqual({ target, lost }, { target, lost: 0 });
    await cluster.eventually('what the frontend says to orders cannot be read on the wire', ordersInTheClear);
    await cluster.eventually('the waypoint is still there', async () => {
      return !/waypoint/.test(await cluster.kubectl('get', 'pods', '-n', 'shop', '-o', 'name'));
    });
    assert.deepEqual(await podNames(cluster), before);
    for (const kind of [
      'configmaps',
      'secrets',
      'serviceaccounts',
      'services',
      'gateways.gateway.networking.k8s.io',
      'poddisruptionbudgets',
    ])
      assert.doesNotMatch(await cluster.kubectl('get', kind, '-n', 'shop', '-o', 'name'), /istio|waypoint/);
    const { items } = JSON.parse(await cluster.kubectl('get', 'pods,services', '-n', 'shop', '-o', 'json')) as { items: RawObject[] };
    const words = [...items, JSON.parse(await cluster.kubectl('get', 'namespace', 'shop', '-o', 'json')) as RawObject].flatMap(
      ({ metadata: { name, labels, annotations } }) => Object.keys({ ...labels, ...annotations }).map((key) => `${name}: ${key}`),
    );
    assert.deepEqual(
      words.filter((word) => /istio|warren/.test(word)),
      [],
    );
    for (const node of ['node1', 'node2']) assert.deepEqual(leftOnNode(cluster, node), []);
  });
});

/** Of the applications: which pods there are, to see whether one was replaced. */
const podNames = async (cluster: TestCluster): Promise<string[]> =>
  (await cluster.kubectl('get', 'pods', '-n', 'shop', '-o', 'name'))
    .split('\n')
    .filter((name) => name !== '' && !name.includes('waypoint'))
    .sort();

/** Waits until the agents say of every pod of the shop that it is redirected. */
async function enrolled(cluster: TestCluster): Promise<void> {
  await cluster.eventually('not every pod of the shop is in the mesh', async () => {
    const said = await cluster.kubectl(
      'get',
      'pods',
      '-n',
      'shop',
      '-o',
      'jsonpath={range .items[*]}[{.metadata.annotations.ambient\\.istio\\.io/redirection}]{end}',
    );
    return /^(?:\[enabled\])+$/.test(said);
  });
}

/** Rules, plugins and configuration of a mesh that should be gone, in the node and in its pods' network namespaces. */
function leftOnNode(cluster: TestCluster, node: string): string[] {
  const script = `
    for ns in /run/netns/cni-*; do
      nsenter --net=$ns nft list ruleset
      nsenter --net=$ns ip rule | grep -vE 'lookup (local|main|default)'
    done
    nft list tables | grep -v kube-proxy
    ls /opt/cni/bin | grep istio
    grep -l istio /etc/cni/net.d/*
    true`;
  return cluster
    .node(node)
    .run('sh', '-c', script)
    .split('\n')
    .filter((line) => line !== '');
}
