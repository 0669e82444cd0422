/** Lines of access logs in formats that users write. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  compileFormatter,
  compileJsonFormat,
  compileTextFormat,
  ISTIO_JSON_FORMAT,
  ISTIO_TEXT_FORMAT,
} from '../../../common/decision/log-format.ts';
import { flagBits } from '../../../common/decision/telemetry-facts.ts';
import { factsOf } from '../../support/telemetry-facts.ts';

const plain = { omitEmptyValues: false, environment: (name: string) => (name === 'POD_NAME' ? 'waypoint-1' : undefined) };
const line = (format: string, facts = factsOf()): string => compileTextFormat(format, plain)(facts);
const refusal = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    return (error as Error).message;
  }
  return 'accepted';
};

test("Istio's text format has its fields in its order", () => {
  const facts = factsOf({ headers: { 'user-agent': 'curl/8', 'x-request-id': 'id-1', 'x-forwarded-for': '10.0.0.7' } });
  assert.equal(
    line(ISTIO_TEXT_FORMAT, facts),
    '[2026-11-21T19:05:07.089Z] "GET /orders?id=1 HTTP/1.1" 200 - via_upstream - "-" 0 42 12 10 "10.0.0.7" "curl/8" "id-1" "orders" ' +
      '"10.0.0.1:8080" inbound-vip|80|http|orders.shop.svc.cluster.local - 10.96.0.1:80 10.0.0.7:4711 - default\n',
  );
});

test("Istio's JSON format has numbers where there are numbers, and null where there is nothing", () => {
  const made = JSON.parse(compileJsonFormat(ISTIO_JSON_FORMAT, plain)(factsOf({ responseFlags: 'UF', responseCode: 503 }))) as Record<
    string,
    unknown
  >;
  assert.deepEqual(Object.keys(made), Object.keys(ISTIO_JSON_FORMAT));
  assert.deepEqual(
    [made.response_code, made.response_flags, made.duration, made.user_agent, made.start_time, made.bytes_sent],
    [503, 'UF', 12, null, '2026-11-21T19:05:07.089Z', 42],
  );
});

test('values that are missing are left out where that is asked for, and texts beside operators stay', () => {
  const omit = { ...plain, omitEmptyValues: true };
  const labels = { a: '%REQ(X-NONE)%', b: 'x%REQ(X-NONE)%y', c: { d: '%RESPONSE_CODE%', e: [1, '%PROTOCOL%', true] } };
  assert.equal(compileJsonFormat(labels, omit)(factsOf()), '{"b":"xy","c":{"d":200,"e":[1,"HTTP/1.1",true]}}\n');
  assert.equal(compileTextFormat('[%REQ(X-NONE)%]', omit)(factsOf()), '[]\n');
});

const operators: readonly (readonly [format: string, value: string])[] = [
  ['%REQ(X-A?X-B)%', 'b'],
  ['%REQ(:AUTHORITY)% %REQ(:SCHEME)% %REQ(Host)%', 'orders http orders'],
  ['%REQ_WITHOUT_QUERY(:PATH)%', '/orders'],
  ['%REQ(:PATH):4%', '/ord'],
  ['%RESP(X-FROM)% %RESP(:STATUS)%', 'app 200'],
  ['%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%', '10'],
  ['%START_TIME(%Y/%m/%dT%H:%M:%S.%3f %s %Z)%', '2026/11/21T19:05:07.089 1795287907 UTC'],
  ['%START_TIME(%E3S %b %e %a)%', '07.089 Nov 21 Sat'],
  ['%ENVIRONMENT(POD_NAME)% %ENVIRONMENT(NONE)%', 'waypoint-1 -'],
  ['%CEL(response.code >= 200 ? "fine" : "bad")%', 'fine'],
  ["%CEL(request.headers['x-b'])%|%CEL(request.headers['x-none'])%", 'b|-'],
  ['%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_LOCAL_PORT% %UPSTREAM_REMOTE_PORT%', '10.0.0.7 80 8080'],
  ['%DOWNSTREAM_PEER_URI_SAN%', 'spiffe://cluster.local/ns/shop/sa/web'],
  ['100%% %RESPONSE_TX_DURATION%', '100% 2'],
];

for (const [format, value] of operators)
  test(`${format} is ${value}`, () =>
    assert.equal(line(format, factsOf({ headers: { 'x-b': 'b' }, answered: { 'x-from': 'app' } })), `${value}\n`));

test('a length cuts text, and what is refused or failed names its code and policy', () => {
  const facts = factsOf({ code: 'POLICY_DENIED', policy: 'shop/deny', grpcStatus: 7 });
  assert.equal(line('%TRACE_ID:4%', facts), 'aaaa\n');
  assert.equal(
    line('%DYNAMIC_METADATA(warren:code)% %DYNAMIC_METADATA(warren:policy)% %GRPC_STATUS% %GRPC_STATUS_NUMBER%', facts),
    'POLICY_DENIED shop/deny PermissionDenied 7\n',
  );
});

test("a caller's line end or control character does not begin a line of its own", () => {
  assert.equal(line('%REQ(X)%', factsOf({ headers: { x: 'a\n[fake]\x1b[2J' } })), 'a\\x0a[fake]\\x1b[2J\n');
  assert.equal(compileJsonFormat({ x: '%REQ(X)%' }, plain)(factsOf({ headers: { x: 'a\n"b' } })), '{"x":"a\\n\\"b"}\n');
});

test('an operator that is not known is refused by its name and place', () => {
  assert.equal(
    refusal(() => line('a %FOO% b')),
    'at character 3: %FOO% is not known',
  );
  assert.equal(
    refusal(() => line('%FILTER_STATE(wasm.peer)%')),
    'at character 1: %FILTER_STATE% is not known',
  );
  assert.equal(
    refusal(() => line('%REQ%')),
    'at character 1: %REQ% takes an argument in parentheses',
  );
  assert.equal(
    refusal(() => line('%PROTOCOL(x)%')),
    'at character 1: %PROTOCOL% takes no argument',
  );
  assert.equal(
    refusal(() => line('50% of')),
    'at character 3: no operator ends here, and % alone is written %%',
  );
  assert.equal(
    refusal(() => line('%START_TIME(%Q)%')),
    'at character 1: %START_TIME(%Q)%: there is no %Q',
  );
  assert.equal(
    refusal(() => line('%CEL(foo.bar)%')),
    'at character 1: at character 1: there is no attribute foo',
  );
  assert.equal(
    refusal(() => line('%DYNAMIC_METADATA(x:y)%')),
    'at character 1: %DYNAMIC_METADATA(x:y)% is not known: there are warren:code and warren:policy',
  );
  assert.equal(
    refusal(() => compileJsonFormat({ a: { b: '%NOPE%' } }, plain)),
    'a.b: at character 1: %NOPE% is not known',
  );
  assert.match(
    refusal(() => line('x'.repeat(20_000))),
    /longer than 16384/,
  );
  assert.match(
    refusal(() => compileJsonFormat({ a: Array(300).fill('x') }, plain)),
    /more than 200 values/,
  );
});

test('a tag of a span made of a format is empty where all of it is missing', () => {
  assert.equal(compileFormatter('%REQ(X)%', () => undefined)(factsOf()), '');
  assert.equal(compileFormatter('%PROTOCOL%', () => undefined)(factsOf()), 'HTTP/1.1');
});

test("flags are Envoy's bits", () => assert.deepEqual(['-', 'UH', 'UF', 'NR', 'UF,URX'].map(flagBits), [0, 2, 32, 256, 32 | 32_768]));
