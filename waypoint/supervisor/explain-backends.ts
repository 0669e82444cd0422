/**
 * Where a request or a connection goes from this waypoint, with every way that chance can bring: the data path's own choice of backends and
 * endpoints.
 */
import { formatSocketAddress } from '../../common/base/address.ts';
import type { Backend } from '../../common/codec/gen/waypoint.ts';
import { clusterMembers } from '../../common/decision/cluster-members.ts';
import { matchConnection } from '../../common/decision/connection-route.ts';
import { podOf, type RouteSeen, type Step } from '../../common/decision/explain.ts';
import { policiesSeen, type RequestExplanation } from '../../common/decision/explain-http.ts';
import { decideHttp, type HttpCaller, type HttpDestination } from '../../common/decision/http-authorization.ts';
import { type MeshView, type Service, serviceKey, type Workload } from '../../common/decision/mesh-view.ts';
import { workloadIdentity } from '../../common/decision/outbound.ts';
import { HBONE_PORT } from '../../common/decision/ports.ts';
import type { RouteSource } from '../../common/decision/route-source.ts';
import { policyOf } from '../../common/decision/traffic-model.ts';
import type { Configuration } from '../worker/configuration.ts';

export interface BackendParts {
  readonly view: MeshView;
  readonly inForce: Pick<Configuration, 'trafficOf' | 'labelOf' | 'routesOf' | 'transportPoliciesOf'>;
  /** Whose neighbours are near: the waypoint, or whoever asks where the mesh does not know it yet. */
  readonly from: Workload | undefined;
  readonly destination: HttpDestination;
  readonly source: RouteSource;
}

const MAX_ENDPOINTS = 16;

/** @param rest the share of requests that gets so far */
export function backendsOf(
  parts: BackendParts,
  { name, backends }: { readonly name: string; readonly backends: readonly Pick<Backend, 'to' | 'weight'>[] },
  rest: number,
): RouteSeen[] {
  const total = backends.reduce((sum, backend) => sum + backend.weight, 0);
  if (total === 0) return [invalid(rest, `${name} has no backend with a weight`)];
  return backends.flatMap(({ to, weight }): RouteSeen[] => {
    const share = (rest * weight) / total;
    if (weight === 0) return [];
    const found = to && parts.view.serviceByKey(to.namespace, to.hostname);
    if (!to) return [invalid(share, `${name} chose a backend that is not valid`)];
    if (!found) return [invalid(share, `${name} chose ${to.namespace}/${to.hostname}, which is not known`)];
    if (!found.ports.has(to.port)) return [invalid(share, `${to.namespace}/${to.hostname} has no port ${to.port}`)];
    return endpointsOf(parts, found, { port: to.port, subset: to.subset, share });
  });
}

const invalid = (share: number, message: string): RouteSeen => ({ via: 'refuse', share, code: 'BACKEND_INVALID', status: 500, message });

/** The endpoints of a service's port, or of a subset, as its traffic settings have them; nothing is known here of which are put aside. */
export function endpointsOf(
  { view, inForce, from, destination }: BackendParts,
  service: Service,
  { port, subset, share }: { readonly port: number; readonly subset: string; readonly share: number },
): RouteSeen[] {
  const key = serviceKey(service);
  const traffic = inForce.trafficOf(key);
  const policy = policyOf(traffic, port, subset);
  if (policy?.refuse)
    return [{ via: 'refuse', share, code: 'BACKEND_INVALID', message: `${policy.origin}: ${policy.refuse}`, service: key }];
  const { ip } = destination;
  const keeps = service.loadBalancing.mode === 'PASSTHROUGH' || policy?.balancing === 'passthrough';
  if (keeps && ip !== undefined && destination.service === key) {
    const target = service.ports.get(port) || port;
    const workload = from && view.workloadByAddress(from.network, ip);
    return [
      workload ? routeTo(workload, target, share, key) : { via: 'tcp', share, to: formatSocketAddress({ ip, port: target }), service: key },
    ];
  }
  const wanted = subset === '' ? undefined : traffic?.subsets.get(subset);
  if (subset !== '' && !wanted) return [absent(share, key, subset)];
  const [any] = view.endpoints(service);
  const source = from ?? any?.workload;
  const shares = source
    ? clusterMembers(view, service, {
        source,
        port,
        labels: wanted?.labels,
        locality: policy?.locality,
        label: (workload, name) => inForce.labelOf(workload.uid, name),
      })
    : [];
  const all = shares.reduce((sum, { weight }) => sum + weight, 0);
  const near = shares.flatMap(({ weight, tiers: [first = []] }) => {
    const sum = first.reduce((total, endpoint) => total + endpoint.weight, 0);
    return first.map((endpoint) => ({ ...endpoint, share: (share * weight * endpoint.weight) / (all * sum) }));
  });
  if (near.length === 0) return [absent(share, key, subset)];
  return near.slice(0, MAX_ENDPOINTS).map((endpoint) => routeTo(endpoint.workload, endpoint.port, endpoint.share, key));
}

