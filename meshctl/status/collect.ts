/** Asks the API server, and through it istiod and the ztunnels, for what `meshctl status` reports. What cannot be read becomes a sentence, not an abort. */
import type { Clock } from '../../common/base/clock.ts';
import { type KubeApi, KubeApiError, type KubeObject } from '../../common/client/kube-api.ts';
import type { Observations, ProxyReport, ProxySync } from './report.ts';

const MONITORING_PORT = 15014;

/** @throws what the API server throws for namespaces, pods and nodes: without them there is nothing to report */
export async function collect(api: KubeApi, systemNamespace: string, clock: Clock): Promise<Observations> {
  const failures: string[] = [];
  const system = `/apis/apps/v1/namespaces/${systemNamespace}`;
  const [namespaces, pods, nodes, services, deployments, daemonSets, gateways, policies] = await Promise.all([
    api.list<KubeObject>('/api/v1/namespaces'),
    api.list<KubeObject>('/api/v1/pods'),
    api.list<KubeObject>('/api/v1/nodes'),
    optional(api, '/api/v1/services', failures),
    optional(api, `${system}/deployments`, failures),
    optional(api, `${system}/daemonsets`, failures),
    optional(api, '/apis/gateway.networking.k8s.io/v1/gateways', failures),
    optional(api, '/apis/security.istio.io/v1/authorizationpolicies', failures),
  ]);
  const running = (app: string): KubeObject[] =>
    pods.filter(
      ({ metadata, status }) =>
        metadata.namespace === systemNamespace &&
        metadata.labels?.app === app &&
        (status as { phase?: string } | undefined)?.phase === 'Running',
    );
  const istiods = running('istiod');
  const syncz = (await Promise.all(istiods.map((pod) => ask<ProxySync[]>(api, pod, MONITORING_PORT, '/debug/syncz', failures)))).flatMap(
    (answer) => answer ?? [],
  );
  const first = istiods[0];
  const untranslated = first
    ? await ask<{ object: string; message: string }[]>(api, first, MONITORING_PORT, '/debug/problems', failures)
    : undefined;
  const proxies = (
    await Promise.all(istiods.map((pod) => ask<ProxyReport[]>(api, pod, MONITORING_PORT, '/debug/proxies', failures)))
  ).flatMap((answer) => answer ?? []);
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
    syncz,
    untranslated: untranslated ?? [],
    proxies,
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

const proxyPath = ({ metadata }: KubeObject, port: number, path: string): string =>
  `/api/v1/namespaces/${metadata.namespace}/pods/${metadata.name}:${port}/proxy${path}`;

async function ask<T>(api: KubeApi, pod: KubeObject, port: number, path: string, failures: string[]): Promise<T | undefined> {
  try {
    return await api.get<T>(proxyPath(pod, port, path));
  } catch (error) {
    failures.push(`${pod.metadata.name} did not answer ${path}: ${error instanceof Error ? error.message : error}`);
    return undefined;
  }
}
