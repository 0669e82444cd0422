/**
 * A connection followed from proxy to proxy: the source's ztunnel says which ways it may take, the ztunnel of each destination what becomes
 * of it there. The proxies decide with their own code on their own state; here their answers are only put one after the other.
 */
import type { InboundExplanation, OutboundExplanation, PodSeen, RouteSeen } from '../../common/decision/explain.ts';

export interface Call {
  readonly namespace: string;
  readonly pod: string;
  readonly host: string;
  readonly port: number;
}

/** Who is asked what, so that tests need no cluster. */
export interface Proxies {
  /** @throws {Error} in the proxy's words */
  outbound(node: string, call: Call): Promise<OutboundExplanation & { readonly captured: boolean }>;
  inbound(node: string, call: ArrivingCall): Promise<InboundExplanation & { readonly captured: boolean }>;
}

export interface ArrivingCall {
  readonly namespace: string;
  readonly pod: string;
  readonly destination: string;
  readonly authority: string;
  readonly source: string;
  readonly identity: string;
}

export interface Way {
  readonly route: RouteSeen;
  /** At the destination; absent where the connection does not get there or nobody of the mesh is there. */
  readonly arrival?: InboundExplanation;
  readonly verdict: Verdict;
}

export interface Verdict {
  readonly outcome: 'delivered' | 'refused' | 'unknown';
  readonly code?: string;
  readonly policy?: string;
  readonly reason: string;
}

export interface Explanation {
  readonly call: Call;
  readonly source: PodSeen;
  readonly captured: boolean;
  readonly steps: OutboundExplanation['steps'];
  readonly ways: readonly Way[];
}

/** Ports that peers dial from, where the connection does not exist yet: policies do not look at it. */
const SOME_PORT = 40_000;
/** Ways that are followed to their end. */
const MAX_WAYS = 8;

/** @param from where the pod is, and one of its addresses */
export async function explain(call: Call, from: { readonly node: string; readonly ip: string }, proxies: Proxies): Promise<Explanation> {
  const { source, steps, routes, captured } = await proxies.outbound(from.node, call);
  const ways = await Promise.all(
    routes.slice(0, MAX_WAYS).map((route) => follow(route, { ip: from.ip, identity: captured ? source.identity : '' }, proxies)),
  );
  return { call, source, captured, steps, ways };
}

async function follow(route: RouteSeen, source: { readonly ip: string; readonly identity: string }, proxies: Proxies): Promise<Way> {
  const { pod, to = '', authority = '' } = route;
  switch (route.via) {
    case 'refuse':
      return { route, verdict: { outcome: 'refused', ...(route.code !== undefined && { code: route.code }), reason: route.message ?? '' } };
    case 'resolve':
      return { route, verdict: { outcome: 'unknown', reason: route.message ?? '' } };
    case 'double-hbone':
      return { route, verdict: { outcome: 'unknown', reason: 'it goes on in another network, whose proxies are not asked' } };
  }
  if (route.waypoint === true)
    return { route, verdict: { outcome: 'unknown', reason: 'the waypoint decides: by its routes and policies, request by request' } };
  if (!pod || pod.node === '' || pod.name === '')
    return { route, verdict: { outcome: 'delivered', reason: 'it leaves the mesh; nobody of the mesh decides any further' } };
  const arrival = await proxies.inbound(pod.node, {
    namespace: pod.namespace,
    pod: pod.name,
    destination: to,
    authority,
    source: source.ip.includes(':') ? `[${source.ip}]:${SOME_PORT}` : `${source.ip}:${SOME_PORT}`,
    identity: route.via === 'hbone' ? source.identity : '',
  });
  const { allowed, code, policy, reason } = arrival;
  return {
    route,
    arrival,
    verdict: {
      outcome: allowed ? 'delivered' : 'refused',
      ...(code !== undefined && { code }),
      ...(policy !== undefined && { policy }),
      reason,
    },
  };
}

/** One word for all ways: what they have in common, or that it depends. */
export function overall({ ways }: Explanation): Verdict['outcome'] | 'depends' {
  const outcomes = new Set(ways.map(({ verdict }) => verdict.outcome));
  const [only = 'unknown'] = outcomes;
  return outcomes.size === 1 ? only : 'depends';
}
