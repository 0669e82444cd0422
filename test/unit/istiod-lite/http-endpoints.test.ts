import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ProxyReports } from '../../../istiod-lite/diagnostics/reports.ts';
import { createMetrics } from '../../../istiod-lite/metrics.ts';
import { MeshIndex } from '../../../istiod-lite/model/index.ts';
import { answerMonitoring, answerReadiness } from '../../../istiod-lite/server/http-endpoints.ts';
import { Proxies } from '../../../istiod-lite/xds/proxies.ts';
import { FakeClock } from '../../support/fake-clock.ts';

function endpoints(missing: string[] = []) {
  const config = {
    clusterId: 'Kubernetes',
    domain: 'cluster.local',
    rootNamespace: 'istio-system',
    trustDomain: 'cluster.local',
    network: '',
  };
  const options = {
    metrics: createMetrics({ processMetrics: false }),
    proxies: new Proxies(new FakeClock(), () => undefined),
    reports: new ProxyReports(),
    index: new MeshIndex(config),
    trusted: async (token: string) => token === 'good',
    missing: () => missing,
    refreshMetrics: () => undefined,
  };
  const request = (path: string, more: { method?: string; remoteAddress?: string; authorization?: string } = {}) => ({
    method: more.method ?? 'GET',
    path,
    query: new URLSearchParams(),
    headers: { authorization: more.authorization },
    remoteAddress: more.remoteAddress ?? '10.0.0.9',
  });
  return {
    monitoring: async (path: string, more?: Parameters<typeof request>[1]) => answerMonitoring(options)(request(path, more)),
    readiness: async (path: string) => answerReadiness(options)(request(path)),
  };
}

test('readiness says what is missing', async () => {
  assert.deepEqual(await endpoints().readiness('/ready'), { status: 200, body: 'ready\n' });
  assert.deepEqual(await endpoints(['cluster', 'Pod']).readiness('/ready'), { status: 503, body: 'not ready: cluster, Pod\n' });
  assert.equal((await endpoints().readiness('/metrics')).status, 404);
});

test('what runs where is told inside the pod and to the system, not to every pod', async () => {
  const { monitoring } = endpoints();
  assert.equal((await monitoring('/debug/ambientz')).status, 401);
  assert.equal((await monitoring('/debug/ambientz', { authorization: 'Bearer bad' })).status, 401);
  assert.equal((await monitoring('/debug/ambientz', { authorization: 'Bearer good' })).status, 200);
  assert.equal((await monitoring('/debug/ambientz', { remoteAddress: '127.0.0.1' })).status, 200);
  assert.equal((await monitoring('/debug/ambientz', { remoteAddress: '::1' })).status, 200);
});

test('unknown paths, other methods and names of object properties are no endpoints', async () => {
  const { monitoring } = endpoints();
  assert.equal((await monitoring('/debug/nothing')).status, 404);
  assert.equal((await monitoring('constructor')).status, 404);
  assert.equal((await monitoring('/metrics', { method: 'POST' })).status, 405);
  assert.equal((await monitoring('/debug/syncz')).body, '[]\n');
  assert.match((await monitoring('/metrics')).body, /istio_build\{component="pilot",tag="[^"]+"\} 1/);
});
