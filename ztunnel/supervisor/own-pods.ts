/** The pods that no node agent tells about: a dedicated proxy's one workload, and a node's proxy itself (Istio's ztunnel, src/proxyfactory.rs). */
import type { PodSpec } from '../protocol.ts';
import type { ZtunnelSettings } from '../settings.ts';
import { sharedGathering } from '../worker/gathering.ts';

type OwnSettings = Pick<ZtunnelSettings, 'mode' | 'workload' | 'podName' | 'podNamespace' | 'serviceAccount'>;

export function ownPods({ mode, workload, podName: name, podNamespace: namespace, serviceAccount }: OwnSettings): PodSpec[] {
  const common = { netnsFd: undefined, gathering: sharedGathering() };
  if (mode === 'dedicated') return workload ? [{ ...common, uid: 'dedicated', info: workload, kind: 'pod' }] : [];
  if (name === '' || namespace === '' || serviceAccount === '') return [];
  return [{ ...common, uid: 'self', info: { name, namespace, serviceAccount }, kind: 'self' }];
}
