/** The kinds of Kubernetes objects that the translation is made from. */
import { MESH_CONFIG_MAP } from './mesh-config.ts';

export interface WatchedKind {
  readonly kind: string;
  /** As in `apiVersion`. */
  readonly apiVersion: string;
  /** List and watch path over all namespaces. */
  readonly path: string;
  /** The type may be missing from the cluster (its CustomResourceDefinition is not installed); that means: no such objects. */
  readonly optional: boolean;
  /** Whether objects live in namespaces. */
  readonly namespaced: boolean;
  /** The only name that is watched; undefined for all. */
  readonly only?: string;
}

const core = (kind: string, resource: string, namespaced = true): WatchedKind => ({
  kind,
  apiVersion: 'v1',
  path: `/api/v1/${resource}`,
  optional: false,
  namespaced,
});

const grouped = (kind: string, apiVersion: string, resource: string, o: { optional: boolean; namespaced?: boolean }): WatchedKind => ({
  kind,
  apiVersion,
  path: `/apis/${apiVersion}/${resource}`,
  optional: o.optional,
  namespaced: o.namespaced ?? true,
});

export const watchedKinds = {
  Namespace: core('Namespace', 'namespaces', false),
  Node: core('Node', 'nodes', false),
  Pod: core('Pod', 'pods'),
  Service: core('Service', 'services'),
  // A cluster's other ConfigMaps may be many and large.
  ConfigMap: { ...core('ConfigMap', 'configmaps'), only: MESH_CONFIG_MAP },
  EndpointSlice: grouped('EndpointSlice', 'discovery.k8s.io/v1', 'endpointslices', { optional: false }),
  AuthorizationPolicy: grouped('AuthorizationPolicy', 'security.istio.io/v1', 'authorizationpolicies', { optional: true }),
  PeerAuthentication: grouped('PeerAuthentication', 'security.istio.io/v1', 'peerauthentications', { optional: true }),
  RequestAuthentication: grouped('RequestAuthentication', 'security.istio.io/v1', 'requestauthentications', { optional: true }),
  RateLimitPolicy: grouped('RateLimitPolicy', 'warren.dev/v1alpha1', 'ratelimitpolicies', { optional: true }),
  ServiceEntry: grouped('ServiceEntry', 'networking.istio.io/v1', 'serviceentries', { optional: true }),
  WorkloadEntry: grouped('WorkloadEntry', 'networking.istio.io/v1', 'workloadentries', { optional: true }),
  VirtualService: grouped('VirtualService', 'networking.istio.io/v1', 'virtualservices', { optional: true }),
  DestinationRule: grouped('DestinationRule', 'networking.istio.io/v1', 'destinationrules', { optional: true }),
  Telemetry: grouped('Telemetry', 'telemetry.istio.io/v1', 'telemetries', { optional: true }),
  Gateway: grouped('Gateway', 'gateway.networking.k8s.io/v1', 'gateways', { optional: true }),
  HTTPRoute: grouped('HTTPRoute', 'gateway.networking.k8s.io/v1', 'httproutes', { optional: true }),
  GRPCRoute: grouped('GRPCRoute', 'gateway.networking.k8s.io/v1', 'grpcroutes', { optional: true }),
  TCPRoute: grouped('TCPRoute', 'gateway.networking.k8s.io/v1', 'tcproutes', { optional: true }),
  TLSRoute: grouped('TLSRoute', 'gateway.networking.k8s.io/v1', 'tlsroutes', { optional: true }),
  BackendTLSPolicy: grouped('BackendTLSPolicy', 'gateway.networking.k8s.io/v1', 'backendtlspolicies', { optional: true }),
  GatewayClass: grouped('GatewayClass', 'gateway.networking.k8s.io/v1', 'gatewayclasses', { optional: true, namespaced: false }),
} as const satisfies Record<string, WatchedKind>;

export type WatchedKindName = keyof typeof watchedKinds;

/** Kinds that nothing is made from: each object of them is told that nothing enforces it. */
export const unenforcedKinds = {
  EnvoyFilter: grouped('EnvoyFilter', 'networking.istio.io/v1alpha3', 'envoyfilters', { optional: true }),
  Sidecar: grouped('Sidecar', 'networking.istio.io/v1', 'sidecars', { optional: true }),
  WasmPlugin: grouped('WasmPlugin', 'extensions.istio.io/v1alpha1', 'wasmplugins', { optional: true }),
  TrafficExtension: grouped('TrafficExtension', 'extensions.istio.io/v1alpha1', 'trafficextensions', { optional: true }),
} as const satisfies Record<string, WatchedKind>;

export type UnenforcedKindName = keyof typeof unenforcedKinds;

export const allKinds = { ...watchedKinds, ...unenforcedKinds } as const;

export type KindName = keyof typeof allKinds;

export const isUnenforced = (kind: KindName): kind is UnenforcedKindName => Object.hasOwn(unenforcedKinds, kind);

/** `/api/v1/namespaces/shop/services`; without a namespace, and for kinds of the cluster, all there are */
export function listPath(kind: KindName, namespace?: string): string {
  const { path, namespaced }: WatchedKind = allKinds[kind];
  const slash = path.lastIndexOf('/');
  return namespaced && namespace !== undefined ? `${path.slice(0, slash)}/namespaces/${namespace}${path.slice(slash)}` : path;
}

/** `/api/v1/namespaces/shop/services/web/status` */
export function statusPath(kind: KindName, namespace: string, name: string): string {
  return `${listPath(kind, namespace)}/${name}/status`;
}
