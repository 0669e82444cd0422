/**
 * The mesh's state as the supervisor keeps it: applies what xDS pushes, resource by resource, to packed memory that the data workers read
 * (Istio's ztunnel, src/xds/client.rs). A resource that cannot be taken is one rejection and disturbs nothing else; nothing that a control plane sends
 * makes `apply` throw.
 *
 * Membership of services is kept from the workloads' side alone: a list of endpoints exists as soon as a workload names the service, whether
 * or not the service has come ("staged"), and stays when the service is replaced. Health is looked at when endpoints are asked for, so a
 * service that starts to allow unhealthy endpoints has them at once.
 */
import { randomInt } from 'node:crypto';
import { errorMessage } from '../base/errors.ts';
import type { IPFamilies } from '../codec/gen/workload.ts';
import { type MeshView, type Policy, policyKey, type Service, serviceKey, type Workload } from '../decision/mesh-view.ts';
import { Arena, ArenaFull, type BlockKind, type BlockRef, kinds } from './arena.ts';
import { decodeAddress, decodeIpFamilies, decodePolicy } from './decode.ts';
import { ENDPOINT_WORDS } from './endpoint-items.ts';
import { hashText, type KeyKind, keyKinds } from './hash.ts';
import { IndexWriter, indexEntries } from './index-table.ts';
import { policyHash, policyKeyHash, policyListKey, serviceHashes, serviceKeyHash, workloadKeyHash } from './keys.ts';
import { ListWriter } from './list-writer.ts';
import { PackedView } from './packed-view.ts';
import { PrefixLengths } from './prefix-lengths.ts';
import {
  readRoot,
  resourceBytes,
  resourceKeyHash,
  resourceName,
  resourceVersion,
  sameResource,
  writeResource,
  writeRoot,
} from './records.ts';
import { createControl, Publisher, type SharedMeshState } from './shared.ts';
import { WorkloadKeys } from './workload-keys.ts';

/** Workloads and services. */
export const ADDRESS_TYPE = 'type.googleapis.com/istio.workload.Address';
/** Policies. */
export const AUTHORIZATION_TYPE = 'type.googleapis.com/istio.security.Authorization';

/** A resource of a push. */
export interface StateResource {
  readonly name: string;
  readonly version: string;
  readonly bytes: Uint8Array;
}

/** What one delta response says (Istio's ztunnel, src/xds/client.rs). */
export interface StatePush {
  readonly typeUrl: string;
  readonly resources: Iterable<StateResource>;
  /** Names of resources that are gone. */
  readonly removed: readonly string[];
}

/** A push that was made here, not received: its resources are all there. */
export interface ListedPush extends StatePush {
  readonly resources: readonly StateResource[];
}

/** One "name: reason" of a NACK. */
export interface Rejection {
  readonly name: string;
  readonly reason: string;
}

/** What one push changed: how many of each kind came, changed or went. */
export interface StateChange {
  readonly generation: number;
  readonly workloads: number;
  readonly services: number;
  readonly policies: number;
  /** Workloads of the own node (option `node`), as they were and as they are: whose certificates to fetch and to forget. */
  readonly local: readonly { readonly before: Workload | undefined; readonly after: Workload | undefined }[];
}

/** Limits, and where we are. */
export interface MeshStateWriterOptions {
  /** Name of the node that we run on. */
  readonly node?: string | undefined;
  /** Largest size of the shared memory; resources beyond it are rejected. */
  readonly maxBytes?: number | undefined;
  /** Seed of the index; random where it is not given. */
  readonly seed?: number | undefined;
}

/** For metrics and benches. Sizes are in bytes. */
export interface MeshStateStats {
  readonly workloads: number;
  readonly services: number;
  readonly policies: number;
  readonly generation: number;
  readonly readers: number;
  /** Shared memory that exists, in use, and kept for readers of older pictures. */
  readonly bytes: number;
  readonly usedBytes: number;
  readonly retiredBytes: number;
}

