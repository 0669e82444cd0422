import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  AppProtocol,
  IPFamilies,
  LoadBalancing_HealthPolicy,
  LoadBalancing_Mode,
  LoadBalancing_Scope as Scope,
} from '../../../common/codec/gen/workload.ts';
import { appProtocolOf, declaredProtocol } from '../../../istiod-lite/model/app-protocol.ts';
import { readService, serviceMessage } from '../../../istiod-lite/model/service.ts';
import { entryEndpoints, entryServices, readServiceEntry } from '../../../istiod-lite/model/service-entry.ts';
import * as make from '../../support/kube-objects.ts';

const config = {
  clusterId: 'Kubernetes',
  domain: 'cluster.local',
  rootNamespace: 'istio-system',
  trustDomain: 'cluster.local',
  network: 'n1',
};
const alone = { distribution: undefined, waypoint: undefined, weightedWaypoints: [], ingressUseWaypoint: false, canonical: true };

function read(fields: Partial<make.ServiceFields> = {}, problems: string[] = []) {
  const service = readService(config, make.service({ name: 'web', ...fields }), (message) => problems.push(message));
  assert.ok(service);
  return service;
}

const balancing = (fields: Partial<make.ServiceFields>, inherited?: string) =>
  serviceMessage(read(fields), { ...alone, distribution: inherited }).loadBalancing;

test('traffic policy goes before distribution, the object before its namespace', () => {
  const near = [Scope.NETWORK, Scope.REGION, Scope.ZONE];
  assert.deepEqual(
    balancing({ spec: { internalTrafficPolicy: 'Local', trafficDistribution: 'PreferClose' } })?.mode,
    LoadBalancing_Mode.STRICT,
  );
  assert.deepEqual(balancing({ spec: { trafficDistribution: 'PreferSameZone' } }, 'PreferSameNode')?.routingPreference, near);
  assert.deepEqual(balancing({}, 'PreferSameNode')?.routingPreference, [...near, Scope.SUBZONE, Scope.NODE]);
  assert.equal(balancing({ annotations: { 'networking.istio.io/traffic-distribution': 'whatever' } }, 'PreferClose'), undefined);
});

test('unready endpoints are added to whatever distribution there is, and to no other service', () => {
  const spec = { publishNotReadyAddresses: true };
  assert.equal(balancing({ spec })?.healthPolicy, LoadBalancing_HealthPolicy.ALLOW_ALL);
  assert.equal(balancing({ spec })?.mode, LoadBalancing_Mode.UNSPECIFIED_MODE);
  const both = balancing({ spec }, 'PreferClose');
  assert.equal(both?.mode, LoadBalancing_Mode.FAILOVER);
  assert.equal(both?.healthPolicy, LoadBalancing_HealthPolicy.ALLOW_ALL);
  assert.equal(balancing({}, 'PreferClose')?.healthPolicy, LoadBalancing_HealthPolicy.ONLY_HEALTHY);
});

test('a headless service has no address, one of two families has both', () => {
  assert.deepEqual(read({ vip: 'None' }).addresses, []);
  const dual = read({ spec: { clusterIPs: ['10.96.0.1', 'fd00::1'], ipFamilies: ['IPv4', 'IPv6'] } });
  assert.equal(dual.addresses.length, 2);
  assert.equal(dual.ipFamilies, IPFamilies.DUAL);
});

test('a target port is a number, a name that each pod resolves, or the port itself', () => {
  const ports = [{ port: 80, targetPort: 8080 }, { port: 81, targetPort: 'web' }, { port: 82 }, { port: 83, targetPort: '8083' }];
  assert.deepEqual(
    read({ ports }).ports.map(({ port, target, targetName }) => [port, target, targetName]),
    [
      [80, 8080, ''],
      [81, 0, 'web'],
      [82, 82, ''],
      [83, 8083, ''],
    ],
  );
});

test('ports and addresses that are none are left out and named', () => {
  const problems: string[] = [];
  const service = read({ vip: '10.96.0.256', ports: [{ port: 70000 }, { port: 80 }] }, problems);
  assert.deepEqual(
    service.ports.map(({ port }) => port),
    [80],
  );
  assert.deepEqual(problems, ['spec.ports: 70000 is no port', 'spec.clusterIPs: "10.96.0.256" is no address']);
});

test('an alias of DNS is no service', () => {
  assert.equal(
    readService(config, make.service({ name: 'x', spec: { type: 'ExternalName', externalName: 'example.com' } }), () => {}),
    undefined,
  );
});

