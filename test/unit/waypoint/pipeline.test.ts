import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeExchange, ORDERS_V2, pipelineWorld } from '../../support/waypoint-fakes.ts';

const HOST = 'orders.shop.svc.cluster.local';
const TO = `{to: {namespace: shop, hostname: ${HOST}, port: 80}}`;
const TO_V2 = `{to: {namespace: shop, hostname: ${ORDERS_V2.hostname}, port: 80}}`;

/** One rule for every path of orders, and whatever stands beside it. */
const rule = (text: string, more = ''): string => `
routes:
- {namespace: shop, hostname: ${HOST}, ports: [{port: 80, table: [{match: {path: {prefix: /}}, rule: 0}], rules: [{name: r, ${text}}]}]}
${more}`;

const policy = (text: string): string => `
policies:
- {namespace: shop, name: p, targets: [{service: shop/${HOST}}], ${text}}`;

test('a service without routes is its own backend, and each request goes to the next endpoint', async () => {
  const world = pipelineWorld((request) => request.answer(200, 'hi'));
  for (let i = 0; i < 4; i++) {
    const exchange = await world.ask(new FakeExchange({ path: '/x?y=1' }));
    assert.deepEqual([exchange.response?.status, exchange.received, exchange.ended], [200, 'hi', true]);
  }
  assert.deepEqual(
    world.requests.map(({ endpoint }) => endpoint),
    ['orders-2', 'orders-3', 'orders-1', 'orders-2'],
  );
  assert.equal(world.requests[0]?.head.path, '/x?y=1');
});

test('what a client says of who it is, is replaced by what its tunnel proved', async () => {
  const world = pipelineWorld((request) => request.answer(200));
  const claims = ['x-forwarded-client-cert', 'URI=spiffe://x', 'x-envoy-retry-on', '5xx', 'x-warren-refusal', 'code=OK', 'x-mine', 'kept'];
  await world.ask(new FakeExchange({ fields: [...claims, 'x-forwarded-for', '1.2.3.4'] }));
  const [seen] = world.requests;
  assert.equal(
    seen?.field('x-forwarded-client-cert'),
    'By=spiffe://cluster.local/ns/shop/sa/waypoint;URI=spiffe://cluster.local/ns/shop/sa/client',
  );
  assert.equal(seen?.field('x-forwarded-for'), '1.2.3.4,10.0.9.9');
  assert.equal(seen?.field('x-mine'), 'kept');
  assert.equal(seen?.field('x-envoy-retry-on'), undefined);
  assert.equal(seen?.field('x-warren-refusal'), undefined);
});

test('where nothing is traced a trace context goes on as it came, and none is made; the id that names the request is its trace id', async () => {
  const world = pipelineWorld((request) => request.answer(200));
  const trace = `00-${'1'.repeat(32)}-${'2'.repeat(16)}-01`;
  await world.ask(new FakeExchange({ fields: ['traceparent', trace, 'x-request-id', 'mine'] }));
  await world.ask(new FakeExchange({ fields: ['traceparent', 'nonsense'] }));
  await world.ask(new FakeExchange({ fields: ['traceparent', `00-${'0'.repeat(32)}-${'2'.repeat(16)}-01`] }));
  await world.ask(new FakeExchange({ fields: [] }));
  const fresh = 'ab'.repeat(16);
  assert.deepEqual(
    world.requests.map((request) => request.field('traceparent')),
    [trace, 'nonsense', `00-${'0'.repeat(32)}-${'2'.repeat(16)}-01`, undefined],
  );
  assert.deepEqual(
    world.over.map(({ request }) => request.traceId),
    ['1'.repeat(32), fresh, fresh, fresh],
  );
  assert.deepEqual(
    world.requests.map((request) => request.field('x-request-id')),
    ['mine', ...Array(3).fill('abababab-abab-4bab-abab-abababababab')],
  );
});

test('a denied request is 403, never reaches an endpoint, and names the policy to callers of the same namespace only', async () => {
  const deny = policy('action: DENY, rules: [{to: [{methods: [{exact: POST}]}]}]');
  const world = pipelineWorld((request) => request.answer(200), deny);
  const near = await world.ask(new FakeExchange({ method: 'POST' }));
  assert.deepEqual([near.response?.status, near.received], [403, 'RBAC: access denied']);
  assert.equal(near.field('x-warren-refusal'), `code=POLICY_DENIED; policy=shop/p; id=${'ab'.repeat(16)}`);
  const far = pipelineWorld((request) => request.answer(200), deny, { caller: 'spiffe://cluster.local/ns/other/sa/client' });
  const refused = await far.ask(new FakeExchange({ method: 'POST' }));
  assert.equal(refused.field('x-warren-refusal'), `code=POLICY_DENIED; id=${'ab'.repeat(16)}`);
  assert.equal(world.requests.length + far.requests.length, 0);
  assert.equal(world.over[0]?.request.error?.policy, 'shop/p');
});

