import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import * as authorization from '../../../common/codec/gen/authorization.ts';
import * as wire from '../../../common/codec/gen/workload.ts';
import { decodeAddress, decodePolicy, ResourceRejected } from '../../../common/state/decode.ts';
import { encodePolicy, encodeService, encodeWorkload } from '../../../common/state/encode.ts';
import { MeshStateWriter } from '../../../common/state/writer.ts';
import { cidr, match, memberOf, policy, service, waypointAt, waypointNamed, workload } from '../../support/builders.ts';
import { addressBytes } from '../../support/proto-json.ts';

const workloadJson = (fields: Record<string, unknown>): Uint8Array => addressBytes('Workload', { uid: 'u', ...fields });

/** A message with fields that types do not allow, as bytes. */
const rawWorkload = (fields: Partial<Record<keyof wire.Workload, unknown>>): Uint8Array => {
  const empty = wire.Workload.decode(new Uint8Array());
  const value = Object.assign(empty, { uid: 'u' }, fields);
  return wire.Address.encode({ type: { $case: 'workload', value } }).finish();
};
const rawService = (fields: Partial<Record<keyof wire.Service, unknown>>): Uint8Array => {
  const value = Object.assign(wire.Service.decode(new Uint8Array()), fields);
  return wire.Address.encode({ type: { $case: 'service', value } }).finish();
};
const rawPolicy = (fields: Partial<Record<keyof authorization.Authorization, unknown>>): Uint8Array =>
  authorization.Authorization.encode(Object.assign(authorization.Authorization.decode(new Uint8Array()), fields)).finish();
const rawMatch = (fields: Partial<Record<keyof authorization.Match, unknown>>): Uint8Array =>
  rawPolicy({ groups: [{ rules: [{ matches: [Object.assign(authorization.Match.decode(new Uint8Array()), fields)] }] }] });

describe('a resource is rejected', () => {
  const addresses: readonly (readonly [why: string, bytes: Uint8Array, reason: RegExp])[] = [
    ['that is neither a workload nor a service', new Uint8Array(), /neither/],
    ['that is cut off', encodeWorkload(workload({ name: 'x' })).slice(0, -3), /no such message/],
    ['that is no protobuf', Uint8Array.of(0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), /no such message/],
    ['without uid', workloadJson({ uid: '' }), /without uid/],
    ['with an address of no length that addresses have', rawWorkload({ addresses: [new Uint8Array(5)] }), /5 bytes/],
    ['with an empty address', rawWorkload({ addresses: [new Uint8Array(0)] }), /0 bytes/],
    ['with an unknown tunnel protocol', rawWorkload({ tunnelProtocol: 7 }), /tunnel protocol 7/],
    ['with the legacy tunnel protocol', rawWorkload({ tunnelProtocol: 2 }), /tunnel protocol 2/],
    ['with an unknown type', rawWorkload({ workloadType: 9 }), /workload type 9/],
    ['with an unknown status', rawWorkload({ status: 3 }), /status 3/],
    ['with an unknown network mode', rawWorkload({ networkMode: 2 }), /network mode 2/],
    ['with a waypoint that is nowhere', rawWorkload({ waypoint: { hboneMtlsPort: 15008 } }), /waypoint without destination/],
    ['with a gateway that is nowhere', rawWorkload({ networkGateway: { hboneMtlsPort: 15008 } }), /gateway without destination/],
    ['with a service key that is none', rawWorkload({ services: { 'no-slash': { ports: [] } } }), /no namespace\/hostname/],
    [
      'with a port beyond all ports',
      rawWorkload({ services: { 'a/b': { ports: [{ servicePort: 65536, targetPort: 1, appProtocol: 0 }] } } }),
      /65536/,
    ],
    ['whose virtual address is none', rawService({ addresses: [{ network: '', address: new Uint8Array(3) }] }), /3 bytes/],
    ['whose prefix is too long', rawService({ addresses: [{ network: '', address: new Uint8Array(4), length: 33 }] }), /33 is beyond 32/],
    ['with an unknown load balancing mode', rawService({ loadBalancing: { routingPreference: [], mode: 9, healthPolicy: 0 } }), /mode 9/],
    [
      'with a preference for nothing',
      rawService({ loadBalancing: { routingPreference: [0], mode: 1, healthPolicy: 0 } }),
      /routing preference 0/,
    ],
    [
      'with an unknown health policy',
      rawService({ loadBalancing: { routingPreference: [], mode: 1, healthPolicy: 2 } }),
      /health policy 2/,
    ],
    ['with unknown families', rawService({ ipFamilies: 4 }), /IP families 4/],
    [
      'with a weighted waypoint that is nowhere',
      rawService({ weightedWaypoints: [{ weight: 1 }] }),
      /weighted waypoint without destination/,
    ],
  ];
  for (const [why, bytes, reason] of addresses) {
    test(why, () => {
      assert.throws(
        () => decodeAddress(bytes),
        (error) => error instanceof ResourceRejected && reason.test(error.message),
      );
    });
  }

  const policies: readonly (readonly [why: string, bytes: Uint8Array, reason: RegExp])[] = [
    ['with an unknown scope', rawPolicy({ scope: 3 }), /scope 3/],
    ['with an unknown action', rawPolicy({ action: 2 }), /action 2/],
    ['with a string match that is none', rawMatch({ principals: [{}] }), /string match/],
    ['with a range of no address', rawMatch({ sourceIps: [{ address: new Uint8Array(2), length: 8 }] }), /2 bytes/],
    [
      'with a range of an endless prefix',
      rawMatch({ notDestinationIps: [{ address: new Uint8Array(16), length: 129 }] }),
      /129 is beyond 128/,
    ],
  ];
  for (const [why, bytes, reason] of policies) {
    test(`${why} (policy)`, () => {
      assert.throws(
        () => decodePolicy(bytes),
        (error) => error instanceof ResourceRejected && reason.test(error.message),
      );
    });
  }
});

