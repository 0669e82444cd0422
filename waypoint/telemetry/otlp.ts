/** Spans in the form of OpenTelemetry's receivers (opentelemetry-proto, collector/trace/v1): one request for a batch, over gRPC or HTTP. */
import {
  ExportTraceServiceRequest,
  ExportTraceServiceResponse,
  type KeyValue,
  SpanKind,
  StatusCode,
} from '../../common/codec/gen/trace.ts';
import type { SpanRecord } from './span-record.ts';

export const OTLP_GRPC_PATH = '/opentelemetry.proto.collector.trace.v1.TraceService/Export';

/** @param resource attributes of the process */
export function encodeOtlp(spans: readonly SpanRecord[], resource: readonly (readonly [string, string])[], version: string): Uint8Array {
  return ExportTraceServiceRequest.encode({
    resourceSpans: [
      {
        resource: { attributes: resource.map(attribute) },
        scopeSpans: [{ scope: { name: 'warren', version }, spans: spans.map(otlpSpan) }],
      },
    ],
  }).finish();
}

/** How many of them the receiver did not take, as it says. */
export function rejectedSpans(body: Uint8Array): number {
  return Number(ExportTraceServiceResponse.decode(body).partialSuccess?.rejectedSpans ?? 0n);
}

/** A message of gRPC (gRPC over HTTP/2, "Length-Prefixed-Message"), not compressed. */
export function grpcMessage(bytes: Uint8Array): Buffer {
  const framed = Buffer.alloc(bytes.length + 5);
  framed.writeUInt32BE(bytes.length, 1);
  framed.set(bytes, 5);
  return framed;
}

const attribute = ([key, value]: readonly [string, string]): KeyValue => ({ key, value: { value: { $case: 'stringValue', value } } });

const NANOS = 1_000_000;
// A number has no room for nanoseconds since 1970.
const nanos = (ms: number): bigint => BigInt(Math.trunc(ms)) * BigInt(NANOS) + BigInt(Math.round((ms % 1) * NANOS));

function otlpSpan(span: SpanRecord) {
  return {
    traceId: Buffer.from(span.traceId, 'hex'),
    spanId: Buffer.from(span.spanId, 'hex'),
    parentSpanId: Buffer.from(span.parentId ?? '', 'hex'),
    traceState: span.tracestate,
    name: span.name,
    kind: SpanKind.SPAN_KIND_SERVER,
    startTimeUnixNano: nanos(span.startedAt),
    endTimeUnixNano: nanos(span.startedAt + span.durationMs),
    attributes: span.tags.map(attribute),
    status: span.error === undefined ? undefined : { code: StatusCode.STATUS_CODE_ERROR, message: span.error },
    // Sampled (W3C's flags in the lowest bits).
    flags: 1,
  };
}
