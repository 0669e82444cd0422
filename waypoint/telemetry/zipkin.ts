/** Spans in Zipkin's form (Zipkin API, version 2): a list of JSON objects, in microseconds. */
import type { SpanOrigin, SpanRecord } from './span-record.ts';

/** @param short whether trace ids are of 64 bits: the lower half of ours */
export function encodeZipkin(spans: readonly SpanRecord[], { service, address }: SpanOrigin, short: boolean): Buffer {
  const localEndpoint = { serviceName: service, [address.ip.includes(':') ? 'ipv6' : 'ipv4']: address.ip || undefined, port: address.port };
  return Buffer.from(
    JSON.stringify(
      spans.map((span) => ({
        traceId: short ? span.traceId.slice(16) : span.traceId,
        id: span.spanId,
        ...(span.parentId === undefined ? {} : { parentId: span.parentId }),
        name: span.name,
        kind: 'SERVER',
        timestamp: Math.round(span.startedAt * 1000),
        duration: Math.max(1, Math.round(span.durationMs * 1000)),
        localEndpoint,
        tags: Object.fromEntries(span.error === undefined ? span.tags : [...span.tags, ['error', span.error || 'true']]),
      })),
    ),
  );
}
