import assert from 'node:assert/strict';
import { generateKeyPairSync, X509Certificate } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { hours, minutes, seconds } from '../../../common/base/clock.ts';
import { KubeApiError } from '../../../common/client/kube-api.ts';
import { selfSignedRoot } from '../../../common/codec/x509/certificate.ts';
import { readCertificate } from '../../../common/codec/x509/read-certificate.ts';
import { openCa } from '../../../istiod-lite/ca/ca-keeper.ts';
import type { CaSecret as Secret } from '../../../istiod-lite/ca/ca-secret.ts';
import { ServingCertificate } from '../../../istiod-lite/ca/serving-certificate.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { recordingLog } from '../../support/recording-log.ts';

const YEAR = hours(24 * 365);

/** One Secret with compare-and-create and compare-and-swap. */
class SecretServer {
  secret: Secret | undefined;
  down = false;
  creates = 0;
  /** Somebody else creates it between our read and our create. */
  race: Secret | undefined;
  watcher: (secret: Secret) => void = () => undefined;
  #version = 0;

  async get<T>(): Promise<T> {
    if (this.down) throw new Error('connection refused');
    if (!this.secret) throw new KubeApiError(404, 'NotFound', 'no secret');
    return structuredClone(this.secret) as T;
  }

  async create<T>(_path: string, body: unknown): Promise<T> {
    if (this.race) this.secret = this.race;
    if (this.secret) throw new KubeApiError(409, 'AlreadyExists', 'exists');
    this.creates++;
    return this.#store(body as Secret) as T;
  }

  async replace<T>(_path: string, body: unknown): Promise<T> {
    if ((body as Secret).metadata.resourceVersion !== this.secret?.metadata.resourceVersion)
      throw new KubeApiError(409, 'Conflict', 'conflict');
    return this.#store(body as Secret) as T;
  }

  #store(secret: Secret): Secret {
    this.secret = { ...structuredClone(secret), metadata: { ...secret.metadata, resourceVersion: String(++this.#version) } };
    this.watcher(structuredClone(this.secret));
    return this.secret;
  }
}

function world(server = new SecretServer(), clock = new FakeClock()) {
  const abort = new AbortController();
  const log = recordingLog();
  let changes = 0;
  const options = {
    api: server,
    clock,
    random: () => 0.5,
    log,
    signal: abort.signal,
    namespace: 'istio-system',
    trustDomain: 'cluster.local',
    directory: '/nonexistent',
    rootLifetimeMs: 10 * YEAR,
    rotationWaitMs: hours(24),
    writes: (): boolean => true,
    reloaded: () => undefined,
    onChange: () => void changes++,
  };
  return { server, clock, abort, log, options, changes: () => changes };
}

const spki = (): Buffer => generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({ type: 'spki', format: 'der' });

test('the root is made once, as Istio keeps it, and reused by everyone after', async () => {
  const { server, options } = world();
  const first = await openCa(options);
  assert.equal(server.secret?.type, 'istio.io/ca-root');
  assert.deepEqual(Object.keys(server.secret?.data ?? {}), ['ca-cert.pem', 'ca-key.pem', 'cert-chain.pem', 'key.pem', 'root-cert.pem']);
  assert.equal(readCertificate(first.current.material.certificatePem).subject, 'O=cluster.local');
  const second = await openCa(options);
  assert.equal(second.current.material.keyPem, first.current.material.keyPem);
  assert.equal(server.creates, 1);
});

test("of two replicas that start together, one root is everybody's", async () => {
  const winner = world();
  await openCa(winner.options);
  const { server, options } = world();
  server.race = winner.server.secret;
  const keeper = await openCa(options);
  assert.equal(Buffer.from(winner.server.secret?.data?.['ca-cert.pem'] ?? '', 'base64').toString(), keeper.current.material.certificatePem);
});

test("an RSA root of Istio's own is used as it is", async () => {
  const { server, options, clock } = world();
  const key = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey;
  const root = selfSignedRoot({ trustDomain: 'cluster.local', key, notBefore: clock.now(), notAfter: clock.now() + YEAR });
  const keyPem = key.export({ type: 'pkcs1', format: 'pem' }).toString();
  const base64 = (text: string): string => Buffer.from(text).toString('base64');
  server.secret = { metadata: {}, data: { 'ca-cert.pem': base64(root.certificatePem), 'ca-key.pem': base64(keyPem) } };
  const { current } = await openCa(options);
  const { leaf } = current.sign({ publicKeySpkiDer: spki(), uris: ['spiffe://a/ns/b/sa/c'], lifetimeMs: hours(1) });
  assert.equal(new X509Certificate(leaf).verify(new X509Certificate(root.certificatePem).publicKey), true);
});

test('an API server that is not there yet is waited for', async () => {
  const { server, clock, options, log } = world();
  server.down = true;
  const opening = openCa(options);
  await clock.advance(seconds(20));
  assert.ok(log.entries.some(({ message }) => message.includes('could not be read or created')));
  server.down = false;
  await clock.advance(seconds(20));
  await opening;
});

test('a root with a fifth of its life left is signed again with the same key', async () => {
  const { server, clock, options, changes } = world();
  const keeper = await openCa(options);
  server.watcher = (secret) => keeper.secretChanged(secret);
  const before = keeper.current;
  const { leaf } = before.sign({ publicKeySpkiDer: spki(), uris: ['spiffe://a/ns/b/sa/c'], lifetimeMs: hours(24) });
  clock.jump(7.9 * YEAR);
  await clock.advance(minutes(1));
  assert.equal(changes(), 0);
  // As after a suspend: noticed within a minute.
  clock.jump(0.2 * YEAR);
  await clock.advance(minutes(1));
  assert.equal(changes(), 1);
  assert.notEqual(keeper.current.material.certificatePem, before.material.certificatePem);
  assert.equal(keeper.current.material.keyPem, before.material.keyPem);
  assert.equal(new X509Certificate(leaf).verify(new X509Certificate(keeper.current.material.certificatePem).publicKey), true);
  assert.equal(Buffer.from(server.secret?.data?.['ca-cert.pem'] ?? '', 'base64').toString(), keeper.current.material.certificatePem);
  keeper.close();
  assert.equal(clock.pending, 0);
});

test('a Secret that was broken later does not take the root away', async () => {
  const { clock, options, log } = world();
  const keeper = await openCa(options);
  const before = keeper.current;
  keeper.secretChanged({ metadata: {}, data: { 'ca-cert.pem': 'aGVsbG8=' } });
  const other = selfSignedRoot({ trustDomain: 'x', notBefore: clock.now(), notAfter: clock.now() + YEAR });
  const stranger = { 'ca-cert.pem': other.certificatePem, 'ca-key.pem': before.material.keyPem };
  keeper.secretChanged({ metadata: {}, data: Object.fromEntries(Object.entries(stranger).map(([name, pem]) => [name, btoa(pem)])) });
  await clock.advance(hours(2));
  assert.equal(keeper.current, before);
  assert.ok(log.entries.some(({ fields }) => String(fields.error).includes('has no ca-cert.pem or no ca-key.pem')));
});

test('a CA that the operator brings is used, with its chain; an incomplete one ends the start', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'cacerts-'));
  t.after(() => rmSync(dir, { recursive: true }));
  const { options, clock, server } = world();
  const life = { notBefore: clock.now(), notAfter: clock.now() + YEAR };
  const root = selfSignedRoot({ trustDomain: 'corp', ...life });
  writeFileSync(join(dir, 'ca-cert.pem'), root.certificatePem);
  await assert.rejects(openCa({ ...options, directory: dir }), /has a ca-cert.pem but is incomplete: ENOENT.*ca-key.pem/);
  writeFileSync(join(dir, 'ca-key.pem'), root.keyPem);
  writeFileSync(join(dir, 'cert-chain.pem'), root.certificatePem);
  const other = selfSignedRoot({ trustDomain: 'other', ...life });
  writeFileSync(join(dir, 'root-cert.pem'), other.certificatePem);
  await assert.rejects(openCa({ ...options, directory: dir }), /does not lead to any of the roots/);
  writeFileSync(join(dir, 'root-cert.pem'), root.certificatePem + other.certificatePem);
  const { current } = await openCa({ ...options, directory: dir });
  const { chain } = current.sign({ publicKeySpkiDer: spki(), uris: ['spiffe://a/ns/b/sa/c'], lifetimeMs: hours(1) });
  assert.deepEqual(chain.slice(1), [root.certificatePem, root.certificatePem + other.certificatePem]);
  assert.equal(server.secret, undefined);
});

