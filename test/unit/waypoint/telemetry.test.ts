/** Numbers and lines of a request, as Istio's dashboards and log readers expect them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ProxyError } from '../../../common/base/errors.ts';
import { RefusalTally } from '../../../common/base/refusal-tally.ts';
import { parseSpiffeId } from '../../../common/base/spiffe.ts';
import { parseBaggage } from '../../../common/decision/headers.ts';
import type { TrafficEvent } from '../../../common/decision/traffic-event.ts';
import { AccessLog } from '../../../common/server/access-log.ts';
import { metricsText } from '../../../common/server/metrics-text.ts';
import { createSegment, SeriesReader, SeriesWriter } from '../../../common/server/shared-series.ts';
import { ClusterState } from '../../../waypoint/cluster/cluster-state.ts';
import { EndpointState } from '../../../waypoint/cluster/endpoint-state.ts';
import { type Connection, RequestContext } from '../../../waypoint/http/context.ts';
import { targetOf } from '../../../waypoint/inbound/hbone.ts';
import { metricFamilies } from '../../../waypoint/metrics.ts';
import { Telemetry } from '../../../waypoint/worker/telemetry.ts';
import { service, workload } from '../../support/builders.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { FakeExchange } from '../../support/waypoint-fakes.ts';

const orders = service({ name: 'orders', vips: ['10.96.0.1'] });
const web = workload({ name: 'web-1', workloadName: 'web', canonicalName: 'web', canonicalRevision: 'v1' });
const pod = workload({
  name: 'orders-1',
  serviceAccount: 'orders',
  workloadName: 'orders-v2',
  canonicalName: 'orders',
  canonicalRevision: 'v2',
});

function start() {
  const clock = new FakeClock();
  const lines: Record<string, unknown>[] = [];
  const reader = new SeriesReader(metricFamilies);
  const segment = createSegment(10_000);
  reader.attach(0, segment);
  const series = new SeriesWriter(segment, (announcement) => reader.announce(0, [announcement]));
  const access = new AccessLog({
    output: { write: (line) => void lines.push(JSON.parse(line)) },
    format: 'json',
    level: 'info',
    now: () => clock.now(),
  });
  const refusals = new RefusalTally();
  const events = { wanted: false, taken: [] as TrafficEvent[], take: (event: TrafficEvent) => void events.taken.push(event) };
  const telemetry = new Telemetry({ series, access, clock, refusals, events });
  const text = async (): Promise<string> => metricsText(metricFamilies, reader.collect());
  /** Labels and value of a family's samples that have this text. */
  const samples = async (start: string, having = ''): Promise<string[]> =>
    (await text()).split('\n').filter((line) => line.startsWith(start) && line.includes(having));
  return { clock, lines, telemetry, samples, refusals, events };
}

const principal = 'spiffe://cluster.local/ns/shop/sa/web';
const connectionOf = (fields: Partial<Connection['caller']> = {}): Connection => ({
  caller: {
    address: { ip: '10.0.0.7', port: 4711 },
    identity: parseSpiffeId(principal),
    principal,
    workload: web,
    baggage: undefined,
    ...fields,
  },
  target: targetOf({ service: orders, port: 80, ip: '10.96.0.1' }),
  local: { ip: '10.0.0.9', port: 15008 },
});

function requestOf(
  clock: FakeClock,
  connection = connectionOf(),
  exchange = new FakeExchange({ path: '/a', fields: ['user-agent', 'curl'] }),
): RequestContext {
  const request = new RequestContext(exchange, connection, { wall: clock.now(), monotonic: clock.monotonic() });
  request.traceId = 'f'.repeat(32);
  request.requestId = 'id-1';
  request.backend = { service: orders, workload: undefined, port: 80, subset: '' };
  request.endpoint = {
    key: 'shop/orders orders-1',
    workload: pod,
    service: orders,
    address: { ip: '10.0.0.1', port: 8080 },
    port: 8080,
    peers: [],
    load: new EndpointState(0),
    cluster: new ClusterState('shop/orders:80', 1, { ejected: () => undefined }),
  };
  return request;
}

