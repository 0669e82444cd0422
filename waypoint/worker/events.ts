/** Requests and connections as events: what `meshctl tap` shows of them, made from the same facts as their line in the access log. */
import { formatSocketAddress, type SocketAddress } from '../../common/base/address.ts';
import type { ProxyError } from '../../common/base/errors.ts';
import { formatSpiffeId } from '../../common/base/spiffe.ts';
import type { Service, Workload } from '../../common/decision/mesh-view.ts';
import { type EventEnd, type EventService, eventPath, failureFacts, type TrafficEvent } from '../../common/decision/traffic-event.ts';
import type { PickedEndpoint } from '../cluster/endpoint.ts';
import type { Connection, RequestContext } from '../http/context.ts';
import type { Delivered } from '../http/deliver.ts';
import { isGrpc } from '../http/grpc.ts';

export function requestEvent(request: RequestContext, delivered: Delivered, durationMs: number): TrafficEvent {
  const { received, error, connection, endpoint, backend } = request;
  const grpc = isGrpc(received.fields);
  return {
    ...endsOf(connection, endpoint, backend?.service),
    timeMs: Math.round(request.startedAt + durationMs),
    type: 'request',
    id: request.traceId,
    request: {
      method: received.method,
      path: eventPath(received.path),
      protocol: grpc ? 'gRPC' : `HTTP/${received.version}`,
      status: error?.code === 'CLIENT_GONE' ? 0 : delivered.status,
      ...(grpc && delivered.grpcStatus !== undefined && { grpcStatus: delivered.grpcStatus.slice(0, 20) }),
    },
    bytesForward: request.body.bytes,
    bytesBackward: delivered.bytes,
    durationMs: Math.round(durationMs * 1000) / 1000,
    ...failureFacts(error),
  };
}

export interface TcpOutcome {
  readonly type: 'opened' | 'closed';
  readonly timeMs: number;
  readonly id: string;
  readonly bytesForward: number;
  readonly bytesBackward: number;
  readonly durationMs: number;
  readonly error?: ProxyError | undefined;
}

export function tcpEvent(connection: Connection, endpoint: PickedEndpoint | undefined, { error, ...measured }: TcpOutcome): TrafficEvent {
  return { ...endsOf(connection, endpoint, undefined), ...measured, ...failureFacts(error) };
}

export interface RefusedConnection {
  readonly source: string;
  readonly authority?: string;
  readonly principal?: string;
  readonly error: ProxyError;
  readonly id?: string;
}

export function refusedEvent({ source, authority = '', principal = '', error, id = '' }: RefusedConnection, timeMs: number): TrafficEvent {
  return {
    timeMs,
    type: 'closed',
    direction: 'waypoint',
    id,
    source: { namespace: '', name: '', workload: '', identity: principal, address: source },
    destination: { namespace: '', name: '', workload: '', identity: '', address: authority },
    port: Number(/:(\d+)$/.exec(authority)?.[1] ?? 0),
    mutualTls: principal !== '',
    bytesForward: 0,
    bytesBackward: 0,
    durationMs: 0,
    ...failureFacts(error),
  };
}

function endsOf(
  { caller, target, local }: Connection,
  endpoint: PickedEndpoint | undefined,
  chosen: Service | undefined,
): Pick<TrafficEvent, 'direction' | 'source' | 'destination' | 'service' | 'port' | 'mutualTls'> {
  // What was called: a route may lead to another one, whose pod the destination is.
  const service = target.service ?? chosen;
  const to = endpoint?.workload ?? target.workload;
  const source = endOf(caller.workload, caller.address, caller.principal);
  return {
    direction: 'waypoint',
    source:
      caller.workload || !caller.baggage
        ? source
        : { ...source, namespace: caller.baggage.namespace ?? '', workload: caller.baggage.workloadName ?? '' },
    destination: endOf(to, endpoint?.address ?? local, endpoint?.peers ? formatSpiffeId(endpoint.workload) : ''),
    ...(service && { service: serviceOf(service) }),
    port: target.port,
    mutualTls: caller.principal !== '',
  };
}

const serviceOf = ({ namespace, name, hostname }: Service): EventService => ({ namespace, name, hostname });

const endOf = (workload: Workload | undefined, address: SocketAddress, identity: string): EventEnd => ({
  namespace: workload?.namespace ?? '',
  name: workload?.name ?? '',
  workload: workload?.workloadName ?? '',
  identity,
  address: formatSocketAddress(address),
});
