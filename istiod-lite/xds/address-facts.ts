/**
 * What binds the resources of the mesh to each other: a service's workloads, a workload's services, Gateways and node. Made from the encoded
 * resources when somebody first asks, and kept up to date from then on; a mesh of proxies that take everything never pays for it.
 */
import { Address, type GatewayAddress } from '../../common/codec/gen/workload.ts';
import type { ResourceStore, StoredResource } from './resource-store.ts';
import { contents } from './response.ts';

export interface Facts {
  /** `namespace/host` of the Gateways that it is bound to; host is the first label of the hostname. */
  readonly gateways: readonly string[];
  /** Of a workload: `namespace/hostname` of its services. Undefined for services. */
  readonly services: readonly string[] | undefined;
  readonly node: string;
}

const NONE: readonly string[] = [];

export class AddressFacts {
  readonly #addresses: ResourceStore;
  readonly #facts = new Map<string, Facts>();
  readonly #byService = new Map<string, Set<string>>();
  readonly #byNode = new Map<string, Set<string>>();
  #asked = false;

  /** @param addresses everything */
  constructor(addresses: ResourceStore) {
    this.#addresses = addresses;
  }

  get(name: string): Facts | undefined {
    this.#ensure();
    return this.#facts.get(name);
  }

  /** Of everything. */
  names(): Iterable<string> {
    this.#ensure();
    return this.#facts.keys();
  }

  workloadsOf(service: string): Iterable<string> {
    this.#ensure();
    return this.#byService.get(service) ?? NONE;
  }

  workloadsOn(node: string): Iterable<string> {
    this.#ensure();
    return (node !== '' && this.#byNode.get(node)) || NONE;
  }

  /** The store of everything has changed these. */
  changed(names: Iterable<string>): void {
    if (this.#asked) for (const name of names) this.#learn(name);
  }

  #ensure(): void {
    if (this.#asked) return;
    this.#asked = true;
    for (const { name } of this.#addresses.values()) this.#learn(name);
  }

  #learn(name: string): void {
    const before = this.#facts.get(name);
    for (const service of before?.services ?? NONE) leave(this.#byService, service, name);
    if (before) leave(this.#byNode, before.node, name);
    const resource = this.#addresses.get(name);
    if (!resource) {
      this.#facts.delete(name);
      return;
    }
    const facts = factsOf(resource);
    this.#facts.set(name, facts);
    for (const service of facts.services ?? NONE) enter(this.#byService, service, name);
    if (facts.node !== '') enter(this.#byNode, facts.node, name);
  }
}

function enter(groups: Map<string, Set<string>>, group: string, name: string): void {
  const members = groups.get(group);
  if (members) members.add(name);
  else groups.set(group, new Set([name]));
}

function leave(groups: Map<string, Set<string>>, group: string, name: string): void {
  const members = groups.get(group);
  members?.delete(name);
  if (members?.size === 0) groups.delete(group);
}

function factsOf(resource: StoredResource): Facts {
  const { type } = Address.decode(contents(resource));
  if (type?.$case === 'workload') {
    const { waypoint, services, node } = type.value;
    return { gateways: gatewaysOf([waypoint]), services: Object.keys(services), node };
  }
  if (type?.$case !== 'service') return { gateways: NONE, services: undefined, node: '' };
  const { waypoint, weightedWaypoints } = type.value;
  return { gateways: gatewaysOf([waypoint, ...weightedWaypoints.map(({ destination }) => destination)]), services: undefined, node: '' };
}

function gatewaysOf(addresses: readonly (GatewayAddress | undefined)[]): readonly string[] {
  const keys = addresses.flatMap((address) => {
    const destination = address?.destination;
    if (destination?.$case !== 'hostname') return [];
    const { namespace, hostname } = destination.value;
    return [`${namespace}/${hostname.split('.')[0]}`];
  });
  return keys.length === 0 ? NONE : keys;
}
