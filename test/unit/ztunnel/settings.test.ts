import assert from 'node:assert/strict';
import { test } from 'node:test';
import { threads } from '../../../common/base/proxy-settings.ts';
import { SettingsError } from '../../../common/base/settings.ts';
import { VERSION } from '../../../common/base/version.ts';
import { readZtunnelSettings } from '../../../ztunnel/settings.ts';

const problemsOf = (env: Record<string, string>): readonly string[] => {
  try {
    readZtunnelSettings(env);
  } catch (error) {
    assert.ok(error instanceof SettingsError, String(error));
    return error.problems;
  }
  assert.fail('expected bad settings');
};

test('an empty environment gives the defaults of a proxy outside a cluster', () => {
  const settings = readZtunnelSettings({});
  assert.equal(settings.mode, 'shared');
  assert.equal(settings.packetMark, 1337);
  assert.equal(settings.workers, 2);
  assert.equal(settings.xds?.target, 'localhost:15012');
  assert.equal(settings.xds?.tls, true);
  assert.equal(settings.clusterId, 'Kubernetes');
  assert.equal(settings.drainDeadlineMs, 5000);
  assert.deepEqual([settings.adminPort, settings.statsPort, settings.readinessPort], [15000, 15020, 15021]);
});

test('within a cluster the control plane is istiod', () => {
  assert.equal(readZtunnelSettings({ KUBERNETES_SERVICE_HOST: '10.96.0.1' }).ca?.target, 'istiod.istio-system.svc:15012');
});

test('addresses may have a scheme or not, and an empty one means none', () => {
  const target = (address: string) => readZtunnelSettings({ XDS_ADDRESS: address }).xds;
  assert.deepEqual([target('istiod.example:15012')?.target, target('istiod.example:15012')?.tls], ['istiod.example:15012', true]);
  assert.equal(target('https://istiod.example:15012/')?.target, 'istiod.example:15012');
  assert.deepEqual([target('http://127.0.0.1:15010')?.target, target('http://127.0.0.1:15010')?.tls], ['127.0.0.1:15010', false]);
  assert.equal(target('https://istiod.example')?.target, 'istiod.example:443');
  assert.equal(target(''), undefined);
});

test('every bad value is reported, not just the first', () => {
  const problems = problemsOf({
    KEEPALIVE_TIME: 'soon',
    ENABLE_PROXY: 'maybe',
    PACKET_MARK: '0x1ffffffff',
    ISTIO_METAJSON_X: '{',
    RUST_LOG: 'loud',
  });
  for (const name of ['KEEPALIVE_TIME', 'ENABLE_PROXY', 'PACKET_MARK', 'ISTIO_METAJSON_X', 'RUST_LOG']) {
    assert.ok(
      problems.some((problem) => problem.startsWith(name)),
      `${name} in ${problems.join('; ')}`,
    );
  }
});

test('every form that Istio reads a duration in is read', () => {
  const ms = (POOL_UNUSED_RELEASE_TIMEOUT: string): number => readZtunnelSettings({ POOL_UNUSED_RELEASE_TIMEOUT }).poolUnusedMs;
  for (const [text, expected] of [
    ['5m', 300_000],
    ['90', 90_000],
    ['1h 30min', 5_400_000],
    ['3m + 31', 211_000],
    ['3m31', 211_000],
    ['1m * 10', 600_000],
    ['1m*10ms', 600],
    ['1 day', 86_400_000],
    ['2W', 1_209_600_000],
    ['1s500msec', 1500],
    ['42µs', 1],
  ] as const) {
    assert.equal(ms(text), expected, text);
  }
  for (const text of ['', 'soon', '5x', '-1s', '1m + 2 * 3', '* 3', '1m +', '9999999y']) {
    assert.match(problemsOf({ POOL_UNUSED_RELEASE_TIMEOUT: text })[0] ?? '', /^POOL_UNUSED_RELEASE_TIMEOUT=.*: expected a duration/, text);
  }
});

