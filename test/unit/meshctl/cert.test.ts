import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileSource } from '../../../common/certificates/sources.ts';
import { initCa, issue } from '../../../meshctl/commands/cert.ts';

const NOW = Date.now();

function folders(t: TestContext) {
  const root = mkdtempSync(join(tmpdir(), 'warren-cert-'));
  t.after(() => rmSync(root, { recursive: true }));
  return { ca: join(root, 'ca'), out: join(root, 'out') };
}

const CLIENT = { namespace: 'shop', serviceAccount: 'client', trustDomain: 'example.org', ttl: '24h' };

test('what is issued is what ztunnel reads from CERT_DIR, and its own root vouches for it', async (t) => {
  const { ca, out } = folders(t);
  initCa({ ca, trustDomain: 'example.org', days: '30' }, NOW);
  assert.match(issue({ ca, out, ...CLIENT }, NOW), /^spiffe:\/\/example\.org\/ns\/shop\/sa\/client, until /);
  const read = await fileSource(out).fetch('spiffe://example.org/ns/shop/sa/client');
  const [leaf, root] = [new X509Certificate(read.chain), new X509Certificate(read.roots)];
  assert.equal(leaf.verify(root.publicKey), true);
  assert.ok(Math.abs(read.notAfter - NOW - 86_400_000) < 2000);
});

test('keys are readable by their owner only', (t) => {
  const { ca, out } = folders(t);
  initCa({ ca, trustDomain: 'example.org', days: '30' }, NOW);
  issue({ ca, out, ...CLIENT }, NOW);
  for (const path of [join(ca, 'ca-key.pem'), join(out, 'key.pem')]) assert.equal(statSync(path).mode & 0o777, 0o600, path);
});

test('a second CA in the same folder is refused, a renewed certificate is not', (t) => {
  const { ca, out } = folders(t);
  initCa({ ca, trustDomain: 'example.org', days: '30' }, NOW);
  assert.throws(() => initCa({ ca, trustDomain: 'example.org', days: '30' }, NOW), /has a CA already/);
  issue({ ca, out, ...CLIENT }, NOW);
  const before = readFileSync(join(out, 'cert-chain.pem'), 'utf8');
  issue({ ca, out, ...CLIENT }, NOW);
  assert.notEqual(readFileSync(join(out, 'cert-chain.pem'), 'utf8'), before);
});

test('bad arguments are told by name', (t) => {
  const { ca, out } = folders(t);
  assert.throws(() => issue({ ca, out, ...CLIENT }, NOW), /has no ca-cert.pem and ca-key.pem; make them with: meshctl cert init/);
  assert.throws(() => initCa({ ca, trustDomain: 'a b', days: '1' }, NOW), /no identity/);
  assert.throws(() => initCa({ ca, trustDomain: 'a', days: 'many' }, NOW), /--days many/);
  initCa({ ca, trustDomain: 'a', days: '1' }, NOW);
  assert.throws(() => issue({ ca, out, ...CLIENT, ttl: 'long' }, NOW), /--ttl long: expected a duration/);
  assert.throws(() => issue({ ca, out, ...CLIENT, namespace: '../x' }, NOW), /no identity/);
});
