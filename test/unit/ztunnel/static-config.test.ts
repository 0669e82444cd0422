import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { stateDump } from '../../../common/state/config-dump.ts';
import { parseStaticConfig, staticResources } from '../../../common/state/static-config.ts';
import { MeshStateWriter } from '../../../common/state/writer.ts';
import { ConfigError } from '../../../common/state/yaml-node.ts';

const WORKLOAD = `workloads:
- name: client
  namespace: shop
  workloadIps: [10.0.0.1, "fd00::1"]
  services: {}
`;

describe('a static configuration', () => {
  test('gives fields that it leaves out their defaults, and a uid where it has none', () => {
    const [client] = parseStaticConfig(WORKLOAD).workloads;
    assert.deepEqual(client?.addresses, ['10.0.0.1', 'fd00::1']);
    const { uid, protocol, serviceAccount, trustDomain, network, capacity, healthy } = client ?? assert.fail();
    assert.deepEqual(
      [uid, protocol, serviceAccount, trustDomain, network, capacity, healthy],
      ['static/shop/client', 'TCP', 'default', 'cluster.local', '', 1, true],
    );
  });

  test('may be empty, or hold any of its three lists', () => {
    for (const yaml of ['', '---\n', '{}', 'policies: []']) {
      assert.deepEqual(parseStaticConfig(yaml), { workloads: [], services: [], policies: [] });
    }
  });

  test('says everything that a workload, a service and a policy can be', () => {
    const { workloads, services, policies } = parseStaticConfig(`
workloads:
- uid: u
  name: n
  namespace: ns
  workloadIps: []
  hostname: h.example.com
  protocol: HBONE
  networkMode: HostNetwork
  status: Unhealthy
  capacity: 0
  nativeTunnel: true
  waypoint: {destination: ns/wp.example.com, hboneMtlsPort: 15008}
  networkGateway: {destination: net-2/10.9.9.9, hboneMtlsPort: 15009}
  applicationTunnel: {protocol: PROXY, port: 15088}
  locality: {region: r, zone: z}
  authorizationPolicies: [ns/p]
  services: {"ns/s.example.com": {80: 8080, 443: 0}}
services:
- name: s
  namespace: ns
  hostname: s.example.com
  vips: [/10.96.0.1, net-2/fd00::1]
  cidrVips: [{network: "", cidr: 10.0.0.0/8}]
  ports: {80: 8080}
  ipFamilies: IPv6
  canonical: true
  visibility: Namespace
  weightedWaypoints: [{destination: {destination: /10.0.0.9, hboneMtlsPort: 1}, weight: 3}]
  loadBalancer: {mode: Failover, routingPreferences: [Network, Zone], healthPolicy: AllowAll}
policies:
- name: p
  namespace: ns
  scope: Global
  action: Deny
  dryRun: true
  rules: [[[{principals: [{Exact: a}, !Prefix b, !Suffix c, !Presence []], sourceIps: [10.0.0.0/8], notDestinationPorts: [22]}], []]]
`);
    const [own] = workloads;
    assert.deepEqual([own?.hostNetwork, own?.healthy, own?.capacity, own?.locality.subzone], [true, false, 0, '']);
    assert.deepEqual(own?.waypoint, { destination: { namespace: 'ns', hostname: 'wp.example.com' }, hbonePort: 15008 });
    assert.deepEqual(own?.networkGateway, { destination: { address: { network: 'net-2', ip: '10.9.9.9' } }, hbonePort: 15009 });
    assert.deepEqual(
      [...(own?.services.get('ns/s.example.com') ?? [])],
      [
        [80, 8080],
        [443, 0],
      ],
    );
    const [service] = services;
    assert.deepEqual(service?.addresses, [
      { network: '', ip: '10.96.0.1' },
      { network: 'net-2', ip: 'fd00::1' },
    ]);
    assert.deepEqual([service?.ipFamily, service?.namespaceOnly, service?.ranges.length], ['IPV6', true, 1]);
    assert.deepEqual(service?.loadBalancing, { mode: 'FAILOVER', preferences: ['NETWORK', 'ZONE'], allowUnhealthy: true });
    assert.deepEqual(service?.weightedWaypoints, [
      { gateway: { destination: { address: { network: '', ip: '10.0.0.9' } }, hbonePort: 1 }, weight: 3 },
    ]);
    const [policy] = policies;
    assert.deepEqual(policy?.groups[0]?.[0]?.[0]?.principals, [{ exact: 'a' }, { prefix: 'b' }, { suffix: 'c' }, { presence: true }]);
    assert.deepEqual([policy?.scope, policy?.action, policy?.dryRun, policy?.groups[0]?.length], ['GLOBAL', 'DENY', true, 2]);
  });

  test('is the same state again when a dump of it is read as a configuration', () => {
    const load = (yaml: string): MeshStateWriter => {
      const writer = new MeshStateWriter({ maxBytes: 1 << 20 });
      for (const push of staticResources(yaml)) assert.deepEqual(writer.apply(push).rejected, []);
      return writer;
    };
    const { workloads, policies } = stateDump(
      load(
        `${WORKLOAD}policies:\n- {name: p, namespace: shop, scope: Namespace, action: Allow, rules: [[[{namespaces: [{Exact: a}]}]]]}\n`,
      ),
    );
    const again = load(JSON.stringify({ workloads: workloads.map((own) => ({ services: {}, ...own })), policies }));
    assert.deepEqual(stateDump(again).workloads, workloads);
    assert.deepEqual(stateDump(again).policies, policies);
  });
});

