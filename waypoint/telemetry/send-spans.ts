/** One batch of spans to its receiver: a request of ours, by the same way on which requests of callers go to endpoints. */
import type { Clock } from '../../common/base/clock.ts';
import { ProxyError } from '../../common/base/errors.ts';
import { VERSION } from '../../common/base/version.ts';
import { SpanProtocol, type SpanReceiver } from '../../common/codec/gen/waypoint.ts';
import { fieldValue } from '../../common/decision/http-route.ts';
import type { MeshView } from '../../common/decision/mesh-view.ts';
import type { ClientListener, Fields, RequestHead, ResponseHead } from '../../common/http/types.ts';
import type { EndpointPicker } from '../cluster/picker.ts';
import type { Upstreams } from '../cluster/upstreams.ts';
import { bufferSource } from '../http/request-body.ts';
import { encodeOtlp, grpcMessage, OTLP_GRPC_PATH, rejectedSpans } from './otlp.ts';
import type { SpanOrigin, SpanRecord } from './span-record.ts';
import { encodeZipkin } from './zipkin.ts';

export interface SendSpansParts {
  readonly view: Pick<MeshView, 'serviceByKey'>;
  readonly picker: Pick<EndpointPicker, 'pick'>;
  readonly upstreams: Pick<Upstreams, 'ready' | 'open'>;
  readonly clock: Clock;
  origin(): SpanOrigin;
  /** A variable of the waypoint's environment. */
  environment(name: string): string | undefined;
}

const DEFAULT_TIMEOUT_MS = 5000;
/** Of an answer that nobody reads further. */
const MOST_ANSWER_BYTES = 65_536;

/** @returns spans that the receiver did not take @throws {ProxyError} where it cannot be reached, refuses, or has no answer in time */
export const sendSpans =
  (parts: SendSpansParts) =>
  async (receiver: SpanReceiver, spans: readonly SpanRecord[]): Promise<number> => {
    const { protocol } = receiver;
    const [body, type] = encoded(parts, receiver, spans);
    const { head, answer, trailers } = await exchange(parts, receiver, body, type);
    if (head.status < 200 || head.status > 299) throw new ProxyError('UPSTREAM_STATUS', `the receiver answered ${head.status}`);
    if (protocol === SpanProtocol.ZIPKIN_JSON) return 0;
    if (protocol === SpanProtocol.OTLP_HTTP) return isProtobuf(head) ? rejectedSpans(answer) : 0;
    const status = (trailers && fieldValue(trailers, 'grpc-status')) ?? fieldValue(head.fields, 'grpc-status') ?? '2';
    const message = (trailers && fieldValue(trailers, 'grpc-message')) ?? fieldValue(head.fields, 'grpc-message') ?? '';
    if (status !== '0')
      throw new ProxyError('UPSTREAM_STATUS', `the receiver answered with gRPC status ${status} ${decoded(message)}`.trim());
    return answer.length > 5 ? rejectedSpans(answer.subarray(5)) : 0;
  };

/** Percent-encoded (gRPC over HTTP/2, "Status-Message"), if it is sound. */
function decoded(message: string): string {
  try {
    return decodeURIComponent(message);
  } catch {
    // As it came: it is for people.
    return message;
  }
}

const isProtobuf = ({ fields }: ResponseHead): boolean => (fieldValue(fields, 'content-type') ?? '').includes('protobuf');

function encoded(
  { origin, environment }: SendSpansParts,
  receiver: SpanReceiver,
  spans: readonly SpanRecord[],
): [body: Buffer, type: string] {
  const self = origin();
  if (receiver.protocol === SpanProtocol.ZIPKIN_JSON) return [encodeZipkin(spans, self, receiver.shortTraceIds), 'application/json'];
  const extra = receiver.environmentResource ? resourceAttributes(environment('OTEL_RESOURCE_ATTRIBUTES') ?? '') : [];
  const bytes = encodeOtlp(
    spans,
    [
      ['service.name', receiver.otelNames ? self.canonicalService : self.service],
      ...(receiver.otelNames ? [['service.namespace', self.namespace] as const] : []),
      ['service.version', VERSION],
      ['service.instance.id', self.node],
      ['k8s.namespace.name', self.namespace],
      ...extra,
    ],
    VERSION,
  );
  return receiver.protocol === SpanProtocol.OTLP_GRPC
    ? [grpcMessage(bytes), 'application/grpc']
    : [Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length), 'application/x-protobuf'];
}

