/**
 * A connection that a pod opened and redirection brought to port 15001: find out where it was going, decide, connect, relay
 * (Istio's ztunnel, src/proxy/outbound.rs).
 */
import { formatSocketAddress, type SocketAddress } from '../../common/base/address.ts';
import { type OutcomeCode, ProxyError } from '../../common/base/errors.ts';
import { formatSpiffeId } from '../../common/base/spiffe.ts';
import { formatBaggage, formatForwarded, formatTraceparent } from '../../common/decision/headers.ts';
import type { Workload } from '../../common/decision/mesh-view.ts';
import { type DoubleTunnel, type OutboundRoute, type Refusal, routeOutbound, type Tunnel } from '../../common/decision/outbound.ts';
import { type AppSocket, turnToBegin } from '../../common/hbone/app-socket.ts';
import { TunnelRefused } from '../../common/hbone/refusal.ts';
import { relay } from '../../common/hbone/relay.ts';
import type { Headers, Pipe } from '../../common/hbone/types.ts';
import { originalDestination } from '../../common/linux/sockets.ts';
import type { ConnectionFacts } from '../worker/connection-facts.ts';
import type { LiveConnection } from '../worker/connections.ts';
import type { PodContext } from '../worker/context.ts';
import { dialApplication } from '../worker/dial.ts';
import { gatewayOf } from '../worker/gateway-load.ts';
import type { ConnectionRecord } from '../worker/telemetry.ts';
import { openDoubleTunnel } from './tunnel.ts';

/** A hostname behind a hostname behind a hostname is a mistake. */
const MAX_RESOLUTIONS = 3;

/** Pods of a gateway that are asked beside the first one, where that one is gone; fewer where each of them takes ten seconds to say nothing. */
const MAX_MOVES = 2;
const MAX_MOVES_IN_SILENCE = 1;

/** Never rejects for what a peer or the network did; that is in the log. */
export async function serveOutbound(pod: PodContext, app: AppSocket): Promise<void> {
  const { peer } = app;
  if (!peer) {
    app.destroy();
    return;
  }
  const { telemetry, connections } = pod.parts;
  const destination = originalDestination(app.fd) ?? app.local;
  const live = connections.add(pod.spec.uid);
  telemetry.socketOpened('outbound');
  try {
    await carryOutbound(pod, live, app, peer, destination);
  } finally {
    connections.remove(live);
    telemetry.socketClosed('outbound');
  }
}

/** From where it was going to its end. Never rejects for what a peer or the network did. */
export async function carryOutbound(
  pod: PodContext,
  live: LiveConnection,
  app: AppSocket,
  from: SocketAddress,
  destination: SocketAddress,
): Promise<void> {
  const { telemetry, randomHex } = pod.parts;
  const id = randomHex(32);
  const traceparent = formatTraceparent(id, randomHex(16));
  let record: ConnectionRecord | undefined;
  let leave: (() => void) | undefined;
  try {
    const turn = turnToBegin(pod.lane);
    if (turn) await turn;
    // Where everything is known nothing is waited for: each turn of the microtasks costs objects (bench ztunnel, new connections).
    const source = pod.local.get() ?? (await pod.local.wait(live.signal));
    const first = decideAtOnce(pod, source, from, destination) ?? (await decide(pod, live, source, from, destination, NOBODY));
    let { route } = first;
    leave = first.leave;
    if ('refuse' in route) {
      // Nothing was opened, so nothing counts as a connection (Istio's ztunnel, src/proxy/outbound.rs); who it was is known all the same.
      const error = new ProxyError(route.refuse, route.message);
      telemetry.failedEarly({ direction: 'outbound', source: from, destination, error, id, client: source, service: route.service });
      app.destroy(error);
      return;
    }
    record = telemetry.opened(factsOf({ id, from, source, destination, route }));
    let upstream: Pipe | undefined;
    let gone: Set<string> | undefined;
    while (!upstream) {
      const gateway = gatewayOf(route);
      try {
        upstream = await connect(pod, live, { route, source, from, traceparent });
      } catch (error) {
        gone ??= new Set();
        if (!gateway || gone.size >= mostMoves(error) || live.cancelled.aborted) throw error;
        leave?.();
        leave = undefined;
        gone.add(gateway.uid);
        const other = await decide(pod, live, source, from, destination, gone);
        leave = other.leave;
        if ('refuse' in other.route || gone.has(gatewayOf(other.route)?.uid ?? gateway.uid)) throw error;
        route = other.route;
        record.moved(factsOf({ id, from, source, destination, route }));
      }
    }
    live.tracked = {
      uid: pod.spec.uid,
      direction: 'outbound',
      src: formatSocketAddress(from),
      originalDst: formatSocketAddress(destination),
      actualDst: 'authority' in route ? route.authority : formatSocketAddress('to' in route ? route.to : destination),
      protocol: protocolOf(route),
    };
    const running = relay(app, upstream);
    record.running(running);
    live.relaying(running);
    const { error } = await running.done;
    record.ended(error);
  } catch (reason) {
    const error = ProxyError.from(reason, 'CONNECTION_LOST', 'connection failed');
    if (record) record.ended(error);
    else telemetry.failedEarly({ direction: 'outbound', source: from, destination, error, id });
    app.destroy(error);
  } finally {
    leave?.();
  }
}

/**
 * After how many pods of a gateway it ends with this error. One that is not there, not any more, or takes no more connections costs nothing:
 * nothing of the application has been sent, so another one may be asked. A verdict stands.
 */
