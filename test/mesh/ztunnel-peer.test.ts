/** What a peer with a certificate of the mesh gets for its CONNECT requests, honest and other. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { writeCertificate } from '../support/certificates.ts';
import { joinNetns, makeNetns, type TestNetns, withoutNamespaces } from '../support/netns.ts';
import { makePair, NAMESPACE, type Pair } from '../support/pair.ts';
import { get, startEcho, startShared } from '../support/pair-programs.ts';
import { runScript, startProgram } from '../support/programs.ts';

const options = { skip: withoutNamespaces ?? false, timeout: 120_000 };

interface Answer {
  readonly authority?: string;
  readonly status?: number;
  readonly reason?: string;
  readonly policy?: string;
  readonly received?: string;
  readonly error?: string;
}

/** Calls as an identity that the test makes up. */
async function peerCalls(
  t: TestContext,
  from: TestNetns,
  pair: Pair,
  ip: string,
  identity: string,
  authorities: string[],
  port = 15008,
): Promise<Answer[]> {
  const folder = join(pair.folder, `peer-${Math.random()}`);
  writeCertificate(folder, pair.authority.issue(identity));
  const program = startProgram(t, from, 'test/support/hbone-call-program.ts', [ip, String(port), folder, ...authorities]);
  await program.ended;
  return program
    .output()
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line));
}

const peer = (namespace: string): string => `spiffe://cluster.local/ns/${namespace}/sa/peer`;

test('CONNECT is answered as the contract says, authority by authority', options, async (t) => {
  const pair = await makePair(t, { capture: ['server'] });
  const { ztunnel } = await startShared(t, pair);
  await startEcho(t, pair.server.netns);
  const { v4, v6 } = pair.server;
  const hostname = `server.${NAMESPACE}.svc.cluster.local`;
  const answers = await peerCalls(t, pair.client.netns, pair, v4, peer(NAMESPACE), [
    `${v4}:8080`,
    `${hostname}:80`,
    `${pair.client.v4}:8080`,
    `[${v6}]:8080`,
    v4,
    'nonsense',
    `${hostname}:81`,
    'other.example:80',
    `${v4}:15001`,
    `${v4}:15008`,
    `${v4}:9`,
  ]);
  assert.deepEqual(
    answers.map(({ authority, status, reason }) => [authority, status, reason]),
    [
      [`${v4}:8080`, 200, undefined],
      [`${hostname}:80`, 200, undefined],
      [`${pair.client.v4}:8080`, 400, 'IP_MISMATCH'],
      [`[${v6}]:8080`, 400, 'IP_MISMATCH'],
      [v4, 400, 'BAD_REQUEST'],
      ['nonsense', 400, 'BAD_REQUEST'],
      [`${hostname}:81`, 503, 'SERVICE_UNKNOWN'],
      ['other.example:80', 503, 'SERVICE_UNKNOWN'],
      [`${v4}:15001`, 503, 'SELF_CALL'],
      [`${v4}:15008`, 503, 'SELF_CALL'],
      [`${v4}:9`, 503, 'UPSTREAM_CONNECT'],
    ],
  );
  assert.equal(answers[0]?.received, 'hellohello');
  assert.match(ztunnel.output(), new RegExp(`error="ip mismatch: ${pair.client.v4} != ${v4}"`));
});

test('a peer of another trust domain is turned away before it can ask', options, async (t) => {
  const pair = await makePair(t, { capture: ['server'] });
  const { ztunnel } = await startShared(t, pair);
  const echo = await startEcho(t, pair.server.netns);
  const answers = await peerCalls(t, pair.client.netns, pair, pair.server.v4, 'spiffe://elsewhere/ns/shop/sa/peer', [
    `${pair.server.v4}:8080`,
  ]);
  assert.equal(answers[0]?.status, undefined);
  assert.doesNotMatch(echo.output(), /connection from/);
  assert.match(
    await ztunnel.line(/connection failed/),
    /presented spiffe:\/\/elsewhere\/ns\/shop\/sa\/peer, expected trust domain cluster.local/,
  );
});

test('a peer of another namespace learns that it was refused and not by which rule', options, async (t) => {
  const deny = `
- name: no-peers
  namespace: ${NAMESPACE}
  scope: Namespace
  action: Deny
  rules: [[[{destinationPorts: [8080]}]]]
`;
  const pair = await makePair(t, { capture: ['server'], policies: deny });
  await startShared(t, pair);
  await startEcho(t, pair.server.netns);
  const call = (namespace: string) => peerCalls(t, pair.client.netns, pair, pair.server.v4, peer(namespace), [`${pair.server.v4}:8080`]);
  const [own] = await call(NAMESPACE);
  assert.deepEqual([own?.status, own?.reason, own?.policy], [401, 'POLICY_DENIED', `${NAMESPACE}/no-peers`]);
  const [other] = await call('other');
  assert.deepEqual([other?.status, other?.reason, other?.policy], [401, 'POLICY_DENIED', undefined]);
});

