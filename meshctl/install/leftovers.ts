/**
 * What a mesh leaves in a cluster beside its own objects: what istiod deployed for waypoints, the root certificate in every namespace, its
 * Secret and Lease. And what users wrote, which stays unless they say otherwise.
 */
import { type KubeApi, KubeApiError, type KubeObject } from '../../common/client/kube-api.ts';
import { DATAPLANE_MODE, enrolledPods, REDIRECTION } from '../status/enrolment.ts';
import { plural } from '../terminal.ts';
import { DEFINITION, DEFINITIONS_PATH, OWN_DEFINITION } from './kinds.ts';

export interface PurgeOptions {
  /** Our definitions of Istio's kinds, and with them every object of these kinds. */
  readonly purgeCrds: boolean;
  /** The mesh's labels on namespaces and Services. */
  readonly purgeLabels: boolean;
  /** Gateways of the class istio-waypoint. */
  readonly purgeGateways: boolean;
}

export interface Leftover {
  readonly title: string;
  readonly path: string;
  /** Where only a part of the object goes: a merge patch. */
  readonly patch?: object;
}

type ListApi = Pick<KubeApi, 'list'>;

const MANAGED = 'gateway.istio.io/managed=istio.io-mesh-controller';
/** What istiod writes into every namespace. */
const DISTRIBUTED = ['istio-ca-root-cert', 'istio-ca-crl'];
const USE_WAYPOINT = 'istio.io/use-waypoint';
const WAYPOINT_CLASS = 'istio-waypoint';
const MESH_CONTROLLER = 'istio.io/mesh-controller';
const GATEWAY_API = '/apis/gateway.networking.k8s.io/v1';

/** Made for waypoints; the Deployment first, so that nothing comes back. */
const DEPLOYED = [
  ['Deployment', '/apis/apps/v1', 'deployments'],
  ['HorizontalPodAutoscaler', '/apis/autoscaling/v2', 'horizontalpodautoscalers'],
  ['PodDisruptionBudget', '/apis/policy/v1', 'poddisruptionbudgets'],
  ['Service', '/api/v1', 'services'],
  ['ServiceAccount', '/api/v1', 'serviceaccounts'],
] as const;

/** In the order in which they go. Only once istiod is gone: it makes them anew. */
export async function leftovers(
  api: ListApi,
  namespace: string,
  purge: PurgeOptions & { readonly staleAnnotations: boolean },
): Promise<Leftover[]> {
  const gateways = (await listed(api, `${GATEWAY_API}/gateways`)).filter(({ spec }) => classOf(spec) === WAYPOINT_CLASS);
  const classes = (await listed(api, `${GATEWAY_API}/gatewayclasses`)).filter(
    ({ metadata, spec }) => metadata.name === WAYPOINT_CLASS && (spec as { controllerName?: string }).controllerName === MESH_CONTROLLER,
  );
  const deployed: Leftover[] = [];
  for (const [kind, root, plural] of DEPLOYED) {
    const found = await listed(api, `${root}/${plural}`, { labelSelector: MANAGED });
    deployed.push(...found.map((object) => leftover(kind, object, root, plural)));
  }
  const roots: KubeObject[] = [];
  for (const name of DISTRIBUTED) {
    const found = await listed(api, '/api/v1/configmaps', { fieldSelector: `metadata.name=${name}` });
    // A ConfigMap of the same name without istiod's label is somebody else's.
    roots.push(...found.filter(({ metadata }) => metadata.name === name && metadata.labels?.['istio.io/config'] === 'true'));
  }
  const secrets = (await listed(api, `/api/v1/namespaces/${namespace}/secrets`)).filter(({ type }) => type === 'istio.io/ca-root');
  const leases = (await listed(api, `/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases`)).filter(({ metadata }) =>
    (metadata.name ?? '').startsWith('istio-'),
  );
  return [
    ...(purge.purgeGateways ? gateways.map((object) => leftover('Gateway', object, GATEWAY_API, 'gateways')) : []),
    ...deployed,
    ...classes.map((object) => leftover('GatewayClass', object, GATEWAY_API, 'gatewayclasses')),
    ...roots.map((object) => leftover('ConfigMap', object, '/api/v1', 'configmaps')),
    ...secrets.map((object) => leftover('Secret', object, '/api/v1', 'secrets')),
    ...leases.map((object) => leftover('Lease', object, '/apis/coordination.k8s.io/v1', 'leases')),
    ...(purge.staleAnnotations ? await annotations(api) : []),
    ...(purge.purgeLabels ? await labels(api) : []),
    ...(purge.purgeCrds ? await ourDefinitions(api) : await unusedDefinitions(api)).map(({ metadata: { name } }) => ({
      title: `CustomResourceDefinition ${name}`,
      path: `${DEFINITIONS_PATH}/${name}`,
    })),
  ];
}

