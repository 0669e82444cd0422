/** Certificates from istiod-lite over its port: who gets one for which identity, and what is refused. */
import assert from 'node:assert/strict';
import { generateKeyPairSync, type KeyObject, X509Certificate } from 'node:crypto';
import { test } from 'node:test';
import { status } from '@grpc/grpc-js';
import { createCsr } from '../../../common/codec/x509/csr.ts';
import { decodePem, encodePem } from '../../../common/codec/x509/pem.ts';
import { readCertificate } from '../../../common/codec/x509/read-certificate.ts';
import { runPod, startTestIstiod, ztunnelOf } from '../../support/istiod.ts';
import { until } from '../../support/until.ts';

const IDENTITY = 'spiffe://cluster.local/ns/shop/sa/orders';
const csr = (): string => createCsr({ uri: IDENTITY, key: generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey });

test('a certificate is for the identity on the node, signed by the root that every namespace has', async (t) => {
  const mesh = await startTestIstiod(t, { prepare: (kube) => runPod(kube, { name: 'orders-1', ip: '10.1.0.1', account: 'orders' }) });
  const { certChain } = await mesh.sign('ztunnel-node1', {
    csr: csr(),
    validityDuration: 3600n,
    metadata: { ImpersonatedIdentity: IDENTITY },
  });
  const [leaf = '', root = ''] = certChain;
  assert.equal(certChain.length, 2);
  await until(() => mesh.kube.keys('/api/v1/configmaps').length === 2);
  const handedOut = mesh.kube.get('/api/v1/configmaps', 'shop/istio-ca-root-cert') as { data?: Record<string, string> } | undefined;
  assert.equal(handedOut?.data?.['root-cert.pem'], root);
  assert.equal(new X509Certificate(leaf).verify(new X509Certificate(root).publicKey), true);
  const { notAfter, notBefore } = readCertificate(leaf);
  assert.equal(Math.round((notAfter - notBefore) / 60_000), 62);
  const line = mesh.log.entries.find(({ message }) => message === 'certificate issued');
  assert.equal(line?.fields.identity, IDENTITY);
  assert.equal(line?.fields.caller, 'istio-system/ztunnel');
  assert.equal(line?.fields.serial, readCertificate(leaf).serial);
  assert.match(await mesh.http('/metrics'), /citadel_server_success_cert_issuance_count 1\n/);
});

test('a node gets no identity that does not run on it, and is not told why', async (t) => {
  const mesh = await startTestIstiod(t, {
    prepare(kube) {
      ztunnelOf(kube, 'node2');
      runPod(kube, { name: 'orders-1', ip: '10.1.0.1', account: 'orders', node: 'node1' });
    },
  });
  const request = { csr: csr(), metadata: { ImpersonatedIdentity: IDENTITY } };
  await mesh.sign('ztunnel-node1', request);
  await assert.rejects(mesh.sign('ztunnel-node2', request), {
    code: status.UNAUTHENTICATED,
    details: 'request impersonation authentication failure',
  });
  const line = mesh.log.entries.find(({ message }) => message === 'certificate refused');
  assert.equal(line?.fields.error, `${IDENTITY}: no pod of shop/orders runs on node node2`);
  assert.match(await mesh.http('/metrics'), /citadel_server_authentication_failure_count 1\n/);
});