describe('a resource is taken', () => {
  test('with the defaults that the contract gives to empty fields', () => {
    const decoded = decodeAddress(workloadJson({ name: 'p', namespace: 'n' }));
    assert.ok('workload' in decoded);
    const { trustDomain, serviceAccount, clusterId, capacity, protocol, healthy } = decoded.workload;
    assert.deepEqual(
      [trustDomain, serviceAccount, clusterId, capacity, protocol, healthy],
      ['cluster.local', 'default', 'Kubernetes', 1, 'TCP', true],
    );
  });

  test('with a visibility from the future, as one for everybody', () => {
    const decoded = decodeAddress(rawService({ hostname: 'h', visibility: 9 }));
    assert.equal('service' in decoded && decoded.service.namespaceOnly, false);
  });

  test('with a prefix of full width as an address, with a shorter one as a range without host bits', () => {
    const decoded = decodeAddress(
      rawService({
        addresses: [
          { network: 'n', address: Uint8Array.of(10, 0, 0, 1), length: 32 },
          { network: 'n', address: Uint8Array.of(10, 0, 0, 1), length: 8 },
        ],
      }),
    );
    assert.ok('service' in decoded);
    assert.deepEqual(decoded.service.addresses, [{ network: 'n', ip: '10.0.0.1' }]);
    assert.deepEqual(decoded.service.ranges, [{ network: 'n', cidr: cidr('10.0.0.0/8') }]);
  });

  test('with IPv4-mapped addresses as IPv4', () => {
    const mapped = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 3);
    const decoded = decodeAddress(rawWorkload({ addresses: [mapped] }));
    assert.deepEqual('workload' in decoded && decoded.workload.addresses, ['10.0.0.3']);
  });

  test('with fields that we do not know', () => {
    const bytes = Uint8Array.of(...encodeWorkload(workload({ name: 'p' })), 0xf8, 0x07, 1);
    assert.ok('workload' in decodeAddress(bytes));
  });

  test('and comes back from its bytes as it went in', () => {
    const full = workload({
      name: 'full',
      addresses: ['10.0.0.1', 'fd00::1'],
      hostname: 'h.example.com',
      network: 'n',
      protocol: 'HBONE',
      nativeTunnel: true,
      hostNetwork: true,
      trustDomain: 'td',
      serviceAccount: 'sa',
      waypoint: waypointAt('10.0.0.9', 1, 'n'),
      networkGateway: waypointNamed('ns', 'gw.example.com', 2),
      applicationTunnel: { protocol: 'PROXY', port: 3 },
      locality: { region: 'r', zone: 'z', subzone: 's' },
      canonicalName: 'c',
      canonicalRevision: 'v',
      workloadName: 'w',
      workloadType: 'cronjob',
      authorizationPolicies: ['a/b'],
      healthy: false,
      capacity: 0,
      services: memberOf([service({ name: 's' }), { 80: 81 }]),
      outboundTrafficPolicy: 'REGISTRY_ONLY',
      requireWaypoint: { always: true, exceptPorts: [9090, 15020] },
    });
    assert.deepEqual(decodeAddress(encodeWorkload(full)), { workload: full });
    const own = service({
      name: 's',
      vips: ['10.96.0.1'],
      ranges: [{ network: '', cidr: cidr('fd00::/16') }],
      subjectAltNames: ['spiffe://a/ns/b/sa/c'],
      waypoint: waypointNamed('ns', 'wp.example.com'),
      weightedWaypoints: [{ gateway: waypointAt('10.0.0.8'), weight: 7 }],
      loadBalancing: { mode: 'FAILOVER', preferences: ['NETWORK', 'REGION', 'ZONE', 'SUBZONE', 'NODE', 'CLUSTER'], allowUnhealthy: true },
      ipFamily: 'IPV6',
      canonical: true,
      namespaceOnly: true,
    });
    assert.deepEqual(decodeAddress(encodeService(own)), { service: own });
    const rule = match({
      namespaces: [{ exact: 'a' }, { prefix: 'b' }, { suffix: 'c' }, { presence: true }],
      notSourceIps: [cidr('10.0.0.0/8')],
      destinationPorts: [1, 2],
      serviceAccounts: [{ namespace: 'n', serviceAccount: 's' }],
    });
    const whole = policy({ name: 'p', scope: 'GLOBAL', action: 'DENY', dryRun: true, groups: [[[rule], []], []] });
    assert.deepEqual(decodePolicy(encodePolicy(whole)), whole);
  });
});

