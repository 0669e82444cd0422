/**
 * Reads the ConfigMaps and Secrets that the mesh's objects refer to for certificates, each by its name and as long as it is referred to. Nobody may
 * read all Secrets here: who wants one to be used gives istiod a Role for it, and until then it counts as one that is not there. What was read
 * stays in memory, and neither contents nor keys are ever logged.
 */
import type { Clock } from '../../common/base/clock.ts';
import type { Log } from '../../common/base/log.ts';
import type { KubeObject } from '../../common/client/kube-api.ts';
import { type WatchableApi, watchObjects } from '../../common/client/kube-watch.ts';
import { type CertificateSource, type FoundCertificates, readCredential, readRootsMap } from '../model/certificate-sources.ts';

export interface CertificateWatchOptions {
  readonly api: WatchableApi;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
  readonly signal: AbortSignal;
  /** What is there now; undefined where it is no longer asked for. */
  changed(source: CertificateSource, found: FoundCertificates | undefined): void;
}

/** Each costs a watch of its own. */
const MOST = 1000;

export class CertificateWatch {
  readonly #options: CertificateWatchOptions;
  readonly #watches = new Map<CertificateSource, AbortController>();

  constructor(options: CertificateWatchOptions) {
    this.#options = options;
  }

  /** All that is referred to now. */
  want(sources: ReadonlySet<CertificateSource>): void {
    for (const [source, stop] of this.#watches) {
      if (sources.has(source)) continue;
      stop.abort(new Error('nothing refers to it any more'));
      this.#watches.delete(source);
      this.#options.changed(source, undefined);
    }
    for (const source of sources) if (!this.#watches.has(source) && this.#watches.size < MOST) this.#watch(source);
  }

  #watch(source: CertificateSource): void {
    const { signal, changed } = this.#options;
    const stop = new AbortController();
    this.#watches.set(source, stop);
    const [kind = '', key = ''] = source.split(' ');
    const [namespace = '', name = ''] = key.split('/');
    let found: unknown;
    let synced = false;
    const tell = (): void => {
      if (synced && !stop.signal.aborted) changed(source, kind === 'Secret' ? readCredential(source, found) : readRootsMap(source, found));
    };
    watchObjects<KubeObject>(this.#options.api, {
      ...this.#options,
      signal: AbortSignal.any([signal, stop.signal]),
      path: `/api/v1/namespaces/${namespace}/${kind === 'Secret' ? 'secrets' : 'configmaps'}`,
      fieldSelector: `metadata.name=${name}`,
      // The store knows that it is there; what is in it is kept once, where it is used.
      keep: ({ metadata }) => ({ metadata }),
      onChange({ type, object }) {
        if (object.metadata.name !== name) return;
        found = type === 'deleted' ? undefined : object;
        tell();
      },
      onSynced() {
        synced = true;
        tell();
      },
    });
  }
}
