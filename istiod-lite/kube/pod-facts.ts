/** What node authorisation looks at, out of a pod as the API server sent it. */
import type { KubeObject } from '../../common/client/kube-api.ts';
import type { PodFacts } from '../access/node-authorizer.ts';
import { at, text } from '../model/objects.ts';

export const podFacts = (pod: KubeObject): PodFacts => ({
  namespace: pod.metadata.namespace ?? '',
  name: pod.metadata.name ?? '',
  uid: pod.metadata.uid ?? '',
  serviceAccount: text(at(pod, 'spec', 'serviceAccountName')) || 'default',
  node: text(at(pod, 'spec', 'nodeName')),
  failed: at(pod, 'status', 'phase') === 'Failed',
});
