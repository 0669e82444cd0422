/**
 * The part of the mesh that one waypoint is told: services bound to its Gateway, services that its routes name, its own service, and the
 * workloads behind all of them; workloads that are bound to it themselves. A waypoint runs in a user's namespace, so it learns no more than
 * it serves. (Who calls it says so itself, in the tunnel's headers.) Encoded bytes are shared with the store of everything.
 */
import { HttpAuthorization, ServiceRoutes, ServiceTelemetry } from '../../common/codec/gen/waypoint.ts';
import type { AddressFacts } from './address-facts.ts';
import { type ResourceChange, ResourceStore, type StoredResource } from './resource-store.ts';
import { contents } from './response.ts';

/** Which Gateway's: a service or workload is bound to it by the hostname of the service that is made for it. */
export interface GatewayName {
  readonly namespace: string;
  /** First label of that hostname. */
  readonly host: string;
}

interface Scope {
  readonly gateway: string;
  readonly store: ResourceStore;
  /** Services that its routes name. */
  named: ReadonlySet<string>;
}

export class AddressScopes {
  readonly #addresses: ResourceStore;
  readonly #facts: AddressFacts;
  readonly #scopes = new Map<string, Scope>();

  /** @param addresses everything @param facts of it */
  constructor(addresses: ResourceStore, facts: AddressFacts) {
    this.#addresses = addresses;
    this.#facts = facts;
  }

  /** What this Gateway's waypoints may see; kept up to date from then on. */
  storeOf(gateway: GatewayName, named: ReadonlySet<string>): ResourceStore {
    const key = `${gateway.namespace}/${gateway.host}`;
    const known = this.#scopes.get(key);
    if (known) return known.store;
    const scope: Scope = { gateway: key, store: new ResourceStore(this.#addresses.typeUrl), named };
    this.#scopes.set(key, scope);
    this.#update(scope, this.#facts.names(), 0);
    return scope.store;
  }

  /** @param change of the store of everything, which has it already, as have the facts @returns what it means for each waypoint */
  addressesChanged({ names, since }: ResourceChange): ResourceChange[] {
    if (this.#scopes.size === 0) return [];
    const touched = this.#withWorkloads(names);
    return [...this.#scopes.values()].flatMap((scope) => this.#update(scope, touched, since) ?? []);
  }

  /** The routes of a Gateway's waypoints name other services than before. */
  routesChanged(gateway: GatewayName, named: ReadonlySet<string>, since: number): ResourceChange[] {
    const scope = this.#scopes.get(`${gateway.namespace}/${gateway.host}`);
    if (!scope) return [];
    const touched = this.#withWorkloads(named.symmetricDifference(scope.named));
    scope.named = named;
    const change = this.#update(scope, touched, since);
    return change ? [change] : [];
  }

  /** Whether a workload is seen hangs on its services. */
  #withWorkloads(names: Iterable<string>): Set<string> {
    const touched = new Set<string>();
    for (const name of names) {
      touched.add(name);
      for (const workload of this.#facts.workloadsOf(name)) touched.add(workload);
    }
    return touched;
  }

  #update(scope: Scope, names: Iterable<string>, since: number): ResourceChange | undefined {
    const seen: StoredResource[] = [];
    const hidden: string[] = [];
    for (const name of names) {
      const resource = this.#addresses.get(name);
      if (resource && this.#sees(scope, name)) seen.push(resource);
      else hidden.push(name);
    }
    return scope.store.share(seen, hidden, since);
  }

  #sees(scope: Scope, name: string): boolean {
    const facts = this.#facts.get(name);
    if (facts?.gateways.includes(scope.gateway)) return true;
    if (facts?.services) return facts.services.some((service) => this.#seesService(scope, service));
    return this.#seesService(scope, name);
  }

  #seesService(scope: Scope, service: string): boolean {
    if (scope.named.has(service) || service === scope.gateway || service.startsWith(`${scope.gateway}.`)) return true;
    return this.#facts.get(service)?.gateways.includes(scope.gateway) ?? false;
  }
}

/** Services that the routes of a waypoint name, that its policies ask, or where its spans go, as `namespace/hostname`. */
export function servicesNamedBy({
  routes,
  httpAuthorizations,
  telemetry,
}: Readonly<Record<'routes' | 'httpAuthorizations' | 'telemetry', ResourceStore>>): ReadonlySet<string> {
  const found = new Set<string>();
  for (const resource of routes.values()) findServices(ServiceRoutes.decode(contents(resource)), found);
  for (const resource of httpAuthorizations.values()) findServices(HttpAuthorization.decode(contents(resource)).authorizer, found);
  for (const resource of telemetry.values()) findServices(ServiceTelemetry.decode(contents(resource)), found);
  return found;
}

/** Every `{namespace, hostname}` in a message: what routes lead to, whatever kinds of route there are. */
function findServices(message: unknown, found: Set<string>): void {
  if (typeof message !== 'object' || message === null || message instanceof Uint8Array) return;
  const { namespace, hostname } = message as { namespace?: unknown; hostname?: unknown };
  if (typeof namespace === 'string' && typeof hostname === 'string' && hostname !== '') found.add(`${namespace}/${hostname}`);
  for (const value of Object.values(message)) findServices(value, found);
}
