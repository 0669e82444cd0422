/**
 * A receiver of spans for demos and tests: OTLP over gRPC and HTTP, and Zipkin's JSON, decoded and shown. `GET /spans` lists what has come, newest
 * last, and each span is a line on standard output.
 */
import type { IncomingMessage } from 'node:http';
import { parseArgs } from 'node:util';
import { Server, ServerCredentials, type ServerUnaryCall, type sendUnaryData } from '@grpc/grpc-js';
import { http } from '../../common/base/node-http.ts';
import { ExportTraceServiceRequest, ExportTraceServiceResponse } from '../../common/codec/gen/trace.ts';

interface SeenSpan {
  readonly protocol: 'otlp-grpc' | 'otlp-http' | 'zipkin';
  readonly service: string;
  readonly traceId: string;
  readonly spanId: string;
  readonly parentId: string;
  readonly name: string;
  readonly tags: Readonly<Record<string, string>>;
}

const MOST_SPANS = 1000;
const MOST_BODY_BYTES = 4 << 20;

const { values } = parseArgs({ options: { http: { type: 'string', default: '9411' }, grpc: { type: 'string', default: '4317' } } });
const seen: SeenSpan[] = [];

function take(spans: readonly SeenSpan[]): void {
  for (const span of spans) process.stdout.write(`${JSON.stringify(span)}\n`);
  seen.push(...spans);
  seen.splice(0, Math.max(0, seen.length - MOST_SPANS));
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

const otlp = (request: ExportTraceServiceRequest, protocol: SeenSpan['protocol']): SeenSpan[] =>
  request.resourceSpans.flatMap(({ resource, scopeSpans }) => {
    const text = (
      attributes: typeof resource extends undefined ? never : NonNullable<typeof resource>['attributes'],
    ): Record<string, string> => Object.fromEntries(attributes.map(({ key, value }) => [key, String(value?.value?.value ?? '')]));
    const service = text(resource?.attributes ?? [])['service.name'] ?? '';
    return scopeSpans.flatMap(({ spans }) =>
      spans.map(({ traceId, spanId, parentSpanId, name, attributes }) => ({
        protocol,
        service,
        traceId: hex(traceId),
        spanId: hex(spanId),
        parentId: hex(parentSpanId),
        name,
        tags: text(attributes),
      })),
    );
  });

interface ZipkinSpan {
  readonly traceId: string;
  readonly id: string;
  readonly parentId?: string;
  readonly name: string;
  readonly localEndpoint?: { readonly serviceName?: string };
  readonly tags?: Readonly<Record<string, string>>;
}

const zipkin = (body: string): SeenSpan[] =>
  (JSON.parse(body) as readonly ZipkinSpan[]).map(({ traceId, id, parentId = '', name, localEndpoint, tags = {} }) => ({
    protocol: 'zipkin',
    service: localEndpoint?.serviceName ?? '',
    traceId,
    spanId: id,
    parentId,
    name,
    tags,
  }));

async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request) {
    bytes += (chunk as Buffer).length;
    if (bytes > MOST_BODY_BYTES) throw new Error('the body is too long');
    chunks.push(chunk as Buffer);
  }
  return Buffer.concat(chunks);
}

const server = http.createServer((request, response) => {
  const answer = async (): Promise<[status: number, body: string]> => {
    const body = await bodyOf(request);
    if (request.method === 'GET' && request.url === '/spans') return [200, JSON.stringify(seen)];
    if (request.method === 'POST' && request.url === '/api/v2/spans') take(zipkin(body.toString()));
    else if (request.method === 'POST' && request.url === '/v1/traces') take(otlp(ExportTraceServiceRequest.decode(body), 'otlp-http'));
    else return [404, 'there are GET /spans, POST /api/v2/spans and POST /v1/traces\n'];
    return [202, ''];
  };
  answer().then(
    ([status, body]) => response.writeHead(status).end(body),
    (error: unknown) => response.writeHead(400).end(String(error)),
  );
});

const grpc = new Server();
grpc.addService(
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
      take(otlp(call.request, 'otlp-grpc'));
      done(null, { partialSuccess: undefined });
    },
  },
);

process.once('SIGTERM', () => process.exit(0));
server.listen(Number(values.http), '::');
grpc.bindAsync(`[::]:${values.grpc}`, ServerCredentials.createInsecure(), (error) => {
  if (!error) return;
  process.stderr.write(`${error.message}\n`);
  process.exit(1);
});
