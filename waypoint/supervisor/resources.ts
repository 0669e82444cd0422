/**
 * Routes and L7 policies as the control plane sent them: kept as bytes for workers that start later, tried before they are passed on. One that
 * cannot be used is one rejection; what was in force under its name stays in force.
 */
import { errorMessage } from '../../common/base/errors.ts';
import {
  HttpAuthorization,
  JwtAuthentication,
  type PortTraffic,
  RateLimits,
  ServiceRoutes,
  ServiceTelemetry,
  ServiceTraffic,
  type TrafficPolicy,
  WorkloadLabels,
} from '../../common/codec/gen/waypoint.ts';
import { compileAuthorization, compileRoutes } from '../../common/decision/http-model.ts';
import { compileJwt } from '../../common/decision/jwt.ts';
import { compileRateLimits } from '../../common/decision/rate-limit.ts';
import { compileTelemetry } from '../../common/decision/telemetry-model.ts';
import { compileTraffic } from '../../common/decision/traffic-model.ts';
import type { Rejection, StatePush } from '../../common/state/writer.ts';
import { type ConfigurationPush, configurationKinds } from '../worker/configuration.ts';

export const ROUTES_TYPE = 'type.googleapis.com/warren.waypoint.v1.ServiceRoutes';
export const HTTP_AUTHORIZATION_TYPE = 'type.googleapis.com/warren.waypoint.v1.HttpAuthorization';

export const TRAFFIC_TYPE = 'type.googleapis.com/warren.waypoint.v1.ServiceTraffic';
export const JWT_TYPE = 'type.googleapis.com/warren.waypoint.v1.JwtAuthentication';
export const RATE_LIMITS_TYPE = 'type.googleapis.com/warren.waypoint.v1.RateLimits';
export const TELEMETRY_TYPE = 'type.googleapis.com/warren.waypoint.v1.ServiceTelemetry';
export const LABELS_TYPE = 'type.googleapis.com/warren.waypoint.v1.WorkloadLabels';

type Kind = ConfigurationPush['kind'];

const KINDS: Readonly<Record<string, Kind>> = {
  [LABELS_TYPE]: 'labels',
  [TRAFFIC_TYPE]: 'traffic',
  [TELEMETRY_TYPE]: 'telemetry',
  [ROUTES_TYPE]: 'routes',
  [HTTP_AUTHORIZATION_TYPE]: 'policies',
  [JWT_TYPE]: 'authentications',
  [RATE_LIMITS_TYPE]: 'limits',
};

/** In the order in which they are asked for. */
export const waypointTypeUrls: readonly string[] = Object.keys(KINDS);

interface Held {
  readonly bytes: Uint8Array;
  /** undefined where a newer version was rejected: it is in force, but not claimed to be held. */
  version: string | undefined;
}

const MAX_RESOURCE_BYTES = 4 << 20;
const MAX_RESOURCES = 100_000;

export class WaypointResources {
  readonly #held = Object.fromEntries(configurationKinds.map((kind) => [kind, new Map()])) as Readonly<Record<Kind, Map<string, Held>>>;
  readonly #onChange: (push: ConfigurationPush) => void;

  constructor(onChange: (push: ConfigurationPush) => void) {
    this.#onChange = onChange;
  }

  static isKnown(typeUrl: string): boolean {
    return Object.hasOwn(KINDS, typeUrl);
  }

  apply({ typeUrl, resources, removed }: StatePush): { rejected: Rejection[] } {
    const kind = kindOf(typeUrl);
    const held = this.#held[kind];
    const rejected: Rejection[] = [];
    const taken: { name: string; bytes: Uint8Array }[] = [];
    for (const name of removed) held.delete(name);
    for (const { name, version, bytes } of resources) {
      const before = held.get(name);
      try {
        if (!before && held.size >= MAX_RESOURCES) throw new Error(`there are ${MAX_RESOURCES} already`);
        tryResource(kind, name, bytes);
        // A view into the message that it came in would keep all of that.
        const own = Uint8Array.from(bytes);
        held.set(name, { bytes: own, version });
        taken.push({ name, bytes: own });
      } catch (error) {
        rejected.push({ name, reason: errorMessage(error) });
        if (before) before.version = undefined;
      }
    }
    if (taken.length > 0 || removed.length > 0) this.#onChange({ kind, resources: taken, removed });
    return { rejected };
  }

