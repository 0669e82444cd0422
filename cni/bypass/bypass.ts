/**
 * What is bypassed: taken out of the mesh for now, whatever its labels say. Said on the API (the annotation `warren.dev/bypass` on a Node, on
 * a Namespace, or with the value `cluster` on the mesh's own namespace), or on the node, by a file that `istio-cni bypass` leaves, when the
 * API server cannot be reached.
 */
import { existsSync } from 'node:fs';
import { type Clock, seconds, type Timer } from '../../common/base/clock.ts';
import type { KubeObject } from '../../common/client/kube-api.ts';

export const BYPASS = 'warren.dev/bypass';
/** On a pod: what it is bypassed with. Written by the agent, read by `meshctl status`. */
export const BYPASSED = 'warren.dev/bypassed';

export type BypassScope = 'by hand' | 'node' | 'cluster' | 'namespace';

export interface BypassParts {
  readonly clock: Clock;
  /** The mesh's own namespace. */
  readonly systemNamespace: string;
  /** The file that `istio-cni bypass` leaves, as this container sees it. */
  readonly file: string;
  /** Everything on this node may have to change, or one namespace. */
  onChange(namespace: string | undefined): void;
}

const LOOK_MS = seconds(1);

export class Bypass {
  readonly #parts: BypassParts;
  readonly #namespaces = new Set<string>();
  #byHand = false;
  #node = false;
  #cluster = false;
  #timer: Timer | undefined;

  constructor(parts: BypassParts) {
    this.#parts = parts;
    this.#byHand = existsSync(parts.file);
  }

  start(): void {
    this.#timer = this.#parts.clock.after(LOOK_MS, () => {
      this.#set('byHand', existsSync(this.#parts.file));
      this.start();
    });
  }

  stop(): void {
    this.#timer?.cancel();
  }

  /** What bypasses the pods of a namespace; undefined where nothing does. */
  scope(namespace: string): BypassScope | undefined {
    if (this.#byHand) return 'by hand';
    if (this.#node) return 'node';
    if (this.#cluster) return 'cluster';
    return this.#namespaces.has(namespace) ? 'namespace' : undefined;
  }

  /** The Node as it is now; undefined where it was deleted. */
  seeNode(node: KubeObject | undefined): void {
    this.#set('node', annotated(node, 'true'));
  }

  /** A namespace as it is now, or as it was when it was deleted. */
  seeNamespace(namespace: KubeObject, deleted = false): void {
    const { name = '' } = namespace.metadata;
    if (name === this.#parts.systemNamespace) this.#set('cluster', !deleted && annotated(namespace, 'cluster'));
    const bypassed = !deleted && annotated(namespace, 'true');
    if (bypassed === this.#namespaces.has(name)) return;
    if (bypassed) this.#namespaces.add(name);
    else this.#namespaces.delete(name);
    this.#parts.onChange(name);
  }

  #set(which: 'byHand' | 'node' | 'cluster', value: boolean): void {
    const before = { byHand: this.#byHand, node: this.#node, cluster: this.#cluster }[which];
    if (value === before) return;
    if (which === 'byHand') this.#byHand = value;
    else if (which === 'node') this.#node = value;
    else this.#cluster = value;
    this.#parts.onChange(undefined);
  }
}

const annotated = (object: KubeObject | undefined, value: string): boolean => object?.metadata.annotations?.[BYPASS] === value;
