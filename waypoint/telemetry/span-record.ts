/** What is told of one request, in the words of Envoy's and Istio's spans; each receiver's form is made from it. */
import { formatSocketAddress } from '../../common/base/address.ts';
import type { PeerFacts, TelemetryFacts } from '../../common/decision/telemetry-facts.ts';
import type { RequestSpan } from './start-span.ts';

export interface SpanRecord {
  /** 32 and 16 hexadecimal digits. */
  readonly traceId: string;
  readonly spanId: string;
  readonly parentId: string | undefined;
  readonly tracestate: string;
  readonly name: string;
  /** Milliseconds since 1970. */
  readonly startedAt: number;
  readonly durationMs: number;
  readonly tags: readonly (readonly [name: string, value: string])[];
  /** Why it failed; undefined where it did not. */
  readonly error: string | undefined;
}

/** Ourselves, as spans name us. */
export interface SpanOrigin {
  /** `waypoint.shop` */
  readonly service: string;
  readonly node: string;
  readonly address: { readonly ip: string; readonly port: number };
  readonly canonicalService: string;
  readonly canonicalRevision: string;
  readonly namespace: string;
  readonly clusterId: string;
  readonly meshId: string;
}

/** @param hostname of the service that the request is for, with its port */
export function spanRecord(span: RequestSpan, facts: TelemetryFacts, hostname: string, origin: SpanOrigin): SpanRecord {
  const { tracing } = span;
  const longest = tracing.receiver.maxTagLength;
  const tags: (readonly [string, string])[] = [];
  const tag = (name: string, value: string | number | undefined): void => {
    if (value !== undefined && value !== '') tags.push([name, String(value).slice(0, longest)]);
  };
  const { responseCode = 0, responseFlags, grpcStatus, code } = facts;
  tag('component', 'proxy');
  tag('node_id', origin.node);
  tag('guid:x-request-id', facts.requestId);
  tag('http.url', facts.authority === undefined ? undefined : `${facts.scheme || 'http'}://${facts.authority}${facts.path ?? ''}`);
  tag('http.method', facts.method);
  tag('http.protocol', facts.protocol);
  tag('http.status_code', responseCode);
  tag('user_agent', facts.requestHeader('user-agent'));
  tag('peer.address', facts.downstreamRemote.ip);
  tag('request_size', facts.bytesReceived);
  tag('response_size', facts.bytesSent);
  tag('response_flags', responseFlags);
  tag('upstream_cluster', facts.upstreamCluster);
  tag('upstream_cluster.name', facts.upstreamCluster);
  tag('upstream_address', facts.upstreamHost && formatSocketAddress(facts.upstreamHost));
  if (grpcStatus !== undefined) tag('grpc.status_code', grpcStatus);
  if (facts.attempts > 1) tag('retry.count', facts.attempts - 1);
  if (code !== undefined) tag('warren.code', code);
  tag('warren.policy', facts.policy);
  if (tracing.istioTags) {
    tag('istio.canonical_service', origin.canonicalService);
    tag('istio.canonical_revision', origin.canonicalRevision);
    tag('istio.mesh_id', origin.meshId);
    tag('istio.namespace', origin.namespace);
    tag('istio.cluster_id', origin.clusterId);
  }
  // Istio's waypoints tell the two ends in any case (istio: pilot/pkg/networking/core/tracing.go).
  peerTags('istio.source', facts.source, tag);
  peerTags('istio.destination', facts.destination, tag);
  for (const { name, read } of tracing.tags) tag(name, read(facts));
  const failed = code !== undefined || responseCode >= 500;
  if (failed) tag('error', 'true');
  return {
    traceId: span.traceId,
    spanId: span.spanId,
    parentId: span.parentId,
    tracestate: span.tracestate,
    name: `${hostname}/*`,
    startedAt: facts.startedAt,
    durationMs: facts.durationMs,
    tags,
    error: failed ? (facts.responseCodeDetails ?? code ?? '') : undefined,
  };
}

function peerTags(prefix: string, peer: PeerFacts | undefined, tag: (name: string, value: string) => void): void {
  if (!peer) return;
  tag(`${prefix}_workload`, peer.workload);
  tag(`${prefix}_namespace`, peer.namespace);
  tag(`${prefix}_cluster_id`, peer.cluster);
  tag(`${prefix}_canonical_service`, peer.service);
  tag(`${prefix}_canonical_revision`, peer.revision);
  tag(`${prefix}_app`, peer.service);
  tag(`${prefix}_app_version`, peer.revision);
  tag(`${prefix}_workload_type`, peer.type);
  tag(`${prefix}_instance_name`, peer.name);
}
