/** CUSTOM policies at a waypoint: what authorization servers are told, and what becomes of a request by their answers. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CheckRequest, CheckResponse, HeaderAppendAction } from '../../../common/codec/gen/ext-authz.ts';
import { FakeExchange, type PipelineWorld, pipelineWorld, type ReceivedRequest } from '../../support/waypoint-fakes.ts';

// The server is the pod of orders-v2, the application the pods of orders.
const isServer = ({ endpoint }: ReceivedRequest): boolean => endpoint === 'new-1';
const TO = 'to: {namespace: shop, hostname: orders-v2.shop.svc.cluster.local, port: 80}';

interface Asking {
  readonly provider?: string;
  readonly policy?: string;
  readonly rules?: string;
  readonly others?: string;
  readonly server?: (request: ReceivedRequest) => void;
}

function world({ provider = '', policy = '', rules = '[{}]', others = '', server }: Asking): PipelineWorld {
  const custom = `{namespace: shop, name: ask, action: CUSTOM, targets: [{everything: {}}], rules: ${rules}, authorizer: {name: opa, ${TO}${provider}}${policy}}`;
  return pipelineWorld(
    (request) => (isServer(request) ? (server ?? ((each) => each.answer(200)))(request) : request.answer(200, 'from the app')),
    `policies: [${others}${custom}]`,
  );
}
const toServer = (mesh: PipelineWorld): ReceivedRequest | undefined => mesh.requests.find(isServer);
const toApp = (mesh: PipelineWorld): ReceivedRequest | undefined => mesh.requests.find((request) => !isServer(request));

/** A gRPC answer. */
const check = (request: ReceivedRequest, response: Partial<CheckResponse>, status = '0'): void => {
  const message = CheckResponse.encode({ ...response } as CheckResponse).finish();
  const frame = Buffer.alloc(5 + message.length);
  frame.writeUInt32BE(message.length, 1);
  frame.set(message, 5);
  request.answer(200, frame, ['content-type', 'application/grpc'], ['grpc-status', status]);
};
const option = (key: string, value: string, more: object = {}) => ({
  header: { key, value, rawValue: new Uint8Array() },
  appendAction: HeaderAppendAction.APPEND_IF_EXISTS_OR_ADD,
  ...more,
});
const GRPC = ', grpc: true';

test('over HTTP the server is asked with the request’s method, path and host, the fields that were named, and no body', async () => {
  const mesh = world({
    provider: `, pathPrefix: /check, includeHeaders: [{exact: x-user}, {prefix: x-org-}], additionalHeaders: [{name: X-From, value: mesh}]`,
  });
  const exchange = new FakeExchange({
    method: 'POST',
    path: '/a?b=1',
    bodyBytes: 5,
    fields: [
      'authorization',
      'Bearer t',
      'x-user',
      'ann',
      'x-org-id',
      '7',
      'cookie',
      'secret',
      'content-length',
      '5',
      'x-from',
      'me',
      'traceparent',
      'x',
    ],
  });
  exchange.send('hello');
  exchange.finish();
  await mesh.ask(exchange);
  const asked = toServer(mesh);
  assert.deepEqual(
    [asked?.head.method, asked?.head.path, asked?.head.authority, asked?.head.bodyBytes],
    ['POST', '/check/a?b=1', 'orders', 0],
  );
  const names = asked?.head.fields.filter((_, i) => i % 2 === 0).sort();
  assert.deepEqual(names, ['authorization', 'traceparent', 'x-from', 'x-org-id', 'x-user']);
  assert.equal(asked?.field('x-from'), 'mesh');
  assert.equal(exchange.received, 'from the app');
  assert.equal(toApp(mesh)?.body, 'hello');
});

test('what an HTTP server refuses is answered with its own status, body and fields', async () => {
  const server = (request: ReceivedRequest): void =>
    request.answer(302, 'go and log in', ['location', 'https://login', 'x-inner', 'secret', 'content-type', 'text/html']);
  const all = await world({ server }).ask(new FakeExchange());
  assert.deepEqual(
    [all.response?.status, all.received, all.field('location'), all.field('x-inner')],
    [302, 'go and log in', 'https://login', 'secret'],
  );
  const mesh = world({ server, provider: ', toDownstreamOnDeny: [{exact: location}]' });
  const some = await mesh.ask(new FakeExchange());
  assert.deepEqual([some.field('location'), some.field('x-inner'), some.field('content-type')], ['https://login', undefined, 'text/html']);
  assert.match(some.field('x-warren-refusal') ?? '', /^code=AUTHORIZER_DENIED; policy=shop\/ask; id=/);
  assert.equal(toApp(mesh), undefined);
  assert.deepEqual(mesh.checked, ['shop/ask opa denied']);
});