  versions(typeUrl: string): Map<string, string> {
    const versions = new Map<string, string>();
    for (const [name, { version }] of this.#held[kindOf(typeUrl)]) if (version !== undefined) versions.set(name, version);
    return versions;
  }

  /** What a worker that starts has to be told. */
  snapshot(): ConfigurationPush[] {
    return configurationKinds.map((kind) => ({
      kind,
      resources: [...this.#held[kind]].map(([name, { bytes }]) => ({ name, bytes })),
      removed: [],
    }));
  }

  get counts(): { readonly routes: number; readonly policies: number } {
    return { routes: this.#held.routes.size, policies: this.#held.policies.size };
  }

  /** For config_dump. */
  dump(): {
    routes: ServiceRoutes[];
    traffic: ServiceTraffic[];
    telemetry: ServiceTelemetry[];
    workloadLabels: WorkloadLabels[];
    httpAuthorizations: HttpAuthorization[];
    authentications: JwtAuthentication[];
    rateLimits: RateLimits[];
  } {
    return {
      routes: [...this.#held.routes.values()].map(({ bytes }) => ServiceRoutes.decode(bytes)),
      traffic: [...this.#held.traffic.values()].map(({ bytes }) => withoutKeys(ServiceTraffic.decode(bytes))),
      telemetry: [...this.#held.telemetry.values()].map(({ bytes }) => withoutSecrets(ServiceTelemetry.decode(bytes))),
      workloadLabels: [...this.#held.labels.values()].map(({ bytes }) => WorkloadLabels.decode(bytes)),
      authentications: [...this.#held.authentications.values()].map(({ bytes }) => JwtAuthentication.decode(bytes)),
      rateLimits: [...this.#held.limits.values()].map(({ bytes }) => RateLimits.decode(bytes)),
      httpAuthorizations: [...this.#held.policies.values()].map(({ bytes }) => HttpAuthorization.decode(bytes)),
    };
  }
}

/** Headers of a receiver's requests may be keys. */
function withoutSecrets(telemetry: ServiceTelemetry): ServiceTelemetry {
  const { tracing } = telemetry;
  if (!tracing?.receiver) return telemetry;
  const headers = tracing.receiver.headers.map(({ name, source }) => ({
    name,
    source: source?.$case === 'value' ? { $case: 'value' as const, value: 'hidden' } : source,
  }));
  return { ...telemetry, tracing: { ...tracing, receiver: { ...tracing.receiver, headers } } };
}

/** Keys are nowhere to be read but where they are used. */
export function withoutKeys(traffic: ServiceTraffic): ServiceTraffic {
  const policy = (one: TrafficPolicy | undefined): TrafficPolicy | undefined =>
    one?.tls?.clientCertificate
      ? { ...one, tls: { ...one.tls, clientCertificate: { ...one.tls.clientCertificate, privateKey: '[redacted]' } } }
      : one;
  const ports = (all: readonly PortTraffic[]): PortTraffic[] => all.map((one) => ({ ...one, policy: policy(one.policy) }));
  return {
    ...traffic,
    policy: policy(traffic.policy),
    ports: ports(traffic.ports),
    subsets: traffic.subsets.map((subset) => ({ ...subset, policy: policy(subset.policy), ports: ports(subset.ports) })),
  };
}

export function kindOf(typeUrl: string): Kind {
  const kind = KINDS[typeUrl];
  if (!kind) throw new Error(`${typeUrl} is no type of a waypoint`);
  return kind;
}

/** Compiles it as a worker will, and says what it is about. */
const KEYS: Readonly<Record<Kind, (bytes: Uint8Array) => string>> = {
  labels: (bytes) => WorkloadLabels.decode(bytes).uid,
  traffic: (bytes) => compileTraffic(ServiceTraffic.decode(bytes)).service,
  telemetry: (bytes) => compileTelemetry(ServiceTelemetry.decode(bytes), () => undefined).target,
  routes: (bytes) => compileRoutes(ServiceRoutes.decode(bytes)).service,
  authentications: (bytes) => compileJwt(JwtAuthentication.decode(bytes)).key,
  limits: (bytes) => compileRateLimits(RateLimits.decode(bytes)).key,
  policies: (bytes) => compileAuthorization(HttpAuthorization.decode(bytes)).key,
};

/** @throws {Error} saying why it cannot be used */
function tryResource(kind: Kind, name: string, bytes: Uint8Array): void {
  if (bytes.length > MAX_RESOURCE_BYTES) throw new Error(`${bytes.length} bytes are more than ${MAX_RESOURCE_BYTES}`);
  const key = KEYS[kind](bytes);
  // Workers look it up by the name.
  if (key !== name) throw new Error(`it is named ${name} and says that it is ${key}`);
}
