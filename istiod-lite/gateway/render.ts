/**
 * What a Gateway of class istio-waypoint becomes: service account, Deployment, Service and disruption budget, as a pure function. Names, labels,
 * ports and annotations are Istio's (istio: manifests/charts/istio-control/istio-discovery/files/waypoint.yaml), so that whatever looks for a
 * waypoint finds it; the container is ours. Two replicas on different nodes: what is bound to a waypoint is refused while none is there.
 */
import type { KubeObject } from '../../common/client/kube-api.ts';
import * as names from '../model/names.ts';
import { WAYPOINT_CLASS } from './classes.ts';
import { applyOverlays, CONTAINER, type Overlay } from './overlay.ts';

export interface RenderOptions {
  readonly image: string;
  /** `host:port` of istiod's gRPC port. */
  readonly discoveryAddress: string;
  /** Whom it asks for certificates; the control plane where it is missing. */
  readonly caAddress?: string | undefined;
  readonly clusterId: string;
  readonly trustDomain: string;
  readonly revision: string;
  /** The mesh's network; empty where there is only one. */
  readonly network: string;
}

export const MANAGED = 'istio.io-mesh-controller';
const CLASS_NAME = 'gateway.networking.k8s.io/gateway-class-name';
const NAME_OVERRIDE = 'gateway.istio.io/name-override';
const ACCOUNT_OVERRIDE = 'gateway.istio.io/service-account';
const SERVICE_TYPE = 'networking.istio.io/service-type';
const REPLICAS = 2;
const STATUS_PORT = 15021;
const STATS_PORT = 15020;
/** Keys of a Gateway's own metadata that mean the Gateway, not what is made of it. */
const NOT_INHERITED = /^(gateway\.networking\.k8s\.io\/|kubectl\.kubernetes\.io\/last-applied-configuration$|gateway\.istio\.io\/)/;

interface GatewaySpec {
  readonly gatewayClassName?: string;
  readonly addresses?: readonly unknown[];
  readonly listeners?: readonly { readonly name?: string; readonly port?: number; readonly protocol?: string }[];
  readonly infrastructure?: {
    readonly labels?: Record<string, string>;
    readonly annotations?: Record<string, string>;
    readonly parametersRef?: { readonly group?: string; readonly kind?: string; readonly name?: string };
  };
}

const specOf = (gateway: KubeObject): GatewaySpec => (gateway.spec ?? {}) as GatewaySpec;

/** Of a waypoint, where its Gateway's ConfigMap asks for no others. */
export const RESOURCES = { requests: { cpu: '100m', memory: '128Mi' }, limits: { cpu: '2', memory: '1Gi' } } as const;

export const classOf = (gateway: KubeObject): string => specOf(gateway).gatewayClassName ?? '';

/** Whether we are to deploy it: a class of ours, not claimed by another revision, and no address of its own given (that is a waypoint run by hand). */
export function isDeployed(gateway: KubeObject, revision: string, isOurs = (name: string): boolean => name === WAYPOINT_CLASS): boolean {
  const { addresses = [] } = specOf(gateway);
  const rev = gateway.metadata.labels?.['istio.io/rev'];
  const ours = rev === undefined || rev === revision;
  return isOurs(classOf(gateway)) && ours && addresses.length === 0 && gateway.metadata.deletionTimestamp === undefined;
}

/** The ConfigMap that the Gateway wants its objects changed by; a string says why the reference cannot be followed. */
export function parametersOf(gateway: KubeObject): { readonly namespace: string; readonly name: string } | string | undefined {
  const ref = specOf(gateway).infrastructure?.parametersRef;
  if (!ref) return undefined;
  const { group = '', kind = '', name = '' } = ref;
  if (group !== '' || kind !== 'ConfigMap')
    return `infrastructure.parametersRef names a ${kind}${group && `.${group}`}; it must be a ConfigMap`;
  return { namespace: gateway.metadata.namespace ?? '', name };
}

/** The service account that the Gateway's waypoints run as. */
export function accountOf(gateway: KubeObject): string {
  const { annotations = {}, name = '' } = gateway.metadata;
  return annotations[ACCOUNT_OVERRIDE] ?? annotations[NAME_OVERRIDE] ?? name;
}

