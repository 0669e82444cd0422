/**
 * Which waypoint an object's traffic goes through (Istio, pilot/pkg/serviceregistry/ambient/waypoints.go). Where the labels name one that is not there or not ready,
 * its hostname is published all the same, so that every ztunnel refuses: what the waypoint would enforce must not be passed by (design
 * decision 8; Istio publishes no waypoint then, and the traffic flows).
 */
import type { GatewayAddress, WeightedWaypoint } from '../../common/codec/gen/workload.ts';
import { type Condition, WAYPOINT_BOUND } from './conditions.ts';
import type { MeshModelConfig } from './config.ts';
import { type Gateway, type GatewayClass, mayAttach, trafficType } from './gateway.ts';
import * as names from './names.ts';
import { type Labels, pick, readMeta } from './objects.ts';

/** The part of an object, or of its namespace, that says which waypoint it wants. */
export interface BindingWords {
  readonly labels: Labels;
  readonly annotations: Labels;
}

export interface BindingRequest {
  readonly traffic: 'service' | 'workload';
  readonly namespace: string;
  readonly own: BindingWords;
  readonly inherited: BindingWords;
  /** All labels of the namespace, which a waypoint of another one may select by. */
  readonly namespaceLabels: Labels;
  /** Seen by clients of its own namespace only, so no waypoint of another one may serve it. */
  readonly namespaceOnly: boolean;
}

/** Gateways by `namespace/name`. Asking for one makes the asker depend on it. */
export interface GatewayView {
  gateway(key: string): Gateway | undefined;
  gatewayClass(name: string): GatewayClass | undefined;
}

export type WaypointBinding =
  | { readonly at: 'unbound' }
  | {
      readonly at: 'bound';
      readonly waypoint: string;
      readonly address: GatewayAddress;
      readonly weighted: readonly WeightedWaypoint[];
      /** Why the canary is not used, where one is asked for and is not. */
      readonly canaryProblem: string | undefined;
    }
  | { readonly at: 'absent'; readonly waypoint: string; readonly address: GatewayAddress }
  | { readonly at: 'rejected'; readonly waypoint: string; readonly reason: RejectionReason; readonly message: string };

export type RejectionReason = 'AttachmentDenied' | 'UnsupportedTrafficType' | 'CrossNamespaceWaypointForbidden';

export interface WaypointReference {
  readonly namespace: string;
  readonly name: string;
  /** Taken from the namespace and not from the object itself. */
  readonly inherited: boolean;
}

const UNBOUND: WaypointBinding = { at: 'unbound' };

// Services of these Gateways lead into waypoints and other clusters; sending them to a waypoint would make a circle.
const NEVER_BOUND = ['istio.io-mesh-controller', 'istio.io-eastwest-controller'];

export function bindWaypoint(config: MeshModelConfig, request: BindingRequest, view: GatewayView): WaypointBinding {
  if (NEVER_BOUND.includes(request.own.labels[names.GATEWAY_MANAGED] ?? '')) return UNBOUND;
  const reference = useWaypoint(request);
  if (!reference) return UNBOUND;
  const waypoint = `${reference.namespace}/${reference.name}`;
  const gateway = view.gateway(waypoint);
  // A workload follows its namespace's label only to a waypoint that takes workloads, and one that nobody has described takes services.
  const follows = !reference.inherited || request.traffic === 'service' || (gateway !== undefined && takes(gateway, view, 'workload'));
  if (!follows) return UNBOUND;
  if (!gateway?.address) return { at: 'absent', waypoint, address: absentAddress(config, reference) };
  const rejection = reject(request, gateway, view);
  if (rejection) return { at: 'rejected', waypoint, ...rejection };
  const address = { destination: gateway.address, hboneMtlsPort: names.HBONE_PORT };
  return { at: 'bound', waypoint, address, ...canary(request, reference, address, view) };
}

