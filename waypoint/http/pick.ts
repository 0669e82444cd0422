/** Chooses an endpoint for each attempt. */
import { ProxyError } from '../../common/base/errors.ts';
import type { EndpointPicker } from '../cluster/picker.ts';
import type { Stage } from './context.ts';

export function pickEndpoint({ picker }: { readonly picker: Pick<EndpointPicker, 'pick' | 'alone'> }): Stage {
  return (next) => (request) => {
    const { backend } = request;
    if (backend?.service) {
      request.endpoint = picker.pick(backend.service, backend.port, request.refusedBy);
      if (!request.endpoint) {
        const { namespace, hostname } = backend.service;
        const message = `no healthy upstream: ${namespace}/${hostname} port ${backend.port}`;
        return Promise.reject(new ProxyError('NO_HEALTHY_UPSTREAM', message));
      }
    } else if (backend?.workload) request.endpoint = picker.alone(backend.workload, backend.port);
    else return Promise.reject(new ProxyError('BACKEND_INVALID', 'the request has no backend'));
    return next(request);
  };
}
