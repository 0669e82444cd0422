/** istiod-lite over its port: what proxies are told, by whom it may be asked, its pages and metrics, replicas, and its end. */
import assert from 'node:assert/strict';
import { createPublicKey, generateKeyPairSync } from 'node:crypto';
import { test } from 'node:test';
import { connect } from 'node:tls';
import { status } from '@grpc/grpc-js';
import { systemClock } from '../../../common/base/clock.ts';
import { CaClient } from '../../../common/client/ca-client.ts';
import { XdsClient } from '../../../common/client/xds-client.ts';
import type { DeltaDiscoveryResponse } from '../../../common/codec/gen/discovery.ts';
import { issueCertificate, readIssuer, selfSignedRoot } from '../../../common/codec/x509/certificate.ts';
import { createCsr } from '../../../common/codec/x509/csr.ts';
import { readCertificate } from '../../../common/codec/x509/read-certificate.ts';
import { ADDRESS, AUTHORIZATION, runPod, startTestIstiod, ztunnelNode } from '../../support/istiod.ts';
import { until } from '../../support/until.ts';

const IDENTITY = 'spiffe://cluster.local/ns/shop/sa/orders';
const csr = (): string => createCsr({ uri: IDENTITY, key: generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey });
const names = ({ resources }: DeltaDiscoveryResponse): string[] => resources.map(({ name }) => name).sort();
const service = (name: string, clusterIP: string) => ({
  metadata: { name, namespace: 'shop' },
  spec: { clusterIP, clusterIPs: [clusterIP], selector: { app: 'web' }, ports: [{ name: 'http', port: 80, targetPort: 8080 }] },
});
const ZTUNNEL_POD = 'Kubernetes//Pod/istio-system/ztunnel-node1';

test('a ztunnel is told the whole cluster, then each change, and a policy before the workload that it selects', async (t) => {
  const mesh = await startTestIstiod(t, { prepare: (kube) => runPod(kube, { name: 'web-1', ip: '10.1.0.1' }) });
  const stream = mesh.stream('ztunnel-node1');
  stream.subscribe(AUTHORIZATION);
  const policies = await stream.next();
  assert.equal(policies.typeUrl, AUTHORIZATION);
  stream.ack(policies);
  stream.subscribe(ADDRESS);
  const first = await stream.next();
  assert.deepEqual(names(first), ['Kubernetes//Pod/shop/web-1', ZTUNNEL_POD].sort());
  assert.ok(first.resources.every(({ version }) => version !== ''));
  stream.ack(first);

  mesh.kube.put('/api/v1/services', service('web', '10.2.0.1'));
  const second = await stream.next();
  // The pod's workload changes as well: it is an endpoint of the service now.
  assert.deepEqual(names(second), ['Kubernetes//Pod/shop/web-1', 'shop/web.shop.svc.cluster.local']);
  stream.ack(second);

  mesh.kube.put('/apis/security.istio.io/v1/authorizationpolicies', {
    metadata: { name: 'only-a', namespace: 'shop', generation: 1 },
    spec: { selector: { matchLabels: { app: 'web' } }, rules: [{ from: [{ source: { principals: ['cluster.local/ns/shop/sa/a'] } }] }] },
  });
  const policy = await stream.next();
  const selected = await stream.next();
  assert.deepEqual([policy.typeUrl, selected.typeUrl], [AUTHORIZATION, ADDRESS]);
  assert.deepEqual(names(policy), ['shop/only-a']);

  mesh.kube.remove('/api/v1/pods', 'shop/web-1');
  const gone = await stream.next();
  assert.deepEqual(gone.removedResources, ['Kubernetes//Pod/shop/web-1']);
});

test('both types are answered in an empty mesh, or ztunnel would wait for ever', async (t) => {
  const mesh = await startTestIstiod(t);
  const stream = mesh.stream('ztunnel-node1');
  stream.subscribe(ADDRESS);
  stream.subscribe(AUTHORIZATION);
  const answers = [await stream.next(), await stream.next()];
  const empty = answers.find(({ typeUrl }) => typeUrl === AUTHORIZATION);
  assert.deepEqual(empty?.resources, []);
});

