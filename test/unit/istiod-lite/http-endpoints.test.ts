import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ProxyStatus } from '../../../common/codec/gen/diagnostics.ts';
import { createGate } from '../../../istiod-lite/access/access.ts';
import type { TokenVerdict } from '../../../istiod-lite/access/token-review.ts';
import { ProxyReports } from '../../../istiod-lite/diagnostics/reports.ts';
import { createMetrics } from '../../../istiod-lite/metrics.ts';
import { MeshIndex } from '../../../istiod-lite/model/index.ts';
import { debugPages } from '../../../istiod-lite/server/debug-pages.ts';
import { answerMonitoring, answerReadiness } from '../../../istiod-lite/server/http-endpoints.ts';
import { Proxies } from '../../../istiod-lite/xds/proxies.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const CONFIG = {
  clusterId: 'Kubernetes',
  domain: 'cluster.local',
  rootNamespace: 'istio-system',
  trustDomain: 'cluster.local',
  network: '',
};

/** What a page that takes objects takes. */
const BODY = JSON.stringify({ apply: [{ kind: 'Namespace', metadata: { name: 'shop' } }] });

interface Asked {
  method?: string;
  remoteAddress?: string;
  authorization?: string;
  forwarded?: string;
  query?: string;
  body?: string;
}

/** Tokens are `NAMESPACE/ACCOUNT`; what has no slash is none. */
const reviewer = {
  review: async (token: string): Promise<TokenVerdict> => {
    const [namespace = '', serviceAccount] = token.split('/');
    return serviceAccount === undefined ? { refuse: 'no token' } : { caller: { namespace, serviceAccount, podName: '', podUid: '' } };
  },
};

/** A proxy that answers each question with the question. */
function reporting(reports: ProxyReports, name: string, namespace: string): void {
  const status = { name, namespace, problems: [], soonestExpiry: 0n } as unknown as ProxyStatus;
  const proxy = reports.connect(({ id, question }) =>
    queueMicrotask(() =>
      proxy.take({
        status: undefined,
        refusals: [],
        answers: [
          {
            id,
            json: Buffer.from(JSON.stringify(question, (_, value) => (typeof value === 'bigint' ? String(value) : value))),
            last: true,
            error: '',
          },
        ],
      }),
    ),
  );
  proxy.take({ status, refusals: [], answers: [] });
}

function endpoints(missing: string[] = []) {
  const reports = new ProxyReports(new FakeClock());
  for (const namespace of ['shop', 'istio-system']) reporting(reports, 'wp', namespace);
  const index = new MeshIndex(CONFIG);
  for (const namespace of ['shop', 'other'])
    index.apply({
      type: 'added',
      kind: 'AuthorizationPolicy',
      object: { metadata: { name: 'odd', namespace }, spec: { action: 'DENY', rules: [{ to: [{ operation: { ports: ['eighty'] } }] }] } },
    });
  const proxies = new Proxies(new FakeClock(), () => undefined);
  for (const namespace of ['shop', 'other'])
    proxies.add({
      node: {
        type: 'waypoint',
        name: `wp.${namespace}`,
        id: '',
        namespace,
        serviceAccount: '',
        node: '',
        version: '',
        gateway: '',
        clusterId: '',
      },
      stream: { changed: () => undefined, drain: () => undefined, status: () => ({}) },
      stores: new Map(),
      peer: '',
      failed: () => undefined,
    });
  const options = {
    metrics: createMetrics({ processMetrics: false }),
    debug: {
      proxies,
      reports,
      index,
      ca: () => 'the roots',
      mesh: () => 'the settings',
      rehearse: async () => ({ unchanged: { rows: 0, count: 0 }, changed: [], unknown: [], problems: [], notes: [] }),
      coverage: async (namespace: string | undefined) => ({ rules: [], more: 0, namespace }),
    },
    access: createGate({
      reviewer,
      trustDomain: 'cluster.local',
      world: {
        isNode: () => false,
        systemNamespace: 'istio-system',
        notOfGateway: () => 'none',
        isWaypointAccount: () => false,
        onNodeOf: () => ({ allowed: false, reason: 'no' }),
      },
    }),
    reviewer,
    missing: () => missing,
    refreshMetrics: () => undefined,
  };
  const request = (path: string, { method = 'GET', remoteAddress = '10.0.0.9', authorization, forwarded, query, body = '' }: Asked) => ({
    method,
    path,
    query: new URLSearchParams(query),
    headers: { authorization, 'x-warren-token': forwarded },
    remoteAddress,
    body,
  });
  return {
    monitoring: async (path: string, asked: Asked = {}) => answerMonitoring(options)(request(path, asked)),
    readiness: async (path: string) => answerReadiness(options)(request(path, {})),
  };
}

test('the version is there for istioctl too, which looks for it as it prints its own', async () => {
  const { body } = await endpoints().monitoring('/version');
  const { version, clientVersion } = JSON.parse(body);
  assert.match(version, /^\d+\.\d+\.\d+$/);
  assert.equal(clientVersion.version, version);
});

test('readiness says what is missing', async () => {
  assert.deepEqual(await endpoints().readiness('/ready'), { status: 200, body: 'ready\n' });
  assert.deepEqual(await endpoints(['cluster', 'Pod']).readiness('/ready'), { status: 503, body: 'not ready: cluster, Pod\n' });
  assert.deepEqual(await endpoints(['cluster', 'Pod']).readiness('/live'), { status: 200, body: 'live\n' });
  assert.equal((await endpoints().readiness('/metrics')).status, 404);
  assert.equal((await endpoints().readiness('/debug/syncz')).status, 404);
});

