/**
 * Routes, traffic settings and L7 policies as this worker uses them: compiled when they come, looked up for each request. The supervisor has
 * tried every resource before, so what fails to compile here is a fault and is told, and the old one stays in force.
 */
import { errorMessage } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';
import {
  HttpAuthorization,
  JwtAuthentication,
  RateLimits,
  ServiceRoutes,
  ServiceTelemetry,
  ServiceTraffic,
  WorkloadLabels,
} from '../../common/codec/gen/waypoint.ts';
import { type Asked, askedBy, NOTHING_ASKED } from '../../common/decision/asked.ts';
import { type CompiledAuthorization, type CompiledRoutes, compileAuthorization, compileRoutes } from '../../common/decision/http-model.ts';
import { type CompiledJwt, type CompiledJwtRule, compileJwt } from '../../common/decision/jwt.ts';
import { type CompiledRateLimits, compileRateLimits, type ServiceLimits } from '../../common/decision/rate-limit.ts';
import { type CompiledTelemetry, compileTelemetry, EVERYTHING_ELSE } from '../../common/decision/telemetry-model.ts';
import { type CompiledTraffic, compileTraffic } from '../../common/decision/traffic-model.ts';
import { transportPart } from '../../common/decision/transport-policy.ts';

/** In the order in which a worker is told. */
export const configurationKinds = ['labels', 'traffic', 'telemetry', 'authentications', 'policies', 'limits', 'routes'] as const;

/** One push of the control plane, as the supervisor passes it on. */
export interface ConfigurationPush {
  readonly kind: (typeof configurationKinds)[number];
  readonly resources: readonly { readonly name: string; readonly bytes: Uint8Array }[];
  readonly removed: readonly string[];
}

interface Policies {
  readonly http: readonly CompiledAuthorization[];
  /** What of them can be told of a connection that is no HTTP. */
  readonly transport: readonly CompiledAuthorization[];
  /** Rules for tokens, of all RequestAuthentications that hold. */
  readonly tokens: readonly CompiledJwtRule[];
}

const NO_POLICIES: Policies = { http: [], transport: [], tokens: [] };
/** For pods that are addressed themselves. */
const NO_SERVICE = '';

interface Table {
  set(name: string, bytes: Uint8Array): void;
  delete(name: string): void;
}

