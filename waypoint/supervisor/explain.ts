/** What this waypoint would do with a request, told step by step to `meshctl explain`: the workers' own decisions on the state that they share. */
import { parseSocketAddress } from '../../common/base/address.ts';
import type { Clock } from '../../common/base/clock.ts';
import { silentLog } from '../../common/base/log.ts';
import { parseSpiffeId } from '../../common/base/spiffe.ts';
import type { RequestQuestion } from '../../common/codec/gen/diagnostics.ts';
import type { Step } from '../../common/decision/explain.ts';
import { answersOf, explainRequest, type RequestExplanation } from '../../common/decision/explain-http.ts';
import { normalizePath } from '../../common/decision/http-path.ts';
import { type MeshView, serviceKey } from '../../common/decision/mesh-view.ts';
import type { Buckets } from '../../common/decision/rate-limit.ts';
import { resolveBinding } from '../inbound/binding.ts';
import type { WaypointSettings } from '../settings.ts';
import { Configuration, type ConfigurationPush } from '../worker/configuration.ts';
import { backendsOf, endpointsOf, explainBytes, routeTo } from './explain-backends.ts';

export interface ExplainParts {
  readonly view: MeshView;
  /** All that is in force. */
  readonly configuration: readonly ConfigurationPush[];
  /** What limits are counted in, shared with the workers. */
  readonly buckets: Buckets;
  readonly clock: Pick<Clock, 'now'>;
  readonly settings: Pick<WaypointSettings, 'network' | 'podName' | 'podNamespace' | 'serviceAccount' | 'instanceIp' | 'host'>;
}

/** @throws {Error} for a question that is none */
export function explainRequestCall(
  { view, configuration, buckets, clock, settings }: ExplainParts,
  question: RequestQuestion,
): RequestExplanation {
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
  const destination = { service: key, ip: binding.ip, port: binding.port };
  const label = (name: string): string | undefined => (caller ? inForce.labelOf(caller.uid, name) : inForce.labelAt(source.ip, name));
  const parts = { view, inForce, from: self ?? caller, destination, source: { namespace: identity.namespace, label } };
  const steps: Step[] = [
    { stage: 'destination', text: `a request of ${question.identity} for ${key ?? workload?.uid}, port ${binding.port}` },
  ];
  const from = { identity, ip: source.ip };
  const protocol = service?.appProtocols.get(binding.port);
  if (protocol === 'TCP' || protocol === 'TLS') {
    const { steps: more, ...explained } = explainBytes(parts, { caller: from, protocol, host: question.host, service });
    return { steps: [...steps, ...more], ...explained };
  }
  // As the data path has it when policies and routes see it.
  const request = { method: question.method, scheme: 'http', authority: question.host, path: normalizePath(question.path), fields };
  const limits = inForce.limitsOf(key);
  const decided = explainRequest({
    policies: inForce.policiesOf(key),
    routes: key === undefined ? undefined : inForce.routesOf(key),
    request,
    caller: from,
    destination,
    source: parts.source,
    tokens: inForce.tokenRulesOf(key),
    nowS: clock.now() / 1000,
    limits: limits && { of: limits, buckets },
  });
  steps.push(...decided.steps);
  const { policies, refused, reason, entry, unknown, token } = decided;
  const doubt = { ...(unknown !== undefined && { unknown }), ...(token && { token }) };
  if (refused) return { steps, policies, allowed: false, ...refused, ...doubt, routes: [] };
  if (!entry) {
    const routes = service
      ? endpointsOf(parts, service, { port: binding.port, subset: '', share: 1 })
      : workload
        ? [routeTo(workload, binding.port, 1, undefined)]
        : [];
    return { steps, policies, allowed: true, reason, ...doubt, routes };
  }
  const { answers, rest } = answersOf(entry, request, binding.port);
  const asked = { ...entry.rule, backends: entry.rule.backends.filter(({ redirect }) => !redirect) };
  // Shares are fractions, so nothing left may be a little more than nothing.
  const backends = rest > 1e-9 ? backendsOf(parts, asked, rest) : [];
  return { steps, policies, allowed: true, reason, ...doubt, rule: entry.rule.name, routes: [...answers, ...backends] };
}
