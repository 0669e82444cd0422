/**
 * What a list of endpoints says about each of them beside where it is: as much as load balancing asks of all endpoints, so that only the
 * one that is chosen has to be decoded. Places are kept as hashes; two that collide by chance cost a less than perfect choice, no more.
 */
import { hasAddress, placement } from '../decision/load-balance.ts';
import type { Endpoint, EndpointTable, Scope, Service, Workload } from '../decision/mesh-view.ts';
import type { ArenaView, BlockRef } from './arena.ts';
import { hashText, keyKinds } from './hash.ts';
import { listLargest, listLength, listWord } from './records.ts';

const REF = 0;
// The second word: `listLargest` is the largest weight.
const WEIGHT = 1;
const FLAGS = 2;
const PORTS = 3;
const SCOPES = { NETWORK: 4, REGION: 5, ZONE: 6, SUBZONE: 7, NODE: 8, CLUSTER: 9 } as const satisfies Record<Scope, number>;
/** Length of an item in 32-bit words. */
export const ENDPOINT_WORDS = 10;

const HEALTHY = 1;
const ADDRESS = 2;
const GATEWAY = 4;
const TUNNEL = 8;

/** @param ports of the workload for the service whose list it is */
export function endpointItem(seed: number, ref: BlockRef, workload: Workload, ports: ReadonlyMap<number, number>): Uint32Array {
  const item = new Uint32Array(ENDPOINT_WORDS);
  item[REF] = ref;
  item[WEIGHT] = workload.capacity;
  item[FLAGS] =
    (workload.healthy ? HEALTHY : 0) |
    (hasAddress(workload) ? ADDRESS : 0) |
    (workload.networkGateway ? GATEWAY : 0) |
    (workload.applicationTunnel ? TUNNEL : 0);
  item[PORTS] = hashText(seed, keyKinds.endpoints, [...ports].join(' '));
  for (const scope of scopes) item[SCOPES[scope]] = placementHash(seed, workload, scope);
  return item;
}

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
    return allowUnhealthy || (this.#word(i, FLAGS) & HEALTHY) !== 0 ? this.#word(i, WEIGHT) : 0;
  }

  isReachable(i: number): boolean {
    const flags = this.#word(i, FLAGS);
    return (flags & ADDRESS) !== 0 || ((flags & GATEWAY) !== 0 && !this.isNear(i, 'NETWORK'));
  }

  hasTunnel(i: number): boolean {
    return (this.#word(i, FLAGS) & TUNNEL) !== 0;
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
    const place = placementHash(this.#options.seed, this.#options.source, scope);
    this.#places.set(scope, place);
    return place;
  }

  #word(i: number, word: number): number {
    return listWord(this.#options.arena, this.#options.list, i, word);
  }
}

const scopes = Object.keys(SCOPES) as Scope[];

const placementHash = (seed: number, workload: Workload, scope: Scope): number =>
  hashText(seed, keyKinds.endpoints, placement(workload, scope));
