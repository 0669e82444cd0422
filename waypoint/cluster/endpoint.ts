/** One endpoint of one service as the waypoint speaks to it, and what is known of it from one picture of the mesh to the next. */
import type { SocketAddress } from '../../common/base/address.ts';
import type { Service, Workload } from '../../common/decision/mesh-view.ts';
import { EndpointHealth } from '../../common/decision/outliers.ts';
import type { ClusterState } from './cluster-state.ts';

/** Where one attempt at a request goes. */
export interface PickedEndpoint {
  /** One endpoint of one service: connections to it are shared under this name. */
  readonly key: string;
  readonly workload: Workload;
  readonly service: Service | undefined;
  /** Of the application; undefined where the workload is known by hostname only. */
  readonly address: SocketAddress | undefined;
  readonly port: number;
  /** SPIFFE URIs, any of which the tunnel's other end may prove; undefined where there is no tunnel and the pod is reached in the clear. */
  readonly peers: readonly string[] | undefined;
  /** What is remembered of it; requests under way are counted by whoever sends them. */
  readonly load: EndpointState;
  /** The service, port and subset that it was chosen from: its settings and limits. */
  readonly cluster: ClusterState;
  /** Whose connection it is, where its beginning says so (PROXY protocol); such a connection is nobody else's. */
  readonly caller?: SocketAddress;
}

/** What an endpoint that was never asked is expected to take. */
const FIRST_GUESS_MS = 1;
/** Time in which what was measured loses two thirds of its say. */
const DECAY_MS = 10_000;

export class EndpointState {
  /** Requests under way. */
  active = 0;
  /** Of the monotonic clock, when it was first seen. */
  readonly since: number;
  readonly health = new EndpointHealth();
  #expectedMs = FIRST_GUESS_MS;
  #measuredAt: number;

  constructor(now: number) {
    this.since = now;
    this.#measuredAt = now;
  }

  /** Peaks count at once, better times little by little (Finagle's peak EWMA). */
  measured(tookMs: number, now: number): void {
    const weight = Math.exp(-Math.max(0, now - this.#measuredAt) / DECAY_MS);
    this.#expectedMs = tookMs > this.#expectedMs ? tookMs : this.#expectedMs * weight + tookMs * (1 - weight);
    this.#measuredAt = now;
  }

  get expectedMs(): number {
    return this.#expectedMs;
  }
}
