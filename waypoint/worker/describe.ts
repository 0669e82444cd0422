/** Requests and connections in words: labels of metrics in Istio's order, and the fields of a line in the log. */
import { formatSocketAddress } from '../../common/base/address.ts';
import { formatSpiffeId } from '../../common/base/spiffe.ts';
import { fieldValue } from '../../common/decision/http-route.ts';
import type { Service, Workload } from '../../common/decision/mesh-view.ts';
import type { AccessField } from '../../common/server/access-log.ts';
import { peerLabels, UNKNOWN } from '../../common/server/peer-labels.ts';
import type { PickedEndpoint } from '../cluster/endpoint.ts';
import type { Caller, Connection, RequestContext } from '../http/context.ts';
import type { Delivered } from '../http/deliver.ts';
import { httpOutcome } from '../http/outcomes.ts';

const GRPC_STATUS = /^(?:[0-9]|1[0-6])$/;
/** An application's words; a label has room for the known ones. */
export const grpcLabel = (status: string | undefined): string => (status === undefined ? '' : GRPC_STATUS.test(status) ? status : 'other');

/** In the order of CONNECTION_LABELS. @param to the pod that got it, or would have; undefined where none was chosen */
export function connectionLabels(
  caller: Caller,
  service: Pick<Service, 'hostname' | 'namespace' | 'name'> | undefined,
  to: Workload | undefined,
): string[] {
  const { workload: from, baggage: said, principal } = caller;
  const peers = peerLabels({ reporter: 'waypoint', from, said, principal, service, to });
  peers.push(principal === '' ? UNKNOWN : 'mutual_tls');
  return peers;
}

/** Istio's JSON keys (istio: pilot/pkg/model/telemetry_logging.go), and behind them who it was. */
export function requestLine(request: RequestContext, delivered: Delivered, durationMs: number): AccessField[] {
  const { received, head, error, connection, endpoint, entry } = request;
  const outcome = error && httpOutcome(error.code);
  const field = (name: string): string | undefined => fieldValue(received.fields, name);
  return [
    ['start_time', new Date(request.startedAt).toISOString(), 'bare'],
    ['route_name', entry?.rule.name ?? 'default'],
    ['method', received.method],
    ['path', received.path],
    ['protocol', `HTTP/${received.version}`],
    ['response_code', error?.code === 'CLIENT_GONE' ? 0 : delivered.status],
    ['response_flags', outcome?.flag ?? '-'],
    ['response_code_details', outcome?.details ?? 'via_upstream'],
    ['bytes_received', request.body.bytes],
    ['bytes_sent', delivered.bytes],
    ['duration', Math.round(durationMs)],
    ['x_forwarded_for', fieldValue(head.fields, 'x-forwarded-for')],
    ['user_agent', field('user-agent')],
    ['request_id', request.requestId],
    ['authority', received.authority],
    ...connectionFields(connection, endpoint),
    ['grpc_status', delivered.grpcStatus],
    ['attempts', request.attempts > 1 ? request.attempts : undefined],
    ['upstream_transport_failure_reason', error && outcome?.flag.startsWith('U') ? error.message : undefined],
    ['error', error?.message],
    ['id', request.traceId],
    ['warren.code', error?.code],
    ['warren.policy', error?.policy],
    ['warren.audit', request.audited.length > 0 ? request.audited.join(',') : undefined],
    ['warren.connection', connection.id],
    ['src.token', request.token?.principal],
    ['warren.would_limit', request.wouldLimit.length > 0 ? request.wouldLimit.join(',') : undefined],
    ['warren.would_deny', request.wouldDeny.length > 0 ? request.wouldDeny.join(',') : undefined],
  ];
}

export function connectionFields({ caller, target, local }: Connection, endpoint: PickedEndpoint | undefined): AccessField[] {
  const service = endpoint?.service;
  return [
    ['upstream_host', endpoint?.address && formatSocketAddress(endpoint.address), 'bare'],
    ['upstream_cluster', service && `inbound-vip|${target.port}|http|${service.hostname}`],
    ['downstream_local_address', formatSocketAddress(target.ip === undefined ? local : { ip: target.ip, port: target.port }), 'bare'],
    ['downstream_remote_address', formatSocketAddress(caller.address), 'bare'],
    ['src.identity', caller.principal === '' ? undefined : caller.principal],
    ['src.workload', caller.workload?.name ?? caller.baggage?.workloadName],
    ['src.namespace', caller.workload?.namespace ?? caller.baggage?.namespace],
    ['dst.service', service?.hostname ?? target.service?.hostname],
    ['dst.workload', endpoint?.workload.name],
    ['dst.namespace', endpoint?.workload.namespace ?? target.namespace],
    ['dst.identity', endpoint?.peers && formatSpiffeId(endpoint.workload)],
  ];
}

/** Who asked, and for what, as people name them. */
export function endsOf({ caller, target, local }: Connection): [source: string, destination: string] {
  const { workload, principal, address } = caller;
  const source = workload ? `${workload.namespace}/${workload.name}` : principal || formatSocketAddress(address);
  const pod = target.workload && `${target.workload.namespace}/${target.workload.name}`;
  return [source, target.service?.hostname ?? pod ?? formatSocketAddress(local)];
}