test('every debug page is shown inside the pod and to the system, and to nobody without a token', async () => {
  const { monitoring } = endpoints();
  for (const path of Object.keys(debugPages)) {
    const asked = { query: 'proxyID=wp.shop', method: debugPages[path]?.changes ? 'POST' : 'GET', body: BODY };
    assert.equal((await monitoring(path, asked)).status, 401, path);
    assert.equal((await monitoring(path, { ...asked, authorization: 'Bearer bad' })).status, 401, path);
    assert.equal((await monitoring(path, { ...asked, authorization: 'Bearer istio-system/ops' })).status, 200, path);
    assert.equal((await monitoring(path, { ...asked, forwarded: 'istio-system/ops' })).status, 200, `${path}, through the API server`);
    assert.equal((await monitoring(path, { ...asked, remoteAddress: '127.0.0.1' })).status, 200, path);
    assert.equal((await monitoring(path, { ...asked, remoteAddress: '::1' })).status, 200, path);
  }
});

test('other namespaces see the rows of their own, and no page that is of the whole mesh', async () => {
  const { monitoring } = endpoints();
  const asked = { authorization: 'Bearer shop/default' };
  const rows = async (path: string) => JSON.parse((await monitoring(path, asked)).body);
  assert.deepEqual(
    (await rows('/debug/proxies')).map((row: { namespace: string }) => row.namespace),
    ['shop'],
  );
  assert.deepEqual(
    (await rows('/debug/syncz')).map((row: { proxy: string }) => row.proxy),
    ['wp.shop'],
  );
  assert.equal((await rows('/debug/connections')).totalClients, 1);
  assert.deepEqual(
    (await rows('/debug/problems')).map(({ object }: { object: string }) => object),
    ['AuthorizationPolicy shop/odd'],
  );
  assert.equal((await rows('/debug/coverage')).namespace, 'shop');
  assert.equal((await monitoring('/debug/coverage', { ...asked, query: 'namespace=other' })).status, 404);
  assert.equal((await monitoring('/debug/config_dump', { ...asked, query: 'proxyID=wp.shop' })).status, 200);
  assert.equal((await monitoring('/debug/config_dump', { ...asked, query: 'proxyID=wp.other' })).status, 404);
  for (const [path, { byNamespace }] of Object.entries(debugPages))
    if (!byNamespace) assert.equal((await monitoring(path, asked)).status, 403, path);
});

test('unknown paths, other methods and names of object properties are no endpoints', async () => {
  const { monitoring } = endpoints();
  assert.equal((await monitoring('/debug/nothing', { remoteAddress: '127.0.0.1' })).status, 404);
  assert.equal((await monitoring('constructor')).status, 404);
  assert.equal((await monitoring('/metrics', { method: 'POST' })).status, 405);
  assert.equal((await monitoring('/debug/syncz', { method: 'POST', remoteAddress: '127.0.0.1' })).status, 405);
  assert.match((await monitoring('/debug')).body, /^\/debug\/syncz: /);
  assert.match((await monitoring('/metrics')).body, /istio_build\{component="pilot",tag="[^"]+"\} 1/);
});

test('what a proxy carries, counts and would do is for those who see its namespace: taps too', async () => {
  const { monitoring } = endpoints();
  const authorization = 'Bearer shop/default';
  const pages = Object.keys(debugPages).filter((path) => path.startsWith('/debug/proxy/'));
  assert.ok(pages.includes('/debug/proxy/tap') && pages.includes('/debug/proxy/counters'));
  for (const path of pages) {
    const method = debugPages[path]?.changes ? 'POST' : 'GET';
    const status = async (query: string, as = authorization) => (await monitoring(path, { authorization: as, method, query })).status;
    assert.equal(await status('proxyID=wp.shop'), 200, path);
    assert.equal(await status('proxyID=wp.istio-system'), 404, `${path} of a ztunnel, which knows the whole mesh`);
    assert.equal(await status('proxyID=wp.shop', 'Bearer other/default'), 404, `${path} of another namespace`);
    assert.equal(await status('proxyID=wp.istio-system', 'Bearer istio-system/meshctl'), 200, path);
  }
});

test('what is asked of a waypoint about a request may come with a POST, where headers have room for a token', async () => {
  const { monitoring } = endpoints();
  const asked = { authorization: 'Bearer shop/default', method: 'POST', query: 'proxyID=wp.shop' };
  const token = 'x'.repeat(4000);
  const body = JSON.stringify({ method: 'GET', path: '/a', host: 'web', headers: [`authorization: Bearer ${token}`, 7], source: 3 });
  const { value } = JSON.parse((await monitoring('/debug/proxy/request', { ...asked, body })).body);
  assert.deepEqual(value.headers, [{ name: 'authorization', value: `Bearer ${token}` }]);
  assert.deepEqual([value.method, value.path, value.source], ['GET', '/a', '']);
});

test('a proxy is asked by whoever sees its namespace; its levels are changed with POST only', async () => {
  const { monitoring } = endpoints();
  const authorization = 'Bearer shop/default';
  const dump = await monitoring('/debug/proxy', { authorization, query: 'proxyID=wp.shop' });
  assert.deepEqual([dump.status, JSON.parse(dump.body)], [200, { $case: 'configDump', value: {} }]);
  assert.equal((await monitoring('/debug/proxy', { authorization, query: 'proxyID=wp.istio-system' })).status, 404);
  assert.equal((await monitoring('/debug/proxy', { authorization, query: 'proxyID=none.shop' })).status, 404);
  assert.equal((await monitoring('/debug/proxy/log', { authorization, query: 'proxyID=wp.shop&level=debug' })).status, 405);
  const log = await monitoring('/debug/proxy/log', { authorization, method: 'POST', query: 'proxyID=wp.shop&level=debug' });
  assert.deepEqual(JSON.parse(log.body), { $case: 'log', value: { level: 'debug', reset: false } });
});
