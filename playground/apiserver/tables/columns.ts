/** The columns of the built-in kinds, after Kubernetes' own. A table: one entry per kind, one line per column. */
import { arrayOf, at, isObject, objectOf, stringOf } from '../json.ts';
import type { KubeObject } from '../object.ts';
import { formatLabelSelector } from '../selectors.ts';
import { age, humanDuration } from './duration.ts';
import { podStatus } from './pod-status.ts';

export interface Column {
  readonly name: string;
  readonly type?: string;
  readonly format?: string;
  readonly description?: string;
  readonly priority?: number;
  readonly cell: (object: KubeObject, now: number) => unknown;
}

type Cell = Column['cell'];

const text = (name: string, cell: Cell): Column => ({ name, cell });
const wide = (name: string, cell: Cell): Column => ({ name, cell, priority: 1 });
const integer = (name: string, cell: Cell): Column => ({ name, type: 'integer', cell });

const name: Column = { name: 'Name', format: 'name', cell: (object) => object.metadata.name };
const created: Column = { name: 'Age', cell: (object, now) => age(object.metadata.creationTimestamp, now) };

const or = (value: unknown, fallback: string): string => (value === undefined || value === null || value === '' ? fallback : String(value));
const field =
  (...path: string[]): Cell =>
  (object) =>
    or(at(object, ...path), '');
const number =
  (...path: string[]): Cell =>
  (object) =>
    Number(at(object, ...path) ?? 0);
const size =
  (...path: string[]): Cell =>
  (object) => {
    const value = at(object, ...path);
    return Array.isArray(value) ? value.length : Object.keys(objectOf(value)).length;
  };
const templateContainers = (object: KubeObject): readonly unknown[] => arrayOf(at(object, 'spec', 'template', 'spec', 'containers'));
const containerNames: Cell = (object) =>
  templateContainers(object)
    .map((container) => stringOf(at(container, 'name')))
    .join(',');
const images: Cell = (object) =>
  templateContainers(object)
    .map((container) => stringOf(at(container, 'image')))
    .join(',');
const selector: Cell = (object) => or(formatLabelSelector(at(object, 'spec', 'selector')), '<none>');
const pairs = (value: unknown): string =>
  Object.entries(objectOf(value))
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, item]) => `${key}=${stringOf(item)}`)
    .join(',');

