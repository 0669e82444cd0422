/** Finds the rule that a request takes; a service that nothing is attached to is its own backend. */
import { ProxyError } from '../../common/base/errors.ts';
import { matchRoute } from '../../common/decision/http-route.ts';
import type { MeshView } from '../../common/decision/mesh-view.ts';
import type { Configuration } from '../worker/configuration.ts';
import type { Stage } from './context.ts';

export interface RouteParts {
  readonly configuration: Pick<Configuration, 'routesOf'>;
  readonly view: Pick<MeshView, 'serviceByKey'>;
}

export function route({ configuration, view }: RouteParts): Stage {
  return (next) => (request) => {
    const { target } = request.connection;
    const routes = target.serviceKey === undefined ? undefined : configuration.routesOf(target.serviceKey);
    const found = matchRoute(routes, target.port, request.head);
    if (found === 'no-match') {
      const where = `${request.received.method} ${request.received.authority}${pathOnly(request.received.path)}`;
      return Promise.reject(new ProxyError('ROUTE_UNMATCHED', `no route of ${target.serviceKey} port ${target.port} matches ${where}`));
    }
    if (found === 'no-routes') {
      // As it is now: the connection may be older than the service's latest ports and protocols.
      const service = target.service && (view.serviceByKey(target.service.namespace, target.service.hostname) ?? target.service);
      request.backend = { service, workload: target.workload, port: target.port };
    } else request.entry = found.entry;
    return next(request);
  };
}

const pathOnly = (path: string): string => path.replace(/\?.*$/s, '').slice(0, 200);
