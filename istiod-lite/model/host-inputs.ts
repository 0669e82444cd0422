/**
 * VirtualServices and DestinationRules by the hosts that they are about and by those that they send to, so that a change costs what it touches.
 * Which of several counts for a service at a waypoint is decided here too: the service's namespace and the waypoint's have a say, nobody else.
 */
import { isDeepStrictEqual } from 'node:util';
import type { DestinationRule } from './destination-rule.ts';
import { Groups } from './groups.ts';
import { hostCovers, isExported } from './istio-values.ts';
import type { VirtualService } from './virtual-service.ts';
import { destinationsOf } from './virtual-service-table.ts';

/** Whom an object is asked about: a service, at a waypoint. */
export interface HostRequest {
  readonly hostname: string;
  /** Of the service. */
  readonly namespace: string;
  /** `namespace/name` of the waypoint's Gateway. */
  readonly waypoint: string;
}

interface Named {
  readonly key: string;
  readonly namespace: string;
  readonly createdAt: string;
  readonly exportTo: readonly string[];
}

export class HostInputs {
  readonly #virtual = new HostIndex<VirtualService>((one) => (one.mesh ? one.hosts : []));
  readonly #rules = new HostIndex<DestinationRule>(({ host }) => [host]);
  /** VirtualServices by the hostnames that they send to, and by `delegate namespace/name`. */
  readonly #mentions = new Groups<string>();
  readonly #rootNamespace: string;
  readonly stale = {
    /** Hosts, maybe with a wildcard, whose routes and traffic settings must be made anew. */
    hosts: new Set<string>(),
    /** Objects whose status may be another one. */
    virtualServices: new Set<string>(),
    destinationRules: new Set<string>(),
  };

  constructor(rootNamespace: string) {
    this.#rootNamespace = rootNamespace;
  }

  virtualService(key: string): VirtualService | undefined {
    return this.#virtual.get(key);
  }

  destinationRule(key: string): DestinationRule | undefined {
    return this.#rules.get(key);
  }

  /** Of any namespace. */
  rulesAbout(hostname: string): DestinationRule[] {
    return this.#rules.covering(hostname);
  }