export const builtInColumns: ReadonlyMap<string, readonly Column[]> = new Map<string, readonly Column[]>([
  [
    'Pod.',
    [
      name,
      text('Ready', (pod) => {
        const { ready, total } = podStatus(pod);
        return `${ready}/${total}`;
      }),
      text('Status', (pod) => podStatus(pod).reason),
      text('Restarts', (pod, now) => {
        const { restarts, lastRestart } = podStatus(pod);
        return lastRestart === undefined || restarts === 0 ? String(restarts) : `${restarts} (${humanDuration(now - lastRestart)} ago)`;
      }),
      created,
      wide('IP', (pod) => or(at(pod, 'status', 'podIP'), '<none>')),
      wide('Node', (pod) => or(at(pod, 'spec', 'nodeName'), '<none>')),
      wide('Nominated Node', (pod) => or(at(pod, 'status', 'nominatedNodeName'), '<none>')),
      wide('Readiness Gates', () => '<none>'),
    ],
  ],
  [
    'Service.',
    [
      name,
      text('Type', field('spec', 'type')),
      text('Cluster-IP', (service) => or(at(service, 'spec', 'clusterIP'), '<none>')),
      text('External-IP', externalIp),
      text('Port(s)', (service) =>
        or(
          arrayOf(at(service, 'spec', 'ports'))
            .map(servicePort)
            .join(','),
          '<none>',
        ),
      ),
      created,
      wide('Selector', (service) => or(pairs(at(service, 'spec', 'selector')), '<none>')),
    ],
  ],
  [
    'Deployment.apps',
    [
      name,
      text('Ready', (object) => `${number('status', 'readyReplicas')(object, 0)}/${number('spec', 'replicas')(object, 0)}`),
      integer('Up-to-date', number('status', 'updatedReplicas')),
      integer('Available', number('status', 'availableReplicas')),
      created,
      wide('Containers', containerNames),
      wide('Images', images),
      wide('Selector', selector),
    ],
  ],
  [
    'ReplicaSet.apps',
    [
      name,
      integer('Desired', number('spec', 'replicas')),
      integer('Current', number('status', 'replicas')),
      integer('Ready', number('status', 'readyReplicas')),
      created,
      wide('Containers', containerNames),
      wide('Images', images),
      wide('Selector', selector),
    ],
  ],
  [
    'DaemonSet.apps',
    [
      name,
      integer('Desired', number('status', 'desiredNumberScheduled')),
      integer('Current', number('status', 'currentNumberScheduled')),
      integer('Ready', number('status', 'numberReady')),
      integer('Up-to-date', number('status', 'updatedNumberScheduled')),
      integer('Available', number('status', 'numberAvailable')),
      text('Node Selector', (object) => or(pairs(at(object, 'spec', 'template', 'spec', 'nodeSelector')), '<none>')),
      created,
      wide('Containers', containerNames),
      wide('Images', images),
      wide('Selector', selector),
    ],
  ],
  [
    'StatefulSet.apps',
    [
      name,
      text('Ready', (object) => `${number('status', 'readyReplicas')(object, 0)}/${number('spec', 'replicas')(object, 0)}`),
      created,
      wide('Containers', containerNames),
      wide('Images', images),
    ],
  ],
  [
    'Job.batch',
    [
      name,
      text('Status', (job) => jobStatus(job)),
      text('Completions', (job) => `${number('status', 'succeeded')(job, 0)}/${or(at(job, 'spec', 'completions'), '1')}`),
      text('Duration', (job, now) => {
        const start = Date.parse(stringOf(at(job, 'status', 'startTime')));
        const end = Date.parse(stringOf(at(job, 'status', 'completionTime')));
        return Number.isNaN(start) ? '' : humanDuration((Number.isNaN(end) ? now : end) - start);
      }),
      created,
      wide('Containers', containerNames),
      wide('Images', images),
      wide('Selector', selector),
    ],
  ],
  [
    'Node.',
    [
      name,
      text('Status', (node) => {
        const ready = condition(node, 'Ready') === 'True' ? 'Ready' : 'NotReady';
        return at(node, 'spec', 'unschedulable') === true ? `${ready},SchedulingDisabled` : ready;
      }),
      text('Roles', (node) => {
        const prefix = 'node-role.kubernetes.io/';
        const roles = Object.keys(node.metadata.labels ?? {})
          .filter((label) => label.startsWith(prefix))
          .map((label) => label.slice(prefix.length));
        return or(roles.sort().join(','), '<none>');
      }),
      created,
      text('Version', field('status', 'nodeInfo', 'kubeletVersion')),
      wide('Internal-IP', (node) => nodeAddress(node, 'InternalIP')),
      wide('External-IP', (node) => nodeAddress(node, 'ExternalIP')),
      wide('OS-Image', (node) => or(at(node, 'status', 'nodeInfo', 'osImage'), '<unknown>')),
      wide('Kernel-Version', (node) => or(at(node, 'status', 'nodeInfo', 'kernelVersion'), '<unknown>')),
      wide('Container-Runtime', (node) => or(at(node, 'status', 'nodeInfo', 'containerRuntimeVersion'), '<unknown>')),
    ],
  ],
  ['Namespace.', [name, text('Status', field('status', 'phase')), created]],
  ['ConfigMap.', [name, integer('Data', (map) => Number(size('data')(map, 0)) + Number(size('binaryData')(map, 0))), created]],
  ['Secret.', [name, text('Type', field('type')), integer('Data', size('data')), created]],
  ['ServiceAccount.', [name, integer('Secrets', size('secrets')), created]],
  ['Lease.coordination.k8s.io', [name, text('Holder', field('spec', 'holderIdentity')), created]],
  ['Endpoints.', [name, text('Endpoints', endpoints), created]],
  [
    'EndpointSlice.discovery.k8s.io',
    [
      name,
      text('AddressType', field('addressType')),
      text('Ports', (slice) =>
        limited(
          arrayOf(slice.ports).map((port) => or(at(port, 'port'), '*')),
          '<unset>',
        ),
      ),
      text('Endpoints', (slice) =>
        limited(
          arrayOf(slice.endpoints).flatMap((endpoint) => arrayOf(at(endpoint, 'addresses')).map(stringOf)),
          '<unset>',
        ),
      ),
      created,
    ],
  ],
  [
    'Event.',
    [
      text('Last Seen', (event, now) => {
        const time = at(event, 'series', 'lastObservedTime') ?? event.lastTimestamp ?? event.eventTime ?? event.metadata.creationTimestamp;
        return age(time, now);
      }),
      text('Type', field('type')),
      text('Reason', field('reason')),
      text(
        'Object',
        (event) => `${stringOf(at(event, 'involvedObject', 'kind')).toLowerCase()}/${stringOf(at(event, 'involvedObject', 'name'))}`,
      ),
      wide('Subobject', field('involvedObject', 'fieldPath')),
      wide('Source', (event) => [at(event, 'source', 'component'), at(event, 'source', 'host')].filter(Boolean).join(', ')),
      text('Message', (event) => stringOf(event.message).trim()),
      wide('First Seen', (event, now) => age(event.firstTimestamp ?? event.metadata.creationTimestamp, now)),
      wide('Count', (event) => or(event.count, '1')),
      { ...name, priority: 1 },
    ],
  ],
  ['CustomResourceDefinition.apiextensions.k8s.io', [name, text('Created At', (object) => stringOf(object.metadata.creationTimestamp))]],
  ['ValidatingWebhookConfiguration.admissionregistration.k8s.io', [name, integer('Webhooks', size('webhooks')), created]],
  ['MutatingWebhookConfiguration.admissionregistration.k8s.io', [name, integer('Webhooks', size('webhooks')), created]],
  ['Role.rbac.authorization.k8s.io', [name, text('Created At', (object) => stringOf(object.metadata.creationTimestamp))]],
  ['ClusterRole.rbac.authorization.k8s.io', [name, text('Created At', (object) => stringOf(object.metadata.creationTimestamp))]],
  ['RoleBinding.rbac.authorization.k8s.io', [name, text('Role', roleName), created]],
  ['ClusterRoleBinding.rbac.authorization.k8s.io', [name, text('Role', roleName), created]],
  [
    'NetworkPolicy.networking.k8s.io',
    [name, text('Pod-Selector', (object) => or(formatLabelSelector(at(object, 'spec', 'podSelector')), '<none>')), created],
  ],
  [
    'HorizontalPodAutoscaler.autoscaling',
    [
      name,
      text(
        'Reference',
        (object) => `${stringOf(at(object, 'spec', 'scaleTargetRef', 'kind'))}/${stringOf(at(object, 'spec', 'scaleTargetRef', 'name'))}`,
      ),
      text('MinPods', (object) => or(at(object, 'spec', 'minReplicas'), '<unset>')),
      integer('MaxPods', number('spec', 'maxReplicas')),
      integer('Replicas', number('status', 'currentReplicas')),
      created,
    ],
  ],
  [
    'PodDisruptionBudget.policy',
    [
      name,
      text('Min Available', (object) => or(at(object, 'spec', 'minAvailable'), 'N/A')),
      text('Max Unavailable', (object) => or(at(object, 'spec', 'maxUnavailable'), 'N/A')),
      integer('Allowed Disruptions', number('status', 'disruptionsAllowed')),
      created,
    ],
  ],
]);