test('what an HTTP server says of a request that it lets pass reaches the application and the client, as far as it was named', async () => {
  const mesh = world({
    server: (request) =>
      request.answer(200, 'ignored', ['x-user', 'ann', 'x-secret', 's', 'set-cookie', 'a=b', 'content-length', '7', 'host', 'evil']),
    provider: ', toUpstreamOnAllow: [{prefix: x-us}, {exact: host}, {exact: content-length}], toDownstreamOnAllow: [{exact: set-cookie}]',
  });
  const exchange = await mesh.ask(new FakeExchange({ fields: ['x-user', 'somebody else'] }));
  assert.equal(toApp(mesh)?.field('x-user'), 'ann');
  assert.equal(toApp(mesh)?.field('x-secret'), undefined);
  assert.deepEqual([toApp(mesh)?.field('host'), toApp(mesh)?.field('content-length')], [undefined, undefined]);
  assert.equal(exchange.field('set-cookie'), 'a=b');
});

test('over gRPC the server is told who asks for what, with all fields', async () => {
  let told: CheckRequest | undefined;
  const mesh = world({
    provider: GRPC,
    server: (request) => {
      told = CheckRequest.decode(request.head.bodyBytes ? Buffer.from(sent(request)) : new Uint8Array());
      check(request, {});
    },
  });
  const exchange = await mesh.ask(new FakeExchange({ path: '/a?b=1', fields: ['x-user', 'ann', 'x-two', '1', 'x-two', '2'] }));
  assert.equal(exchange.response?.status, 200);
  const head = toServer(mesh)?.head;
  assert.deepEqual([head?.method, head?.path, head?.version], ['POST', '/envoy.service.auth.v3.Authorization/Check', '2']);
  const { source, destination, request } = told?.attributes ?? {};
  assert.equal(source?.principal, 'spiffe://cluster.local/ns/shop/sa/client');
  assert.deepEqual(source?.address?.socketAddress, { address: '10.0.9.9', portValue: 4711 });
  assert.deepEqual(destination?.address?.socketAddress, { address: '10.96.0.1', portValue: 80 });
  const http = request?.http;
  assert.deepEqual(
    [http?.method, http?.path, http?.host, http?.scheme, http?.protocol, http?.size],
    ['GET', '/a?b=1', 'orders', 'http', 'HTTP/1.1', 0n],
  );
  assert.deepEqual([http?.headers['x-user'], http?.headers['x-two'], http?.headers[':path']], ['ann', '1,2', '/a?b=1']);
});
const sent = ({ bytes }: ReceivedRequest): Buffer => bytes.subarray(5);

test('a gRPC server changes the request and its response: sets, adds, takes away, and the query', async () => {
  const mesh = world({
    provider: GRPC,
    server: (request) =>
      check(request, {
        status: { code: 0, message: '' },
        httpResponse: {
          $case: 'okResponse',
          value: {
            headers: [
              option('X-User', 'ann'),
              option('x-more', '2', { append: true }),
              option('x-new', 'n', { appendAction: HeaderAppendAction.ADD_IF_ABSENT }),
              option('x-old', 'n', { appendAction: HeaderAppendAction.ADD_IF_ABSENT }),
              option('x-absent', 'n', { appendAction: HeaderAppendAction.OVERWRITE_IF_EXISTS }),
              option('x-bad', 'a\r\nb: c'),
              option('transfer-encoding', 'chunked'),
            ],
            headersToRemove: ['X-Gone'],
            responseHeadersToAdd: [option('x-answer', 'yes')],
            queryParametersToSet: [{ key: 'who', value: 'ann' }],
            queryParametersToRemove: ['token'],
          },
        },
      }),
  });
  const fields = ['x-user', 'me', 'x-more', '1', 'x-old', 'o', 'x-gone', 'g'];
  const exchange = await mesh.ask(new FakeExchange({ path: '/a?token=t&x=1', fields }));
  const app = toApp(mesh);
  const seen = Object.fromEntries((app?.head.fields ?? []).flatMap((name, i, all) => (i % 2 === 0 ? [[name, all[i + 1]]] : [])));
  assert.deepEqual(
    [
      seen['x-user'],
      seen['x-more'],
      seen['x-new'],
      seen['x-old'],
      seen['x-absent'],
      seen['x-bad'],
      seen['transfer-encoding'],
      seen['x-gone'],
    ],
    ['ann', '2', 'n', 'o', undefined, undefined, undefined, undefined],
  );
  assert.equal(app?.head.path, '/a?x=1&who=ann');
  assert.equal(exchange.field('x-answer'), 'yes');
});

