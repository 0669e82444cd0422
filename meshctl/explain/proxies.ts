/** Where the proxies are that have to be asked, and how: each ztunnel by way of istiod. */
import { type KubeApi, KubeApiError, type KubeObject } from '../../common/client/kube-api.ts';
import type { InboundExplanation, OutboundExplanation } from '../../common/decision/explain.ts';
import type { RequestExplanation } from '../../common/decision/explain-http.ts';
import { CommandError } from '../command-error.ts';
import type { Istiod } from '../istiod.ts';
import type { Proxies } from './explanation.ts';

/** @throws {CommandError} where the pod does not run */
export async function placeOf(api: KubeApi, namespace: string, name: string): Promise<{ node: string; ip: string }> {
  let pod: KubeObject;
  try {
    pod = await api.get<KubeObject>(`/api/v1/namespaces/${namespace}/pods/${name}`);
  } catch (error) {
    if (error instanceof KubeApiError && error.status === 404)
      throw new CommandError(`there is no pod ${namespace}/${name} (NAMESPACE/POD, or -n)`);
    throw error;
  }
  const { nodeName } = (pod.spec ?? {}) as { nodeName?: string };
  const { podIP } = (pod.status ?? {}) as { podIP?: string };
  if (nodeName === undefined || podIP === undefined) throw new CommandError(`pod ${namespace}/${name} runs on no node yet`);
  return { node: nodeName, ip: podIP };
}

export async function proxiesOf(api: KubeApi, istiod: Istiod, systemNamespace: string): Promise<Proxies> {
  const ztunnels = await api.list<KubeObject>(`/api/v1/namespaces/${systemNamespace}/pods`, { labelSelector: 'app=ztunnel' });
  const idOn = (node: string): string => {
    const found = ztunnels.find(({ spec }) => (spec as { nodeName?: string } | undefined)?.nodeName === node);
    if (!found) throw new CommandError(`no ztunnel runs on node ${node}: nobody there knows what the mesh would do`);
    return `${found.metadata.name}.${found.metadata.namespace}`;
  };
  return {
    outbound: (node, { namespace, pod, host, port }) =>
      istiod.ofProxy<OutboundExplanation & { captured: boolean }>('/debug/proxy/outbound', idOn(node), 'GET', {
        namespace,
        pod,
        host,
        port: String(port),
      }),
    request: ({ name, namespace }, { headers, ...call }) =>
      // Headers may have tokens, which belong into no URL.
      istiod.ofProxy<RequestExplanation>('/debug/proxy/request', `${name}.${namespace}`, 'POST', {}, { ...call, headers }),
    inbound: (node, call) =>
      istiod.ofProxy<InboundExplanation & { captured: boolean }>('/debug/proxy/inbound', idOn(node), 'GET', { ...call }),
  };
}