function externalIp(service: KubeObject): string {
  const spec = objectOf(service.spec);
  if (spec.type === 'ExternalName') return or(spec.externalName, '<none>');
  const ingress = arrayOf(at(service, 'status', 'loadBalancer', 'ingress')).map((item) => or(at(item, 'ip'), or(at(item, 'hostname'), '')));
  const addresses = [...ingress, ...arrayOf(spec.externalIPs).map(stringOf)];
  return or(addresses.join(','), spec.type === 'LoadBalancer' ? '<pending>' : '<none>');
}

function servicePort(port: unknown): string {
  const { port: number, nodePort, protocol } = objectOf(port);
  return nodePort ? `${String(number)}:${String(nodePort)}/${String(protocol)}` : `${String(number)}/${String(protocol)}`;
}

function endpoints(object: KubeObject): string {
  const addresses = arrayOf(object.subsets).flatMap((subset) => {
    const ports = arrayOf(at(subset, 'ports')).map((port) => at(port, 'port'));
    return arrayOf(at(subset, 'addresses')).flatMap((address) => {
      const ip = stringOf(at(address, 'ip'));
      return ports.length === 0 ? [ip] : ports.map((port) => `${ip}:${String(port)}`);
    });
  });
  return limited(addresses, '<none>');
}

function limited(items: readonly string[], none: string): string {
  if (items.length === 0) return none;
  return items.length <= 3 ? items.join(',') : `${items.slice(0, 3).join(',')} + ${items.length - 3} more...`;
}

function condition(object: KubeObject, type: string): unknown {
  return at(
    arrayOf(at(object, 'status', 'conditions')).find((item) => at(item, 'type') === type),
    'status',
  );
}

function jobStatus(job: KubeObject): string {
  if (condition(job, 'Complete') === 'True') return 'Complete';
  if (condition(job, 'Failed') === 'True') return 'Failed';
  return job.metadata.deletionTimestamp ? 'Terminating' : 'Running';
}

function nodeAddress(node: KubeObject, type: string): string {
  const found = arrayOf(at(node, 'status', 'addresses')).find((address) => isObject(address) && address.type === type);
  return or(at(found, 'address'), '<none>');
}

function roleName(binding: KubeObject): string {
  return `${stringOf(at(binding, 'roleRef', 'kind'))}/${stringOf(at(binding, 'roleRef', 'name'))}`;
}