test('policies see the request as the client sent it, not as a route changes it', async () => {
  const config = rule(`rewrite: {path: {full: /inner}}, backends: [${TO}]`, policy('rules: [{to: [{paths: [{exact: /outer}]}]}]').slice(1));
  const world = pipelineWorld((request) => request.answer(200), config);
  assert.equal((await world.ask(new FakeExchange({ path: '/outer' }))).response?.status, 200);
  assert.equal((await world.ask(new FakeExchange({ path: '/inner' }))).response?.status, 403);
  assert.equal(world.requests[0]?.head.path, '/inner');
});

test('another spelling of a path is no way around a policy, and backends get the same spelling', async () => {
  const world = pipelineWorld((request) => request.answer(200), policy('action: DENY, rules: [{to: [{paths: [{exact: /admin}]}]}]'));
  for (const path of ['/admin', '/x/../admin', '/%61dmin', '/./admin?x', '/x/%2e%2e/admin']) {
    assert.equal((await world.ask(new FakeExchange({ path }))).response?.status, 403, path);
  }
  assert.equal((await world.ask(new FakeExchange({ path: '/x/../y?z' }))).response?.status, 200);
  assert.deepEqual(
    world.requests.map(({ head }) => head.path),
    ['/y?z'],
  );
});

test('a gRPC call gets its refusal as a status that a gRPC client understands', async () => {
  const world = pipelineWorld((request) => request.answer(200), policy('action: DENY, rules: [{to: [{methods: [{exact: POST}]}]}]'));
  const exchange = await world.ask(new FakeExchange({ version: '2', method: 'POST', fields: ['content-type', 'application/grpc+proto'] }));
  assert.equal(exchange.response?.status, 200);
  assert.deepEqual([exchange.field('grpc-status'), exchange.field('grpc-message')], ['7', 'RBAC%3A access denied']);
});

test('no rule that matches is 404; a rule whose backend is not there is 500; a service without endpoints is 503', async () => {
  const none = pipelineWorld((request) => request.answer(200), rule(`backends: [${TO}]`).replace('prefix: /', 'prefix: /only'));
  const unmatched = await none.ask(new FakeExchange({ path: '/other' }));
  assert.equal(unmatched.response?.status, 404);
  assert.match(unmatched.field('x-warren-refusal') ?? '', /^code=ROUTE_UNMATCHED/);
  for (const backends of [
    '',
    '{weight: 1}',
    '{to: {namespace: shop, hostname: gone, port: 80}}',
    `{to: {namespace: shop, hostname: ${HOST}, port: 81}}`,
  ]) {
    const world = pipelineWorld((request) => request.answer(200), rule(`backends: [${backends}]`));
    assert.equal((await world.ask(new FakeExchange())).response?.status, 500, backends);
  }
  const empty = pipelineWorld((request) => request.answer(200), '{}', { pods: 0 });
  const unhealthy = await empty.ask(new FakeExchange());
  assert.deepEqual([unhealthy.response?.status, unhealthy.received], [503, 'no healthy upstream']);
  assert.match(unhealthy.field('x-warren-refusal') ?? '', /^code=NO_HEALTHY_UPSTREAM/);
});

test('filters change head, authority and path on the way there, and fields on the way back', async () => {
  const config = rule(`requestHeaders: {set: [{name: X-A, value: "1"}, {name: Host, value: set.example}], remove: [x-gone]},
    responseHeaders: {add: [{name: x-b, value: "2"}], remove: [server]}, rewrite: {path: {prefix: /v2}},
    backends: [{to: {namespace: shop, hostname: ${HOST}, port: 80}, responseHeaders: {set: [{name: x-c, value: "3"}]}}]`);
  const world = pipelineWorld((request) => request.answer(200, '', ['server', 'app', 'x-warren-refusal', 'code=FAKE']), config);
  const exchange = await world.ask(new FakeExchange({ path: '/a?q', fields: ['x-gone', 'x', 'x-a', '0'] }));
  const [seen] = world.requests;
  assert.deepEqual(
    [seen?.head.path, seen?.head.authority, seen?.field('x-a'), seen?.field('x-gone')],
    ['/v2/a?q', 'set.example', '1', undefined],
  );
  assert.deepEqual([exchange.field('x-b'), exchange.field('x-c'), exchange.field('server')], ['2', '3', undefined]);
  assert.equal(exchange.field('x-warren-refusal'), undefined, 'an application does not speak in the name of the waypoint');
});

