/** Translated resources in the bytes in which they travel, and what has changed among them since somebody last asked. */
import { hash } from 'node:crypto';
import { ipFromBytes } from '../../common/base/address.ts';
import { Authorization } from '../../common/codec/gen/authorization.ts';
import {
  HttpAuthorization,
  JwtAuthentication,
  RateLimits,
  ServiceRoutes,
  ServiceTelemetry,
  ServiceTraffic,
  WorkloadLabels,
} from '../../common/codec/gen/waypoint.ts';
import { Address, type NetworkAddress, type Service, type Workload } from '../../common/codec/gen/workload.ts';

export const ADDRESS_TYPE = 'type.googleapis.com/istio.workload.Address';
export const AUTHORIZATION_TYPE = 'type.googleapis.com/istio.security.Authorization';
export const ROUTES_TYPE = 'type.googleapis.com/warren.waypoint.v1.ServiceRoutes';
export const HTTP_AUTHORIZATION_TYPE = 'type.googleapis.com/warren.waypoint.v1.HttpAuthorization';
export const TRAFFIC_TYPE = 'type.googleapis.com/warren.waypoint.v1.ServiceTraffic';
export const JWT_TYPE = 'type.googleapis.com/warren.waypoint.v1.JwtAuthentication';
export const RATE_LIMITS_TYPE = 'type.googleapis.com/warren.waypoint.v1.RateLimits';
export const LABELS_TYPE = 'type.googleapis.com/warren.waypoint.v1.WorkloadLabels';
export const TELEMETRY_TYPE = 'type.googleapis.com/warren.waypoint.v1.ServiceTelemetry';

/** What each waypoint has tables of, in the order of pushing: a route comes after whoever guards it and after what it sends to. */
export const waypointTypes = {
  jwtAuthentications: JWT_TYPE,
  httpAuthorizations: HTTP_AUTHORIZATION_TYPE,
  rateLimits: RATE_LIMITS_TYPE,
  labels: LABELS_TYPE,
  traffic: TRAFFIC_TYPE,
  telemetry: TELEMETRY_TYPE,
  routes: ROUTES_TYPE,
} as const;

export type WaypointTableName = keyof typeof waypointTypes;

export const waypointTableNames = Object.keys(waypointTypes) as readonly WaypointTableName[];

export interface Resource {
  /** Unique within its type: a workload's uid, `namespace/hostname` of a service, `namespace/name` of a policy. */
  readonly name: string;
  readonly typeUrl: typeof ADDRESS_TYPE | typeof AUTHORIZATION_TYPE | (typeof waypointTypes)[WaypointTableName];
  /** The encoded message; shared, never written to. */
  readonly bytes: Uint8Array;
  /** Hash of the bytes: equal contents have equal versions, over restarts and replicas. */
  readonly version: string;
  /** `network/ip`, or `network/ip/length` for ranges: how on-demand subscribers may ask for it too. */
  readonly aliases: readonly string[];
}

export interface ResourceChanges {
  readonly changed: readonly Resource[];
  readonly removed: readonly string[];
}

export class ResourceTable {
  readonly #current = new Map<string, Resource>();
  /** What each touched resource was when changes were last taken; undefined for new ones. */
  readonly #before = new Map<string, Resource | undefined>();

  set(resource: Resource): void {
    const present = this.#current.get(resource.name);
    if (present?.version === resource.version) return;
    if (!this.#before.has(resource.name)) this.#before.set(resource.name, present);
    this.#current.set(resource.name, resource);
  }

  delete(name: string): void {
    const present = this.#current.get(name);
    if (!present) return;
    if (!this.#before.has(name)) this.#before.set(name, present);
    this.#current.delete(name);
  }

  get(name: string): Resource | undefined {
    return this.#current.get(name);
  }

  values(): IterableIterator<Resource> {
    return this.#current.values();
  }

  get size(): number {
    return this.#current.size;
  }

  /** Net changes since the last call: what came and went in between is none. */
  take(): ResourceChanges {
    const changed: Resource[] = [];
    const removed: string[] = [];
    for (const [name, before] of this.#before) {
      const now = this.#current.get(name);
      if (now && now.version !== before?.version) changed.push(now);
      else if (!now && before) removed.push(name);
    }
    this.#before.clear();
    return { changed, removed };
  }
}

export const workloadResource = (workload: Workload): Resource =>
  encoded(
    workload.uid,
    ADDRESS_TYPE,
    Address.encode({ type: { $case: 'workload', value: workload } }).finish(),
    workload.addresses.map((address) => `${workload.network}/${ipFromBytes(address)}`),
  );

export const serviceResource = (service: Service): Resource =>
  encoded(
    `${service.namespace}/${service.hostname}`,
    ADDRESS_TYPE,
    Address.encode({ type: { $case: 'service', value: service } }).finish(),
    service.addresses.map(serviceAlias),
  );

export const authorizationResource = (authorization: Authorization): Resource =>
  encoded(`${authorization.namespace}/${authorization.name}`, AUTHORIZATION_TYPE, Authorization.encode(authorization).finish(), []);

export const routesResource = (routes: ServiceRoutes): Resource =>
  encoded(`${routes.namespace}/${routes.hostname}`, ROUTES_TYPE, ServiceRoutes.encode(routes).finish(), []);

export const httpAuthorizationResource = (policy: HttpAuthorization): Resource =>
  encoded(`${policy.namespace}/${policy.name}`, HTTP_AUTHORIZATION_TYPE, HttpAuthorization.encode(policy).finish(), []);

export const rateLimitsResource = (policy: RateLimits): Resource =>
  encoded(`${policy.namespace}/${policy.name}`, RATE_LIMITS_TYPE, RateLimits.encode(policy).finish(), []);

export const jwtResource = (authentication: JwtAuthentication): Resource =>
  encoded(`${authentication.namespace}/${authentication.name}`, JWT_TYPE, JwtAuthentication.encode(authentication).finish(), []);

export const trafficResource = (traffic: ServiceTraffic): Resource =>
  encoded(`${traffic.namespace}/${traffic.hostname}`, TRAFFIC_TYPE, ServiceTraffic.encode(traffic).finish(), []);

export const telemetryResource = (telemetry: ServiceTelemetry): Resource =>
  encoded(telemetry.target, TELEMETRY_TYPE, ServiceTelemetry.encode(telemetry).finish(), []);

export const labelsResource = (labels: WorkloadLabels): Resource =>
  encoded(labels.uid, LABELS_TYPE, WorkloadLabels.encode(labels).finish(), []);

const serviceAlias = ({ network, address, length }: NetworkAddress): string =>
  length === undefined ? `${network}/${ipFromBytes(address)}` : `${network}/${ipFromBytes(address)}/${length}`;

function encoded(name: string, typeUrl: Resource['typeUrl'], bytes: Uint8Array, aliases: readonly string[]): Resource {
  // Pooled: 100,000 buffers of their own would cost more in headers than in contents.
  return { name, typeUrl, bytes: Buffer.from(bytes), version: hash('sha1', bytes, 'hex').slice(0, 16), aliases };
}