/**
 * The waypoints that are told about the object, ready or not: they must know its routes and policies before the first connection comes. One
 * that does not take the object is told nothing.
 */
export function tellWaypoints(request: BindingRequest, binding: WaypointBinding, view: GatewayView): string[] {
  if (binding.at !== 'bound' && binding.at !== 'absent') return [];
  const words = useWaypoint(request)?.inherited ? request.inherited : request.own;
  const second = request.traffic === 'service' ? useCanary(words.labels, {}, request.namespace) : undefined;
  const key = second && `${second.namespace}/${second.name}`;
  if (key === undefined || key === binding.waypoint) return [binding.waypoint];
  const gateway = view.gateway(key);
  return gateway?.address && reject(request, gateway, view) ? [binding.waypoint] : [binding.waypoint, key];
}

/** What the binding makes ztunnel do; undefined goes straight to the endpoints. */
export const publishedWaypoint = (binding: WaypointBinding): GatewayAddress | undefined =>
  binding.at === 'bound' || binding.at === 'absent' ? binding.address : undefined;

/** The condition of an object that asks for a waypoint; undefined where it asks for none. */
export function waypointCondition(binding: WaypointBinding, ingress: string | undefined): Condition | undefined {
  switch (binding.at) {
    case 'unbound':
      return undefined;
    case 'absent':
      return {
        type: WAYPOINT_BOUND,
        status: 'False',
        reason: 'WaypointIsNotReady',
        message: `waypoint ${binding.waypoint} does not exist or has no address yet; connections are refused until it has`,
      };
    case 'rejected':
      return { type: WAYPOINT_BOUND, status: 'False', reason: binding.reason, message: binding.message };
    case 'bound': {
      const sentences = [`bound to waypoint ${binding.waypoint}`, ingressSentence(ingress), binding.canaryProblem];
      return {
        type: WAYPOINT_BOUND,
        status: 'True',
        reason: 'WaypointAccepted',
        message: sentences.filter((sentence) => sentence !== undefined).join('. '),
      };
    }
  }
}

/** What an object says about its waypoint, and nothing else of it. */
export function readBindingWords(object: unknown): BindingWords {
  const meta = readMeta(object);
  return {
    labels: pick(meta?.labels ?? {}, BINDING_LABELS),
    annotations: pick(meta?.annotations ?? {}, [names.USE_WAYPOINT_CANARY_WEIGHT]),
  };
}

/** The object's label, else its namespace's; `none` on the object opts out of the namespace's. */
function useWaypoint({
  own,
  inherited,
  namespace,
}: Pick<BindingRequest, 'own' | 'inherited' | 'namespace'>): WaypointReference | undefined {
  return (
    named(own.labels, names.USE_WAYPOINT, names.USE_WAYPOINT_NAMESPACE, namespace, false) ??
    (own.labels[names.USE_WAYPOINT]
      ? undefined
      : named(inherited.labels, names.USE_WAYPOINT, names.USE_WAYPOINT_NAMESPACE, namespace, true))
  );
}

/** The second waypoint, under the same rules. */
export function useCanary(own: Labels, inherited: Labels, namespace: string): WaypointReference | undefined {
  const labels = own[names.USE_WAYPOINT_CANARY] ? own : inherited;
  return named(labels, names.USE_WAYPOINT_CANARY, names.USE_WAYPOINT_CANARY_NAMESPACE, namespace, labels !== own);
}

/** Percent of the connections that go to the canary; undefined where the annotation is no number from 0 to 100. */
export function canaryWeight(own: Labels, inherited: Labels): number | undefined {
  const written = own[names.USE_WAYPOINT_CANARY_WEIGHT] ?? inherited[names.USE_WAYPOINT_CANARY_WEIGHT] ?? '0';
  const weight = /^\d{1,3}$/.test(written) ? Number(written) : -1;
  return weight >= 0 && weight <= 100 ? weight : undefined;
}

