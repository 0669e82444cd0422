import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ProxyError } from '../../../common/base/errors.ts';
import { FakeExchange, pipelineWorld, type ReceivedRequest } from '../../support/waypoint-fakes.ts';

const HOST = 'orders.shop.svc.cluster.local';
const rule = (text: string): string => `
routes:
- {namespace: shop, hostname: ${HOST}, ports: [{port: 80, table: [{rule: 0}], rules: [
  {name: r, ${text}, backends: [{to: {namespace: shop, hostname: ${HOST}, port: 80}}]}]}]}`;

const fail = (request: ReceivedRequest, code: 'CONNECTION_LOST' | 'HTTP2_FAILURE', unsent: boolean): void =>
  request.listener.failed(new ProxyError(code, 'broken'), unsent);

const post = (): FakeExchange => {
  const exchange = new FakeExchange({ method: 'POST', bodyBytes: 4 });
  exchange.send('body');
  exchange.finish();
  return exchange;
};

test('an endpoint that cannot be reached is passed over without anybody asking for it, whatever the method', async () => {
  const world = pipelineWorld((request) => request.answer(200));
  world.unreachable.add('orders-2').add('orders-3');
  const exchange = await world.ask(post());
  assert.equal(exchange.response?.status, 200);
  assert.deepEqual(
    world.requests.map(({ endpoint, body }) => [endpoint, body]),
    [['orders-1', 'body']],
  );
  assert.equal(world.retries, 2);
});

test('when no endpoint can be reached, each has been tried once and the answer is 503', async () => {
  const world = pipelineWorld((request) => request.answer(200));
  for (const name of ['orders-1', 'orders-2', 'orders-3']) world.unreachable.add(name);
  const exchange = await world.ask(new FakeExchange());
  assert.equal(exchange.response?.status, 503);
  assert.match(exchange.field('x-warren-refusal') ?? '', /^code=UPSTREAM_CONNECT/);
  assert.equal(world.over[0]?.request.attempts, 3);
});

test('a request that an endpoint refused before it handled it goes elsewhere with its whole body', async () => {
  const world = pipelineWorld((request, number) => (number === 1 ? fail(request, 'CONNECTION_LOST', true) : request.answer(200)));
  const exchange = await world.ask(post());
  assert.equal(exchange.response?.status, 200);
  assert.notEqual(world.requests[0]?.endpoint, world.requests[1]?.endpoint);
  assert.deepEqual([world.requests[1]?.body, world.requests[1]?.bodyEnded], ['body', true]);
});

test('a request that may have been handled is not sent again without a policy', async () => {
  const world = pipelineWorld((request) => fail(request, 'CONNECTION_LOST', false));
  const exchange = await world.ask(post());
  assert.deepEqual([exchange.response?.status, world.requests.length], [503, 1]);
});

test('an idle connection that broke under a request costs one more attempt where the method is idempotent, and none for a POST', async () => {
  const script = (request: ReceivedRequest, number: number): void =>
    number === 1 ? fail(request, 'CONNECTION_LOST', false) : request.answer(200);
  const get = pipelineWorld(script);
  get.reuse = true;
  assert.equal((await get.ask(new FakeExchange())).response?.status, 200);
  assert.equal(get.requests.length, 2);
  const posted = pipelineWorld(script);
  posted.reuse = true;
  assert.equal((await posted.ask(post())).response?.status, 503);
});

test('that attempt is one of those that the route allows, where it would ask again by itself', async () => {
  const world = pipelineWorld((request) => fail(request, 'CONNECTION_LOST', false), rule('retry: {attempts: 2, backoffMs: 10}'));
  world.reuse = true;
  const asked = world.ask(new FakeExchange());
  for (let i = 0; i < 10; i++) await world.clock.advance(1000);
  assert.equal((await asked).response?.status, 503);
  assert.equal(world.requests.length, 3);
});

test('a pool full of connections that the only endpoint has closed does not fail a POST that never left', async () => {
  const world = pipelineWorld((request, number) => (number === 1 ? fail(request, 'CONNECTION_LOST', true) : request.answer(200)), '{}', {
    pods: 1,
  });
  world.reuse = true;
  assert.equal((await world.ask(post())).response?.status, 200);
});

test("a status that the route's policy names is retried after its back-off, which doubles, as often as it says", async () => {
  const world = pipelineWorld((request) => request.answer(503, 'no'), rule('retry: {attempts: 2, statusCodes: [503], backoffMs: 100}'));
  const exchange = await world.ask(new FakeExchange());
  assert.equal(world.requests.length, 1);
  await world.clock.advance(99);
  assert.equal(world.requests.length, 1);
  await world.clock.advance(1);
  assert.equal(world.requests.length, 2);
  await world.clock.advance(199);
  assert.equal(world.requests.length, 2);
  await world.clock.advance(1);
  assert.equal(world.requests.length, 3);
  await world.clock.advance(10_000);
  assert.deepEqual([world.requests.length, exchange.response?.status, exchange.received], [3, 503, 'no']);
});

test('a status that the policy does not name is the answer', async () => {
  const world = pipelineWorld((request) => request.answer(500), rule('retry: {attempts: 2, statusCodes: [503]}'));
  assert.equal((await world.ask(new FakeExchange())).response?.status, 500);
  assert.equal(world.requests.length, 1);
});