describe('a mistake in a static configuration', () => {
  const service = '- name: s\n  namespace: n\n  hostname: h\n';
  const cases: readonly (readonly [what: string, yaml: string, message: RegExp])[] = [
    ['a list for a document', '- a\n- b\n', /expected a mapping, found a list \(line 1\)/],
    ['an unknown key at the top', 'workload: []\n', /unknown key "workload"; known: workloads, services, policies/],
    ['an unknown key within', WORKLOAD.replace('name:', 'nmae:'), /^workloads\[0\]: unknown key "nmae".*\(line 2\)$/],
    ['a missing key', WORKLOAD.replace('  services: {}\n', ''), /^workloads\[0\]: missing key "services" \(line 2\)$/],
    [
      'no address',
      WORKLOAD.replace('10.0.0.1', '10.0.0'),
      /^workloads\[0\]\.workloadIps\[0\]: expected an IP address, found "10.0.0" \(line 4\)$/,
    ],
    ['a word of another kind', `${WORKLOAD}  protocol: hbone\n`, /^workloads\[0\]\.protocol: expected one of HBONE, TCP, found "hbone"/],
    [
      'a service without namespace',
      WORKLOAD.replace('{}', '{"api": {80: 80}}'),
      /^workloads\[0\]\.services\.api: expected namespace\/hostname/,
    ],
    [
      'a port that is none',
      WORKLOAD.replace('{}', '{"a/b": {http: 80}}'),
      /^workloads\[0\]\.services\["a\/b"\]\.http: expected a port as key/,
    ],
    [
      'a target that is none',
      WORKLOAD.replace('{}', '{"a/b": {80: 70000}}'),
      /services\["a\/b"\]\["?80"?\]|services\["a\/b"\]\.80: expected a whole number from 0 to 65535, found 70000/,
    ],
    [
      'an address without network',
      `services:\n${service}  vips: [10.0.0.1]\n  ports: {}\n`,
      /^services\[0\]\.vips\[0\]: expected network\/address/,
    ],
    [
      'text for a flag',
      `services:\n${service}  vips: []\n  ports: {}\n  canonical: "yes"\n`,
      /^services\[0\]\.canonical: expected true or false, found "yes"/,
    ],
    [
      'a waypoint to nowhere',
      `services:\n${service}  vips: []\n  ports: {}\n  waypoint: {destination: nowhere}\n`,
      /waypoint\.destination: expected network\/address or namespace\/hostname/,
    ],
    [
      'a bad scope',
      'policies:\n- {name: a, namespace: b, scope: All, action: Allow, rules: []}\n',
      /^policies\[0\]\.scope: expected one of Global/,
    ],
    [
      'rules of too few levels',
      'policies:\n- {name: a, namespace: b, scope: Global, action: Allow, rules: [{ports: 1}]}\n',
      /^policies\[0\]\.rules\[0\]: expected a list/,
    ],
    [
      'two kinds of match at once',
      'policies:\n- {name: a, namespace: b, scope: Global, action: Allow, rules: [[[{namespaces: [{Exact: a, Prefix: b}]}]]]}\n',
      /expected one of Exact, Prefix/,
    ],
    [
      'a bad range',
      'policies:\n- {name: a, namespace: b, scope: Global, action: Allow, rules: [[[{sourceIps: [10.0.0.0/40]}]]]}\n',
      /sourceIps\[0\]: expected a CIDR/,
    ],
    ['YAML that is none', 'workloads: [\n  {a: b\n', /line/],
    ['a key twice', 'workloads: []\nworkloads: []\n', /duplicated mapping key \(line 2\)/],
    ['two documents', 'workloads: []\n---\nworkloads: []\n', /expected one YAML document/],
  ];
  for (const [what, yaml, message] of cases) {
    test(`(${what}) is named with its place`, () => {
      assert.throws(
        () => parseStaticConfig(yaml),
        (error) => (error instanceof ConfigError && message.test(error.message)) || assert.fail(String(error)),
      );
    });
  }

  test('whatever it is, is a ConfigError or nothing', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.json()), (text) => {
        try {
          parseStaticConfig(text);
        } catch (error) {
          assert.ok(error instanceof ConfigError, String(error));
        }
      }),
    );
  });
});
