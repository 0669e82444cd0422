/** From the name in a request to the kubelet and container that answer it, with the errors that kubectl's users know. */
import { ApiError } from '../api-error.ts';
import { arrayOf, at, stringOf } from '../json.ts';
import type { KubeletStreams, PodReference } from '../kubelet.ts';
import type { KubeObject } from '../object.ts';
import type { Store } from '../store/store.ts';

export interface PodTarget {
  readonly object: KubeObject;
  readonly pod: PodReference;
  readonly kubelet: KubeletStreams;
}

export type Kubelets = (nodeName: string) => KubeletStreams | undefined;

/** @throws {ApiError} NotFound, or BadRequest where no node runs it */
export function podTarget(store: Store, kubelets: Kubelets, namespace: string, name: string): PodTarget {
  const object = store.require(store.typeOf('Pod'), namespace, name);
  const nodeName = stringOf(at(object, 'spec', 'nodeName'));
  if (nodeName === '') throw ApiError.badRequest(`pod ${name} does not have a host assigned`);
  const kubelet = kubelets(nodeName);
  if (!kubelet) throw new ApiError(503, 'ServiceUnavailable', `node ${nodeName} of pod ${name} is not running`);
  return { object, pod: { namespace, name, uid: object.metadata.uid ?? '' }, kubelet };
}

/** The container that was asked for, or the only one, or the one that an annotation names. @throws {ApiError} BadRequest */
export function containerOf(pod: KubeObject, asked: string): string {
  const all = ['containers', 'initContainers', 'ephemeralContainers'].flatMap((field) =>
    arrayOf(at(pod, 'spec', field)).map((each) => stringOf(at(each, 'name'))),
  );
  if (asked !== '') {
    if (!all.includes(asked)) throw ApiError.badRequest(`container ${asked} is not valid for pod ${pod.metadata.name}`);
    return asked;
  }
  const marked = pod.metadata.annotations?.['kubectl.kubernetes.io/default-container'];
  if (marked !== undefined && all.includes(marked)) return marked;
  const [only] = all;
  if (arrayOf(at(pod, 'spec', 'containers')).length === 1 && only !== undefined) return only;
  throw ApiError.badRequest(`a container name must be specified for pod ${pod.metadata.name}, choose one of: [${all.join(' ')}]`);
}
