/**
 * MeshView over packed memory: finds blocks by key, decodes what it finds, and remembers a bounded number of decoded objects. Which picture
 * of the mesh it looks at is up to whoever owns it (reader.ts, writer.ts); within one picture its answers never change.
 */
import { type IpAddress, ipBytes, maskBytes } from '../base/address.ts';
import {
  type Endpoint,
  type EndpointTable,
  type MeshView,
  type Policy,
  policyKey,
  type Service,
  serviceKey,
  type Workload,
} from '../decision/mesh-view.ts';
import { type ArenaView, type BlockRef, kinds } from './arena.ts';
import { BlockCache } from './block-cache.ts';
import { decodeAddress, decodePolicy } from './decode.ts';
import { PackedEndpointTable } from './endpoint-items.ts';
import { hashRange, hashText, type KeyKind, keyKinds } from './hash.ts';
import { scanIndex } from './index-table.ts';
import { LookupMemo } from './lookup-memo.ts';
import { isListOf, listRefs, type Root, resourceBytes } from './records.ts';

/** What a view looks at, and how much of it it remembers. */
export interface PackedViewOptions {
  readonly arena: ArenaView;
  readonly seed: number;
  readonly root: Root;
  /** Name of the node that we run on: a pod is looked for here first. */
  readonly node?: string | undefined;
  /** Decoded objects kept, of each kind. */
  readonly cacheEntries?: number | undefined;
}

// A workload decodes to about 2 KB of objects. Decoding one takes a few microseconds, so a cache that holds what a node's pods mostly
// talk to is enough; each entry that is thrown out again costs the garbage collector more than that.
const DEFAULT_CACHE_ENTRIES = 512;

// Every connection looks at all policies in its scope, so lists of them are kept decoded as a whole anyway; this keeps a change of one of
// ten thousand from decoding the others again.
const POLICY_CACHE_ENTRIES = 32_768;

/** All look-ups are O(1), those of ranges O(prefix lengths in use). Results may be kept; they do not change. */
export class PackedView implements MeshView {
  protected readonly arena: ArenaView;
  protected root: Root;
  readonly #seed: number;
  readonly #node: string | undefined;
  readonly #workloads: BlockCache<Workload>;
  readonly #services: BlockCache<Service>;
  readonly #policies: BlockCache<Policy>;
  readonly #policyLists: BlockCache<readonly Policy[]>;
  // By name and namespace, by network and address, by namespace and hostname, by list.
  readonly #pods = new LookupMemo<Workload>();
  readonly #addresses = new LookupMemo<Workload>();
  readonly #named = new LookupMemo<Service>();
  readonly #virtual = new LookupMemo<readonly Service[]>();
  readonly #policiesOf = new LookupMemo<readonly Policy[]>();

  constructor({ arena, seed, root, node, cacheEntries = DEFAULT_CACHE_ENTRIES }: PackedViewOptions) {
    this.arena = arena;
    this.root = root;
    this.#seed = seed;
    this.#node = node;
    this.#workloads = new BlockCache(arena, cacheEntries);
    this.#services = new BlockCache(arena, cacheEntries);
    this.#policies = new BlockCache(arena, Math.max(cacheEntries, POLICY_CACHE_ENTRIES));
    this.#policyLists = new BlockCache(arena, Math.ceil(cacheEntries / 16));
  }

  get counts(): { readonly workloads: number; readonly services: number; readonly policies: number } {
    const { workloads, services, policies } = this.root;
    return { workloads, services, policies };
  }

  workloadByUid(uid: string): Workload | undefined {
    return this.#findWorkloads(keyKinds.workloadUid, uid, '', (w) => w.uid === uid)[0];
  }

