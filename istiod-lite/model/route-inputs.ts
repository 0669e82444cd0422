/** Routes by what they attach to and by what they send to, so that a change costs what it touches. */
import { isDeepStrictEqual } from 'node:util';
import { Groups } from './groups.ts';
import type { Attachment } from './route-table.ts';
import { backendSource, parentGateway, parentSource, type Route, routeId, ruleReferences } from './routes.ts';

export class RouteInputs {
  /** By `Kind namespace/name`. */
  readonly #routes = new Map<string, Route>();
  readonly #attached = new Groups<string>();
  readonly #mentions = new Groups<string>();
  readonly stale = {
    /** Routes whose parents or backends may have changed. */
    routes: new Set<string>(),
    /** `Kind/namespace/name` of what routes attach to, whose table must be made anew. */
    parents: new Set<string>(),
  };

  get(id: string): Route | undefined {
    return this.#routes.get(id);
  }

  set(id: string, next: Route | undefined): void {
    const before = this.#routes.get(id);
    if (isDeepStrictEqual(before, next)) return;
    if (before) this.#unlink(before);
    if (next) this.#routes.set(id, next);
    else this.#routes.delete(id);
    if (next) this.#link(next);
  }

  /** What attaches to a Service or ServiceEntry, in no particular order; a route that names it with two ports comes twice. */
  attachments(source: string): Attachment[] {
    return [...this.#attached.of(source)].flatMap((id) => {
      const route = this.#routes.get(id);
      if (!route) return [];
      return route.parents.flatMap((parent) => (parentSource(parent) === source ? [{ route, port: parent.port }] : []));
    });
  }

  /** @param source a Service, ServiceEntry or Gateway, `Kind/namespace/name`, or `Hostname/name` */
  staleSource(source: string): void {
    const attached = this.#attached.of(source);
    if (attached.size > 0) this.stale.parents.add(source);
    for (const id of attached) this.stale.routes.add(id);
    for (const id of this.#mentions.of(source)) {
      const route = this.#routes.get(id);
      if (route) this.#stale(route);
    }
  }

  #link(route: Route): void {
    const id = routeId(route);
    for (const source of parents(route)) this.#attached.add(source, id);
    for (const source of mentioned(route)) this.#mentions.add(source, id);
    this.#stale(route);
  }

  #unlink(route: Route): void {
    this.#stale(route);
    const id = routeId(route);
    for (const source of parents(route)) this.#attached.remove(source, id);
    for (const source of mentioned(route)) this.#mentions.remove(source, id);
  }

  #stale(route: Route): void {
    this.stale.routes.add(routeId(route));
    for (const source of parents(route)) this.stale.parents.add(source);
  }
}

const parents = (route: Route): Set<string> => new Set(route.parents.flatMap((parent) => parentSource(parent) ?? []));

/** Backends, and the Gateways that it names as parents: what its status is about beside what it attaches to. */
const mentioned = (route: Route): Set<string> =>
  new Set([
    ...route.rules.flatMap((rule) => ruleReferences(rule).flatMap((reference) => backendSource(reference) ?? [])),
    ...route.parents.flatMap((parent) => {
      const gateway = parentGateway(parent);
      return gateway === undefined ? [] : [`Gateway/${gateway}`];
    }),
  ]);