test('bad certificate requests get their status and disturb nobody', async (t) => {
  const mesh = await startTestIstiod(t, { prepare: (kube) => runPod(kube, { name: 'orders-1', ip: '10.1.0.1', account: 'orders' }) });
  mesh.kube.tokens.set('other-audience', { username: 'system:serviceaccount:istio-system:ztunnel', audiences: ['api'] });
  mesh.kube.tokens.set('a-user', { username: 'admin' });
  const metadata = { ImpersonatedIdentity: IDENTITY };
  const refused = async (token: string, request: Parameters<typeof mesh.sign>[1]) =>
    mesh.sign(token, request).then(
      () => 'issued',
      (error: { code: number; details: string }) => `${status[error.code]}: ${error.details}`,
    );
  assert.match(await refused('', { csr: csr() }), /^UNAUTHENTICATED: no bearer token/);
  assert.match(await refused('expired', { csr: csr() }), /^UNAUTHENTICATED: invalid bearer token/);
  assert.match(await refused('other-audience', { csr: csr() }), /^UNAUTHENTICATED: token audiences do not match/);
  assert.match(await refused('a-user', { csr: csr() }), /^UNAUTHENTICATED: admin is no service account/);
  assert.match(await refused('ztunnel-node1', { csr: 'hello', metadata }), /^INVALID_ARGUMENT: expected one PEM block/);
  assert.match(await refused('ztunnel-node1', { csr: csr(), metadata, validityDuration: 10n ** 12n }), /^INVALID_ARGUMENT: a lifetime of/);
  assert.match(
    await refused('ztunnel-node1', { csr: csr(), metadata: { ImpersonatedIdentity: 'spiffe://x' } }),
    /^UNAUTHENTICATED: request imp/,
  );
  assert.match(await refused('ztunnel-node1', { csr: 'x'.repeat(5 << 20), metadata }), /^RESOURCE_EXHAUSTED/);
  const foreign = { ImpersonatedIdentity: 'spiffe://other/ns/shop/sa/orders' };
  assert.match(await refused('ztunnel-node1', { csr: csr(), metadata: foreign }), /^UNAUTHENTICATED: request imp/);
  for (const [what, bad] of Object.entries(wrongRequests())) {
    assert.match(await refused('ztunnel-node1', { csr: bad, metadata }), /^INVALID_ARGUMENT: /, what);
  }
  assert.equal(await refused('ztunnel-node1', { csr: csr(), metadata }), 'issued');
  const audit = mesh.log.entries.find(({ message }) => message === 'certificate issued');
  assert.deepEqual([audit?.fields.caller, audit?.fields.pod, audit?.fields.identity], ['istio-system/ztunnel', 'ztunnel-node1', IDENTITY]);
  assert.match(String(audit?.fields.serial), /^[0-9a-f]{32}$/);
  assert.ok(mesh.log.entries.some(({ message, fields }) => message === 'certificate refused' && fields.identity === IDENTITY));
});

/** Requests of every wrong kind, by what is wrong with them. */
function wrongRequests(): Record<string, string> {
  const good = csr();
  const der = decodePem(good)[0]?.der ?? Buffer.alloc(0);
  const pem = (bytes: Uint8Array, label = 'CERTIFICATE REQUEST') => encodePem(label, bytes);
  const altered = Buffer.from(der);
  // The last byte is the signature's.
  altered[altered.length - 1] = (altered.at(-1) ?? 0) ^ 1;
  const nested = Buffer.alloc(9000, 0x30);
  const request = (key: KeyObject) => createCsr({ uri: IDENTITY, key });
  return {
    nothing: '',
    'another kind of PEM': pem(der, 'CERTIFICATE'),
    'two at once': good + good,
    'cut off': pem(der.subarray(0, der.length - 10)),
    'more behind it': pem(Buffer.concat([der, Buffer.from('more')])),
    'a signature that is not its own': pem(altered),
    'an RSA key that is too short': request(generateKeyPairSync('rsa', { modulusLength: 1024 }).privateKey),
    'no ASN.1': pem(Buffer.from('hello')),
    'nested without end': pem(nested),
    'too large': pem(Buffer.alloc(20_000)),
    'another key in it': pem(Buffer.from(der.toString('hex').replace(/^(.{60})../, '$1ff'), 'hex')),
  };
}

test('a caller that is no node account gets its own identity and no other', async (t) => {
  const mesh = await startTestIstiod(t, { prepare: (kube) => runPod(kube, { name: 'orders-1', ip: '10.1.0.1', account: 'orders' }) });
  mesh.kube.tokens.set('orders', { username: 'system:serviceaccount:shop:orders', podName: 'orders-1' });
  const { certChain } = await mesh.sign('orders', { csr: csr() });
  assert.deepEqual(readCertificate(certChain[0] ?? '').uris, [IDENTITY]);
  await assert.rejects(mesh.sign('orders', { csr: csr(), metadata: { ImpersonatedIdentity: IDENTITY } }), { code: status.UNAUTHENTICATED });
});
