/** Scenarios of `meshctl playground scenario`: each acts something out on the shop, checks what it says at every step, and takes away what it made. */
import { join } from 'node:path';
import { expect, mustAnswer } from './checks.ts';
import { type Narrator, StepFailed } from './narrator.ts';
import type { Pod, Shop } from './shop.ts';

export interface Scenario {
  readonly about: string;
  run(shop: Shop, narrator: Narrator): Promise<void>;
}

export const scenarios: Readonly<Record<string, Scenario>> = {
  canary: { about: 'a new version gets one request in ten, then half of them, then all', run: canary },
  deny: { about: 'a policy refuses one caller, says so, and is explained before and after', run: deny },
  'kill-ztunnel': {
    about: "a node's ztunnel is killed: nothing passes in the clear meanwhile, and it comes back by itself",
    run: killZtunnel,
  },
  'rotate-root': { about: 'the root of the mesh is replaced, and no request fails', run: rotateRoot },
  'lose-control-plane': { about: 'every istiod is gone: what runs goes on, policies hold, and a new one picks up', run: loseControlPlane },
};

/** The shop, in the mesh; as often as somebody asks. */
export async function openShop(shop: Shop, narrator: Narrator): Promise<void> {
  narrator.chapter('The shop: frontend on node1, orders in two versions and payments on node2, in the mesh');
  await shop.must('apply', '-f', join(import.meta.dirname, '../../playground/scenarios/shop.yaml'));
  await shop.must('label', 'namespace', 'shop', 'istio.io/dataplane-mode=ambient', '--overwrite');
  await narrator.during(
    'all pods are ready, and in the mesh',
    shop.eventually(
      async () => {
        // A waypoint is of the mesh, and not in it.
        const pods = (await shop.pods('shop')).filter(({ name }) => /^(?:frontend|orders|payments|flaky)-/.test(name));
        const ready = await shop.kubectl('wait', '-n', 'shop', '--for=condition=Ready', 'pods', '--all', '--timeout=30s');
        return (
          ready.code === 0 && pods.length > 0 && pods.every(({ annotations }) => annotations['ambient.istio.io/redirection'] === 'enabled')
        );
      },
      () => 'the pods of shop did not come into the mesh',
      60_000,
    ),
  );
  await eventuallyAnswers(shop, 'frontend', 'http://orders/');
}

async function canary(shop: Shop, narrator: Narrator): Promise<void> {
  narrator.chapter('Canary: traffic goes over to the new version step by step');
  narrator.command(
    'meshctl waypoint apply -n shop --name canary --wait; kubectl label service orders -n shop istio.io/use-waypoint=canary',
  );
  const applied = await shop.meshctl('waypoint', 'apply', '-n', 'shop', '--name', 'canary', '--wait');
  expect(applied.code === 0, `meshctl waypoint apply failed: ${applied.stderr}`);
  await shop.must('label', 'service', 'orders', '-n', 'shop', 'istio.io/use-waypoint=canary', '--overwrite');
  try {
    for (const [old, fresh] of [
      [90, 10],
      [50, 50],
      [0, 100],
    ] as const) {
      await shop.apply(`apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: canary, namespace: shop }
spec:
  parentRefs: [{ group: "", kind: Service, name: orders, port: 80 }]
  rules: [{ backendRefs: [{ name: orders-v1, port: 80, weight: ${old} }, { name: orders-v2, port: 80, weight: ${fresh} }] }]
`);
      const wanted = fresh / 100;
      let seen = -1;
      await narrator.during(
        `weights ${old} and ${fresh}`,
        shop.eventually(
          async () => {
            const { stdout } = await shop.call('shop', 'frontend', 'http://orders/', '--count=200');
            const total = [...stdout.matchAll(/Hostname=orders-v\d/g)].length;
            seen = [...stdout.matchAll(/Hostname=orders-v2/g)].length / Math.max(total, 1);
            // Five standard deviations of 200 requests.
            return total === 200 && Math.abs(seen - wanted) <= 5 * Math.sqrt((wanted * (1 - wanted)) / 200);
          },
          () => `v2 had ${seen} of the requests, expected about ${wanted}`,
          30_000,
        ),
      );
      narrator.saw(`v2 answered ${Math.round(seen * 200)} of 200`);
    }
    const config = await shop.meshctl('waypoint-config', 'routes', 'shop/canary');
    narrator.command('meshctl waypoint-config routes shop/canary');
    narrator.saw(config.stdout);
    expect(
      config.code === 0 && config.stdout.includes('orders-v2:80 100%'),
      `the waypoint does not show the route: ${config.stdout}${config.stderr}`,
    );
  } finally {
    await shop.kubectl('label', 'service', 'orders', '-n', 'shop', 'istio.io/use-waypoint-');
    await shop.kubectl('delete', 'httproute', 'canary', '-n', 'shop');
    await shop.meshctl('waypoint', 'delete', '-n', 'shop', 'canary');
  }
  await eventuallyAnswers(shop, 'frontend', 'http://orders/');
}

