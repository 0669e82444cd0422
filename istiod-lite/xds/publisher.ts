/**
 * From changes of the cluster to what proxies are told: the index translates, the stores hold the bytes, the push queue decides when. Nothing
 * is published before the whole cluster has been read.
 */
import type { Clock } from '../../common/base/clock.ts';
import type { Log } from '../../common/base/log.ts';
import type { Metrics } from '../metrics.ts';
import { typeLabel } from '../metrics.ts';
import type { CertificateSource, FoundCertificates } from '../model/certificate-sources.ts';
import type { StatusSlot, StatusWrite } from '../model/conditions.ts';
import type { GatewayProblem } from '../model/gateway-status.ts';
import type { MeshIndex, ObjectChange } from '../model/index.ts';
import type { FetchedKeys } from '../model/request-authentication.ts';
import {
  ADDRESS_TYPE,
  AUTHORIZATION_TYPE,
  type Resource,
  type ResourceChanges,
  type WaypointTableName,
  waypointTableNames,
  waypointTypes,
} from '../model/resources.ts';
import { eachTable, type WaypointChanges } from '../model/waypoint-tables.ts';
import { AddressFacts } from './address-facts.ts';
import { AddressScopes, type GatewayName, servicesNamedBy } from './address-scopes.ts';
import type { Proxies } from './proxies.ts';
import { PushQueue } from './push-queue.ts';
import { ResourceStore } from './resource-store.ts';
import type { Served } from './session.ts';
import type { Related } from './subscription.ts';

export interface PublisherOptions {
  readonly index: MeshIndex;
  readonly proxies: Proxies;
  readonly metrics: Metrics;
  readonly clock: Clock;
  readonly log: Log;
  /** Longest pause between two pushes. */
  readonly intervalMs: number;
  writeStatuses(writes: readonly StatusWrite[], settled: readonly StatusSlot[]): void;
  /** Where keys for end users' tokens come from, as the objects say after a flush; the same set where nothing has changed. */
  keysWanted?(sources: ReadonlySet<string>): void;
  /** Where certificates come from that objects refer to now. */
  certificatesWanted?(sources: ReadonlySet<CertificateSource>): void;
}

// 5,000 take about 0.2 s. A change of the mesh's mTLS mode touches every workload, and streams, leases and certificates cannot wait for all.
const MOST_WORKLOADS_AT_ONCE = 5000;

type WaypointStores = Readonly<Record<WaypointTableName, ResourceStore>>;

export class Publisher {
  readonly #options: PublisherOptions;
  readonly #queue: PushQueue;
  readonly #addresses = new ResourceStore(ADDRESS_TYPE);
  readonly #authorizations = new ResourceStore(AUTHORIZATION_TYPE);
  /** Policies go first: a workload names those that select it, and a name that ztunnel does not know is passed over. */
  readonly stores: ReadonlyMap<string, ResourceStore> = new Map([
    [AUTHORIZATION_TYPE, this.#authorizations],
    [ADDRESS_TYPE, this.#addresses],
  ]);
  /** By Gateway, `namespace/name`. Kept when it is empty: a waypoint may be connected to it. */
  readonly #waypoints = new Map<string, WaypointStores>();
  readonly #facts = new AddressFacts(this.#addresses);
  readonly #scopes = new AddressScopes(this.#addresses, this.#facts);
  /** Of those Gateways that have had a waypoint connected. */
  readonly #waypointHosts = new Map<string, GatewayName>();
  readonly #startedAt: string;
  #pushes = 0;
  #started = false;
  #compareAll = false;

  constructor(options: PublisherOptions) {
    this.#options = options;
    this.#startedAt = new Date(options.clock.now()).toISOString();
    this.#queue = new PushQueue({
      clock: options.clock,
      intervalMs: options.intervalMs,
      flush: (since) => this.#flush(since, MOST_WORKLOADS_AT_ONCE),
    });
  }

  /**
   * What a waypoint of this Gateway gets: its own routes and policies, and those workloads and services that it serves or sends to.
   * @param key `namespace/name` @param host first label of the hostname of its service
   */
  waypointStores(key: string, host: string): ReadonlyMap<string, ResourceStore> {
    const stores = this.#waypoint(key);
    const [namespace = ''] = key.split('/');
    this.#waypointHosts.set(key, { namespace, host });
    const addresses = this.#scopes.storeOf({ namespace, host }, servicesNamedBy(stores));
    return new Map([...waypointTableNames.map((name) => [waypointTypes[name], stores[name]] as const), [ADDRESS_TYPE, addresses]]);
  }

  /** Everything; to those who ask for names what goes with them, and what runs on their node. */
  forZtunnel(node: string): Served {
    const facts = this.#facts;
    const related: Related = {
      with: (name) => facts.workloadsOf(name),
      of: (name) => facts.get(name)?.services ?? [],
      always: () => facts.workloadsOn(node),
      isAlways: (name) => node !== '' && facts.get(name)?.node === node,
    };
    return { stores: this.stores, related: new Map([[ADDRESS_TYPE, related]]) };
  }

  forWaypoint(key: string, host: string): Served {
    return { stores: this.waypointStores(key, host), related: new Map() };
  }

  /** For `system_version_info`. */
  get version(): string {
    return `${this.#startedAt}/${this.#pushes}`;
  }

