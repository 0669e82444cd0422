/**
 * A connection followed from proxy to proxy: the source's ztunnel says which ways it may take, the ztunnel of each destination what becomes
 * of it there. The proxies decide with their own code on their own state; here their answers are only put one after the other.
 */
import { parseSocketAddress } from '../../common/base/address.ts';
import type { InboundExplanation, OutboundExplanation, PodSeen, RouteSeen } from '../../common/decision/explain.ts';
import type { RequestExplanation } from '../../common/decision/explain-http.ts';
import { normalizePath } from '../../common/decision/http-path.ts';
import type { Decision } from '../../common/decision/journal.ts';

export interface Call {
  readonly namespace: string;
  readonly pod: string;
  readonly host: string;
  readonly port: number;
  /** What a waypoint on the way would see. */
  readonly request: RequestSketch;
}

export interface RequestSketch {
  readonly method: string;
  readonly path: string;
  /** `NAME: VALUE`. */
  readonly headers: readonly string[];
}

/** Who is asked what, so that tests need no cluster. */
export interface Proxies {
  /** @throws {Error} in the proxy's words */
  outbound(node: string, call: Call): Promise<OutboundExplanation & { readonly captured: boolean }>;
  inbound(node: string, call: ArrivingCall): Promise<InboundExplanation & { readonly captured: boolean }>;
  /** @param waypoint one of its pods */
  request(waypoint: PodSeen, call: WaypointCall): Promise<RequestExplanation>;
}

export interface WaypointCall extends RequestSketch {
  readonly authority: string;
  readonly source: string;
  readonly identity: string;
  readonly host: string;
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
  /** At the waypoint, and the ways on from there. */
  readonly request?: RequestExplanation;
  readonly ways?: readonly Way[];
  readonly verdict: Verdict;
}

export interface Verdict {
  /** `answered`: by the waypoint itself, as a rule wants it. */
  readonly outcome: 'delivered' | 'refused' | 'answered' | 'unknown';
  /** Of an answer. */
  readonly status?: number;
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
  const whose = { ip: from.ip, identity: captured ? source.identity : '' };
  const ways = await Promise.all(routes.slice(0, MAX_WAYS).map((route) => follow(route, whose, call, proxies)));
  return { call, source, captured, steps, ways };
}

interface Source {
  readonly ip: string;
  readonly identity: string;
}

