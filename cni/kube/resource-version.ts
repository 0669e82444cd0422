/** Whether one state of an object is older than another: what we asked for may be ahead of the watch. */
import type { KubeObject } from '../../common/client/kube-api.ts';

/** Resource versions are numbers that grow. Where one is not, nothing is older: the watch has the last word. */
export function isOlder(a: KubeObject, b: KubeObject): boolean {
  const [first, second] = [a, b].map(({ metadata }) => metadata.resourceVersion ?? '');
  if (first === undefined || second === undefined || !/^\d+$/.test(first) || !/^\d+$/.test(second)) return false;
  return BigInt(first) < BigInt(second);
}
