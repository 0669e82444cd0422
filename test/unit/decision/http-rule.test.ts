import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Cors, HttpRule, Retry, ValueMatch } from '../../../common/codec/gen/waypoint.ts';
import { compileRegex } from '../../../common/decision/http-model.ts';
import { compilePlan, decideCors, isChosen, isRetryCondition } from '../../../common/decision/http-rule.ts';

const plan = (more: Partial<HttpRule>) =>
  compilePlan({ name: 'r', mirrors: [], requestTimeoutMs: 0, backendTimeoutMs: 0, backends: [], ...more }, compileRegex);

const origin = (value: string, kind: 'exact' | 'regex' = 'exact'): ValueMatch => ({ name: '', type: { $case: kind, value } });

const cors = (more: Partial<Cors>) => {
  const made = plan({
    cors: {
      allowOrigins: [],
      allowMethods: [],
      allowHeaders: [],
      exposeHeaders: [],
      maxAgeS: 0,
      allowCredentials: false,
      answerAllPreflights: false,
      ...more,
    },
  }).cors;
  return made ?? assert.fail('no CORS');
};

const asked =
  (fields: Record<string, string>, method = 'OPTIONS') =>
  (of: Parameters<typeof decideCors>[0]) =>
    decideCors(of, method, (name) => fields[name]);

test('a preflight of an allowed origin is answered with what is allowed', () => {
  const preflight = asked({ origin: 'https://a.example', 'access-control-request-method': 'PUT', 'access-control-request-headers': 'x-a' });
  const allowed = cors({
    allowOrigins: [origin('https://a.example')],
    allowMethods: ['GET', 'PUT'],
    allowHeaders: ['x-a', 'x-b'],
    maxAgeS: 60,
    allowCredentials: true,
  });
  assert.deepEqual(preflight(allowed), {
    preflight: [
      ...['access-control-allow-origin', 'https://a.example', 'access-control-allow-credentials', 'true'],
      ...['access-control-allow-methods', 'GET,PUT', 'access-control-allow-headers', 'x-a,x-b', 'access-control-max-age', '60'],
    ],
  });
  const anything = cors({ allowOrigins: [origin('*')], allowMethods: ['*'], allowHeaders: ['*'] });
  assert.deepEqual(preflight(anything), {
    preflight: ['access-control-allow-origin', '*', 'access-control-allow-methods', 'PUT', 'access-control-allow-headers', 'x-a'],
  });
  const exposing = cors({ allowOrigins: [origin('*')], exposeHeaders: ['x-id', 'x-b'] });
  assert.deepEqual(preflight(exposing), {
    preflight: ['access-control-allow-origin', '*', 'access-control-expose-headers', 'x-id,x-b'],
  });
});

test('a preflight of a foreign origin goes on to the backend, or is answered without anything that allows it', () => {
  const preflight = asked({ origin: 'https://evil.example', 'access-control-request-method': 'PUT' });
  assert.equal(preflight(cors({ allowOrigins: [origin('https://.*\\.good', 'regex')] })), 'none');
  assert.deepEqual(preflight(cors({ allowOrigins: [origin('https://a')], answerAllPreflights: true })), { preflight: [] });
});

test('a request of an allowed origin gets fields for its response, any other none', () => {
  const made = cors({ allowOrigins: [origin('https://[a-z]+\\.good', 'regex')], exposeHeaders: ['x-id'] });
  assert.deepEqual(asked({ origin: 'https://a.good' }, 'GET')(made), {
    fields: ['access-control-allow-origin', 'https://a.good', 'access-control-expose-headers', 'x-id'],
  });
  assert.equal(asked({ origin: 'https://a.good.evil' }, 'GET')(made), 'none');
  assert.equal(asked({}, 'GET')(made), 'none');
  assert.equal(asked({ origin: 'https://a.good' })(made) !== 'none', true, 'OPTIONS without a method asked for is no preflight');
});

test("Envoy's words for retries become statuses, gRPC statuses and kinds of failures", () => {
  const retry = (more: Partial<Retry>) =>
    plan({ retry: { attempts: 2, statusCodes: [], backoffMs: 0, conditions: [], sameEndpoint: false, ...more } }).retry;
  const gateway = retry({ conditions: ['gateway-error'], statusCodes: [418] });
  assert.deepEqual([...(gateway?.statuses ?? [])], [418, 502, 503, 504]);
  assert.deepEqual([gateway?.onConnectFailure, gateway?.onReset], [true, true]);
  const grpc = retry({ conditions: ['unavailable', 'cancelled'] });
  assert.deepEqual([[...(grpc?.grpcStatuses ?? [])], grpc?.onReset, grpc?.onConnectFailure], [['14', '1'], false, false]);
  const failures = (word: string) => {
    const made = retry({ conditions: [word] });
    return [[...(made?.statuses ?? [])].length, [...(made?.grpcStatuses ?? [])].join(), made?.onConnectFailure, made?.onReset];
  };
  assert.deepEqual(failures('5xx'), [100, '', true, true]);
  assert.deepEqual(failures('reset'), [0, '', true, true]);
  assert.deepEqual(failures('connect-failure'), [0, '', true, false]);
  assert.deepEqual(failures('refused-stream'), [0, '', true, false]);
  assert.deepEqual(failures('reset-before-request'), [0, '', true, false], 'a request that was sent is not sent again');
  assert.deepEqual(failures('retriable-4xx'), [1, '', false, false]);
  assert.deepEqual(failures('envoy-ratelimited'), [1, '', false, false]);
  assert.deepEqual(
    ['deadline-exceeded', 'resource-exhausted', 'internal'].map((word) => failures(word)[1]),
    ['4', '8', '13'],
  );
  const plain = retry({ statusCodes: [500] });
  assert.deepEqual([plain?.onConnectFailure, plain?.onReset], [true, true], 'the Gateway API says codes alone');
  assert.deepEqual(
    [isRetryCondition('5xx'), isRetryCondition('constructor'), isRetryCondition('http3-post-connect-failure')],
    [true, false, false],
  );
});

test('so many of a million are chosen', () => {
  assert.deepEqual(
    [isChosen(0, () => 0), isChosen(500_000, () => 0.49), isChosen(500_000, () => 0.5), isChosen(1_000_000, () => 0.999)],
    [false, true, false, true],
  );
});