async function follow(route: RouteSeen, source: Source, call: Call, proxies: Proxies): Promise<Way> {
  const { pod, to = '', authority = '' } = route;
  switch (route.via) {
    case 'refuse':
      return { route, verdict: { outcome: 'refused', ...(route.code !== undefined && { code: route.code }), reason: route.message ?? '' } };
    case 'answer':
      return {
        route,
        verdict: {
          outcome: 'answered',
          ...(route.status !== undefined && { status: route.status }),
          ...(route.code !== undefined && { code: route.code }),
          reason: route.message ?? '',
        },
      };
    case 'resolve':
      return { route, verdict: { outcome: 'unknown', reason: route.message ?? '' } };
    case 'double-hbone':
      return { route, verdict: { outcome: 'unknown', reason: 'it goes on in another network, whose proxies are not asked' } };
  }
  if (route.waypoint === true && pod) return throughWaypoint(route, pod, source, call, proxies);
  if (!pod || pod.node === '' || pod.name === '')
    return { route, verdict: { outcome: 'delivered', reason: 'it leaves the mesh; nobody of the mesh decides any further' } };
  const arrival = await proxies.inbound(pod.node, {
    namespace: pod.namespace,
    pod: pod.name,
    destination: to,
    authority,
    source: peerOf(source),
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

async function throughWaypoint(route: RouteSeen, waypoint: PodSeen, source: Source, call: Call, proxies: Proxies): Promise<Way> {
  const { authority = '', to = '' } = route;
  const { identity } = source;
  const host = call.port === 80 ? call.host : `${call.host}:${call.port}`;
  const request = await proxies.request(waypoint, { ...call.request, authority, source: peerOf(source), identity, host });
  const { allowed, code, status, policy, reason, unknown } = request;
  if (!allowed) {
    const decided = {
      ...(code !== undefined && { code }),
      ...(status !== undefined && { status }),
      ...(policy !== undefined && { policy }),
      reason,
    };
    return { route, request, verdict: { outcome: 'refused', ...decided } };
  }
  if (request.routes.length === 0)
    return { route, request, verdict: { outcome: 'unknown', reason: 'the waypoint did not say where it sends it' } };
  // From here on the waypoint is the caller, from its own address.
  const caller = { ip: to.slice(0, to.lastIndexOf(':')).replace(/^\[|\]$/g, ''), identity: waypoint.identity };
  const ways = await Promise.all(request.routes.slice(0, MAX_WAYS).map((next) => follow(next, caller, call, proxies)));
  const [first] = ways;
  if (unknown !== undefined) return { route, request, ways, verdict: { outcome: 'unknown', reason: unknown } };
  const agreed = new Set(ways.map(({ verdict: { outcome, status } }) => `${outcome} ${status ?? ''}`)).size === 1;
  const depends: Verdict = { outcome: 'unknown', reason: 'it depends on the endpoint that the waypoint chooses' };
  return { route, request, ways, verdict: agreed && first ? first.verdict : depends };
}

const peerOf = ({ ip }: Source): string => (ip.includes(':') ? `[${ip}]:${SOME_PORT}` : `${ip}:${SOME_PORT}`);

/** The decisions of policies and routes that an explanation is made of, as a rehearsal takes them: `proxy` decides. */
export function decisionsOf(
  { call, source, ways }: Explanation,
  fromIp: string,
): { readonly proxy: string; readonly decision: Decision }[] {
  const caller = {
    source: `${source.namespace}/${source.name}`,
    sourceIp: fromIp,
    identity: ways.some(({ route }) => route.via === 'hbone') ? source.identity : '',
  };
  return ways.flatMap((way) => decisionsOfWay(way, { caller, sketch: call.request, host: hostOf(call), behind: false }));
}

const hostOf = ({ host, port }: Call): string => (port === 80 ? host : `${host}:${port}`);

type Calling = Pick<Decision, 'source' | 'sourceIp' | 'identity'>;

interface Following {
  readonly caller: Calling;
  readonly sketch: RequestSketch;
  readonly host: string;
  /** A waypoint. */
  readonly behind: boolean;
}

function decisionsOfWay({ route, arrival, request, ways }: Way, following: Following): { proxy: string; decision: Decision }[] {
  const { caller, sketch, host, behind } = following;
  const { pod, authority = '', to = '' } = route;
  const nothing = { verdict: 'allowed', code: '', policy: '', route: '', mutualTls: route.via === 'hbone' } as const;
  if (arrival?.to !== undefined && pod) {
    const at = parseSocketAddress(arrival.to);
    const decision: Decision = {
      ...caller,
      ...nothing,
      identity: route.via === 'hbone' ? caller.identity : '',
      at: 'inbound',
      // Behind a waypoint nobody asks any more which service it was.
      service: behind ? '' : (route.service ?? ''),
      pod: `${pod.namespace}/${pod.name}`,
      uid: pod.uid,
      ip: at?.ip ?? '',
      port: at?.port ?? 0,
    };
    return [{ proxy: '', decision }];
  }
  if (!request || !pod) return [];
  const asked = parseSocketAddress(authority);
  const query = sketch.path.indexOf('?');
  const decision: Decision = {
    ...caller,
    ...nothing,
    at: 'request',
    service: route.service ?? '',
    pod: '',
    uid: '',
    ip: asked?.ip ?? '',
    port: asked?.port ?? Number(authority.slice(authority.lastIndexOf(':') + 1)),
    request: {
      complete: true,
      method: sketch.method,
      host: host.toLowerCase(),
      path: normalizePath(query < 0 ? sketch.path : sketch.path.slice(0, query)),
      headers: headersOf(sketch, request.token !== undefined),
      ...(request.token && { token: request.token }),
      query: query < 0 ? {} : Object.fromEntries(new URLSearchParams(sketch.path.slice(query + 1))),
    },
  };
  const next = {
    source: `${pod.namespace}/${pod.name}`,
    sourceIp: to.slice(0, to.lastIndexOf(':')).replace(/^\[|\]$/g, ''),
    identity: pod.identity,
  };
  return [
    { proxy: `${pod.name}.${pod.namespace}`, decision },
    ...(ways ?? []).flatMap((way) => decisionsOfWay(way, { ...following, caller: next, behind: true })),
  ];
}

/** As policies see them: where the waypoint has read a token, that is no part of the request any more. */
const headersOf = ({ headers }: RequestSketch, hasToken: boolean): Record<string, string> =>
  Object.fromEntries(
    headers
      .map((text): [string, string] => [text.slice(0, text.indexOf(':')).trim().toLowerCase(), text.slice(text.indexOf(':') + 1).trim()])
      .filter(([name]) => !(hasToken && name === 'authorization')),
  );

/** One word for all ways: what they have in common, or that it depends. */
export function overall({ ways }: Explanation): Verdict['outcome'] | 'depends' {
  const outcomes = endsOf(ways);
  const [only = 'unknown'] = outcomes;
  return outcomes.size === 1 ? only : 'depends';
}

/** How it may end, whichever way it takes. */
export const endsOf = (ways: readonly Way[]): Set<Verdict['outcome']> =>
  new Set(
    ways.flatMap(({ request, ways: further, verdict }) =>
      further && request?.unknown === undefined ? [...endsOf(further)] : [verdict.outcome],
    ),
  );
