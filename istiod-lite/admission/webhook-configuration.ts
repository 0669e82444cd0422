/**
 * Keeps the roots by which the API server verifies istiod in its ValidatingWebhookConfiguration: at the start, when a root comes or goes, and when
 * somebody took them out. The chart makes the configuration, without roots; nothing else of it is written, and no other configuration.
 */
import { Backoff } from '../../common/base/backoff.ts';
import { type Clock, seconds, sleep } from '../../common/base/clock.ts';
import { errorMessage } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';
import { type KubeApi, KubeApiError, type KubeObject } from '../../common/client/kube-api.ts';
import { type WatchableApi, watchObjects } from '../../common/client/kube-watch.ts';
import { at, records, text } from '../model/objects.ts';

export interface WebhookConfigurationOptions {
  readonly api: Pick<KubeApi, 'patch'> & WatchableApi;
  readonly name: string;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
  readonly signal: AbortSignal;
  /** Whether this replica is the one that writes. */
  writes(): boolean;
}

const PATH = '/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations';

interface Webhook {
  readonly name: string;
  readonly caBundle: string;
}

export class WebhookConfiguration {
  readonly #options: WebhookConfigurationOptions;
  /** Base64 of PEM, as the field has it. */
  #bundle = '';
  /** As the watch last said; undefined where there is none. */
  #found: readonly Webhook[] | undefined;
  #running = false;

  constructor(options: WebhookConfigurationOptions) {
    this.#options = options;
    watchObjects<KubeObject>(options.api, {
      ...options,
      path: PATH,
      fieldSelector: `metadata.name=${options.name}`,
      onChange: ({ type, object }) => {
        this.#found = type === 'deleted' ? undefined : webhooksOf(object);
        this.act();
      },
    });
  }

  /** @param pem one certificate or several: while a root is replaced, the old one and the new one */
  setRoots(pem: string): void {
    this.#bundle = Buffer.from(pem).toString('base64');
    this.act();
  }

  /** Something has changed, or this replica became the writer. */
  act(): void {
    if (!this.#running && this.#stale().length > 0) void this.#write();
  }

  #stale(): readonly Webhook[] {
    if (this.#bundle === '' || !this.#options.writes()) return [];
    return (this.#found ?? []).filter(({ caBundle }) => caBundle !== this.#bundle);
  }

  async #write(): Promise<void> {
    const { api, name, clock, random, log, signal } = this.#options;
    this.#running = true;
    const backoff = new Backoff({ firstMs: 200, maxMs: seconds(30), jitter: 0.3, random });
    while (!signal.aborted) {
      const stale = this.#stale();
      if (stale.length === 0) break;
      const bundle = this.#bundle;
      try {
        const webhooks = stale.map((webhook) => ({ name: webhook.name, clientConfig: { caBundle: bundle } }));
        await api.patch(`${PATH}/${name}`, { webhooks }, { type: 'strategic' });
        this.#found = this.#found?.map((webhook) => ({ ...webhook, caBundle: bundle }));
        log.info({ configuration: name }, 'roots of the webhook written');
      } catch (error) {
        if (error instanceof KubeApiError && error.status === 404) break;
        log.warn({ configuration: name, error: errorMessage(error) }, 'roots of the webhook could not be written, trying again');
        await sleep(clock, backoff.next(), signal).catch(() => {
          // Shutting down: the loop's condition ends it.
        });
      }
    }
    this.#running = false;
  }
}

const webhooksOf = (object: KubeObject): Webhook[] =>
  records(object.webhooks).map((webhook) => ({ name: text(webhook.name), caBundle: text(at(webhook, 'clientConfig', 'caBundle')) }));
