/** What goes ahead of a connection where a service's settings ask for it: PROXY headers, and TLS against a real server on loopback. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, connect, type Server } from 'node:net';
import { type TestContext, test } from 'node:test';
import { createServer } from 'node:tls';
import { systemClock } from '../../../common/base/clock.ts';
import type { UpstreamTls } from '../../../common/codec/gen/waypoint.ts';
import { AppSocket } from '../../../common/hbone/app-socket.ts';
import { duplexOf } from '../../../common/hbone/stream-duplex.ts';
import { originate, proxyHeader } from '../../../waypoint/cluster/originate.ts';
import { withoutKeys } from '../../../waypoint/supervisor/resources.ts';
import { testAuthority } from '../../support/certificates.ts';

test('a PROXY header of version 1 is a line, of version 2 bytes; of another family or nobody it says so', () => {
  const [from, to] = [
    { ip: '10.0.0.1', port: 4711 },
    { ip: '10.96.0.1', port: 80 },
  ];
  assert.equal(proxyHeader(1, from, to).toString(), 'PROXY TCP4 10.0.0.1 10.96.0.1 4711 80\r\n');
  assert.equal(proxyHeader(1, { ip: 'fd00::1', port: 1 }, { ip: 'fd00::2', port: 2 }).toString(), 'PROXY TCP6 fd00::1 fd00::2 1 2\r\n');
  assert.equal(proxyHeader(1, undefined, to).toString(), 'PROXY UNKNOWN\r\n');
  const signature = '0d0a0d0a000d0a515549540a';
  assert.equal(proxyHeader(2, from, to).toString('hex'), `${signature}2111000c0a0000010a60000112670050`);
  assert.equal(proxyHeader(2, { ip: 'fd00::1', port: 1 }, to).toString('hex'), `${signature}20000000`);
});

const authority = testAuthority();

async function server(t: TestContext, name = 'api.example'): Promise<number> {
  const { key, chain } = authority.issueServer(name);
  const listening: Server = createServer({ key, cert: chain, ALPNProtocols: ['h2', 'http/1.1'] }, (socket) => {
    socket.on('error', () => undefined).on('data', (bytes) => socket.write(`${socket.alpnProtocol} ${bytes}`));
  });
  listening.listen(0, '127.0.0.1');
  await once(listening, 'listening');
  t.after(() => listening.close());
  return (listening.address() as AddressInfo).port;
}

async function speak(port: number, tls: Partial<UpstreamTls>): Promise<string> {
  const to = { ip: '127.0.0.1', port };
  const pipe = await AppSocket.connect(undefined, to, { timeoutMs: 10_000, clock: systemClock });
  const about = { serverName: 'api.example', subjectAltNames: [], roots: authority.root, unverified: false, credential: '', ...tls };
  const secured = await originate(
    pipe,
    { tls: about, proxyProtocol: 0, alpn: 'h2', from: undefined, to, clock: systemClock },
    new AbortController().signal,
  );
  const stream = duplexOf(secured);
  stream.write('hello');
  const [answer] = (await once(stream, 'data')) as [Buffer];
  stream.destroy();
  return answer.toString();
}

test('TLS of our own carries bytes both ways, under the name and with the protocol that was asked for', async (t) => {
  assert.equal(await speak(await server(t), {}), 'h2 hello');
});

test('a server whose certificate is for somebody else, or of a root that is not ours, is refused, unless nobody wants to know', async (t) => {
  const port = await server(t);
  await assert.rejects(speak(port, { serverName: 'other.example' }), { code: 'TLS_FAILURE', message: /not for other\.example/ });
  await assert.rejects(speak(port, { roots: '' }), { code: 'TLS_FAILURE' });
  assert.equal(await speak(port, { serverName: 'other.example', subjectAltNames: ['x', 'api.example'] }), 'h2 hello');
  assert.equal(await speak(port, { roots: '', unverified: true }), 'h2 hello');
});

test('a server that closes during the handshake is one failure and no hang', async (t) => {
  const { createServer: plain } = await import('node:net');
  const closing = plain((socket) => socket.destroy()).listen(0, '127.0.0.1');
  await once(closing, 'listening');
  t.after(() => closing.close());
  const { port } = closing.address() as AddressInfo;
  await assert.rejects(speak(port, {}), (error: { code?: string }) => error.code === 'TLS_FAILURE' || error.code === 'CONNECTION_LOST');
  connect(port, '127.0.0.1')
    .on('error', () => undefined)
    .destroy();
});

test('a server that asks for a certificate gets ours, and one without it is turned away', async (t) => {
  const { key, chain } = authority.issueServer('api.example');
  const own = authority.issueServer('client.example');
  const asking = createServer(
    { key, cert: chain, ca: authority.root, requestCert: true, rejectUnauthorized: true, ALPNProtocols: ['h2'] },
    (socket) => {
      socket.on('error', () => undefined).on('data', (bytes) => socket.write(`${socket.getPeerCertificate().subjectaltname} ${bytes}`));
    },
  );
  asking.on('tlsClientError', () => undefined).listen(0, '127.0.0.1');
  await once(asking, 'listening');
  t.after(() => asking.close());
  const { port } = asking.address() as AddressInfo;
  assert.equal(await speak(port, { clientCertificate: { certificate: own.chain, privateKey: own.key } }), 'DNS:client.example hello');
});

test('a key is in no dump', () => {
  const policy = {
    origin: '',
    proxyProtocol: 0,
    refuse: '',
    tls: {
      serverName: '',
      subjectAltNames: [],
      roots: '',
      unverified: false,
      credential: 'a/b',
      clientCertificate: { certificate: 'CERT', privateKey: 'SECRET' },
    },
  };
  const traffic = {
    namespace: 'a',
    hostname: 'b',
    policy,
    ports: [{ port: 80, policy }],
    subsets: [{ name: 's', labels: {}, policy, ports: [{ port: 80, policy }] }],
  };
  const dumped = JSON.stringify(withoutKeys(traffic));
  assert.ok(!dumped.includes('SECRET'));
  assert.equal(dumped.match(/CERT/g)?.length, 4);
});