describe('hostile bytes', () => {
  test('never make a push throw', () => {
    const seeds = [
      encodeWorkload(workload({ name: 'x', addresses: ['10.0.0.1'] })),
      encodeService(service({ name: 's', vips: ['10.96.0.1'] })),
    ];
    const mutated = fc
      .tuple(fc.constantFrom(...seeds), fc.array(fc.tuple(fc.nat(400), fc.nat(255)), { maxLength: 6 }))
      .map(([seed, changes]) => changes.reduce((bytes, [at, value]) => bytes.with(at % bytes.length, value), seed));
    const bytes = fc.oneof(mutated, fc.uint8Array({ maxLength: 80 }));
    const writer = new MeshStateWriter({ maxBytes: 32 << 20 });
    const typeUrl = fc.constantFrom('type.googleapis.com/istio.workload.Address', 'type.googleapis.com/istio.security.Authorization');
    fc.assert(
      fc.property(fc.array(bytes, { minLength: 1, maxLength: 4 }), typeUrl, (resources, type) => {
        writer.apply({
          typeUrl: type,
          resources: resources.map((own, i) => ({ name: `r${i}`, version: '', bytes: own })),
          removed: ['__proto__'],
        });
        writer.view().workloadByAddress('', '10.0.0.1');
      }),
      { numRuns: 400 },
    );
  });
});