function leftover(kind: string, { metadata }: KubeObject, root: string, plural: string): Leftover {
  const { namespace, name } = metadata;
  const scope = namespace === undefined ? '' : `/namespaces/${namespace}`;
  return { title: `${kind} ${namespace === undefined ? '' : `${namespace}/`}${name}`, path: `${root}${scope}/${plural}/${name}` };
}

const classOf = (spec: unknown): string | undefined => (spec as { gatewayClassName?: string } | undefined)?.gatewayClassName;

async function labels(api: ListApi): Promise<Leftover[]> {
  const ours = [DATAPLANE_MODE, USE_WAYPOINT, `${USE_WAYPOINT}-namespace`];
  const found: Leftover[] = [];
  for (const [kind, plural] of [
    ['Namespace', 'namespaces'],
    ['Service', 'services'],
  ] as const) {
    for (const object of await listed(api, `/api/v1/${plural}`)) {
      const present = ours.filter((label) => object.metadata.labels?.[label] !== undefined);
      if (present.length === 0) continue;
      const { title, path } = leftover(kind, object, '/api/v1', plural);
      found.push({
        title: `${present.join(', ')} of ${title}`,
        path,
        patch: { metadata: { labels: Object.fromEntries(present.map((label) => [label, null])) } },
      });
    }
  }
  return found;
}

/** An agent that lost its rights before it ended took its rules away and could not say so. */
async function annotations(api: ListApi): Promise<Leftover[]> {
  return enrolledPods(await listed(api, '/api/v1/pods')).map((pod) => {
    const { title, path } = leftover('Pod', pod, '/api/v1', 'pods');
    return { title: `${REDIRECTION} of ${title}`, path: `${path}/status`, patch: { metadata: { annotations: { [REDIRECTION]: null } } } };
  });
}

const ourDefinitions = (api: ListApi): Promise<KubeObject[]> => listed(api, DEFINITIONS_PATH, { labelSelector: DEFINITION });

/** Of Warren's own kinds: those that nobody has written anything of. */
async function unusedDefinitions(api: ListApi): Promise<KubeObject[]> {
  const own = (await ourDefinitions(api)).filter(({ metadata }) => metadata.labels?.[DEFINITION] === OWN_DEFINITION);
  const unused: KubeObject[] = [];
  for (const definition of own) {
    const { group, names, versions } = definition.spec as {
      readonly group: string;
      readonly names: { readonly plural: string };
      readonly versions: readonly { readonly name: string }[];
    };
    if ((await listed(api, `/apis/${group}/${versions[0]?.name}/${names.plural}`)).length === 0) unused.push(definition);
  }
  return unused;
}

