/** Two pods and the wire between them: what a client, a server, a capture, the metrics and the log see of ztunnel's tunnels. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { type TestNetns, withoutNamespaces } from '../support/netns.ts';
import { makePair, NAMESPACE, type Pair, SERVICE_VIP } from '../support/pair.ts';
import { call, capture, get, holdOpen, podInfo, startDedicated, startEcho, startShared } from '../support/pair-programs.ts';
import { runScript, startProgram } from '../support/programs.ts';

const options = { skip: withoutNamespaces ?? false, timeout: 120_000 };
const METRICS = 'http://127.0.0.1:15020/metrics';

type Answer = Awaited<ReturnType<typeof get>>;

/** Value of a metric's sample that has all these labels. */
function sample(text: string, name: string, labels: Record<string, string>): number | undefined {
  const line = text
    .split('\n')
    .find((one) => one.startsWith(`${name}{`) && Object.entries(labels).every(([key, value]) => one.includes(`${key}="${value}"`)));
  return line === undefined ? undefined : Number(line.slice(line.lastIndexOf(' ') + 1));
}

const DENY_CLIENT = (principal: string): string => `
- name: no-client
  namespace: ${NAMESPACE}
  scope: Namespace
  action: Deny
  rules: [[[{principals: [{Exact: "${principal}"}]}]]]
`;

const STRICT = `
- name: istio_converted_static_strict
  namespace: istio-system
  scope: WorkloadSelector
  action: Deny
  rules: [[[{notPrincipals: [{Presence: {}}]}]]]
`;

for (const mode of ['dedicated', 'shared'] as const) {
  test(
    `${mode}: a request goes through a tunnel, with TLS and nothing else on the wire, and both sides count and log it`,
    options,
    async (t) => {
      const pair = await makePair(t);
      const ztunnels = await start(t, mode, pair);
      const echo = await startEcho(t, pair.server.netns);
      const wire = await capture(t, pair.client.netns, pair.device);

      assert.deepEqual(await call(pair.client.netns, pair.server.v4, 8080), { received: 'hello worldhello world' });
      assert.match(echo.output(), new RegExp(`connection from ${pair.client.v4}\\n`), 'the original source address is kept');
      const bytes = await wire.bytes();
      assert.ok(bytes.length > 1000, 'the capture saw the connection');
      assert.equal(bytes.includes('hello world'), false, 'the request is not in the clear');

      assert.deepEqual(await call(pair.client.netns, SERVICE_VIP, 80), { received: 'hello worldhello world' });
      assert.deepEqual(await call(pair.client.netns, pair.server.v6, 8080), { received: 'hello worldhello world' });
      assert.match(echo.output(), new RegExp(`connection from ${pair.client.v6}\\n`));

      const outbound = await ztunnels.client.line(/connection complete.*direction="outbound"/);
      assert.match(outbound, new RegExp(`dst.addr=${pair.server.v4}:15008 dst.hbone_addr=${pair.server.v4}:8080`));
      assert.match(outbound, new RegExp(`src.identity="${pair.client.identity}".*dst.identity="${pair.server.identity}"`));
      assert.match(outbound, /bytes_sent=11 bytes_recv=22 duration="\d+ms" id="[0-9a-f]{32}"$/);
      const inbound = await ztunnels.server.line(/connection complete.*direction="inbound"/);
      assert.match(inbound, /dst.service="server.shop.svc.cluster.local" dst.workload="server"/);
      assert.match(inbound, /bytes_sent=22 bytes_recv=11/);
      assert.equal(/id="([0-9a-f]+)"/.exec(inbound)?.[1], /id="([0-9a-f]+)"/.exec(outbound)?.[1], 'both lines carry the same id');

      for (const [netns, reporter] of [
        [ztunnels.clientHome, 'source'],
        [ztunnels.serverHome, 'destination'],
      ] as const) {
        const labels = {
          reporter,
          connection_security_policy: 'mutual_tls',
          source_principal: pair.client.identity,
          destination_principal: pair.server.identity,
        };
        const total = (body: string, name: string): number =>
          body
            .split('\n')
            .filter(
              (line) => line.startsWith(`${name}{`) && Object.entries(labels).every(([key, value]) => line.includes(`${key}="${value}"`)),
            )
            .reduce((all, line) => all + Number(line.slice(line.lastIndexOf(' ') + 1)), 0);
        // The end of a connection reaches the two sides one after the other.
        const { body, type } = await getUntil(netns, METRICS, (answer) => total(answer.body, 'istio_tcp_connections_closed_total') === 3);
        const sum = (name: string): number => total(body, name);
        assert.match(type, /^text\/plain/);
        assert.ok(body.endsWith('# EOF\n'));
        assert.equal(sum('istio_tcp_connections_opened_total'), 3);
        assert.equal(sum('istio_tcp_connections_closed_total'), 3);
        assert.equal(sum('istio_tcp_received_bytes_total'), 33);
        assert.equal(sum('istio_tcp_sent_bytes_total'), 66);
        assert.equal(sum('istio_tcp_connections_failed_total'), 0);
      }
      assert.equal((await get(ztunnels.serverHome, 'http://127.0.0.1:15021/healthz/ready')).status, 200);
      ztunnels.kill();
      assert.deepEqual(await ztunnels.ended(), ztunnels.count === 1 ? [0] : [0, 0]);
    },
  );
}

