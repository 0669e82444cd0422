/** The pods that no node agent tells about: a dedicated proxy's one workload, and a node's proxy itself (Istio's ztunnel, src/proxyfactory.rs). */
import type { PodSpec } from '../protocol.ts';
import type { ZtunnelSettings } from '../settings.ts';

type OwnSettings = Pick<ZtunnelSettings, 'mode' | 'workload' | 'podName' | 'podNamespace' | 'serviceAccount'>;

export function ownPods({ mode, workload, podName: name, podNamespace: namespace, serviceAccount }: OwnSettings): PodSpec[] {
  if (mode === 'dedicated') return workload ? [{ uid: 'dedicated', info: workload, netnsFd: undefined, kind: 'pod' }] : [];
  if (name === '' || namespace === '' || serviceAccount === '') return [];
  return [{ uid: 'self', info: { name, namespace, serviceAccount }, netnsFd: undefined, kind: 'self' }];
}