test('what a gRPC server refuses is answered as it says, with 403 where it says no status', async () => {
  const server = (request: ReceivedRequest): void =>
    check(request, {
      status: { code: 7, message: '' },
      httpResponse: {
        $case: 'deniedResponse',
        value: { status: { code: 401 }, headers: [option('www-authenticate', 'Basic')], body: 'who?' },
      },
    });
  const exchange = await world({ provider: GRPC, server }).ask(new FakeExchange());
  assert.deepEqual([exchange.response?.status, exchange.received, exchange.field('www-authenticate')], [401, 'who?', 'Basic']);
  const plain = await world({ provider: GRPC, server: (request) => check(request, { status: { code: 7, message: '' } }) }).ask(
    new FakeExchange(),
  );
  assert.equal(plain.response?.status, 403);
  const grpc = await world({ provider: GRPC, server }).ask(new FakeExchange({ fields: ['content-type', 'application/grpc'] }));
  assert.deepEqual([grpc.response?.status, grpc.field('grpc-status')], [200, '16']);
});

for (const [what, server, provider] of [
  ['an HTTP server fails', (request: ReceivedRequest) => request.answer(503), ''],
  ['a gRPC server fails', (request: ReceivedRequest) => check(request, {}, '14'), GRPC],
  [
    'a gRPC server says that it could not decide',
    (request: ReceivedRequest) => check(request, { httpResponse: { $case: 'errorResponse', value: { headers: [], body: 'no' } } }),
    GRPC,
  ],
  ['a gRPC server answers no message', (request: ReceivedRequest) => request.answer(200, 'abc', [], ['grpc-status', '0']), GRPC],
  [
    'a gRPC server answers bytes that are no message',
    (request: ReceivedRequest) => request.answer(200, Buffer.from('0000000002ffff', 'hex'), [], ['grpc-status', '0']),
    GRPC,
  ],
  ['an answer is endless', (request: ReceivedRequest) => request.answer(200, Buffer.alloc(2 << 20)), ''],
] as const) {
  test(`where ${what} the request is refused, or passes where the provider fails open`, async () => {
    const mesh = world({ server, provider });
    const exchange = await mesh.ask(new FakeExchange());
    assert.equal(exchange.response?.status, 403);
    assert.equal(mesh.over.at(-1)?.request.error?.code, 'AUTHORIZER_FAILED');
    assert.equal(toApp(mesh), undefined);
    assert.deepEqual(mesh.checked, ['shop/ask opa failed']);
    assert.equal((await world({ server, provider: `${provider}, statusOnError: 503` }).ask(new FakeExchange())).response?.status, 503);
    assert.equal((await world({ server, provider: `${provider}, failOpen: true` }).ask(new FakeExchange())).response?.status, 200);
  });
}

test('a server that cannot be reached refuses, and one that is silent too, after the provider’s time', async () => {
  const gone = world({});
  gone.unreachable.add('new-1');
  assert.equal((await gone.ask(new FakeExchange())).response?.status, 403);
  const silent = world({ server: () => undefined, provider: ', timeoutMs: 500' });
  const exchange = await silent.ask(new FakeExchange());
  assert.equal(silent.over.length, 0);
  await silent.clock.advance(500);
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(exchange.response?.status, 403);
  assert.match(silent.over.at(-1)?.request.error?.message ?? '', /opa, asked by shop\/ask: no answer within 500 ms/);
  assert.ok(toServer(silent)?.aborted);
});

test('a client that leaves takes its question with it', async () => {
  const mesh = world({ server: () => undefined });
  const exchange = await mesh.ask(new FakeExchange());
  exchange.leave();
  await new Promise((resolve) => setImmediate(resolve));
  assert.ok(toServer(mesh)?.aborted);
  assert.equal(toApp(mesh), undefined);
});