test('an application that is too busy to accept gets its connections when it has time', options, async (t) => {
  const pair = await makePair(t);
  await start(t, 'dedicated', pair);
  // Its queue has room for two.
  const busy = startProgram(t, pair.server.netns, '-e', [
    `const server = require('node:net').createServer((socket) => socket.on('error', () => undefined).pipe(socket));
    server.listen({ port: 8080, host: '::', backlog: 1 }, () => {
      console.log('listening');
      const until = Date.now() + 1500;
      while (Date.now() < until);
    });`,
  ]);
  await busy.line(/^listening/);
  const output = await runScript(
    pair.client.netns,
    `import net from 'node:net';
    const call = () => new Promise((resolve) => {
      const socket = net.connect(8080, '${pair.server.v4}').on('error', (error) => resolve(error.message));
      socket.on('data', (data) => { resolve(String(data)); socket.destroy(); }).write('x');
    });
    console.log((await Promise.all(Array.from({ length: 8 }, call))).join(''));`,
  );
  assert.equal(output.trim(), 'xxxxxxxx');
});

test('a policy that refuses the caller is a 401 whose reason the caller of the same namespace learns', options, async (t) => {
  const pair = await makePair(t, { policies: DENY_CLIENT(`cluster.local/ns/${NAMESPACE}/sa/client`) });
  const { client, server } = await startDedicated(t, pair);
  const echo = await startEcho(t, pair.server.netns);
  assert.equal((await call(pair.client.netns, pair.server.v4, 8080)).received, '');
  assert.doesNotMatch(echo.output(), /connection from/);

  const inbound = await server.line(/connection complete.*inbound/);
  assert.match(inbound, /\terror\taccess\t/);
  assert.match(
    inbound,
    /error="connection closed due to policy rejection: explicitly denied by: shop\/no-client" id="[0-9a-f]+" warren.code="POLICY_DENIED" warren.policy="shop\/no-client"$/,
  );
  const outbound = await client.line(/connection complete.*outbound/);
  assert.match(outbound, /error="http status: 401 Unauthorized .*policy shop\/no-client/);
  const { body } = await get(pair.server.netns, METRICS);
  assert.equal(sample(body, 'istio_tcp_connections_failed_total', { response_flags: 'DENY', reporter: 'destination' }), 1);
  assert.equal(sample(body, 'warren_refusals_total', { code: 'POLICY_DENIED', policy: 'shop/no-client' }), 1);
});

test('STRICT refuses plaintext, and the log says what to do about it', options, async (t) => {
  const pair = await makePair(t, { policies: STRICT, serverPolicies: ['istio-system/istio_converted_static_strict'], capture: ['server'] });
  const { ztunnel } = await startShared(t, pair);
  await startEcho(t, pair.server.netns);
  assert.equal((await call(pair.client.netns, pair.server.v4, 8080)).received, '');
  assert.match(
    await ztunnel.line(/direction="inbound"/),
    /warren.code="MTLS_REQUIRED" warren.policy="istio-system\/istio_converted_static_strict"/,
  );
});

test('without STRICT a client outside the mesh is served in plaintext, from its own address', options, async (t) => {
  const pair = await makePair(t, { capture: ['server'] });
  const { ztunnel } = await startShared(t, pair);
  const echo = await startEcho(t, pair.server.netns);
  assert.deepEqual(await call(pair.client.netns, pair.server.v4, 8080), { received: 'hello worldhello world' });
  assert.match(echo.output(), new RegExp(`connection from ${pair.client.v4}\\n`));
  const line = await ztunnel.line(/direction="inbound"/);
  assert.match(line, new RegExp(`dst.addr=${pair.server.v4}:8080`));
  assert.doesNotMatch(line, /identity/);
});

test('a destination outside the mesh is reached in plaintext', options, async (t) => {
  const pair = await makePair(t, { capture: ['client'] });
  const { ztunnel } = await startShared(t, pair);
  await startEcho(t, pair.server.netns);
  assert.deepEqual(await call(pair.client.netns, pair.server.v4, 8080), { received: 'hello worldhello world' });
  assert.match(await ztunnel.line(/direction="outbound"/), new RegExp(`dst.addr=${pair.server.v4}:8080 dst.workload="server"`));
});

test('a peer with a certificate of another authority is refused, and both logs say so', options, async (t) => {
  const pair = await makePair(t);
  const stranger = await makePair(t);
  const foreign = stranger.authority.issue(pair.client.identity);
  const folder = join(pair.certificates, NAMESPACE, 'client');
  for (const [name, text] of [
    ['key.pem', foreign.key],
    ['cert-chain.pem', foreign.chain],
    ['root-cert.pem', pair.authority.root],
  ] as const) {
    writeFileSync(join(folder, name), text);
  }
  const { server } = await startDedicated(t, pair);
  const echo = await startEcho(t, pair.server.netns);
  assert.equal((await call(pair.client.netns, pair.server.v4, 8080)).received, '');
  assert.doesNotMatch(echo.output(), /connection from/);
  assert.match(await server.line(/connection failed/), /\twarn\taccess\t.*warren.code="TLS_FAILURE"/);
});

test(
  'a pod that the node agent takes away loses its connections and its listeners at once; the other pod notices nothing',
  options,
  async (t) => {
    const pair = await makePair(t);
    const { connection, home } = await startShared(t, pair);
    await startEcho(t, pair.server.netns);
    const open = await holdOpen(t, pair.client.netns, pair.server.v4, 8080);
    const dump = JSON.parse((await get(home, 'http://127.0.0.1:15000/config_dump')).body);
    assert.equal(dump.workloadState['uid-server'].state, 'Up');
    assert.equal(dump.workloadState['uid-server'].connections.inbound.length, 1);
    assert.equal(dump.workloadState['uid-client'].connections.outbound[0].protocol, 'HBONE');
    assert.equal(await connection.del('uid-server'), '');
    await open.line(/^over/);
    assert.doesNotMatch(pair.server.netns.exec('ss', '-Hltn'), /:1500[168]\b/);
    assert.match(pair.client.netns.exec('ss', '-Hltn'), /:15001\b/);
  },
);

test('a listener that cannot be opened is a NACK that names port and pod, and is tried again', options, async (t) => {
  const pair = await makePair(t, { capture: [] });
  const { connection, home, ztunnel } = await startShared(t, pair);
  assert.equal(await connection.del('uid-server'), '');
  assert.doesNotMatch(pair.server.netns.exec('ss', '-Hltn'), /:15006\b/, 'no worker listens for a pod that is said to be gone');
  const { listenTcp, closeFd } = await import('../../common/linux/sockets.ts');
  const taken = listenTcp({ netns: pair.server.netns.netns, address: '::', port: 15006 });
  const problem = await connection.add('uid-server', podInfo(pair.server), pair.server.netns.netns.fd);
  assert.match(problem, /cannot listen on port 15006 for shop\/server: .*EADDRINUSE/);
  assert.match((await get(home, 'http://127.0.0.1:15021/healthz/ready')).body, /not ready, pending: workload proxy manager/);
  closeFd(taken);
  const deadline = Date.now() + 30_000;
  while ((await get(home, 'http://127.0.0.1:15021/healthz/ready')).status !== 200) assert.ok(Date.now() < deadline, ztunnel.output());
});

interface Started {
  readonly client: { line(pattern: RegExp): Promise<string> };
  readonly server: { line(pattern: RegExp): Promise<string> };
  readonly clientHome: Pair['client']['netns'];
  readonly serverHome: Pair['client']['netns'];
  readonly count: number;
  kill(): void;
  ended(): Promise<(number | string)[]>;
}

async function start(t: Parameters<typeof makePair>[0], mode: 'dedicated' | 'shared', pair: Pair): Promise<Started> {
  if (mode === 'dedicated') {
    const { client, server } = await startDedicated(t, pair);
    const programs = [client, server];
    return {
      client,
      server,
      clientHome: pair.client.netns,
      serverHome: pair.server.netns,
      count: 2,
      kill: () => {
        for (const program of programs) program.kill();
      },
      ended: () => Promise.all(programs.map((program) => program.ended)),
    };
  }
  const { ztunnel, home } = await startShared(t, pair);
  return {
    client: ztunnel,
    server: ztunnel,
    clientHome: home,
    serverHome: home,
    count: 1,
    kill: () => ztunnel.kill(),
    ended: async () => [await ztunnel.ended],
  };
}

/** The answer for which the condition holds, or the last one within 20 s. */
async function getUntil(netns: TestNetns, url: string, holds: (answer: Answer) => boolean): Promise<Answer> {
  const deadline = performance.now() + 20_000;
  for (;;) {
    const answer = await get(netns, url);
    if (holds(answer) || performance.now() > deadline) return answer;
  }
}
