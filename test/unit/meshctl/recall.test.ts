import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Decision, JournalEvent } from '../../../common/decision/journal.ts';
import { isConnectionId, type ProxyEvents, recall, renderRecalled } from '../../../meshctl/explain/recall.ts';

const CONNECTION = 'c'.repeat(32);
const REQUEST = 'e'.repeat(32);

const decision: Decision = {
  at: 'outbound',
  source: 'shop/web-1',
  sourceIp: '10.0.0.1',
  identity: 'spiffe://cluster.local/ns/shop/sa/web',
  service: 'shop/orders.shop.svc.cluster.local',
  pod: '',
  uid: '',
  ip: '10.96.0.1',
  port: 80,
  mutualTls: true,
  verdict: 'allowed',
  code: '',
  policy: '',
  route: '',
};
const event = (more: Partial<JournalEvent>): JournalEvent => ({
  id: CONNECTION,
  tunnel: '',
  decision,
  endMs: 2000,
  durationMs: 1000,
  endpoint: 'shop/wp-1',
  sent: 10,
  received: 20,
  status: 0,
  attempts: 0,
  message: '',
  ...more,
});
const refused: JournalEvent = event({
  id: REQUEST,
  tunnel: CONNECTION,
  endMs: 1500,
  durationMs: 2,
  endpoint: '',
  status: 403,
  message: 'explicitly denied by: shop/no-delete',
  decision: {
    ...decision,
    at: 'request',
    verdict: 'refused',
    code: 'POLICY_DENIED',
    policy: 'shop/no-delete',
    request: { method: 'DELETE', host: 'orders', path: '/a', headers: {}, query: {} },
  },
});

/** What each proxy would find. */
const ask = async (id: string): Promise<ProxyEvents[]> => [
  { proxy: 'zt-1.istio-system', kind: 'ztunnel', node: 'node1', events: id === CONNECTION ? [event({})] : [] },
  { proxy: 'wp-1.shop', kind: 'waypoint', node: 'node2', events: id === REQUEST || id === CONNECTION ? [refused] : [] },
  { proxy: 'zt-2.istio-system', kind: 'ztunnel', node: 'node2', events: [], error: 'it did not answer' },
];

test('a request is told with the connection that it came by, each part once and in the order in which they began', async () => {
  for (const id of [REQUEST, CONNECTION]) {
    const { parts, silent } = await recall(id, ask);
    assert.deepEqual(
      parts.map(({ proxy, decision: { at } }) => [proxy, at]),
      [
        ['zt-1.istio-system', 'outbound'],
        ['wp-1.shop', 'request'],
      ],
    );
    assert.deepEqual(silent, ['zt-2.istio-system: it did not answer']);
  }
});

test('a refusal is told with its code, policy and request', async () => {
  const plain = (text: string): string => text;
  const text = renderRecalled(await recall(REQUEST, ask), { green: plain, red: plain, yellow: plain, bold: plain });
  assert.match(
    text,
    /DELETE orders\/a\n {2}refused by policy shop\/no-delete\n {2}refused POLICY_DENIED after 2 ms, status 403: explicitly denied/,
  );
  assert.match(text, /left its pod \(ztunnel zt-1\.istio-system on node1\)/);
  for (const line of text.split('\n')) assert.ok(line.length <= 120, line);
});

test('an id is what the access log prints', () => {
  assert.equal(isConnectionId(CONNECTION), true);
  assert.equal(isConnectionId('web-1'), false);
  assert.equal(isConnectionId(CONNECTION.slice(1)), false);
});
