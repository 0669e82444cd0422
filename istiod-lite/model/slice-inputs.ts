/** EndpointSlices by the service that they are of and by the pods that they name. */
import { isDeepStrictEqual } from 'node:util';
import type { EndpointSlice, PodReference } from './endpoint-slice.ts';
import { Groups } from './groups.ts';
import type { Pod } from './pod.ts';
import type { Stale } from './stale.ts';

export class SliceInputs {
  readonly #slices = new Map<string, EndpointSlice>();
  readonly #ofService = new Groups<string>();
  readonly #ofPod = new Groups<string>();
  readonly #stale: Stale;
  readonly #stalePod: (key: string) => void;

  constructor(stale: Stale, stalePod: (key: string) => void) {
    this.#stale = stale;
    this.#stalePod = stalePod;
  }

  get(key: string): EndpointSlice | undefined {
    return this.#slices.get(key);
  }

  /** Slices that name this pod. */
  naming(pod: Pod): EndpointSlice[] {
    return [...this.#ofPod.of(pod.key)].flatMap((key) => {
      const slice = this.#slices.get(key);
      return slice?.pods.some((reference) => refersTo(reference, pod)) ? [slice] : [];
    });
  }

  set(key: string, next: EndpointSlice | undefined): void {
    const before = this.#slices.get(key);
    if (isDeepStrictEqual(before, next)) return;
    if (next) this.#slices.set(key, next);
    else this.#slices.delete(key);
    if (before) this.#unlink(before);
    if (next) this.#link(next);
    this.#stale.workloads.add(`EndpointSlice/${key}`);
  }

  /** Another service may have the name now. @param service `namespace/name` */
  staleService(service: string): void {
    for (const key of this.#ofService.of(service)) {
      this.#stale.workloads.add(`EndpointSlice/${key}`);
      for (const pod of this.#slices.get(key)?.pods ?? []) this.#stalePod(pod.key);
    }
  }

  #link(slice: EndpointSlice): void {
    this.#ofService.add(slice.service, slice.key);
    for (const pod of slice.pods) {
      this.#ofPod.add(pod.key, slice.key);
      this.#stalePod(pod.key);
    }
  }

  #unlink(slice: EndpointSlice): void {
    this.#ofService.remove(slice.service, slice.key);
    for (const pod of slice.pods) {
      this.#ofPod.remove(pod.key, slice.key);
      this.#stalePod(pod.key);
    }
  }
}

const refersTo = (reference: PodReference, pod: Pod): boolean =>
  reference.key === pod.key && (reference.uid === '' || pod.uid === '' || reference.uid === pod.uid);
