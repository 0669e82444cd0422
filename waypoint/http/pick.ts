/** Chooses an endpoint for each attempt: the one of the request's session, where it has one, else as the service's settings say. */
import { ProxyError } from '../../common/base/errors.ts';
import type { CompiledPolicy } from '../../common/decision/traffic-model.ts';
import { addressText } from '../cluster/cluster.ts';
import type { PickedEndpoint } from '../cluster/endpoint.ts';
import type { EndpointPicker } from '../cluster/picker.ts';
import type { Backend, RequestContext, Stage } from './context.ts';
import { type HashParts, requestHash, sessionAddress, tellSession } from './session.ts';

export interface PickParts extends HashParts {
  readonly picker: Pick<EndpointPicker, 'pick' | 'alone' | 'at' | 'policy' | 'original' | 'keepsDestination'>;
}

export function pickEndpoint(parts: PickParts): Stage {
  const { picker } = parts;
  return (next) => (request) => {
    const { backend } = request;
    if (backend?.service) {
      request.endpoint = choose(parts, request, backend);
      if (!request.endpoint) {
        const { namespace, hostname } = backend.service;
        const of = backend.subset === '' ? '' : `, subset ${backend.subset}`;
        const message = `no healthy upstream: ${namespace}/${hostname} port ${backend.port}${of}`;
        return Promise.reject(new ProxyError('NO_HEALTHY_UPSTREAM', message));
      }
    } else if (backend?.workload) request.endpoint = picker.alone(backend.workload, backend.port);
    else return Promise.reject(new ProxyError('BACKEND_INVALID', 'the request has no backend'));
    return next(request);
  };
}

function choose(parts: PickParts, request: RequestContext, { service, port, subset }: Backend): PickedEndpoint | undefined {
  const { picker } = parts;
  if (!service) return undefined;
  const { target } = request.connection;
  if (target.ip !== undefined && target.service?.hostname === service.hostname && picker.keepsDestination(service, port, subset)) {
    return picker.original(service, port, target.ip);
  }
  const policy: CompiledPolicy | undefined = picker.policy(service, port, subset);
  const session = request.entry?.rule.persistence?.carrier ?? policy?.persistence;
  if (policy === undefined && session === undefined) return picker.pick(service, port, request.refusedBy, subset);
  const known = session && sessionAddress(session, request);
  const same = known === undefined ? undefined : picker.at(service, port, subset, known);
  if (same && !request.refusedBy.has(same.key)) return same;
  const hash = policy?.hash && requestHash(parts, policy.hash.key, request);
  const endpoint = picker.pick(service, port, request.refusedBy, subset, hash);
  if (endpoint && session) tellSession(session, addressText(endpoint), request);
  return endpoint;
}
