/** What happens to open connections: policies that change, drains, control planes that go away; and calls that nobody should make. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { closeFd, listenTcp } from '../../common/linux/sockets.ts';
import { joinNetns, makeNetns, withoutNamespaces } from '../support/netns.ts';
import { dedicatedEnv, makePair, NAMESPACE, type Pair } from '../support/pair.ts';
import { call, controlled, get, holdOpen, type Shared, startControlPlane, startEcho, startShared } from '../support/pair-programs.ts';
import { runScript, startProgram } from '../support/programs.ts';

const options = { skip: withoutNamespaces ?? false, timeout: 60_000 };

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
  const { ztunnel } = await startShared(t, pair, { CONNECTION_TERMINATION_DEADLINE: '20s' });
  const echo = await startEcho(t, pair.server.netns);
  const open = await holdOpen(t, pair.client.netns, pair.server.v4, 8080);
  ztunnel.kill();
  await ztunnel.line(/draining/);
  const deadline = Date.now() + 5000;
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
  const first = await startShared(t, pair, { CONNECTION_TERMINATION_DEADLINE: '20s' });
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

/** What came of a call: `C` it could not connect, `R` it connected and got no answer, `H` an HTTP answer (istio-data-plane.md §12.4). */
async function outcome(from: Pair['client']['netns'], ip: string, port: number): Promise<string> {
  return (
    await runScript(
      from,
      `import net from 'node:net';
      let connected = false; let received = '';
      const socket = net.connect(${port}, ${JSON.stringify(ip)});
      const timer = setTimeout(() => socket.destroy(), 1000);
      socket.on('connect', () => { connected = true; socket.write('GET / HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n'); });
      socket.on('data', (data) => { received += data; });
      // A reset on the heels of the handshake can be all that connect() gets to see of it.
      socket.on('error', ({ code }) => { if (code === 'ECONNRESET') connected = true; });
      socket.on('close', () => { clearTimeout(timer); console.log(received.startsWith('HTTP/1.1') ? 'H' : connected ? 'R' : 'C'); });`,
    )
  ).trim();
}

const PORTS = [15001, 15006, 15008, 15080, 15000, 15020, 15021];

async function row(from: Pair['client']['netns'], ip: string): Promise<string> {
  return (await Promise.all(PORTS.map((port) => outcome(from, ip, port)))).join('');
}

test('calls to ztunnel’s own ports lead nowhere, from wherever they come', options, async (t) => {
  const pair = await makePair(t);
  const home = makeNetns(t);
  const { a: homeEnd } = joinNetns(home, pair.client.netns, 60 + (process.pid % 30));
  const shared: Shared = await startShared(t, pair, { POD_NAME: 'ztunnel', POD_NAMESPACE: NAMESPACE, SERVICE_ACCOUNT: 'ztunnel' }, home);
  const outside = makeNetns(t);
  const { a: outerEnd } = joinNetns(home, outside, 90 + (process.pid % 10));
  assert.equal(await row(pair.client.netns, homeEnd.v4), 'RRRRRHH', 'captured pod to ztunnel');
  assert.equal(await row(pair.client.netns, pair.client.v4), 'RRRCCCC', 'captured pod to itself');
  assert.equal(await row(pair.client.netns, '127.0.0.1'), 'RRRCCCC', 'captured pod to loopback');
  assert.equal(await row(outside, outerEnd.v4), 'CCRCCHH', 'outside to ztunnel');
  assert.match(shared.ztunnel.output(), /attempted recursive call to ourselves/);
});
