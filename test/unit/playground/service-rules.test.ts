import assert from 'node:assert/strict';
import { test } from 'node:test';
import { serviceRules, virtualPorts } from '../../../playground/network/service-rules.ts';
import type { EndpointSlice, Service } from '../../../playground/objects.ts';

const own = { own: { v4: '172.30.0.11', v6: 'fd00:172:30::b' } };

const service = (spec: Partial<Service['spec']> = {}): Service => ({
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name: 'web', namespace: 'shop' },
  spec: { clusterIPs: ['10.96.1.1', 'fd00:10:96::1:1'], ports: [{ name: 'http', port: 80, targetPort: 8080 }], ...spec },
});

const slice = (addressType: 'IPv4' | 'IPv6', endpoints: EndpointSlice['endpoints'], port = 8080): EndpointSlice => ({
  apiVersion: 'discovery.k8s.io/v1',
  kind: 'EndpointSlice',
  metadata: { name: 'web-1', namespace: 'shop', labels: { 'kubernetes.io/service-name': 'web' } },
  addressType,
  endpoints: endpoints ?? [],
  ports: [{ name: 'http', port, protocol: 'TCP' }],
});

const ready = { ready: true, serving: true, terminating: false };
const leaving = { ready: false, serving: true, terminating: true };
const starting = { ready: false, serving: false, terminating: false };

test('each address family of a service leads to the endpoints of its own slices', () => {
  const ports = virtualPorts(
    [service()],
    [
      slice('IPv4', [{ addresses: ['10.244.1.2'], conditions: ready }]),
      slice('IPv6', [{ addresses: ['fd00:10:244:1::2'], conditions: ready }]),
    ],
  );
  assert.deepEqual(
    ports.map(({ ip, port, endpoints }) => ({ ip, port, endpoints })),
    [
      { ip: '10.96.1.1', port: 80, endpoints: [{ ip: '10.244.1.2', port: 8080 }] },
      { ip: 'fd00:10:96::1:1', port: 80, endpoints: [{ ip: 'fd00:10:244:1::2', port: 8080 }] },
    ],
  );
});

test('pods that are not ready get nothing; those that leave serve only where nobody else does', () => {
  const [first] = virtualPorts(
    [service()],
    [
      slice('IPv4', [
        { addresses: ['10.244.1.2'], conditions: starting },
        { addresses: ['10.244.1.3'], conditions: leaving },
        { addresses: ['10.244.1.4'], conditions: ready },
      ]),
    ],
  );
  assert.deepEqual(first?.endpoints, [{ ip: '10.244.1.4', port: 8080 }]);
  const [last] = virtualPorts(
    [service()],
    [
      slice('IPv4', [
        { addresses: ['10.244.1.2'], conditions: starting },
        { addresses: ['10.244.1.3'], conditions: leaving },
      ]),
    ],
  );
  assert.deepEqual(last?.endpoints, [{ ip: '10.244.1.3', port: 8080 }]);
});

test('headless services and services without an address have no virtual ports', () => {
  assert.deepEqual(virtualPorts([service({ clusterIP: 'None', clusterIPs: ['None'] }), service({ clusterIPs: [] })], []), []);
});

test('internalTrafficPolicy Local keeps to the endpoints of the node itself', () => {
  const local = service({ internalTrafficPolicy: 'Local' });
  const slices = [
    slice('IPv4', [
      { addresses: ['10.244.1.2'], conditions: ready, nodeName: 'node1' },
      { addresses: ['10.244.2.2'], conditions: ready, nodeName: 'node2' },
    ]),
  ];
  assert.deepEqual(virtualPorts([local], slices, 'node2')[0]?.endpoints, [{ ip: '10.244.2.2', port: 8080 }]);
  assert.equal(virtualPorts([local], slices)[0]?.endpoints.length, 2);
});

test('an endpoint that two slices name is picked once', () => {
  const endpoint = { addresses: ['10.244.1.2'], conditions: ready };
  assert.equal(virtualPorts([service()], [slice('IPv4', [endpoint]), slice('IPv4', [endpoint])])[0]?.endpoints.length, 1);
});

test('the rules replace the table in one transaction, spread over endpoints, and turn a pod that calls itself around', () => {
  const rules = serviceRules(
    [
      {
        ip: '10.96.1.1',
        protocol: 'tcp',
        port: 80,
        about: 'shop/web:80',
        endpoints: [
          { ip: '10.244.1.2', port: 8080 },
          { ip: '10.244.2.2', port: 8080 },
        ],
      },
      { ip: 'fd00:10:96::9', protocol: 'udp', port: 53, about: 'a/dns:53', endpoints: [] },
    ],
    own,
  );
  assert.match(rules, /^table inet warren-services\ndelete table inet warren-services\ntable inet warren-services \{/);
  assert.match(
    rules,
    /dnat ip to numgen random mod 2 map \{ 0 : 10\.244\.1\.2 \. 8080, 1 : 10\.244\.2\.2 \. 8080 \} comment "shop\/web:80"/,
  );
  assert.match(rules, /map served4 .* 10\.96\.1\.1 \. tcp \. 80 : goto port-0/);
  assert.match(rules, /set empty6 .* fd00:10:96::9 \. udp \. 53/);
  assert.match(rules, /set self4 .* 10\.244\.1\.2 \. 10\.244\.1\.2, 10\.244\.2\.2 \. 10\.244\.2\.2/);
  assert.match(rules, /@self4 snat ip to 172\.30\.0\.11/);
});

test('without IPv6 on the node there is no rule that needs an IPv6 address', () => {
  assert.doesNotMatch(serviceRules([], { own: { v4: '172.30.0.11', v6: undefined } }), /snat ip6/);
});