test('a CA that has expired signs nothing', async () => {
  const { clock, options } = world();
  const { current } = await openCa(options);
  clock.jump(11 * YEAR);
  assert.throws(() => current.sign({ publicKeySpkiDer: spki(), uris: ['spiffe://a/ns/b/sa/c'], lifetimeMs: 1 }), /expired at 20/);
});

test('the serving certificate is renewed at half of its life, and at once when the root changes', async () => {
  const { clock, options, log } = world();
  const { current } = await openCa(options);
  const certificate = new ServingCertificate({
    authority: () => current,
    dnsNames: ['istiod.istio-system.svc'],
    lifetimeMs: hours(24),
    clock,
    log,
  });
  const seen: string[] = [];
  certificate.provider.addIdentityCertificateListener((update) => {
    if (update) seen.push(readCertificate(update.certificate.toString()).serial);
  });
  await clock.advance(hours(12) - minutes(2));
  assert.equal(seen.length, 1);
  await clock.advance(minutes(3));
  assert.equal(seen.length, 2);
  certificate.renew();
  assert.equal(new Set(seen).size, 3);
  // Asleep for a day: noticed within a minute of waking.
  clock.jump(hours(24));
  await clock.advance(minutes(1));
  assert.equal(seen.length, 4);
  certificate.close();
});

test('leaves of 90 days are issued, and one of istiod is renewed after 45: timers that long, clocks that jump an hour and a machine that slept', async () => {
  const { clock, options, log } = world();
  const { current } = await openCa(options);
  const days = (n: number): number => n * hours(24);
  const publicKeySpkiDer = generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({ type: 'spki', format: 'der' });
  assert.equal(current.sign({ publicKeySpkiDer, uris: ['spiffe://a/ns/b/sa/c'], lifetimeMs: days(90) }).notAfter, clock.now() + days(90));
  const dnsNames = ['istiod.istio-system.svc'];
  const certificate = new ServingCertificate({ authority: () => current, dnsNames, lifetimeMs: days(90), clock, log });
  let renewed = -1;
  certificate.provider.addIdentityCertificateListener((update) => {
    if (update) renewed++;
  });
  // Beyond 2^31 ms, 24.8 days, Node's own timers fire at once: it looks at the time each minute, so the days themselves may be jumped over.
  for (const length of [days(30), hours(1), -hours(2), days(14)]) {
    clock.jump(length);
    await clock.advance(minutes(2));
  }
  assert.equal(renewed, 0);
  clock.jump(days(2));
  await clock.advance(minutes(1));
  assert.equal(renewed, 1, 'asleep over the moment: noticed within a minute');
  certificate.close();
});
