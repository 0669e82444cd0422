/** Routes of the Gateway API, and VirtualServices where those leave room → the tables that waypoints are told, and the routes' statuses. */
import type { BackendRef, ServiceRoutes } from '../../common/codec/gen/waypoint.ts';
import type { Bindings } from './bindings.ts';
import { mapEach } from './groups.ts';
import type { HostTranslation } from './host-translation.ts';
import type { Inputs } from './inputs.ts';
import type { MeshService } from './mesh-service.ts';
import * as names from './names.ts';
import { Backends } from './route-backends.ts';
import { type RouteParentStatus, routeStatus } from './route-status.ts';
import { type Attachment, portRoutes } from './route-table.ts';
import { isForHost, parentGateway, parentSource, type Route } from './routes.ts';

export class RouteTranslation {
  readonly backends: Backends;
  readonly #inputs: Inputs;
  readonly #bindings: Bindings;
  readonly #hosts: HostTranslation;

  constructor(inputs: Inputs, bindings: Bindings, hosts: HostTranslation) {
    this.backends = new Backends(inputs);
    this.#inputs = inputs;
    this.#bindings = bindings;
    this.#hosts = hosts;
  }

  /** The routes of a Service or ServiceEntry for each of its waypoints. Only those of its own namespace and of the waypoint's count. */
  tables(source: string): Map<string, ServiceRoutes[]> {
    const made = new Map<string, ServiceRoutes[]>();
    const found = this.#inputs.services.get(source);
    const attachments = this.#inputs.routes.attachments(source);
    const isConcerned = found?.services.some(({ hostname }) => this.#inputs.hosts.concerns(hostname)) ?? false;
    if (found && (attachments.length > 0 || isConcerned)) {
      for (const waypoint of this.#bindings.waypointsOf(source)) {
        const routes = found.services.flatMap((service) => this.#routesAt(service, waypoint, attachments) ?? []);
        if (routes.length > 0) made.set(waypoint, routes);
      }
    }
    this.#inputs.recordBackends(source, mapEach(made, backendsOf));
    this.#inputs.recordInterests(
      `callers of ${source}`,
      mapEach(made, (routes) => this.#hosts.callerInterests(routes)),
    );
    return made;
  }

  /** Services that a route is attached to, each with the waypoints that read the route. */
  servicesOf(id: string): { readonly service: MeshService; readonly waypoints: readonly string[] }[] {
    const route = this.#inputs.routes.get(id);
    if (!route) return [];
    return route.parents.flatMap((parent) => {
      const source = parentSource(parent);
      const found = source === undefined ? undefined : this.#inputs.services.get(source);
      if (source === undefined || !found) return [];
      const readers = this.#bindings
        .waypointsOf(source)
        .filter((key) => route.namespace === found.namespace || key.startsWith(`${route.namespace}/`));
      return found.services
        .filter((service) => this.#inputs.claims.isPublished(service) && isForHost(route, service))
        .map((service) => ({ service, waypoints: readers }));
    });
  }

  /** What the status of a route says about each of its parents in the mesh. */
  status(route: Route): RouteParentStatus[] {
    return routeStatus(route, {
      backends: this.backends,
      parent: (source) => {
        const found = this.#inputs.services.get(source);
        return found && { namespace: found.namespace, waypoints: this.#bindings.waypointsOf(source) };
      },
    });
  }

  /** Gateways named as parents that are waypoints: routes attach to the services behind them. */
  waypointParents(route: Route): string[] {
    return route.parents.flatMap((parent) => {
      const gateway = this.#inputs.gateways.get(parentGateway(parent) ?? '');
      const controller = gateway && this.#inputs.gatewayClasses.get(gateway.className)?.controller;
      return gateway && controller === names.WAYPOINT_CONTROLLER ? [gateway.key] : [];
    });
  }

  #routesAt(service: MeshService, waypoint: string, attachments: readonly Attachment[]): ServiceRoutes | undefined {
    if (!this.#inputs.claims.isPublished(service)) return undefined;
    const own = attachments.filter(
      ({ route }) => (route.namespace === service.namespace || waypoint.startsWith(`${route.namespace}/`)) && isForHost(route, service),
    );
    const attached = portRoutes(own, (reference, route) => this.backends.resolve(reference, route).to);
    const ports = [...attached, ...this.#hosts.virtualPorts(service, waypoint, attached)];
    return ports.length === 0 ? undefined : { namespace: service.namespace, hostname: service.hostname, ports };
  }
}

/** Services that routes send to, `namespace/hostname`. */
function backendsOf(routes: readonly ServiceRoutes[]): Set<string> {
  const found = new Set<string>();
  const add = (to: BackendRef | undefined): void => {
    if (to) found.add(`${to.namespace}/${to.hostname}`);
  };
  for (const { ports } of routes) {
    for (const { rules, connections } of ports) {
      for (const { backends, mirrors } of rules) for (const { to } of [...backends, ...mirrors]) add(to);
      for (const { backends } of connections) for (const { to } of backends) add(to);
    }
  }
  return found;
}
