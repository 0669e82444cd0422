/** What happens to open connections: policies that change, drains, control planes that go away; and starts that fail. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { closeFd, listenTcp } from '../../common/linux/sockets.ts';
import { makeNetns, withoutNamespaces } from '../support/netns.ts';
import { dedicatedEnv, makePair, NAMESPACE } from '../support/pair.ts';
import { call, controlled, get, holdOpen, startControlPlane, startDedicated, startEcho, startShared } from '../support/pair-programs.ts';
import { startProgram } from '../support/programs.ts';
import { revocationList } from '../support/revocation-list.ts';

const options = { skip: withoutNamespaces ?? false, timeout: 120_000 };

const DENY_PORT = (port: number): string => `
- name: no-port
  namespace: ${NAMESPACE}
  scope: Namespace
  action: Deny
  rules: [[[{destinationPorts: [${port}]}]]]
`;

async function controlledPair(t: TestContext) {
  const pair = await makePair(t);
  const home = makeNetns(t);
  const plane = await startControlPlane(t, pair, home);
  const shared = await startShared(t, pair, controlled, home);
  return { pair, plane, ...shared };
}

test('a policy change closes the open connection that it no longer allows, and no other', options, async (t) => {
  const { pair, plane, ztunnel } = await controlledPair(t);
  await startEcho(t, pair.server.netns, 8080);
  await startEcho(t, pair.server.netns, 9090);
  const refused = await holdOpen(t, pair.client.netns, pair.server.v4, 8080);
  const allowed = await holdOpen(t, pair.client.netns, pair.server.v4, 9090);
  await plane.apply({ policies: DENY_PORT(8080) });
  await refused.line(/^over/);
  const line = await ztunnel.line(/POLICY_REVOKED.*direction="inbound"|direction="inbound".*POLICY_REVOKED/);
  assert.match(line, /error="connection closed due to policy change: explicitly denied by: shop\/no-port"/);
  assert.match(line, /warren.policy="shop\/no-port"/);
  assert.doesNotMatch(allowed.output(), /over/);
  assert.equal((await call(pair.client.netns, pair.server.v4, 8080)).received, '');
  await plane.apply({});
  assert.equal((await call(pair.client.netns, pair.server.v4, 8080)).received, 'hello worldhello world');
});

test('a policy that begins to select the pod closes its connections as well', options, async (t) => {
  const { pair, plane } = await controlledPair(t);
  const policy = `
- name: selected
  namespace: ${NAMESPACE}
  scope: WorkloadSelector
  action: Deny
  rules: [[[{destinationPorts: [8080]}]]]
`;
  await startEcho(t, pair.server.netns, 8080);
  await plane.apply({ policies: policy });
  const open = await holdOpen(t, pair.client.netns, pair.server.v4, 8080);
  await plane.apply({ policies: policy, serverPolicies: [`${NAMESPACE}/selected`] });
  await open.line(/^over/);
});

test('on SIGTERM listeners close at once, the open connection goes on, and the process ends when it does', options, async (t) => {
  const pair = await makePair(t);
  const { ztunnel } = await startShared(t, pair, { CONNECTION_TERMINATION_DEADLINE: '90s' });
  const echo = await startEcho(t, pair.server.netns);
  const open = await holdOpen(t, pair.client.netns, pair.server.v4, 8080);
  ztunnel.kill();
  await ztunnel.line(/draining/);
  const deadline = Date.now() + 20_000;
  while (/:15001\b/.test(pair.client.netns.exec('ss', '-Hltn'))) assert.ok(Date.now() < deadline, 'listeners are closed');
  assert.ok((await call(pair.client.netns, pair.server.v4, 8080)).error, 'new connections are refused');
  assert.doesNotMatch(open.output(), /over/);
  assert.equal(ztunnel.process.exitCode, null);
  open.kill();
  assert.equal(await ztunnel.ended, 0);
  assert.match(echo.output(), /closed|reset/);
});

test('at the deadline what is still open is closed, and said to be drained', options, async (t) => {
  const pair = await makePair(t);
  const { ztunnel } = await startShared(t, pair, { CONNECTION_TERMINATION_DEADLINE: '1s' });
  await startEcho(t, pair.server.netns);
  const open = await holdOpen(t, pair.client.netns, pair.server.v4, 8080);
  ztunnel.kill();
  await open.line(/^over/);
  assert.equal(await ztunnel.ended, 0);
  assert.match(
    ztunnel.output(),
    /\tinfo\taccess\tconnection complete\t.*error="connection closed due to connection drain".*warren.code="DRAINED"/,
  );
});

test('a control plane that goes away disturbs nothing', options, async (t) => {
  const pair = await makePair(t);
  const home = makeNetns(t);
  const program = startProgram(t, home, 'test/support/control-plane-program.ts', ['15010', pair.config]);
  await program.line(/^listening/);
  const { ztunnel } = await startShared(t, pair, controlled, home);
  await startEcho(t, pair.server.netns);
  program.kill('SIGKILL');
  await ztunnel.line(/connection to the control plane ended/);
  assert.equal((await call(pair.client.netns, pair.server.v4, 8080)).received, 'hello worldhello world');
  assert.equal((await get(home, 'http://127.0.0.1:15021/healthz/ready')).status, 200);
});

test('a second ztunnel takes over while the first one drains: no connection is refused', options, async (t) => {
  const pair = await makePair(t);
  const first = await startShared(t, pair, { CONNECTION_TERMINATION_DEADLINE: '90s' });
  await startEcho(t, pair.server.netns);
  const open = await holdOpen(t, pair.client.netns, pair.server.v4, 8080);
  await startShared(t, pair);
  first.ztunnel.kill();
  await first.ztunnel.line(/draining/);
  for (let i = 0; i < 10; i++)
    assert.deepEqual(await call(pair.client.netns, pair.server.v4, 8080), { received: 'hello worldhello world' });
  assert.doesNotMatch(open.output(), /over/);
});

test('a taken port ends a dedicated proxy with an error that names it', options, async (t) => {
  for (const { port, message } of [
    { port: 15_001, message: /ztunnel cannot serve.*cannot listen on port 15001 for shop\/client: .*EADDRINUSE/ },
    { port: 15_000, message: /ztunnel cannot start.*admin: cannot listen on 127\.0\.0\.1 port 15000: .*EADDRINUSE/ },
  ]) {
    const pair = await makePair(t, { capture: [] });
    const taken = listenTcp({ netns: pair.client.netns.netns, address: port === 15_000 ? '127.0.0.1' : '::', port });
    t.after(() => closeFd(taken));
    const ztunnel = startProgram(t, pair.client.netns, 'ztunnel/main.ts', [], dedicatedEnv(pair, pair.client));
    assert.equal(await ztunnel.ended, 1);
    assert.match(ztunnel.output(), message);
  }
});

test('a certificate that is revoked ends its connections on both sides, and makes no new ones', options, async (t) => {
  const pair = await makePair(t);
  const crl = join(pair.folder, 'crl.pem');
  const certificate = readFileSync(join(pair.certificates, NAMESPACE, 'client', 'cert-chain.pem'), 'utf8');
  const { server } = await startDedicated(t, pair, { CRL_PATH: crl });
  await startEcho(t, pair.server.netns);
  const open = await holdOpen(t, pair.client.netns, pair.server.v4, 8080);
  writeFileSync(crl, revocationList(certificate));
  await open.line(/^over/);
  await server.line(/connection complete.*direction="inbound".*a certificate of the peer has been revoked.*warren.code="CERT_REVOKED"/);
  assert.equal((await call(pair.client.netns, pair.server.v4, 8080)).received, '');
  await server.line(/connection failed.*warren.code="CERT_REVOKED"/);
  const { body } = await get(pair.server.netns, 'http://127.0.0.1:15020/metrics');
  assert.match(body, /^istio_crl_policy_rejections_total\{reporter="destination"\} [1-9]/m);
  assert.match(body, /^istio_tcp_connections_failed_total\{.*response_flags="CERT_REVOKED"/m);
  writeFileSync(crl, '');
  await server.line(/revocation list read.*serials=0/);
  assert.equal((await call(pair.client.netns, pair.server.v4, 8080)).received, 'hello worldhello world');
});

test('under REGISTRY_ONLY what is no known service or workload is refused by name, what is known is not', options, async (t) => {
  const pair = await makePair(t);
  const { client } = await startDedicated(t, pair, { WARREN_OUTBOUND_TRAFFIC_POLICY: 'REGISTRY_ONLY' });
  await startEcho(t, pair.server.netns);
  assert.equal((await call(pair.client.netns, pair.server.v4, 8080)).received, 'hello worldhello world');
  assert.equal((await call(pair.client.netns, '192.0.2.1', 443)).received, '');
  const line = await client.line(/connection failed.*dst\.addr=192\.0\.2\.1:443/);
  assert.match(
    line,
    /error="192\.0\.2\.1:443 is no known service.*REGISTRY_ONLY".*warren\.code="NOT_IN_REGISTRY".*warren\.client="shop\/client"/,
  );
});

test('a pod that has all of its connections gets no more until one of them ends, and those go on', options, async (t) => {
  const pair = await makePair(t);
  const { ztunnel, home } = await startShared(t, pair, { WARREN_POD_MAX_CONNECTIONS: '6', ZTUNNEL_WORKER_THREADS: '1' });
  await startEcho(t, pair.server.netns);
  // Six are the client's as their opener; the server has the same six as their receiver.
  const held = await Promise.all(Array.from({ length: 6 }, () => holdOpen(t, pair.client.netns, pair.server.v4, 8080)));
  const refused = await call(pair.client.netns, pair.server.v4, 8080);
  assert.equal(refused.received, '');
  await ztunnel.line(/connection failed.*shop\/client has 6 connections in this worker.*warren\.code="OVERLOADED"/);
  assert.ok(held.every((one) => !/over/.test(one.output())));
  const { body } = await get(home, 'http://127.0.0.1:15020/metrics');
  assert.match(body, /^warren_limited_total\{limit="connections"\} [1-9]/m);
  for (const one of held.slice(0, 3)) one.kill('SIGKILL');
  const deadline = Date.now() + 20_000;
  while ((await call(pair.client.netns, pair.server.v4, 8080)).received === '') assert.ok(Date.now() < deadline, 'there is room again');
});
