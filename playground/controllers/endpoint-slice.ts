/** EndpointSlices of Services with a selector: one slice for each address family and each set of target ports, kept up to date pod by pod. */
import { createHash } from 'node:crypto';
import { isIpv6 } from '../../common/base/address.ts';
import { keyOf } from '../cluster/collections.ts';
import type { EndpointSlice, Node, Pod, Service, SliceEndpoint } from '../objects.ts';
import { type Controller, type ControllerOptions, sameContent, splitKey } from './controller.ts';
import { isReady, isTerminating, ownerReference, selectsByPairs } from './pods.ts';
import { WorkQueue } from './work-queue.ts';

const MANAGED_BY = 'endpointslice-controller.k8s.io';
const SERVICE_NAME = 'kubernetes.io/service-name';
const MANAGED_LABEL = 'endpointslice.kubernetes.io/managed-by';
const HEADLESS_LABEL = 'service.kubernetes.io/headless';

export const endpointSliceController: Controller = (options) => {
  const { cluster } = options;
  const queue = new WorkQueue({ ...options, name: 'endpointslice', reconcile: (key) => reconcile(key, options) });
  const lastLabels = new Map<string, Readonly<Record<string, string>>>();
  const stops = [
    cluster.services.watch(({ object }) => queue.add(keyOf(object))),
    cluster.pods.watch(({ type, object }) => {
      const uid = object.metadata.uid ?? '';
      const labels = [object.metadata.labels ?? {}, lastLabels.get(uid) ?? {}];
      if (type === 'deleted') lastLabels.delete(uid);
      else lastLabels.set(uid, object.metadata.labels ?? {});
      for (const service of cluster.services.list(object.metadata.namespace)) {
        if (labels.some((some) => selectsByPairs(service.spec.selector, some))) queue.add(keyOf(service));
      }
    }),
  ];
  return () => {
    for (const stop of stops) stop();
    queue.close();
  };
};

async function reconcile(key: string, { cluster }: ControllerOptions): Promise<void> {
  const [namespace, name] = splitKey(key);
  const service = cluster.services.get(namespace, name);
  const own = cluster.endpointSlices
    .list(namespace)
    .filter(({ metadata }) => metadata.labels?.[SERVICE_NAME] === name && metadata.labels[MANAGED_LABEL] === MANAGED_BY);
  // Without a selector the slices are somebody else's.
  const selector = service?.spec.selector;
  const wanted =
    service && !service.metadata.deletionTimestamp && selector && Object.keys(selector).length > 0 && service.spec.type !== 'ExternalName'
      ? slicesFor(service, cluster.pods.list(namespace), cluster.nodes.list())
      : [];
  for (const slice of wanted) {
    const before = own.find(({ metadata }) => metadata.name === slice.metadata.name);
    if (!before) await cluster.endpointSlices.create(slice);
    else {
      await cluster.endpointSlices.modify(namespace, slice.metadata.name, (draft) => {
        if (sameContent([draft.endpoints, draft.ports, draft.metadata.labels], [slice.endpoints, slice.ports, slice.metadata.labels]))
          return false;
        draft.endpoints = slice.endpoints ?? [];
        draft.ports = slice.ports ?? [];
        draft.metadata.labels = { ...slice.metadata.labels };
        return true;
      });
    }
  }
  for (const { metadata } of own) {
    if (!wanted.some((slice) => slice.metadata.name === metadata.name))
      await cluster.endpointSlices.delete(namespace, metadata.name, { uid: metadata.uid });
  }
}

