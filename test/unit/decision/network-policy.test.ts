import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type NetworkPolicy,
  networkPolicyFindings,
  type PolicedPod,
  policedPod,
  probeSourcesOf,
} from '../../../common/decision/network-policy.ts';

const SOURCES = ['169.254.7.127', 'fd16:9254:7127:1337:ffff:ffff:ffff:ffff'];
const PROBES = { from: SOURCES.map((source) => ({ ipBlock: { cidr: `${source}/${source.includes(':') ? 128 : 32}` } })) };
const pod: PolicedPod = { namespace: 'shop', labels: { app: 'web' }, probePorts: [] };

const policy = (spec: NetworkPolicy['spec'], key = 'shop/web'): NetworkPolicy => {
  const [namespace = '', name = ''] = key.split('/');
  return { metadata: { namespace, name }, ...(spec && { spec }) };
};
const port = (number: number | string): { port: number | string } => ({ port: number });
const found = (policies: NetworkPolicy[], of: PolicedPod = pod): string[] =>
  networkPolicyFindings(policies, of, SOURCES).map(({ effect, what, policy: name }) => `${effect} ${what} ${name}`);

test('a rule that names ports without 15008 shuts callers of the mesh out, and the mend is the port', () => {
  const [finding] = networkPolicyFindings(
    [policy({ ingress: [{ from: [{ podSelector: { matchLabels: { app: 'front' } } }], ports: [port(8080)] }] })],
    pod,
    SOURCES,
  );
  assert.equal(
    finding?.message,
    'NetworkPolicy shop/web lets pods app=front in on port 8080 only; callers of the mesh come by port 15008 and are shut out',
  );
  assert.equal(finding?.mend, 'add {protocol: TCP, port: 15008} to the ports of that rule');
});

test('policies that do not select the pod, or of another namespace, are none of its business', () => {
  const ingress = [{ ports: [port(8080)] }];
  assert.deepEqual(found([policy({ podSelector: { matchLabels: { app: 'db' } }, ingress }), policy({ ingress }, 'other/web')]), []);
  assert.deepEqual(found([policy({ podSelector: { matchExpressions: [{ key: 'app', operator: 'In', values: ['web'] }] }, ingress })]), [
    'blocked tunnels-in shop/web',
  ]);
});

test('who lets everything in, or nothing at all, lets the mesh change nothing', () => {
  assert.deepEqual(found([policy({ ingress: [{}] }), policy({ ingress: [{ from: [{ podSelector: {} }] }] })]), []);
  assert.deepEqual(found([policy({ ingress: [] }), policy({})]), []);
});

test('another rule, also of another policy, that lets the same callers in on 15008 mends it; one for others does not', () => {
  const front = { podSelector: { matchLabels: { app: 'front' } } };
  const narrow = policy({ ingress: [{ from: [front], ports: [port(8080)] }] });
  const tunnel = (from?: object[]): NetworkPolicy => policy({ ingress: [{ ...(from && { from }), ports: [port(15_008)] }] }, 'shop/mesh');
  assert.deepEqual(found([narrow, tunnel()]), ['unfiltered ports-in shop/mesh']);
  assert.deepEqual(found([narrow, tunnel([{ podSelector: { matchLabels: { app: 'front' } } }])]), ['unfiltered ports-in shop/mesh']);
  assert.deepEqual(found([narrow, tunnel([{ podSelector: {} }])]), ['blocked tunnels-in shop/web', 'unfiltered ports-in shop/mesh']);
});

test('ports and 15008 in one rule: the ports are no longer filtered, and the mend names them', () => {
  const [finding] = networkPolicyFindings([policy({ ingress: [{ ports: [port(8080), port('metrics'), port(15_008)] }] })], pod, SOURCES);
  assert.equal(finding?.what, 'ports-in');
  assert.equal(finding?.mend, 'say it in an AuthorizationPolicy: to: [{operation: {ports: ["8080", "metrics"]}}]');
  assert.deepEqual(
    found([policy({ ingress: [{ ports: [{ port: 1024, endPort: 65_535 }] }] })]),
    ['unfiltered ports-in shop/web'],
    'a range with 15008 in it',
  );
});

