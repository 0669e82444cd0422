import assert from 'node:assert/strict';
import { test } from 'node:test';
import packet from 'dns-packet';
import { type DnsView, resolve } from '../../../playground/dns/records.ts';
import { answerTo } from '../../../playground/dns/server.ts';
import type { EndpointSlice, Service } from '../../../playground/objects.ts';

const service = (name: string, spec: Service['spec']): Service => ({
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name, namespace: 'shop' },
  spec,
});

const services: readonly Service[] = [
  service('web', { clusterIPs: ['10.96.1.1', 'fd00:10:96::1'], ports: [{ name: 'http', port: 80 }] }),
  service('old', { clusterIPs: ['10.96.1.2'], ports: [{ port: 80 }] }),
  service('each', { clusterIP: 'None', clusterIPs: ['None'], ports: [{ name: 'http', port: 8080 }] }),
  service('alias', { type: 'ExternalName', externalName: 'web.shop.svc.cluster.local' }),
  service('outside', { type: 'ExternalName', externalName: 'example.com' }),
];

const slices: readonly EndpointSlice[] = [
  {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { name: 'each-1', namespace: 'shop' },
    addressType: 'IPv4',
    endpoints: [
      { addresses: ['10.244.1.2'], conditions: { ready: true }, hostname: 'each-0' },
      { addresses: ['10.244.2.3'], conditions: { ready: true } },
      { addresses: ['10.244.2.4'], conditions: { ready: false } },
    ],
    ports: [{ name: 'http', port: 8080, protocol: 'TCP' }],
  },
];

const view: DnsView = {
  service: (namespace, name) => (namespace === 'shop' ? services.find(({ metadata }) => metadata.name === name) : undefined),
  slices: (_namespace, name) => (name === 'each' ? slices : []),
  namespaceExists: (name) => name === 'shop',
};

const ask = (name: string, type = 'A') => {
  const { code, answers } = resolve({ name, type }, view);
  return [
    code,
    ...answers.map((answer) =>
      typeof answer.data === 'string' ? `${answer.type} ${answer.data}` : `${answer.type} ${answer.data.port} ${answer.data.target}`,
    ),
  ];
};

for (const [what, name, type, expected] of [
  ['a service has its virtual addresses, by family', 'web.shop.svc.cluster.local', 'A', ['NOERROR', 'A 10.96.1.1']],
  ['a service has its virtual addresses, by family', 'web.shop.svc.cluster.local', 'AAAA', ['NOERROR', 'AAAA fd00:10:96::1']],
  ['names are compared without case', 'WEB.Shop.svc.CLUSTER.local', 'A', ['NOERROR', 'A 10.96.1.1']],
  ['a name without an address of the family exists all the same', 'old.shop.svc.cluster.local', 'AAAA', ['NOERROR']],
  ['a headless service has its ready endpoints', 'each.shop.svc.cluster.local', 'A', ['NOERROR', 'A 10.244.1.2', 'A 10.244.2.3']],
  ['an endpoint with a hostname has a name', 'each-0.each.shop.svc.cluster.local', 'A', ['NOERROR', 'A 10.244.1.2']],
  ['an endpoint without one is named after its address', '10-244-2-3.each.shop.svc.cluster.local', 'A', ['NOERROR', 'A 10.244.2.3']],
  ['an endpoint that is not ready has none', '10-244-2-4.each.shop.svc.cluster.local', 'A', ['NXDOMAIN']],
  [
    'an external name inside the cluster is followed',
    'alias.shop.svc.cluster.local',
    'A',
    ['NOERROR', 'CNAME web.shop.svc.cluster.local', 'A 10.96.1.1'],
  ],
  ['an external name outside is an alias only', 'outside.shop.svc.cluster.local', 'A', ['NOERROR', 'CNAME example.com']],
  ['a named port has a service record', '_http._tcp.web.shop.svc.cluster.local', 'SRV', ['NOERROR', 'SRV 80 web.shop.svc.cluster.local']],
  [
    'a headless named port has one for each endpoint',
    '_http._tcp.each.shop.svc.cluster.local',
    'SRV',
    ['NOERROR', 'SRV 8080 each-0.each.shop.svc.cluster.local', 'SRV 8080 10-244-2-3.each.shop.svc.cluster.local'],
  ],
  ['a pod has a name by its address', '10-244-1-2.shop.pod.cluster.local', 'A', ['NOERROR', 'A 10.244.1.2']],
  ['an unknown service does not exist', 'nothing.shop.svc.cluster.local', 'A', ['NXDOMAIN']],
  ['an unknown namespace does not exist', 'web.nowhere.svc.cluster.local', 'A', ['NXDOMAIN']],
  ['a namespace exists and has no records', 'shop.svc.cluster.local', 'A', ['NOERROR']],
  ['nothing outside the cluster exists', 'example.com', 'A', ['NXDOMAIN']],
] as const) {
  test(`${what}: ${type} ${name}`, () => assert.deepEqual(ask(name, type), expected));
}

