/** Connections as events: what `meshctl tap` shows of them, made from the same facts as their line in the access log. */
import { formatSocketAddress, type SocketAddress } from '../../common/base/address.ts';
import type { ProxyError } from '../../common/base/errors.ts';
import type { Workload } from '../../common/decision/mesh-view.ts';
import { type EventEnd, failureFacts, type TrafficEvent } from '../../common/decision/traffic-event.ts';
import type { ConnectionFacts, EarlyFailure } from './connection-facts.ts';

/** What has come of a connection so far. */
export interface ConnectionOutcome {
  readonly type: 'opened' | 'closed';
  readonly timeMs: number;
  readonly bytesForward: number;
  readonly bytesBackward: number;
  readonly durationMs: number;
  readonly error?: ProxyError | undefined;
}

export function connectionEvent(facts: ConnectionFacts, outcome: ConnectionOutcome): TrafficEvent {
  const { direction, id, sourceWorkload: from, sourceBaggage: said, destinationWorkload: to, service, mutualTls } = facts;
  const { error, ...measured } = outcome;
  const source = endOf(from, facts.source, mutualTls ? facts.sourceIdentity : undefined);
  return {
    ...measured,
    direction,
    id,
    // A caller of another network is known by what it says of itself.
    source: from || !said ? source : { ...source, namespace: said.namespace ?? '', workload: said.workloadName ?? '' },
    destination: endOf(to, facts.destination, mutualTls ? facts.destinationIdentity : undefined),
    ...(service && { service: { namespace: service.namespace, name: service.name, hostname: service.hostname } }),
    port: portOf(facts.authority) ?? facts.destination.port,
    mutualTls,
    ...failureFacts(error),
  };
}

/** One that ended before it counted as a connection. */
export function refusedEvent(
  { direction, source, destination, error, id = '', client, service }: EarlyFailure,
  timeMs: number,
): TrafficEvent {
  return {
    timeMs,
    type: 'closed',
    direction,
    id,
    source: endOf(client, source, undefined),
    destination: endOf(undefined, destination, undefined),
    ...(service && { service: { namespace: service.namespace, name: service.name, hostname: service.hostname } }),
    port: destination.port,
    mutualTls: false,
    bytesForward: 0,
    bytesBackward: 0,
    durationMs: 0,
    ...failureFacts(error),
  };
}

const endOf = (workload: Workload | undefined, address: SocketAddress, identity: string | undefined): EventEnd => ({
  namespace: workload?.namespace ?? '',
  name: workload?.name ?? '',
  workload: workload?.workloadName ?? '',
  identity: identity ?? '',
  address: formatSocketAddress(address),
});

/** Tunnels go to 15008; what was asked for is in their authority. */
function portOf(authority: string | undefined): number | undefined {
  const port = /:(\d+)$/.exec(authority ?? '')?.[1];
  return port === undefined ? undefined : Number(port);
}
