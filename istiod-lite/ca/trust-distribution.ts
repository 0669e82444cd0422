/**
 * Puts what everybody trusts where pods mount it: the roots as ConfigMap `istio-ca-root-cert` in every namespace, revocation lists as
 * `istio-ca-crl` where the operator has any. Only the replica that holds the lease writes; an edited or deleted ConfigMap is put right as soon
 * as the watch tells.
 */
import { Backoff } from '../../common/base/backoff.ts';
import { type Clock, seconds, sleep } from '../../common/base/clock.ts';
import { errorMessage } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';
import { type KubeApi, KubeApiError, type KubeObject } from '../../common/client/kube-api.ts';

export interface DistributedFile {
  readonly configMap: string;
  readonly key: string;
}

export const ROOT_FILE: DistributedFile = { configMap: 'istio-ca-root-cert', key: 'root-cert.pem' };
export const CRL_FILE: DistributedFile = { configMap: 'istio-ca-crl', key: 'ca-crl.pem' };
// Nothing of the mesh runs there.
const SKIPPED = new Set(['kube-node-lease', 'kube-public', 'local-path-storage']);
const AT_ONCE = 8;

export interface TrustDistributionOptions {
  readonly file: DistributedFile;
  readonly api: Pick<KubeApi, 'get' | 'create' | 'replace'>;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
  readonly signal: AbortSignal;
  /** '' where there is nothing to hand out. */
  content(): string;
  /** Whether this replica is the one that writes. */
  writes(): boolean;
}

interface ConfigMap extends KubeObject {
  data?: Record<string, string>;
}

export class TrustDistribution {
  readonly #options: TrustDistributionOptions;
  readonly #namespaces = new Set<string>();
  /** What each namespace has, as the watch last said. */
  readonly #found = new Map<string, string>();
  readonly #waiting = new Set<string>();
  #running = 0;

  constructor(options: TrustDistributionOptions) {
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
    if (configMap) this.#found.set(namespace, configMap.data?.[this.#options.file.key] ?? '');
    else this.#found.delete(namespace);
    this.#consider(namespace);
  }

  /** The roots changed, or this replica became the writer. */
  everything(): void {
    for (const namespace of this.#namespaces) this.#consider(namespace);
  }

  /** For people: how many namespaces have what they should have, and which have not. */
  describe(): { readonly configMap: string; readonly namespaces: number; readonly behind: readonly string[] } {
    const { configMap } = this.#options.file;
    return { configMap, namespaces: this.#namespaces.size, behind: [...this.#namespaces].filter((namespace) => this.#needs(namespace)) };
  }

  #consider(namespace: string): void {
    if (!this.#options.writes() || !this.#needs(namespace)) return;
    this.#waiting.add(namespace);
    while (this.#running < AT_ONCE && this.#waiting.size > 0) void this.#work();
  }

  #needs(namespace: string): boolean {
    const content = this.#options.content();
    return content !== '' && this.#namespaces.has(namespace) && this.#found.get(namespace) !== content;
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
    const { clock, random, log, signal, file } = this.#options;
    const { configMap } = file;
    const backoff = new Backoff({ firstMs: 200, maxMs: seconds(30), jitter: 0.3, random });
    while (!signal.aborted && this.#options.writes() && this.#needs(namespace)) {
      try {
        const content = this.#options.content();
        await this.#put(namespace, content);
        this.#found.set(namespace, content);
        log.info({ namespace, configMap }, 'trust written');
      } catch (error) {
        if (isGoing(error)) {
          log.debug({ namespace, configMap, error: errorMessage(error) }, 'trust not written');
          return;
        }
        log.warn({ namespace, configMap, error: errorMessage(error) }, 'trust could not be written, trying again');
        await sleep(clock, backoff.next(), signal).catch(() => {
          // Shutting down: the loop's condition ends it.
        });
      }
    }
  }

  async #put(namespace: string, content: string): Promise<void> {
    const { api, file } = this.#options;
    const path = `/api/v1/namespaces/${namespace}/configmaps`;
    const wanted = {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: file.configMap, namespace, labels: { 'istio.io/config': 'true' } },
      data: { [file.key]: content },
    };
    try {
      await api.create(path, wanted);
    } catch (error) {
      if (!(error instanceof KubeApiError && error.status === 409)) throw error;
      const existing = await api.get<ConfigMap>(`${path}/${file.configMap}`);
      const metadata = { ...existing.metadata, labels: { ...existing.metadata.labels, ...wanted.metadata.labels } };
      await api.replace(`${path}/${file.configMap}`, { ...existing, ...wanted, metadata });
    }
  }
}

// A namespace that is going away takes no new objects, and its ConfigMaps go with it.
const isGoing = (error: unknown): boolean =>
  error instanceof KubeApiError && (error.status === 404 || (error.status === 403 && error.message.includes('being terminated')));