test('a request has all labels of Istio: who asked as the tunnel proved it, and the pod that answered', async () => {
  const { clock, telemetry, samples } = start();
  telemetry.requestStarted();
  telemetry.requestOver(requestOf(clock), { status: 200, bytes: 10, grpcStatus: undefined, messages: 0, fields: [], trailers: undefined });
  assert.deepEqual(await samples('istio_requests_total'), [
    'istio_requests_total{reporter="waypoint",source_workload="web",source_canonical_service="web",source_canonical_revision="v1",' +
      `source_workload_namespace="shop",source_principal="${principal}",source_app="web",source_version="v1",source_cluster="Kubernetes",` +
      'destination_service="orders.shop.svc.cluster.local",destination_service_namespace="shop",destination_service_name="orders",' +
      'destination_workload="orders-v2",destination_canonical_service="orders",destination_canonical_revision="v2",' +
      'destination_workload_namespace="shop",destination_principal="spiffe://cluster.local/ns/shop/sa/orders",destination_app="orders",' +
      'destination_version="v2",destination_cluster="Kubernetes",connection_security_policy="mutual_tls",request_protocol="http",' +
      'response_code="200",response_flags="-"} 1',
  ]);
});

test('durations and sizes go into buckets that add up', async () => {
  const { clock, telemetry, samples } = start();
  for (const [durationMs, bytes] of [
    [3, 0],
    [30, 700],
  ] as const) {
    telemetry.requestStarted();
    const request = requestOf(clock);
    await clock.advance(durationMs);
    telemetry.requestOver(request, { status: 200, bytes, grpcStatus: undefined, messages: 0, fields: [], trailers: undefined });
  }
  const bucket = async (family: string, le: string): Promise<number> =>
    Number((await samples(`${family}_bucket`, `le="${le}"`))[0]?.split(' ').at(-1));
  const duration = 'istio_request_duration_milliseconds';
  assert.deepEqual(
    [
      await bucket(duration, '1'),
      await bucket(duration, '5'),
      await bucket(duration, '25'),
      await bucket(duration, '50'),
      await bucket(duration, '+Inf'),
    ],
    [0, 1, 1, 2, 2],
  );
  assert.deepEqual([await bucket('istio_response_bytes', '0.5'), await bucket('istio_response_bytes', '1000')], [1, 2]);
  assert.match((await samples(`${duration}_sum`))[0] ?? '', / 33$/);
  assert.match((await samples(`${duration}_count`))[0] ?? '', / 2$/);
});

test('a gRPC call carries its status; what an application makes up as a status is "other"', async () => {
  const { clock, telemetry, samples } = start();
  for (const grpcStatus of ['5', 'evil-1', 'evil-2']) {
    const exchange = new FakeExchange({ version: '2', fields: ['content-type', 'application/grpc'] });
    telemetry.requestOver(requestOf(clock, connectionOf(), exchange), {
      status: 200,
      bytes: 0,
      grpcStatus,
      messages: 3,
      fields: [],
      trailers: undefined,
    });
  }
  assert.match((await samples('istio_response_messages_total'))[0] ?? '', /grpc_response_status="5".* 3$/);
  const found = await samples('istio_requests_total', 'request_protocol="grpc"');
  assert.match(found[0] ?? '', /grpc_response_status="5".* 1$/);
  assert.match(found[1] ?? '', /grpc_response_status="other".* 2$/);
  assert.equal(found.length, 2);
});

