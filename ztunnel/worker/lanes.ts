/**
 * Whose share of a worker's turns a connection uses (common/hbone/turn-shares.ts): its pod's, and where it arrives by a tunnel, that of the pod at the
 * tunnel's other end, who makes the work.
 */
import type { IpAddress } from '../../common/base/address.ts';
import { Lane } from '../../common/hbone/turn-shares.ts';

export class Lanes {
  /** Of pods of other nodes. */
  readonly #peers = new Map<IpAddress, { readonly lane: Lane; tunnels: number }>();
  readonly #ofPod: (ip: IpAddress) => Lane | undefined;

  /** @param ofPod of a pod that this worker serves */
  constructor(ofPod: (ip: IpAddress) => Lane | undefined) {
    this.#ofPod = ofPod;
  }

  /** For a tunnel from there. A pod of this node has one share for what it sends and for what arrives of that at its neighbours. */
  join(ip: IpAddress): Lane {
    const own = this.#ofPod(ip);
    if (own) return own;
    const entry = this.#peers.get(ip) ?? { lane: new Lane(), tunnels: 0 };
    entry.tunnels++;
    this.#peers.set(ip, entry);
    return entry.lane;
  }

  /** The tunnel has ended. */
  leave(ip: IpAddress, lane: Lane): void {
    const entry = this.#peers.get(ip);
    if (entry?.lane === lane && --entry.tunnels === 0) this.#peers.delete(ip);
  }

  /** Addresses of others that have tunnels. */
  get size(): number {
    return this.#peers.size;
  }
}
