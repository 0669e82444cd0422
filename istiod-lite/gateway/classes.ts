/** The GatewayClasses that istiod-lite makes: the one for waypoints. It is created where it is missing, never changed: it is the user's then. */
import type { KubeObject } from '../../common/client/kube-api.ts';

export const WAYPOINT_CLASS = 'istio-waypoint';
export const MESH_CONTROLLER = 'istio.io/mesh-controller';

export const GATEWAY_CLASSES: readonly KubeObject[] = [
  {
    apiVersion: 'gateway.networking.k8s.io/v1',
    kind: 'GatewayClass',
    metadata: { name: WAYPOINT_CLASS },
    spec: { controllerName: MESH_CONTROLLER, description: 'L7 proxies of the mesh, one Deployment for each Gateway' },
  },
];