test("a port's protocol comes from appProtocol, then from its name, then from its number", () => {
  const of = (port: Partial<Parameters<typeof appProtocolOf>[0]>) =>
    appProtocolOf({ number: 80, name: '', protocol: 'TCP', appProtocol: '', ...port });
  assert.equal(of({ appProtocol: 'kubernetes.io/h2c', name: 'tcp' }), AppProtocol.HTTP2);
  assert.equal(of({ appProtocol: 'kubernetes.io/wss' }), AppProtocol.TLS);
  assert.equal(of({ appProtocol: 'HTTPS', name: 'http' }), AppProtocol.TLS);
  assert.equal(of({ name: 'grpc-api' }), AppProtocol.GRPC);
  assert.equal(of({ name: 'grpc-web-api' }), AppProtocol.UNKNOWN);
  assert.equal(of({ name: 'HTTP2-x' }), AppProtocol.HTTP2);
  assert.equal(of({ name: 'httpx' }), AppProtocol.UNKNOWN);
  assert.equal(of({ number: 3306 }), AppProtocol.TCP);
  assert.equal(of({ number: 3306, name: 'mysql' }), AppProtocol.UNKNOWN);
  assert.equal(of({ name: 'http', protocol: 'UDP' }), AppProtocol.UNKNOWN);
  assert.equal(declaredProtocol('GRPC'), AppProtocol.GRPC);
  assert.equal(declaredProtocol('MONGO'), AppProtocol.UNKNOWN);
});

function entry(spec: Record<string, unknown>, status: Record<string, unknown> = {}, problems: string[] = []) {
  const read = readServiceEntry(
    config,
    make.serviceEntry({ name: 'e', spec: { hosts: ['a.example.com'], ports: [{ number: 80, name: 'http' }], ...spec }, status }),
    (message) => problems.push(message),
  );
  assert.ok(read);
  return read;
}

const allocated = {
  addresses: [
    { host: 'a.example.com', value: '240.240.0.1' },
    { host: 'b.example.com', value: '240.240.0.2' },
  ],
};

test("a host has its entry's addresses, else those that were allocated to it, unless nothing is resolved", () => {
  const addresses = (spec: Record<string, unknown>) =>
    entry(spec, allocated).hosts.map(({ addresses: given }) => given.map(({ address }) => address.join('.')));
  assert.deepEqual(addresses({ resolution: 'DNS' }), [['240.240.0.1']]);
  assert.deepEqual(addresses({ resolution: 'DNS', addresses: ['10.0.0.1'] }), [['10.0.0.1']]);
  assert.deepEqual(addresses({ resolution: 'NONE' }), [[]]);
  assert.deepEqual(addresses({ resolution: 'DNS', hosts: ['*.example.com'], addresses: ['10.0.0.1'] }), [[]]);
  assert.deepEqual(addresses({ resolution: 'DYNAMIC_DNS', hosts: ['*.example.com'], addresses: ['10.0.0.1'] }), [['10.0.0.1']]);
});

test('a range keeps its length and loses its host bits; one address in the form of a range is an address', () => {
  const of = (address: string) =>
    entry({ addresses: [address] }).hosts[0]?.addresses.map(({ address: bytes, length }) => [bytes.join('.'), length]);
  assert.deepEqual(of('10.1.2.3/16'), [['10.1.0.0', 16]]);
  assert.deepEqual(of('10.1.2.3/32'), [['10.1.2.3', undefined]]);
});

test('hosts without endpoints that are resolved by name are endpoints themselves, one each', () => {
  const two = entry({ hosts: ['a.example.com', 'b.example.com'], resolution: 'DNS' });
  assert.deepEqual(
    entryEndpoints(two).map(({ host }) => host),
    ['a.example.com', 'b.example.com'],
  );
  assert.deepEqual(entryEndpoints(entry({ resolution: 'STATIC' })), []);
  assert.deepEqual(entryEndpoints(entry({ resolution: 'DNS', workloadSelector: { labels: { app: 'a' } } })), []);
});

test('endpoints on no network, of no form or listed twice are left out and named', () => {
  const problems: string[] = [];
  const endpoints = [
    { address: 'unix:///x' },
    { address: 'not a name' },
    {},
    { address: '192.0.2.1' },
    { address: '192.0.2.1', weight: 3 },
  ];
  assert.equal(entry({ resolution: 'STATIC', endpoints }, {}, problems).endpoints.length, 1);
  assert.equal(problems.length, 4);
});

test('an entry that its mesh shows to nobody is no service', () => {
  assert.deepEqual(entryServices(entry({}), 'NONE'), []);
  assert.equal(entryServices(entry({}), 'NAMESPACE')[0]?.visibility, 1);
});