function mostMoves(error: unknown): number {
  // Without this whoever is full would look idle, and get everything.
  if (error instanceof TunnelRefused) return error.status === 503 ? MAX_MOVES : 0;
  if (!(error instanceof ProxyError)) return 0;
  if (error.code === 'UPSTREAM_TIMEOUT') return MAX_MOVES_IN_SILENCE;
  return ABSENCES.has(error.code) ? MAX_MOVES : 0;
}

const ABSENCES: ReadonlySet<OutcomeCode> = new Set(['UPSTREAM_CONNECT', 'TLS_FAILURE', 'HTTP2_FAILURE', 'CONNECTION_LOST']);

interface Decided {
  readonly route: OutboundRoute;
  /** Takes it off its gateway's load, where it has one. It counts from its decision on: the next one is made in the same turn. */
  readonly leave: (() => void) | undefined;
}

/** Where nothing has to be asked for first; else undefined, and nothing has been counted. */
function decideAtOnce(pod: PodContext, source: Workload, from: SocketAddress, destination: SocketAddress): Decided | undefined {
  const { view, onDemand, random, settings, gatewayLoad } = pod.parts;
  if (onDemand) return undefined;
  const { network, outboundTrafficPolicy } = settings;
  const load = (gateway: Workload): number => gatewayLoad.of(gateway);
  const route = routeOutbound(view, { source, sourceIp: from.ip, destination, network, outboundTrafficPolicy, random, load });
  if ('via' in route && route.via === 'resolve') return undefined;
  const gateway = gatewayOf(route);
  return { route, leave: gateway && gatewayLoad.add(gateway) };
}

const NOBODY: ReadonlySet<string> = new Set();

async function decide(
  pod: PodContext,
  live: LiveConnection,
  source: Workload,
  from: SocketAddress,
  destination: SocketAddress,
  gone: ReadonlySet<string>,
): Promise<Decided> {
  const { view, onDemand, random, settings, resolver, telemetry, gatewayLoad } = pod.parts;
  const load = (gateway: Workload): number => (gone.has(gateway.uid) ? Infinity : gatewayLoad.of(gateway));
  const resolved = new Map<string, readonly string[]>();
  for (;;) {
    const { network, outboundTrafficPolicy } = settings;
    const request = { source, sourceIp: from.ip, destination, network, outboundTrafficPolicy, random, load, resolved };
    const route = onDemand ? await onDemand.decided((known) => routeOutbound(known, request), live.signal) : routeOutbound(view, request);
    if (!('via' in route) || route.via !== 'resolve' || resolved.size >= MAX_RESOLUTIONS) {
      const gateway = gatewayOf(route);
      return { route, leave: gateway && gatewayLoad.add(gateway) };
    }
    telemetry.onDemandDns(source, route.hostname);
    resolved.set(route.hostname, await resolver.resolve(route.hostname));
  }
}

type Route = Exclude<OutboundRoute, Refusal>;

interface Upstream {
  readonly route: Route;
  readonly source: Workload;
  readonly from: SocketAddress;
  readonly traceparent: string;
}

async function connect(pod: PodContext, live: LiveConnection, { route, source, from, traceparent }: Upstream): Promise<Pipe> {
  switch (route.via) {
    case 'passthrough':
    case 'tcp':
      return dialApplication(pod, { to: route.to, signal: live.cancelled });
    case 'hbone':
      return pod.pool.connect(
        { source: formatSpiffeId(source), destinations: route.peers, to: route.to, sourceIp: from.ip },
        { authority: route.authority, headers: tunnelHeaders(route, source, from, traceparent), signal: live.cancelled },
      );
    case 'double-hbone':
      return openDoubleTunnel(pod, { route, source, from, headers: tunnelHeaders(route, source, from, traceparent) }, live.signal);
    case 'resolve':
      throw new ProxyError('NO_HEALTHY_UPSTREAM', `cannot resolve ${route.hostname}`);
  }
}

function tunnelHeaders({ service }: Tunnel | DoubleTunnel, source: Workload, from: SocketAddress, traceparent: string): Headers {
  return [
    ['baggage', formatBaggage(source)],
    ['forwarded', formatForwarded(from, service?.hostname)],
    ['traceparent', traceparent],
  ];
}

const PROTOCOLS = { hbone: 'HBONE', 'double-hbone': 'DOUBLEHBONE' } as const;
const protocolOf = (route: Route) =>
  'via' in route && (route.via === 'hbone' || route.via === 'double-hbone') ? PROTOCOLS[route.via] : 'TCP';

function factsOf(known: { id: string; from: SocketAddress; source: Workload; destination: SocketAddress; route: Route }): ConnectionFacts {
  const { id, from, source, destination, route } = known;
  const tunnel = 'via' in route && (route.via === 'hbone' || route.via === 'double-hbone') ? route : undefined;
  const workload = 'workload' in route ? route.workload : undefined;
  return {
    direction: 'outbound',
    id,
    source: from,
    sourceWorkload: source,
    sourceIdentity: tunnel && formatSpiffeId(source),
    destination: 'to' in route ? route.to : destination,
    authority: tunnel?.authority,
    destinationWorkload: workload,
    destinationIdentity: tunnel && workload && formatSpiffeId(workload),
    service: 'service' in route ? route.service : undefined,
    mutualTls: tunnel !== undefined,
    target: destination,
  };
}
