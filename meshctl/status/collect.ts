/** Asks the API server, and through it istiod and the ztunnels, for what `meshctl status` reports. What cannot be read becomes a sentence, not an abort. */
import type { Clock } from '../../common/base/clock.ts';
import { errorMessage } from '../../common/base/errors.ts';
import { type KubeApi, KubeApiError, type KubeObject } from '../../common/client/kube-api.ts';
import { Istiod } from '../istiod.ts';
import type { Observations, ProxyReport, ProxySync } from './report.ts';

/** @throws what the API server throws for namespaces, pods and nodes: without them there is nothing to report */
export async function collect(api: KubeApi, systemNamespace: string, clock: Clock): Promise<Observations> {
  const failures: string[] = [];
  const system = `/apis/apps/v1/namespaces/${systemNamespace}`;
  // All at once: what istiod shows waits for the pods and a token, and not for the rest.
  const listed = api.list<KubeObject>('/api/v1/pods');
  const [pages, namespaces, pods, nodes, services, deployments, daemonSets, gateways, policies] = await Promise.all([
    istiodPages(api, systemNamespace, listed, failures),
    api.list<KubeObject>('/api/v1/namespaces'),
    listed,
    api.list<KubeObject>('/api/v1/nodes'),
    optional(api, '/api/v1/services', failures),
    optional(api, `${system}/deployments`, failures),
    optional(api, `${system}/daemonsets`, failures),
    optional(api, '/apis/gateway.networking.k8s.io/v1/gateways', failures),
    optional(api, '/apis/security.istio.io/v1/authorizationpolicies', failures),
  ]);
  return {
    systemNamespace,
    namespaces,
    pods,
    nodes,
    services,
    deployments,
    daemonSets,
    gateways,
    policies,
    ...pages,
    failures,
    nowMs: clock.now(),
  };
}

/** Kinds that a cluster may not have are none; kinds that we may not read are a failure. */
async function optional(api: KubeApi, path: string, failures: string[]): Promise<KubeObject[]> {
  try {
    return await api.list<KubeObject>(path);
  } catch (error) {
    if (!(error instanceof KubeApiError && error.status === 404))
      failures.push(`${path} could not be read: ${error instanceof Error ? error.message : error}`);
    return [];
  }
}

/** What every replica shows of the proxies that it serves, and one of them of the objects that all read. */
async function istiodPages(
  api: KubeApi,
  systemNamespace: string,
  pods: Promise<readonly KubeObject[]>,
  failures: string[],
): Promise<Pick<Observations, 'syncz' | 'untranslated' | 'proxies'>> {
  const own = pods.then((all) => all.filter(({ metadata }) => metadata.namespace === systemNamespace));
  const istiod = await Istiod.open(api, systemNamespace, own).catch((error: unknown) => {
    failures.push(`istiod could not be asked: ${errorMessage(error)}`);
    return undefined;
  });
  if (!istiod) return { syncz: [], untranslated: [], proxies: [] };
  const ask = async <T>(pod: KubeObject, page: string): Promise<readonly T[]> => {
    try {
      return await istiod.get<readonly T[]>(pod, page);
    } catch (error) {
      failures.push(`${pod.metadata.name} did not answer ${page}: ${errorMessage(error)}`);
      return [];
    }
  };
  try {
    const ofAll = async <T>(page: string): Promise<T[]> => (await Promise.all(istiod.pods.map((pod) => ask<T>(pod, page)))).flat();
    const [syncz, proxies, untranslated] = await Promise.all([
      ofAll<ProxySync>('/debug/syncz'),
      ofAll<ProxyReport>('/debug/proxies'),
      istiod.pods[0] ? ask<Observations['untranslated'][number]>(istiod.pods[0], '/debug/problems') : [],
    ]);
    return { syncz, proxies, untranslated };
  } finally {
    istiod.close();
  }
}
