/**
 * The table of built-in types. One line each: plural, kind, definition of its schema, then words: `ns` (namespaced), `status` (status
 * subresource), `scale`, `all` (in `kubectl get all`), `virtual` (answered, not kept), and short names after `=`.
 */

import type { PrinterColumn, ResourceType, ServedVersion } from './registry.ts';
import { checkGatewayApi, checkIstio, modelVersion } from './schemas/package-validators.ts';
import type { Definitions } from './schemas/schema.ts';
import { SchemaNode } from './schemas/schema.ts';

const KUBERNETES: Readonly<Record<string, string>> = {
  v1: `
    pods Pod V1Pod ns status all =po
    services Service V1Service ns status all =svc
    configmaps ConfigMap V1ConfigMap ns =cm
    secrets Secret V1Secret ns
    serviceaccounts ServiceAccount V1ServiceAccount ns =sa
    namespaces Namespace V1Namespace status =ns
    nodes Node V1Node status =no
    events Event CoreV1Event ns =ev
    endpoints Endpoints V1Endpoints ns =ep
    persistentvolumeclaims PersistentVolumeClaim V1PersistentVolumeClaim ns status =pvc
    persistentvolumes PersistentVolume V1PersistentVolume status =pv
    resourcequotas ResourceQuota V1ResourceQuota ns status =quota
    limitranges LimitRange V1LimitRange ns =limits
    replicationcontrollers ReplicationController V1ReplicationController ns status scale all =rc
    podtemplates PodTemplate V1PodTemplate ns`,
  'apps/v1': `
    deployments Deployment V1Deployment ns status scale all =deploy
    replicasets ReplicaSet V1ReplicaSet ns status scale all =rs
    daemonsets DaemonSet V1DaemonSet ns status all =ds
    statefulsets StatefulSet V1StatefulSet ns status scale all =sts
    controllerrevisions ControllerRevision V1ControllerRevision ns`,
  'batch/v1': `
    jobs Job V1Job ns status all
    cronjobs CronJob V1CronJob ns status all =cj`,
  'autoscaling/v2': `horizontalpodautoscalers HorizontalPodAutoscaler V2HorizontalPodAutoscaler ns status all =hpa`,
  'policy/v1': `poddisruptionbudgets PodDisruptionBudget V1PodDisruptionBudget ns status =pdb`,
  'discovery.k8s.io/v1': `endpointslices EndpointSlice V1EndpointSlice ns`,
  'coordination.k8s.io/v1': `leases Lease V1Lease ns`,
  'events.k8s.io/v1': `events Event EventsV1Event ns =ev`,
  'networking.k8s.io/v1': `
    networkpolicies NetworkPolicy V1NetworkPolicy ns =netpol
    ingresses Ingress V1Ingress ns status =ing
    ingressclasses IngressClass V1IngressClass`,
  'rbac.authorization.k8s.io/v1': `
    roles Role V1Role ns
    rolebindings RoleBinding V1RoleBinding ns
    clusterroles ClusterRole V1ClusterRole
    clusterrolebindings ClusterRoleBinding V1ClusterRoleBinding`,
  'admissionregistration.k8s.io/v1': `
    validatingwebhookconfigurations ValidatingWebhookConfiguration V1ValidatingWebhookConfiguration
    mutatingwebhookconfigurations MutatingWebhookConfiguration V1MutatingWebhookConfiguration
    validatingadmissionpolicies ValidatingAdmissionPolicy V1ValidatingAdmissionPolicy status
    validatingadmissionpolicybindings ValidatingAdmissionPolicyBinding V1ValidatingAdmissionPolicyBinding`,
  'apiextensions.k8s.io/v1': `customresourcedefinitions CustomResourceDefinition V1CustomResourceDefinition status =crd,crds`,
  'scheduling.k8s.io/v1': `priorityclasses PriorityClass V1PriorityClass =pc`,
  'storage.k8s.io/v1': `storageclasses StorageClass V1StorageClass =sc`,
  'node.k8s.io/v1': `runtimeclasses RuntimeClass V1RuntimeClass`,
  'authentication.k8s.io/v1': `
    tokenreviews TokenReview V1TokenReview virtual
    selfsubjectreviews SelfSubjectReview V1SelfSubjectReview virtual`,
  'authorization.k8s.io/v1': `
    subjectaccessreviews SubjectAccessReview V1SubjectAccessReview virtual
    selfsubjectaccessreviews SelfSubjectAccessReview V1SelfSubjectAccessReview virtual
    selfsubjectrulesreviews SelfSubjectRulesReview V1SelfSubjectRulesReview virtual
    localsubjectaccessreviews LocalSubjectAccessReview V1LocalSubjectAccessReview ns virtual`,
};

