import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ProxyStatus, Refusal } from '../../../common/codec/gen/diagnostics.ts';
import { ProxyReports } from '../../../istiod-lite/diagnostics/reports.ts';

const status = (name: string, more: Partial<ProxyStatus> = {}): ProxyStatus => ({
  name,
  namespace: 'istio-system',
  node: 'node1',
  kind: 'ztunnel',
  version: '1',
  ready: true,
  pods: 0,
  certificates: 1,
  soonestExpiry: 1_800_000_000n,
  problems: [],
  ...more,
});

const refusal = (code: string, timeMs: number): Refusal => ({
  code,
  timeMs: BigInt(timeMs),
  policy: 'shop/p',
  source: 'a',
  destination: 'b',
  message: 'm',
  count: 1,
});

test('a proxy is shown with its last status and its refusals, as long as its stream lives', () => {
  const reports = new ProxyReports();
  const proxy = reports.connect();
  assert.deepEqual(reports.rows(), [], 'nothing said, nothing shown');
  proxy.take({ status: status('ztunnel-a'), refusals: [] });
  proxy.take({ status: status('ztunnel-a', { pods: 3 }), refusals: [refusal('POLICY_DENIED', 5)] });
  const [row, ...more] = reports.rows();
  assert.equal(more.length, 0);
  assert.deepEqual(
    [row?.pods, row?.soonestExpiry, row?.refusals.map(({ code, timeMs }) => [code, timeMs])],
    [3, 1_800_000_000, [['POLICY_DENIED', 5]]],
  );
  assert.doesNotThrow(() => JSON.stringify(row));
  proxy.leave();
  assert.deepEqual(reports.rows(), []);
});

test('of refusals the newest stay, up to a limit', () => {
  const reports = new ProxyReports();
  const proxy = reports.connect();
  for (let i = 0; i < 120; i++) proxy.take({ status: status('ztunnel-a'), refusals: [refusal('POLICY_DENIED', i)] });
  const times = reports.rows()[0]?.refusals.map(({ timeMs }) => timeMs) ?? [];
  assert.equal(times.length, 50);
  assert.equal(times.at(-1), 119);
});
