/** PeerAuthentications by what they hold for: workloads that they select, a namespace, the mesh. */
import { isDeepStrictEqual } from 'node:util';
import { Groups } from './groups.ts';
import type { Labels } from './objects.ts';
import { effectiveMode, type MtlsMode, oldest, type PeerAuthentication } from './peer-authentication.ts';
import { isSelecting, type Selecting, SelectorIndex } from './selectors.ts';

/** Workloads that these labels select must be made anew; of the whole mesh where no namespace is given. */
export type StaleMembers = (namespace: string | undefined, selector: Labels) => void;

export class PeerInputs {
  readonly #objects = new Map<string, PeerAuthentication>();
  readonly #selecting = new SelectorIndex<Selecting<PeerAuthentication>>();
  /** Those without selector, by namespace. */
  readonly #ofNamespace = new Groups<PeerAuthentication>();
  readonly #rootNamespace: string;
  readonly #staleMembers: StaleMembers;
  /** Objects whose ports must be made anew. */
  readonly stale = new Set<string>();

  constructor(rootNamespace: string, staleMembers: StaleMembers) {
    this.#rootNamespace = rootNamespace;
    this.#staleMembers = staleMembers;
  }

  get size(): number {
    return this.#objects.size;
  }

  get(key: string): PeerAuthentication | undefined {
    return this.#objects.get(key);
  }

  /** The PeerAuthentication with a selector that counts for these labels. */
  selecting(namespace: string, labels: Labels): PeerAuthentication | undefined {
    return namespace === this.#rootNamespace ? undefined : oldest(this.#selecting.matching(namespace, labels));
  }

  /** The one without a selector that counts for a namespace; for the whole mesh where it is the root namespace. */
  ofNamespace(namespace: string): PeerAuthentication | undefined {
    return oldest(this.#ofNamespace.of(namespace));
  }

  /** mTLS mode of a namespace for workloads that nothing more specific selects. */
  namespaceMode(namespace: string): MtlsMode {
    const mesh = this.ofNamespace(this.#rootNamespace)?.mode;
    return namespace === this.#rootNamespace ? effectiveMode(mesh) : effectiveMode(this.ofNamespace(namespace)?.mode, mesh);
  }

  set(key: string, next: PeerAuthentication | undefined): void {
    const before = this.#objects.get(key);
    if (isDeepStrictEqual(before, next)) return;
    if (next) this.#objects.set(key, next);
    else this.#objects.delete(key);
    this.stale.add(key);
    if (before) this.#unlink(before);
    if (next) this.#link(next);
  }

  #link(peer: PeerAuthentication): void {
    if (isSelecting(peer)) this.#selecting.add(peer.namespace, peer);
    else this.#ofNamespace.add(peer.namespace, peer);
    this.#stale(peer);
  }

  #unlink(peer: PeerAuthentication): void {
    this.#stale(peer);
    if (isSelecting(peer)) this.#selecting.remove(peer.namespace, peer);
    else this.#ofNamespace.remove(peer.namespace, peer);
  }

  #stale(peer: PeerAuthentication): void {
    const namespace = peer.namespace === this.#rootNamespace ? undefined : peer.namespace;
    if (isSelecting(peer)) {
      if (namespace !== undefined) this.#staleMembers(namespace, peer.selector);
      return;
    }
    // What ports deviate from is the namespace's mode, or the mesh's.
    this.#staleMembers(namespace, {});
    for (const other of this.#objects.values()) {
      if (namespace === undefined || other.namespace === namespace) this.stale.add(other.key);
    }
  }
}