test('a refusal has its flag and is counted by code and policy; a client that left is 0 and DC', async () => {
  const { clock, telemetry, samples, lines, refusals } = start();
  const refused = requestOf(clock);
  refused.endpoint = undefined;
  refused.error = new ProxyError('POLICY_DENIED', 'explicitly denied by: shop/p', { policy: 'shop/p' });
  telemetry.requestOver(refused, { status: 403, bytes: 19, grpcStatus: undefined, messages: 0, fields: [], trailers: undefined });
  const left = requestOf(clock);
  left.error = new ProxyError('CLIENT_GONE', 'left');
  telemetry.requestOver(left, { status: 200, bytes: 0, grpcStatus: undefined, messages: 0, fields: [], trailers: undefined });
  const unreachable = requestOf(clock);
  unreachable.error = new ProxyError('UPSTREAM_CONNECT', 'refused');
  telemetry.requestOver(unreachable, { status: 503, bytes: 0, grpcStatus: undefined, messages: 0, fields: [], trailers: undefined });
  assert.match(
    (await samples('istio_requests_total', 'response_code="403"'))[0] ?? '',
    /destination_workload="unknown".*response_flags="-"\} 1/,
  );
  assert.match((await samples('istio_requests_total', 'response_code="0"'))[0] ?? '', /response_flags="DC"\} 1/);
  assert.match((await samples('istio_requests_total', 'response_code="503"'))[0] ?? '', /response_flags="UF"\} 1/);
  assert.deepEqual(await samples('warren_refusals_total', 'shop/p'), ['warren_refusals_total{code="POLICY_DENIED",policy="shop/p"} 1']);
  assert.deepEqual(
    lines.map((line) => [line.level, line.response_code, line.response_flags, line['warren.code']]),
    [
      ['error', 403, '-', 'POLICY_DENIED'],
      ['info', 0, 'DC', 'CLIENT_GONE'],
      ['error', 503, 'UF', 'UPSTREAM_CONNECT'],
    ],
  );
  assert.deepEqual(
    refusals.take().map(({ code, source, destination }) => [code, source, destination]),
    [
      ['POLICY_DENIED', 'shop/web-1', 'orders.shop.svc.cluster.local'],
      ['UPSTREAM_CONNECT', 'shop/web-1', 'orders.shop.svc.cluster.local'],
    ],
    'a client that left is nobody to report',
  );
  assert.equal(lines[2]?.upstream_transport_failure_reason, 'refused');
});

test('a caller whose address says nothing is described by its baggage', async () => {
  const { clock, telemetry, samples } = start();
  const baggage = parseBaggage([
    'k8s.cluster.name=c2,k8s.namespace.name=far,k8s.deployment.name=remote,service.name=svc,service.version=v9',
  ]);
  telemetry.requestOver(requestOf(clock, connectionOf({ workload: undefined, baggage })), {
    status: 200,
    bytes: 0,
    grpcStatus: undefined,
    messages: 0,
    fields: [],
    trailers: undefined,
  });
  assert.match(
    (await samples('istio_requests_total'))[0] ?? '',
    /source_workload="remote",source_canonical_service="svc",source_canonical_revision="v9",source_workload_namespace="far".*source_cluster="c2"/,
  );
});

test("a line has Istio's keys, and behind them the identities and the id", () => {
  const { clock, telemetry, lines } = start();
  telemetry.requestOver(requestOf(clock), { status: 200, bytes: 10, grpcStatus: undefined, messages: 0, fields: [], trailers: undefined });
  const [line] = lines;
  assert.deepEqual(
    Object.keys(line ?? {}).filter((key) => !['level', 'time', 'scope', 'message'].includes(key)),
    [
      'start_time',
      'route_name',
      'method',
      'path',
      'protocol',
      'response_code',
      'response_flags',
      'response_code_details',
      'bytes_received',
      'bytes_sent',
      'duration',
      'user_agent',
      'request_id',
      'authority',
      'upstream_host',
      'upstream_cluster',
      'downstream_local_address',
      'downstream_remote_address',
      'src.identity',
      'src.workload',
      'src.namespace',
      'dst.service',
      'dst.workload',
      'dst.namespace',
      'dst.identity',
      'id',
    ],
  );
  assert.deepEqual([line?.upstream_host, line?.downstream_local_address, line?.request_id], ['10.0.0.1:8080', '10.96.0.1:80', 'id-1']);
});

