/**
 * The mesh as plain objects: the obvious implementation of MeshView, slow and easy to believe. Tests of decisions use it, and the packed
 * state is compared with it.
 */
import { isDeepStrictEqual } from 'node:util';
import { cidrContains, type IpAddress, ipBytes } from '../../common/base/address.ts';
import {
  type Endpoint,
  type MeshView,
  type Policy,
  policyKey,
  type Service,
  serviceKey,
  type Workload,
} from '../../common/decision/mesh-view.ts';

export interface MeshContents {
  readonly workloads?: readonly Workload[];
  readonly services?: readonly Service[];
  readonly policies?: readonly Policy[];
}

export class PlainMesh implements MeshView {
  // Insertion order is the order of arrival: putting a resource again moves it to the end, as in ztunnel.
  readonly #workloads = new Map<string, Workload>();
  readonly #services = new Map<string, Service>();
  readonly #policies = new Map<string, Policy>();

  constructor({ workloads = [], services = [], policies = [] }: MeshContents = {}) {
    for (const workload of workloads) this.put({ workload });
    for (const service of services) this.put({ service });
    for (const policy of policies) this.put({ policy });
  }

  put(resource: { workload: Workload } | { service: Service } | { policy: Policy }): void {
    if ('workload' in resource) replace(this.#workloads, resource.workload.uid, resource.workload);
    else if ('service' in resource) replace(this.#services, serviceKey(resource.service), resource.service);
    else replace(this.#policies, policyKey(resource.policy), resource.policy);
  }

  /** A workload by uid, else a service by `namespace/hostname`. */
  removeAddress(name: string): void {
    if (!this.#workloads.delete(name)) this.#services.delete(name);
  }

  removePolicy(key: string): void {
    this.#policies.delete(key);
  }

  workloadByUid(uid: string): Workload | undefined {
    return this.#workloads.get(uid);
  }

  workloadByAddress(network: string, ip: IpAddress): Workload | undefined {
    return best(
      [...this.#workloads.values()].filter((w) => !w.hostNetwork && w.network === network && w.addresses.includes(ip)),
      (w) => (w.uid.includes('//Pod/') ? 2 : 0) + (w.protocol === 'HBONE' ? 1 : 0),
    );
  }

  workloadByPod(pod: { name: string; namespace: string; serviceAccount: string }): Workload | undefined {
    return best(
      [...this.#workloads.values()].filter(
        (w) => w.name === pod.name && w.namespace === pod.namespace && w.serviceAccount === pod.serviceAccount,
      ),
      (w) => (w.uid.includes('//Pod/') ? 1 : 0),
    );
  }

  workloadByHostname(namespace: string, hostname: string): Workload | undefined {
    return best(
      [...this.#workloads.values()].filter((w) => hostname !== '' && w.namespace === namespace && w.hostname === hostname),
      () => 0,
    );
  }

  serviceByKey(namespace: string, hostname: string): Service | undefined {
    return this.#services.get(`${namespace}/${hostname}`);
  }

  servicesByAddress(network: string, ip: IpAddress): readonly Service[] {
    const bytes = ipBytes(ip) ?? new Uint8Array();
    const services = [...this.#services.values()];
    const exact = services.filter((s) => s.addresses.some((address) => address.network === network && address.ip === ip));
    const prefix = (s: Service): number =>
      Math.max(-1, ...s.ranges.filter((r) => r.network === network && cidrContains(r.cidr, bytes)).map((r) => r.cidr.length));
    const ranges = services.filter((s) => prefix(s) >= 0 && !exact.includes(s)).sort((a, b) => prefix(b) - prefix(a));
    return [...exact, ...ranges];
  }

  servicesByHostname(hostname: string): readonly Service[] {
    return [...this.#services.values()].filter((s) => s.hostname === hostname);
  }

  endpoints(service: Service): readonly Endpoint[] {
    const key = serviceKey(service);
    return [...this.#workloads.values()].flatMap((workload) => {
      const ports = workload.services.get(key);
      return ports && (workload.healthy || service.loadBalancing.allowUnhealthy) ? [{ workload, ports }] : [];
    });
  }

  policyByKey(key: string): Policy | undefined {
    return this.#policies.get(key);
  }

  globalPolicies(): readonly Policy[] {
    return [...this.#policies.values()].filter((policy) => policy.scope === 'GLOBAL');
  }

  namespacePolicies(namespace: string): readonly Policy[] {
    return [...this.#policies.values()].filter((policy) => policy.scope === 'NAMESPACE' && policy.namespace === namespace);
  }
}

function replace<T>(map: Map<string, T>, key: string, value: T): void {
  // The same again is no change, not even of the order.
  if (isDeepStrictEqual(map.get(key), value)) return;
  map.delete(key);
  map.set(key, value);
}

/** The one with the highest rank; of several the last. */
function best<T>(items: readonly T[], rank: (item: T) => number): T | undefined {
  return items.reduce<T | undefined>((winner, item) => (winner === undefined || rank(item) >= rank(winner) ? item : winner), undefined);
}