/** A resource may be large (a policy with thousands of rules), but not so large that decoding it stops everything else. */
const MAX_RESOURCE_BYTES = 4 << 20;
const DEFAULT_MAX_BYTES = 2 ** 31;
const JUST_THE_REFERENCE = new Uint32Array(1);

type Changes = { workloads: number; services: number; policies: number; readonly local: Map<string, LocalChange> };
type LocalChange = { before: Workload | undefined; after: Workload | undefined };

/** There is one for a process. It does no I/O and keeps no reference to what it is given. */
export class MeshStateWriter {
  readonly #arena: Arena;
  readonly #publisher: Publisher;
  readonly #seed: number;
  readonly #index: IndexWriter;
  readonly #endpoints: ListWriter;
  readonly #policyLists: ListWriter;
  readonly #prefixes = new PrefixLengths();
  readonly #node: string | undefined;
  readonly #listeners = new Set<(change: StateChange) => void>();
  readonly #view: WriterView;
  /** Of the resource that comes, and of the one that is there. */
  readonly #keys: WorkloadKeys;
  readonly #heldKeys: WorkloadKeys;
  /** Names whose newest version was rejected: the old resource stays in force, but is not claimed to be held. */
  readonly #unretained = new Set<string>();
  #counts = { workloads: 0, services: 0, policies: 0 };
  #changes: Changes = noChanges();
  readonly shared: SharedMeshState;

