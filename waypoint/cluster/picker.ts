/**
 * Which endpoint gets a request: in turn, or the less busy of two. The endpoints of a service are looked up once for each picture of the
 * mesh, not for each request; what is known about each of them (requests under way) outlives a picture.
 */
import { isIpv6, type SocketAddress } from '../../common/base/address.ts';
import { formatSpiffeId } from '../../common/base/spiffe.ts';
import { eligibleEndpoints } from '../../common/decision/load-balance.ts';
import { type MeshView, type Service, serviceKey, type Workload } from '../../common/decision/mesh-view.ts';

export type Balancing = 'round_robin' | 'least_request';

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
  /** Requests under way; counted by whoever sends them. */
  readonly load: { active: number };
}

export interface PickerOptions {
  readonly view: MeshView;
  /** The waypoint's own workload: whose neighbours are near. */
  readonly self: () => Workload;
  readonly balancing: Balancing;
  readonly random: () => number;
}

interface Cluster {
  readonly endpoints: readonly PickedEndpoint[];
  readonly weights: readonly number[];
  readonly even: boolean;
  /** Of weights, for turns that are not even: what each endpoint is owed. */
  readonly owed: number[];
  next: number;
}

const MAX_CLUSTERS = 10_000;
/** Beyond so many endpoints of different weight a turn would cost too much; chance comes to the same. */
const MAX_TURNS = 256;

export class EndpointPicker {
  readonly #options: PickerOptions;
  readonly #clusters = new Map<string, Cluster>();
  readonly #loads = new Map<string, { active: number }>();

  constructor(options: PickerOptions) {
    this.#options = options;
  }

  /** The mesh's state is another one. */
  stateChanged(): void {
    this.#clusters.clear();
    for (const [key, { active }] of this.#loads) if (active === 0) this.#loads.delete(key);
  }

  /** @param refused keys of endpoints that are not to be chosen, unless there is no other @returns undefined where there is none at all */
  pick(service: Service, port: number, refused: ReadonlySet<string>): PickedEndpoint | undefined {
    const cluster = this.#cluster(service, port);
    const { endpoints } = cluster;
    if (endpoints.length <= 1) return endpoints[0];
    const left = refused.size === 0 ? undefined : endpoints.filter(({ key }) => !refused.has(key));
    if (left && left.length > 0) return left[Math.floor(this.#options.random() * left.length)];
    return this.#options.balancing === 'least_request' ? this.#lessBusy(cluster) : this.#inTurn(cluster);
  }

  /** A pod that was addressed itself. */
  alone(workload: Workload, port: number): PickedEndpoint {
    return this.#endpoint(workload, port, undefined);
  }

  /** Endpoints that are known of a service's port. */
  size(service: Service, port: number): number {
    return this.#cluster(service, port).endpoints.length;
  }

  #inTurn(cluster: Cluster): PickedEndpoint | undefined {
    const { endpoints, even, weights, owed } = cluster;
    if (even) {
      cluster.next = (cluster.next + 1) % endpoints.length;
      return endpoints[cluster.next];
    }
    if (endpoints.length > MAX_TURNS) return endpoints[this.#byWeight(weights)];
    // Smooth weighted turns: each is owed its weight, the one that is owed most goes and pays the sum.
    let best = 0;
    let sum = 0;
    for (let i = 0; i < weights.length; i++) {
      const weight = weights[i] ?? 0;
      sum += weight;
      owed[i] = (owed[i] ?? 0) + weight;
      if ((owed[i] ?? 0) > (owed[best] ?? 0)) best = i;
    }
    owed[best] = (owed[best] ?? 0) - sum;
    return endpoints[best];
  }

  #lessBusy({ endpoints, weights, even }: Cluster): PickedEndpoint | undefined {
    const any = (): number => (even ? Math.floor(this.#options.random() * endpoints.length) : this.#byWeight(weights));
    const first = any();
    let second = any();
    if (second === first) second = (first + 1) % endpoints.length;
    const [a, b] = [endpoints[first], endpoints[second]];
    return a && b && b.load.active < a.load.active ? b : a;
  }

  #byWeight(weights: readonly number[]): number {
    let point = this.#options.random() * weights.reduce((sum, weight) => sum + weight, 0);
    const found = weights.findIndex((weight) => {
      point -= weight;
      return point < 0;
    });
    return Math.max(0, found);
  }

  #cluster(service: Service, port: number): Cluster {
    const key = `${serviceKey(service)}:${port}`;
    const known = this.#clusters.get(key);
    if (known) return known;
    const { view, self, random } = this.#options;
    const source = self();
    // Another network's pods cannot be reached from here; the gateway in between is not ours to choose.
    const found = eligibleEndpoints(view, service, source, port).filter(({ workload }) => workload.network === source.network);
    const weights = found.map(({ weight }) => weight);
    const cluster: Cluster = {
      endpoints: found.map((one) => this.#endpoint(one.workload, one.port, service)),
      weights,
      even: weights.every((weight) => weight === weights[0]),
      owed: weights.map(() => 0),
      // Workers begin at different places, lest the first endpoint get everybody's first request.
      next: Math.floor(random() * Math.max(1, found.length)),
    };
    const oldest = this.#clusters.keys().next();
    if (this.#clusters.size >= MAX_CLUSTERS && !oldest.done) this.#clusters.delete(oldest.value);
    this.#clusters.set(key, cluster);
    return cluster;
  }

  #endpoint(workload: Workload, port: number, service: Service | undefined): PickedEndpoint {
    const ip = addressOf(workload, service);
    const key = `${service ? serviceKey(service) : ''} ${workload.uid} ${ip ?? workload.hostname} ${port} ${workload.protocol}`;
    let load = this.#loads.get(key);
    if (!load) {
      load = { active: 0 };
      this.#loads.set(key, load);
    }
    const own = formatSpiffeId(workload);
    const others = service?.subjectAltNames.filter((name) => name !== own) ?? [];
    return {
      key,
      workload,
      service,
      address: ip === undefined ? undefined : { ip, port },
      port,
      peers: workload.protocol === 'HBONE' ? [...others, own] : undefined,
      load,
    };
  }
}

/** Of the addresses that the service allows the first one. */
function addressOf({ addresses }: Workload, service: Service | undefined): string | undefined {
  const family = service?.ipFamily;
  return addresses.find((ip) => family === undefined || isIpv6(ip) === (family === 'IPV6')) ?? (family ? undefined : addresses[0]);
}