  /** VirtualServices that send to a hostname, or with `delegate namespace/name` those that delegate to another one. */
  mentioning(mention: string): VirtualService[] {
    return [...this.#mentions.of(mention)].flatMap((key) => this.#virtual.get(key) ?? []);
  }

  setVirtualService(key: string, next: VirtualService | undefined): void {
    const before = this.#virtual.get(key);
    if (isDeepStrictEqual(before, next)) return;
    for (const one of [before, next]) if (one) this.#staleVirtual(one);
    if (before) for (const mention of mentionsOf(before)) this.#mentions.remove(mention, key);
    this.#virtual.set(key, next);
    if (next) for (const mention of mentionsOf(next)) this.#mentions.add(mention, key);
    // Whoever delegates to it is another one as well.
    for (const root of this.#mentions.of(`delegate ${key}`)) this.#staleKey(root);
  }

  setDestinationRule(key: string, next: DestinationRule | undefined): void {
    const before = this.#rules.get(key);
    if (isDeepStrictEqual(before, next)) return;
    this.#rules.set(key, next);
    for (const one of [before, next]) if (one) this.stale.hosts.add(one.host);
    this.stale.destinationRules.add(key);
    for (const one of [before, next]) if (one) this.#staleSharing(one.host);
    for (const one of [before, next]) if (one) this.#staleSenders(one.host);
  }

  /** Something about a service of this name has changed: whether it is there, its ports, its waypoint. */
  staleHostname(hostname: string): void {
    const virtual = this.#virtual.covering(hostname);
    const rules = this.#rules.covering(hostname);
    for (const { key } of virtual) this.stale.virtualServices.add(key);
    for (const { key } of rules) this.stale.destinationRules.add(key);
    if (virtual.length > 0 || rules.length > 0) this.stale.hosts.add(hostname);
    for (const key of this.#mentions.of(hostname)) this.#staleKey(key);
  }

  /** Its routes are made anew, and whether VirtualServices or other routes count there may be otherwise. */
  staleVirtualStatus(hostname: string): void {
    for (const { key } of this.#virtual.covering(hostname)) this.stale.virtualServices.add(key);
  }

  /** Whether any object is about it at all. */
  concerns(hostname: string): boolean {
    return this.#virtual.covering(hostname).length > 0 || this.#rules.covering(hostname).length > 0;
  }

  /** The VirtualService that counts: the one that names the host most exactly, then the oldest. */
  virtualFor(request: HostRequest): VirtualService | undefined {
    return this.#candidates(this.#virtual.covering(request.hostname), request, (one) => bestHost(one.hosts, request.hostname))[0];
  }

  /** DestinationRules that count, the most specific first: of the waypoint's namespace before the service's before the root namespace. */
  rulesFor(request: HostRequest): DestinationRule[] {
    const [waypointNamespace] = request.waypoint.split('/');
    const rank = ({ namespace }: DestinationRule): number =>
      namespace === waypointNamespace ? 0 : namespace === request.namespace ? 1 : 2;
    const found = this.#candidates(this.#rules.covering(request.hostname), request, ({ host }) => host);
    const first = found.reduce((least, one) => Math.min(least, rank(one)), 3);
    // Of one namespace all with the same host make one rule (Istio merges their subsets).
    const own = found.filter((one) => rank(one) === first);
    return own.filter(({ host }) => host === own[0]?.host);
  }

  /** Whether it may speak for services of this namespace at this waypoint at all. */
  mayConcern(object: Named, { namespace, waypoint }: Pick<HostRequest, 'namespace' | 'waypoint'>): boolean {
    const [waypointNamespace = ''] = waypoint.split('/');
    const ours = [namespace, waypointNamespace, this.#rootNamespace].includes(object.namespace);
    return ours && isExported(object.exportTo, object.namespace, waypointNamespace);
  }

  #candidates<T extends Named>(covering: readonly T[], request: HostRequest, host: (one: T) => string): T[] {
    return covering.filter((one) => this.mayConcern(one, request)).sort((a, b) => exactness(host(b)) - exactness(host(a)) || older(a, b));
  }

  #staleVirtual(one: VirtualService): void {
    for (const host of one.hosts) this.stale.hosts.add(host);
    this.stale.virtualServices.add(one.key);
    for (const host of one.hosts) this.#staleSharing(host);
  }

  #staleKey(key: string): void {
    const one = this.#virtual.get(key);
    if (one) this.#staleVirtual(one);
  }

  /** Who sends to a subset says in its status whether there is such a subset. */
  #staleSenders(host: string): void {
    const hostnames = host.startsWith('*') ? [...this.#mentions.keys()].filter((hostname) => hostCovers(host, hostname)) : [host];
    for (const hostname of hostnames) for (const key of this.#mentions.of(hostname)) this.stale.virtualServices.add(key);
  }

  /** Who else is about the same hosts may now be the one that counts, or no longer. */
  #staleSharing(host: string): void {
    for (const { key } of this.#virtual.sharing(host)) this.stale.virtualServices.add(key);
    for (const { key } of this.#rules.sharing(host)) this.stale.destinationRules.add(key);
  }
}

function mentionsOf(virtual: VirtualService): Set<string> {
  const hosts = destinationsOf(virtual).map(({ host }) => host);
  const delegates = virtual.http.flatMap(({ delegate }) => (delegate === undefined ? [] : [`delegate ${delegate}`]));
  return new Set([...hosts, ...delegates]);
}

function bestHost(hosts: readonly string[], hostname: string): string {
  return [...hosts].filter((host) => hostCovers(host, hostname)).sort((a, b) => exactness(b) - exactness(a))[0] ?? '*';
}

/** A host without a wildcard beats any with one; of those the longest. */
const exactness = (host: string): number => (host.startsWith('*') ? host.length : 1000 + host.length);

function older(a: Named, b: Named): number {
  if (a.createdAt !== b.createdAt) return a.createdAt < b.createdAt ? -1 : 1;
  return a.key < b.key ? -1 : 1;
}

/** Objects by host. Those with a wildcard are few, and looked at one by one. */
class HostIndex<T extends Named> {
  readonly #byKey = new Map<string, T>();
  readonly #byHost = new Groups<string>();
  readonly #wildcards = new Set<string>();
  readonly #hosts: (one: T) => readonly string[];

  constructor(hosts: (one: T) => readonly string[]) {
    this.#hosts = hosts;
  }

  get(key: string): T | undefined {
    return this.#byKey.get(key);
  }

  set(key: string, next: T | undefined): void {
    const before = this.#byKey.get(key);
    if (before) for (const host of this.#hosts(before)) this.#byHost.remove(host, key);
    this.#wildcards.delete(key);
    if (!next) {
      this.#byKey.delete(key);
      return;
    }
    this.#byKey.set(key, next);
    for (const host of this.#hosts(next)) {
      if (host.startsWith('*')) this.#wildcards.add(key);
      else this.#byHost.add(host, key);
    }
  }

  covering(hostname: string): T[] {
    const exact = [...this.#byHost.of(hostname)];
    const wide = [...this.#wildcards].filter((key) => this.#has(key, (host) => host.startsWith('*') && hostCovers(host, hostname)));
    return this.#all(new Set([...exact, ...wide]));
  }

  /** Whose hosts have something in common with this one. */
  sharing(host: string): T[] {
    if (!host.startsWith('*')) return this.covering(host);
    return [...this.#byKey.values()].filter((one) => this.#hosts(one).some((other) => hostCovers(host, other) || hostCovers(other, host)));
  }

  #has(key: string, test: (host: string) => boolean): boolean {
    const one = this.#byKey.get(key);
    return one !== undefined && this.#hosts(one).some(test);
  }

  #all(keys: Iterable<string>): T[] {
    return [...keys].flatMap((key) => this.#byKey.get(key) ?? []);
  }
}