async function deny(shop: Shop, narrator: Narrator): Promise<void> {
  narrator.chapter('Deny: orders may not call payments');
  await mustAnswer(shop, 'shop', 'orders-v1', 'http://payments/');
  narrator.ok('so far it may');
  const caller = (await shop.pods('shop')).find(({ name }) => name.startsWith('orders-v1-'))?.name ?? '';
  await shop.apply(`apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: deny-orders, namespace: shop }
spec:
  selector: { matchLabels: { app: payments } }
  action: DENY
  rules: [{ from: [{ source: { principals: [cluster.local/ns/shop/sa/orders] } }] }]
`);
  narrator.command('kubectl apply -f - <<< "kind: AuthorizationPolicy deny-orders, DENY principal …/sa/orders"');
  try {
    await narrator.during(
      'orders is refused',
      shop.eventually(
        async () => (await shop.call('shop', 'orders-v1', 'http://payments/')).code !== 0,
        () => 'orders still reaches payments',
      ),
    );
    narrator.saw(await shop.accessLog('node2', ['POLICY_DENIED', 'deny-orders']));
    const explained = await shop.meshctl('explain', `shop/${caller}`, 'payments');
    narrator.command(`meshctl explain shop/${caller} payments`);
    narrator.saw(explained.stdout);
    expect(
      explained.stdout.includes('by policy shop/deny-orders'),
      `explain does not name the policy: ${explained.stdout}${explained.stderr}`,
    );
    narrator.ok('log and explain name the policy');
    await mustAnswer(shop, 'shop', 'frontend', 'http://payments/');
    narrator.ok('the frontend is served');
  } finally {
    await shop.kubectl('delete', 'authorizationpolicy', 'deny-orders', '-n', 'shop');
  }
  await narrator.during('without the policy orders may call again', eventuallyAnswers(shop, 'orders-v1', 'http://payments/'));
}

async function killZtunnel(shop: Shop, narrator: Narrator): Promise<void> {
  narrator.chapter("Kill a ztunnel: node1's, where the frontend is");
  const before = await ztunnelOf(shop, 'node1');
  narrator.command(`kubectl delete pod -n istio-system ${before.name} --force --grace-period=0`);
  await shop.must('delete', 'pod', '-n', 'istio-system', before.name, '--force', '--grace-period=0');
  const outcomes: boolean[] = [];
  await narrator.during(
    'another one takes its place, and the frontend is served again',
    shop.eventually(
      async () => {
        outcomes.push((await shop.call('shop', 'frontend', 'http://orders/')).stdout.includes('StatusCode=200'));
        return outcomes.at(-1) === true && (await ztunnelOf(shop, 'node1')).uid !== before.uid;
      },
      () => 'the frontend is not served',
      60_000,
    ),
  );
  narrator.saw(`${outcomes.filter((served) => !served).length} of ${outcomes.length} calls failed meanwhile`);
  const line = await shop.accessLog('node1', ['outbound', 'spiffe://cluster.local/ns/shop/sa/frontend', ':15008']);
  narrator.saw(line);
  narrator.ok('the new one tunnels; a pod whose ztunnel is away has no network, so nothing left in the clear');
}

