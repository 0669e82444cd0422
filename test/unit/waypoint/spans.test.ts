/** Spans arrive at real receivers in their own forms, and a receiver that is slow, hangs, refuses or is not there costs no request anything. */
import assert from 'node:assert/strict';
import { createServer, type Server as HttpServer, type IncomingMessage } from 'node:http';
import { type AddressInfo, createServer as createNetServer, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { Metadata, Server, ServerCredentials, type ServerUnaryCall, type sendUnaryData, status } from '@grpc/grpc-js';
import { systemClock } from '../../../common/base/clock.ts';
import { ProxyError } from '../../../common/base/errors.ts';
import { HostnameResolver } from '../../../common/client/hostname-resolver.ts';
import { ExportTraceServiceRequest, ExportTraceServiceResponse, type Span } from '../../../common/codec/gen/trace.ts';
import { SpanProtocol, type SpanReceiver } from '../../../common/codec/gen/waypoint.ts';
import { compileTelemetry } from '../../../common/decision/telemetry-model.ts';
import { defaultClientLimits } from '../../../common/hbone/types.ts';
import { connectHttp1 } from '../../../common/http/http1-client.ts';
import { connectHttp2 } from '../../../common/http/http2-client.ts';
import { defaultHttpLimits } from '../../../common/http/types.ts';
import { WorkerCertificates } from '../../../common/tls/worker-certificates.ts';
import { Dialer } from '../../../waypoint/cluster/dial.ts';
import { EndpointPicker } from '../../../waypoint/cluster/picker.ts';
import { Upstreams } from '../../../waypoint/cluster/upstreams.ts';
import { sendSpans } from '../../../waypoint/telemetry/send-spans.ts';
import { SpanExporter } from '../../../waypoint/telemetry/span-exporter.ts';
import { type SpanOrigin, type SpanRecord, spanRecord } from '../../../waypoint/telemetry/span-record.ts';
import { Configuration } from '../../../waypoint/worker/configuration.ts';
import { memberOf, service, workload } from '../../support/builders.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { PlainMesh } from '../../support/plain-mesh.ts';
import { recordingLog } from '../../support/recording-log.ts';
import { factsOf } from '../../support/telemetry-facts.ts';

const T = '0af7651916cd43dd8448eb211c80319c';
const S = '00f067aa0ba902b7';
const P = 'b7ad6b7169203331';

const origin: SpanOrigin = {
  service: 'waypoint.shop',
  node: 'waypoint~10.0.0.9~waypoint-1.shop~shop.svc.cluster.local',
  address: { ip: '10.0.0.9', port: 15008 },
  canonicalService: 'waypoint',
  canonicalRevision: 'latest',
  namespace: 'shop',
  clusterId: 'Kubernetes',
  meshId: 'cluster.local',
};

const receiverOf = (fields: Partial<SpanReceiver>): SpanReceiver => ({
  to: { namespace: 'shop', hostname: 'collector.shop.svc.cluster.local', port: 4317, subset: '' },
  protocol: SpanProtocol.OTLP_GRPC,
  path: '',
  timeoutMs: 2000,
  headers: [],
  maxTagLength: 256,
  shortTraceIds: false,
  b3: false,
  w3c: true,
  environmentResource: false,
  otelNames: false,
  ...fields,
});

function recordOf(receiver: SpanReceiver, fields: Parameters<typeof factsOf>[0] = {}): SpanRecord {
  const tracing = compileTelemetry(
    {
      target: '*',
      metrics: [],
      accessLogs: undefined,
      tracing: {
        provider: 'p',
        receiver,
        samplingPerMillion: 0,
        tags: [
          { name: 'tier', source: { $case: 'literal', value: 'gold' }, defaultValue: '' },
          { name: 'team', source: { $case: 'header', value: 'X-Team' }, defaultValue: 'nobody' },
          { name: 'pod', source: { $case: 'environment', value: 'POD' }, defaultValue: '' },
          { name: 'proto', source: { $case: 'format', value: '%PROTOCOL%' }, defaultValue: '' },
        ],
        istioTags: true,
        stopContext: false,
      },
    },
    (name) => (name === 'POD' ? 'waypoint-1' : undefined),
  ).tracing;
  assert.ok(tracing);
  const span = { tracing, traceId: T, spanId: S, parentId: P, tracestate: 'a=1', sampled: true };
  return spanRecord(span, factsOf(fields), 'orders.shop.svc.cluster.local:80', origin);
}

/** The waypoint's own way to endpoints, with a receiver on this port of the loopback. */
function sender(t: TestContext, port: number, environment: Record<string, string> = {}) {
  const collector = service({ name: 'collector', vips: ['10.96.0.9'], ports: { 4317: port } });
  const pod = workload({ name: 'collector-1', addresses: ['127.0.0.1'], services: memberOf(collector) });
  const view = new PlainMesh({ services: [collector], workloads: [pod] });
  const log = recordingLog();
  const self = () => workload({ name: 'waypoint-1', addresses: ['127.0.0.1'] });
  const clock = systemClock;
  const picker = new EndpointPicker({
    view,
    self,
    balancing: 'round_robin',
    configuration: new Configuration(log),
    random: Math.random,
    clock,
    workers: 1,
    events: { ejected: () => undefined },
  });
  const dialer = new Dialer({
    identity: 'spiffe://cluster.local/ns/shop/sa/waypoint',
    self,
    certificates: new WorkerCertificates({ tls: { postQuantumOnly: false }, clock, want: () => undefined }),
    clock,
    resolver: new HostnameResolver({ lookup: async () => [], clock }),
    randomHex: (digits) => '00'.repeat(digits / 2),
    limits: defaultClientLimits,
    maxStreamsPerConnection: 100,
    unusedReleaseMs: 1000,
  });
  const upstreams = new Upstreams({
    limits: defaultHttpLimits,
    clock,
    dial: (endpoint, signal) => dialer.connect(endpoint, signal),
    connect: { http1: connectHttp1, http2: connectHttp2 },
  });
  t.after(() => upstreams.destroy(new ProxyError('DRAINED', 'the test is over')));
  return sendSpans({ view, picker, upstreams, clock, origin: () => origin, environment: (name) => environment[name] });
}

/** A collector of gRPC that answers as it is told. */
async function grpcCollector(
  t: TestContext,
  answer: (request: ExportTraceServiceRequest, metadata: Metadata) => ExportTraceServiceResponse | { code: status; details: string },
) {
  const server = new Server();
  server.addService(
    {
      export: {
        path: '/opentelemetry.proto.collector.trace.v1.TraceService/Export',
        requestStream: false,
        responseStream: false,
        requestSerialize: (message: ExportTraceServiceRequest) => Buffer.from(ExportTraceServiceRequest.encode(message).finish()),
        requestDeserialize: (bytes: Buffer) => ExportTraceServiceRequest.decode(bytes),
        responseSerialize: (message: ExportTraceServiceResponse) => Buffer.from(ExportTraceServiceResponse.encode(message).finish()),
        responseDeserialize: (bytes: Buffer) => ExportTraceServiceResponse.decode(bytes),
      },
    },
    {
      export: (call: ServerUnaryCall<ExportTraceServiceRequest, unknown>, done: sendUnaryData<unknown>) => {
        const made = answer(call.request, call.metadata);
        if ('code' in made) done(made);
        else done(null, made);
      },
    },
  );
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) => (error ? reject(error) : resolve(bound))),
  );
  t.after(() => server.forceShutdown());
  return port;
}