test('a ztunnel that comes back is sent what changed and told what vanished', async (t) => {
  const mesh = await startTestIstiod(t, {
    prepare: (kube) => {
      runPod(kube, { name: 'web-1', ip: '10.1.0.1' });
      runPod(kube, { name: 'web-2', ip: '10.1.0.2' });
    },
  });
  const first = mesh.stream('ztunnel-node1');
  first.subscribe(ADDRESS);
  const held = Object.fromEntries((await first.next()).resources.map(({ name, version }) => [name, version]));
  const witness = mesh.stream('ztunnel-node1');
  witness.subscribe(ADDRESS);
  await witness.next();
  first.cancel();
  mesh.kube.remove('/api/v1/pods', 'shop/web-1');
  runPod(mesh.kube, { name: 'web-3', ip: '10.1.0.3' });
  // Both changes are out when somebody who stayed has seen them.
  const missing = new Set(['Kubernetes//Pod/shop/web-1', 'Kubernetes//Pod/shop/web-3']);
  while (missing.size > 0) {
    const push = await witness.next();
    for (const name of [...push.removedResources, ...names(push)]) missing.delete(name);
  }
  await until(() => mesh.log.entries.some(({ message }) => message === 'proxy disconnected'));
  const second = mesh.stream('ztunnel-node1');
  second.subscribe(ADDRESS, { initialResourceVersions: { ...held, 'Kubernetes//Pod/shop/from-another-life': 'x' } });
  const answer = await second.next();
  assert.deepEqual(answer.removedResources.sort(), ['Kubernetes//Pod/shop/from-another-life', 'Kubernetes//Pod/shop/web-1']);
  assert.deepEqual(names(answer), ['Kubernetes//Pod/shop/web-3']);
});

test("our own ztunnel's clients connect, sync and get a certificate", async (t) => {
  const mesh = await startTestIstiod(t, { prepare: (kube) => runPod(kube, { name: 'orders-1', ip: '10.1.0.1', account: 'orders' }) });
  const endpoint = { target: mesh.target, tls: true, root: mesh.roots, alternativeName: 'istiod.istio-system.svc', headers: {} };
  const token = () => 'ztunnel-node1';
  const held = new Map<string, string>();
  const client = new XdsClient({
    endpoint,
    token,
    clusterId: 'Kubernetes',
    node: ztunnelNode('ztunnel-node1'),
    typeUrls: [AUTHORIZATION, ADDRESS],
    clock: systemClock,
    log: mesh.log,
    versions: () => held,
    apply({ resources }) {
      for (const { name, version } of resources) held.set(name, version);
      return { rejected: [] };
    },
  });
  t.after(() => client.stop());
  client.start();
  await until(() => client.status.synced);
  assert.ok(held.has('Kubernetes//Pod/shop/orders-1'));
  const ca = new CaClient({ endpoint, token, clusterId: 'Kubernetes' });
  t.after(() => ca.close());
  const [leaf = ''] = await ca.sign({ csr: csr(), validitySeconds: 3600, impersonate: IDENTITY });
  assert.deepEqual(readCertificate(leaf).uris, [IDENTITY]);
});

test('streams that may not be are refused with their status, and others go on', async (t) => {
  const mesh = await startTestIstiod(t);
  mesh.kube.tokens.set('orders', { username: 'system:serviceaccount:shop:orders' });
  const good = mesh.stream('ztunnel-node1');
  good.subscribe(ADDRESS);
  await good.next();

  const outcome = async (token: string, request: Parameters<typeof good.send>[0] | Buffer): Promise<string> => {
    const stream = mesh.stream(token);
    if (Buffer.isBuffer(request)) stream.sendBytes(request);
    else stream.send(request);
    const { code, details } = await stream.failure();
    return `${status[code]}: ${details}`;
  };
  const node = (id: string) => ({ ...ztunnelNode('ztunnel-node1'), id });
  assert.match(await outcome('', { typeUrl: ADDRESS }), /^UNAUTHENTICATED: no bearer token/);
  assert.match(await outcome('nobody', { typeUrl: ADDRESS }), /^UNAUTHENTICATED: invalid bearer token/);
  assert.match(await outcome('ztunnel-node1', { typeUrl: ADDRESS }), /^INVALID_ARGUMENT: the first request of a stream needs node.id/);
  assert.match(await outcome('ztunnel-node1', { typeUrl: ADDRESS, node: node('ztunnel~1.2.3.4~x') }), /^INVALID_ARGUMENT: .* has 3 parts/);
  assert.match(
    await outcome('ztunnel-node1', { typeUrl: ADDRESS, node: node('toaster~~x.y~z') }),
    /^INVALID_ARGUMENT: node type "toaster"/,
  );
  assert.match(await outcome('ztunnel-node1', { typeUrl: 'x', node: ztunnelNode('z') }), /^INVALID_ARGUMENT: type "x" is not served/);
  assert.match(await outcome('ztunnel-node1', Buffer.from('ffffffff', 'hex')), /^INVALID_ARGUMENT: a message is no DeltaDiscoveryRequest/);
  assert.match(
    await outcome('orders', { typeUrl: ADDRESS, node: ztunnelNode('z') }),
    /^PERMISSION_DENIED: .* its token is of shop\/orders/,
  );
  assert.match(await outcome('ztunnel-node1', Buffer.alloc(5 << 20)), /^RESOURCE_EXHAUSTED/);

  runPod(mesh.kube, { name: 'late', ip: '10.1.0.9' });
  assert.deepEqual(names(await good.next()), ['Kubernetes//Pod/shop/late']);
  assert.match(await mesh.http('/metrics'), /warren_xds_streams_refused_total\{code="PERMISSION_DENIED"\} 1/);
  assert.ok(mesh.log.entries.some(({ message, fields }) => message === 'stream ended' && fields.code === 'PERMISSION_DENIED'));
});

