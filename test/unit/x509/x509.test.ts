import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, X509Certificate } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { hours, minutes } from '../../../common/base/clock.ts';
import { issueCertificate, readIssuer, selfSignedRoot } from '../../../common/codec/x509/certificate.ts';
import { CsrError, createCsr, parseCsr } from '../../../common/codec/x509/csr.ts';
import { decodePem, encodePem, splitCertificates } from '../../../common/codec/x509/pem.ts';
import { readCertificate } from '../../../common/codec/x509/read-certificate.ts';

const NOW = Date.UTC(2026, 10, 21, 12);
const URI = 'spiffe://cluster.local/ns/shop/sa/orders';
const ec = (namedCurve = 'P-256'): KeyObject => generateKeyPairSync('ec', { namedCurve }).privateKey;
const rsa = (modulusLength: number): KeyObject => generateKeyPairSync('rsa', { modulusLength }).privateKey;
const spkiOf = (key: KeyObject): Buffer => createPublicKey(key).export({ type: 'spki', format: 'der' });

function root(key?: KeyObject) {
  return selfSignedRoot({ trustDomain: 'cluster.local', notBefore: NOW, notAfter: NOW + hours(24) * 3650, ...(key && { key }) });
}

function issue(pair: { certificatePem: string; keyPem: string }, publicKeySpkiDer: Buffer, names = { uris: [URI] }): string {
  return issueCertificate({
    issuer: readIssuer(pair),
    publicKeySpkiDer,
    notBefore: NOW - minutes(2),
    notAfter: NOW + hours(24),
    ...names,
  });
}

function inFolder<T>(files: Record<string, string>, run: (dir: string) => T): T {
  const dir = mkdtempSync(join(tmpdir(), 'x509-'));
  try {
    for (const [name, content] of Object.entries(files)) writeFileSync(join(dir, name), content, { mode: 0o600 });
    return run(dir);
  } finally {
    rmSync(dir, { recursive: true });
  }
}

const openssl = (dir: string, ...args: string[]): string => execFileSync('openssl', args, { cwd: dir, encoding: 'utf8', stdio: 'pipe' });

for (const [kind, make] of [
  ['P-256', () => ec()],
  ['P-384', () => ec('P-384')],
  ['RSA-2048', () => rsa(2048)],
] as const) {
  test(`a request with a ${kind} key says its URI and proves possession`, () => {
    const key = make();
    const facts = parseCsr(createCsr({ uri: URI, key }));
    assert.deepEqual(facts.uris, [URI]);
    assert.deepEqual(facts.publicKeySpkiDer, spkiOf(key));
  });

  test(`openssl verifies in strict mode what a ${kind} root signed`, () => {
    const pair = root(make());
    const leaf = issue(pair, parseCsr(createCsr({ uri: URI, key: ec() })).publicKeySpkiDer);
    inFolder({ 'ca.pem': pair.certificatePem, 'leaf.pem': leaf }, (dir) => {
      const at = ['-attime', String(NOW / 1000 + 60)];
      assert.match(openssl(dir, 'verify', '-x509_strict', ...at, '-purpose', 'sslserver', '-CAfile', 'ca.pem', 'leaf.pem'), /OK/);
      assert.match(openssl(dir, 'verify', '-x509_strict', ...at, '-purpose', 'sslclient', '-CAfile', 'ca.pem', 'leaf.pem'), /OK/);
    });
  });
}

test('openssl reads our request and finds its signature good', () => {
  inFolder({ 'a.csr': createCsr({ uri: URI, key: ec() }) }, (dir) => {
    assert.match(
      openssl(dir, 'req', '-in', 'a.csr', '-verify', '-noout', '-text'),
      new RegExp(`X509v3 Subject Alternative Name: critical\\s+URI:${URI}`),
    );
  });
});