async function httpCollector(
  t: TestContext,
  answer: (request: IncomingMessage, body: Buffer) => { status: number; type?: string; body?: Uint8Array },
): Promise<number> {
  const server: HttpServer = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => void chunks.push(chunk));
    request.on('end', () => {
      const made = answer(request, Buffer.concat(chunks));
      response.writeHead(made.status, made.type === undefined ? {} : { 'content-type': made.type });
      response.end(made.body);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

const tagsOf = (span: Span): Record<string, string> =>
  Object.fromEntries(span.attributes.map(({ key, value }) => [key, value?.value?.$case === 'stringValue' ? value.value.value : '']));

test('a collector of gRPC gets spans with ids, times, tags of Envoy, of Istio and of the user, and the process that they are from', async (t) => {
  const requests: { request: ExportTraceServiceRequest; metadata: Metadata }[] = [];
  const port = await grpcCollector(t, (request, metadata) => {
    requests.push({ request, metadata });
    return { partialSuccess: undefined };
  });
  const receiver = receiverOf({
    headers: [
      { name: 'x-key', source: { $case: 'value', value: 'secret' } },
      { name: 'x-pod', source: { $case: 'environment', value: 'POD' } },
      { name: 'x-none', source: { $case: 'environment', value: 'NONE' } },
    ],
    environmentResource: true,
    otelNames: true,
  });
  const send = sender(t, port, { POD: 'waypoint-1', OTEL_RESOURCE_ATTRIBUTES: 'team=blue%20one,broken=%zz,empty' });
  assert.equal(await send(receiver, [recordOf(receiver, { headers: { 'x-team': 'blue' } })]), 0);
  const [{ request, metadata } = { request: { resourceSpans: [] }, metadata: new Metadata() }] = requests;
  const [resource] = request.resourceSpans;
  const [span] = resource?.scopeSpans[0]?.spans ?? [];
  assert.ok(span && resource);
  const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
  assert.deepEqual([hex(span.traceId), hex(span.spanId), hex(span.parentSpanId), span.traceState], [T, S, P, 'a=1']);
  assert.equal(span.name, 'orders.shop.svc.cluster.local:80/*');
  const startedAt = BigInt(Date.UTC(2026, 10, 21, 19, 5, 7, 89)) * 1_000_000n;
  assert.deepEqual(
    [span.startTimeUnixNano, span.endTimeUnixNano > startedAt + 12_300_000n, span.endTimeUnixNano < startedAt + 12_500_000n],
    [startedAt, true, true],
  );
  const tags = tagsOf(span);
  assert.deepEqual(
    [
      tags['http.method'],
      tags['http.url'],
      tags['http.status_code'],
      tags['istio.canonical_service'],
      tags['istio.source_workload'],
      tags['istio.destination_workload'],
    ],
    ['GET', 'http://orders/orders?id=1', '200', 'waypoint', 'web', 'orders'],
  );
  assert.deepEqual([tags.tier, tags.team, tags.pod, tags.proto, tags.error], ['gold', 'blue', 'waypoint-1', 'HTTP/1.1', undefined]);
  const described = Object.fromEntries((resource.resource?.attributes ?? []).map(({ key, value }) => [key, value?.value?.value]));
  assert.deepEqual(
    [described['service.name'], described['service.namespace'], described.team, described.broken],
    ['waypoint', 'shop', 'blue one', undefined],
  );
  assert.deepEqual([metadata.get('x-key'), metadata.get('x-pod'), metadata.get('x-none')], [['secret'], ['waypoint-1'], []]);
});

test('what failed is told as an error, with a tag for its code, and a tag has no more letters than its provider allows', async (t) => {
  let span: Span | undefined;
  const port = await grpcCollector(t, (request) => {
    span = request.resourceSpans[0]?.scopeSpans[0]?.spans[0];
    return { partialSuccess: undefined };
  });
  const receiver = receiverOf({ maxTagLength: 20 });
  await sender(t, port)(receiver, [
    recordOf(receiver, {
      code: 'POLICY_DENIED',
      policy: 'shop/p',
      responseCode: 403,
      path: `/${'a'.repeat(500)}`,
      responseCodeDetails: 'rbac_access_denied',
    }),
  ]);
  assert.ok(span);
  assert.deepEqual([span.status?.code, span.status?.message], [2, 'rbac_access_denied']);
  const tags = tagsOf(span);
  assert.deepEqual(
    [tags.error, tags['warren.code'], tags['warren.policy'], tags['http.url']?.length],
    ['true', 'POLICY_DENIED', 'shop/p', 20],
  );
});

test('a collector of HTTP gets the same in protobuf, and what it rejects is counted', async (t) => {
  let seen: IncomingMessage | undefined;
  let count = 0;
  const port = await httpCollector(t, (request, body) => {
    seen = request;
    count = ExportTraceServiceRequest.decode(body).resourceSpans[0]?.scopeSpans[0]?.spans.length ?? 0;
    const answer = ExportTraceServiceResponse.encode({ partialSuccess: { rejectedSpans: 2n, errorMessage: 'no' } }).finish();
    return { status: 200, type: 'application/x-protobuf', body: answer };
  });
  const receiver = receiverOf({ protocol: SpanProtocol.OTLP_HTTP, path: '/v1/traces' });
  assert.equal(await sender(t, port)(receiver, Array(3).fill(recordOf(receiver))), 2);
  assert.deepEqual(
    [seen?.method, seen?.url, seen?.headers['content-type'], seen?.headers.host, count],
    ['POST', '/v1/traces', 'application/x-protobuf', 'collector.shop.svc.cluster.local:4317', 3],
  );
});

test('a Zipkin gets its list of JSON objects, in microseconds, with a trace id of either length', async (t) => {
  const bodies: string[] = [];
  const port = await httpCollector(t, (request, body) => {
    assert.deepEqual([request.url, request.headers['content-type']], ['/api/v2/spans', 'application/json']);
    bodies.push(body.toString());
    return { status: 202 };
  });
  const receiver = receiverOf({ protocol: SpanProtocol.ZIPKIN_JSON, path: '/api/v2/spans', b3: true, w3c: false });
  const send = sender(t, port);
  await send(receiver, [recordOf(receiver)]);
  await send({ ...receiver, shortTraceIds: true }, [recordOf(receiver, { responseCode: 500 })]);
  const [[whole], [short]] = bodies.map((body) => JSON.parse(body) as Record<string, unknown>[]) as [
    Record<string, unknown>[],
    Record<string, unknown>[],
  ];
  assert.ok(whole && short);
  assert.deepEqual(
    [whole.traceId, whole.id, whole.parentId, whole.kind, whole.timestamp, whole.duration, whole.localEndpoint],
    [
      T,
      S,
      P,
      'SERVER',
      Date.UTC(2026, 10, 21, 19, 5, 7, 89) * 1000,
      12_400,
      { serviceName: 'waypoint.shop', ipv4: '10.0.0.9', port: 15008 },
    ],
  );
  assert.equal(short.traceId, T.slice(16));
  assert.equal((short.tags as Record<string, string>)['http.status_code'], '500');
  assert.ok((short.tags as Record<string, string>).error);
});

test('a receiver that refuses, says no, hangs, is not there or has no endpoint is an error with its reason', async (t) => {
  const receiver = receiverOf({ timeoutMs: 300 });
  const one = [recordOf(receiver)];
  const denying = await grpcCollector(t, () => ({ code: status.PERMISSION_DENIED, details: 'bad key' }));
  await assert.rejects(sender(t, denying)(receiver, one), /gRPC status 7 bad key/);
  const busy = await httpCollector(t, () => ({ status: 503 }));
  await assert.rejects(sender(t, busy)({ ...receiver, protocol: SpanProtocol.ZIPKIN_JSON, path: '/' }, one), /answered 503/);
  const sockets: Socket[] = [];
  const hanging = createNetServer((socket) => {
    sockets.push(socket);
    socket.on('error', () => undefined);
  });
  await new Promise<void>((resolve) => hanging.listen(0, '127.0.0.1', resolve));
  const { port } = hanging.address() as AddressInfo;
  await assert.rejects(sender(t, port)({ ...receiver, protocol: SpanProtocol.OTLP_HTTP, path: '/' }, one), /no answer within 300 ms/);
  await assert.rejects(sender(t, port)(receiver, one), /no answer within 300 ms/);
  for (const socket of sockets) socket.destroy();
  await new Promise((resolve) => hanging.close(resolve));
  await assert.rejects(sender(t, port)(receiver, one), /refused/i);
  const elsewhere = { ...receiver, to: { namespace: 'shop', hostname: 'nobody', port: 1, subset: '' } };
  await assert.rejects(sender(t, port)(elsewhere, one), /nobody has no endpoint/);
});

function exporter(send: (spans: readonly SpanRecord[]) => Promise<number>) {
  const clock = new FakeClock();
  const log = recordingLog();
  const counts: string[] = [];
  const made = new SpanExporter({
    clock,
    log,
    send: (_, spans) => send(spans),
    exported: (provider, count) => void counts.push(`${provider} exported ${count}`),
    dropped: (provider, reason, count) => void counts.push(`${provider} ${reason} ${count}`),
  });
  return { made, clock, log, counts };
}

test('a batch leaves when it is full or a second old, and one at a time', async () => {
  const sizes: number[] = [];
  const answers: ((rejected: number) => void)[] = [];
  const { made, clock, counts } = exporter((spans) => {
    sizes.push(spans.length);
    return new Promise((resolve) => answers.push(resolve));
  });
  const receiver = receiverOf({});
  const span = recordOf(receiver);
  made.add('otel', receiver, span);
  assert.deepEqual(sizes, []);
  await clock.advance(1000);
  assert.deepEqual(sizes, [1]);
  for (let i = 0; i < 600; i++) made.add('otel', receiver, span);
  await clock.advance(5000);
  assert.deepEqual(sizes, [1], 'the first one is still under way');
  answers.shift()?.(0);
  await clock.advance(0);
  assert.deepEqual(sizes, [1, 512]);
  answers.shift()?.(12);
  await clock.advance(0);
  assert.deepEqual(sizes, [1, 512, 88]);
  answers.shift()?.(0);
  await clock.advance(0);
  assert.deepEqual(counts, ['otel exported 1', 'otel exported 500', 'otel rejected 12', 'otel exported 88']);
});

test('a receiver that never answers costs one queue: what does not fit is dropped and counted, other receivers go on', async () => {
  let other = 0;
  const { made, clock, counts } = exporter((spans) => {
    if (spans[0]?.name !== 'other') return new Promise(() => undefined);
    other += spans.length;
    return Promise.resolve(0);
  });
  const hung = receiverOf({});
  const fine = receiverOf({ path: '/other' });
  const span = recordOf(hung);
  for (let i = 0; i < 5000; i++) made.add('hung', hung, span);
  made.add('fine', fine, { ...span, name: 'other' });
  await clock.advance(1000);
  assert.equal(counts.filter((count) => count === 'hung queue_full 1').length, 5000 - 512 - 2048);
  assert.equal(other, 1);
});

test('a receiver that fails is said once, what it did not take is counted, and that it is back is said too', async () => {
  let down = true;
  const { made, clock, log, counts } = exporter(() => (down ? Promise.reject(new Error('refused')) : Promise.resolve(0)));
  const receiver = receiverOf({});
  const span = recordOf(receiver);
  for (let i = 0; i < 3; i++) {
    made.add('otel', receiver, span);
    await clock.advance(1000);
  }
  down = false;
  made.add('otel', receiver, span);
  await clock.advance(1000);
  assert.deepEqual(counts, [...Array(3).fill('otel failed 1'), 'otel exported 1']);
  assert.deepEqual(
    log.entries.map(({ message }) => message),
    ['spans are lost: the receiver does not take them', 'spans are taken again'],
  );
});

test('what is left when the worker ends goes out', async () => {
  const sizes: number[] = [];
  const { made } = exporter((spans) => {
    sizes.push(spans.length);
    return Promise.resolve(0);
  });
  const receiver = receiverOf({});
  made.add('otel', receiver, recordOf(receiver));
  await made.close();
  assert.deepEqual(sizes, [1]);
});
