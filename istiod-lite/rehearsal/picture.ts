/** The mesh at one moment of a translation, as recorded decisions are judged by: policies, and what each waypoint has. */
import { errorMessage } from '../../common/base/errors.ts';
import { HttpAuthorization, ServiceRoutes, WorkloadLabels } from '../../common/codec/gen/waypoint.ts';
import { type CompiledAuthorization, type CompiledRoutes, compileAuthorization, compileRoutes } from '../../common/decision/http-model.ts';
import type { Decision } from '../../common/decision/journal.ts';
import { type Policy, policyKey, type Service, type Workload } from '../../common/decision/mesh-view.ts';
import type { PolicyView } from '../../common/decision/policy.ts';
import { type Judgement, judgeBytes, judgeConnection, judgeRequest, unknown } from '../../common/decision/recorded.ts';
import { decodeAddress, decodePolicy } from '../../common/state/decode.ts';
import type { MeshIndex } from '../model/index.ts';
import type { Resource } from '../model/resources.ts';
import type { WaypointResources } from '../model/waypoint-tables.ts';

interface WaypointPicture {
  readonly policies: readonly CompiledAuthorization[];
  readonly routes: ReadonlyMap<string, CompiledRoutes>;
  /** Versions of what judges tokens and of what stands in no judgement here, by name. */
  readonly tokens: ReadonlyMap<string, string>;
  labelAt(ip: string, name: string): string | undefined;
}

export class MeshPicture {
  readonly #addresses: ReadonlyMap<string, Resource>;
  readonly #waypoints: ReadonlyMap<string, WaypointResources>;
  readonly #made = new Map<string, WaypointPicture>();
  readonly #view: PolicyView;
  /** Made when somebody asks. */
  #byAddress: Map<string, readonly string[]> | undefined;

  /** What the index has now; it may go on changing. */
  constructor(index: Pick<MeshIndex, 'addresses' | 'authorizations' | 'waypoints' | 'waypointResources'>) {
    this.#addresses = new Map([...index.addresses()].map((resource) => [resource.name, resource]));
    this.#waypoints = new Map(
      [...index.waypoints()].map((key) => {
        const [namespace = '', name = ''] = key.split('/');
        return [key, index.waypointResources(namespace, name)];
      }),
    );
    this.#view = this.#viewOf([...index.authorizations()].map(({ bytes }) => decodePolicy(bytes)));
  }

  workload(uid: string): Workload | undefined {
    const resource = this.#addresses.get(uid);
    const decoded = resource && decodeAddress(resource.bytes);
    return decoded && 'workload' in decoded ? decoded.workload : undefined;
  }

  service(key: string): Service | undefined {
    const resource = this.#addresses.get(key);
    const decoded = resource && decodeAddress(resource.bytes);
    return decoded && 'service' in decoded ? decoded.service : undefined;
  }

  /** Which waypoint a decision's destination names, in words that are equal for equal ones. */
  bindingOf({ service, uid }: Decision): string {
    const of = service !== '' ? this.service(service) : this.workload(uid);
    return of ? JSON.stringify([of.waypoint, 'weightedWaypoints' in of ? of.weightedWaypoints : undefined]) : 'absent';
  }

  /** What judges tokens at a waypoint, in words that are equal for equal rules. */
  tokenRules(gateway: string): string {
    return JSON.stringify([...this.#waypoint(gateway).tokens]);
  }

  /** @param gateway `namespace/name` of the Gateway, where a waypoint decided */
  judge(decision: Decision, gateway: string): Judgement {
    const { at, service, request, uid, sourceIp } = decision;
    if (at === 'inbound') {
      const local = this.workload(uid);
      return local ? judgeConnection(this.#view, local, decision) : unknown(`pod ${decision.pod || uid} is not there any more`);
    }
    const waypoint = this.#waypoint(gateway);
    const policies = waypoint.policies.filter(({ services }) => services === undefined || services.has(service));
    if (at === 'connection') return judgeBytes(policies, decision);
    if (!request) return unknown('its request was not recorded');
    return judgeRequest({
      policies,
      routes: waypoint.routes.get(service),
      decision,
      request,
      label: (name) => waypoint.labelAt(sourceIp, name),
    });
  }

  #viewOf(policies: readonly Policy[]): PolicyView {
    const byKey = new Map(policies.map((policy) => [policyKey(policy), policy]));
    const global = policies.filter(({ scope }) => scope === 'GLOBAL');
    const ofNamespace = Map.groupBy(
      policies.filter(({ scope }) => scope === 'NAMESPACE'),
      ({ namespace }) => namespace,
    );
    return {
      policyByKey: (key) => byKey.get(key),
      globalPolicies: () => global,
      namespacePolicies: (namespace) => ofNamespace.get(namespace) ?? [],
      serviceByKey: (namespace, hostname) => this.service(`${namespace}/${hostname}`),
      workloadByAddress: (network, ip) =>
        this.#named(network, ip)
          .map((name) => this.workload(name))
          .find((found) => found !== undefined && !found.hostNetwork),
      // A waypoint that is named by hostname and is no Service is nobody's here.
      workloadByHostname: () => undefined,
      servicesByAddress: (network, ip) => this.#named(network, ip).flatMap((name) => this.service(name) ?? []),
    };
  }

  /** Names of the resources with this address. */
  #named(network: string, ip: string): readonly string[] {
    if (!this.#byAddress) {
      this.#byAddress = new Map();
      for (const { name, aliases } of this.#addresses.values())
        for (const alias of aliases) this.#byAddress.set(alias, [...(this.#byAddress.get(alias) ?? []), name]);
    }
    return this.#byAddress.get(`${network}/${ip}`) ?? [];
  }

  #waypoint(gateway: string): WaypointPicture {
    const known = this.#made.get(gateway);
    if (known) return known;
    const made = pictureOf(this.#waypoints.get(gateway));
    this.#made.set(gateway, made);
    return made;
  }
}

function pictureOf(resources: WaypointResources | undefined): WaypointPicture {
  const labels = new Map<string, Readonly<Record<string, string>>>();
  for (const { bytes } of resources?.labels ?? []) {
    const decoded = WorkloadLabels.decode(bytes);
    for (const address of decoded.addresses) labels.set(address, decoded.labels);
  }
  return {
    policies: compiled(resources?.httpAuthorizations ?? [], (bytes) => compileAuthorization(HttpAuthorization.decode(bytes))),
    routes: new Map(
      compiled(resources?.routes ?? [], (bytes) => compileRoutes(ServiceRoutes.decode(bytes))).map((routes) => [routes.service, routes]),
    ),
    tokens: new Map((resources?.jwtAuthentications ?? []).map(({ name, version }) => [name, version])),
    labelAt(ip, name) {
      const of = labels.get(ip);
      return of !== undefined && Object.hasOwn(of, name) ? of[name] : undefined;
    },
  };
}

/** @throws {Error} naming what a waypoint would not take */
const compiled = <T>(resources: readonly Resource[], compile: (bytes: Uint8Array) => T): T[] =>
  resources.map(({ name, bytes }) => {
    try {
      return compile(bytes);
    } catch (error) {
      throw new Error(`${name} cannot be used by a waypoint: ${errorMessage(error)}`, { cause: error });
    }
  });