test('a request that openssl made is read', () => {
  const dir = mkdtempSync(join(tmpdir(), 'x509-'));
  try {
    const args = ['req', '-new', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', 'k', '-subj', '/O=x'];
    const pem = openssl(dir, ...args, '-addext', `subjectAltName=DNS:a.b,URI:${URI}`);
    assert.deepEqual(parseCsr(pem).uris, [URI]);
  } finally {
    rmSync(dir, { recursive: true });
  }
});

test('a workload certificate has the profile of the mesh', () => {
  const pair = root();
  const key = ec();
  inFolder({ 'leaf.pem': issue(pair, spkiOf(key)), 'ca.pem': pair.certificatePem }, (dir) => {
    const text = openssl(dir, 'x509', '-in', 'leaf.pem', '-noout', '-text');
    assert.match(text, /Key Usage: critical\s+Digital Signature, Key Encipherment\n/);
    assert.match(text, /Extended Key Usage:\s+TLS Web Server Authentication, TLS Web Client Authentication\n/);
    assert.match(text, /Basic Constraints: critical\s+CA:FALSE/);
    assert.match(text, new RegExp(`Subject Alternative Name: critical\\s+URI:${URI}\n`));
    assert.match(text, /Subject: *\n/);
    const rootText = openssl(dir, 'x509', '-in', 'ca.pem', '-noout', '-text');
    assert.match(rootText, /Subject: O = cluster.local/);
    assert.match(rootText, /Key Usage: critical\s+Certificate Sign, CRL Sign/);
    const identifier = /Subject Key Identifier:\s+(\S+)/.exec(rootText)?.[1];
    assert.equal(/Authority Key Identifier:\s+(\S+)/.exec(text)?.[1], identifier);
  });
});

test('reading a certificate gives its names, times and serial', () => {
  const pair = root();
  const pem = issueCertificate({
    issuer: readIssuer(pair),
    publicKeySpkiDer: spkiOf(ec()),
    uris: [URI],
    dnsNames: ['istiod.istio-system.svc', 'istio-pilot.istio-system.svc'],
    notBefore: NOW - minutes(2),
    notAfter: NOW + hours(24),
  });
  const facts = readCertificate(pem);
  assert.deepEqual(facts.uris, [URI]);
  assert.deepEqual(facts.dnsNames, ['istiod.istio-system.svc', 'istio-pilot.istio-system.svc']);
  assert.equal(facts.notBefore, NOW - minutes(2));
  assert.equal(facts.notAfter, NOW + hours(24));
  assert.equal(facts.isCa, false);
  assert.equal(facts.issuer, 'O=cluster.local');
  assert.match(facts.serial, /^[4-7][0-9a-f]{31}$/);
  assert.equal(readCertificate(pair.certificatePem).isCa, true);
});

test('a certificate never outlives its issuer', () => {
  const pair = selfSignedRoot({ trustDomain: 'td', notBefore: NOW, notAfter: NOW + hours(1) });
  assert.equal(readCertificate(issue(pair, spkiOf(ec()))).notAfter, NOW + hours(1));
});

test('years after 2049 are written as generalized time', () => {
  const end = Date.UTC(2061, 0, 1);
  const pair = selfSignedRoot({ trustDomain: 'td', notBefore: NOW, notAfter: end });
  assert.equal(readCertificate(pair.certificatePem).notAfter, end);
});

test('names with commas and quotes do not smuggle in other names', () => {
  const strange = 'spiffe://td/ns/a/sa/b, URI:spiffe://td/ns/istio-system/sa/ztunnel';
  assert.deepEqual(readCertificate(issue(root(), spkiOf(ec()), { uris: [strange] })).uris, [strange]);
});

test('a root signed again with the same key verifies old certificates', () => {
  const first = root();
  const leaf = issue(first, spkiOf(ec()));
  const again = root(createPrivateKey(first.keyPem));
  assert.notEqual(again.certificatePem, first.certificatePem);
  assert.equal(new X509Certificate(leaf).verify(new X509Certificate(again.certificatePem).publicKey), true);
});

test('a request signed with another key is refused', () => {
  const der = decodePem(createCsr({ uri: URI, key: ec() }))[0]?.der ?? Buffer.alloc(0);
  const other = spkiOf(ec());
  const start = der.indexOf(other.subarray(0, 26));
  other.copy(der, start);
  assert.throws(() => parseCsr(encodePem('CERTIFICATE REQUEST', der)), new CsrError('the signature was not made with the key in the CSR'));
});

test('a request whose name was changed is refused', () => {
  const der = decodePem(createCsr({ uri: URI, key: ec() }))[0]?.der ?? Buffer.alloc(0);
  der.write('admins', der.indexOf('orders'));
  assert.throws(() => parseCsr(encodePem('CERTIFICATE REQUEST', der)), /not made with the key/);
});

test('weak and foreign keys are refused by name', () => {
  assert.throws(() => parseCsr(createCsr({ uri: URI, key: rsa(1024) })), /2048 to 8192 bits, this one has 1024/);
  assert.throws(() => parseCsr(createCsr({ uri: URI, key: ec('secp256k1') })), /neither P-256 nor P-384/);
});

test('what is no request is refused with a sentence, never with a crash', () => {
  for (const bad of ['', 'hello', encodePem('CERTIFICATE', Buffer.from('30')), encodePem('CERTIFICATE REQUEST', Buffer.alloc(0))])
    assert.throws(() => parseCsr(bad), CsrError);
  assert.throws(() => parseCsr('x'.repeat(20_000)), /larger than/);
  const two = createCsr({ uri: URI, key: ec() });
  assert.throws(() => parseCsr(two + two), /expected one PEM block/);
  // 4 000 nested sequences
  assert.throws(() => parseCsr(encodePem('CERTIFICATE REQUEST', Buffer.alloc(8000, Buffer.from('3080', 'hex')))), CsrError);
});

test('a damaged request is refused whatever byte was hit', () => {
  const der = decodePem(createCsr({ uri: URI, key: ec() }))[0]?.der ?? Buffer.alloc(0);
  fc.assert(
    fc.property(fc.nat(der.length - 1), fc.integer({ min: 1, max: 255 }), (at, flip) => {
      const damaged = Buffer.from(der);
      damaged[at] = (damaged[at] ?? 0) ^ flip;
      assert.throws(() => parseCsr(encodePem('CERTIFICATE REQUEST', damaged)), CsrError);
    }),
    { numRuns: 300 },
  );
});

test("an issuer's key must be its certificate's, and its certificate a CA", () => {
  const pair = root();
  assert.throws(() => readIssuer({ certificatePem: pair.certificatePem, keyPem: root().keyPem }), /not the CA certificate's/);
  const key = ec();
  const keyPem = key.export({ type: 'pkcs8', format: 'pem' }).toString();
  assert.throws(() => readIssuer({ certificatePem: issue(pair, spkiOf(key)), keyPem }), /not a CA/);
});

test('a bundle is split into its certificates, comments ignored', () => {
  const [a, b] = [root().certificatePem, root().certificatePem];
  assert.deepEqual(splitCertificates(`# one\n${a}\nnoise ${b}`), [a, b]);
});