  constructor(options: MeshStateWriterOptions = {}) {
    const control = createControl(options.seed ?? randomInt(2 ** 32));
    this.#arena = new Arena(options.maxBytes ?? DEFAULT_MAX_BYTES);
    this.#publisher = new Publisher(control);
    this.#seed = this.#publisher.seed;
    this.#node = options.node;
    this.#keys = new WorkloadKeys(this.#seed);
    this.#heldKeys = new WorkloadKeys(this.#seed);
    this.#index = new IndexWriter(this.#arena);
    this.#endpoints = this.#listWriter(keyKinds.endpoints, ENDPOINT_WORDS);
    this.#policyLists = this.#listWriter(keyKinds.namespacePolicies, 1);
    this.shared = { arena: this.#arena.buffer, control };
    this.#publish();
    this.#view = new WriterView(this.#arena, this.#seed, this.#publisher.root, this.#node);
  }

  /** Takes one push as a whole: readers see all of it or nothing. */
  apply(push: StatePush): { rejected: Rejection[] } {
    const rejected: Rejection[] = [];
    const put = push.typeUrl === AUTHORIZATION_TYPE ? this.#putPolicy : push.typeUrl === ADDRESS_TYPE ? this.#putAddress : undefined;
    if (!put) return { rejected };
    for (const name of push.removed) {
      if (push.typeUrl === AUTHORIZATION_TYPE) this.#removePolicy(name);
      else if (!this.#removeWorkload(name)) this.#removeService(name);
      this.#unretained.delete(`${push.typeUrl} ${name}`);
    }
    for (const resource of push.resources) {
      try {
        if (resource.bytes.length > MAX_RESOURCE_BYTES)
          throw new Error(`${resource.bytes.length} bytes are more than ${MAX_RESOURCE_BYTES}`);
        put.call(this, resource);
        if (this.#unretained.size > 0) this.#unretained.delete(`${push.typeUrl} ${resource.name}`);
      } catch (error) {
        rejected.push({ name: resource.name, reason: errorMessage(error) });
        if (this.#holds(push.typeUrl, resource.name)) this.#unretained.add(`${push.typeUrl} ${resource.name}`);
      }
    }
    const full = this.#finish();
    if (full !== undefined) rejected.push({ name: push.typeUrl, reason: full });
    return { rejected };
  }

  /** Name to version of everything held of a type: what a reconnecting client tells the control plane. */
  versions(typeUrl: string): Map<string, string> {
    const versions = new Map<string, string>();
    for (const ref of this.#resources(kindsOf(typeUrl))) {
      const name = resourceName(this.#arena, ref);
      if (!this.#unretained.has(`${typeUrl} ${name}`)) versions.set(name, resourceVersion(this.#arena, ref));
    }
    return versions;
  }

  /** Everything held of a type, as it came; one whose newest version was rejected has no version. Bytes are copies. */
  *held(typeUrl: string): Iterable<StateResource> {
    for (const ref of this.#resources(kindsOf(typeUrl))) {
      const name = resourceName(this.#arena, ref);
      const version = this.#unretained.has(`${typeUrl} ${name}`) ? '' : resourceVersion(this.#arena, ref);
      yield { name, version, bytes: Uint8Array.from(resourceBytes(this.#arena, ref)) };
    }
  }

  /** Always the newest picture; to be used in the writer's thread only. */
  view(): MeshView {
    return this.#view;
  }

  /** Called after each push that changed something, once. @returns a function that ends it */
  onChange(listener: (change: StateChange) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  *workloads(): Iterable<Workload> {
    for (const ref of this.#resources([kinds.workload])) yield this.#workloadAt(ref);
  }

  *services(): Iterable<Service> {
    for (const ref of this.#resources([kinds.service])) yield this.#serviceAt(ref);
  }

  /** With the families as they were sent: decisions make no difference between "automatic" and "dual", dumps do. */
  *servicesWithFamilies(): Iterable<{ readonly service: Service; readonly ipFamilies: IPFamilies }> {
    for (const ref of this.#resources([kinds.service])) {
      yield { service: this.#serviceAt(ref), ipFamilies: decodeIpFamilies(resourceBytes(this.#arena, ref)) };
    }
  }

  *policies(): Iterable<Policy> {
    for (const ref of this.#resources([kinds.policy])) yield decodePolicy(resourceBytes(this.#arena, ref));
  }

  /** To be called when a worker's thread has ended: what it had pinned may be used again. */
  forgetReader(threadId: number): void {
    this.#publisher.forget(threadId);
  }

  stats(): MeshStateStats {
    const { usedBytes, retiredBytes, buffer } = this.#arena;
    const { generation, readers } = this.#publisher;
    return { ...this.#counts, generation, readers, bytes: buffer.byteLength, usedBytes, retiredBytes };
  }

  #listWriter(kind: KeyKind, width: number): ListWriter {
    const hash = (key: string): number => hashText(this.#seed, kind, key);
    return new ListWriter({ arena: this.#arena, index: this.#index, hash, width });
  }

  #putAddress(resource: StateResource): void {
    const service = this.#keys.read(resource.bytes);
    if (service) this.#putService(service, resource);
    else this.#putWorkload(this.#keys, resource);
  }

  #putWorkload(keys: WorkloadKeys, resource: StateResource): void {
    const { hashes, hashCount, services, items } = keys;
    const keyHash = hashes[0] ?? 0;
    const before = this.#findWorkload(keyHash, keys);
    if (before !== 0 && sameResource(this.#arena, before, resource)) return;
    this.#index.reserve(hashCount + services.length);
    const ref = writeResource(this.#arena, kinds.workload, keyHash, resource);
    if (before !== 0) this.#dropWorkload(before);
    else this.#changes.workloads++;
    for (let i = 0; i < hashCount; i++) this.#index.add(hashes[i] ?? 0, ref);
    for (let i = 0; i < services.length; i++) this.#endpoints.add(services[i] ?? '', ref, items, i * ENDPOINT_WORDS);
    this.#counts.workloads++;
    // An update is a removal and an insertion: what was here is noted even where what comes is elsewhere.
    if (this.#isLocal(keys) || (this.#changes.local.size > 0 && this.#changes.local.has(keys.uid)))
      this.#noteLocal(undefined, this.#workloadAt(ref));
  }

  #putService(service: Service, resource: StateResource): void {
    const key = serviceKey(service);
    const before = this.#findService(key);
    if (before !== 0 && sameResource(this.#arena, before, resource)) return;
    const hashes = serviceHashes(this.#seed, service);
    this.#index.reserve(hashes.length);
    const ref = writeResource(this.#arena, kinds.service, serviceKeyHash(this.#seed, key), resource);
    if (before !== 0) this.#dropService(before);
    else this.#changes.services++;
    for (const hash of hashes) this.#index.add(hash, ref);
    this.#prefixes.add(service);
    this.#counts.services++;
  }

  #putPolicy(resource: StateResource): void {
    const policy = decodePolicy(resource.bytes);
    const keyHash = policyHash(this.#seed, policy);
    const before = this.#findPolicy(policyKey(policy));
    if (before !== 0 && sameResource(this.#arena, before, resource)) return;
    this.#index.reserve(2);
    const ref = writeResource(this.#arena, kinds.policy, keyHash, resource);
    if (before !== 0) this.#dropPolicy(before);
    else this.#changes.policies++;
    this.#index.add(keyHash, ref);
    const list = policyListKey(policy);
    if (list !== undefined) this.#policyLists.add(list, ref, JUST_THE_REFERENCE);
    this.#counts.policies++;
  }

  #removeWorkload(uid: string): boolean {
    const ref = this.#findWorkload(workloadKeyHash(this.#seed, uid), { uid });
    if (ref !== 0) this.#dropWorkload(ref);
    return ref !== 0;
  }

  #removeService(key: string): void {
    const ref = this.#findService(key);
    if (ref !== 0) this.#dropService(ref);
  }

  #removePolicy(key: string): void {
    const ref = this.#findPolicy(key);
    if (ref !== 0) this.#dropPolicy(ref);
  }

  #dropWorkload(ref: BlockRef): void {
    const keys = this.#heldKeys;
    keys.read(resourceBytes(this.#arena, ref));
    const local = this.#isLocal(keys);
    for (let i = 0; i < keys.hashCount; i++) this.#index.remove(keys.hashes[i] ?? 0, ref);
    for (const key of keys.services) this.#endpoints.remove(key, ref);
    this.#arena.retire(ref);
    this.#counts.workloads--;
    this.#changes.workloads++;
    if (local) this.#noteLocal(this.#workloadAt(ref), undefined);
  }

  #dropService(ref: BlockRef): void {
    const service = this.#serviceAt(ref);
    for (const hash of serviceHashes(this.#seed, service)) this.#index.remove(hash, ref);
    this.#prefixes.remove(service);
    this.#arena.retire(ref);
    this.#counts.services--;
    this.#changes.services++;
  }

  #dropPolicy(ref: BlockRef): void {
    const policy = decodePolicy(resourceBytes(this.#arena, ref));
    this.#index.remove(resourceKeyHash(this.#arena, ref), ref);
    const list = policyListKey(policy);
    if (list !== undefined) this.#policyLists.remove(list, ref);
    this.#arena.retire(ref);
    this.#counts.policies--;
    this.#changes.policies++;
  }

  /**
   * Writes the lists that changed, once each, publishes the next picture and tells who wants to know.
   * @returns why it cannot, where there is no memory left even for that: readers then keep the picture that they have
   */
  #finish(): string | undefined {
    const { workloads, services, policies, local } = this.#changes;
    if (workloads + services + policies === 0) return undefined;
    try {
      this.#endpoints.flush();
      this.#policyLists.flush();
      this.#publish();
    } catch (error) {
      if (error instanceof ArenaFull) return error.message;
      throw error;
    }
    this.#changes = noChanges();
    this.#view.move(this.#publisher.root);
    const { generation } = this.#publisher;
    const change = { generation, workloads, services, policies, local: [...local.values()] };
    for (const listener of this.#listeners) listener(change);
    return undefined;
  }

  #publish(): void {
    const before = this.#publisher.root;
    const { directory, mask } = this.#index.seal();
    const root = writeRoot(this.#arena, { directory, mask, ...this.#counts, ...this.#prefixes.bits() });
    this.#arena.retire(before);
    this.#publisher.publish(root);
    this.#arena.seal(this.#publisher.generation);
    this.#arena.reclaim(this.#publisher.oldestPinned());
  }

  #isLocal(keys: WorkloadKeys): boolean {
    return this.#node !== undefined && keys.isOn(this.#node);
  }

  #noteLocal(before: Workload | undefined, after: Workload | undefined): void {
    const { local } = this.#changes;
    const uid = before?.uid ?? after?.uid ?? '';
    const noted = local.get(uid);
    local.set(uid, { before: noted ? noted.before : before, after });
  }

  #holds(typeUrl: string, name: string): boolean {
    if (typeUrl === AUTHORIZATION_TYPE) return this.#findPolicy(name) !== 0;
    return this.#findWorkload(workloadKeyHash(this.#seed, name), { uid: name }) !== 0 || this.#findService(name) !== 0;
  }

  *#resources(wanted: readonly BlockKind[]): Iterable<BlockRef> {
    for (const { hash, ref } of this.#view.entries()) {
      // Each block is entered under several keys; it is counted under its own.
      if (wanted.includes(this.#arena.kind(ref) as BlockKind) && resourceKeyHash(this.#arena, ref) === hash) yield ref;
    }
  }

  #findWorkload(keyHash: number, wanted: { readonly uid: string }): BlockRef {
    // Most that come are new: then there is nothing to ask.
    if (!this.#index.has(keyHash)) return 0;
    return this.#find(kinds.workload, keyHash, (ref) => {
      this.#heldKeys.read(resourceBytes(this.#arena, ref));
      return this.#heldKeys.uid === wanted.uid;
    });
  }

  #findService(key: string): BlockRef {
    return this.#find(kinds.service, serviceKeyHash(this.#seed, key), (ref) => serviceKey(this.#serviceAt(ref)) === key);
  }

  #findPolicy(key: string): BlockRef {
    const holds = (ref: BlockRef): boolean => policyKey(decodePolicy(resourceBytes(this.#arena, ref))) === key;
    return this.#find(kinds.policy, policyKeyHash(this.#seed, key), holds);
  }

  #find(kind: BlockKind, hash: number, holds: (ref: BlockRef) => boolean): BlockRef {
    return this.#index.find(hash, (ref) => this.#arena.kind(ref) === kind && holds(ref));
  }

  #workloadAt(ref: BlockRef): Workload {
    const decoded = decodeAddress(resourceBytes(this.#arena, ref));
    if (!('workload' in decoded)) throw new Error('a block of kind workload holds a service');
    return decoded.workload;
  }

  #serviceAt(ref: BlockRef): Service {
    const decoded = decodeAddress(resourceBytes(this.#arena, ref));
    if (!('service' in decoded)) throw new Error('a block of kind service holds a workload');
    return decoded.service;
  }
}

/** The writer's own view follows each publication at once; its thread is the one that publishes. */
class WriterView extends PackedView {
  constructor(arena: Arena, seed: number, root: BlockRef, node: string | undefined) {
    // Admin requests and prefetch look here, not connections, so little needs to be remembered.
    super({ arena, seed, root: readRoot(arena, root), node, cacheEntries: 256 });
  }

  move(root: BlockRef): void {
    this.root = readRoot(this.arena, root);
  }

  entries(): Iterable<{ hash: number; ref: BlockRef }> {
    return indexEntries(this.arena, this.root);
  }
}

function kindsOf(typeUrl: string): readonly BlockKind[] {
  if (typeUrl === ADDRESS_TYPE) return [kinds.workload, kinds.service];
  return typeUrl === AUTHORIZATION_TYPE ? [kinds.policy] : [];
}

const noChanges = (): Changes => ({ workloads: 0, services: 0, policies: 0, local: new Map() });
