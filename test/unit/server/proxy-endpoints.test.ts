import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { silentLog } from '../../../common/base/log.ts';
import type { CertificateState } from '../../../common/certificates/keeper.ts';
import { LogLevels } from '../../../common/server/log-levels.ts';
import { serveEndpoints } from '../../../common/server/proxy-endpoints.ts';
import { Readiness } from '../../../common/server/readiness.ts';
import { createSegment, SeriesReader, SeriesWriter } from '../../../common/server/shared-series.ts';
import { metricFamilies, metrics } from '../../../ztunnel/metrics.ts';
import { readZtunnelSettings } from '../../../ztunnel/settings.ts';
import { configDump } from '../../../ztunnel/supervisor/config-dump.ts';
import { testAuthority } from '../../support/certificates.ts';

async function serve(t: TestContext) {
  const reader = new SeriesReader(metricFamilies);
  const segment = createSegment(100);
  reader.attach(0, segment);
  const series = new SeriesWriter(segment, (announcement) => reader.announce(0, [announcement]));
  series.set(series.slot(metrics.build, ['ztunnel', '1.30']), 1);
  const readiness = new Readiness();
  const pending = new Set<string>(['proxy']);
  for (const task of ['state manager', 'proxy'] as const) readiness.task(task, () => !pending.has(task));
  const settings = { ...readZtunnelSettings({ RUST_LOG: 'info' }), adminPort: 0, statsPort: 0, readinessPort: 0 };
  let quits = 0;
  const endpoints = await serveEndpoints({
    name: 'ztunnel',
    settings,
    log: silentLog,
    reader,
    series,
    families: metricFamilies,
    process: metrics,
    readiness,
    levels: new LogLevels(settings.log, () => undefined),
    configDump: async () => ({ workloads: [] }),
    quit: () => quits++,
    beforeScrape: () => undefined,
  });
  t.after(() => endpoints.close());
  const ask = async (port: number, path: string, method = 'GET', headers: Record<string, string> = {}) => {
    const answer = await fetch(`http://127.0.0.1:${port}${path}`, { method, headers });
    return { status: answer.status, type: answer.headers.get('content-type'), body: await answer.text() };
  };
  return { endpoints, ask, pending, quits: () => quits };
}

test('readiness names what is pending, and is ready when nothing is', async (t) => {
  const { endpoints, ask, pending } = await serve(t);
  assert.deepEqual(await ask(endpoints.readinessPort, '/healthz/ready').then(({ status, body }) => [status, body]), [
    500,
    'not ready, pending: proxy\n',
  ]);
  pending.clear();
  assert.deepEqual(await ask(endpoints.readinessPort, '/healthz/ready').then(({ status, body }) => [status, body]), [200, 'ready\n']);
  assert.equal((await ask(endpoints.readinessPort, '/')).status, 404);
});

test('both metrics paths carry the families, the process’s own among them, under the type that was asked for', async (t) => {
  const { endpoints, ask } = await serve(t);
  for (const path of ['/metrics', '/stats/prometheus']) {
    const { status, type, body } = await ask(endpoints.statsPort, path, 'GET', { accept: 'application/openmetrics-text' });
    assert.deepEqual([status, type], [200, 'application/openmetrics-text;charset=utf-8;version=1.0.0']);
    assert.match(body, /^istio_build\{component="ztunnel",tag="1.30"\} 1$/m);
    assert.match(body, /^process_open_fds \d+$/m);
    assert.match(body, /^process_max_fds \d+$/m);
  }
  assert.equal((await ask(endpoints.statsPort, '/other')).status, 404);
});

test('log levels are shown, changed and reset over the admin port, and a bad one is refused', async (t) => {
  const { endpoints, ask } = await serve(t);
  const logging = (query: string) => ask(endpoints.adminPort, `/logging${query}`, 'POST');
  assert.equal((await logging('')).body, 'current log level is info\n');
  assert.equal((await logging('?level=debug')).body, 'current log level is debug\n');
  assert.equal((await logging('?level=access=warn')).body, 'current log level is debug,access=warn\n');
  assert.equal((await logging('?level=error')).body, 'current log level is error,access=warn\n');
  const bad = await logging('?level=shout');
  assert.equal(bad.status, 400);
  assert.match(bad.body, /Invalid level provided: "shout"/);
  assert.equal((await logging('?reset=true')).body, 'current log level is info\n');
  assert.equal((await ask(endpoints.adminPort, '/logging')).status, 405);
});

test('the dump is JSON, quitquitquit is a POST, anything else is not found', async (t) => {
  const { endpoints, ask, quits } = await serve(t);
  const dump = await ask(endpoints.adminPort, '/config_dump');
  assert.equal(dump.type, 'application/json');
  assert.deepEqual(JSON.parse(dump.body), { workloads: [] });
  assert.equal((await ask(endpoints.adminPort, '/quitquitquit')).status, 405);
  assert.equal(quits(), 0);
  assert.equal((await ask(endpoints.adminPort, '/quitquitquit', 'POST')).body, 'shutdown now\n');
  assert.equal(quits(), 1);
  assert.match((await ask(endpoints.adminPort, '/')).body, /config_dump/);
  assert.equal((await ask(endpoints.adminPort, '/debug')).status, 404);
});

test('a dump shows certificates without keys, pods with their connections, and settings without secrets', async () => {
  const issued = testAuthority().issue('spiffe://cluster.local/ns/shop/sa/a');
  const certificates: CertificateState[] = [
    { identity: issued.identity, at: 'available', certificate: { ...issued, notBefore: 0, notAfter: 0 }, renewalError: undefined },
    { identity: 'b', at: 'unavailable', reason: 'not on this node' },
    { identity: 'c', at: 'initializing' },
  ];
  const info = { name: 'a', namespace: 'shop', serviceAccount: 'a' };
  const dump = JSON.parse(
    JSON.stringify(
      await configDump({
        state: () => ({ workloads: [], services: [], policies: [], stagedServices: {} }),
        certificates: () => certificates,
        pods: () => [{ uid: 'uid-a', info, state: 'Up' }],
        connections: async () => [
          { uid: 'uid-a', direction: 'inbound', src: '10.0.0.1:1', originalDst: null, actualDst: '10.0.0.2:80', protocol: 'HBONE' },
          { uid: 'uid-b', direction: 'outbound', src: '10.0.0.3:1', originalDst: '10.0.0.4:80', actualDst: '10.0.0.4:80', protocol: 'TCP' },
        ],
        settings: readZtunnelSettings({ AUTH_TOKEN: 'top secret', XDS_HEADER_KEY: 'hidden' }),
      }),
    ),
  );
  assert.deepEqual(
    dump.certificates.map(({ state }: { state: string }) => state),
    ['Available', 'Unavailable: not on this node', 'Initializing'],
  );
  assert.match(dump.certificates[0].certChain[0].serialNumber, /^\d+$/);
  assert.match(dump.certificates[0].certChain[0].expirationTime, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
  assert.equal(dump.certificates[0].rootCerts.length, 1);
  assert.deepEqual(dump.workloadState, {
    'uid-a': {
      state: 'Up',
      connections: { inbound: [{ src: '10.0.0.1:1', originalDst: null, actualDst: '10.0.0.2:80', protocol: 'HBONE' }], outbound: [] },
      info,
    },
  });
  assert.doesNotMatch(JSON.stringify(dump), /PRIVATE KEY|top secret|hidden/);
  assert.equal(dump.config.xdsAddress, 'localhost:15012');
});