test('an alias that leads to itself ends', () => {
  const loop: DnsView = {
    ...view,
    service: (_namespace, name) => service(name, { type: 'ExternalName', externalName: `${name}.shop.svc.cluster.local` }),
  };
  assert.equal(resolve({ name: 'a.shop.svc.cluster.local', type: 'A' }, loop).answers.length, 9);
});

const query = (name: string, type: 'A' | 'AAAA', extra: Partial<packet.Packet> = {}): Buffer =>
  packet.encode({ type: 'query', id: 7, flags: packet.RECURSION_DESIRED, questions: [{ type, name }], ...extra });

test('an answer repeats id and question, is authoritative, and says NXDOMAIN with a start of authority', () => {
  const reply = packet.decode(answerTo(query('nothing.shop.svc.cluster.local', 'A'), view, 'udp') ?? Buffer.alloc(0));
  assert.equal(reply.id, 7);
  assert.equal('rcode' in reply && reply.rcode, 'NXDOMAIN');
  assert.equal(reply.flag_aa, true);
  assert.equal(reply.authorities?.[0]?.type, 'SOA');
  assert.deepEqual(
    reply.questions?.map(({ name }) => name),
    ['nothing.shop.svc.cluster.local'],
  );
});

test('an answer that does not fit into UDP is cut with the truncation flag, and whole over TCP', () => {
  const many: DnsView = {
    ...view,
    slices: () => [{ ...slices[0], endpoints: Array.from({ length: 60 }, (_, i) => ({ addresses: [`10.244.3.${i}`] })) } as EndpointSlice],
  };
  const question = query('each.shop.svc.cluster.local', 'A');
  const cut = packet.decode(answerTo(question, many, 'udp') ?? Buffer.alloc(0));
  assert.equal(cut.flag_tc, true);
  assert.equal(cut.answers?.length, 0);
  assert.equal(packet.decode(answerTo(question, many, 'tcp') ?? Buffer.alloc(0)).answers?.length, 60);
  const edns = query('each.shop.svc.cluster.local', 'A', {
    additionals: [
      { type: 'OPT', name: '.', udpPayloadSize: 4096, extendedRcode: 0, ednsVersion: 0, flags: 0, flag_do: false, options: [] },
    ],
  });
  assert.equal(packet.decode(answerTo(edns, many, 'udp') ?? Buffer.alloc(0)).answers?.length, 60);
});

test('what is no query gets a format error or no answer, never an exception', () => {
  assert.equal(answerTo(Buffer.alloc(3), view, 'udp'), undefined);
  const garbage = Buffer.from('beef0100000100000000000005', 'hex');
  assert.equal((answerTo(garbage, view, 'udp') ?? Buffer.alloc(0)).toString('hex'), 'beef80010000000000000000');
  const response = packet.encode({ type: 'response', id: 1, questions: [{ type: 'A', name: 'a' }] });
  assert.equal(answerTo(response, view, 'udp'), undefined);
});