test('under a policy a lost connection is retried too, elsewhere', async () => {
  const world = pipelineWorld(
    (request, number) => (number === 1 ? fail(request, 'CONNECTION_LOST', false) : request.answer(200)),
    rule('retry: {attempts: 1, statusCodes: [503]}'),
  );
  const exchange = await world.ask(post());
  await world.clock.advance(25);
  assert.equal(exchange.response?.status, 200);
  assert.notEqual(world.requests[0]?.endpoint, world.requests[1]?.endpoint);
});

test('reset-before-request retries what was not sent, and nothing that may have been handled', async () => {
  const sent = (unsent: boolean) =>
    pipelineWorld(
      (request, number) => (number === 1 ? fail(request, 'CONNECTION_LOST', unsent) : request.answer(200)),
      rule('retry: {attempts: 1, conditions: [reset-before-request], backoffMs: 1}'),
    );
  const handled = sent(false);
  assert.equal((await handled.ask(post())).response?.status, 503);
  assert.equal(handled.requests.length, 1);
  const unsent = sent(true);
  assert.equal((await unsent.ask(post())).response?.status, 200);
});

test('a body that is longer than what is kept is sent once only', async () => {
  const world = pipelineWorld((request) => request.answer(503), rule('retry: {attempts: 3, statusCodes: [503]}'));
  const exchange = new FakeExchange({ method: 'PUT', bodyBytes: undefined });
  exchange.send('x'.repeat(70_000));
  exchange.finish();
  await world.ask(exchange);
  assert.deepEqual([exchange.response?.status, world.requests.length], [503, 1]);
});

test('a body of which the rest comes later is replayed from its start, and then goes on', async () => {
  const world = pipelineWorld((request, number) => {
    if (number === 1) request.answer(503);
  }, rule('retry: {attempts: 1, statusCodes: [503], backoffMs: 10}'));
  const exchange = new FakeExchange({ method: 'PUT', bodyBytes: undefined });
  exchange.send('first ');
  await world.ask(exchange);
  await world.clock.advance(10);
  exchange.send('second');
  exchange.finish(['x-sum', '1']);
  assert.deepEqual(
    world.requests.map(({ body, bodyEnded }) => [body, bodyEnded]),
    [
      ['first ', false],
      ['first second', true],
    ],
  );
});

test("the route's time for a request ends it wherever it is: 504 before a response, and the attempt is given up", async () => {
  const world = pipelineWorld(() => undefined, rule('requestTimeoutMs: 500, retry: {attempts: 5, statusCodes: [503]}'));
  const exchange = await world.ask(new FakeExchange());
  await world.clock.advance(499);
  assert.equal(exchange.response?.status, undefined);
  await world.clock.advance(1);
  assert.equal(exchange.response?.status, 504);
  assert.equal(exchange.ended, true, 'the answer is whole');
  assert.match(exchange.field('x-warren-refusal') ?? '', /^code=REQUEST_TIMEOUT/);
  assert.deepEqual([world.requests.length, world.requests[0]?.aborted?.code], [1, 'REQUEST_TIMEOUT']);
});

test('time that ends between two attempts ends the wait', async () => {
  const world = pipelineWorld(
    (request) => request.answer(503),
    rule('requestTimeoutMs: 50, retry: {attempts: 5, statusCodes: [503], backoffMs: 1000}'),
  );
  const exchange = await world.ask(new FakeExchange());
  await world.clock.advance(50);
  assert.deepEqual([exchange.response?.status, world.requests.length], [504, 1]);
});

test('time that ends within a response cuts it off', async () => {
  const world = pipelineWorld((request) => {
    request.listener.response(
      { status: 200, fields: [], bodyBytes: undefined },
      { into: (sink) => void sink.data(Buffer.from('begun')), resume: () => undefined, cancel: () => undefined },
    );
  }, rule('requestTimeoutMs: 500'));
  const exchange = await world.ask(new FakeExchange());
  assert.equal(exchange.received, 'begun');
  await world.clock.advance(500);
  assert.deepEqual([exchange.ended, exchange.aborted?.code], [false, 'REQUEST_TIMEOUT']);
  assert.deepEqual(
    world.over.map(({ delivered }) => delivered.status),
    [200],
  );
});

test('time for one attempt leads to another one where the policy has some left, and to 504 where not', async () => {
  const world = pipelineWorld((request, number) => {
    if (number > 1) request.answer(200);
  }, rule('backendTimeoutMs: 100, retry: {attempts: 1, statusCodes: [503], backoffMs: 10}'));
  const exchange = await world.ask(new FakeExchange());
  await world.clock.advance(110);
  assert.deepEqual([exchange.response?.status, world.requests[0]?.aborted?.code], [200, 'REQUEST_TIMEOUT']);
  const alone = pipelineWorld(() => undefined, rule('backendTimeoutMs: 100'));
  const late = await alone.ask(new FakeExchange());
  await alone.clock.advance(100);
  assert.equal(late.response?.status, 504);
});

test('nothing of a request is left when it is over: no timer, no request under way at an endpoint', async () => {
  const world = pipelineWorld(
    (request) => request.answer(200),
    rule('requestTimeoutMs: 500, backendTimeoutMs: 100, retry: {attempts: 1, statusCodes: [503]}'),
  );
  await world.ask(new FakeExchange());
  assert.equal(world.clock.pending, 0);
  assert.deepEqual(
    world.over.map(({ request }) => request.endpoint?.load.active),
    [0],
  );
});