test('a type that only newer proxies know is answered as empty, and told once for all of them', async (t) => {
  const mesh = await startTestIstiod(t);
  const newer = 'type.googleapis.com/warren.waypoint.v9.Teleports';
  for (let i = 0; i < 2; i++) {
    const proxy = mesh.stream('ztunnel-node1');
    proxy.subscribe(newer);
    const { typeUrl, resources } = await proxy.next();
    assert.deepEqual([typeUrl, resources], [newer, []]);
    proxy.subscribe(ADDRESS);
    assert.equal((await proxy.next()).typeUrl, ADDRESS);
  }
  assert.deepEqual(
    mesh.log.entries.filter(({ fields }) => fields.type === newer).map(({ level }) => level),
    ['warn'],
  );
});

test('of types without end that newer proxies know only the first hundred are told', async (t) => {
  const mesh = await startTestIstiod(t);
  for (let i = 0; i < 4; i++) {
    const proxy = mesh.stream('ztunnel-node1');
    for (let type = 0; type < 32; type++) proxy.subscribe(`type.googleapis.com/warren.waypoint.v${i}.Type${type}`);
    for (let type = 0; type < 32; type++) await proxy.next();
  }
  assert.equal(mesh.log.entries.filter(({ message }) => message.startsWith('a proxy is newer')).length, 100);
});

test('only trusted node accounts are told the whole mesh; a waypoint is told what its own Gateway serves', async (t) => {
  const labelled = { 'istio.io/use-waypoint': 'wp' };
  const web = service('web', '10.2.0.1');
  const mesh = await startTestIstiod(t, {
    prepare(kube) {
      runPod(kube, { name: 'web-1', ip: '10.1.0.1' });
      runPod(kube, { name: 'secret-1', ip: '10.1.0.2', namespace: 'vault', app: 'secret' });
      kube.put('/api/v1/services', { ...web, metadata: { ...web.metadata, labels: labelled } });
      kube.put('/apis/gateway.networking.k8s.io/v1/gateways', {
        metadata: { name: 'wp', namespace: 'shop' },
        spec: { gatewayClassName: 'istio-waypoint', listeners: [{ name: 'mesh', port: 15008, protocol: 'HBONE' }] },
      });
      for (const account of ['wp', 'web']) kube.tokens.set(account, { username: `system:serviceaccount:shop:${account}` });
    },
  });
  const node = (kind: string, gateway = '') => ({
    ...ztunnelNode('x', 'shop'),
    id: `${kind}~10.1.0.9~x.shop~shop.svc.cluster.local`,
    metadata: { NAMESPACE: 'shop', GATEWAY_NAME: gateway },
  });
  const refusal = async (token: string, kind: string, gateway = ''): Promise<string> => {
    const stream = mesh.stream(token);
    stream.send({ typeUrl: ADDRESS, node: node(kind, gateway) });
    const { code, details } = await stream.failure();
    return `${status[code]}: ${details}`;
  };
  assert.match(await refusal('web', 'ztunnel'), /^PERMISSION_DENIED: shop\/web is no trusted node account/);
  assert.match(await refusal('wp', 'ztunnel'), /^PERMISSION_DENIED/);
  assert.match(await refusal('web', 'waypoint', 'wp'), /^PERMISSION_DENIED: waypoints of Gateway shop\/wp run as wp, not as web/);
  assert.match(await refusal('wp', 'waypoint'), /^PERMISSION_DENIED: .*GATEWAY_NAME/);
  assert.match(await refusal('ztunnel-node1', 'waypoint', 'wp'), /^PERMISSION_DENIED: .* its token is of istio-system\/ztunnel/);

  const waypoint = mesh.stream('wp');
  waypoint.send({ typeUrl: ADDRESS, node: node('waypoint', 'wp') });
  const told = await waypoint.next();
  assert.deepEqual(names(told), ['Kubernetes//Pod/shop/web-1', 'shop/web.shop.svc.cluster.local', 'shop/wp.shop.svc.cluster.local']);
  waypoint.ack(told);
  runPod(mesh.kube, { name: 'secret-2', ip: '10.1.0.3', namespace: 'vault', app: 'secret' });
  runPod(mesh.kube, { name: 'web-2', ip: '10.1.0.4' });
  assert.deepEqual(names(await waypoint.next()), ['Kubernetes//Pod/shop/web-2']);
});

