/**
 * Which endpoint gets a request. The endpoints of a service are looked up once for each picture of the mesh and each change of its traffic
 * settings, not for each request; what is known about each of them (requests under way, failures) outlives a picture.
 */
import { type IpAddress, isIpv6 } from '../../common/base/address.ts';
import type { Clock } from '../../common/base/clock.ts';
import { formatSpiffeId } from '../../common/base/spiffe.ts';
import { clusterMembers } from '../../common/decision/cluster-members.ts';
import { type MeshView, type Service, serviceKey, type Workload } from '../../common/decision/mesh-view.ts';
import { type CompiledPolicy, policyOf } from '../../common/decision/traffic-model.ts';
import type { Configuration } from '../worker/configuration.ts';
import { Cluster, type ClusterMember, type ClusterOptions } from './cluster.ts';
import { type ClusterEvents, ClusterState } from './cluster-state.ts';
import type { PickedEndpoint } from './endpoint.ts';
import { EndpointState } from './endpoint-state.ts';

export type Balancing = 'round_robin' | 'least_request';

export interface PickerOptions {
  readonly view: MeshView;
  /** The waypoint's own workload: whose neighbours are near. */
  readonly self: () => Workload;
  /** Where a service's own settings say nothing. */
  readonly balancing: Balancing;
  readonly configuration: Pick<Configuration, 'trafficOf' | 'labelOf'>;
  readonly random: () => number;
  readonly clock: Pick<Clock, 'monotonic'>;
  /** Workers that share a limit. */
  readonly workers: number;
  readonly events: ClusterEvents;
}

/** Services and ports that are in use at the same time. */
const MAX_CLUSTERS = 10_000;

interface Found {
  readonly policy: CompiledPolicy | undefined;
  readonly cluster: Cluster;
}

export class EndpointPicker {
  readonly #options: PickerOptions;
  readonly #clusters = new Map<string, Cluster>();
  /** By the service's object, port and subset empty: without a key to be made of them for each request. */
  #found = new WeakMap<Service, Map<number, Found>>();
  readonly #states = new Map<string, ClusterState>();
  readonly #loads = new Map<string, EndpointState>();
  readonly #alone: ClusterState;

  constructor(options: PickerOptions) {
    this.#options = options;
    this.#alone = new ClusterState('', 1, options.events);
  }

