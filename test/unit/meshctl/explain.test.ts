import assert from 'node:assert/strict';
import { test } from 'node:test';
import picocolors from 'picocolors';
import { type ArrivingCall, explain, overall, type Proxies } from '../../../meshctl/explain/explanation.ts';
import { render } from '../../../meshctl/explain/render.ts';

const seen = (name: string, node: string) => ({
  uid: name,
  namespace: 'shop',
  name,
  node,
  identity: `spiffe://cluster.local/ns/shop/sa/${name}`,
});
const call = { namespace: 'shop', pod: 'client', host: 'orders', port: 80 };
const from = { node: 'node1', ip: '10.0.0.9' };
const tunnelTo = (name: string, ip: string) => ({
  via: 'hbone' as const,
  share: 0.5,
  to: `${ip}:15008`,
  authority: `${ip}:8080`,
  peers: [`spiffe://cluster.local/ns/shop/sa/${name}`],
  waypoint: false,
  pod: seen(name, 'node2'),
});

function proxies(routes: Awaited<ReturnType<Proxies['outbound']>>['routes'], refusedBy: Record<string, string>, captured = true) {
  const asked: (ArrivingCall & { node: string })[] = [];
  const of: Proxies = {
    outbound: async () => ({ source: seen('client', 'node1'), steps: [{ stage: 'name', text: 'orders is known' }], routes, captured }),
    inbound: async (node, arriving) => {
      asked.push({ ...arriving, node });
      const policy = refusedBy[arriving.pod];
      const verdict =
        policy === undefined
          ? { allowed: true, reason: 'no allow policies' }
          : { allowed: false, code: 'POLICY_DENIED', policy, reason: `denied by ${policy}` };
      return { steps: [], policies: [], to: arriving.authority, ...verdict, captured: true };
    },
  };
  return { of, asked };
}

test('the destination is asked with the identity that the tunnel proves, and without one where there is no tunnel', async () => {
  const { of, asked } = proxies([tunnelTo('a', '10.0.0.1')], {});
  await explain(call, from, of);
  assert.deepEqual(asked, [
    {
      node: 'node2',
      namespace: 'shop',
      pod: 'a',
      destination: '10.0.0.1:15008',
      authority: '10.0.0.1:8080',
      source: '10.0.0.9:40000',
      identity: 'spiffe://cluster.local/ns/shop/sa/client',
    },
  ]);
  const plain = proxies([{ via: 'tcp', share: 1, to: '10.0.0.1:8080', pod: seen('a', 'node2') }], {}, false);
  await explain(call, { ...from, ip: 'fd00::9' }, plain.of);
  assert.deepEqual([plain.asked[0]?.identity, plain.asked[0]?.source], ['', '[fd00::9]:40000']);
});

test('each way has a verdict, and together they say whether it depends', async () => {
  const both = [tunnelTo('a', '10.0.0.1'), tunnelTo('b', '10.0.0.2')];
  const verdict = async (refusedBy: Record<string, string>) => overall(await explain(call, from, proxies(both, refusedBy).of));
  assert.equal(await verdict({}), 'delivered');
  assert.equal(await verdict({ a: 'shop/p', b: 'shop/p' }), 'refused');
  assert.equal(await verdict({ a: 'shop/p' }), 'depends');
  const absent = proxies([{ via: 'refuse', share: 1, code: 'WAYPOINT_ABSENT', message: 'not there' }], {});
  assert.deepEqual((await explain(call, from, absent.of)).ways[0]?.verdict, {
    outcome: 'refused',
    code: 'WAYPOINT_ABSENT',
    reason: 'not there',
  });
  assert.deepEqual(absent.asked, []);
});

test('what is printed names the ways, the pods and what decided', async () => {
  const explanation = await explain(call, from, proxies([tunnelTo('a', '10.0.0.1'), tunnelTo('b', '10.0.0.2')], { a: 'shop/p' }).of);
  assert.equal(
    render(explanation, picocolors.createColors(false)),
    `shop/client to orders:80

at shop/client on node1
  orders is known

50% of connections: a tunnel to shop/a (10.0.0.1:15008)
  the other end must prove spiffe://cluster.local/ns/shop/sa/a
at shop/a on node2
  refused POLICY_DENIED, by policy shop/p: denied by shop/p

50% of connections: a tunnel to shop/b (10.0.0.2:15008)
  the other end must prove spiffe://cluster.local/ns/shop/sa/b
at shop/b on node2
  no policy applies
  delivered to 10.0.0.2:8080: no allow policies

it depends on the way that it takes`,
  );
});