test('bytes of a connection count while it is open, and its end once', async () => {
  const { clock, telemetry, samples, lines } = start();
  const record = telemetry.tcpOpened(connectionOf(), requestOf(clock).endpoint, 'id-2');
  const relay = { forward: 5, backward: 0 };
  record.running(relay);
  await clock.advance(1000);
  assert.match((await samples('istio_tcp_received_bytes_total'))[0] ?? '', / 5$/);
  relay.forward = 7;
  relay.backward = 100;
  record.ended();
  assert.match((await samples('istio_tcp_received_bytes_total'))[0] ?? '', / 7$/);
  assert.match((await samples('istio_tcp_sent_bytes_total'))[0] ?? '', /request_protocol="tcp",response_flags="-"\} 100$/);
  assert.match((await samples('istio_tcp_connections_closed_total'))[0] ?? '', / 1$/);
  assert.deepEqual([lines.length, lines[0]?.message, lines[0]?.bytes_received, lines[0]?.bytes_sent], [1, 'connection complete', 7, 100]);
});

test('series of peers that were not heard of for an hour go, and come again when they do', async () => {
  const { clock, telemetry, samples } = start();
  const over = (): void =>
    telemetry.requestOver(requestOf(clock), { status: 200, bytes: 0, grpcStatus: undefined, messages: 0, fields: [], trailers: undefined });
  over();
  await clock.advance(13 * 300_000);
  assert.deepEqual(await samples('istio_requests_total'), []);
  over();
  assert.match((await samples('istio_requests_total'))[0] ?? '', / 1$/);
});

test('a request is one event for whoever wants it: who, what, how long, and nothing of its query', async () => {
  const { clock, telemetry, events } = start();
  const over = async (): Promise<void> => {
    telemetry.requestStarted();
    const request = requestOf(clock, connectionOf(), new FakeExchange({ path: '/a?card=1234', fields: [] }));
    await clock.advance(7);
    telemetry.requestOver(request, { status: 200, bytes: 10, grpcStatus: undefined, messages: 0, fields: [], trailers: undefined });
  };
  await over();
  assert.equal(events.taken.length, 0);
  events.wanted = true;
  await over();
  const [event, ...more] = events.taken;
  assert.equal(more.length, 0);
  assert.deepEqual(
    [event?.type, event?.source.name, event?.source.identity, event?.destination.name, event?.service?.name, event?.durationMs],
    ['request', 'web-1', principal, 'orders-1', 'orders', 7],
  );
  assert.deepEqual(event?.request, { method: 'GET', path: '/a', protocol: 'HTTP/1.1', status: 200 });
  assert.ok(!JSON.stringify(event).includes('1234'));
});

test('requests of one connection are counted by what came of them, whatever came of the one before', async () => {
  const { clock, telemetry, samples } = start();
  const connection = connectionOf();
  const over = (status: number, error?: ProxyError, grpcStatus?: string): void => {
    const request = requestOf(clock, connection);
    request.error = error;
    telemetry.requestStarted();
    telemetry.requestOver(request, { status, bytes: 10, grpcStatus, messages: 0, fields: [], trailers: undefined });
  };
  for (const status of [200, 200, 200, 404, 200]) over(status);
  over(200, new ProxyError('CONNECTION_LOST', 'reset'));
  over(200);
  telemetry.stateChanged();
  over(200);
  const counted = (await samples('istio_requests_total')).map((line) => /response_code=.*/.exec(line)?.[0]);
  assert.deepEqual(counted, [
    'response_code="200",response_flags="-"} 6',
    'response_code="404",response_flags="-"} 1',
    'response_code="200",response_flags="UC"} 1',
  ]);
  assert.equal((await samples('istio_request_duration_milliseconds_count', 'response_code="200",response_flags="-"')).length, 1);
});
