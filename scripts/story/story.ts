/** The steps of the story. Each does one thing, shows what it saw, and fails where that is not what the mesh promises. */
import { join } from 'node:path';
import { expect, mustAnswer } from './checks.ts';
import { type Narrator, StepFailed } from './narrator.ts';
import type { Pod, Shop } from './shop.ts';
import { waypointStory } from './waypoint.ts';

const SECRET = 'my-credit-card-number';
const PATH = `/order?card=${SECRET}`;
const FRONTEND = 'spiffe://cluster.local/ns/shop/sa/frontend';
const ORDERS = 'spiffe://cluster.local/ns/shop/sa/orders';

export async function story(shop: Shop, narrator: Narrator): Promise<void> {
  await openTheShop(shop, narrator);
  const before = await shop.pods('shop');
  await inTheClear(shop, narrator);
  await label(shop, narrator, before);
  await mutualTls(shop, narrator);
  await strict(shop, narrator);
  await policy(shop, narrator);
  await shop.must('delete', 'peerauthentication,authorizationpolicy', '--all', '-n', 'shop');
  await waypointStory(shop, narrator);
  await labelOff(shop, narrator, before);
}

async function openTheShop(shop: Shop, narrator: Narrator): Promise<void> {
  narrator.chapter('A shop: frontend on node1; orders (two versions) and payments on node2; a client in another namespace');
  const manifest = join(import.meta.dirname, '../../playground/scenarios/shop.yaml');
  narrator.command('kubectl apply -f playground/scenarios/shop.yaml');
  await shop.must('apply', '-f', manifest);
  await narrator.during(
    'all pods ready',
    Promise.all(
      ['shop', 'legacy', 'wire'].map((namespace) =>
        shop.must('wait', '-n', namespace, '--for=condition=Ready', 'pods', '--all', '--timeout=30s'),
      ),
    ),
  );
  narrator.saw(await shop.must('get', 'pods', '-n', 'shop', '-o', 'wide'));
}

async function inTheClear(shop: Shop, narrator: Narrator): Promise<void> {
  narrator.chapter('Before: frontend orders something, and the wire between the nodes carries it in the clear');
  narrator.command(`kubectl exec -n wire tap -- tcpdump -i eth0 -n -A tcp port 8080`);
  const wire = await shop.wire('tcp port 8080', () => mustAnswer(shop, 'shop', 'frontend', `http://orders${PATH}`));
  expect(wire.includes(SECRET), 'the request was not seen on the wire before the mesh: the capture does not look where it should');
  narrator.saw(
    wire
      .split('\n')
      .filter((line) => line.includes('GET '))[0]
      ?.replace(/^.*GET/, 'GET') ?? '',
  );
  narrator.ok('anybody on the wire reads the card number');
}

async function label(shop: Shop, narrator: Narrator, before: readonly Pod[]): Promise<void> {
  narrator.chapter('One label puts the namespace into the mesh');
  narrator.command('kubectl label namespace shop istio.io/dataplane-mode=ambient');
  await shop.must('label', 'namespace', 'shop', 'istio.io/dataplane-mode=ambient');
  await narrator.during('every pod of shop is enrolled', waitForEnrolment(shop, true));
  await untilCarried(shop);
  const after = await shop.pods('shop');
  const same = (pods: readonly Pod[]): string => JSON.stringify(pods.map(({ uid, restarts }) => [uid, restarts]).sort());
  expect(same(after) === same(before), 'a pod was restarted or replaced');
  narrator.ok('no pod was restarted or replaced');
}

async function mutualTls(shop: Shop, narrator: Narrator): Promise<void> {
  narrator.chapter('After: the same request, and only TLS on the wire');
  narrator.command('kubectl exec -n wire tap -- tcpdump -i eth0 -n -A tcp portrange 1-65535 and not port 6443');
  const orders = (await shop.pods('shop')).filter(({ name }) => name.startsWith('orders-'));
  const hosts = orders.map(({ ip }) => `host ${ip}`).join(' or ');
  const wire = await shop.wire(`tcp and ( ${hosts} ) and not src host 172.30.0.12 and not dst host 172.30.0.12`, () =>
    mustAnswer(shop, 'shop', 'frontend', `http://orders${PATH}`),
  );
  expect(!wire.includes(SECRET) && !wire.includes('GET '), 'the request was seen in the clear although both pods are in the mesh');
  expect(/\.15008[: >]/.test(wire), 'nothing was seen on port 15008');
  narrator.saw(wire.split('\n').find((line) => /\.15008[: >]/.test(line)) ?? '');
  narrator.ok('the wire shows port 15008 and nothing that can be read');

  const line = await shop.accessLog('node2', [FRONTEND, ORDERS, 'inbound']);
  narrator.command('kubectl logs -n istio-system -l app=ztunnel');
  narrator.saw(line);
  narrator.ok(`the access log knows who called: ${FRONTEND}`);

  const ztunnel = (await shop.pods('istio-system')).find(({ name, node }) => node === 'node2' && name.startsWith('ztunnel-'));
  if (!ztunnel) throw new StepFailed('no ztunnel on node2');
  const wanted = [
    'istio_tcp_connections_opened_total',
    'reporter="destination"',
    `source_principal="${FRONTEND}"`,
    'connection_security_policy="mutual_tls"',
  ];
  const counted = (await shop.metrics(ztunnel, 15020)).split('\n').find((text) => wanted.every((part) => text.includes(part)));
  expect(counted !== undefined, `no counter with ${wanted.join(', ')}`);
  narrator.command(`kubectl get --raw /api/v1/namespaces/istio-system/pods/${ztunnel.name}:15020/proxy/metrics`);
  narrator.saw(`${(counted ?? '').slice(0, 200)} …`);

  const greeting = await shop.call('shop', 'frontend', 'tcp://orders:9091');
  expect(greeting.code === 0, `a protocol in which the server speaks first does not work: ${greeting.stderr}`);
  narrator.ok('a server that speaks first is heard, too');

  const status = await shop.meshctl('status');
  narrator.command('scripts/meshctl status');
  narrator.saw(status.stdout);
  expect(status.code === 0, 'meshctl status says that the mesh is degraded');
}