/** In the order in which they are applied; later overlays win. Names, identity labels, owner and selectors are nobody's to change. */
export function renderWaypoint(gateway: KubeObject, options: RenderOptions, overlays: readonly Overlay[] = []): KubeObject[] {
  const { name: gatewayName = '', namespace = '', uid = '' } = gateway.metadata;
  const { infrastructure } = specOf(gateway);
  const own = gateway.metadata.annotations ?? {};
  const name = own[NAME_OVERRIDE] ?? gatewayName;
  const account = accountOf(gateway);
  const inherited = {
    labels: infrastructure?.labels ?? inherit(gateway.metadata.labels),
    annotations: infrastructure?.annotations ?? inherit(own),
  };
  const network = options.network === '' ? {} : { [names.NETWORK]: options.network };
  const identity = { [names.GATEWAY_NAME]: gatewayName, [CLASS_NAME]: classOf(gateway), [names.GATEWAY_MANAGED]: MANAGED };
  const metadata = (objectName: string): KubeObject['metadata'] => ({
    name: objectName,
    namespace,
    labels: { ...network, ...inherited.labels, ...identity },
    annotations: inherited.annotations,
    ownerReferences: [
      { apiVersion: 'gateway.networking.k8s.io/v1', kind: 'Gateway', name: gatewayName, uid, controller: true, blockOwnerDeletion: false },
    ],
  });
  const selector = { [names.GATEWAY_NAME]: gatewayName };
  const objects: KubeObject[] = [
    { apiVersion: 'v1', kind: 'ServiceAccount', metadata: metadata(account) },
    {
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata: metadata(name),
      spec: {
        replicas: REPLICAS,
        selector: { matchLabels: selector },
        strategy: { rollingUpdate: { maxSurge: 1, maxUnavailable: 0 } },
        template: {
          metadata: {
            labels: {
              ...network,
              ...inherited.labels,
              ...identity,
              [names.DATAPLANE_MODE]: gateway.metadata.labels?.[names.DATAPLANE_MODE] ?? 'none',
              [names.CANONICAL_NAME]: name,
              [names.CANONICAL_REVISION]: 'latest',
              'sidecar.istio.io/inject': 'false',
            },
            annotations: {
              ...inherited.annotations,
              [names.REVISION]: options.revision,
              'prometheus.io/path': '/stats/prometheus',
              'prometheus.io/port': String(STATS_PORT),
              'prometheus.io/scrape': 'true',
            },
          },
          spec: podSpec(gatewayName, account, selector, options),
        },
      },
    },
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { ...metadata(name), annotations: { [names.TRAFFIC_DISTRIBUTION]: 'PreferClose', ...inherited.annotations } },
      spec: {
        type: own[SERVICE_TYPE] ?? 'ClusterIP',
        ipFamilyPolicy: 'PreferDualStack',
        selector,
        ports: servicePorts(gateway),
      },
    },
    {
      apiVersion: 'autoscaling/v2',
      kind: 'HorizontalPodAutoscaler',
      metadata: metadata(name),
      spec: { scaleTargetRef: { apiVersion: 'apps/v1', kind: 'Deployment', name } },
    },
    {
      apiVersion: 'policy/v1',
      kind: 'PodDisruptionBudget',
      metadata: metadata(name),
      spec: { minAvailable: 1, selector: { matchLabels: selector } },
    },
  ];
  return applyOverlays(objects, overlays).map((object) => withLabels(object, identity));
}

/** An overlay may add labels, never change those by which a waypoint is found. */
function withLabels(object: KubeObject, identity: Record<string, string>): KubeObject {
  const { metadata, spec } = object;
  const labelled = { ...object, metadata: { ...metadata, labels: { ...metadata.labels, ...identity } } };
  if (object.kind !== 'Deployment') return labelled;
  const { template, ...rest } = spec as { template: { metadata: KubeObject['metadata'] } };
  const pod = { ...template, metadata: { ...template.metadata, labels: { ...template.metadata.labels, ...identity } } };
  return { ...labelled, spec: { ...rest, template: pod } };
}

