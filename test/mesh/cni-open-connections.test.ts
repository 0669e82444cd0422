/** What happens to connections that were open before their pod was enrolled, with real sockets and the real agent. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { listTcpSockets, TCP_STATE } from '../../common/linux/tcp-diag.ts';
import { PODS, startAgentWorld } from '../support/agent-world.ts';
import { joinNetns, makeNetns, type TestNetns, withoutNamespaces } from '../support/netns.ts';
import { startApp, startToyZtunnel, ToyClient } from '../support/toy-ztunnel.ts';
import { until } from '../support/until.ts';

const options = { skip: withoutNamespaces ?? false, timeout: 120_000 };
const OUTSIDE = 'warren.dev/connections-outside';
const PEER_AUTHENTICATIONS = '/apis/security.istio.io/v1/peerauthentications';
const AUTHORIZATION_POLICIES = '/apis/security.istio.io/v1/authorizationpolicies';

test('they are counted on the pod and in the metric, go on, and are cut with a code once STRICT applies', options, async (t) => {
  const world = await startWorld(t, { WARREN_OPEN_CONNECTIONS_DEADLINE: '300ms' });
  const before = await world.connect();
  await world.enrol();
  await world.until(async () => world.outside() === '4');
  assert.match((await world.fetch('monitoring', '/metrics')).body, /^warren_cni_connections_outside 4$/m);
  assert.ok(world.events().some((message) => message.includes('were open before the pod joined the mesh are not in it')));

  const inside = await world.connect();
  assert.equal(world.ztunnel.seen.length, 4, 'new ones are in the mesh');
  for (const client of [...before, ...inside]) await client.say('still here');
  before[0]?.end();
  await world.until(async () => world.outside() === '3');

  world.kube.put(PEER_AUTHENTICATIONS, { metadata: { namespace: 'shop', name: 'default' }, spec: { mtls: { mode: 'STRICT' } } });
  for (const client of before.slice(1)) await assert.rejects(untilCut(client), /cut/);
  await world.until(async () => world.outside() === undefined);
  for (const client of inside) await client.say('still here');
  const metrics = (await world.fetch('monitoring', '/metrics')).body;
  assert.match(metrics, /^warren_cni_connections_cut_total\{code="PREDATES_MESH",reason="strict"\} 3$/m);
  assert.match(metrics, /^warren_cni_connections_outside 0$/m);
});

test('an agent that is restarted finds the same connections again, and none of those that the mesh carries', options, async (t) => {
  const world = await startWorld(t);
  const before = await world.connect();
  await world.enrol();
  const inside = await world.connect();
  await world.until(async () => world.outside() === '4');
  world.kube.put('/apis/apps/v1/daemonsets', { metadata: { namespace: 'istio-system', name: 'istio-cni-node' } });
  await world.stop();
  await world.start();
  await world.until(async () => /^warren_cni_connections_outside 4$/m.test((await world.fetch('monitoring', '/metrics')).body));
  for (const client of [...before, ...inside]) await client.say('still here');
});

test("the namespace's annotation cuts them at once, the pod's own keeps them whatever applies", options, async (t) => {
  const world = await startWorld(t, { WARREN_OPEN_CONNECTIONS_DEADLINE: '100ms' });
  world.kube.put(AUTHORIZATION_POLICIES, { metadata: { namespace: 'shop', name: 'nobody' }, spec: {} });
  const before = await world.connect();
  world.annotate({ 'warren.dev/open-connections': 'keep' });
  await world.enrol({ 'warren.dev/open-connections': 'cut' });
  await world.until(async () => (world.problem() ?? '').includes('AuthorizationPolicy shop/nobody does not reach connections'));
  for (const client of before) await client.say('still here');
  world.annotate({ 'warren.dev/open-connections': undefined });
  for (const client of before) await assert.rejects(untilCut(client), /cut/);
  await world.until(async () => world.problem() === undefined && world.outside() === undefined);
});

test('the sockets of a namespace are listed with marks and both families, and only there', options, async (t) => {
  const [pod, peer] = [makeNetns(t), makeNetns(t)];
  const { b } = joinNetns(pod, peer, 1);
  startApp(t, peer.netns, 8080);
  await ToyClient.open(t, pod.netns, b.v4, 8080);
  await ToyClient.open(t, pod.netns, b.v6, 8080);
  const listed = (ns: TestNetns): string[] =>
    ns.netns.run(() => listTcpSockets([TCP_STATE.established])).map(({ family, remote }) => `${family} ${remote.ip}:${remote.port}`);
  assert.deepEqual(listed(pod).sort(), [`4 ${b.v4}:8080`, `6 ${b.v6}:8080`]);
  assert.equal(listed(peer).length, 2);
  assert.deepEqual(listed(makeNetns(t)), []);
});

async function startWorld(t: TestContext, env: Record<string, string> = {}) {
  const world = await startAgentWorld(t, env);
  const [pod, peer] = [makeNetns(t), makeNetns(t)];
  const at = joinNetns(pod, peer, 1);
  world.pod('shop', 'orders', { ns: pod, address: at.a.v4 });
  for (const { netns } of [pod, peer]) startApp(t, netns, 8080);
  await world.start();
  world.ztunnel();
  const ztunnel = startToyZtunnel(t, pod.netns);
  const annotations = (): Record<string, string> => world.kube.get(PODS, 'shop/orders')?.metadata.annotations ?? {};
  return Object.assign(world, {
    ztunnel,
    until,
    outside: () => annotations()[OUTSIDE],
    problem: () => annotations()['warren.dev/enrolment-problem'],
    /** Two on each family, one in each direction. */
    async connect(): Promise<ToyClient[]> {
      const clients: ToyClient[] = [];
      for (const family of ['v4', 'v6'] as const) {
        clients.push(await ToyClient.open(t, pod.netns, at.b[family], 8080));
        clients.push(await ToyClient.open(t, peer.netns, at.a[family], 8080));
      }
      return clients;
    },
    async enrol(namespaceAnnotations: Record<string, string> = {}): Promise<void> {
      world.kube.put('/api/v1/namespaces', {
        metadata: { name: 'shop', labels: { 'istio.io/dataplane-mode': 'ambient' }, annotations: namespaceAnnotations },
      });
      await until(async () => world.annotation('shop/orders') === 'enabled');
    },
    annotate(changes: Record<string, string | undefined>): void {
      const existing = world.kube.get(PODS, 'shop/orders');
      assert.ok(existing);
      const merged = Object.entries({ ...existing.metadata.annotations, ...changes }).filter(
        (entry): entry is [string, string] => entry[1] !== undefined,
      );
      world.kube.put(PODS, { ...existing, metadata: { ...existing.metadata, annotations: Object.fromEntries(merged) } });
    },
  });
}

/** Talks on until the connection is no more. */
async function untilCut(client: ToyClient): Promise<void> {
  for (;;) {
    await client.say('are you there?');
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
