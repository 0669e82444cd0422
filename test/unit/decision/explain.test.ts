import assert from 'node:assert/strict';
import { test } from 'node:test';
import { explainInbound, explainOutbound } from '../../../common/decision/explain.ts';
import type { GatewayAddress } from '../../../common/decision/mesh-view.ts';
import { cidr, match, memberOf, policy, service, workload } from '../../support/builders.ts';
import { PlainMesh } from '../../support/plain-mesh.ts';

const orders = service({ name: 'orders', vips: ['10.96.0.1'] });
const pod = (name: string, ip: string, fields = {}) =>
  workload({ name, addresses: [ip], protocol: 'HBONE', serviceAccount: name, services: memberOf(orders), ...fields });
const client = workload({ name: 'client', addresses: ['10.0.0.9'], protocol: 'HBONE', serviceAccount: 'client' });
const to = (ip: string, port = 80) => ({ source: client, destination: { ip, port }, network: '' });

test('all ways that chance can bring are shown with their share, the likeliest first, and always the same', () => {
  const mesh = new PlainMesh({ services: [orders], workloads: [client, pod('a', '10.0.0.1', { capacity: 3 }), pod('b', '10.0.0.2')] });
  const explained = explainOutbound(mesh, to('10.96.0.1'));
  assert.deepEqual(
    explained.routes.map(({ via, to: dialled, authority, pod: whose }) => [via, dialled, authority, whose?.name]),
    [
      ['hbone', '10.0.0.1:15008', '10.0.0.1:8080', 'a'],
      ['hbone', '10.0.0.2:15008', '10.0.0.2:8080', 'b'],
    ],
  );
  assert.ok((explained.routes[0]?.share ?? 0) > 0.6 && (explained.routes[0]?.share ?? 1) < 0.9);
  assert.deepEqual(explained.routes[0]?.peers, ['spiffe://cluster.local/ns/shop/sa/a']);
  assert.deepEqual(explainOutbound(mesh, to('10.96.0.1')), explained);
});

test('the steps name the service, a port that it lacks, its waypoint, and what nobody knows', () => {
  const gateway: GatewayAddress = { destination: { namespace: 'shop', hostname: 'wp.shop.svc.cluster.local' }, hbonePort: 15008 };
  const bound = service({ name: 'bound', vips: ['10.96.0.2'], waypoint: gateway });
  const mesh = new PlainMesh({ services: [orders, bound], workloads: [client] });
  const texts = (ip: string, port?: number): string[] => explainOutbound(mesh, to(ip, port)).steps.map(({ text }) => text);
  assert.deepEqual(texts('10.96.0.1', 81), [
    '10.96.0.1 is Service shop/orders (orders.shop.svc.cluster.local)',
    'it has no port 81, but 80',
    'bound to no waypoint',
  ]);
  assert.equal(texts('10.96.0.2').at(-1), 'bound to waypoint shop/wp.shop.svc.cluster.local');
  assert.deepEqual(
    explainOutbound(mesh, to('10.96.0.2')).routes.map(({ via, code }) => [via, code]),
    [['refuse', 'WAYPOINT_ABSENT']],
  );
  assert.deepEqual(texts('192.0.2.1'), ['192.0.2.1 is nothing that the mesh knows']);
  assert.match(texts('10.0.0.9')[0] ?? '', /is shop\/client itself/);
});

const local = pod('a', '10.0.0.1', { authorizationPolicies: ['shop/only-front', 'shop/no-evil'] });
const identity = { trustDomain: 'cluster.local', namespace: 'shop', serviceAccount: 'client' };
const arriving = (fields: object = {}) => ({
  local,
  network: '',
  source: { ip: '10.0.0.9', port: 40_000 },
  identity,
  authority: '10.0.0.1:8080',
  destination: { ip: '10.0.0.1', port: 15008 },
  ...fields,
});

test('each policy says which rule matched, or what each rule lacked, and which one decided', () => {
  const only = policy({
    name: 'only-front',
    action: 'ALLOW',
    groups: [
      [[match({ principals: [{ exact: 'cluster.local/ns/shop/sa/front' }] })], [match({ destinationPorts: [8080] })]],
      [[match({ sourceIps: [cidr('10.1.0.0/16')] })]],
    ],
  });
  const evil = policy({ name: 'no-evil', action: 'DENY', groups: [[[match({ namespaces: [{ exact: 'evil' }] })]]] });
  const mesh = new PlainMesh({ services: [orders], workloads: [client, local], policies: [only, evil] });
  const refused = explainInbound(mesh, arriving());
  assert.deepEqual(
    [refused.allowed, refused.code, refused.policy, refused.to],
    [false, 'POLICY_DENIED', 'shop/only-front', '10.0.0.1:8080'],
  );
  assert.deepEqual(refused.policies, [
    {
      policy: 'shop/only-front',
      action: 'ALLOW',
      dryRun: false,
      matched: false,
      unmet: ['rule 1: the source is not cluster.local/ns/shop/sa/front', 'rule 2: the source address is not in 10.1.0.0/16'],
    },
    { policy: 'shop/no-evil', action: 'DENY', dryRun: false, matched: false, unmet: ['rule 1: the source is not of namespace evil'] },
  ]);
  const front = explainInbound(mesh, arriving({ identity: { ...identity, serviceAccount: 'front' } }));
  assert.deepEqual([front.allowed, front.policy, front.policies[0]?.rule], [true, 'shop/only-front', 1]);
});

test('taking away the policy that is named as the one that refused lets the connection through', () => {
  const deny = policy({ name: 'no-evil', action: 'DENY', groups: [[[match({ notPrincipals: [{ exact: 'nobody' }] })]]] });
  const mesh = (policies: (typeof deny)[]): PlainMesh => new PlainMesh({ workloads: [client, local], policies });
  const refused = explainInbound(mesh([deny]), arriving());
  assert.deepEqual([refused.allowed, refused.policy], [false, 'shop/no-evil']);
  assert.equal(explainInbound(mesh([]), arriving()).allowed, true);
});

test('what is for another pod is refused before any policy is asked; plaintext has no identity', () => {
  const mesh = new PlainMesh({ workloads: [client, local] });
  const lost = explainInbound(mesh, arriving({ authority: '10.0.0.77:8080' }));
  assert.deepEqual([lost.allowed, lost.code, lost.policies], [false, 'IP_MISMATCH', []]);
  const plain = explainInbound(mesh, arriving({ identity: undefined, authority: '', destination: { ip: '10.0.0.1', port: 8080 } }));
  assert.deepEqual([plain.allowed, plain.to], [true, '10.0.0.1:8080']);
  assert.match(plain.steps[0]?.text ?? '', /in the clear/);
});