const inherit = (all: Readonly<Record<string, string>> | undefined): Record<string, string> =>
  Object.fromEntries(Object.entries(all ?? {}).filter(([key]) => !NOT_INHERITED.test(key)));

function servicePorts(gateway: KubeObject): object[] {
  const listeners = new Map((specOf(gateway).listeners ?? []).map((listener) => [listener.port ?? names.HBONE_PORT, listener]));
  return [
    { name: 'status-port', port: STATUS_PORT, protocol: 'TCP', appProtocol: 'tcp' },
    ...[...listeners].map(([port, { name = `port-${port}`, protocol = 'HBONE' }]) => ({
      name,
      port,
      protocol: 'TCP',
      appProtocol: protocol.toLowerCase(),
    })),
  ];
}

function podSpec(gatewayName: string, account: string, selector: Record<string, string>, options: RenderOptions): object {
  const field = (name: string, fieldPath: string): object => ({ name, valueFrom: { fieldRef: { fieldPath } } });
  const probe = { httpGet: { path: '/healthz/ready', port: STATUS_PORT }, timeoutSeconds: 1 };
  return {
    serviceAccountName: account,
    // It asks istiod and nobody else, with a token of its own audience.
    automountServiceAccountToken: false,
    terminationGracePeriodSeconds: 30,
    affinity: {
      podAntiAffinity: {
        preferredDuringSchedulingIgnoredDuringExecution: [
          { weight: 100, podAffinityTerm: { topologyKey: 'kubernetes.io/hostname', labelSelector: { matchLabels: selector } } },
        ],
      },
    },
    securityContext: { seccompProfile: { type: 'RuntimeDefault' } },
    containers: [
      {
        name: CONTAINER,
        image: options.image,
        imagePullPolicy: 'IfNotPresent',
        args: ['proxy', 'waypoint'],
        ports: [
          { name: 'metrics', containerPort: STATS_PORT },
          { name: 'status-port', containerPort: STATUS_PORT },
          { name: 'mesh', containerPort: names.HBONE_PORT },
        ],
        env: [
          { name: 'XDS_ADDRESS', value: options.discoveryAddress },
          { name: 'CA_ADDRESS', value: options.caAddress ?? options.discoveryAddress },
          { name: 'ISTIO_META_CLUSTER_ID', value: options.clusterId },
          { name: 'TRUST_DOMAIN', value: options.trustDomain },
          { name: 'GATEWAY_NAME', value: gatewayName },
          field('POD_NAME', 'metadata.name'),
          field('POD_NAMESPACE', 'metadata.namespace'),
          field('NODE_NAME', 'spec.nodeName'),
          field('INSTANCE_IP', 'status.podIP'),
          field('SERVICE_ACCOUNT', 'spec.serviceAccountName'),
        ],
        startupProbe: { ...probe, initialDelaySeconds: 1, periodSeconds: 1, failureThreshold: 120 },
        readinessProbe: { ...probe, periodSeconds: 5, failureThreshold: 2 },
        resources: RESOURCES,
        securityContext: {
          allowPrivilegeEscalation: false,
          privileged: false,
          readOnlyRootFilesystem: true,
          runAsNonRoot: true,
          runAsUser: 1337,
          runAsGroup: 1337,
          capabilities: { drop: ['ALL'] },
        },
        volumeMounts: [
          { name: 'istio-token', mountPath: '/var/run/secrets/tokens' },
          { name: 'istiod-ca-cert', mountPath: '/var/run/secrets/istio' },
          { name: 'tmp', mountPath: '/tmp' },
        ],
      },
    ],
    volumes: [
      {
        name: 'istio-token',
        projected: { sources: [{ serviceAccountToken: { path: 'istio-token', audience: 'istio-ca', expirationSeconds: 43_200 } }] },
      },
      { name: 'istiod-ca-cert', configMap: { name: 'istio-ca-root-cert' } },
      { name: 'tmp', emptyDir: {} },
    ],
  };
}
