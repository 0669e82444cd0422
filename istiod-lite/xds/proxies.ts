/** All proxies that are connected: whom a change is told to, and what syncz shows. */
import { type Clock, sleep } from '../../common/base/clock.ts';
import type { SubscriptionStatus } from './delta-stream.ts';
import type { ProxyNode } from './proxy-node.ts';
import type { ResourceChange, ResourceStore } from './resource-store.ts';

/** One proxy's stream, in whichever form of the protocol. */
export interface ProxyStream {
  changed(change: ResourceChange): void;
  /** Sends what is due and then asks the proxy to come back to whoever answers then. */
  drain(reason: string): void;
  /** By type URL. */
  status(): Record<string, SubscriptionStatus>;
}

export interface ConnectedProxy {
  readonly node: ProxyNode;
  readonly stream: ProxyStream;
  /** What it is served, by type URL. */
  readonly stores: ReadonlyMap<string, ResourceStore>;
  /** Milliseconds since 1970. */
  readonly since: number;
  readonly peer: string;
  /** Telling it failed: a fault of ours that must end with this proxy. */
  failed(error: unknown): void;
}

/** One row of /debug/syncz, with Istio's field names where it has them. */
export interface SyncRow {
  readonly proxy: string;
  readonly proxy_type: string;
  readonly node_id: string;
  readonly namespace: string;
  readonly istio_version: string;
  readonly cluster_id: string;
  readonly node: string;
  readonly address: string;
  readonly connectedSince: string;
  readonly resources: Readonly<Record<string, SubscriptionStatus>>;
}

export class Proxies {
  readonly #clock: Clock;
  readonly #connected = new Set<ConnectedProxy>();
  readonly #onChange: (versions: ReadonlyMap<string, number>) => void;

  /** @param onChange told how many proxies of which version there are */
  constructor(clock: Clock, onChange: (versions: ReadonlyMap<string, number>) => void) {
    this.#clock = clock;
    this.#onChange = onChange;
  }

  get size(): number {
    return this.#connected.size;
  }

  /** @returns what takes it out again; calling it twice is no harm */
  add(proxy: Omit<ConnectedProxy, 'since'>): () => void {
    const connected = { ...proxy, since: this.#clock.now() };
    this.#connected.add(connected);
    this.#changed();
    return () => {
      if (this.#connected.delete(connected)) this.#changed();
    };
  }

  push(change: ResourceChange): void {
    // A stream that ends while it is told leaves the set.
    for (const proxy of [...this.#connected]) {
      try {
        proxy.stream.changed(change);
      } catch (error) {
        proxy.failed(error);
      }
    }
  }

  /**
   * Asks all to go elsewhere, one after the other over this time, or whoever takes them would have all of them to serve at once.
   * @returns resolves when the last one has been asked; what each is still owed goes out first
   */
  async drain(reason: string, overMs: number): Promise<void> {
    const started = this.#clock.monotonic();
    const leaving = [...this.#connected];
    for (const [i, { stream }] of leaving.entries()) {
      const due = started + (overMs * (i + 1)) / leaving.length;
      const wait = due - this.#clock.monotonic();
      if (wait > 0) await sleep(this.#clock, wait);
      stream.drain(reason);
    }
  }

  /** What a proxy (`POD.NAMESPACE`) is served; undefined where none of that name is connected. */
  stores(name: string): ReadonlyMap<string, ResourceStore> | undefined {
    return [...this.#connected].find(({ node }) => node.name === name)?.stores;
  }

  rows(): SyncRow[] {
    return [...this.#connected].map(({ node, stream, since, peer }) => ({
      proxy: node.name,
      proxy_type: node.type,
      node_id: node.id,
      namespace: node.namespace,
      istio_version: node.version,
      cluster_id: node.clusterId,
      node: node.node,
      address: peer,
      connectedSince: new Date(since).toISOString(),
      resources: stream.status(),
    }));
  }

  #changed(): void {
    const versions = new Map<string, number>();
    for (const { node } of this.#connected) versions.set(node.version, (versions.get(node.version) ?? 0) + 1);
    this.#onChange(versions);
  }
}
