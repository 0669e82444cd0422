/** What Telemetry makes of a waypoint's requests: labels, lines and spans that somebody asked for, and nothing where nobody did. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ProxyError } from '../../../common/base/errors.ts';
import { RefusalTally } from '../../../common/base/refusal-tally.ts';
import { parseSpiffeId } from '../../../common/base/spiffe.ts';
import { type ServiceTelemetry, SpanProtocol, type Tracing } from '../../../common/codec/gen/waypoint.ts';
import { ISTIO_TEXT_FORMAT } from '../../../common/decision/log-format.ts';
import { compileTelemetry } from '../../../common/decision/telemetry-model.ts';
import { AccessLog } from '../../../common/server/access-log.ts';
import { metricsText } from '../../../common/server/metrics-text.ts';
import { createSegment, SeriesReader, SeriesWriter } from '../../../common/server/shared-series.ts';
import { ClusterState } from '../../../waypoint/cluster/cluster-state.ts';
import { EndpointState } from '../../../waypoint/cluster/endpoint-state.ts';
import { type Connection, RequestContext } from '../../../waypoint/http/context.ts';
import type { Delivered } from '../../../waypoint/http/deliver.ts';
import { targetOf } from '../../../waypoint/inbound/hbone.ts';
import { metricFamilies } from '../../../waypoint/metrics.ts';
import { startSpan } from '../../../waypoint/telemetry/start-span.ts';
import { Telemetry } from '../../../waypoint/worker/telemetry.ts';
import { service, workload } from '../../support/builders.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { FakeExchange } from '../../support/waypoint-fakes.ts';

const orders = service({ name: 'orders', vips: ['10.96.0.1'] });
const ordersKey = 'shop/orders.shop.svc.cluster.local';
const web = workload({ name: 'web-1', workloadName: 'web', canonicalName: 'web', canonicalRevision: 'v1' });
const pod = workload({ name: 'orders-1', workloadName: 'orders-v2', canonicalName: 'orders', canonicalRevision: 'v2' });
const principal = 'spiffe://cluster.local/ns/shop/sa/web';

const said = (fields: Partial<ServiceTelemetry>): ServiceTelemetry => ({
  target: '*',
  metrics: [],
  accessLogs: undefined,
  tracing: undefined,
  ...fields,
});
const logger = { provider: 'envoy', stderr: false, omitEmptyValues: false, filter: '' };

function start(telemetry?: ServiceTelemetry, maxSeries = 10_000) {
  const clock = new FakeClock();
  const own: string[] = [];
  const stdout: string[] = [];
  const stderr: string[] = [];
  const spans: string[] = [];
  const reader = new SeriesReader(metricFamilies);
  const segment = createSegment(maxSeries);
  reader.attach(0, segment);
  const series = new SeriesWriter(segment, (announcement) => reader.announce(0, [announcement]));
  const access = new AccessLog({ output: { write: (line) => void own.push(line) }, format: 'json', level: 'info', now: () => clock.now() });
  const compiled = telemetry && compileTelemetry(telemetry, () => undefined);
  const counted = new Telemetry({
    series,
    access,
    clock,
    refusals: new RefusalTally(),
    events: { wanted: false, take: () => undefined },
    own: {
      of: (key) => (compiled && (compiled.target === '*' || compiled.target === key) ? compiled : undefined),
      identity: 'spiffe://cluster.local/ns/shop/sa/waypoint',
      stdout: { write: (line) => void stdout.push(line) },
      stderr: { write: (line) => void stderr.push(line) },
    },
    spans: { finished: (request) => void spans.push(request.span?.spanId ?? '') },
  });
  const text = (): string => metricsText(metricFamilies, reader.collect());
  const samples = (family: string): string[] =>
    text()
      .split('\n')
      .filter((line) => line.startsWith(`${family}{`) || line.startsWith(`${family} `));
  return { clock, telemetry: counted, samples, series, own, stdout, stderr, spans };
}

const connection: Connection = {
  caller: { address: { ip: '10.0.0.7', port: 4711 }, identity: parseSpiffeId(principal), principal, workload: web, baggage: undefined },
  target: targetOf({ service: orders, port: 80, ip: '10.96.0.1' }),
  local: { ip: '10.0.0.9', port: 15008 },
};
const endpoint = {
  key: `${ordersKey} orders-1`,
  workload: pod,
  service: orders,
  address: { ip: '10.0.0.1', port: 8080 },
  port: 8080,
  peers: [],
  load: new EndpointState(0),
  cluster: new ClusterState('shop/orders:80', 1, { ejected: () => undefined }),
};
const delivered: Delivered = {
  status: 200,
  bytes: 10,
  grpcStatus: undefined,
  messages: 0,
  fields: ['x-team', 'blue'],
  trailers: undefined,
};

function requestOf(clock: FakeClock, fields: string[] = [], path = '/a'): RequestContext {
  const request = new RequestContext(new FakeExchange({ path, fields }), connection, { wall: clock.now(), monotonic: clock.monotonic() });
  request.requestId = 'id-1';
  request.traceId = 'f'.repeat(32);
  request.backend = { service: orders, workload: undefined, port: 80, subset: '' };
  request.endpoint = endpoint;
  return request;
}

const change = (family: string, tags: Record<string, string>, disabled = false) => ({
  family,
  disabled,
  tags: Object.entries(tags).map(([name, expression]) => ({ name, expression })),
});

test('a tag is added, one has another value, and one is gone; the other metrics stay as they are', () => {
  const { clock, telemetry, samples } = start(
    said({
      metrics: [
        change('istio_requests_total', {
          request_host: 'request.host',
          destination_port: 'string(destination.port)',
          team: "response.headers['x-team']",
          source_app: "'fixed'",
          source_principal: '',
        }),
      ],
    }),
  );
  telemetry.requestOver(requestOf(clock), delivered);
  const [line = ''] = samples('istio_requests_total');
  assert.match(line, /request_host="orders"/);
  assert.match(line, /destination_port="80"/);
  assert.match(line, /team="blue"/);
  assert.match(line, /source_app="fixed"/);
  assert.doesNotMatch(line, /source_principal/);
  assert.match(samples('istio_request_bytes_count')[0] ?? '', /source_principal="spiffe/);
  assert.doesNotMatch(samples('istio_request_bytes_count')[0] ?? '', /request_host/);
});

test("a histogram's tags are on each of its parts, and its buckets keep their bounds", () => {
  const { clock, telemetry, samples } = start(
    said({ metrics: [change('istio_request_duration_milliseconds', { path: 'request.url_path' })] }),
  );
  telemetry.requestOver(requestOf(clock, [], '/a?b=c'), delivered);
  const buckets = samples('istio_request_duration_milliseconds_bucket');
  assert.equal(buckets.length, 20);
  assert.ok(buckets.every((line) => /path="\/a"/.test(line) && /le="/.test(line)));
  assert.match(samples('istio_request_duration_milliseconds_sum')[0] ?? '', /path="\/a"/);
});

test('a value that a request does not have is "unknown"', () => {
  const { clock, telemetry, samples } = start(said({ metrics: [change('istio_requests_total', { team: "request.headers['x-none']" })] }));
  telemetry.requestOver(requestOf(clock), delivered);
  assert.match(samples('istio_requests_total')[0] ?? '', /team="unknown"/);
});

test('metrics that are switched off are not there, and the others are', () => {
  const { clock, telemetry, samples } = start(
    said({ metrics: [change('istio_requests_total', {}, true), change('istio_request_duration_milliseconds', {}, true)] }),
  );
  telemetry.requestOver(requestOf(clock), delivered);
  assert.deepEqual([samples('istio_requests_total'), samples('istio_request_duration_milliseconds_count')], [[], []]);
  assert.equal(samples('istio_response_bytes_count').length, 1);
});

test('a tag with a value for each request fills the table up to its limit; the rest goes to "other" and is counted', () => {
  const { clock, telemetry, samples, series } = start(said({ metrics: [change('istio_requests_total', { path: 'request.path' })] }), 500);
  for (let i = 0; i < 3000; i++) telemetry.requestOver(requestOf(clock, [], `/${i}`), delivered);
  telemetry.flush();
  const found = samples('istio_requests_total');
  assert.ok(found.length <= 501, `${found.length} series`);
  assert.ok(found.some((line) => line.includes('reporter="other"')));
  assert.ok(series.overflowed > 1000);
  assert.equal(
    found.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0),
    3000,
    'nothing is lost',
  );
  assert.match(samples('warren_series_overflow_total')[0] ?? '', / [1-9]/);
});

test('a label is never longer than 256 characters', () => {
  const { clock, telemetry, samples } = start(said({ metrics: [change('istio_requests_total', { path: 'request.path' })] }));
  telemetry.requestOver(requestOf(clock, [], `/${'a'.repeat(5000)}`), delivered);
  assert.match(samples('istio_requests_total')[0] ?? '', /path="\/a{255}"/);
});

test("connections without HTTP have the changed labels too, and lines in Istio's form", () => {
  const { telemetry, samples, stdout, own } = start(
    said({
      metrics: [
        change('istio_tcp_connections_opened_total', { peer: 'filter_state.downstream_peer.workload' }),
        change('istio_tcp_sent_bytes_total', {}, true),
      ],
      accessLogs: {
        loggers: [
          {
            ...logger,
            format: { $case: 'text', value: '%RESPONSE_FLAGS% %BYTES_RECEIVED% %REQ(:PATH)% %REQUESTED_SERVER_NAME% %ROUTE_NAME%' },
          },
        ],
      },
    }),
  );
  const record = telemetry.tcpOpened(connection, endpoint, 'id', { serverName: 'db.example', routeName: 'TLSRoute shop/db' });
  record.running({ forward: 5, backward: 7 });
  record.ended(new ProxyError('CONNECTION_LOST', 'reset'));
  assert.match(samples('istio_tcp_connections_opened_total')[0] ?? '', /peer="web"\} 1$/);
  assert.deepEqual(samples('istio_tcp_sent_bytes_total'), []);
  assert.match(samples('istio_tcp_received_bytes_total')[0] ?? '', / 5$/);
  assert.deepEqual([stdout, own], [['UC 5 - db.example TLSRoute shop/db\n'], []]);
});

test("Istio's form takes the place of ours, and a filter takes only what it matches", () => {
  const { clock, telemetry, stdout, stderr, own } = start(
    said({
      accessLogs: {
        loggers: [
          { ...logger, filter: 'response.code >= 400', format: { $case: 'text', value: ISTIO_TEXT_FORMAT } },
          { ...logger, provider: 'json', stderr: true, format: { $case: 'json', value: '{"code":"%RESPONSE_CODE%"}' } },
        ],
      },
    }),
  );
  telemetry.requestOver(requestOf(clock), delivered);
  assert.deepEqual([stdout, stderr, own], [[], ['{"code":200}\n'], []]);
  const refused = requestOf(clock);
  refused.error = new ProxyError('POLICY_DENIED', 'no', { policy: 'shop/p' });
  telemetry.requestOver(refused, { ...delivered, status: 403 });
  assert.match(stdout[0] ?? '', /"GET \/a HTTP\/1\.1" 403 - rbac_access_denied/);
});

test('a filter that asks for what is not there takes nothing, and no logger at all is silence', () => {
  const filtered = start(
    said({ accessLogs: { loggers: [{ ...logger, filter: "request.headers['x'] == 'a'", format: { $case: 'text', value: 'x' } }] } }),
  );
  filtered.telemetry.requestOver(requestOf(filtered.clock), delivered);
  const silent = start(said({ accessLogs: { loggers: [] } }));
  silent.telemetry.requestOver(requestOf(silent.clock), delivered);
  assert.deepEqual([filtered.stdout, filtered.own, silent.stdout, silent.own], [[], [], [], []]);
});

test('without Telemetry everything is as it was: our own line, no facts, no spans', () => {
  const { clock, telemetry, own, stdout, spans, samples } = start();
  telemetry.requestOver(requestOf(clock), delivered);
  assert.deepEqual([own.length, stdout, spans], [1, [], []]);
  assert.equal(samples('istio_requests_total').length, 1);
});

test('what is said about one service is not said about another one', () => {
  const { clock, telemetry, own, stdout } = start(
    said({ target: 'shop/others', accessLogs: { loggers: [{ ...logger, format: { $case: 'text', value: 'x' } }] } }),
  );
  telemetry.requestOver(requestOf(clock), delivered);
  assert.deepEqual([own.length, stdout.length], [1, 0]);
});

const tracing: Tracing = {
  provider: 'otel',
  receiver: {
    to: { namespace: 'o', hostname: 'collector.o', port: 4317, subset: '' },
    protocol: SpanProtocol.OTLP_GRPC,
    path: '',
    timeoutMs: 1000,
    headers: [],
    maxTagLength: 256,
    shortTraceIds: false,
    b3: false,
    w3c: true,
    environmentResource: false,
    otelNames: false,
  },
  samplingPerMillion: 250_000,
  tags: [],
  istioTags: true,
  stopContext: false,
};
const spanOf = (fields: string[], random = 0.5, change: Partial<Tracing> = {}) => {
  const compiled = compileTelemetry(said({ tracing: { ...tracing, ...change } }), () => undefined).tracing;
  assert.ok(compiled);
  const span = startSpan(compiled, fields, { randomHex: (digits) => 'c'.repeat(digits), random: () => random });
  return { span, fields };
};
const T = '1'.repeat(32);
const S = '2'.repeat(16);

test('a request with a decision keeps it, one without is sampled at the rate that is set', () => {
  assert.equal(spanOf(['traceparent', `00-${T}-${S}-01`], 0.99).span.sampled, true);
  assert.equal(spanOf(['traceparent', `00-${T}-${S}-00`], 0).span.sampled, false);
  assert.deepEqual([spanOf([], 0.24).span.sampled, spanOf([], 0.26).span.sampled], [true, false]);
  assert.equal(spanOf([], 0, { samplingPerMillion: 0 }).span.sampled, false);
  assert.equal(spanOf([], 0.9999, { samplingPerMillion: 1_000_000 }).span.sampled, true);
});

test('a request goes on below our span, with its other headers untouched, and without any where contexts are to stop', () => {
  const { span, fields } = spanOf(['a', '1', 'traceparent', `00-${T}-${S}-01`, 'b', '2']);
  assert.deepEqual([span.traceId, span.parentId, span.spanId], [T, S, 'c'.repeat(16)]);
  assert.deepEqual(fields, ['a', '1', 'b', '2', 'traceparent', `00-${T}-${'c'.repeat(16)}-01`]);
  assert.deepEqual(spanOf(['a', '1', 'traceparent', `00-${T}-${S}-01`], 0, { stopContext: true }).fields, ['a', '1']);
});

test('a span is told of sampled requests only, once', () => {
  const { clock, telemetry, spans, own } = start(said({ tracing }));
  for (const fields of [
    ['traceparent', `00-${T}-${S}-01`],
    ['traceparent', `00-${T}-${S}-00`],
  ]) {
    const request = requestOf(clock, fields);
    request.span = spanOf(fields).span;
    telemetry.requestOver(request, delivered);
  }
  assert.deepEqual([spans, own.length], [['c'.repeat(16)], 2]);
});
