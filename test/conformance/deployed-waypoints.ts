/**
 * What was recorded of the objects that a waypoint's Gateway becomes, beside what ours becomes: names, labels, annotations, owner, ports,
 * accounts, scaling and the pod's rights. Which image runs, with which arguments, environment and volumes, is each mesh's own.
 */
import type { KubeObject } from '../../common/client/kube-api.ts';
import { readParameters } from '../../istiod-lite/gateway/parameters.ts';
import { isDeployed, MANAGED, renderWaypoint } from '../../istiod-lite/gateway/render.ts';

const TWO_REPLICAS_RULE = 'waypoints get two replicas';

type Json = Record<string, unknown>;

const options = {
  image: 'warren/waypoint',
  discoveryAddress: 'istiod.istio-system.svc:15012',
  clusterId: 'Kubernetes',
  trustDomain: 'cluster.local',
  revision: 'default',
};

/** Name and essence of each object, as ours are and as they were recorded. @param applied gets the rules that changed an expectation */
export function deployedObjects(cluster: readonly KubeObject[], applied: Set<string>, network = ''): { ours: Json; recorded: Json } {
  const find = (key: string): KubeObject | undefined =>
    cluster.find(({ kind, metadata }) => kind === 'ConfigMap' && `${metadata.namespace}/${metadata.name}` === key);
  const rendered = cluster
    .filter((object) => object.kind === 'Gateway' && isDeployed(object, 'default'))
    .flatMap((gateway) => {
      const parameters = readParameters(gateway, [], find);
      return 'problem' in parameters ? [] : renderWaypoint(gateway, { ...options, network }, parameters.overlays);
    });
  const recorded = cluster.filter(
    ({ kind = '', metadata }) =>
      metadata.labels?.['gateway.istio.io/managed'] === MANAGED && kind !== 'Gateway' && Object.hasOwn(ESSENCE, kind),
  );
  const budgets = new Set(recorded.filter(({ kind }) => kind === 'PodDisruptionBudget').map(keyOf));
  return {
    ours: Object.fromEntries(
      rendered
        .filter((object) => {
          const added = object.kind === 'PodDisruptionBudget' && !budgets.has(keyOf(object));
          if (added) applied.add(TWO_REPLICAS_RULE);
          return !added;
        })
        .map((object) => [keyOf(object), essence(object)]),
    ),
    recorded: Object.fromEntries(recorded.map((object) => [keyOf(object), withTwoReplicas(object, essence(object), applied)])),
  };
}

const keyOf = ({ kind, metadata }: KubeObject): string => `${kind} ${metadata.namespace}/${metadata.name}`;

/** Istio leaves the number to the API server, which makes it one. */
function withTwoReplicas({ kind }: KubeObject, recorded: Json, applied: Set<string>): Json {
  if (kind !== 'Deployment' || recorded.replicas !== 1) return recorded;
  applied.add(TWO_REPLICAS_RULE);
  return { ...recorded, replicas: 2 };
}

const ESSENCE: Readonly<Record<string, (spec: Json) => Json>> = {
  ServiceAccount: () => ({}),
  Deployment: ({ replicas, selector, template }) => ({ replicas, selector, pod: pod(template as KubeObject) }),
  Service: ({ selector, type, ipFamilyPolicy, sessionAffinity = 'None', ports }) => ({
    selector,
    type,
    ipFamilyPolicy,
    sessionAffinity,
    ports: (ports as readonly Json[]).map(({ name, port, protocol, appProtocol }) => ({ name, port, protocol, appProtocol })),
  }),
  HorizontalPodAutoscaler: ({ scaleTargetRef, minReplicas, maxReplicas }) => ({ scaleTargetRef, minReplicas, maxReplicas }),
  PodDisruptionBudget: ({ minAvailable, maxUnavailable, selector }) => ({ minAvailable, maxUnavailable, selector }),
};

function essence({ kind = '', metadata, spec = {} }: KubeObject): Json {
  const { 'deployment.kubernetes.io/revision': _counted, ...annotations } = metadata.annotations ?? {};
  const owners = (metadata.ownerReferences ?? []).map(({ apiVersion, kind: owner, name, uid }) => ({ apiVersion, kind: owner, name, uid }));
  return { labels: metadata.labels, annotations, owners, ...ESSENCE[kind]?.(spec as Json) };
}

interface Container {
  readonly name: string;
  readonly ports: readonly { name: string; containerPort: number }[];
  readonly securityContext: Json;
  readonly resources: Json;
  readonly startupProbe: Probe;
  readonly readinessProbe: Probe;
}
interface Probe {
  readonly httpGet: { readonly path: string; readonly port: number };
}

function pod({ metadata, spec }: KubeObject): Json {
  const { containers, serviceAccountName, terminationGracePeriodSeconds, volumes } = spec as {
    containers: readonly Container[];
    serviceAccountName: string;
    terminationGracePeriodSeconds: number;
    volumes: readonly { projected?: { sources: readonly { serviceAccountToken?: Json }[] } }[];
  };
  const probe = ({ httpGet: { path, port } }: Probe): string => `${port}${path}`;
  return {
    labels: metadata.labels,
    annotations: metadata.annotations,
    serviceAccountName,
    terminationGracePeriodSeconds,
    token: volumes.flatMap(({ projected }) => projected?.sources ?? []).flatMap(({ serviceAccountToken }) => serviceAccountToken ?? []),
    containers: containers.map(({ name, ports, securityContext, resources, startupProbe, readinessProbe }) => ({
      name,
      // 15090 is Envoy's own page, 15008 a port that Istio does not list.
      ports: ports
        .filter(({ containerPort }) => containerPort === 15020 || containerPort === 15021)
        .map((port) => `${port.containerPort} ${port.name}`),
      securityContext,
      resources,
      probes: [probe(startupProbe), probe(readinessProbe)],
    })),
  };
}