test('a client certificate of the mesh opens what its identity may, and a foreign one nothing', async (t) => {
  const mesh = await startTestIstiod(t, { prepare: (kube) => runPod(kube, { name: 'orders-1', ip: '10.1.0.1', account: 'orders' }) });
  mesh.kube.tokens.set('orders', { username: 'system:serviceaccount:shop:orders', podName: 'orders-1' });
  const key = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
  const keyPem = key.export({ type: 'pkcs8', format: 'pem' }).toString();
  const { certChain } = await mesh.sign('orders', { csr: createCsr({ uri: IDENTITY, key }) });
  const renewed = await mesh.sign('', { csr: csr() }, { chainPem: certChain.slice(0, -1).join(''), keyPem });
  assert.deepEqual(readCertificate(renewed.certChain[0] ?? '').uris, [IDENTITY]);

  const now = Date.now();
  const foreign = selfSignedRoot({ trustDomain: 'cluster.local', notBefore: now - 1000, notAfter: now + 60_000 });
  const forged = issueCertificate({
    issuer: readIssuer(foreign),
    publicKeySpkiDer: createPublicKey(key).export({ type: 'spki', format: 'der' }),
    uris: [IDENTITY],
    notBefore: now - 1000,
    notAfter: now + 60_000,
  });
  await assert.rejects(mesh.sign('', { csr: csr() }, { chainPem: forged, keyPem }), { code: status.UNAUTHENTICATED });
});

test('what a proxy rejects is logged, counted, shown, and not sent again', async (t) => {
  const mesh = await startTestIstiod(t);
  const stream = mesh.stream('ztunnel-node1');
  stream.subscribe(ADDRESS);
  const { nonce } = await stream.next();
  stream.send({ typeUrl: ADDRESS, responseNonce: nonce, errorDetail: { code: 13, message: 'bad workload', details: [] } });
  await until(() => mesh.log.entries.some(({ message }) => message === 'proxy rejected resources'));
  const [row] = JSON.parse(await mesh.http('/debug/syncz'));
  assert.equal(row.proxy, 'ztunnel-node1.istio-system');
  assert.equal(row.istio_version, '1.30.0');
  assert.equal(row.node, 'node1');
  assert.equal(row.resources[ADDRESS].acked, '');
  assert.equal(row.resources[ADDRESS].sent, nonce);
  assert.match(row.resources[ADDRESS].lastError, /bad workload/);
  const metrics = await mesh.http('/metrics');
  assert.match(metrics, /pilot_total_xds_rejects\{type="wds"\} 1\n/);
  assert.match(metrics, /pilot_xds\{version="1.30.0"\} 1\n/);
  assert.match(metrics, /pilot_xds_push_time_count\{type="wds"\} 1\n/);
  assert.match(metrics, /pilot_debounce_time_count \d/);
  assert.match(metrics, /pilot_inbound_updates\{type="eds"\} 1\n/);
  assert.ok(stream.silent);
});

