/**
 * The current resources of one type, as bytes ready to be sent. Changes come in sets, one for each flush of the index; a set knows its own
 * bytes, so that all proxies that follow it get the same buffer.
 */
import { createHash } from 'node:crypto';
import { encodeRemoved, encodeResource } from './response.ts';

export interface ResourceUpdate {
  readonly name: string;
  /** Hash of the content; made here where it is empty. Clients give it back on reconnect. */
  readonly version: string;
  readonly bytes: Uint8Array;
  /** Other names under which an on-demand subscriber may ask: `NETWORK/IP`. */
  readonly aliases?: readonly string[];
}

/** What changed in one go. */
export interface ResourceChange {
  readonly typeUrl: string;
  /** The store that changed; of some types each waypoint has one of its own. */
  readonly store: ResourceStore;
  /** Updated and removed ones. */
  readonly names: ReadonlySet<string>;
  /** `resources` and `removed_resources` of a response with exactly this change. */
  readonly body: Buffer;
  /** Monotonic milliseconds of the oldest event in it. */
  readonly since: number;
}

export interface StoredResource {
  readonly name: string;
  readonly version: string;
  readonly encoded: Buffer;
  readonly aliases: readonly string[];
}

export class ResourceStore {
  readonly typeUrl: string;
  readonly #resources = new Map<string, StoredResource>();
  readonly #byAlias = new Map<string, Set<string>>();
  #everything: Buffer | undefined;
  #encodedBytes = 0;

  constructor(typeUrl: string) {
    this.typeUrl = typeUrl;
  }

  get size(): number {
    return this.#resources.size;
  }

  /** Of all resources together, as they go over the wire. */
  get encodedBytes(): number {
    return this.#encodedBytes;
  }

  get(name: string): StoredResource | undefined {
    return this.#resources.get(name);
  }

  values(): Iterable<StoredResource> {
    return this.#resources.values();
  }

  /** Names of the resources that carry this alias. */
  withAlias(alias: string): Iterable<string> {
    return this.#byAlias.get(alias) ?? [];
  }

  /** All resources as the body of a response; kept until the next change, since many proxies ask for it at once. */
  everything(): Buffer {
    this.#everything ??= Buffer.concat([...this.#resources.values()].map(({ encoded }) => encoded));
    return this.#everything;
  }

  /** @returns undefined where nothing is different from before: same content, or removal of what was not there */
  apply(updated: Iterable<ResourceUpdate>, removed: Iterable<string>, since: number): ResourceChange | undefined {
    return this.#change(updated, (update) => this.#encode(update), removed, since);
  }

  /** Like apply, with what another store has encoded already: the bytes are shared. */
  share(updated: Iterable<StoredResource>, removed: Iterable<string>, since: number): ResourceChange | undefined {
    return this.#change(updated, (stored) => stored, removed, since);
  }

  #change<T extends { readonly name: string }>(
    updated: Iterable<T>,
    encode: (update: T) => StoredResource | undefined,
    removed: Iterable<string>,
    since: number,
  ): ResourceChange | undefined {
    const names = new Set<string>();
    const pieces: Buffer[] = [];
    for (const name of removed) {
      if (!this.#remove(name)) continue;
      names.add(name);
      pieces.push(encodeRemoved(name));
    }
    for (const update of updated) {
      const stored = encode(update);
      if (!stored || !this.#store(stored)) continue;
      names.add(stored.name);
      pieces.push(stored.encoded);
    }
    if (names.size === 0) return undefined;
    this.#everything = undefined;
    return { typeUrl: this.typeUrl, store: this, names, body: Buffer.concat(pieces), since };
  }

  #encode(update: ResourceUpdate): StoredResource | undefined {
    const version = update.version || contentHash(update.bytes);
    // Most of what is compared is the same as before, and encoding is the dear part.
    if (this.#resources.get(update.name)?.version === version) return undefined;
    const { name, aliases = [] } = update;
    return { name, version, aliases, encoded: encodeResource(this.typeUrl, { ...update, version }) };
  }

  #store(stored: StoredResource): boolean {
    const { name, version, aliases } = stored;
    if (this.#resources.get(name)?.version === version) return false;
    this.#remove(name);
    this.#resources.set(name, stored);
    this.#encodedBytes += stored.encoded.length;
    for (const alias of aliases) {
      const known = this.#byAlias.get(alias);
      if (known) known.add(name);
      else this.#byAlias.set(alias, new Set([name]));
    }
    return true;
  }

  #remove(name: string): boolean {
    const before = this.#resources.get(name);
    if (!before) return false;
    this.#resources.delete(name);
    this.#encodedBytes -= before.encoded.length;
    for (const alias of before.aliases) {
      const known = this.#byAlias.get(alias);
      known?.delete(name);
      if (known?.size === 0) this.#byAlias.delete(alias);
    }
    return true;
  }
}

// 64 bits tell the versions of one resource apart; this is no signature.
const contentHash = (bytes: Uint8Array): string => createHash('sha1').update(bytes).digest('hex').slice(0, 16);
