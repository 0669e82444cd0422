import assert from 'node:assert/strict';
import { test } from 'node:test';
import { statusTable } from '../../../meshctl/commands/proxy-status.ts';
import { readDump } from '../../../meshctl/ztunnel-config/dump.ts';
import { certificateTable, connectionTable, serviceTable, workloadTable } from '../../../meshctl/ztunnel-config/tables.ts';

const workload = (name: string, fields: object = {}): object => ({
  uid: `c//Pod/shop/${name}`,
  name,
  namespace: 'shop',
  workloadIps: ['10.0.0.1'],
  node: 'node1',
  protocol: 'HBONE',
  status: 'Healthy',
  ...fields,
});
const DUMP = {
  workloads: [
    workload('web', { waypoint: { destination: '/10.96.0.9', hboneMtlsPort: 15008 } }),
    workload('api', {
      workloadIps: ['10.0.0.2', 'fd00::2'],
      status: 'Unhealthy',
      waypoint: { destination: 'shop/gone.shop.svc.cluster.local' },
    }),
    workload('outside', { workloadIps: [], hostname: 'db.example', node: '', protocol: 'TCP' }),
  ],
  services: [
    { name: 'wp', namespace: 'shop', hostname: 'wp.shop.svc.cluster.local', vips: ['/10.96.0.9'], endpoints: {} },
    {
      name: 'web',
      namespace: 'shop',
      hostname: 'web.shop.svc.cluster.local',
      vips: ['/10.96.0.2', '/fd00::20'],
      waypoint: { destination: 'shop/wp.shop.svc.cluster.local' },
      endpoints: { a: { workloadUid: 'c//Pod/shop/web' }, b: { workloadUid: 'c//Pod/shop/api' }, c: { workloadUid: 'unknown' } },
    },
  ],
  workloadState: {
    uid: {
      state: 'Up',
      info: { name: 'web', namespace: 'shop' },
      connections: {
        inbound: [{ src: '10.0.0.2:4000', originalDst: null, actualDst: '10.0.0.1:80', protocol: 'HBONE' }],
        outbound: [{ src: '10.0.0.1:5000', originalDst: '10.96.0.2:80', actualDst: '[fd00::2]:15008', protocol: 'HBONE' }],
      },
    },
  },
};

test('workloads: names of waypoints by address and by hostname, NA where there is none, hostnames where there is no address', () => {
  assert.deepEqual(workloadTable(readDump(DUMP)).split('\n'), [
    'NAMESPACE POD NAME ADDRESS          NODE  WAYPOINT PROTOCOL',
    'shop      api      10.0.0.2,fd00::2 node1 NA       HBONE',
    'shop      outside  db.example             None     TCP',
    'shop      web      10.0.0.1         node1 wp       HBONE',
  ]);
  assert.equal(workloadTable(readDump(DUMP), { address: 'fd00::2' }).split('\n').length, 2);
  assert.equal(workloadTable(readDump(DUMP), { node: 'node2' }).split('\n').length, 1);
});

test('services: only endpoints that are known to be healthy count as such', () => {
  assert.match(serviceTable(readDump(DUMP), 'shop'), /^shop +web +10\.96\.0\.2,fd00::20 wp +1\/3$/m);
  assert.equal(serviceTable(readDump(DUMP), 'other').split('\n').length, 1);
});

test('connections: names for addresses that are known, unless they are wanted raw', () => {
  const lines = connectionTable(readDump(DUMP)).split('\n');
  assert.match(lines[1] ?? '', /^web\.shop Inbound +web\.shop:80 +api\.shop:4000 +HBONE$/);
  assert.match(lines[2] ?? '', /^web\.shop Outbound +web\.shop:5000 api\.shop:15008 web\.shop\.svc\.cluster\.local:80 HBONE$/);
  const raw = connectionTable(readDump(DUMP), { raw: true, direction: 'outbound' }).split('\n');
  assert.equal(raw.length, 2);
  assert.match(raw[1] ?? '', /10\.0\.0\.1:5000 \[fd00::2\]:15008 10\.96\.0\.2:80/);
});

test('certificates: valid is what is valid now; a root of its own list is a root', () => {
  const facts = { serialNumber: '255', validFrom: '2026-01-01T00:00:00Z', expirationTime: '2026-01-02T00:00:00Z' };
  const dump = readDump({ certificates: [{ identity: 'spiffe://x', state: 'Available', certChain: [facts], rootCerts: [facts] }] });
  const at = (when: string): string[] => certificateTable(dump, Date.parse(when)).split('\n').slice(1);
  assert.match(at('2026-01-01T12:00:00Z')[0] ?? '', /^spiffe:\/\/x +Leaf +Available +true +ff +/);
  assert.match(at('2026-01-01T12:00:00Z')[1] ?? '', /^spiffe:\/\/x +Root +Available +true +ff +/);
  assert.match(at('2026-01-03T00:00:00Z')[0] ?? '', / false /);
});

test('what is no dump is refused by name', () => {
  assert.throws(() => readDump([]), /is a JSON object/);
  assert.throws(() => readDump({ workloads: 'many' }), /workloads of the configuration dump: expected a list of objects/);
});

test('proxy-status counts the types, and says what was rejected or is not acknowledged yet', () => {
  const resources = {
    'type.googleapis.com/istio.workload.Address': { sent: '2', acked: '1' },
    'type.googleapis.com/warren.waypoint.v1.ServiceRoutes': { sent: '3', acked: '2', lastError: 'no' },
  };
  const row = { proxy: 'wp-1.shop', proxy_type: 'waypoint', istio_version: '1', cluster_id: 'Kubernetes', resources, istiod: 'istiod-a' };
  assert.match(statusTable([row]), /wp-1\.shop +Kubernetes +istiod-a +1 +2 \(WDS,routes\) 1 rejected, 1 stale$/m);
});
