import assert from 'node:assert/strict';
import { test } from 'node:test';
import picocolors from 'picocolors';
import type { RequestExplanation } from '../../../common/decision/explain-http.ts';
import { readCandidate } from '../../../istiod-lite/rehearsal/candidate.ts';
import { type ArrivingCall, decisionsOf, explain, overall, type Proxies } from '../../../meshctl/explain/explanation.ts';
import { render } from '../../../meshctl/explain/render.ts';

const seen = (name: string, node: string) => ({
  uid: name,
  namespace: 'shop',
  name,
  node,
  identity: `spiffe://cluster.local/ns/shop/sa/${name}`,
});
const request = { method: 'GET', path: '/', headers: ['x-a: b'] };
const call = { namespace: 'shop', pod: 'client', host: 'orders', port: 80, request };
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

let requestAnswer: RequestExplanation = { steps: [], policies: [], allowed: true, reason: '', routes: [] };

function proxies(routes: Awaited<ReturnType<Proxies['outbound']>>['routes'], refusedBy: Record<string, string>, captured = true) {
  const asked: (ArrivingCall & { node: string })[] = [];
  const of: Proxies = {
    outbound: async () => ({ source: seen('client', 'node1'), steps: [{ stage: 'name', text: 'orders is known' }], routes, captured }),
    request: async (waypoint, made) => {
      asked.push({ ...made, node: waypoint.node, namespace: waypoint.namespace, pod: waypoint.name, destination: '' });
      return requestAnswer;
    },
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

test('a waypoint on the way is asked about the request, and from there on it is the caller', async () => {
  const viaWaypoint = { ...tunnelTo('wp', '10.0.0.7'), waypoint: true, authority: '10.96.0.1:80' };
  requestAnswer = {
    steps: [{ stage: 'route', text: 'it takes the rule r' }],
    policies: [{ policy: 'shop/read', action: 'ALLOW', dryRun: false, matched: true, unmet: [] }],
    allowed: true,
    reason: 'explicitly allowed by: shop/read',
    rule: 'r',
    routes: [
      { ...tunnelTo('a', '10.0.0.1'), share: 0.9 },
      { ...tunnelTo('b', '10.0.0.2'), share: 0.1 },
    ],
  };
  const { of, asked } = proxies([viaWaypoint], { b: 'shop/not-b' });
  const explanation = await explain(call, from, of);
  const [atWaypoint, ...atPods] = asked;
  assert.partialDeepStrictEqual(atWaypoint, {
    ...request,
    authority: '10.96.0.1:80',
    identity: 'spiffe://cluster.local/ns/shop/sa/client',
    host: 'orders',
  });
  assert.deepEqual(
    atPods.map(({ pod, identity, source }) => [pod, identity, source]),
    [
      ['a', 'spiffe://cluster.local/ns/shop/sa/wp', '10.0.0.7:40000'],
      ['b', 'spiffe://cluster.local/ns/shop/sa/wp', '10.0.0.7:40000'],
    ],
  );
  assert.equal(explanation.ways[0]?.verdict.outcome, 'unknown');
  const text = render(explanation, picocolors.createColors(false));
  assert.match(text, /at waypoint shop\/wp on node2\n {2}it takes the rule r\n {2}ALLOW shop\/read: a rule matches/);
  assert.match(text, /10% of connections: a tunnel to shop\/b/);
});

test('what the waypoint refuses goes no further', async () => {
  requestAnswer = {
    steps: [],
    policies: [],
    allowed: false,
    code: 'POLICY_DENIED',
    policy: 'shop/p',
    reason: 'explicitly denied by: shop/p',
    routes: [],
  };
  const { of, asked } = proxies([{ ...tunnelTo('wp', '10.0.0.7'), waypoint: true }], {});
  const { ways } = await explain(call, from, of);
  assert.deepEqual(ways[0]?.verdict, {
    outcome: 'refused',
    code: 'POLICY_DENIED',
    policy: 'shop/p',
    reason: 'explicitly denied by: shop/p',
  });
  assert.equal(asked.length, 1);
});

test('the decisions on the way are what a rehearsal takes: at the waypoint with the whole request, at the pod with whoever comes there', async () => {
  requestAnswer = { steps: [], policies: [], allowed: true, reason: '', routes: [tunnelTo('orders-1', '10.0.0.1')] };
  const service = 'shop/orders.shop.svc.cluster.local';
  const { of } = proxies([{ ...tunnelTo('wp-1', '10.0.0.5'), waypoint: true, authority: '10.96.0.1:80', service }], {});
  const decisions = decisionsOf(await explain({ ...call, request: { ...request, path: '/a/b?page=2' } }, from, of), from.ip);
  const candidate = readCandidate({ apply: [{ kind: 'Namespace', metadata: { name: 'shop' } }], asked: decisions }, undefined);
  assert.deepEqual(
    candidate.asked?.map(({ proxy, decision: { at, sourceIp, identity, service: to, uid, ip, port } }) => [
      proxy,
      at,
      sourceIp,
      identity,
      to,
      uid,
      ip,
      port,
    ]),
    [
      ['wp-1.shop', 'request', '10.0.0.9', 'spiffe://cluster.local/ns/shop/sa/client', service, '', '10.96.0.1', 80],
      ['', 'inbound', '10.0.0.5', 'spiffe://cluster.local/ns/shop/sa/wp-1', '', 'orders-1', '10.0.0.1', 8080],
    ],
  );
  assert.deepEqual(candidate.asked?.[0]?.decision.request, {
    complete: true,
    method: 'GET',
    host: 'orders',
    path: '/a/b',
    headers: { 'x-a': 'b' },
    query: { page: '2' },
  });
});

const toWaypoint = { ...tunnelTo('wp-1', '10.0.0.5'), share: 1, authority: '10.96.0.1:80', waypoint: true };

test('a request that an authorization server is asked about is told as far as the waypoint knows, and its end is not claimed', async () => {
  const unknown = 'shop/ask asks asker, and what that will say cannot be predicted';
  requestAnswer = {
    steps: [],
    policies: [],
    allowed: true,
    reason: '',
    unknown,
    routes: [{ ...tunnelTo('orders-1', '10.0.0.1'), share: 1 }],
  };
  const explanation = await explain(call, from, proxies([toWaypoint], {}).of);
  assert.equal(overall(explanation), 'unknown');
  assert.equal(explanation.ways[0]?.ways?.[0]?.verdict.outcome, 'delivered');
  const text = render(explanation, picocolors.createColors(false));
  assert.match(text, /shop\/ask asks asker, and what that will say cannot be predicted; where it allows it:/);
  assert.match(text, /what becomes of it cannot be said: shop\/ask asks asker/);
});

test('a token that is not good, and a limit that is used up, are refusals with their status', async () => {
  requestAnswer = { steps: [], policies: [], allowed: false, code: 'TOKEN_INVALID', status: 401, reason: 'Jwt is expired', routes: [] };
  const [way] = (await explain(call, from, proxies([toWaypoint], {}).of)).ways;
  assert.deepEqual(way?.verdict, { outcome: 'refused', code: 'TOKEN_INVALID', status: 401, reason: 'Jwt is expired' });
});

test('what a token says goes into a question about objects, and the token itself does not', async () => {
  const token = { principal: 'me/ann', audiences: [], presenter: '', claims: { '["role"]': ['clerk'] } };
  requestAnswer = { steps: [], policies: [], allowed: true, reason: '', token, routes: [] };
  const asked = { ...call, request: { ...request, headers: ['x-a: b', 'authorization: Bearer secret'] } };
  const decisions = decisionsOf(await explain(asked, from, proxies([toWaypoint], {}).of), from.ip);
  assert.ok(!JSON.stringify(decisions).includes('secret'));
  const body = { apply: [{ kind: 'Namespace', metadata: { name: 'shop' } }], asked: decisions };
  assert.deepEqual(readCandidate(body, undefined).asked?.[0]?.decision.request?.token, token);
  const wrong = (bad: unknown): void => {
    const [first] = structuredClone(decisions);
    Object.assign(first?.decision.request ?? {}, { token: bad });
    assert.throws(() => readCandidate({ ...body, asked: [first] }, undefined), /its request is none/);
  };
  wrong({ ...token, claims: { role: ['clerk'] } });
  wrong({ ...token, claims: { '["role"]': 'clerk' } });
  wrong('me/ann');
});