export class Configuration {
  readonly #log: Log;
  readonly #routes = new Map<string, CompiledRoutes>();
  readonly #traffic = new Map<string, CompiledTraffic>();
  readonly #labels = new Map<string, WorkloadLabels>();
  readonly #telemetry = new Map<string, CompiledTelemetry>();
  readonly #environment: (name: string) => string | undefined;
  /** Whose labels those of an address are. */
  readonly #uids = new Map<string, string>();
  readonly #policies = new Map<string, CompiledAuthorization>();
  readonly #authentications = new Map<string, CompiledJwt>();
  readonly #limits = new Map<string, CompiledRateLimits>();
  readonly #limitsByService = new Map<string, ServiceLimits | undefined>();
  /** By service: most have none, and looking at all policies for each request would cost the more the more there are. */
  readonly #byService = new Map<string, Policies>();
  readonly #asked = new Map<string, Asked>();
  readonly #tables: Readonly<Record<ConfigurationPush['kind'], Table>> = {
    labels: {
      set: (uid, bytes) => {
        this.#forgetLabels(uid);
        const labels = WorkloadLabels.decode(bytes);
        this.#labels.set(uid, labels);
        for (const address of labels.addresses) this.#uids.set(address, uid);
      },
      delete: (uid) => this.#forgetLabels(uid),
    },
    telemetry: table(this.#telemetry, (bytes) => compileTelemetry(ServiceTelemetry.decode(bytes), (name) => this.#environment(name))),
    traffic: table(this.#traffic, (bytes) => compileTraffic(ServiceTraffic.decode(bytes))),
    authentications: table(this.#authentications, (bytes) => compileJwt(JwtAuthentication.decode(bytes))),
    policies: table(this.#policies, (bytes) => compileAuthorization(HttpAuthorization.decode(bytes))),
    limits: table(this.#limits, (bytes) => compileRateLimits(RateLimits.decode(bytes))),
    routes: table(this.#routes, (bytes) => compileRoutes(ServiceRoutes.decode(bytes))),
  };

  /** @param environment a variable of the process, for what tells them */
  constructor(log: Log, environment: (name: string) => string | undefined = () => undefined) {
    this.#log = log;
    this.#environment = environment;
  }

  apply({ kind, resources, removed }: ConfigurationPush): void {
    for (const name of removed) this.#tables[kind].delete(name);
    for (const { name, bytes } of resources) {
      try {
        this.#tables[kind].set(name, bytes);
      } catch (error) {
        this.#log.error({ kind, name, error: errorMessage(error) }, 'resource cannot be used');
      }
    }
    if (kind === 'limits') this.#limitsByService.clear();
    if (kind === 'policies' || kind === 'authentications') this.#byService.clear();
    if (kind === 'policies' || kind === 'routes') this.#asked.clear();
  }

  /** @param service `namespace/hostname` */
  routesOf(service: string): CompiledRoutes | undefined {
    return this.#routes.get(service);
  }

  /** @param service `namespace/hostname` */
  trafficOf(service: string): CompiledTraffic | undefined {
    return this.#traffic.get(service);
  }

  /** What is said about telemetry of a service, or of everything else; undefined where nothing is. @param service `namespace/hostname` */
  telemetryOf(service: string | undefined): CompiledTelemetry | undefined {
    if (this.#telemetry.size === 0) return undefined;
    return (service === undefined ? undefined : this.#telemetry.get(service)) ?? this.#telemetry.get(EVERYTHING_ELSE);
  }

  /** One of the labels of a workload that something here asks for. */
  labelOf(uid: string, name: string): string | undefined {
    const labels = this.#labels.get(uid)?.labels;
    return labels !== undefined && Object.hasOwn(labels, name) ? labels[name] : undefined;
  }

  /** The same for who has this address: a caller that this waypoint was told no more of. */
  labelAt(address: string, name: string): string | undefined {
    const uid = this.#uids.get(address);
    return uid === undefined ? undefined : this.labelOf(uid, name);
  }

  /** An address may be another workload's already. */
  #forgetLabels(uid: string): void {
    for (const address of this.#labels.get(uid)?.addresses ?? []) if (this.#uids.get(address) === uid) this.#uids.delete(address);
    this.#labels.delete(uid);
  }

  /** Those that hold for a service, or for a pod that was addressed itself. */
  policiesOf(service: string | undefined): readonly CompiledAuthorization[] {
    return this.#of(service).http;
  }

  tokenRulesOf(service: string | undefined): readonly CompiledJwtRule[] {
    return this.#of(service).tokens;
  }

  transportPoliciesOf(service: string | undefined): readonly CompiledAuthorization[] {
    return this.#of(service).transport;
  }

  /** undefined where none holds, as mostly. */
  limitsOf(service: string | undefined): ServiceLimits | undefined {
    if (this.#limits.size === 0) return undefined;
    const key = service ?? NO_SERVICE;
    if (this.#limitsByService.has(key)) return this.#limitsByService.get(key);
    const all = [...this.#limits.values()];
    const always = all.flatMap(({ services, limits }) =>
      services === undefined || (service !== undefined && services.has(service)) ? limits : [],
    );
    const routes = all.flatMap((policy) =>
      policy.routes.flatMap(({ service: of, route, section }) => (of === service ? [{ route, section, limits: policy.limits }] : [])),
    );
    const found = always.length + routes.length > 0 ? { always, routes } : undefined;
    this.#limitsByService.set(key, found);
    return found;
  }

  /** What its policies and routes look at in a request: what the decision journal keeps. */
  askedOf(service: string | undefined): Asked {
    if (this.#policies.size + this.#routes.size === 0) return NOTHING_ASKED;
    const key = service ?? NO_SERVICE;
    const known = this.#asked.get(key);
    if (known) return known;
    const found = askedBy(this.policiesOf(service), service === undefined ? undefined : this.#routes.get(service));
    this.#asked.set(key, found);
    return found;
  }

  #of(service: string | undefined): Policies {
    if (this.#policies.size + this.#authentications.size === 0) return NO_POLICIES;
    const key = service ?? NO_SERVICE;
    const known = this.#byService.get(key);
    if (known) return known;
    const holds = ({ services }: { readonly services: ReadonlySet<string> | undefined }): boolean =>
      services === undefined || (service !== undefined && services.has(service));
    // Whoever asks somebody else comes first: a request without such policies is seen from the first one.
    const found = [...this.#policies.values()].filter(holds);
    const http = [...found.filter(({ action }) => action === 'CUSTOM'), ...found.filter(({ action }) => action !== 'CUSTOM')];
    const tokens = [...this.#authentications.values()].filter(holds).flatMap(({ rules }) => rules);
    const policies: Policies = { http, transport: http.map(transportPart), tokens };
    this.#byService.set(key, policies);
    return policies;
  }
}

const table = <T>(into: Map<string, T>, compile: (bytes: Uint8Array) => T): Table => ({
  set: (name, bytes) => void into.set(name, compile(bytes)),
  delete: (name) => void into.delete(name),
});
