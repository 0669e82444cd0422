/** Requests and connections as telemetry asks about them. Made only where somebody has asked for something of their own. */
import type { SocketAddress } from '../../common/base/address.ts';
import { formatSpiffeId } from '../../common/base/spiffe.ts';
import { fieldValue } from '../../common/decision/http-route.ts';
import type { Workload } from '../../common/decision/mesh-view.ts';
import type { PeerFacts, TelemetryFacts } from '../../common/decision/telemetry-facts.ts';
import type { PickedEndpoint } from '../cluster/endpoint.ts';
import type { Connection, RequestContext } from '../http/context.ts';
import type { Delivered } from '../http/deliver.ts';
import { httpOutcome } from '../http/outcomes.ts';

const GRPC_STATUS = /^[0-9]{1,9}$/;

/** @param identity ours */
export function requestFacts(request: RequestContext, delivered: Delivered, durationMs: number, identity: string): TelemetryFacts {
  const { received, error, connection, endpoint, entry } = request;
  const outcome = error && httpOutcome(error.code);
  const { status, grpcStatus, fields, trailers } = delivered;
  return {
    ...connectionFacts(connection, endpoint, identity),
    startedAt: request.startedAt,
    durationMs,
    answeredMs: request.answeredMonotonic === 0 ? undefined : request.answeredMonotonic - request.startedMonotonic,
    method: received.method,
    path: received.path,
    authority: received.authority,
    scheme: received.scheme || undefined,
    protocol: received.version === '2' ? 'HTTP/2' : `HTTP/${received.version}`,
    // As it went on, so that what we have written ourselves is there; what we took away is what the caller sent.
    requestHeader: (name) => fieldValue(request.head.fields, name) ?? fieldValue(received.fields, name),
    responseHeader: (name) => fieldValue(fields, name),
    responseTrailer: (name) => trailers && fieldValue(trailers, name),
    requestId: request.requestId || undefined,
    responseCode: error?.code === 'CLIENT_GONE' ? 0 : status,
    responseFlags: outcome?.flag ?? '-',
    responseCodeDetails: outcome?.details ?? 'via_upstream',
    grpcStatus: grpcStatus !== undefined && GRPC_STATUS.test(grpcStatus) ? Number(grpcStatus) : undefined,
    bytesReceived: request.body.bytes,
    bytesSent: delivered.bytes,
    upstreamFailure: outcome?.flag.startsWith('U') ? error?.message : undefined,
    routeName: entry?.rule.name ?? 'default',
    attempts: request.attempts,
    traceId: request.traceId || undefined,
    spanId: request.span?.spanId,
    code: error?.code,
    policy: error?.policy,
  };
}

/** Of a connection that carries no HTTP; the numbers are filled in when it is over. */
export function connectionFacts(connection: Connection, endpoint: PickedEndpoint | undefined, identity: string): TelemetryFacts {
  const { caller, target, local } = connection;
  const from = caller.workload;
  const said = caller.baggage;
  const to = endpoint?.workload ?? target.workload;
  const downstreamLocal: SocketAddress = target.ip === undefined ? local : { ip: target.ip, port: target.port };
  return {
    startedAt: 0,
    durationMs: 0,
    answeredMs: undefined,
    method: undefined,
    path: undefined,
    authority: undefined,
    scheme: undefined,
    protocol: undefined,
    requestHeader: () => undefined,
    responseHeader: () => undefined,
    responseTrailer: () => undefined,
    requestId: undefined,
    responseCode: undefined,
    responseFlags: '-',
    responseCodeDetails: undefined,
    grpcStatus: undefined,
    bytesReceived: 0,
    bytesSent: 0,
    downstreamRemote: caller.address,
    downstreamLocal,
    upstreamHost: endpoint?.address,
    upstreamCluster: endpoint?.service && `inbound-vip|${target.port}|http|${endpoint.service.hostname}`,
    upstreamFailure: undefined,
    routeName: undefined,
    serverName: undefined,
    attempts: 1,
    traceId: undefined,
    spanId: undefined,
    principal: caller.principal,
    localPrincipal: identity,
    source: from
      ? peerOf(from)
      : said && {
          name: '',
          namespace: said.namespace ?? '',
          workload: said.workloadName ?? '',
          type: said.workloadType ?? '',
          cluster: said.clusterId ?? '',
          service: said.canonicalName ?? '',
          revision: said.canonicalRevision ?? '',
          identity: caller.principal,
        },
    destination: to && peerOf(to),
    code: undefined,
    policy: undefined,
  };
}

const peerOf = (workload: Workload): PeerFacts => ({
  name: workload.name,
  namespace: workload.namespace,
  workload: workload.workloadName,
  type: workload.workloadType,
  cluster: workload.clusterId,
  service: workload.canonicalName,
  revision: workload.canonicalRevision,
  identity: formatSpiffeId(workload),
});