test('what dashboards made for Istio ask for is there under its names, and moves', async (t) => {
  const mesh = await startTestIstiod(t, { prepare: (kube) => runPod(kube, { name: 'orders-1', ip: '10.1.0.1', account: 'orders' }) });
  const stream = mesh.stream('ztunnel-node1');
  stream.subscribe(ADDRESS);
  stream.ack(await stream.next());
  runPod(mesh.kube, { name: 'orders-2', ip: '10.1.0.2' });
  stream.ack(await stream.next());
  await mesh.sign('ztunnel-node1', { csr: csr(), metadata: { ImpersonatedIdentity: IDENTITY } });
  const metrics = await mesh.http('/metrics');
  const value = (name: string): number => {
    const lines = metrics.split('\n').filter((line) => line.startsWith(name) && /^[{ ]/.test(line.slice(name.length)));
    return lines.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
  };
  for (const name of [
    ...['pilot_xds', 'pilot_xds_pushes', 'pilot_xds_config_size_bytes_count', 'pilot_proxy_convergence_time_count'],
    ...['pilot_xds_send_time_count', 'pilot_xds_push_time_count', 'pilot_proxy_queue_time_count', 'pilot_debounce_time_count'],
    ...['pilot_inbound_updates', 'pilot_push_triggers', 'pilot_k8s_reg_events', 'pilot_info'],
    ...['citadel_server_csr_count', 'citadel_server_success_cert_issuance_count', 'citadel_server_root_cert_expiry_seconds'],
  ])
    assert.ok(value(name) > 0, name);
  for (const name of ['pilot_total_xds_rejects', 'pilot_xds_write_timeout', 'pilot_total_xds_internal_errors'])
    assert.equal(value(name), 0, name);
});

test('before the cluster has been read nobody is told that it is empty', async (t) => {
  const mesh = await startTestIstiod(t, {
    awaitReady: false,
    prepare(kube) {
      kube.intercept = ({ path }) => (path === '/api/v1/pods' ? { status: 503 } : undefined);
    },
  });
  const stream = mesh.stream('ztunnel-node1');
  stream.subscribe(ADDRESS);
  const { code, details } = await stream.failure();
  assert.deepEqual([code, details], [status.UNAVAILABLE, 'istiod has not read the cluster yet']);
  const answer = await fetch(`http://localhost:${mesh.istiod.httpPort}/ready`);
  assert.equal(answer.status, 503);
  assert.match(await answer.text(), /not ready: cluster,.*Pod/);
  mesh.kube.intercept = undefined;
  await until(() => mesh.istiod.ready);
  assert.equal((await fetch(`http://localhost:${mesh.istiod.httpPort}/ready`)).status, 200);
});

test('a root that is edited or deleted is put back, new namespaces get it, and a restart keeps it', async (t) => {
  const mesh = await startTestIstiod(t);
  const key = 'shop/istio-ca-root-cert';
  const data = () => (mesh.kube.get('/api/v1/configmaps', key) as { data?: Record<string, string> } | undefined)?.data?.['root-cert.pem'];
  await until(() => data() === mesh.roots);
  mesh.kube.put('/api/v1/configmaps', { metadata: { name: 'istio-ca-root-cert', namespace: 'shop' }, data: { 'root-cert.pem': 'edited' } });
  await until(() => data() === mesh.roots);
  mesh.kube.remove('/api/v1/configmaps', key);
  await until(() => data() === mesh.roots);
  mesh.kube.put('/api/v1/namespaces', { metadata: { name: 'later' } });
  mesh.kube.put('/api/v1/namespaces', { metadata: { name: 'kube-public' } });
  await until(() => mesh.kube.get('/api/v1/configmaps', 'later/istio-ca-root-cert') !== undefined);
  assert.equal(mesh.kube.get('/api/v1/configmaps', 'kube-public/istio-ca-root-cert'), undefined);
  assert.equal(mesh.kube.keys('/api/v1/secrets').length, 1);
  const secret = mesh.kube.get('/api/v1/secrets', 'istio-system/istio-ca-secret');
  assert.equal(secret?.type, 'istio.io/ca-root');

  const again = await startTestIstiod(t, {
    prepare: (kube) => void kube.put('/api/v1/secrets', { ...secret, metadata: { name: 'istio-ca-secret', namespace: 'istio-system' } }),
  });
  assert.equal(again.roots, mesh.roots);
  assert.equal(again.kube.requests.filter(({ method, path }) => method === 'POST' && path.endsWith('/secrets')).length, 0);
});

test('the server shows a certificate for its service names, with TLS 1.2 at least', async (t) => {
  const mesh = await startTestIstiod(t);
  const socket = connect({
    port: mesh.istiod.grpcPort,
    host: 'localhost',
    ca: mesh.roots,
    servername: 'istiod.istio-system.svc',
    ALPNProtocols: ['h2'],
  });
  await new Promise<void>((resolve, reject) => socket.once('secureConnect', resolve).once('error', reject));
  assert.equal(socket.authorized, true);
  assert.match(socket.getPeerCertificate().subjectaltname ?? '', /DNS:istiod\.istio-system\.svc.*DNS:istio-pilot\.istio-system\.svc/);
  socket.destroy();
  const old = connect({
    port: mesh.istiod.grpcPort,
    host: 'localhost',
    ca: mesh.roots,
    servername: 'istiod.istio-system.svc',
    maxVersion: 'TLSv1.1',
    minVersion: 'TLSv1.1',
  });
  await assert.rejects(new Promise((_, reject) => old.once('error', reject)));
});

test('conditions are written to objects by the replica that holds the lease', async (t) => {
  const mesh = await startTestIstiod(t);
  const POLICIES = '/apis/security.istio.io/v1/authorizationpolicies';
  mesh.kube.put(POLICIES, {
    metadata: { name: 'p', namespace: 'shop', generation: 1 },
    spec: { rules: [{ to: [{ operation: { ports: ['80'] } }] }] },
  });
  const conditions = () =>
    (mesh.kube.get(POLICIES, 'shop/p')?.status as { conditions?: { type: string; status: string }[] } | undefined)?.conditions;
  await until(() => conditions() !== undefined);
  assert.equal(conditions()?.[0]?.type, 'ZtunnelAccepted');
  // It writes to other objects too, in an order of its own.
  const patch = mesh.kube.requests.find(({ method, path }) => method === 'PATCH' && path.includes('authorizationpolicies'));
  assert.equal(patch?.query.get('fieldManager'), 'istio-ambient-ztunnel-policy');
  assert.match(JSON.stringify(patch?.body), /"lastTransitionTime":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"/);
  const lease = mesh.kube.get('/apis/coordination.k8s.io/v1/leases', 'istio-system/istio-leader')?.spec as
    | { holderIdentity?: string }
    | undefined;
  assert.equal(lease?.holderIdentity, 'istiod');
});

test('a replica without the lease serves and does not write', async (t) => {
  const mesh = await startTestIstiod(t, {
    prepare: (kube) =>
      void kube.put('/apis/coordination.k8s.io/v1/leases', {
        metadata: { name: 'istio-leader', namespace: 'istio-system' },
        spec: { holderIdentity: 'the-other', leaseDurationSeconds: 30, renewTime: new Date().toISOString() },
      }),
  });
  const stream = mesh.stream('ztunnel-node1');
  stream.subscribe(ADDRESS);
  assert.deepEqual(names(await stream.next()), [ZTUNNEL_POD]);
  await until(() => mesh.kube.requests.some(({ path }) => path.endsWith('/leases/istio-leader')));
  await until(() => mesh.kube.watchers('/api/v1/configmaps') > 0);
  assert.deepEqual(mesh.kube.keys('/api/v1/configmaps'), []);
});

test('ambientz shows what is served, readably, and problems what is wrong', async (t) => {
  const mesh = await startTestIstiod(t, {
    prepare(kube) {
      runPod(kube, { name: 'web-1', ip: '10.1.0.1' });
      kube.put('/api/v1/services', service('web', '10.2.0.1'));
      kube.put('/apis/security.istio.io/v1/authorizationpolicies', {
        metadata: { name: 'odd', namespace: 'shop' },
        spec: { action: 'DENY', rules: [{ to: [{ operation: { ports: ['eighty'] } }] }] },
      });
    },
  });
  const dump = JSON.parse(await mesh.http('/debug/ambientz'));
  const workload = dump.workloads.find(({ name }: { name: string }) => name === 'web-1');
  assert.deepEqual([workload.addresses, workload.tunnelProtocol, workload.status], [['10.1.0.1'], 'HBONE', 'HEALTHY']);
  assert.deepEqual(dump.services[0].addresses, [{ address: '10.2.0.1' }]);
  const problems = JSON.parse(await mesh.http('/debug/problems'));
  assert.match(problems[0].object, /AuthorizationPolicy shop\/odd/);
});

test('on shutdown proxies are asked to go, and the lease is free at once', async (t) => {
  const mesh = await startTestIstiod(t);
  const stream = mesh.stream('ztunnel-node1');
  stream.subscribe(ADDRESS);
  await stream.next();
  await until(() => mesh.kube.keys('/api/v1/configmaps').length === 2);
  await mesh.istiod.close();
  assert.equal((await stream.failure()).code, status.UNAVAILABLE);
  const lease = mesh.kube.get('/apis/coordination.k8s.io/v1/leases', 'istio-system/istio-leader')?.spec as
    | { holderIdentity?: string }
    | undefined;
  assert.equal(lease?.holderIdentity, '');
});
