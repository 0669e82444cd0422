import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { connect, createServer, type TLSSocket } from 'node:tls';
import { ProxyError } from '../../../common/base/errors.ts';
import { silentLog } from '../../../common/base/log.ts';
import { CrlError, certificateKey, parseCrls } from '../../../common/codec/x509/crl.ts';
import { decodePem } from '../../../common/codec/x509/pem.ts';
import { ignoreServerName, meshContext, meshContextOptions } from '../../../common/tls/mesh-tls.ts';
import { Revocations } from '../../../common/tls/revocations.ts';
import { watchCrl } from '../../../ztunnel/supervisor/crl-file.ts';
import { testAuthority } from '../../support/certificates.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { revocationList } from '../../support/revocation-list.ts';

const A = 'spiffe://cluster.local/ns/shop/sa/a';
const B = 'spiffe://cluster.local/ns/shop/sa/b';
const authority = testAuthority();
const [a, b] = [authority.issue(A), authority.issue(B)];
const keyOf = (pem: string) => certificateKey(new X509Certificate(pem).raw);
const none = { onRevoked: () => undefined, onUntracked: () => undefined };

test('a list says which serial numbers of an issuer are revoked, in PEM and in DER, in one block or in several', () => {
  const { issuer, serial } = keyOf(a.chain);
  const pem = revocationList(a.chain);
  const der = decodePem(pem)[0]?.der;
  assert.ok(der);
  for (const bytes of [Buffer.from(pem), der]) {
    const revoked = parseCrls(bytes);
    assert.equal(revoked.get(issuer)?.has(serial), true);
    assert.equal(revoked.get(issuer)?.has(keyOf(b.chain).serial), false);
  }
  assert.equal(parseCrls(Buffer.from(pem + revocationList(b.chain))).get(issuer)?.size, 2);
  assert.equal(parseCrls(Buffer.alloc(0)).size, 0, 'an empty file revokes nothing');
});

test('the serial number is that of OpenSSL', () => {
  assert.equal(keyOf(a.chain).serial, new X509Certificate(a.chain).serialNumber.toLowerCase());
});

test('what is no list is refused, wherever it is cut off', () => {
  const der = decodePem(revocationList(a.chain, b.chain))[0]?.der ?? Buffer.alloc(0);
  for (let end = 1; end < der.length; end++) assert.throws(() => parseCrls(der.subarray(0, end)), CrlError, `${end} bytes`);
  assert.throws(() => parseCrls(Buffer.from(a.chain)), /no X509 CRL block/);
  for (let i = 0; i < der.length; i++) {
    const broken = Buffer.from(der);
    broken[i] = (broken[i] ?? 0) ^ 0xff;
    try {
      parseCrls(broken);
    } catch (error) {
      assert.ok(error instanceof CrlError, `byte ${i}: ${String(error)}`);
    }
  }
});

async function handshake(t: TestContext): Promise<{ client: TLSSocket; server: TLSSocket }> {
  const options = { postQuantumOnly: false };
  const server = createServer({ ...meshContextOptions(b, options), requestCert: true, rejectUnauthorized: false }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  const address = server.address();
  assert.ok(typeof address === 'object' && address);
  const accepted = once(server, 'secureConnection');
  const client = connect({
    port: address.port,
    host: '127.0.0.1',
    secureContext: meshContext(a, options),
    rejectUnauthorized: false,
    checkServerIdentity: ignoreServerName,
  });
  client.on('error', () => undefined);
  t.after(() => client.destroy());
  await once(client, 'secureConnect');
  const [secured] = (await accepted) as [TLSSocket];
  t.after(() => secured.destroy());
  return { client, server: secured };
}

test('a peer whose certificate is revoked is refused; one of whom no list speaks is not', async (t) => {
  const { client, server } = await handshake(t);
  const seen: string[] = [];
  const revocations = new Revocations({ ...none, onRevoked: (reporter) => seen.push(reporter) });
  revocations.update(parseCrls(Buffer.from(revocationList(a.chain))));
  assert.throws(
    () => revocations.admit(server, 'destination'),
    (error: unknown) => error instanceof ProxyError && error.code === 'CERT_REVOKED',
  );
  assert.deepEqual(seen, ['destination']);
  revocations.admit(client, 'source');
});

test('a revocation ends the open connections of whoever it is about, and no other', async (t) => {
  const { client, server } = await handshake(t);
  const revocations = new Revocations(none);
  revocations.update(new Map());
  revocations.admit(server, 'destination');
  revocations.admit(client, 'source');
  const failed = once(server, 'error');
  assert.equal(revocations.update(parseCrls(Buffer.from(revocationList(a.chain)))), 1);
  const [error] = (await failed) as [ProxyError];
  assert.equal(error.code, 'CERT_REVOKED');
  assert.equal(server.destroyed, true);
  assert.equal(client.destroyed, false);
});

test('a revoked issuer revokes what it has issued', async (t) => {
  const { server } = await handshake(t);
  const revocations = new Revocations(none);
  revocations.update(parseCrls(Buffer.from(revocationList(authority.root))));
  assert.throws(() => revocations.admit(server, 'destination'), /has been revoked/);
});

test('a list in a file is read again when it changes; one that is broken or gone leaves the last one in force', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'warren-crl-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'crl.pem');
  const clock = new FakeClock();
  const sizes: number[] = [];
  const count = (revoked: ReturnType<typeof parseCrls>): number => [...revoked.values()].reduce((sum, { size }) => sum + size, 0);
  watchCrl({ path, clock, log: silentLog, changed: (revoked) => sizes.push(count(revoked)) });
  assert.deepEqual(sizes, [0], 'a file that is not there revokes nothing');
  writeFileSync(path, revocationList(a.chain));
  await clock.advance(2000);
  await clock.advance(2000);
  assert.deepEqual(sizes, [0, 1]);
  writeFileSync(join(folder, 'next'), revocationList(a.chain, b.chain));
  renameSync(join(folder, 'next'), path);
  await clock.advance(2000);
  assert.deepEqual(sizes, [0, 1, 2]);
  writeFileSync(path, 'nonsense');
  await clock.advance(2000);
  rmSync(path);
  await clock.advance(2000);
  assert.deepEqual(sizes, [0, 1, 2]);
});