test('addresses, headers and processors that are none are reported together', () => {
  const problems = problemsOf({
    XDS_ADDRESS: 'ftp://istiod:15012',
    CA_ADDRESS: 'istiod:port',
    'XDS_HEADER_a b': 'x',
    CA_HEADER_key: 'line\nbreak',
    ZTUNNEL_RESOURCE_CPU_REQUEST: '0',
    ISTIO_META_DNS_PROXY_ADDR: 'localhost',
    FAKE_CA: 'yes',
  });
  // Headers are looked at before the address that they go with.
  for (const name of ['XDS_HEADER_a b', 'CA_HEADER_key', 'ZTUNNEL_RESOURCE_CPU_REQUEST', 'ISTIO_META_DNS_PROXY_ADDR', 'FAKE_CA']) {
    assert.ok(
      problems.some((problem) => problem.startsWith(name)),
      `${name} in ${problems.join('; ')}`,
    );
  }
  assert.match(problemsOf({ XDS_ADDRESS: 'ftp://istiod:15012' })[0] ?? '', /^XDS_ADDRESS="ftp.*expected host:port/);
  assert.match(problemsOf({ CA_ADDRESS: 'istiod:port' })[0] ?? '', /^CA_ADDRESS=/);
});

test('the CA is where istiod is, whatever discovery address is configured', () => {
  const settings = readZtunnelSettings({ KUBERNETES_SERVICE_HOST: '10.96.0.1', PROXY_CONFIG: 'discoveryAddress: istiod.other:15012' });
  assert.deepEqual([settings.xds?.target, settings.ca?.target], ['istiod.other:15012', 'istiod.istio-system.svc:15012']);
});

test('a static configuration stands alone, unless a control plane is named beside it', () => {
  assert.equal(readZtunnelSettings({ LOCAL_XDS: 'workloads: []' }).xds, undefined);
  assert.equal(readZtunnelSettings({ LOCAL_XDS: 'workloads: []', XDS_ADDRESS: 'istiod:15012' }).xds?.target, 'istiod:15012');
});

test('FAKE_CA needs no CA, and SOCKS and on-demand discovery are off unless they are asked for', () => {
  const settings = readZtunnelSettings({ FAKE_CA: 'true', CA_ADDRESS: 'ignored:1' });
  assert.deepEqual([settings.fakeCa, settings.ca, settings.socks5, settings.xdsOnDemand], [true, undefined, false, false]);
  assert.equal(readZtunnelSettings({ UNSTABLE_ENABLE_SOCKS5: 'true' }).socks5, true);
  assert.equal(readZtunnelSettings({ XDS_ON_DEMAND: 'true', ISTIO_META_DNS_CAPTURE: 'false' }).xdsOnDemand, true);
  assert.match(problemsOf({ XDS_ON_DEMAND: 'true' })[0] ?? '', /^XDS_ON_DEMAND="true": the DNS proxy/);
});

test("what PROXY_CONFIG says of the DNS proxy counts like the environment's, which wins", () => {
  const dns = (env: Record<string, string>) => readZtunnelSettings(env).dns;
  assert.deepEqual(dns({}), { port: 15053, addresses: ['127.0.0.1', '::1'] });
  assert.equal(dns({ ISTIO_META_DNS_CAPTURE: 'no' }), undefined);
  assert.equal(dns({ ISTIO_META_DNS_CAPTURE: 'True' })?.port, 15053);
  assert.equal(dns({ PROXY_CONFIG: 'proxyMetadata: {ISTIO_META_DNS_CAPTURE: "false"}' }), undefined);
  assert.equal(dns({ PROXY_CONFIG: 'proxyMetadata: {DNS_CAPTURE: "false"}', ISTIO_META_DNS_CAPTURE: 'true' })?.port, 15053);
  assert.deepEqual(dns({ PROXY_CONFIG: 'proxyMetadata: {DNS_PROXY_ADDR: "127.0.0.1:5353"}' }), { port: 5353, addresses: ['127.0.0.1'] });
});

test('settings that contradict each other are refused', () => {
  assert.match(problemsOf({ LOCAL_XDS: 'a', LOCAL_XDS_PATH: 'b' })[0] ?? '', /LOCAL_XDS_PATH and LOCAL_XDS/);
  assert.match(problemsOf({ PROXY_MODE: 'dedicated' })[0] ?? '', /PROXY_WORKLOAD_INFO/);
  assert.match(problemsOf({ HTTP2_FRAME_SIZE: '100' })[0] ?? '', /HTTP2_FRAME_SIZE/);
  assert.match(problemsOf({ INPOD_PORT_REUSE: 'false', ZTUNNEL_WORKER_THREADS: '2' })[0] ?? '', /INPOD_PORT_REUSE/);
  assert.equal(readZtunnelSettings({ INPOD_PORT_REUSE: 'false' }).workers, 1, 'one listens alone');
});

test('dedicated mode has no mark of its own and a workload', () => {
  const settings = readZtunnelSettings({ PROXY_MODE: 'dedicated', PROXY_WORKLOAD_INFO: 'shop/orders/orders-account' });
  assert.equal(settings.packetMark, undefined);
  assert.deepEqual(settings.workload, { namespace: 'shop', name: 'orders', serviceAccount: 'orders-account' });
  assert.match(problemsOf({ PROXY_WORKLOAD_INFO: 'shop/orders' })[0] ?? '', /namespace\/name\/serviceaccount/);
});

test('the drain deadline comes from the grace period where none is given', () => {
  const deadline = (env: Record<string, string>) => readZtunnelSettings(env).drainDeadlineMs;
  assert.equal(deadline({ TERMINATION_GRACE_PERIOD_SECONDS: '30' }), 25_000);
  assert.equal(deadline({ TERMINATION_GRACE_PERIOD_SECONDS: '10' }), 9000);
  assert.equal(deadline({ TERMINATION_GRACE_PERIOD_SECONDS: '1' }), 1000);
  assert.equal(deadline({ TERMINATION_GRACE_PERIOD_SECONDS: '30', CONNECTION_TERMINATION_DEADLINE: '1m' }), 60_000);
});

test('threads are a number, a percentage that is never none, or all processors', () => {
  assert.equal(threads.parse('3'), 3);
  assert.equal(threads.parse('1%'), 1);
  assert.ok(threads.parse('0') >= 1);
  assert.throws(() => threads.parse('many'));
  assert.throws(() => threads.parse('1000'));
});

test('metadata and extra headers are taken from prefixed variables and from PROXY_CONFIG', () => {
  const settings = readZtunnelSettings({
    ISTIO_META_NETWORK: 'blue',
    ISTIO_METAJSON_LABELS: '{"a":1}',
    XDS_HEADER_X_Token: 'secret',
    CA_HEADER_other: 'value',
    PROXY_CONFIG:
      'discoveryAddress: istiod.other:15012\nproxyAdminPort: 16000\nstatsPort: 16020\nconcurrency: 4\nproxyMetadata: {ISTIO_META_NETWORK: red, ZONE: one}',
  });
  assert.deepEqual(settings.metadata, {
    ISTIO_VERSION: VERSION,
    NETWORK: 'blue',
    ZONE: 'one',
    LABELS: { a: 1 },
  });
  assert.deepEqual(settings.xds?.headers, { x_token: 'secret' });
  assert.deepEqual(settings.ca?.headers, { other: 'value' });
  assert.equal(settings.xds?.target, 'istiod.other:15012');
  assert.deepEqual([settings.adminPort, settings.statsPort, settings.workers], [16_000, 16_020, 4]);
  assert.match(problemsOf({ PROXY_CONFIG: 'statsPort: many' })[0] ?? '', /PROXY_CONFIG statsPort/);
  assert.match(problemsOf({ PROXY_CONFIG: '[' })[0] ?? '', /PROXY_CONFIG/);
});

test('log directives set a level for everything and one for the access log; other scopes are refused', () => {
  assert.deepEqual(readZtunnelSettings({ RUST_LOG: 'debug,hyper=warn,ztunnel::access=error' }).log, {
    level: 'debug',
    scopes: { hyper: 'warn', access: 'error' },
  });
  assert.match(problemsOf({ RUST_LOG: 'info,a b=warn' })[0] ?? '', /no scope: a b/);
  assert.equal(readZtunnelSettings({ RUST_LOG: 'ztunnel=debug' }).log.level, 'debug');
  assert.deepEqual(readZtunnelSettings({ RUST_LOG: 'warn,access=off' }).log, {
    level: 'warn',
    scopes: { access: 'silent' },
  });
});

test('percentages and all processors are those of the limit; filters are read in any case and as numbers', () => {
  const workers = (env: Record<string, string>): number => readZtunnelSettings(env).workers;
  assert.equal(workers({ ZTUNNEL_RESOURCE_CPU_LIMIT: '8', ZTUNNEL_WORKER_THREADS: '50%' }), 4);
  assert.equal(workers({ ZTUNNEL_CPU_LIMIT: '6', ZTUNNEL_WORKER_THREADS: '0' }), 6);
  assert.equal(workers({ ZTUNNEL_CPU_LIMIT: '10', ZTUNNEL_WORKER_THREADS: '12.5%' }), 2);
  assert.match(problemsOf({ ZTUNNEL_WORKER_THREADS: '0%' })[0] ?? '', /percentage above 0/);
  assert.equal(readZtunnelSettings({ RUST_LOG: 'WARN' }).log.level, 'warn');
  assert.equal(readZtunnelSettings({ RUST_LOG: '4' }).log.level, 'debug');
});

test('the mesh configuration fills what PROXY_CONFIG leaves out, metadata key by key', () => {
  const both = readZtunnelSettings({ PROXY_CONFIG: 'proxyMetadata: {A: own}' }, 'defaultConfig: {proxyMetadata: {A: mesh, B: mesh}}');
  assert.deepEqual([both.metadata.A, both.metadata.B], ['own', 'mesh']);
  const mesh = 'rootNamespace: x\ndefaultConfig: {discoveryAddress: "from.mesh:1", statsPort: 1234, concurrency: 3}';
  const settings = readZtunnelSettings({ PROXY_CONFIG: 'discoveryAddress: own:2' }, mesh);
  assert.deepEqual([settings.xds?.target, settings.statsPort, settings.workers], ['own:2', 1234, 3]);
  assert.throws(() => readZtunnelSettings({}, 'defaultConfig: {statsPort: x}'), /etc\/istio\/config\/mesh defaultConfig statsPort/);
});

test('workers follow what the container may use, where nobody says how many', () => {
  const workers = (env: Record<string, string>): number => readZtunnelSettings(env).workers;
  assert.equal(workers({ ZTUNNEL_RESOURCE_CPU_LIMIT: '2500m' }), 3);
  assert.equal(workers({ ZTUNNEL_RESOURCE_CPU_LIMIT: '500m', ZTUNNEL_RESOURCE_CPU_REQUEST: '2' }), 2);
  assert.equal(workers({ ZTUNNEL_CPU_LIMIT: '16' }), 4);
  assert.equal(workers({ ZTUNNEL_CPU_LIMIT: '2', ZTUNNEL_RESOURCE_CPU_REQUEST: '200m' }), 2);
  assert.equal(workers({ ZTUNNEL_RESOURCE_CPU_LIMIT: '8', ZTUNNEL_WORKER_THREADS: '1' }), 1);
  assert.match(problemsOf({ ZTUNNEL_RESOURCE_CPU_LIMIT: 'many' })[0] ?? '', /^ZTUNNEL_RESOURCE_CPU_LIMIT="many": expected processors/);
  assert.match(problemsOf({ ZTUNNEL_WORKER_THREADS: 'x' })[0] ?? '', /^ZTUNNEL_WORKER_THREADS="x"/);
});

test('without the proxy there is DNS, and without both nothing', () => {
  assert.equal(readZtunnelSettings({ ENABLE_PROXY: 'false' }).proxy, false);
  assert.match(problemsOf({ ENABLE_PROXY: 'false', ISTIO_META_DNS_CAPTURE: 'false' })[0] ?? '', /nothing is left to run/);
});
