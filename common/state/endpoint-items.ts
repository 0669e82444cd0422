/**
 * What a list of endpoints says about each of them beside where it is: as much as load balancing asks of all endpoints, so that only the
 * one that is chosen has to be decoded. Places are kept as hashes; two that collide by chance cost a less than perfect choice, no more.
 */
import { hasAddress, placement } from '../decision/load-balance.ts';
import type { Endpoint, EndpointTable, Scope, Service, Workload } from '../decision/mesh-view.ts';
import type { ArenaView, BlockRef } from './arena.ts';
import { hashText, keyKinds } from './hash.ts';
import { listLargest, listLength, listWord } from './records.ts';

// The reference comes first. The second word: `listLargest` is the largest weight.
const REF = 0;
const WEIGHT = 1;
const FLAGS = 2;
const PORTS = 3;
const SCOPES = { NETWORK: 4, REGION: 5, ZONE: 6, SUBZONE: 7, NODE: 8, CLUSTER: 9 } as const satisfies Record<Scope, number>;
/** Length of an item in 32-bit words. */
export const ENDPOINT_WORDS = 10;

/** Bits of what can be said of an endpoint with yes or no. */
export const endpointFlags = { healthy: 1, address: 2, gateway: 4, tunnel: 8 } as const;

/** Places of an endpoint, in the order of their words. */
export const placeScopes = ['NETWORK', 'REGION', 'ZONE', 'SUBZONE', 'NODE', 'CLUSTER'] as const satisfies readonly Scope[];

/**
 * Writes one item of `ENDPOINT_WORDS` words, its reference left open.
 * @param flags of `endpointFlags`
 * @param ports see `portsHash`
 * @param places see `placeHash`, one for each of `placeScopes`
 */
export function writeEndpointItem(items: Uint32Array, at: number, weight: number, flags: number, ports: number, places: Uint32Array): void {
  items[at + REF] = 0;
  items[at + WEIGHT] = weight;
  items[at + FLAGS] = flags;
  items[at + PORTS] = ports;
  for (let i = 0; i < places.length; i++) items[at + SCOPES.NETWORK + i] = places[i] ?? 0;
}

/** Of a workload that was decoded. */
export const flagsOf = (workload: Workload): number =>
  (workload.healthy ? endpointFlags.healthy : 0) |
  (hasAddress(workload) ? endpointFlags.address : 0) |
  (workload.networkGateway ? endpointFlags.gateway : 0) |
  (workload.applicationTunnel ? endpointFlags.tunnel : 0);

/** Of a workload's ports for one service: `80,8080 443,8443`. */
export const portsHash = (seed: number, ports: ReadonlyMap<number, number>): number =>
  hashText(seed, keyKinds.endpoints, [...ports].join(' '));

/** Of where a workload is. */
export const placeHash = (seed: number, workload: Workload, scope: Scope): number =>
  hashText(seed, keyKinds.endpoints, placement(workload, scope));

/** A list of endpoints, and from where it is looked at. */
export interface PackedTableOptions {
  readonly arena: ArenaView;
  readonly seed: number;
  readonly list: BlockRef;
  readonly service: Service;
  readonly source: Workload;
  endpointAt(ref: BlockRef): Endpoint;
}

/** The endpoints of a service over their list; good as long as the picture that the list is of. */
export class PackedEndpointTable implements EndpointTable {
  readonly size: number;
  readonly maxWeight: number;
  readonly #options: PackedTableOptions;
  readonly #places = new Map<Scope, number>();

  constructor(options: PackedTableOptions) {
    this.#options = options;
    this.size = listLength(options.arena, options.list);
    this.maxWeight = listLargest(options.arena, options.list);
  }

  weight(i: number): number {
    const { allowUnhealthy } = this.#options.service.loadBalancing;
    return allowUnhealthy || (this.#word(i, FLAGS) & endpointFlags.healthy) !== 0 ? this.#word(i, WEIGHT) : 0;
  }

  isReachable(i: number): boolean {
    const flags = this.#word(i, FLAGS);
    return (flags & endpointFlags.address) !== 0 || ((flags & endpointFlags.gateway) !== 0 && !this.isNear(i, 'NETWORK'));
  }

  hasTunnel(i: number): boolean {
    return (this.#word(i, FLAGS) & endpointFlags.tunnel) !== 0;
  }

  isNear(i: number, scope: Scope): boolean {
    return this.#word(i, SCOPES[scope]) === this.#place(scope);
  }

  portsKey(i: number): number {
    return this.#word(i, PORTS);
  }

  endpoint(i: number): Endpoint {
    return this.#options.endpointAt(this.#word(i, REF));
  }

  #place(scope: Scope): number {
    const known = this.#places.get(scope);
    if (known !== undefined) return known;
    const place = placeHash(this.#options.seed, this.#options.source, scope);
    this.#places.set(scope, place);
    return place;
  }

  #word(i: number, word: number): number {
    return listWord(this.#options.arena, this.#options.list, i, word);
  }
}