async function strict(shop: Shop, narrator: Narrator): Promise<void> {
  narrator.chapter('STRICT: the client outside the mesh is refused, the frontend is not');
  await mustAnswer(shop, 'legacy', 'client', 'http://orders.shop/');
  narrator.ok('so far the client outside may still come in plaintext');
  const manifest = `apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: default, namespace: shop }
spec: { mtls: { mode: STRICT } }
`;
  narrator.command('kubectl apply -f - <<< "kind: PeerAuthentication, namespace shop, mtls.mode STRICT"');
  await shop.apply(manifest);
  await narrator.during('the client outside is refused', mustBeRefused(shop, 'legacy', 'client', 'http://orders.shop/'));
  narrator.saw(await shop.accessLog('node2', ['MTLS_REQUIRED', 'inbound']));
  await mustAnswer(shop, 'shop', 'frontend', 'http://orders/');
  narrator.ok('the frontend is still served');
}

async function policy(shop: Shop, narrator: Narrator): Promise<void> {
  narrator.chapter('An AuthorizationPolicy: frontend and nobody else reaches payments');
  await mustAnswer(shop, 'shop', 'orders-v1', 'http://payments/');
  narrator.ok('so far orders may call payments');
  await shop.apply(`apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: payments-for-frontend, namespace: shop }
spec:
  selector: { matchLabels: { app: payments } }
  action: ALLOW
  rules:
    - from: [{ source: { principals: [cluster.local/ns/shop/sa/frontend] } }]
`);
  narrator.command('kubectl apply -f - <<< "kind: AuthorizationPolicy, selector app=payments, ALLOW principal …/sa/frontend"');
  await narrator.during('orders is refused', mustBeRefused(shop, 'shop', 'orders-v1', 'http://payments/'));
  const line = await shop.accessLog('node2', [ORDERS, 'POLICY_DENIED', 'payments-for-frontend']);
  narrator.saw(line);
  narrator.ok('the refusal names the policy: shop/payments-for-frontend');
  const caller = (await shop.pods('shop')).find(({ name }) => name.startsWith('orders-v1-'))?.name ?? '';
  const explained = await shop.meshctl('explain', `shop/${caller}`, 'payments');
  narrator.command(`scripts/meshctl explain shop/${caller} payments`);
  narrator.saw(explained.stdout.trimEnd());
  expect(
    explained.code === 1 && explained.stdout.includes('refused POLICY_DENIED, by policy shop/payments-for-frontend'),
    `meshctl explain does not say so: ${explained.stdout}${explained.stderr}`,
  );
  narrator.ok('and meshctl explain says it ahead, rule by rule');
  await mustAnswer(shop, 'shop', 'frontend', 'http://payments/');
  narrator.ok('the frontend is served');
}

async function labelOff(shop: Shop, narrator: Narrator, before: readonly Pod[]): Promise<void> {
  narrator.chapter('The label goes, and so does the mesh');
  narrator.command('kubectl label namespace shop istio.io/dataplane-mode-');
  await shop.must('label', 'namespace', 'shop', 'istio.io/dataplane-mode-');
  await narrator.during('every pod of shop is out of the mesh', waitForEnrolment(shop, false));
  const wire = await shop.wire('tcp port 8080', () => mustAnswer(shop, 'shop', 'frontend', `http://orders${PATH}`));
  expect(wire.includes(SECRET), 'the request is not in the clear again');
  narrator.ok('plaintext again');
  const after = await shop.pods('shop');
  expect(
    after.every(({ uid, restarts }) => before.some((pod) => pod.uid === uid && pod.restarts === restarts)),
    'a pod was restarted or replaced',
  );
  narrator.ok('and still no pod was restarted');
}

async function waitForEnrolment(shop: Shop, enrolled: boolean): Promise<void> {
  let states = '';
  await shop.eventually(
    async () => {
      const pods = await shop.pods('shop');
      states = pods.map(({ name, annotations }) => `${name}: ${annotations['ambient.istio.io/redirection'] ?? 'absent'}`).join(', ');
      return pods.every(({ annotations }) => (annotations['ambient.istio.io/redirection'] === 'enabled') === enrolled);
    },
    () => `pods are not ${enrolled ? 'enrolled' : 'released'}: ${states}`,
  );
}

/** Every ztunnel has heard of every enrolled pod: only then is a call between two of them sure to go through the tunnel. */
async function untilCarried(shop: Shop): Promise<void> {
  await shop.eventually(
    async () => {
      await mustAnswer(shop, 'shop', 'frontend', 'http://orders/');
      const line = await shop.accessLog('node1', ['outbound', 'orders', FRONTEND]).catch(() => '');
      return line.includes('15008');
    },
    () => 'calls between enrolled pods do not go through the tunnel',
  );
}

async function mustBeRefused(shop: Shop, namespace: string, deployment: string, url: string): Promise<void> {
  await shop.eventually(
    async () => (await shop.call(namespace, deployment, url)).code !== 0,
    () => `${namespace}/${deployment} still reaches ${url}`,
  );
}