test('a single backend of a rule may redirect its share, or rewrite what it gets, in place of what the rule says', async () => {
  const redirecting =
    rule(`backends: [{to: {namespace: shop, hostname: ${HOST}, port: 80}, redirect: {hostname: there, path: {prefix: /y}, status: 301},
    responseHeaders: {set: [{name: x-b, value: "1"}]}}]`).replace('prefix: /}', 'prefix: /x}');
  const away = pipelineWorld((request) => request.answer(200), redirecting);
  const answer = await away.ask(new FakeExchange({ path: '/x/z?q' }));
  assert.deepEqual([answer.response?.status, answer.field('location'), answer.field('x-b')], [301, 'http://there/y/z?q', '1']);
  assert.equal(away.requests.length, 0);
  const rewriting = rule(`rewrite: {hostname: ours, path: {full: /ours}}, backends: [
    {weight: 0, to: {namespace: shop, hostname: ${HOST}, port: 80}},
    {to: {namespace: shop, hostname: ${HOST}, port: 80}, rewrite: {path: {full: /its}}}]`);
  const world = pipelineWorld((request) => request.answer(200), rewriting);
  await world.ask(new FakeExchange({ path: '/x?q' }));
  assert.deepEqual([world.requests[0]?.head.path, world.requests[0]?.head.authority], ['/its?q', 'ours']);
});

test('a redirect is answered without asking an endpoint', async () => {
  const world = pipelineWorld((request) => request.answer(200), rule('redirect: {scheme: https, hostname: new.example, status: 301}'));
  const exchange = await world.ask(new FakeExchange({ path: '/a' }));
  assert.deepEqual([exchange.response?.status, exchange.field('location'), world.requests.length], [301, 'https://new.example/a', 0]);
});

test('a copy of the request goes to the mirror, whose answer and whose absence the client does not notice', async () => {
  const config = rule(`backends: [${TO}], mirrors: [${TO_V2}]`);
  const world = pipelineWorld((request) => request.answer(request.endpoint === 'new-1' ? 500 : 200, request.endpoint), config);
  const exchange = new FakeExchange({ method: 'POST', bodyBytes: 5 });
  exchange.send('hello');
  exchange.finish();
  await world.ask(exchange);
  assert.deepEqual([exchange.response?.status, exchange.received.startsWith('orders-')], [200, true]);
  const copy = world.requests.find(({ endpoint }) => endpoint === 'new-1');
  assert.deepEqual([copy?.body, copy?.head.method, world.mirrored], ['hello', 'POST', ['sent']]);
  world.unreachable.add('new-1');
  assert.equal((await world.ask(new FakeExchange())).response?.status, 200);
  assert.deepEqual(world.mirrored, ['sent', 'failed']);
});

test('a body longer than what is kept is not mirrored, and passes as it is', async () => {
  const world = pipelineWorld((request) => request.answer(200), rule(`backends: [${TO}], mirrors: [${TO_V2}]`));
  const exchange = new FakeExchange({ method: 'POST', bodyBytes: undefined });
  exchange.send('x'.repeat(40_000));
  exchange.send('y'.repeat(40_000));
  exchange.finish();
  await world.ask(exchange);
  assert.deepEqual(world.mirrored, ['left_out']);
  assert.deepEqual([world.requests.length, world.requests[0]?.body.length], [1, 80_000]);
});

test('1xx and trailers pass, and grpc-status is told to telemetry', async () => {
  const world = pipelineWorld((request) => {
    request.listener.informational({ status: 103, fields: [], bodyBytes: 0 });
    request.answer(200, '\0\0\0\0\x01a\0\0\0\0\0', ['content-type', 'application/grpc'], ['grpc-status', '5']);
  });
  const call = new FakeExchange({ method: 'POST', fields: ['content-type', 'application/grpc'], bodyBytes: undefined });
  call.send('\0\0\0\0\x02ab');
  call.finish();
  const exchange = await world.ask(call);
  assert.deepEqual([exchange.informed, exchange.trailers], [[103], ['grpc-status', '5']]);
  assert.deepEqual(world.over[0]?.delivered, {
    status: 200,
    bytes: 11,
    grpcStatus: '5',
    messages: 2,
    fields: ['content-type', 'application/grpc'],
    trailers: ['grpc-status', '5'],
  });
  assert.equal(world.over[0]?.request.body.messages?.count, 1);
});

test('a client that leaves ends its request at the endpoint, and it counts as gone', async () => {
  const world = pipelineWorld(() => undefined);
  const exchange = await world.ask(new FakeExchange());
  exchange.leave();
  await world.ask(new FakeExchange());
  assert.equal(world.requests[0]?.aborted?.code, 'CLIENT_GONE');
  assert.equal(exchange.response, undefined);
  assert.deepEqual(
    world.over.map(({ request }) => request.error?.code),
    ['CLIENT_GONE'],
  );
});