test('only what the rules match is asked about', async () => {
  const mesh = world({ rules: '[{to: [{paths: [{prefix: /admin}]}]}]', server: (request) => request.answer(403) });
  assert.equal((await mesh.ask(new FakeExchange({ path: '/free' }))).response?.status, 200);
  assert.equal((await mesh.ask(new FakeExchange({ path: '/x/../admin' }))).response?.status, 403);
});

test('CUSTOM comes before DENY and ALLOW, which see the request as the server has left it', async () => {
  const others = `{namespace: shop, name: deny, action: DENY, targets: [{everything: {}}], rules: [{when: [{key: "request.headers[x-user]", values: [{exact: mallory}]}]}]}, `;
  const mesh = world({
    others,
    server: (request) => request.answer(200, '', ['x-user', 'mallory']),
    provider: ', toUpstreamOnAllow: [{exact: x-user}]',
  });
  const exchange = await mesh.ask(new FakeExchange({ fields: ['x-user', 'ann'] }));
  assert.equal(exchange.response?.status, 403);
  assert.equal(mesh.over.at(-1)?.request.error?.policy, 'shop/deny');
  assert.equal(mesh.requests.filter(isServer).length, 1);
});

test('in dry-run the server is asked, and the request passes as it was', async () => {
  const mesh = world({ policy: ', dryRun: true', server: (request) => request.answer(403) });
  assert.equal((await mesh.ask(new FakeExchange())).response?.status, 200);
  assert.deepEqual(mesh.over.at(-1)?.request.wouldDeny, ['shop/ask']);
});

test('the beginning of a body is told, and all of it reaches the application', async () => {
  for (const [max, body, told, partial, status] of [
    [10, 'hello', 'hello', 'allowPartial: false', 200],
    [5, 'hello', 'hello', 'allowPartial: false', 200],
    [4, 'hello', undefined, 'allowPartial: false', 413],
    [4, 'hello', 'hell', 'allowPartial: true', 200],
  ] as const) {
    const mesh = world({ provider: `, body: {maxBytes: ${max}, ${partial}}` });
    const exchange = new FakeExchange({ method: 'POST', bodyBytes: undefined });
    await mesh.ask(exchange);
    for (const letter of body) exchange.send(letter);
    exchange.finish();
    for (let i = 0; i < 10; i++) await new Promise((resolve) => setImmediate(resolve));
    assert.equal(exchange.response?.status, status, `${max}`);
    assert.equal(toServer(mesh)?.body, told);
    if (status === 200) assert.equal(toApp(mesh)?.body, 'hello');
  }
});

test('a large body that a server sees the beginning of is not held as a whole', async () => {
  const mesh = world({ provider: ', body: {maxBytes: 1000, allowPartial: true}' });
  const exchange = new FakeExchange({ method: 'POST', bodyBytes: undefined });
  await mesh.ask(exchange);
  const chunk = 'x'.repeat(16 << 10);
  for (let i = 0; i < 20; i++) {
    exchange.send(chunk);
    await new Promise((resolve) => setImmediate(resolve));
  }
  exchange.finish();
  for (let i = 0; i < 10; i++) await new Promise((resolve) => setImmediate(resolve));
  assert.equal(toServer(mesh)?.body.length, 1000);
  assert.equal(toApp(mesh)?.body.length, 20 * chunk.length);
  assert.equal(mesh.over.at(-1)?.request.body.replayable, false);
});

test('a gRPC server gets a body as text, or as bytes where the provider says so', async () => {
  for (const [pack, field] of [
    ['', 'body'],
    [', packAsBytes: true', 'rawBody'],
  ] as const) {
    let told: CheckRequest | undefined;
    const mesh = world({
      provider: `${GRPC}, body: {maxBytes: 100${pack}}`,
      server: (request) => {
        told = CheckRequest.decode(sent(request));
        check(request, {});
      },
    });
    const exchange = new FakeExchange({ method: 'POST', bodyBytes: 2 });
    exchange.send('hi');
    exchange.finish();
    await mesh.ask(exchange);
    for (let i = 0; i < 10; i++) await new Promise((resolve) => setImmediate(resolve));
    assert.equal(Buffer.from(told?.attributes?.request?.http?.[field] ?? '').toString(), 'hi');
    assert.equal(told?.attributes?.request?.http?.headers['x-envoy-auth-partial-body'], 'false');
  }
});
