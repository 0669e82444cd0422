/**
 * The ConfigMaps that change what waypoints are made of: the defaults of a class, in the control plane's namespace, and what a Gateway's
 * `infrastructure.parametersRef` names. Only what is referred to is watched, each by its name: a cluster's other ConfigMaps may be many and large.
 */
import type { Clock } from '../../common/base/clock.ts';
import type { Log } from '../../common/base/log.ts';
import type { KubeApi, KubeObject } from '../../common/client/kube-api.ts';
import { type ObjectStore, objectKey, watchObjects } from '../../common/client/kube-watch.ts';
import type { GatewayProblem } from '../model/gateway-status.ts';
import { DEFAULTS_FOR_CLASS } from '../model/names.ts';
import { type Overlay, OverlayError, readOverlay } from './overlay.ts';
import { classOf, parametersOf } from './render.ts';

export interface ParametersOptions {
  readonly api: Pick<KubeApi, 'listPage' | 'watch'>;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
  readonly signal: AbortSignal;
  readonly systemNamespace: string;
  /** These Gateways (`namespace/name`) have other overlays now. */
  changed(gateways: readonly string[]): void;
}

export type Parameters = { readonly overlays: readonly Overlay[] } | { readonly problem: GatewayProblem };

/** @param defaults ConfigMaps with defaults for the class: of several the oldest counts */
export function readParameters(
  gateway: KubeObject,
  defaults: readonly KubeObject[],
  find: (key: string) => KubeObject | undefined,
): Parameters {
  const wanted = parametersOf(gateway);
  if (typeof wanted === 'string') return invalid(wanted);
  const key = wanted && `${wanted.namespace}/${wanted.name}`;
  const own = key && find(key);
  if (key && !own) return invalid(`infrastructure.parametersRef: there is no ConfigMap ${key}`);
  try {
    return { overlays: [oldest(defaults), own].flatMap((configMap) => (configMap ? [readOverlay(configMap)] : [])) };
  } catch (error) {
    if (error instanceof OverlayError) return invalid(error.message);
    throw error;
  }
}

interface Watched {
  readonly store: ObjectStore<KubeObject>;
  readonly gateways: Set<string>;
  readonly stop: AbortController;
}

export class GatewayParameters {
  readonly #options: ParametersOptions;
  readonly #watched = new Map<string, Watched>();
  /** Of each Gateway, the ConfigMap that it refers to. */
  readonly #referred = new Map<string, string>();
  readonly #gateways = new Set<string>();
  readonly #defaults: ObjectStore<KubeObject>;

  constructor(options: ParametersOptions) {
    this.#options = options;
    const everybody = (): void => options.changed([...this.#gateways]);
    this.#defaults = watchObjects<KubeObject>(options.api, {
      ...options,
      path: `/api/v1/namespaces/${options.systemNamespace}/configmaps`,
      labelSelector: DEFAULTS_FOR_CLASS,
      onChange: everybody,
      onSynced: everybody,
    });
  }

  gatewayChanged(key: string, gateway: KubeObject | undefined): void {
    if (gateway) this.#gateways.add(key);
    else this.#gateways.delete(key);
    const wanted = gateway && parametersOf(gateway);
    const reference = typeof wanted === 'object' ? `${wanted.namespace}/${wanted.name}` : undefined;
    const before = this.#referred.get(key);
    if (before === reference) return;
    if (before !== undefined) this.#release(before, key);
    this.#referred.delete(key);
    if (typeof wanted !== 'object' || reference === undefined) return;
    this.#referred.set(key, reference);
    const watched = this.#watched.get(reference) ?? this.#watch(wanted.namespace, wanted.name);
    watched.gateways.add(key);
  }

  /** Undefined as long as a ConfigMap has not been read. */
  of(gateway: KubeObject): Parameters | undefined {
    const wanted = parametersOf(gateway);
    const store = typeof wanted === 'object' ? this.#watched.get(`${wanted.namespace}/${wanted.name}`)?.store : undefined;
    if (!this.#defaults.synced || (typeof wanted === 'object' && !store?.synced)) return undefined;
    const ofClass = [...this.#defaults.values()].filter(({ metadata }) => metadata.labels?.[DEFAULTS_FOR_CLASS] === classOf(gateway));
    return readParameters(gateway, ofClass, (key) => store?.get(key));
  }

  #watch(namespace: string, name: string): Watched {
    const { signal } = this.#options;
    const reference = `${namespace}/${name}`;
    const stop = new AbortController();
    const gateways = new Set<string>();
    const changed = (): void => this.#options.changed([...gateways]);
    const store = watchObjects<KubeObject>(this.#options.api, {
      ...this.#options,
      signal: AbortSignal.any([signal, stop.signal]),
      path: `/api/v1/namespaces/${namespace}/configmaps`,
      fieldSelector: `metadata.name=${name}`,
      onChange: changed,
      onSynced: changed,
    });
    const watched = { store, gateways, stop };
    this.#watched.set(reference, watched);
    return watched;
  }

  #release(reference: string, gateway: string): void {
    const watched = this.#watched.get(reference);
    watched?.gateways.delete(gateway);
    if (!watched || watched.gateways.size > 0) return;
    watched.stop.abort(new Error('no Gateway refers to it any more'));
    this.#watched.delete(reference);
  }
}

const invalid = (message: string): { problem: GatewayProblem } => ({ problem: { reason: 'InvalidParameters', message } });

function oldest(configMaps: readonly KubeObject[]): KubeObject | undefined {
  const age = (object: KubeObject): string => `${String(object.metadata.creationTimestamp ?? '')} ${objectKey(object)}`;
  return configMaps.reduce<KubeObject | undefined>((first, next) => (first && age(first) <= age(next) ? first : next), undefined);
}
