/** Finds the rule that a request takes; a service that nothing is attached to is its own backend. */
import { ProxyError } from '../../common/base/errors.ts';
import { matchRoute, type RoutedRequest } from '../../common/decision/http-route.ts';
import type { MeshView } from '../../common/decision/mesh-view.ts';
import type { RouteSource } from '../../common/decision/route-source.ts';
import type { Configuration } from '../worker/configuration.ts';
import type { Caller, RequestContext, Stage } from './context.ts';

export interface RouteParts {
  readonly configuration: Pick<Configuration, 'routesOf' | 'labelOf' | 'labelAt'>;
  readonly view: Pick<MeshView, 'serviceByKey'>;
}

export function route({ configuration, view }: RouteParts): Stage {
  return (next) => (request) => {
    const { target } = request.connection;
    const routes = target.serviceKey === undefined ? undefined : configuration.routesOf(target.serviceKey);
    const found = routes
      ? matchRoute(routes, target.port, routedRequest(request), routeSource(configuration, request.connection.caller))
      : 'no-routes';
    if (found === 'no-match') {
      const where = `${request.received.method} ${request.received.authority}${pathOnly(request.received.path)}`;
      return Promise.reject(new ProxyError('ROUTE_UNMATCHED', `no route of ${target.serviceKey} port ${target.port} matches ${where}`));
    }
    if (found === 'no-routes') {
      // As it is now: the connection may be older than the service's latest ports and protocols.
      const service = target.service && (view.serviceByKey(target.service.namespace, target.service.hostname) ?? target.service);
      request.backend = { service, workload: target.workload, port: target.port, subset: '' };
    } else request.entry = found.entry;
    return next(request);
  };
}

/** With what its token says, where routes may ask for it. */
export const routedRequest = ({ head, token }: RequestContext): RoutedRequest => (token ? { ...head, claims: token.claims } : head);

/** One for each caller: connections live longer than requests. */
const sources = new WeakMap<Caller, RouteSource>();

/** @param configuration the worker's own, which there is one of */
export function routeSource(configuration: Pick<Configuration, 'labelOf' | 'labelAt'>, caller: Caller): RouteSource {
  const known = sources.get(caller);
  if (known) return known;
  const { identity, workload, address } = caller;
  const source: RouteSource = {
    namespace: identity?.namespace ?? '',
    label: (name) => (workload ? configuration.labelOf(workload.uid, name) : configuration.labelAt(address.ip, name)),
  };
  sources.set(caller, source);
  return source;
}

const pathOnly = (path: string): string => path.replace(/\?.*$/s, '').slice(0, 200);