/** Kinds that users write and the mesh reads. */
const USERS = [
  ['AuthorizationPolicy', '/apis/security.istio.io/v1/authorizationpolicies'],
  ['PeerAuthentication', '/apis/security.istio.io/v1/peerauthentications'],
  ['RequestAuthentication', '/apis/security.istio.io/v1/requestauthentications'],
  ['VirtualService', '/apis/networking.istio.io/v1/virtualservices'],
  ['DestinationRule', '/apis/networking.istio.io/v1/destinationrules'],
  ['ServiceEntry', '/apis/networking.istio.io/v1/serviceentries'],
  ['WorkloadEntry', '/apis/networking.istio.io/v1/workloadentries'],
  ['RateLimitPolicy', '/apis/warren.dev/v1alpha1/ratelimitpolicies'],
  ['Telemetry', '/apis/telemetry.istio.io/v1/telemetries'],
] as const;

/** One line for each kind of thing that stays because a user wrote it. */
export async function userObjects(api: ListApi): Promise<string[]> {
  const lines: string[] = [];
  const gateways = (await listed(api, `${GATEWAY_API}/gateways`)).filter(({ spec }) => classOf(spec) === WAYPOINT_CLASS);
  if (gateways.length > 0) lines.push(`${plural(gateways.length, 'Gateway')} of class ${WAYPOINT_CLASS} (--purge-gateways)`);
  const namespaces = (await listed(api, '/api/v1/namespaces')).filter(({ metadata }) => metadata.labels?.[DATAPLANE_MODE] === 'ambient');
  if (namespaces.length > 0)
    lines.push(`label ${DATAPLANE_MODE} of ${namespaces.map(({ metadata }) => metadata.name).join(', ')} (--purge-labels)`);
  for (const [kind, path] of USERS) {
    const found = await listed(api, path);
    if (found.length > 0) lines.push(`${found.length} × ${kind}, which nobody enforces any more`);
  }
  const unused = (await unusedDefinitions(api)).map(({ metadata }) => metadata.name);
  const definitions = (await ourDefinitions(api)).filter(({ metadata }) => !unused.includes(metadata.name));
  if (definitions.length > 0) lines.push(`${plural(definitions.length, 'definition')} of kinds that the mesh reads (--purge-crds)`);
  return lines;
}

const CONTENTS = [
  ['Pod', '/api/v1', 'pods'],
  ['Service', '/api/v1', 'services'],
  ['ConfigMap', '/api/v1', 'configmaps'],
  ['Secret', '/api/v1', 'secrets'],
  ['PersistentVolumeClaim', '/api/v1', 'persistentvolumeclaims'],
  ['Deployment', '/apis/apps/v1', 'deployments'],
  ['DaemonSet', '/apis/apps/v1', 'daemonsets'],
  ['StatefulSet', '/apis/apps/v1', 'statefulsets'],
  ['Job', '/apis/batch/v1', 'jobs'],
  ['CronJob', '/apis/batch/v1', 'cronjobs'],
  ['Gateway', GATEWAY_API, 'gateways'],
] as const;

/** What a namespace has that would go with it, and that is neither Kubernetes' own nor on its way out. */
export async function strangersIn(api: ListApi, namespace: string): Promise<string[]> {
  const found: string[] = [];
  for (const [kind, root, plural] of CONTENTS) {
    for (const { metadata } of await listed(api, `${root}/namespaces/${namespace}/${plural}`)) {
      if (metadata.deletionTimestamp !== undefined || metadata.name === 'kube-root-ca.crt') continue;
      found.push(`${kind} ${metadata.name}`);
    }
  }
  for (const [kind, path] of USERS) {
    const slash = path.lastIndexOf('/');
    const objects = await listed(api, `${path.slice(0, slash)}/namespaces/${namespace}${path.slice(slash)}`);
    found.push(...objects.map(({ metadata }) => `${kind} ${metadata.name}`));
  }
  return found;
}

/** Kinds that the cluster does not have are none. */
async function listed(api: ListApi, path: string, query: Record<string, string> = {}): Promise<KubeObject[]> {
  try {
    return await api.list<KubeObject>(path, query);
  } catch (error) {
    if (error instanceof KubeApiError && error.status === 404) return [];
    throw error;
  }
}