/** Whoever has no certificate that is trusted has no way in. */
const STRICT = `apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: rotate-root, namespace: shop }
spec: { mtls: { mode: STRICT } }
`;

async function rotateRoot(shop: Shop, narrator: Narrator): Promise<void> {
  narrator.chapter('Rotate the root, under load; certificates live for seconds here, so that the steps are as far apart, and not a day');
  // ztunnel first: a certificate for a day would keep the old root trusted for a day.
  const patience = [
    ['ds/ztunnel', 'SECRET_TTL', '24s'],
    ['deploy/istiod', 'WARREN_CA_ROTATION_WAIT', '28s'],
  ] as const;
  const roots = async (): Promise<string> =>
    shop.must('get', 'configmap', '-n', 'shop', 'istio-ca-root-cert', '-o', 'jsonpath={.data.root-cert\\.pem}');
  const count = (pem: string): number => pem.split('BEGIN CERTIFICATE').length - 1;
  let over = false;
  let load: Promise<Calls> = Promise.resolve({ served: 0, failed: '' });
  try {
    for (const [workload, name, value] of patience) {
      narrator.command(`kubectl set env -n istio-system ${workload} ${name}=${value}`);
      await shop.must('set', 'env', '-n', 'istio-system', workload, `${name}=${value}`);
      await shop.must('rollout', 'status', '-n', 'istio-system', workload, '--timeout=50s');
    }
    await shop.apply(STRICT);
    const before = await roots();
    await narrator.during(
      'nothing stands in the way of a rotation',
      shop.eventually(
        async () => (await shop.meshctl('ca', 'rotate', '--rehearse')).code === 0,
        () => 'the mesh does not become ready for a rotation',
        60_000,
      ),
    );
    await eventuallyAnswers(shop, 'frontend', 'http://orders/');
    load = callsUntil(shop, () => over);
    narrator.command('meshctl ca rotate');
    const rotated = await shop.meshctl('ca', 'rotate');
    narrator.saw(rotated.stdout + rotated.stderr);
    expect(rotated.code === 0, `meshctl ca rotate failed: ${rotated.stderr}`);
    // Asking twice before istiod has looked is asking once.
    await shop.eventually(
      async () => (await shop.meshctl('ca', 'rotate')).stderr.includes('a rotation is under way'),
      () => 'a second rotation is begun',
      10_000,
    );
    await narrator.during(
      'every namespace trusts two roots, the new one beside the old',
      shop.eventually(
        async () => count(await roots()) === 2,
        () => 'the new root is not handed out',
        120_000,
      ),
    );
    await narrator.during(
      'the new root signs; both are trusted',
      shop.eventually(
        async () => /^rotation +switched/m.test((await shop.meshctl('ca', 'status')).stdout),
        () => 'the old root signs still',
        120_000,
      ),
    );
    await shop.must('rollout', 'restart', '-n', 'shop', 'deploy/payments');
    await shop.must('rollout', 'status', '-n', 'shop', 'deploy/payments', '--timeout=50s');
    await eventuallyAnswers(shop, 'payments', 'http://orders/');
    await eventuallyAnswers(shop, 'orders-v1', 'http://payments/');
    narrator.ok('a pod that starts now has a certificate of the new root: it reaches those that have one of the old, and they reach it');
    await narrator.during(
      'the old root is trusted no more',
      shop.eventually(
        async () => count(await roots()) === 1 && (await roots()) !== before,
        () => 'the old root is trusted still',
        120_000,
      ),
    );
    narrator.command('meshctl ca status');
    narrator.saw((await shop.meshctl('ca', 'status')).stdout);
  } finally {
    over = true;
    await load;
    await shop.kubectl('delete', 'peerauthentication', 'rotate-root', '-n', 'shop');
    // Whoever goes on with this playground goes on with certificates for a day.
    for (const [workload, name] of patience) await shop.kubectl('set', 'env', '-n', 'istio-system', workload, `${name}-`);
  }
  const { served, failed } = await load;
  expect(failed === '' && served > 0, `a request failed while the root was replaced: ${failed}`);
  narrator.ok(`${served} requests meanwhile, none failed`);
}

