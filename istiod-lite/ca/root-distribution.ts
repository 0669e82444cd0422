/**
 * Puts the roots where pods mount them: ConfigMap `istio-ca-root-cert` in every namespace. Only the replica that holds the lease writes; an
 * edited or deleted ConfigMap is put right as soon as the watch tells.
 */
import { Backoff } from '../../common/base/backoff.ts';
import { type Clock, seconds, sleep } from '../../common/base/clock.ts';
import { errorMessage } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';
import { type KubeApi, KubeApiError, type KubeObject } from '../../common/client/kube-api.ts';

export const ROOT_CONFIG_MAP = 'istio-ca-root-cert';
const ROOT_KEY = 'root-cert.pem';
// Nothing of the mesh runs there.
const SKIPPED = new Set(['kube-node-lease', 'kube-public', 'local-path-storage']);
const AT_ONCE = 8;

export interface RootDistributionOptions {
  readonly api: Pick<KubeApi, 'get' | 'create' | 'replace'>;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
  readonly signal: AbortSignal;
  roots(): string;
  /** Whether this replica is the one that writes. */
  writes(): boolean;
}

interface ConfigMap extends KubeObject {
  data?: Record<string, string>;
}

export class RootDistribution {
  readonly #options: RootDistributionOptions;
  readonly #namespaces = new Set<string>();
  /** What each namespace has, as the watch last said. */
  readonly #found = new Map<string, string>();
  readonly #waiting = new Set<string>();
  #running = 0;

  constructor(options: RootDistributionOptions) {
    this.#options = options;
  }

  namespaceChanged(namespace: string, exists: boolean): void {
    if (exists && !SKIPPED.has(namespace)) {
      this.#namespaces.add(namespace);
      this.#consider(namespace);
    } else {
      this.#namespaces.delete(namespace);
    }
  }

  configMapChanged(namespace: string, configMap: ConfigMap | undefined): void {
    if (configMap) this.#found.set(namespace, configMap.data?.[ROOT_KEY] ?? '');
    else this.#found.delete(namespace);
    this.#consider(namespace);
  }

  /** The roots changed, or this replica became the writer. */
  everything(): void {
    for (const namespace of this.#namespaces) this.#consider(namespace);
  }

  #consider(namespace: string): void {
    if (!this.#options.writes() || !this.#needs(namespace)) return;
    this.#waiting.add(namespace);
    while (this.#running < AT_ONCE && this.#waiting.size > 0) void this.#work();
  }

  #needs(namespace: string): boolean {
    return this.#namespaces.has(namespace) && this.#found.get(namespace) !== this.#options.roots();
  }

  async #work(): Promise<void> {
    this.#running++;
    for (const namespace of this.#waiting) {
      this.#waiting.delete(namespace);
      await this.#write(namespace);
    }
    this.#running--;
  }

  async #write(namespace: string): Promise<void> {
    const { clock, random, log, signal } = this.#options;
    const backoff = new Backoff({ firstMs: 200, maxMs: seconds(30), jitter: 0.3, random });
    while (!signal.aborted && this.#options.writes() && this.#needs(namespace)) {
      try {
        const roots = this.#options.roots();
        await this.#put(namespace, roots);
        this.#found.set(namespace, roots);
        log.info({ namespace }, 'root certificate written');
      } catch (error) {
        if (isGoing(error)) {
          log.debug({ namespace, error: errorMessage(error) }, 'root certificate not written');
          return;
        }
        log.warn({ namespace, error: errorMessage(error) }, 'root certificate could not be written, trying again');
        await sleep(clock, backoff.next(), signal).catch(() => {
          // Shutting down: the loop's condition ends it.
        });
      }
    }
  }

  async #put(namespace: string, roots: string): Promise<void> {
    const { api } = this.#options;
    const path = `/api/v1/namespaces/${namespace}/configmaps`;
    const wanted = {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: ROOT_CONFIG_MAP, namespace, labels: { 'istio.io/config': 'true' } },
      data: { [ROOT_KEY]: roots },
    };
    try {
      await api.create(path, wanted);
    } catch (error) {
      if (!(error instanceof KubeApiError && error.status === 409)) throw error;
      const existing = await api.get<ConfigMap>(`${path}/${ROOT_CONFIG_MAP}`);
      const metadata = { ...existing.metadata, labels: { ...existing.metadata.labels, ...wanted.metadata.labels } };
      await api.replace(`${path}/${ROOT_CONFIG_MAP}`, { ...existing, ...wanted, metadata });
    }
  }
}

// A namespace that is going away takes no new objects, and its ConfigMaps go with it.
const isGoing = (error: unknown): boolean =>
  error instanceof KubeApiError && (error.status === 404 || (error.status === 403 && error.message.includes('being terminated')));