const absent = (share: number, service: string, subset: string): RouteSeen => ({
  via: 'refuse',
  share,
  code: 'NO_HEALTHY_UPSTREAM',
  message: `no healthy upstream: ${service}${subset === '' ? '' : `, subset ${subset}`}`,
  service,
});

export function routeTo(workload: Workload, port: number, share: number, service: string | undefined): RouteSeen {
  const [ip = ''] = workload.addresses;
  const about = { share, pod: podOf(workload), ...(service !== undefined && { service }) };
  const to = { ip, port };
  if (workload.protocol === 'TCP') return { via: 'tcp', to: formatSocketAddress(to), ...about };
  return {
    via: 'hbone',
    to: formatSocketAddress({ ip, port: HBONE_PORT }),
    authority: formatSocketAddress(to),
    peers: [workloadIdentity(workload)],
    waypoint: false,
    ...about,
  };
}

const NO_REQUEST = { method: '', scheme: '', authority: '', path: '', fields: [] } as const;

/** A port of which nobody reads requests: policies of connections, and rules for connections. */
export function explainBytes(
  parts: BackendParts,
  {
    caller: known,
    protocol,
    host,
    service,
  }: { readonly caller: HttpCaller; readonly protocol: 'TCP' | 'TLS'; readonly host: string; readonly service: Service | undefined },
): RequestExplanation {
  const { inForce, destination, source } = parts;
  const { service: key, ip, port } = destination;
  // What a client of TLS asks for is whom it means to call; on a port of TCP none is expected.
  const serverName = protocol === 'TLS' ? host.replace(/:\d+$/, '').toLowerCase() : undefined;
  const caller = serverName === undefined ? known : { ...known, serverName: { is: serverName } };
  const tls = serverName === undefined ? 'TCP: it is judged as a connection, whatever is in it' : `TLS: a client asks for ${serverName}`;
  const steps: Step[] = [{ stage: 'route', text: `the port is declared as ${tls}` }];
  const transport = inForce.transportPoliciesOf(key);
  const policies = policiesSeen(transport, NO_REQUEST, caller, destination);
  const verdict = decideHttp(transport, NO_REQUEST, caller, destination);
  const { policy } = verdict;
  if (!verdict.allowed)
    return {
      steps,
      policies,
      allowed: false,
      code: 'POLICY_DENIED',
      ...(policy !== undefined && { policy }),
      reason: verdict.reason,
      routes: [],
    };
  const reason = policy === undefined ? 'no allow policies' : `explicitly allowed by: ${policy}`;
  const connections = key === undefined ? undefined : inForce.routesOf(key)?.connections;
  const rules = connections?.get(port) ?? connections?.get(0);
  if (!rules || !service) {
    const routes = service ? endpointsOf(parts, service, { port, subset: '', share: 1 }) : [];
    return { steps, policies, allowed: true, reason, routes };
  }
  const rule = matchConnection(rules, { serverName, ip, source });
  if (!rule)
    return {
      steps,
      policies,
      allowed: false,
      code: 'ROUTE_UNMATCHED',
      reason: `no route of ${key} port ${port} takes a connection${serverName === undefined ? '' : ` for ${serverName}`}`,
      routes: [],
    };
  steps.push({ stage: 'route', text: `it takes the rule ${rule.name}` });
  return { steps, policies, allowed: true, reason, rule: rule.name, routes: backendsOf(parts, rule, 1) };
}