test('a rule for UDP alone is no reason to say anything, one for all of TCP neither', () => {
  assert.deepEqual(found([policy({ ingress: [{ ports: [{ protocol: 'UDP', port: 53 }] }] })]), []);
  assert.deepEqual(found([policy({ ingress: [{ ports: [{ protocol: 'TCP' }] }] })]), []);
});

test('egress: tunnels out are shut in, DNS and the world outside are not counted', () => {
  const dns = { ports: [{ protocol: 'UDP', port: 53 }, port(53)] };
  const world = { to: [{ ipBlock: { cidr: '203.0.113.0/24' } }], ports: [port(443)] };
  const db = { to: [{ podSelector: { matchLabels: { app: 'db' } } }], ports: [port(5432)] };
  assert.deepEqual(found([policy({ policyTypes: ['Egress'], egress: [dns, world] })]), []);
  assert.deepEqual(found([policy({ policyTypes: ['Egress'], egress: [dns, db] })]), ['blocked tunnels-out shop/web']);
  assert.deepEqual(found([policy({ policyTypes: ['Egress'], egress: [{ ...db, ports: [port(5432), port(15_008)] }] })]), [
    'unfiltered ports-out shop/web',
  ]);
});

test('types decide which direction a policy isolates; without them egress only where it has rules', () => {
  const rules = { ingress: [{ ports: [port(8080)] }], egress: [{ ports: [port(5432)] }] };
  assert.deepEqual(found([policy({ ...rules, policyTypes: ['Egress'] })]), ['blocked tunnels-out shop/web']);
  assert.deepEqual(found([policy({ ...rules, policyTypes: ['Ingress'] })]), ['blocked tunnels-in shop/web']);
  assert.deepEqual(found([policy(rules)]), ['blocked tunnels-in shop/web', 'blocked tunnels-out shop/web']);
});

test("probes of an isolated pod need their link-local source let in, on both families and on the probes' ports", () => {
  const probed = { ...pod, probePorts: [8080] };
  const closed = policy({ podSelector: {} }, 'shop/deny');
  const [finding] = networkPolicyFindings([closed], probed, SOURCES);
  assert.equal(finding?.what, 'probes');
  assert.match(finding?.mend ?? '', /169\.254\.7\.127\/32.*fd16:9254:7127:1337:ffff:ffff:ffff:ffff\/128/);
  assert.deepEqual(found([closed, policy({ ingress: [PROBES] }, 'shop/probes')], probed), []);
  const v4 = policy({ ingress: [{ from: PROBES.from.slice(0, 1) }] }, 'shop/probes');
  assert.deepEqual(found([closed, v4], probed), ['blocked probes shop/deny']);
  const excepted = { ipBlock: { cidr: '0.0.0.0/0', except: ['169.254.0.0/16'] } };
  assert.deepEqual(found([closed, policy({ ingress: [{ from: [excepted, ...PROBES.from.slice(1)] }] }, 'shop/probes')], probed), [
    'blocked probes shop/deny',
  ]);
  assert.deepEqual(found([closed], pod), [], 'nobody probes it over the network');
});

test("only sources of the pod's own families can probe it; before it has an address IPv4 is meant", () => {
  const of = (...ips: string[]): string[] => probeSourcesOf({ metadata: {}, status: { podIPs: ips.map((ip) => ({ ip })) } }, SOURCES);
  assert.deepEqual(of('10.0.0.1', 'fd00::1'), SOURCES);
  assert.deepEqual([of('10.0.0.1'), of('fd00::1'), of()], [SOURCES.slice(0, 1), SOURCES.slice(1), SOURCES.slice(0, 1)]);
});

test('the ports of probes are read from every container, by number or by name; commands connect to nothing', () => {
  const found = policedPod({
    metadata: { namespace: 'shop', labels: { app: 'web' } },
    spec: {
      containers: [
        {
          ports: [{ name: 'http', containerPort: 8080 }],
          readinessProbe: { httpGet: { port: 'http' } },
          livenessProbe: { tcpSocket: { port: 9000 } },
        },
        { startupProbe: { grpc: { port: 50_051 } }, readinessProbe: {}, livenessProbe: { httpGet: { port: 'absent' } } },
      ],
    },
  });
  assert.deepEqual(found, { namespace: 'shop', labels: { app: 'web' }, probePorts: [8080, 9000, 50_051] });
});