const BINDING_LABELS = [
  names.USE_WAYPOINT,
  names.USE_WAYPOINT_NAMESPACE,
  names.USE_WAYPOINT_CANARY,
  names.USE_WAYPOINT_CANARY_NAMESPACE,
  names.INGRESS_USE_WAYPOINT,
  names.GATEWAY_MANAGED,
];

function named(labels: Labels, label: string, namespaceLabel: string, fallback: string, inherited: boolean): WaypointReference | undefined {
  const name = labels[label];
  if (!name || name === 'none') return undefined;
  return { name, namespace: labels[namespaceLabel] || fallback, inherited };
}

function takes(gateway: Gateway, view: GatewayView, traffic: 'service' | 'workload'): boolean {
  const type = trafficType(gateway, view.gatewayClass(gateway.className));
  return type === 'all' || type === traffic;
}

function reject(request: BindingRequest, gateway: Gateway, view: GatewayView): { reason: RejectionReason; message: string } | undefined {
  const { traffic, namespace } = request;
  if (request.namespaceOnly && gateway.namespace !== namespace) {
    return {
      reason: 'CrossNamespaceWaypointForbidden',
      message: `${gateway.key} is in another namespace, and this object is visible in its own only`,
    };
  }
  if (!mayAttach(gateway, view.gatewayClass(gateway.className), namespace, request.namespaceLabels)) {
    return {
      reason: 'AttachmentDenied',
      message: `waypoint ${gateway.key} does not let namespace ${namespace} attach: see its allowedRoutes`,
    };
  }
  if (!takes(gateway, view, traffic)) {
    return {
      reason: 'UnsupportedTrafficType',
      message: `waypoint ${gateway.key} is not for ${traffic} traffic: see its label ${names.WAYPOINT_FOR}`,
    };
  }
  return undefined;
}

const absentAddress = (config: MeshModelConfig, { namespace, name }: WaypointReference): GatewayAddress => ({
  destination: { $case: 'hostname', value: { namespace, hostname: `${name}.${namespace}.svc.${config.domain}` } },
  hboneMtlsPort: names.HBONE_PORT,
});

/** Whatever is wrong with the canary, the primary stays bound. */
function canary(
  request: BindingRequest,
  primary: WaypointReference,
  address: GatewayAddress,
  view: GatewayView,
): { weighted: readonly WeightedWaypoint[]; canaryProblem: string | undefined } {
  // The canary counts at the level at which the primary is named.
  const words = primary.inherited ? request.inherited : request.own;
  const reference = useCanary(words.labels, {}, request.namespace);
  if (request.traffic !== 'service' || !reference) return { weighted: [], canaryProblem: undefined };
  const key = `${reference.namespace}/${reference.name}`;
  const without = (why: string) => ({ weighted: [], canaryProblem: `canary ${key} is not used: ${why}` });
  if (reference.name === primary.name && reference.namespace === primary.namespace)
    return without('it is the waypoint itself (CanarySameAsPrimary)');
  const weight = canaryWeight(words.annotations, {});
  if (weight === undefined) return without(`${names.USE_WAYPOINT_CANARY_WEIGHT} is no number from 0 to 100 (CanaryInvalidWeight)`);
  const gateway = view.gateway(key);
  if (!gateway?.address) return without('it does not exist or has no address yet');
  const rejection = reject(request, gateway, view);
  if (rejection) return without(rejection.message);
  const destination = { destination: gateway.address, hboneMtlsPort: names.HBONE_PORT };
  return {
    weighted: [
      { destination: address, weight: 100 - weight },
      { destination, weight },
    ],
    canaryProblem: undefined,
  };
}

/** @param label the value of INGRESS_USE_WAYPOINT, from the object or its namespace */
function ingressSentence(label: string | undefined): string | undefined {
  if (label === undefined) return undefined;
  return label === 'true'
    ? 'ingress gateways go through it too'
    : `ingress gateways bypass it, as ${names.INGRESS_USE_WAYPOINT} is not "true"`;
}