  /** The mesh's state is another one, or traffic settings or labels are. */
  stateChanged(): void {
    this.#clusters.clear();
    this.#found = new WeakMap();
    const now = this.#now();
    for (const [key, { active, health, since }] of this.#loads)
      if (active === 0 && !health.isEjected(now) && now - since > FORGET_MS) this.#loads.delete(key);
    for (const [key, { requests, connections }] of this.#states)
      if (requests === 0 && connections === 0 && this.#states.size > MAX_CLUSTERS) this.#states.delete(key);
  }

  /**
   * @param refused keys of endpoints that are not to be chosen, unless there is no other
   * @param hash of the request, where the cluster's policy chooses by it
   * @returns undefined where there is none at all
   */
  pick(service: Service, port: number, refused: ReadonlySet<string>, subset = '', hash?: number): PickedEndpoint | undefined {
    const cluster = subset === '' ? this.#whole(service, port).cluster : this.#cluster(service, port, subset);
    return cluster.pick(refused, hash);
  }

  /** The endpoint that a session names, where it is there and well. */
  at(service: Service, port: number, subset: string, address: string): PickedEndpoint | undefined {
    return this.#cluster(service, port, subset).at(address);
  }

  /** What was asked for of a service's port, or of a subset of it. */
  policy(service: Service, port: number, subset = ''): CompiledPolicy | undefined {
    return subset === '' ? this.#whole(service, port).policy : this.#policy(service, port, subset);
  }

  #policy(service: Service, port: number, subset: string): CompiledPolicy | undefined {
    const traffic = this.#options.configuration.trafficOf(serviceKey(service));
    return traffic && policyOf(traffic, port, subset);
  }

  /** A pod that was addressed itself. */
  alone(workload: Workload, port: number): PickedEndpoint {
    return this.#endpoint(workload, port, undefined, this.#alone);
  }

  /** Whether requests of a service go to where the client was going: a ServiceEntry of resolution NONE, or a DestinationRule's word. */
  keepsDestination(service: Service, port: number, subset = ''): boolean {
    return service.loadBalancing.mode === 'PASSTHROUGH' || this.policy(service, port, subset)?.balancing === 'passthrough';
  }

  /** The address that the client asked for, as an endpoint of the service. */
  original(service: Service, port: number, ip: IpAddress): PickedEndpoint {
    const { view, self } = this.#options;
    const own = self();
    const state = this.#state(`${serviceKey(service)}:${port}`);
    state.policy = this.#policy(service, port, '');
    return this.#endpoint(view.workloadByAddress(own.network, ip) ?? outside(own, ip), service.ports.get(port) || port, service, state);
  }

  /** Endpoints that are known of a service's port. */
  size(service: Service, port: number, subset = ''): number {
    return this.#cluster(service, port, subset).size;
  }

  /** Of each service and port where endpoints can be put aside: how many are. */
  circuits(): { readonly name: string; readonly ejected: number }[] {
    const now = this.#now();
    return [...this.#states.values()].flatMap((state) =>
      state.policy?.outliers ? [{ name: state.name, ejected: state.ejectedCount(now) }] : [],
    );
  }

  #whole(service: Service, port: number): Found {
    let ports = this.#found.get(service);
    if (!ports) {
      ports = new Map();
      this.#found.set(service, ports);
    }
    let found = ports.get(port);
    if (!found) {
      found = { policy: this.#policy(service, port, ''), cluster: this.#cluster(service, port, '') };
      ports.set(port, found);
    }
    return found;
  }

  #cluster(service: Service, port: number, subset: string): Cluster {
    const key = subset === '' ? `${serviceKey(service)}:${port}` : `${serviceKey(service)}:${port}/${subset}`;
    const known = this.#clusters.get(key);
    if (known) return known;
    const { balancing, random } = this.#options;
    const state = this.#state(key);
    state.policy = this.#policy(service, port, subset);
    const cluster = new Cluster({
      state,
      balancing: state.policy?.balancing ?? balancing,
      shares: this.#shares(service, port, subset, state),
      random,
      now: () => this.#now(),
    });
    const oldest = this.#clusters.keys().next();
    if (this.#clusters.size >= MAX_CLUSTERS && !oldest.done) this.#clusters.delete(oldest.value);
    this.#clusters.set(key, cluster);
    return cluster;
  }

  #state(key: string): ClusterState {
    const known = this.#states.get(key);
    if (known) return known;
    const { workers, events } = this.#options;
    const state = new ClusterState(key, 1 / Math.max(1, workers), events);
    this.#states.set(key, state);
    return state;
  }

  #shares(service: Service, port: number, subset: string, state: ClusterState): ClusterOptions['shares'] {
    const { view, self, configuration } = this.#options;
    const source = self();
    const { policy } = state;
    const wanted = subset === '' ? undefined : configuration.trafficOf(serviceKey(service))?.subsets.get(subset);
    if (subset !== '' && !wanted) return [];
    const shares = clusterMembers(view, service, {
      source,
      port,
      labels: wanted?.labels,
      locality: policy?.locality,
      label: (workload, name) => configuration.labelOf(workload.uid, name),
    });
    const member = (one: { workload: Workload; port: number; weight: number }): ClusterMember => ({
      endpoint: this.#endpoint(one.workload, one.port, service, state),
      weight: one.weight,
    });
    return shares.map(({ weight, tiers }) => ({ weight, tiers: tiers.map((tier) => tier.map(member)) }));
  }

  #endpoint(workload: Workload, port: number, service: Service | undefined, cluster: ClusterState): PickedEndpoint {
    const ip = addressOf(workload, service);
    const about = `${service ? serviceKey(service) : ''} ${workload.uid} ${ip ?? workload.hostname} ${port} ${workload.protocol}`;
    const key = `${about}${wireKey(cluster.policy)}`;
    let load = this.#loads.get(key);
    if (!load) {
      load = new EndpointState(this.#now());
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
      cluster,
    };
  }

  #now(): number {
    return this.#options.clock.monotonic();
  }
}

/** Somewhere that the mesh does not know: reached in the clear. */
const outside = (self: Workload, ip: IpAddress): Workload => ({
  ...self,
  uid: `outside/${ip}`,
  name: ip,
  namespace: '',
  addresses: [ip],
  hostname: '',
  protocol: 'TCP',
  serviceAccount: '',
  node: '',
  canonicalName: '',
  canonicalRevision: '',
  workloadName: '',
  locality: { region: '', zone: '', subzone: '' },
  services: new Map(),
});

/** Time that an endpoint is remembered for at least, lest one that is away for a moment count as a new one. */
const FORGET_MS = 600_000;

/** Connections of different settings are not shared. */
function wireKey(policy: CompiledPolicy | undefined): string {
  if (!policy || (!policy.tls && policy.proxyProtocol === 0 && !policy.pool)) return '';
  return ` ${JSON.stringify([policy.tls, policy.proxyProtocol, policy.pool?.http])}`;
}

/** Of the addresses that the service allows the first one. */
function addressOf({ addresses }: Workload, service: Service | undefined): string | undefined {
  const family = service?.ipFamily;
  return addresses.find((ip) => family === undefined || isIpv6(ip) === (family === 'IPV6')) ?? (family ? undefined : addresses[0]);
}
