/** Random meshes out of small pools, so that everything collides with everything: names, addresses, services, ranges, waypoints. */
import fc from 'fast-check';
import type { Policy, Service, Workload } from '../../common/decision/mesh-view.ts';
import { cidr, match, policy, service, waypointAt, waypointNamed, workload } from './builders.ts';

export const NAMESPACES = ['a', 'b'];
export const NETWORKS = ['', 'net-2'];
export const NAMES = ['one', 'two', 'three'];
export const HOSTS = ['x.example', 'y.example', '*.example'];
export const IPS = ['10.0.0.1', '10.0.0.2', '10.1.0.1', 'fd00::1', 'fd00:0:1::1'];
export const RANGES = ['10.0.0.0/8', '10.0.0.0/24', '0.0.0.0/0', 'fd00::/16', 'fd00::/64'];
export const UIDS = NAMES.flatMap((name) => [`c1//Pod/a/${name}`, `c1/networking.istio.io/WorkloadEntry/a/${name}`]);

const GATEWAYS = [
  undefined,
  waypointNamed('a', 'x.example'),
  waypointNamed('a', 'nobody.example'),
  waypointAt('10.0.0.2'),
  waypointAt('10.1.0.1'),
];

export const workloads: fc.Arbitrary<Workload> = fc
  .record({
    uid: fc.constantFrom(...UIDS),
    name: fc.constantFrom(...NAMES),
    namespace: fc.constantFrom(...NAMESPACES),
    serviceAccount: fc.constantFrom('default', 'other'),
    network: fc.constantFrom(...NETWORKS),
    addresses: fc.subarray(IPS, { maxLength: 2 }),
    hostname: fc.constantFrom('', 'db.example'),
    protocol: fc.constantFrom('TCP' as const, 'HBONE' as const),
    hostNetwork: fc.boolean(),
    healthy: fc.boolean(),
    capacity: fc.constantFrom(0, 1),
    node: fc.constantFrom('', 'node-1'),
    members: fc.dictionary(fc.constantFrom('a/x.example', 'b/x.example', 'a/y.example'), fc.constantFrom(0, 8080), { maxKeys: 3 }),
    authorizationPolicies: fc.subarray(['a/p', 'a/q']),
    waypoint: fc.constantFrom(...GATEWAYS),
    networkGateway: fc.constantFrom(...GATEWAYS),
    applicationTunnel: fc.constantFrom(undefined, undefined, { protocol: 'PROXY' as const, port: 15088 }),
    locality: fc
      .record({ region: fc.constantFrom('r1', 'r2'), zone: fc.constantFrom('z1', 'z2'), subzone: fc.constant('') })
      .map((place) => ({ ...place })),
  })
  .map(({ members, ...fields }) =>
    workload({ ...fields, services: new Map(Object.entries(members).map(([k, port]) => [k, new Map([[80, port]])])) }),
  );

export const services: fc.Arbitrary<Service> = fc
  .record({
    name: fc.constantFrom(...NAMES),
    namespace: fc.constantFrom(...NAMESPACES),
    hostname: fc.constantFrom(...HOSTS),
    vips: fc.subarray(IPS, { maxLength: 2 }),
    network: fc.constantFrom(...NETWORKS),
    ranges: fc.subarray(RANGES, { maxLength: 2 }),
    canonical: fc.boolean(),
    namespaceOnly: fc.boolean(),
    allowUnhealthy: fc.boolean(),
    waypoint: fc.constantFrom(...GATEWAYS),
    mode: fc.constantFrom('STANDARD' as const, 'FAILOVER' as const, 'STRICT' as const, 'PASSTHROUGH' as const),
    preferences: fc.constantFrom([], ['REGION' as const], ['NETWORK' as const, 'REGION' as const, 'ZONE' as const]),
  })
  .map(({ vips, network, ranges, allowUnhealthy, mode, preferences, ...fields }) => ({
    ...service({ ...fields, ports: { 80: 8080, 15008: 15008 } }),
    addresses: vips.map((ip) => ({ network, ip })),
    ranges: ranges.map((text) => ({ network, cidr: cidr(text) })),
    loadBalancing: { preferences, mode, allowUnhealthy },
  }));

export const policies: fc.Arbitrary<Policy> = fc
  .record({
    name: fc.constantFrom('p', 'q', 'r'),
    namespace: fc.constantFrom(...NAMESPACES),
    scope: fc.constantFrom('GLOBAL' as const, 'NAMESPACE' as const, 'WORKLOAD_SELECTOR' as const),
    action: fc.constantFrom('ALLOW' as const, 'DENY' as const),
    port: fc.nat(3),
  })
  .map(({ port, ...fields }) => policy({ ...fields, groups: [[[match({ destinationPorts: [port] })]]] }));
