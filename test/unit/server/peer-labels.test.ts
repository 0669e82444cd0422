import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PEER_LABELS, peerLabels } from '../../../common/server/peer-labels.ts';
import { service, workload } from '../../support/builders.ts';

const labels = (peers: Partial<Parameters<typeof peerLabels>[0]>): Record<string, string> => {
  const none = { from: undefined, said: undefined, principal: undefined, service: undefined, to: undefined };
  const values = peerLabels({ reporter: 'waypoint', ...none, ...peers });
  assert.equal(values.length, PEER_LABELS.length);
  return Object.fromEntries(PEER_LABELS.map((label, i) => [label, values[i] ?? '']));
};

test('each label is that of its end; the caller is what is known of it before what it says', () => {
  const from = workload({ name: 'web-1', workloadName: 'web', canonicalName: 'web' });
  const to = workload({ name: 'orders-1', workloadName: 'orders', canonicalName: 'orders' });
  const principal = 'spiffe://cluster.local/ns/shop/sa/web';
  const all = labels({ from, said: { workloadName: 'liar' }, principal, service: service({ name: 'orders' }), to });
  assert.equal(all.source_workload, 'web');
  assert.equal(all.source_app, 'web');
  assert.equal(all.source_principal, principal);
  assert.equal(all.destination_service_name, 'orders');
  assert.equal(all.destination_workload, 'orders');
  assert.match(all.destination_principal ?? '', /^spiffe:\/\//);
});

test('what is not known is unknown, and what a peer says of itself has a limit', () => {
  assert.deepEqual(new Set(Object.values(labels({}))), new Set(['waypoint', 'unknown']));
  const said = labels({ said: { workloadName: 'w'.repeat(10_000), namespace: '' } });
  assert.deepEqual([said.source_workload?.length, said.source_workload_namespace], [253, 'unknown']);
});