const age = column('Age', '.metadata.creationTimestamp', 'date');
const accepted = column('Accepted', '.status.conditions[?(@.type=="Accepted")].status');
const hostnames = column('Hostnames', '.spec.hostnames');

interface ModelType {
  readonly plural: string;
  readonly kind: string;
  /** Preferred and stored version first. */
  readonly versions: readonly string[];
  readonly shortNames?: readonly string[];
  readonly cluster?: boolean;
  readonly columns?: readonly PrinterColumn[];
}

const GATEWAY_API: Readonly<Record<string, readonly ModelType[]>> = {
  'gateway.networking.k8s.io': [
    {
      plural: 'gatewayclasses',
      kind: 'GatewayClass',
      versions: ['v1', 'v1beta1'],
      shortNames: ['gc'],
      cluster: true,
      columns: [column('Controller', '.spec.controllerName'), accepted, age, column('Description', '.spec.description', 'string', 1)],
    },
    {
      plural: 'gateways',
      kind: 'Gateway',
      versions: ['v1', 'v1beta1'],
      shortNames: ['gtw'],
      columns: [
        column('Class', '.spec.gatewayClassName'),
        column('Address', '.status.addresses[*].value'),
        column('Programmed', '.status.conditions[?(@.type=="Programmed")].status'),
        age,
      ],
    },
    { plural: 'httproutes', kind: 'HTTPRoute', versions: ['v1', 'v1beta1'], columns: [hostnames, age] },
    { plural: 'grpcroutes', kind: 'GRPCRoute', versions: ['v1', 'v1alpha2'], columns: [hostnames, age] },
    { plural: 'tlsroutes', kind: 'TLSRoute', versions: ['v1', 'v1alpha3', 'v1alpha2'], columns: [hostnames, age] },
    { plural: 'tcproutes', kind: 'TCPRoute', versions: ['v1', 'v1alpha2'], columns: [age] },
    { plural: 'udproutes', kind: 'UDPRoute', versions: ['v1', 'v1alpha2'], columns: [age] },
    {
      plural: 'referencegrants',
      kind: 'ReferenceGrant',
      versions: ['v1', 'v1beta1', 'v1alpha2'],
      shortNames: ['refgrant'],
      columns: [age],
    },
    { plural: 'backendtlspolicies', kind: 'BackendTLSPolicy', versions: ['v1', 'v1alpha3'], shortNames: ['btlspolicy'], columns: [age] },
    {
      plural: 'listenersets',
      kind: 'ListenerSet',
      versions: ['v1'],
      shortNames: ['lset'],
      columns: [accepted, column('Programmed', '.status.conditions[?(@.type=="Programmed")].status'), age],
    },
  ],
  'gateway.networking.x-k8s.io': [
    {
      plural: 'xbackendtrafficpolicies',
      kind: 'XBackendTrafficPolicy',
      versions: ['v1alpha1'],
      shortNames: ['xbtrafficpolicy'],
      columns: [age],
    },
    { plural: 'xmeshes', kind: 'XMesh', versions: ['v1alpha1'], shortNames: ['mesh'], cluster: true, columns: [accepted, age] },
  ],
};

const networking = ['v1', 'v1beta1', 'v1alpha3'];
const security = ['v1', 'v1beta1'];