async function loseControlPlane(shop: Shop, narrator: Narrator): Promise<void> {
  narrator.chapter('Lose the control plane: all replicas of istiod');
  const replicas = (await shop.must('get', 'deployment', 'istiod', '-n', 'istio-system', '-o', 'jsonpath={.spec.replicas}')).trim();
  narrator.command('kubectl scale deployment istiod -n istio-system --replicas=0');
  await shop.must('scale', 'deployment', 'istiod', '-n', 'istio-system', '--replicas=0');
  try {
    await narrator.during(
      'no istiod is left',
      shop.eventually(
        async () => (await istiods(shop)).length === 0,
        () => 'istiod is still there',
        60_000,
      ),
    );
    await mustAnswer(shop, 'shop', 'frontend', 'http://orders/');
    narrator.ok('the frontend is served');
    const ztunnel = await ztunnelOf(shop, 'node1');
    narrator.command(`kubectl delete pod -n istio-system ${ztunnel.name} --force --grace-period=0`);
    await shop.must('delete', 'pod', '-n', 'istio-system', ztunnel.name, '--force', '--grace-period=0');
    await narrator.during(
      'even a ztunnel that starts now serves, from what the one before it knew',
      shop.eventually(
        async () =>
          (await ztunnelOf(shop, 'node1')).uid !== ztunnel.uid && (await shop.call('shop', 'frontend', 'http://orders/')).code === 0,
        () => 'a ztunnel that starts without a control plane serves nobody',
        60_000,
      ),
    );
  } finally {
    await shop.must('scale', 'deployment', 'istiod', '-n', 'istio-system', `--replicas=${replicas}`);
  }
  await narrator.during(
    'istiod is back, and every proxy has taken it up again',
    shop.eventually(
      async () => (await shop.meshctl('status')).code === 0,
      () => 'meshctl status does not become healthy',
      90_000,
    ),
  );
}

interface Calls {
  readonly served: number;
  /** What the first that failed says. */
  readonly failed: string;
}

/** Ten requests a second, each on a connection of its own. */
async function callsUntil(shop: Shop, over: () => boolean): Promise<Calls> {
  let served = 0;
  let failed = '';
  while (!over()) {
    const { stdout, stderr } = await shop.call('shop', 'frontend', 'http://orders/', '--count=50', '--qps=10', '--timeout=30s');
    served += stdout.match(/StatusCode=200/g)?.length ?? 0;
    failed ||= stderr;
  }
  return { served, failed };
}

async function istiods(shop: Shop): Promise<Pod[]> {
  return (await shop.pods('istio-system')).filter(({ name }) => name.startsWith('istiod-'));
}

/** @throws {StepFailed} where there is none */
async function ztunnelOf(shop: Shop, node: string): Promise<Pod> {
  let found: Pod | undefined;
  await shop.eventually(
    async () => {
      found = (await shop.pods('istio-system')).find(({ name, node: on }) => on === node && name.startsWith('ztunnel-'));
      return found !== undefined;
    },
    () => `no ztunnel on ${node}`,
  );
  if (!found) throw new StepFailed(`no ztunnel on ${node}`);
  return found;
}

async function eventuallyAnswers(shop: Shop, deployment: string, url: string): Promise<void> {
  await shop.eventually(
    async () => (await shop.call('shop', deployment, url)).stdout.includes('StatusCode=200'),
    () => `shop/${deployment} does not reach ${url}`,
    30_000,
  );
}
