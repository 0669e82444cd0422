/** Labels and annotations that the translation reads (Istio, cni/pkg/util). They are Istio's and Kubernetes' interface. */

export const DATAPLANE_MODE = 'istio.io/dataplane-mode';
export const REDIRECTION = 'ambient.istio.io/redirection';
export const TUNNEL = 'networking.istio.io/tunnel';
export const INBOUND_BINDING = 'ambient.istio.io/waypoint-inbound-binding';
/** Of a namespace: Istio's word for what becomes of connections to what is no known service. */
export const OUTBOUND_TRAFFIC_POLICY = 'warren.dev/outbound-traffic-policy';
/** Of a pod or a namespace: `true` refuses who dials pods past their waypoint; the ports of the second are left out. */
export const REQUIRE_WAYPOINT = 'warren.dev/require-waypoint';
export const REQUIRE_WAYPOINT_EXCEPT_PORTS = 'warren.dev/require-waypoint-except-ports';
/** Of a DestinationRule: a way to balance that Istio has no word for, where it leaves the choice open. */
export const LOAD_BALANCER = 'warren.dev/load-balancer';
export const DRY_RUN = 'istio.io/dry-run';

export const USE_WAYPOINT = 'istio.io/use-waypoint';
export const USE_WAYPOINT_NAMESPACE = 'istio.io/use-waypoint-namespace';
export const USE_WAYPOINT_CANARY = 'istio.io/use-waypoint-canary';
export const USE_WAYPOINT_CANARY_NAMESPACE = 'istio.io/use-waypoint-canary-namespace';
export const USE_WAYPOINT_CANARY_WEIGHT = 'istio.io/use-waypoint-canary-weight';
export const INGRESS_USE_WAYPOINT = 'istio.io/ingress-use-waypoint';
export const WAYPOINT_FOR = 'istio.io/waypoint-for';
/** Of a ConfigMap in the control plane's namespace: the class whose Gateways it changes. */
export const DEFAULTS_FOR_CLASS = 'gateway.istio.io/defaults-for-class';

export const GATEWAY_NAME = 'gateway.networking.k8s.io/gateway-name';
export const NAME_OVERRIDE = 'gateway.istio.io/name-override';
export const REVISION = 'istio.io/rev';
export const GATEWAY_MANAGED = 'gateway.istio.io/managed';

export const TRAFFIC_DISTRIBUTION = 'networking.istio.io/traffic-distribution';
export const ENABLE_AUTO_ALLOCATE_IP = 'networking.istio.io/enable-autoallocate-ip';
export const NETWORK = 'topology.istio.io/network';
export const SERVICE_NAME = 'kubernetes.io/service-name';

export const WORKLOAD_NAME = 'service.istio.io/workload-name';
export const CANONICAL_NAME = 'service.istio.io/canonical-name';
export const CANONICAL_REVISION = 'service.istio.io/canonical-revision';
export const AUTO_REGISTRATION_GROUP = 'istio.io/autoRegistrationGroup';

export const REGION = 'topology.kubernetes.io/region';
export const ZONE = 'topology.kubernetes.io/zone';
export const SUBZONE = 'topology.istio.io/subzone';

/** Names of controllers, as GatewayClasses and the statuses of routes say them. */
export const WAYPOINT_CONTROLLER = 'istio.io/mesh-controller';
export const ROUTE_CONTROLLER = 'istio.io/gateway-controller';

/** What waypoints and their Services are found by: the port on which HBONE is spoken, whatever a listener says. */
export const HBONE_PORT = 15008;
