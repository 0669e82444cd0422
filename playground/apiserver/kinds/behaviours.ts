/** Which behaviour each built-in kind has, by `Kind.group`. */
import type { Behaviour } from './behaviour.ts';
import { customResourceDefinitionBehaviour } from './custom-resource-definition.ts';
import {
  configMapBehaviour,
  endpointSliceBehaviour,
  leaseBehaviour,
  namespaceBehaviour,
  secretBehaviour,
  webhookBehaviour,
} from './plain.ts';
import { podBehaviour } from './pod.ts';
import { serviceBehaviour } from './service.ts';
import { cronJobBehaviour, workloadBehaviour } from './workloads.ts';

const always = { restartPolicies: ['Always'], selector: true };
const once = { restartPolicies: ['OnFailure', 'Never'], selector: false };

export const builtInBehaviours: ReadonlyMap<string, Behaviour> = new Map([
  ['Pod.', podBehaviour],
  ['Service.', serviceBehaviour],
  ['Secret.', secretBehaviour],
  ['ConfigMap.', configMapBehaviour],
  ['Namespace.', namespaceBehaviour],
  ['Deployment.apps', workloadBehaviour(always)],
  ['ReplicaSet.apps', workloadBehaviour(always)],
  ['DaemonSet.apps', workloadBehaviour(always)],
  ['StatefulSet.apps', workloadBehaviour(always)],
  ['Job.batch', workloadBehaviour(once)],
  ['CronJob.batch', cronJobBehaviour],
  ['CustomResourceDefinition.apiextensions.k8s.io', customResourceDefinitionBehaviour],
  ['EndpointSlice.discovery.k8s.io', endpointSliceBehaviour],
  ['Lease.coordination.k8s.io', leaseBehaviour],
  ['ValidatingWebhookConfiguration.admissionregistration.k8s.io', webhookBehaviour],
  ['MutatingWebhookConfiguration.admissionregistration.k8s.io', webhookBehaviour],
]);