/** Pure. Names are made from content, so that the same slice is found again. */
export function slicesFor(service: Service, pods: readonly Pod[], nodes: readonly Node[]): EndpointSlice[] {
  const families = (service.spec.ipFamilies ?? ['IPv4']).filter((family) => family === 'IPv4' || family === 'IPv6');
  const chosen = pods.filter(
    (pod) =>
      selectsByPairs(service.spec.selector, pod.metadata.labels) &&
      pod.status?.phase !== 'Succeeded' &&
      pod.status?.phase !== 'Failed' &&
      pod.status?.podIPs?.length,
  );
  return families.flatMap((family) => {
    const groups = new Map<string, { ports: NonNullable<EndpointSlice['ports']>; endpoints: SliceEndpoint[] }>();
    for (const pod of chosen) {
      const address = pod.status?.podIPs?.map(({ ip }) => ip).find((ip) => isIpv6(ip) === (family === 'IPv6'));
      if (address === undefined) continue;
      const ports = targetPorts(service, pod);
      const key = JSON.stringify(ports);
      const group = groups.get(key) ?? { ports, endpoints: [] };
      group.endpoints.push(endpointOf(service, pod, address, nodes));
      groups.set(key, group);
    }
    // A service without pods has an empty slice, as in Kubernetes.
    if (groups.size === 0) groups.set('', { ports: [], endpoints: [] });
    return [...groups].map(([key, { ports, endpoints }]) => sliceOf(service, family, key, ports, endpoints));
  });
}

function sliceOf(
  service: Service,
  family: 'IPv4' | 'IPv6',
  key: string,
  ports: NonNullable<EndpointSlice['ports']>,
  endpoints: SliceEndpoint[],
): EndpointSlice {
  const suffix = createHash('sha256').update(`${family} ${key}`).digest('hex').slice(0, 5);
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      name: `${service.metadata.name}-${suffix}`,
      namespace: service.metadata.namespace ?? '',
      labels: {
        ...service.metadata.labels,
        [SERVICE_NAME]: service.metadata.name,
        [MANAGED_LABEL]: MANAGED_BY,
        ...(service.spec.clusterIP === 'None' ? { [HEADLESS_LABEL]: '' } : {}),
      },
      ownerReferences: [ownerReference(service)],
    },
    addressType: family,
    endpoints: endpoints.sort((a, b) => ((a.addresses[0] ?? '') < (b.addresses[0] ?? '') ? -1 : 1)),
    ports,
  };
}

function targetPorts(service: Service, pod: Pod): NonNullable<EndpointSlice['ports']> {
  return (service.spec.ports ?? []).flatMap(({ name = '', port, protocol = 'TCP', targetPort = port, appProtocol }) => {
    const containers = [
      ...pod.spec.containers,
      ...(pod.spec.initContainers ?? []).filter(({ restartPolicy }) => restartPolicy === 'Always'),
    ];
    const number =
      typeof targetPort === 'number'
        ? targetPort
        : containers
            .flatMap(({ ports = [] }) => ports)
            .find((candidate) => candidate.name === targetPort && (candidate.protocol ?? 'TCP') === protocol)?.containerPort;
    return number === undefined ? [] : [{ name, port: number, protocol, ...(appProtocol === undefined ? {} : { appProtocol }) }];
  });
}

function endpointOf(service: Service, pod: Pod, address: string, nodes: readonly Node[]): SliceEndpoint {
  const serving = isReady(pod);
  const terminating = isTerminating(pod);
  const ready = service.spec.publishNotReadyAddresses === true || (serving && !terminating);
  const zone = nodes.find(({ metadata }) => metadata.name === pod.spec.nodeName)?.metadata.labels?.['topology.kubernetes.io/zone'];
  const named = pod.spec.hostname !== undefined && pod.spec.subdomain === service.metadata.name;
  return {
    addresses: [address],
    conditions: { ready, serving: serving || service.spec.publishNotReadyAddresses === true, terminating },
    ...(named && pod.spec.hostname !== undefined ? { hostname: pod.spec.hostname } : {}),
    ...(pod.spec.nodeName === undefined ? {} : { nodeName: pod.spec.nodeName }),
    ...(zone === undefined ? {} : { zone }),
    targetRef: { kind: 'Pod', namespace: pod.metadata.namespace ?? '', name: pod.metadata.name, uid: pod.metadata.uid ?? '' },
  };
}
