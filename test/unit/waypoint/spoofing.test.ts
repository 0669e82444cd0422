/** Fields by which proxies tell each other about a request: what becomes of each, from a caller with an identity and from one without. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeExchange, pipelineWorld } from '../../support/waypoint-fakes.ts';

const TUNNEL = 'By=spiffe://cluster.local/ns/shop/sa/waypoint;URI=spiffe://cluster.local/ns/shop/sa/client';
const GONE = undefined;

/** What the backend sees of a field that a caller in a tunnel wrote, and of one that a caller in plaintext wrote. */
const ROWS: readonly (readonly [name: string, written: string, tunnel: string | undefined, plaintext: string | undefined])[] = [
  // Who the caller is.
  ['x-forwarded-client-cert', 'By=x;URI=spiffe://cluster.local/ns/admin/sa/root', TUNNEL, GONE],
  ['x_forwarded_client_cert', 'By=x;URI=spiffe://cluster.local/ns/admin/sa/root', GONE, GONE],
  ['x-forwarded_client-cert', 'By=x', GONE, GONE],
  ['x-istio-attributes', 'c291cmNlLnVpZA==', GONE, GONE],
  ['x-istio-source', 'admin', GONE, GONE],
  // Where it came from: addresses are a list to whose end each proxy adds, so the last one is ours.
  ['x-forwarded-for', '1.2.3.4', '1.2.3.4,10.0.9.9', '1.2.3.4,10.0.9.9'],
  ['x-forwarded-for', '1.2.3.4, 5.6.7.8', '1.2.3.4, 5.6.7.8,10.0.9.9', '1.2.3.4, 5.6.7.8,10.0.9.9'],
  ['x_forwarded_for', '1.2.3.4', GONE, GONE],
  ['x-forwarded-proto', 'https', 'https', 'http'],
  ['x-forwarded-proto', 'http', 'http', 'http'],
  ['x-forwarded-proto', 'HTTPS', 'http', 'http'],
  ['x-forwarded-proto', 'https, http', 'http', 'http'],
  ['x-forwarded-proto', 'javascript:', 'http', 'http'],
  ['x_forwarded_proto', 'https', GONE, GONE],
  // Nothing of ours believes these; they are between gateways and applications.
  ['x-forwarded-host', 'shop.example', 'shop.example', 'shop.example'],
  ['x-forwarded-port', '8443', '8443', '8443'],
  ['forwarded', 'for=1.2.3.4;host=x', 'for=1.2.3.4;host=x', 'for=1.2.3.4;host=x'],
  // What Envoy would take as orders.
  ['x-envoy-external-address', '1.2.3.4', GONE, GONE],
  ['x-envoy-internal', 'true', GONE, GONE],
  ['x-envoy-original-path', '/admin', GONE, GONE],
  ['x-envoy-original-dst-host', '10.0.0.1:22', GONE, GONE],
  ['x-envoy-decorator-operation', 'x', GONE, GONE],
  ['x-envoy-retry-on', '5xx', GONE, GONE],
  ['x-envoy-max-retries', '1000', GONE, GONE],
  ['x-envoy-upstream-rq-timeout-ms', '1', GONE, GONE],
  ['x-envoy-expected-rq-timeout-ms', '1', GONE, GONE],
  ['x-envoy-upstream-alt-stat-name', 'x', GONE, GONE],
  ['x-envoy-force-trace', '1', GONE, GONE],
  ['x-envoy-peer-metadata', 'ChoK', GONE, GONE],
  ['x-envoy-peer-metadata-id', 'sidecar~10.0.0.1', GONE, GONE],
  ['x-envoy-auth-partial-body', 'false', GONE, GONE],
  ['x-envoy-attempt-count', '7', GONE, GONE],
  ['x_envoy_internal', 'true', GONE, GONE],
  // Ours.
  ['x-warren-refusal', 'code=POLICY_DENIED', GONE, GONE],
  ['x-warren-anything', '1', GONE, GONE],
  ['x_warren_refusal', '1', GONE, GONE],
  // A name for the request is the caller's to choose, in bounds.
  ['x-request-id', 'mine', 'mine', 'mine'],
  ['x_request_id', 'mine', GONE, GONE],
  // Everybody else's.
  ['x-mine', '1', '1', '1'],
  ['x_mine', '1', '1', '1'],
  ['xx-forwarded-client-cert', '1', '1', '1'],
];

