/** What this waypoint would do with a request, told step by step to `meshctl explain`: the workers' own decisions on the state that they share. */
import { formatSocketAddress, parseSocketAddress } from '../../common/base/address.ts';
import { silentLog } from '../../common/base/log.ts';
import { parseSpiffeId } from '../../common/base/spiffe.ts';
import type { RequestQuestion } from '../../common/codec/gen/diagnostics.ts';
import { podOf, type RouteSeen, type Step } from '../../common/decision/explain.ts';
import { answersOf, explainRequest, type RequestExplanation } from '../../common/decision/explain-http.ts';
import type { CompiledEntry } from '../../common/decision/http-model.ts';
import { normalizePath } from '../../common/decision/http-path.ts';
import { eligibleEndpoints } from '../../common/decision/load-balance.ts';
import { type MeshView, type Service, serviceKey, type Workload } from '../../common/decision/mesh-view.ts';
import { workloadIdentity } from '../../common/decision/outbound.ts';
import { HBONE_PORT } from '../../common/decision/ports.ts';
import { resolveBinding } from '../inbound/binding.ts';
import type { WaypointSettings } from '../settings.ts';
import { Configuration, type ConfigurationPush } from '../worker/configuration.ts';

export interface ExplainParts {
  readonly view: MeshView;
  /** All that is in force. */
  readonly configuration: readonly ConfigurationPush[];
  readonly settings: Pick<WaypointSettings, 'network' | 'podName' | 'podNamespace' | 'serviceAccount' | 'instanceIp' | 'host'>;
}

const MAX_ENDPOINTS = 16;

/** @throws {Error} for a question that is none */
export function explainRequestCall({ view, configuration, settings }: ExplainParts, question: RequestQuestion): RequestExplanation {
  const { network, podName: name, podNamespace: namespace, serviceAccount, instanceIp, host } = settings;
  const self = view.workloadByAddress(network, instanceIp) ?? view.workloadByPod({ name, namespace, serviceAccount });
  const source = parseSocketAddress(question.source);
  const identity = parseSpiffeId(question.identity);
  if (!source || !identity) throw new Error('the caller: expected source ip:port and a SPIFFE URI as identity');
  const binding = resolveBinding(view, {
    waypoint: { namespace, host, self },
    network,
    authority: question.authority,
    callerNamespace: identity.namespace,
  });
  if ('refuse' in binding) return { steps: [], policies: [], allowed: false, code: binding.refuse, reason: binding.message, routes: [] };
  const service = 'service' in binding ? binding.service : undefined;
  const workload = 'workload' in binding ? binding.workload : undefined;
  const key = service && serviceKey(service);
  const inForce = new Configuration(silentLog);
  for (const push of configuration) inForce.apply(push);
  const caller = view.workloadByAddress(network, source.ip);
  const fields = question.headers.flatMap(({ name: field, value }) => [field.toLowerCase(), value]);
  // As the data path has it when policies and routes see it.
  const request = { method: question.method, scheme: 'http', authority: question.host, path: normalizePath(question.path), fields };
  const decided = explainRequest({
    policies: inForce.policiesOf(key),
    routes: key === undefined ? undefined : inForce.routesOf(key),
    request,
    caller: { identity, ip: source.ip },
    destination: { service: key, ip: binding.ip, port: binding.port },
    source: { namespace: identity.namespace, label: (label) => (caller ? inForce.labelOf(caller.uid, label) : undefined) },
  });
  const steps: Step[] = [
    { stage: 'destination', text: `a request of ${question.identity} for ${key ?? workload?.uid}, port ${binding.port}` },
    ...decided.steps,
  ];
  const { policies, refused, reason, entry } = decided;
  if (refused) return { steps, policies, allowed: false, ...refused, routes: [] };
  const from = self ?? caller;
  if (!entry) {
    const routes = service
      ? endpointsOf(view, service, binding.port, 1, from)
      : workload
        ? [routeTo(workload, binding.port, 1, undefined)]
        : [];
    return { steps, policies, allowed: true, reason, routes };
  }
  const { answers, rest } = answersOf(entry, request, binding.port);
  const backends = rest > 0 ? backendsOf(view, entry, rest, from) : [];
  return { steps, policies, allowed: true, reason, rule: entry.rule.name, routes: [...answers, ...backends] };
}

/** @param rest the share of requests that gets so far */
function backendsOf(view: MeshView, { rule }: CompiledEntry, rest: number, from: Workload | undefined): RouteSeen[] {
  const total = rule.backends.reduce((sum, backend) => sum + backend.weight, 0);
  if (total === 0) return [invalid(rest, `${rule.name} has no backend with a weight`)];
  return rule.backends.flatMap(({ to, weight }): RouteSeen[] => {
    const share = (rest * weight) / total;
    if (weight === 0) return [];
    const found = to && view.serviceByKey(to.namespace, to.hostname);
    if (!to) return [invalid(share, `${rule.name} chose a backend that is not valid`)];
    if (!found) return [invalid(share, `${rule.name} chose ${to.namespace}/${to.hostname}, which is not known`)];
    if (!found.ports.has(to.port)) return [invalid(share, `${to.namespace}/${to.hostname} has no port ${to.port}`)];
    return endpointsOf(view, found, to.port, share, from);
  });
}

const invalid = (share: number, message: string): RouteSeen => ({ via: 'refuse', share, code: 'BACKEND_INVALID', status: 500, message });

function endpointsOf(view: MeshView, service: Service, port: number, share: number, from: Workload | undefined): RouteSeen[] {
  const [any] = view.endpoints(service);
  const near = from ?? any?.workload;
  const endpoints = near ? eligibleEndpoints(view, service, near, port) : [];
  if (endpoints.length === 0) return [absent(share, serviceKey(service))];
  const weight = endpoints.reduce((sum, endpoint) => sum + endpoint.weight, 0);
  return endpoints
    .slice(0, MAX_ENDPOINTS)
    .map((endpoint) => routeTo(endpoint.workload, endpoint.port, (share * endpoint.weight) / weight, serviceKey(service)));
}

const absent = (share: number, service: string): RouteSeen => ({
  via: 'refuse',
  share,
  code: 'NO_HEALTHY_UPSTREAM',
  message: `no healthy upstream: ${service}`,
  service,
});

function routeTo(workload: Workload, port: number, share: number, service: string | undefined): RouteSeen {
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
