/** TLS that BackendTLSPolicies ask for, put into a service's traffic settings: they count before what a DestinationRule says of TLS, and beside the rest. */
import type { PortTraffic, ServiceTraffic, TrafficPolicy, UpstreamTls } from '../../common/codec/gen/waypoint.ts';
import type { MeshService } from './mesh-service.ts';

export interface WantedTls {
  /** Name of a port; empty for all that no other policy names. */
  readonly section: string;
  readonly origin: string;
  readonly tls: UpstreamTls | undefined;
  /** Why nothing may be sent. */
  readonly refuse: string;
}

export function withBackendTls(service: MeshService, traffic: ServiceTraffic | undefined, wanted: readonly WantedTls[]): ServiceTraffic {
  const whole = wanted.find(({ section }) => section === '');
  const named = new Map(
    wanted.flatMap((one) =>
      one.section === '' ? [] : service.ports.filter(({ name }) => name === one.section).map(({ port }) => [port, one] as const),
    ),
  );
  /** Settings of one layer: its ports are complete, so each port that anybody speaks of gets its own. */
  const layer = (
    policy: TrafficPolicy | undefined,
    ports: readonly PortTraffic[],
  ): { policy: TrafficPolicy | undefined; ports: PortTraffic[] } => {
    const numbers = new Set([...ports.map(({ port }) => port), ...named.keys()]);
    return {
      policy: secured(policy, whole),
      ports: [...numbers]
        .sort((a, b) => a - b)
        .map((port) => ({ port, policy: secured(ports.find((one) => one.port === port)?.policy ?? policy, named.get(port) ?? whole) })),
    };
  };
  return {
    namespace: service.namespace,
    hostname: service.hostname,
    ...layer(traffic?.policy, traffic?.ports ?? []),
    subsets: (traffic?.subsets ?? []).map((subset) => ({ ...subset, ...layer(subset.policy ?? traffic?.policy, subset.ports) })),
  };
}

function secured(policy: TrafficPolicy | undefined, wanted: WantedTls | undefined): TrafficPolicy | undefined {
  if (!wanted) return policy;
  const { origin, tls } = wanted;
  return {
    ...(policy ?? { proxyProtocol: 0 }),
    origin: policy ? `${policy.origin}, ${origin}` : origin,
    tls,
    refuse: [policy?.refuse ?? '', wanted.refuse].filter((reason) => reason !== '').join('; '),
  };
}
