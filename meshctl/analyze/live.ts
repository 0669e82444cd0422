/** The objects of a cluster that analysis looks at. Kinds that the cluster does not have are no objects. */
import { type KubeApi, KubeApiError, type KubeObject } from '../../common/client/kube-api.ts';
import { watchedKinds } from '../../istiod-lite/model/watched-kinds.ts';

/** What the translation does not read: kinds that are told of as not enforced, and what makes pods. */
const MORE: readonly string[] = [
  '/apis/apps/v1/deployments',
  '/apis/apps/v1/statefulsets',
  '/apis/apps/v1/daemonsets',
  '/apis/networking.istio.io/v1alpha3/envoyfilters',
  '/apis/networking.istio.io/v1/gateways',
  '/apis/networking.istio.io/v1/sidecars',
  '/apis/networking.istio.io/v1/workloadgroups',
  '/apis/networking.istio.io/v1beta1/proxyconfigs',
  '/apis/extensions.istio.io/v1alpha1/wasmplugins',
  '/apis/extensions.istio.io/v1alpha1/trafficextensions',
  '/apis/telemetry.istio.io/v1/telemetries',
];
const UNREAD: ReadonlySet<string> = new Set(['ConfigMap', 'EndpointSlice', 'Node']);

/** @throws {KubeApiError} where a kind may not be listed: an analysis of a part would say what is not true */
export async function liveObjects(api: Pick<KubeApi, 'list'>): Promise<KubeObject[]> {
  const watched = Object.values(watchedKinds).filter(({ kind }) => !UNREAD.has(kind));
  const paths = new Set([...watched.map(({ path }) => path), ...MORE]);
  const lists = await Promise.all([...paths].map((path) => list(api, path)));
  return lists.flat();
}

async function list(api: Pick<KubeApi, 'list'>, path: string): Promise<KubeObject[]> {
  try {
    return await api.list<KubeObject>(path);
  } catch (error) {
    if (error instanceof KubeApiError && error.status === 404) return [];
    throw error;
  }
}
