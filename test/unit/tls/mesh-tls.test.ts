import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type TestContext, test } from 'node:test';
import { connect, createServer, type TLSSocket, type TlsOptions } from 'node:tls';
import {
  belongsToTrustDomain,
  firstSpiffeId,
  ignoreServerName,
  isExpectedPeer,
  MESH_ALPN,
  meshContext,
  meshContextOptions,
  peerUris,
  uriNames,
} from '../../../common/tls/mesh-tls.ts';
import { testAuthority } from '../../support/certificates.ts';

const A = 'spiffe://cluster.local/ns/shop/sa/a';
const B = 'spiffe://cluster.local/ns/shop/sa/b';

test('URI names are read from the text, and one that is quoted cannot pretend to be two', () => {
  assert.deepEqual(uriNames('DNS:example.com, URI:spiffe://td/ns/a/sa/b, IP Address:10.0.0.1, URI:https://x'), [
    'spiffe://td/ns/a/sa/b',
    'https://x',
  ]);
  assert.deepEqual(uriNames(`URI:"spiffe://td/ns/a/sa/b, URI:${A}"`), [`spiffe://td/ns/a/sa/b, URI:${A}`]);
  assert.deepEqual(uriNames(`DNS:"x, URI:${A}"`), []);
  assert.deepEqual(uriNames(''), []);
});

test('the first SPIFFE identity counts; any of the names may belong to the trust domain or be the expected one', () => {
  assert.deepEqual(firstSpiffeId(['https://x', A, B]), { trustDomain: 'cluster.local', namespace: 'shop', serviceAccount: 'a' });
  assert.equal(firstSpiffeId(['https://x', `${A}/more`]), undefined);
  assert.equal(belongsToTrustDomain(['spiffe://other/ns/shop/sa/a', A], 'cluster.local'), true);
  assert.equal(belongsToTrustDomain(['spiffe://other/ns/shop/sa/a'], 'cluster.local'), false);
  assert.equal(isExpectedPeer([A], [B, A]), true);
  assert.equal(isExpectedPeer([A], [`${A}x`]), false);
  assert.equal(isExpectedPeer([A], []), false, 'an empty list matches nobody');
});

interface Handshake {
  readonly client: TLSSocket;
  readonly server: TLSSocket;
}

/** One handshake over loopback between two mesh endpoints. */
async function handshake(
  t: TestContext,
  { server: more = {}, client: clientMore = {} }: { server?: TlsOptions; client?: object } = {},
): Promise<Handshake> {
  const authority = testAuthority();
  const server = createServer({
    ...meshContextOptions(authority.issue(B), { postQuantumOnly: false }),
    requestCert: true,
    rejectUnauthorized: false,
    ALPNProtocols: MESH_ALPN,
    ...more,
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  const address = server.address();
  assert.ok(typeof address === 'object' && address);
  const accepted = new Promise<TLSSocket>((resolve, reject) => {
    server.once('secureConnection', resolve);
    server.once('tlsClientError', reject);
  });
  const client = connect({
    port: address.port,
    host: '127.0.0.1',
    secureContext: meshContext(authority.issue(A), { postQuantumOnly: false }),
    ALPNProtocols: MESH_ALPN,
    rejectUnauthorized: false,
    checkServerIdentity: ignoreServerName,
    ...clientMore,
  });
  client.on('error', () => undefined);
  t.after(() => client.destroy());
  const [, secured] = await Promise.all([once(client, 'secureConnect'), accepted]);
  return { client, server: secured };
}

test('two mesh endpoints agree on TLS 1.3 with AES-GCM and h2, and see each other’s identity', async (t) => {
  const { client, server } = await handshake(t);
  assert.equal(client.getProtocol(), 'TLSv1.3');
  assert.match(client.getCipher().name, /^TLS_AES_(256|128)_GCM_SHA(384|256)$/);
  assert.equal(client.alpnProtocol, 'h2');
  assert.equal(client.authorized && server.authorized, true);
  assert.deepEqual(peerUris(client), [B]);
  assert.deepEqual(peerUris(server), [A]);
  assert.ok(!('servername' in server) || !server.servername, 'no server name is sent');
});

test('a peer that only has TLS 1.2, or only ChaCha20, is turned away', async (t) => {
  await assert.rejects(handshake(t, { client: { secureContext: undefined, maxVersion: 'TLSv1.2' } }));
  await assert.rejects(handshake(t, { client: { secureContext: undefined, ciphers: 'TLS_CHACHA20_POLY1305_SHA256' } }));
});

test('a peer without a certificate, or with one of another authority, is not authorized', async (t) => {
  const without = await handshake(t, { client: { secureContext: undefined } });
  assert.equal(without.server.authorized, false);
  assert.deepEqual(peerUris(without.server), []);
  const foreign = await handshake(t, { client: { secureContext: meshContext(testAuthority().issue(A), { postQuantumOnly: false }) } });
  assert.equal(foreign.server.authorized, false);
  assert.equal(foreign.client.authorized, false);
});

test('with post-quantum key exchange only, both sides still meet', async (t) => {
  const authority = testAuthority();
  const pqc = { postQuantumOnly: true };
  const { client } = await handshake(t, {
    server: meshContextOptions(authority.issue(B), pqc),
    client: { secureContext: meshContext(authority.issue(A), pqc) },
  });
  assert.equal(client.authorized, true);
});
