/** Certificates that istiod does not sign itself: a signer of the cluster, a CA of its own beside it. */
import assert from 'node:assert/strict';
import { createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { status } from '@grpc/grpc-js';
import { hours, seconds } from '../../../common/base/clock.ts';
import { issueCertificate, readIssuer, selfSignedRoot } from '../../../common/codec/x509/certificate.ts';
import { createCsr, parseCsr } from '../../../common/codec/x509/csr.ts';
import { readCertificate } from '../../../common/codec/x509/read-certificate.ts';
import { KubernetesSigner } from '../../../istiod-lite/ca/kubernetes-signer.ts';
import { RequestLimits } from '../../../istiod-lite/ca/request-limits.ts';
import { ServedFiles } from '../../../istiod-lite/ca/served-files.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { grpcClient, runPod, sign, startTestIstiod } from '../../support/istiod.ts';
import { recordingLog } from '../../support/recording-log.ts';
import { until } from '../../support/until.ts';

const IDENTITY = 'spiffe://cluster.local/ns/shop/sa/orders';
const now = Date.now();
const life = { notBefore: now - 1000, notAfter: now + hours(24) };
const root = selfSignedRoot({ trustDomain: 'corp', ...life });
const newKey = (): KeyObject => generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
const csr = (uri = IDENTITY): string => createCsr({ uri, key: newKey() });

interface Csr {
  metadata: { name?: string };
  spec: { request: string; signerName: string; expirationSeconds: number; usages: string[] };
  status?: { certificate?: string; conditions?: { type: string; message?: string }[] };
}

/** The cluster's side: signs what has been approved, in the way that the test says. */
function signer(behaviour: 'signs' | 'denies' | 'sleeps' | 'signs for another' | 'signs with another root') {
  const clock = new FakeClock();
  let object: Csr | undefined;
  const deleted: string[] = [];
  const seen: Csr[] = [];
  const issuer = readIssuer(behaviour === 'signs with another root' ? selfSignedRoot({ trustDomain: 'other', ...life }) : root);
  const api = {
    async create<T>(_path: string, body: unknown): Promise<T> {
      object = { ...(body as Csr), metadata: { name: 'csr-1' } };
      seen.push(object);
      return object as T;
    },
    async replace<T>(path: string, body: unknown): Promise<T> {
      assert.match(path, /csr-1\/approval$/);
      const approved = body as Csr;
      const pem = Buffer.from(approved.spec.request, 'base64').toString();
      const { publicKeySpkiDer, uris } = parseCsr(pem);
      const names = behaviour === 'signs for another' ? ['spiffe://cluster.local/ns/shop/sa/admin'] : uris;
      const certificate = Buffer.from(issueCertificate({ issuer, publicKeySpkiDer, uris: names, ...life })).toString('base64');
      if (behaviour === 'denies') object = { ...approved, status: { conditions: [{ type: 'Denied', message: 'not you' }] } };
      else if (behaviour !== 'sleeps') object = { ...approved, status: { certificate } };
      return object as T;
    },
    get: async <T>(): Promise<T> => object as T,
    delete: async (path: string): Promise<void> => void deleted.push(path),
  };
  const kubernetes = new KubernetesSigner({ api, clock, log: recordingLog(), signerName: 'corp/signer', roots: () => root.certificatePem });
  const ask = (request: string) =>
    kubernetes.sign({ csr: request, publicKeySpkiDer: new Uint8Array(), uris: [IDENTITY], lifetimeMs: hours(1) });
  return { clock, ask, seen, deleted };
}

test('a signer of the cluster is asked, its answer checked, and the request removed', async () => {
  const { ask, seen, deleted } = signer('signs');
  const { leaf, chain } = await ask(csr());
  assert.deepEqual(readCertificate(leaf).uris, [IDENTITY]);
  assert.equal(chain.at(-1), root.certificatePem);
  assert.deepEqual([seen[0]?.spec.signerName, seen[0]?.spec.expirationSeconds], ['corp/signer', 3600]);
  assert.equal(deleted.length, 1);
});

test('a request for other names than the caller may have never reaches the signer', async () => {
  const { ask, seen } = signer('signs');
  await assert.rejects(ask(csr('spiffe://cluster.local/ns/shop/sa/admin')), /names spiffe:.*admin, and may name .*orders/);
  assert.equal(seen.length, 0);
});

test('a signer that refuses, sleeps, or makes something else gives no certificate, and leaves no request behind', async () => {
  for (const [behaviour, complaint] of [
    ['denies', /Denied.*not you/],
    ['signs for another', /made a certificate for .*admin/],
    ['signs with another root', /does not lead to any of the roots/],
  ] as const) {
    const { ask, deleted } = signer(behaviour);
    await assert.rejects(ask(csr()), complaint);
    assert.equal(deleted.length, 1, behaviour);
  }
  const { clock, ask, deleted } = signer('sleeps');
  const waiting = assert.rejects(ask(csr()), /has not signed within 20 s/);
  await clock.advance(seconds(21));
  await waiting;
  assert.equal(deleted.length, 1);
});

function servingFiles(t: TestContext) {
  const directory = mkdtempSync(join(tmpdir(), 'istiod-tls-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const write = (): string => {
    const key = newKey();
    const publicKeySpkiDer = createPublicKey(key).export({ type: 'spki', format: 'der' });
    const certificate = issueCertificate({ issuer: readIssuer(root), publicKeySpkiDer, dnsNames: ['istiod.istio-system.svc'], ...life });
    writeFileSync(join(directory, 'tls.crt'), certificate);
    writeFileSync(join(directory, 'tls.key'), key.export({ type: 'pkcs8', format: 'pem' }));
    return certificate;
  };
  writeFileSync(join(directory, 'root-cert.pem'), root.certificatePem);
  return { directory, rootsFile: join(directory, 'root-cert.pem'), write };
}

test("istiod's certificate from files is read again when it changes; one without its key is not taken", async (t) => {
  const { directory, rootsFile, write } = servingFiles(t);
  const first = write();
  const clock = new FakeClock();
  const log = recordingLog();
  const files = new ServedFiles({ directory, rootsFile, clock, log });
  t.after(() => files.close());
  const shown: string[] = [];
  files.provider.addIdentityCertificateListener((update) => void (update && shown.push(update.certificate.toString())));
  await clock.advance(seconds(30));
  assert.deepEqual(shown, [first]);
  writeFileSync(join(directory, 'tls.key'), newKey().export({ type: 'pkcs8', format: 'pem' }));
  await clock.advance(seconds(60));
  assert.deepEqual(shown, [first]);
  assert.equal(log.entries.filter(({ level }) => level === 'error').length, 1);
  const second = write();
  await clock.advance(seconds(30));
  assert.deepEqual(shown, [first, second]);
});

test('where another CA serves the mesh istiod signs nothing, makes no root, and hands none out; without a certificate it does not start', async (t) => {
  await assert.rejects(
    startTestIstiod(t, { settings: { caServer: false, servingDirectory: '/nonexistent' } }),
    /Secret istiod-tls, mounted at \/nonexistent/,
  );
  const { directory, rootsFile, write } = servingFiles(t);
  write();
  const mesh = await startTestIstiod(t, {
    settings: { caServer: false, servingDirectory: directory, servingRootsFile: rootsFile },
    prepare: (kube) => runPod(kube, { name: 'orders-1', ip: '10.1.0.1', account: 'orders' }),
  });
  await until(() => mesh.kube.requests.some(({ path }) => path.endsWith('/leases/istio-leader')));
  const client = grpcClient(mesh.target, root.certificatePem);
  t.after(() => client.close());
  await assert.rejects(sign(client, 'ztunnel-node1', { csr: csr() }), { code: status.UNIMPLEMENTED });
  assert.deepEqual([mesh.kube.keys('/api/v1/secrets'), mesh.kube.keys('/api/v1/configmaps')], [[], []]);
});

test('a signer of the cluster that is not named ends the start', async (t) => {
  await assert.rejects(startTestIstiod(t, { settings: { externalCa: 'ISTIOD_RA_KUBERNETES_API' } }), /K8S_SIGNER names none/);
});

test('one caller may ask for a burst, then at a rate; others do not notice', async () => {
  const clock = new FakeClock();
  const limits = new RequestLimits({ clock, burst: 3, perSecond: 2 });
  const take = (caller: string, n: number): number => Array.from({ length: n }, () => limits.take(caller)).filter(Boolean).length;
  assert.equal(take('greedy', 10), 3);
  assert.equal(take('modest', 1), 1);
  await clock.advance(seconds(1));
  assert.equal(take('greedy', 10), 2);
  await clock.advance(seconds(100));
  assert.equal(take('greedy', 10), 3);
});
