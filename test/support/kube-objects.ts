/** Kubernetes objects for tests of the translation: everything has a sensible value, a test names only what it is about. */

type Json = Record<string, unknown>;

interface Meta {
  readonly name: string;
  readonly namespace?: string;
  readonly labels?: Record<string, string>;
  readonly annotations?: Record<string, string>;
  readonly createdAt?: string;
}

function metadata({ name, namespace = 'shop', labels = {}, annotations = {}, createdAt = '2026-01-01T00:00:00Z' }: Meta): Json {
  return { name, namespace, labels, annotations, creationTimestamp: createdAt, generation: 1, uid: `uid-of-${name}` };
}

export interface PodFields extends Meta {
  readonly ip?: string;
  readonly node?: string;
  readonly ready?: boolean;
  readonly phase?: string;
  readonly enrolled?: boolean;
  readonly serviceAccount?: string;
  readonly ports?: Record<string, number>;
}

export const pod = (fields: PodFields): Json => ({
  metadata: metadata({
    ...fields,
    annotations: { ...(fields.enrolled === false ? {} : { 'ambient.istio.io/redirection': 'enabled' }), ...fields.annotations },
  }),
  spec: {
    nodeName: fields.node ?? 'node-1',
    serviceAccountName: fields.serviceAccount ?? 'default',
    containers: [
      {
        name: 'main',
        ports: Object.entries(fields.ports ?? {}).map(([name, containerPort]) => ({ name, containerPort, protocol: 'TCP' })),
      },
    ],
  },
  status: {
    phase: fields.phase ?? 'Running',
    podIPs: [{ ip: fields.ip ?? '10.0.0.1' }],
    conditions: [{ type: 'Ready', status: fields.ready === false ? 'False' : 'True' }],
  },
});

export interface ServiceFields extends Meta {
  readonly selector?: Record<string, string>;
  readonly vip?: string;
  readonly ports?: readonly Json[];
  readonly spec?: Json;
  readonly conditions?: readonly Json[];
}

export const service = (fields: ServiceFields): Json => ({
  metadata: metadata(fields),
  spec: {
    clusterIPs: [fields.vip ?? '10.96.0.1'],
    ipFamilies: ['IPv4'],
    ports: fields.ports ?? [{ name: 'http', port: 80, targetPort: 8080, protocol: 'TCP' }],
    ...(fields.selector ? { selector: fields.selector } : {}),
    ...fields.spec,
  },
  status: { loadBalancer: {}, conditions: fields.conditions ?? [] },
});

export const namespace = (name: string, labels: Record<string, string> = {}, annotations: Record<string, string> = {}): Json => ({
  metadata: { name, labels: { 'kubernetes.io/metadata.name': name, ...labels }, annotations },
});

export const node = (name: string, zone: string): Json => ({
  metadata: { name, labels: { 'topology.kubernetes.io/region': 'r', 'topology.kubernetes.io/zone': zone } },
});

export const endpointSlice = (fields: Meta & { service: string; endpoints: readonly Json[]; port?: number; portName?: string }): Json => ({
  metadata: metadata({ ...fields, labels: { 'kubernetes.io/service-name': fields.service, ...fields.labels } }),
  addressType: 'IPv4',
  ports: [{ name: fields.portName ?? 'http', port: fields.port ?? 8080, protocol: 'TCP' }],
  endpoints: fields.endpoints,
});

export const authorizationPolicy = (fields: Meta & { spec: Json; conditions?: readonly Json[] }): Json => ({
  metadata: metadata(fields),
  spec: fields.spec,
  status: { conditions: fields.conditions ?? [] },
});

export const peerAuthentication = (
  fields: Meta & { mode?: string; selector?: Record<string, string>; ports?: Record<string, string> },
): Json => ({
  metadata: metadata(fields),
  spec: {
    ...(fields.mode === undefined ? {} : { mtls: { mode: fields.mode } }),
    ...(fields.selector ? { selector: { matchLabels: fields.selector } } : {}),
    ...(fields.ports ? { portLevelMtls: Object.fromEntries(Object.entries(fields.ports).map(([port, mode]) => [port, { mode }])) } : {}),
  },
});

export const gateway = (fields: Meta & { ready?: boolean; className?: string; from?: string }): Json => ({
  metadata: metadata(fields),
  spec: {
    gatewayClassName: fields.className ?? 'istio-waypoint',
    listeners: [{ name: 'mesh', port: 15008, protocol: 'HBONE', allowedRoutes: { namespaces: { from: fields.from ?? 'Same' } } }],
  },
  status: {
    addresses:
      fields.ready === false ? [] : [{ type: 'Hostname', value: `${fields.name}.${fields.namespace ?? 'shop'}.svc.cluster.local` }],
  },
});

export const serviceEntry = (fields: Meta & { spec: Json; status?: Json }): Json => ({
  metadata: metadata(fields),
  spec: fields.spec,
  status: fields.status ?? {},
});

export const workloadEntry = (fields: Meta & { spec: Json; conditions?: readonly Json[] }): Json => ({
  metadata: metadata(fields),
  spec: fields.spec,
  status: { conditions: fields.conditions ?? [] },
});

export const virtualService = (fields: Meta & { spec: Json }): Json => ({ metadata: metadata(fields), spec: fields.spec });

export const destinationRule = (fields: Meta & { spec: Json }): Json => ({ metadata: metadata(fields), spec: fields.spec });

export interface HttpRouteFields extends Meta {
  /** The Service that it attaches to; `parents` says it in full. */
  readonly service?: string;
  readonly port?: number;
  readonly parents?: readonly Json[];
  readonly rules: readonly Json[];
  readonly spec?: Json;
  readonly status?: Json;
}

export const httpRoute = (fields: HttpRouteFields): Json => ({
  metadata: metadata(fields),
  spec: {
    parentRefs: fields.parents ?? [
      { group: '', kind: 'Service', name: fields.service ?? 'web', ...(fields.port === undefined ? {} : { port: fields.port }) },
    ],
    rules: fields.rules,
    ...fields.spec,
  },
  ...(fields.status ? { status: fields.status } : {}),
});