test('a peer that breaks HTTP/2 or never shakes hands is cut off, the log says how, and the next peer is served', options, async (t) => {
  const pair = await makePair(t, { capture: ['server'] });
  const { ztunnel } = await startShared(t, pair);
  const silent = startProgram(t, pair.client.netns, '-e', [
    `require('node:net').connect(15008, '${pair.server.v4}', function () { this.write(Buffer.from([22])); console.log('connected'); })
      .on('error', () => undefined).on('close', () => console.log('cut off'));`,
  ]);
  await silent.line(/^connected/);
  await startEcho(t, pair.server.netns);
  const { key, chain } = pair.authority.issue(peer(NAMESPACE));
  const closed = await runScript(
    pair.client.netns,
    `import tls from 'node:tls';
    const socket = tls.connect({ host: '${pair.server.v4}', port: 15008, key: ${JSON.stringify(key)}, cert: ${JSON.stringify(chain)}, ALPNProtocols: ['h2'], rejectUnauthorized: false });
    socket.on('error', () => undefined);
    socket.on('secureConnect', () => socket.write('GET / HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n'));
    socket.on('data', () => undefined);
    socket.on('close', () => console.log('closed'));`,
  );
  assert.equal(closed, 'closed\n');
  await ztunnel.line(/connection failed.*warren.code="HTTP2_FAILURE"/);
  const [answer] = await peerCalls(t, pair.client.netns, pair, pair.server.v4, peer(NAMESPACE), [`${pair.server.v4}:8080`]);
  assert.equal(answer?.status, 200);
  await silent.line(/^cut off/);
  await ztunnel.line(/connection failed.*TLS handshake.*warren.code="TLS_FAILURE"/);
  assert.equal(ztunnel.output().match(/TLS_FAILURE/g)?.length, 1, 'said once');
});

test('an application with a PROXY tunnel is told who called and whom they meant', options, async (t) => {
  const pair = await makePair(t, { capture: ['server'], serverExtra: 'applicationTunnel: {protocol: PROXY, port: 15088}' });
  await startShared(t, pair);
  const echo = startProgram(t, pair.server.netns, '-e', [
    `require('node:net').createServer((socket) => socket.once('data', (data) => { console.log('got', data.toString('hex')); socket.end('ok'); })).listen(15088, '127.0.0.1', () => console.log('listening'));`,
  ]);
  await echo.line(/^listening/);
  const [answer] = await peerCalls(t, pair.client.netns, pair, pair.server.v4, peer(NAMESPACE), ['10.96.0.10:80']);
  assert.deepEqual([answer?.status, answer?.received], [200, 'ok']);
  const got = await echo.line(/^got/);
  const identity = Buffer.from(peer(NAMESPACE)).toString('hex');
  assert.match(
    got,
    new RegExp(
      `^got 0d0a0d0a000d0a515549540a2111....${Buffer.from(pair.client.v4.split('.').map(Number)).toString('hex')}0a60000a....0050d0....${identity}`,
    ),
  );
});

test('ztunnel’s own metrics are reached through a tunnel to itself, and it logs the call', options, async (t) => {
  const home = makeNetns(t);
  const pair = await makePair(t, { capture: [] });
  const { a: homeEnd } = joinNetns(home, pair.client.netns, 20 + (process.pid % 40));
  const self = `
- uid: cluster1//Pod/${NAMESPACE}/ztunnel
  name: ztunnel
  namespace: ${NAMESPACE}
  serviceAccount: ztunnel
  workloadIps: ["${homeEnd.v4}"]
  protocol: HBONE
  services: {}`;
  pair.addWorkload(self);
  writeCertificate(
    join(pair.certificates, NAMESPACE, 'ztunnel'),
    pair.authority.issue(`spiffe://cluster.local/ns/${NAMESPACE}/sa/ztunnel`),
  );
  const { ztunnel } = await startShared(t, pair, { POD_NAME: 'ztunnel', POD_NAMESPACE: NAMESPACE, SERVICE_ACCOUNT: 'ztunnel' }, home);
  const [metrics] = await peerCalls(t, pair.client.netns, pair, homeEnd.v4, peer(NAMESPACE), [`${homeEnd.v4}:15020`]);
  assert.equal(metrics?.status, 200);
  assert.match(await ztunnel.line(/direction="inbound"/), new RegExp(`dst.hbone_addr=${homeEnd.v4}:15020 dst.workload="ztunnel"`));
  assert.equal((await get(home, 'http://127.0.0.1:15021/healthz/ready')).status, 200);
});