  apply(change: ObjectChange): void {
    this.#options.index.apply(change);
    if (this.#started) this.#queue.changed();
  }

  /** Why a Gateway (`namespace/name`) cannot be deployed as it is written; undefined where it can. */
  setGatewayProblem(key: string, problem: GatewayProblem | undefined): void {
    if (this.#options.index.setGatewayProblem(key, problem) && this.#started) this.#queue.changed();
  }

  /** Keys that were fetched, or why they could not be. */
  setKeys(from: string, found: FetchedKeys | undefined): void {
    this.#options.index.setKeys(from, found);
    if (this.#started) this.#queue.changed();
  }

  /** Certificates that were read, or why they cannot be used. */
  setCertificates(source: CertificateSource, found: FoundCertificates | undefined): void {
    this.#options.index.setCertificates(source, found);
    if (this.#started) this.#queue.changed();
  }

  /** The cluster has been read: from now on changes are told. */
  start(): void {
    this.#started = true;
    this.#flush(this.#options.clock.monotonic(), Number.POSITIVE_INFINITY);
  }

  stop(): void {
    this.#queue.stop();
  }

  /** @returns whether proxies were told anything */
  #flush(since: number, mostWorkloads: number): boolean {
    const { index, log, proxies, writeStatuses, metrics, clock } = this.#options;
    metrics.debounceTime.observe((clock.monotonic() - since) / 1000);
    try {
      const { address, authorization, waypoints, statuses, settled, problems, more } = index.flush(mostWorkloads);
      for (const { object, message } of problems) log.warn({ object, error: message }, 'object has a problem');
      const changes = [
        this.#store(this.#authorizations, authorization, since),
        ...waypoints.flatMap((change) => this.#storeWaypoint(change, since)),
        ...this.#storeAddresses(address, since),
      ];
      if (this.#compareAll) changes.push(...this.#compare(since));
      this.#compareAll = false;
      this.#pushes++;
      const told = changes.some((change) => change !== undefined);
      if (told) metrics.pushTriggers.inc({ type: 'ambient' });
      for (const change of changes) if (change) proxies.push(change);
      writeStatuses(statuses, settled);
      this.#options.keysWanted?.(index.keySources());
      this.#options.certificatesWanted?.(index.certificateSources());
      if (more) this.#queue.changed();
      return told;
    } catch (error) {
      // What the index handed out is lost on the way, so the next flush compares everything.
      this.#compareAll = true;
      metrics.syncErrors.inc();
      log.error({ err: error }, 'changes could not be published');
      return true;
    }
  }

  /** For everybody, and for each waypoint its part. */
  #storeAddresses(changes: ResourceChanges, since: number) {
    const change = this.#store(this.#addresses, changes, since);
    if (!change) return [];
    this.#facts.changed(change.names);
    return [change, ...this.#scopes.addressesChanged(change)];
  }

  #waypoint(gateway: string): WaypointStores {
    const known = this.#waypoints.get(gateway);
    if (known) return known;
    const stores = eachTable((name) => new ResourceStore(waypointTypes[name]));
    this.#waypoints.set(gateway, stores);
    return stores;
  }

  /** Policies first, as for ztunnels: a route must not be open before whoever guards it is there. */
  #storeWaypoint(changes: WaypointChanges, since: number) {
    const stores = this.#waypoint(changes.waypoint);
    const made = waypointTableNames.map((name) => stores[name].apply(changes[name].changed, changes[name].removed, since));
    const host = this.#waypointHosts.get(changes.waypoint);
    const naming = [stores.routes, stores.httpAuthorizations, stores.telemetry];
    if (!host || !made.some((change) => change && naming.includes(change.store))) return made;
    return [...made, ...this.#scopes.routesChanged(host, servicesNamedBy(stores), since)];
  }

  #compare(since: number) {
    const { index } = this.#options;
    const everything = (store: ResourceStore, resources: Iterable<Resource>, holds: (name: string) => boolean): ResourceChanges => ({
      changed: [...resources],
      removed: [...store.values()].flatMap(({ name }) => (holds(name) ? [] : [name])),
    });
    const authorizations = everything(this.#authorizations, index.authorizations(), (name) => index.authorization(name) !== undefined);
    const addresses = everything(this.#addresses, index.addresses(), (name) => index.address(name) !== undefined);
    return [
      this.#store(this.#authorizations, authorizations, since),
      ...[...new Set([...index.waypoints(), ...this.#waypoints.keys()])].flatMap((key) => this.#compareWaypoint(key, since)),
      ...this.#storeAddresses(addresses, since),
    ];
  }

  #compareWaypoint(key: string, since: number) {
    const [namespace = '', name = ''] = key.split('/');
    const stores = this.#waypoint(key);
    const resources = this.#options.index.waypointResources(namespace, name);
    const changes = (store: ResourceStore, changed: readonly Resource[]): ResourceChanges => {
      const present = new Set(changed.map((resource) => resource.name));
      return { changed, removed: [...store.values()].flatMap((stored) => (present.has(stored.name) ? [] : [stored.name])) };
    };
    return this.#storeWaypoint({ waypoint: key, ...eachTable((table) => changes(stores[table], resources[table])) }, since);
  }

  #store(store: ResourceStore, { changed, removed }: ResourceChanges, since: number) {
    const { metrics, clock } = this.#options;
    const started = clock.monotonic();
    const change = store.apply(changed, removed, since);
    const type = typeLabel(store.typeUrl);
    if (change) metrics.pushTime.observe({ type }, (clock.monotonic() - started) / 1000);
    metrics.resources.set({ type }, store.size);
    return change;
  }
}
