/** Which endpoints ztunnel prefers (Istio, pilot/pkg/serviceregistry/ambient). A fresh object for each service: shared ones leak into each other. */
import {
  LoadBalancing_HealthPolicy as HealthPolicy,
  type LoadBalancing,
  LoadBalancing_Mode as Mode,
  LoadBalancing_Scope as Scope,
} from '../../common/codec/gen/workload.ts';

const SAME_ZONE = [Scope.NETWORK, Scope.REGION, Scope.ZONE];
const SAME_NODE = [...SAME_ZONE, Scope.SUBZONE, Scope.NODE];

/** `trafficDistribution` of a Service, or the annotation of that name; undefined for any other word. */
export function distribution(word: string | undefined): LoadBalancing | undefined {
  switch (word?.toLowerCase()) {
    case 'preferclose':
    case 'prefersamezone':
      return { routingPreference: [...SAME_ZONE], mode: Mode.FAILOVER, healthPolicy: HealthPolicy.ONLY_HEALTHY };
    case 'prefersamenode':
      return { routingPreference: [...SAME_NODE], mode: Mode.FAILOVER, healthPolicy: HealthPolicy.ONLY_HEALTHY };
    default:
      return undefined;
  }
}

/** internalTrafficPolicy: Local. */
export const nodeOnly = (): LoadBalancing => ({
  routingPreference: [Scope.NODE],
  mode: Mode.STRICT,
  healthPolicy: HealthPolicy.ONLY_HEALTHY,
});

/** ServiceEntry with resolution NONE: to wherever the client was going. */
export const passthrough = (): LoadBalancing => ({ routingPreference: [], mode: Mode.PASSTHROUGH, healthPolicy: HealthPolicy.ALLOW_ALL });

/** publishNotReadyAddresses, added to whatever else holds. */
export const withUnhealthy = (balancing: LoadBalancing | undefined): LoadBalancing => ({
  routingPreference: balancing?.routingPreference ?? [],
  mode: balancing?.mode ?? Mode.UNSPECIFIED_MODE,
  healthPolicy: HealthPolicy.ALLOW_ALL,
});