/** `key=value,key=value`, with percent-encoding (OpenTelemetry, "Resource SDK"). */
function resourceAttributes(text: string): [string, string][] {
  return text.split(',').flatMap((pair): [string, string][] => {
    const [key = '', value] = pair.split('=');
    try {
      return key.trim() === '' || value === undefined ? [] : [[key.trim(), decodeURIComponent(value.trim())]];
    } catch {
      // Not well encoded: what it is meant to say is anybody's guess.
      return [];
    }
  });
}

interface Answered {
  readonly head: ResponseHead;
  readonly answer: Buffer;
  readonly trailers: Fields | undefined;
}

async function exchange(parts: SendSpansParts, receiver: SpanReceiver, body: Buffer, type: string): Promise<Answered> {
  const { view, picker, upstreams, clock } = parts;
  const { to, protocol } = receiver;
  const timeoutMs = receiver.timeoutMs || DEFAULT_TIMEOUT_MS;
  const service = to && view.serviceByKey(to.namespace, to.hostname);
  const endpoint = service && picker.pick(service, to.port, new Set(), to.subset);
  if (!endpoint) throw new ProxyError('NO_HEALTHY_UPSTREAM', `${to?.hostname ?? 'the receiver'} has no endpoint`);
  const declared = service.appProtocols.get(to.port);
  const version = protocol === SpanProtocol.OTLP_GRPC || declared === 'HTTP2' || declared === 'GRPC' ? 'http2' : 'http1';
  const late = new AbortController();
  const timer = clock.after(timeoutMs, () => late.abort(new ProxyError('REQUEST_TIMEOUT', `no answer within ${timeoutMs} ms`)));
  try {
    const connection = upstreams.ready(endpoint, version) ?? (await upstreams.open(endpoint, version, () => late.signal));
    return await new Promise<Answered>((resolve, reject) => {
      const chunks: Buffer[] = [];
      let bytes = 0;
      const listener: ClientListener = {
        informational: () => undefined,
        response: (head, source) =>
          source.into({
            data: (chunk) => {
              bytes += chunk.length;
              if (bytes <= MOST_ANSWER_BYTES) chunks.push(Buffer.from(chunk));
              return true;
            },
            end: (trailers) => resolve({ head, answer: Buffer.concat(chunks), trailers }),
            abort: reject,
          }),
        failed: reject,
      };
      const source = bufferSource(body);
      const request = connection.request(requestHead(parts, receiver, body, type), source, listener);
      source.into(request.body);
      late.signal.addEventListener('abort', () => {
        request.abort(late.signal.reason);
        reject(late.signal.reason);
      });
    });
  } finally {
    timer.cancel();
  }
}

function requestHead({ environment }: SendSpansParts, receiver: SpanReceiver, body: Buffer, type: string): RequestHead {
  const { to, protocol, path, headers } = receiver;
  const grpc = protocol === SpanProtocol.OTLP_GRPC;
  const fields: Fields = ['content-type', type, 'user-agent', `warren/${VERSION}`];
  if (grpc) fields.push('te', 'trailers');
  for (const { name, source } of headers) {
    const value = source?.$case === 'environment' ? environment(source.value) : source?.value;
    // A variable may hold anything; what is no header value would break the request.
    if (value !== undefined && !/[\r\n\0]/.test(value)) fields.push(name, value);
  }
  return {
    version: grpc ? '2' : '1.1',
    method: 'POST',
    scheme: 'http',
    authority: `${to?.hostname}:${to?.port}`,
    path: grpc ? OTLP_GRPC_PATH : path,
    fields,
    bodyBytes: body.length,
    upgrade: undefined,
  };
}