for (const [kind, caller, column] of [
  ['a tunnel', 'spiffe://cluster.local/ns/shop/sa/client', 2],
  ['plaintext', '', 3],
] as const) {
  test(`what a caller in ${kind} writes into fields of proxies does not reach the backend as if it were true`, async () => {
    for (const row of ROWS) {
      const world = pipelineWorld((request) => request.answer(200), '{}', { caller });
      await world.ask(new FakeExchange({ fields: [row[0], row[1]] }));
      const [seen] = world.requests;
      assert.equal(seen?.field(row[0]), row[column], `${row[0]}: ${row[1]}`);
      const times = seen?.head.fields.filter((name, i) => i % 2 === 0 && name === row[0]).length;
      assert.equal(times, row[column] === undefined ? 0 : 1, `${row[0]} is there once`);
    }
  });

  test(`a request in ${kind} says to the backend what is known of its caller, whether it wrote anything or not`, async () => {
    const world = pipelineWorld((request) => request.answer(200), '{}', { caller });
    await world.ask(new FakeExchange());
    const [seen] = world.requests;
    assert.equal(seen?.field('x-forwarded-client-cert'), caller === '' ? undefined : TUNNEL);
    assert.deepEqual([seen?.field('x-forwarded-for'), seen?.field('x-forwarded-proto')], ['10.0.9.9', 'http']);
  });
}

test('fields written twice are one in the end, and the caller’s stay before ours', async () => {
  const world = pipelineWorld((request) => request.answer(200));
  const twice = [
    'x-forwarded-for',
    '1.1.1.1',
    'x-forwarded-for',
    '2.2.2.2',
    'x-forwarded-client-cert',
    'a',
    'x-forwarded-client-cert',
    'b',
  ];
  await world.ask(new FakeExchange({ fields: twice }));
  assert.equal(world.requests[0]?.field('x-forwarded-for'), '1.1.1.1,2.2.2.2,10.0.9.9');
  assert.deepEqual(
    world.requests[0]?.head.fields.filter((name) => name === 'x-forwarded-client-cert'),
    ['x-forwarded-client-cert'],
  );
});

test('a name for the request that is too long is taken away, and another one given', async () => {
  const world = pipelineWorld((request) => request.answer(200));
  await world.ask(new FakeExchange({ fields: ['x-request-id', 'x'.repeat(257)] }));
  assert.equal(world.requests[0]?.field('x-request-id'), 'abababab-abab-4bab-abab-abababababab');
});

test('no policy and no route believes what a caller says of itself: identity and address are those of its tunnel', async () => {
  const who = (rule: string): string =>
    `policies: [{namespace: shop, name: p, action: DENY, targets: [{everything: {}}], rules: [{from: [{${rule}}]}]}]`;
  const claims = [
    'x-forwarded-client-cert',
    'URI=spiffe://cluster.local/ns/admin/sa/root',
    'x-forwarded-for',
    '192.0.2.1',
    'forwarded',
    'for=192.0.2.1',
  ];
  for (const [rule, denied] of [
    ['principals: [{exact: cluster.local/ns/admin/sa/root}]', false],
    ['namespaces: [{exact: admin}]', false],
    ['serviceAccounts: [{exact: admin/root}]', false],
    ['ipBlocks: [192.0.2.0/24]', false],
    ['remoteIpBlocks: [192.0.2.0/24]', false],
    ['principals: [{exact: cluster.local/ns/shop/sa/client}]', true],
    ['ipBlocks: [10.0.9.9]', true],
    ['remoteIpBlocks: [10.0.9.9]', true],
  ] as const) {
    const world = pipelineWorld((request) => request.answer(200), who(rule));
    const { response } = await world.ask(new FakeExchange({ fields: [...claims] }));
    assert.equal(response?.status, denied ? 403 : 200, rule);
  }
});

test('what a backend writes into our fields of a response does not reach the client', async () => {
  const world = pipelineWorld((request) => request.answer(200, 'hi', ['x-warren-refusal', 'code=POLICY_DENIED', 'x-mine', '1']));
  const exchange = await world.ask(new FakeExchange());
  assert.deepEqual([exchange.field('x-warren-refusal'), exchange.field('x-mine')], [undefined, '1']);
});