const ISTIO: Readonly<Record<string, readonly ModelType[]>> = {
  'networking.istio.io': [
    {
      plural: 'virtualservices',
      kind: 'VirtualService',
      versions: networking,
      shortNames: ['vs'],
      columns: [column('Gateways', '.spec.gateways'), column('Hosts', '.spec.hosts'), age],
    },
    {
      plural: 'destinationrules',
      kind: 'DestinationRule',
      versions: networking,
      shortNames: ['dr'],
      columns: [column('Host', '.spec.host'), age],
    },
    {
      plural: 'serviceentries',
      kind: 'ServiceEntry',
      versions: networking,
      shortNames: ['se'],
      columns: [column('Hosts', '.spec.hosts'), column('Location', '.spec.location'), column('Resolution', '.spec.resolution'), age],
    },
    {
      plural: 'workloadentries',
      kind: 'WorkloadEntry',
      versions: networking,
      shortNames: ['we'],
      columns: [age, column('Address', '.spec.address')],
    },
    { plural: 'workloadgroups', kind: 'WorkloadGroup', versions: networking, shortNames: ['wg'], columns: [age] },
    { plural: 'gateways', kind: 'Gateway', versions: networking, shortNames: ['gw'], columns: [age] },
    { plural: 'sidecars', kind: 'Sidecar', versions: networking, columns: [age] },
    { plural: 'envoyfilters', kind: 'EnvoyFilter', versions: ['v1alpha3'], columns: [age] },
    { plural: 'proxyconfigs', kind: 'ProxyConfig', versions: ['v1beta1'], columns: [age] },
  ],
  'security.istio.io': [
    {
      plural: 'authorizationpolicies',
      kind: 'AuthorizationPolicy',
      versions: security,
      shortNames: ['ap'],
      columns: [column('Action', '.spec.action'), age],
    },
    {
      plural: 'peerauthentications',
      kind: 'PeerAuthentication',
      versions: security,
      shortNames: ['pa'],
      columns: [column('Mode', '.spec.mtls.mode'), age],
    },
    { plural: 'requestauthentications', kind: 'RequestAuthentication', versions: security, shortNames: ['ra'], columns: [age] },
  ],
  'telemetry.istio.io': [
    { plural: 'telemetries', kind: 'Telemetry', versions: ['v1', 'v1alpha1'], shortNames: ['telemetry'], columns: [age] },
  ],
  'extensions.istio.io': [{ plural: 'wasmplugins', kind: 'WasmPlugin', versions: ['v1alpha1'], columns: [age] }],
};

export function builtInTypes(definitions: Definitions): ResourceType[] {
  return [
    ...Object.entries(KUBERNETES).flatMap(([apiVersion, rows]) =>
      rows
        .split('\n')
        .filter((row) => row.trim() !== '')
        .map((row) => kubernetesType(apiVersion, row.trim(), definitions)),
    ),
    ...modelTypes(GATEWAY_API, 'gateway-api', checkGatewayApi, definitions),
    ...modelTypes(ISTIO, 'istio-io', checkIstio, definitions),
  ];
}

function kubernetesType(apiVersion: string, row: string, definitions: Definitions): ResourceType {
  const [plural = '', kind = '', definition = '', ...words] = row.split(' ');
  const slash = apiVersion.indexOf('/');
  const version = apiVersion.slice(slash + 1);
  return {
    group: slash < 0 ? '' : apiVersion.slice(0, slash),
    kind,
    plural,
    singular: kind.toLowerCase(),
    shortNames:
      words
        .find((word) => word.startsWith('='))
        ?.slice(1)
        .split(',') ?? [],
    categories: words.includes('all') ? ['all'] : [],
    namespaced: words.includes('ns'),
    versions: [{ name: version, schema: new SchemaNode({ $ref: definition }, definitions) }],
    storageVersion: version,
    status: words.includes('status'),
    virtual: words.includes('virtual'),
    ...(words.includes('scale')
      ? { scale: { specReplicasPath: '.spec.replicas', statusReplicasPath: '.status.replicas', labelSelectorPath: '.spec.selector' } }
      : {}),
  };
}

function modelTypes(
  groups: Readonly<Record<string, readonly ModelType[]>>,
  category: string,
  check: (apiVersion: string, kind: string) => ServedVersion['check'],
  definitions: Definitions,
): ResourceType[] {
  return Object.entries(groups).flatMap(([group, types]) =>
    types.map(({ plural, kind, versions, shortNames = [], cluster = false, columns = [age] }) => ({
      group,
      kind,
      plural,
      singular: kind.toLowerCase(),
      shortNames,
      categories: [category],
      namespaced: !cluster,
      custom: true,
      status: true,
      storageVersion: versions[0] ?? 'v1',
      versions: versions.map((name) => {
        const validate = check(`${group}/${name}`, kind);
        return {
          name,
          schema: new SchemaNode({ $ref: `${modelVersion(`${group}/${name}`, kind)}/${kind}` }, definitions),
          columns,
          ...(validate ? { check: validate } : {}),
        };
      }),
    })),
  );
}

function column(name: string, jsonPath: string, type = 'string', priority = 0): PrinterColumn {
  return { name, type, jsonPath, priority };
}