  workloadByAddress(network: string, ip: IpAddress): Workload | undefined {
    const known = this.#addresses.get(this.root, network, ip);
    if (known) return known;
    const claimants = this.#findWorkloads(
      keyKinds.workloadAddress,
      network,
      ip,
      (w) => !w.hostNetwork && w.network === network && w.addresses.includes(ip),
    );
    const found = bestOf(claimants, (w) => (isPod(w) ? 2 : 0) + (w.protocol === 'HBONE' ? 1 : 0));
    return found && this.#addresses.put(this.root, network, ip, found);
  }

  workloadByPod(pod: { name: string; namespace: string; serviceAccount: string }): Workload | undefined {
    const { name, namespace, serviceAccount } = pod;
    const known = this.#pods.get(this.root, namespace, name);
    if (known?.serviceAccount === serviceAccount) return known;
    const found = this.#findWorkloads(
      keyKinds.workloadPod,
      namespace,
      name,
      (w) => w.name === name && w.namespace === namespace && w.serviceAccount === serviceAccount,
    );
    // Clusters that share a mesh may have pods of one name; the node agent speaks of the one that is here.
    const best = bestOf(found, (w) => (this.#node !== undefined && w.node === this.#node ? 2 : 0) + (isPod(w) ? 1 : 0));
    return best && this.#pods.put(this.root, namespace, name, best);
  }

  workloadByHostname(namespace: string, hostname: string): Workload | undefined {
    if (hostname === '') return undefined;
    const found = this.#findWorkloads(
      keyKinds.workloadHostname,
      namespace,
      hostname,
      (w) => w.namespace === namespace && w.hostname === hostname,
    );
    return found.at(-1);
  }

  serviceByKey(namespace: string, hostname: string): Service | undefined {
    const known = this.#named.get(this.root, namespace, hostname);
    if (known) return known;
    const key = `${namespace}/${hostname}`;
    const [found] = this.#findServices(hashText(this.#seed, keyKinds.service, key), (s) => serviceKey(s) === key);
    return found && this.#named.put(this.root, namespace, hostname, found);
  }

  servicesByAddress(network: string, ip: IpAddress): readonly Service[] {
    return this.#virtual.get(this.root, network, ip) ?? this.#virtual.put(this.root, network, ip, this.#findByAddress(network, ip));
  }

  #findByAddress(network: string, ip: IpAddress): readonly Service[] {
    const exact = this.#findServices(hashText(this.#seed, keyKinds.serviceAddress, network, ip), (s) =>
      s.addresses.some((address) => address.network === network && address.ip === ip),
    );
    const { prefixes4, prefixes6 } = this.root;
    const prefixes = ip.includes(':') ? prefixes6 : prefixes4;
    if (prefixes.every((word) => word === 0)) return exact;
    const bytes = ipBytes(ip);
    return bytes ? [...exact, ...this.#servicesByRange(network, bytes, prefixes, exact)] : exact;
  }

  servicesByHostname(hostname: string): readonly Service[] {
    return this.#findServices(hashText(this.#seed, keyKinds.serviceHostname, hostname), (s) => s.hostname === hostname);
  }

  endpoints(service: Service): readonly Endpoint[] {
    const key = serviceKey(service);
    const list = this.#findList(keyKinds.endpoints, key);
    if (list === 0) return [];
    const all = listRefs(this.arena, list).map((ref) => this.#endpointAt(ref, key));
    return service.loadBalancing.allowUnhealthy ? all : all.filter(({ workload }) => workload.healthy);
  }

  endpointTable(service: Service, source: Workload): EndpointTable {
    const key = serviceKey(service);
    const list = this.#findList(keyKinds.endpoints, key);
    if (list === 0) return NO_ENDPOINTS;
    const endpointAt = (ref: BlockRef): Endpoint => this.#endpointAt(ref, key);
    return new PackedEndpointTable({ arena: this.arena, seed: this.#seed, list, service, source, endpointAt });
  }

  policyByKey(key: string): Policy | undefined {
    let found: Policy | undefined;
    this.#scan(keyKinds.policy, key, '', (ref) => {
      const policy = this.#policyAt(ref);
      if (policy && policyKey(policy) === key) found = policy;
      return found !== undefined;
    });
    return found;
  }

  globalPolicies(): readonly Policy[] {
    return this.#policiesOf.get(this.root, '', GLOBAL_POLICIES) ?? this.#policyList('', GLOBAL_POLICIES, GLOBAL_POLICIES);
  }

  namespacePolicies(namespace: string): readonly Policy[] {
    const known = this.#policiesOf.get(this.root, 'namespace', namespace);
    return known ?? this.#policyList('namespace', namespace, namespacePoliciesKey(namespace));
  }

  #endpointAt(ref: BlockRef, key: string): Endpoint {
    const workload = this.#workloadAt(ref);
    const ports = workload?.services.get(key);
    if (!workload || !ports) throw new Error(`the list of ${key} leads to no endpoint of it`);
    return { workload, ports };
  }

  #policyList(first: string, second: string, key: string): readonly Policy[] {
    const list = this.#findList(keyKinds.namespacePolicies, key);
    const found =
      list === 0 ? [] : this.#policyLists.get(list, () => listRefs(this.arena, list).flatMap((ref) => this.#policyAt(ref) ?? []));
    return this.#policiesOf.put(this.root, first, second, found);
  }

  #findList(kind: KeyKind, key: string): BlockRef {
    let found = 0;
    this.#scan(kind, key, '', (ref) => {
      if (isListOf(this.arena, ref, key)) found = ref;
      return found !== 0;
    });
    return found;
  }

  /** Those that the key's hash leads to and that really have it, the oldest first. */
  #findWorkloads(kind: KeyKind, first: string, second: string, holds: (workload: Workload) => boolean): Workload[] {
    const found: { serial: number; workload: Workload }[] = [];
    this.#scan(kind, first, second, (ref) => {
      const workload = this.#workloadAt(ref);
      if (workload && holds(workload)) found.push({ serial: this.arena.serial(ref), workload });
      return false;
    });
    if (found.length > 1) found.sort((a, b) => a.serial - b.serial);
    return found.map(({ workload }) => workload);
  }

  #findServices(hash: number, holds: (service: Service) => boolean): Service[] {
    const found: { serial: number; service: Service }[] = [];
    scanIndex(this.arena, this.root, hash, (ref) => {
      const service = this.#serviceAt(ref);
      if (service && holds(service)) found.push({ serial: this.arena.serial(ref), service });
      return false;
    });
    if (found.length > 1) found.sort((a, b) => a.serial - b.serial);
    return found.map(({ service }) => service);
  }

  #servicesByRange(network: string, bytes: Uint8Array, prefixes: Uint32Array, exact: readonly Service[]): Service[] {
    // A service may have the address itself, or several ranges around it; by key, since equal objects may have been decoded twice.
    const seen = new Set(exact.map(serviceKey));
    const found: Service[] = [];
    for (let length = bytes.length * 8; length >= 0; length--) {
      if (((prefixes[length >>> 5] ?? 0) & (1 << (length & 31))) === 0) continue;
      const masked = maskBytes(bytes, length);
      const matching = this.#findServices(hashRange(this.#seed, network, masked, length), (s) =>
        s.ranges.some(
          (range) => range.network === network && range.cidr.length === length && Buffer.compare(range.cidr.bytes, masked) === 0,
        ),
      );
      for (const service of matching) {
        const key = serviceKey(service);
        if (!seen.has(key)) found.push(service);
        seen.add(key);
      }
    }
    return found;
  }

  #scan(kind: KeyKind, first: string, second: string, visit: (ref: BlockRef) => boolean): void {
    scanIndex(this.arena, this.root, hashText(this.#seed, kind, first, second), visit);
  }

  #workloadAt(ref: BlockRef): Workload | undefined {
    if (this.arena.kind(ref) !== kinds.workload) return undefined;
    return this.#workloads.get(ref, () => {
      const decoded = decodeAddress(resourceBytes(this.arena, ref));
      if ('workload' in decoded) return decoded.workload;
      throw new Error('a block of kind workload holds a service');
    });
  }

  #serviceAt(ref: BlockRef): Service | undefined {
    if (this.arena.kind(ref) !== kinds.service) return undefined;
    return this.#services.get(ref, () => {
      const decoded = decodeAddress(resourceBytes(this.arena, ref));
      if ('service' in decoded) return decoded.service;
      throw new Error('a block of kind service holds a workload');
    });
  }

  #policyAt(ref: BlockRef): Policy | undefined {
    if (this.arena.kind(ref) !== kinds.policy) return undefined;
    return this.#policies.get(ref, () => decodePolicy(resourceBytes(this.arena, ref)));
  }
}

/** Keys of the lists of policies. A namespace's name has no slash. */
export const GLOBAL_POLICIES = '/global';
/** Key of the list of a namespace's own policies. */
export const namespacePoliciesKey = (namespace: string): string => `namespace/${namespace}`;

const NO_ENDPOINTS: EndpointTable = {
  size: 0,
  maxWeight: 0,
  weight: () => 0,
  isReachable: () => false,
  hasTunnel: () => false,
  isNear: () => false,
  portsKey: () => 0,
  endpoint: (i) => {
    throw new RangeError(`no endpoint ${i} of none`);
  },
};

const isPod = (workload: Workload): boolean => workload.uid.includes('//Pod/');

/** The one with the highest rank; of several the last to come. */
function bestOf<T>(items: readonly T[], rank: (item: T) => number): T | undefined {
  return items.reduce<T | undefined>((best, item) => (best === undefined || rank(item) >= rank(best) ? item : best), undefined);
}
