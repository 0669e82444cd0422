import assert from 'node:assert/strict';
import { generateKeyPairSync, X509Certificate } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { hours, minutes } from '../../../common/base/clock.ts';
import { KubeApiError } from '../../../common/client/kube-api.ts';
import { selfSignedRoot } from '../../../common/codec/x509/certificate.ts';
import type { Authority } from '../../../istiod-lite/ca/authority.ts';
import { afterStep, type CaSecret, newSecret, rotationOf, withAnnotation } from '../../../istiod-lite/ca/ca-secret.ts';
import { PluggedInCa } from '../../../istiod-lite/ca/plugged-in.ts';
import { nextStep, plan, ROTATION_REQUEST } from '../../../istiod-lite/ca/rotation.ts';
import { SelfSignedCa } from '../../../istiod-lite/ca/self-signed.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { recordingLog } from '../../support/recording-log.ts';

const DAY = hours(24);
const YEAR = 365 * DAY;

/** What a request takes. */
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** One Secret under compare and swap, which tells its watchers. */
class SecretServer {
  secret: CaSecret | undefined;
  readonly watchers: ((secret: CaSecret | undefined) => void)[] = [];
  #version = 0;

  async get<T>(): Promise<T> {
    if (!this.secret) throw new KubeApiError(404, 'NotFound', 'no secret');
    return structuredClone(this.secret) as T;
  }

  async create<T>(_path: string, body: unknown): Promise<T> {
    if (this.secret) throw new KubeApiError(409, 'AlreadyExists', 'exists');
    await turn();
    return this.put(body as CaSecret) as T;
  }

  async replace<T>(_path: string, body: unknown): Promise<T> {
    if ((body as CaSecret).metadata.resourceVersion !== this.secret?.metadata.resourceVersion)
      throw new KubeApiError(409, 'Conflict', 'conflict');
    await turn();
    return this.put(body as CaSecret) as T;
  }

  put(secret: CaSecret): CaSecret {
    const stored = { ...structuredClone(secret), metadata: { ...secret.metadata, resourceVersion: String(++this.#version) } };
    this.secret = stored;
    for (const tell of this.watchers) tell(structuredClone(stored));
    return structuredClone(stored);
  }

  remove(): void {
    this.secret = undefined;
    for (const tell of this.watchers) tell(undefined);
  }

  /** What `meshctl ca rotate` does. */
  ask(wish: 'start' | 'abort'): void {
    if (this.secret) this.put(withAnnotation(this.secret, ROTATION_REQUEST, wish));
  }
}

async function replica(t: TestContext, server: SecretServer, clock: FakeClock, writes = true) {
  const state = { writes, changes: 0 };
  const ca = await SelfSignedCa.open({
    api: server,
    clock,
    random: () => 0.5,
    log: recordingLog(),
    signal: new AbortController().signal,
    namespace: 'istio-system',
    trustDomain: 'cluster.local',
    rootLifetimeMs: 10 * YEAR,
    rotationWaitMs: DAY,
    writes: () => state.writes,
    onChange: () => void state.changes++,
  });
  server.watchers.push((secret) => ca.secretChanged(secret));
  t.after(() => ca.close());
  return { ca, state };
}

/** The wall clock goes on by this much, and everybody has looked at it. */
async function pass(clock: FakeClock, ms: number): Promise<void> {
  clock.jump(ms - minutes(1));
  await clock.advance(minutes(1));
}

const spki = (): Buffer => generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({ type: 'spki', format: 'der' });
const leafOf = (authority: Authority, lifetimeMs = DAY): string =>
  authority.sign({ publicKeySpkiDer: spki(), uris: ['spiffe://cluster.local/ns/a/sa/b'], lifetimeMs }).leaf;
const trusts = ({ roots }: Authority, leaf: string): boolean =>
  roots.some((root) => new X509Certificate(leaf).verify(new X509Certificate(root).publicKey));

test('a root is replaced in three steps, and at no moment is a valid certificate trusted by nobody', async (t) => {
  const [server, clock] = [new SecretServer(), new FakeClock()];
  const writer = await replica(t, server, clock);
  const follower = await replica(t, server, clock, false);
  const before = writer.ca.current;
  const leaves: { leaf: string; until: number }[] = [];
  const seen: number[] = [];
  server.ask('start');
  for (let hour = 0; hour < 60; hour += 4) {
    await pass(clock, hours(4));
    for (const { ca } of [writer, follower]) {
      leaves.push({ leaf: leafOf(ca.current), until: clock.now() + DAY });
      // Whoever holds it still valid is trusted by whoever has the roots of this moment, and of a day ago.
      for (const { leaf, until } of leaves) if (until > clock.now()) assert.ok(trusts(ca.current, leaf), `hour ${hour}`);
    }
    assert.deepEqual(follower.ca.current.roots, writer.ca.current.roots);
    seen.push(writer.ca.current.roots.length);
  }
  assert.deepEqual([...new Set(seen)], [2, 1]);
  const hoursOfBoth = seen.filter((roots) => roots === 2).length * 4;
  assert.ok(hoursOfBoth >= 44 && hoursOfBoth <= 52, 'two roots for two days');
  assert.notEqual(writer.ca.current.material.keyPem, before.material.keyPem);
  assert.deepEqual(rotationOf(server.secret ?? ({} as CaSecret)).phase, 'none');
  assert.deepEqual(
    Object.keys(server.secret?.data ?? {}).filter((name) => name.startsWith('next-')),
    [],
  );
  assert.equal(Object.keys(server.secret?.metadata.annotations ?? {}).length, 0);
});

test('what the new root signs is trusted by those who have not heard anything for a whole wait', async (t) => {
  const [server, clock] = [new SecretServer(), new FakeClock()];
  const { ca } = await replica(t, server, clock);
  server.ask('start');
  await clock.advance(minutes(1));
  const heardNow = ca.current;
  await pass(clock, DAY);
  assert.notEqual(ca.current.material.keyPem, heardNow.material.keyPem, 'the new root signs');
  assert.ok(trusts(heardNow, leafOf(ca.current)));
});

test('a certificate that lives longer than the wait keeps the old root trusted until it has expired', async (t) => {
  const [server, clock] = [new SecretServer(), new FakeClock()];
  const { ca } = await replica(t, server, clock);
  const leaf = leafOf(ca.current, 90 * DAY);
  ca.issued(clock.now() + 90 * DAY);
  server.ask('start');
  for (let day = 0; day < 88; day++) {
    await pass(clock, DAY);
    assert.ok(trusts(ca.current, leaf), `day ${day}`);
  }
  await pass(clock, 5 * DAY);
  assert.equal(ca.current.roots.length, 1);
  assert.equal(trusts(ca.current, leaf), false);
});

test('a rotation goes on with whichever replica writes by then, and clocks that jump an hour do not hurry it by more', async (t) => {
  const [server, clock] = [new SecretServer(), new FakeClock()];
  const first = await replica(t, server, clock);
  const second = await replica(t, server, clock, false);
  server.ask('start');
  await pass(clock, hours(20));
  first.state.writes = false;
  second.state.writes = true;
  clock.jump(hours(1));
  await clock.advance(minutes(2));
  assert.equal(rotationOf(server.secret ?? ({} as CaSecret)).phase, 'introduced');
  clock.jump(-hours(1));
  await pass(clock, hours(5));
  assert.equal(rotationOf(server.secret ?? ({} as CaSecret)).phase, 'switched');
  assert.equal(second.ca.current.material.certificatePem, first.ca.current.material.certificatePem);
});

test('a rotation can be called off as long as the old root signs', async (t) => {
  const [server, clock] = [new SecretServer(), new FakeClock()];
  const { ca } = await replica(t, server, clock);
  const before = ca.current.material;
  server.ask('start');
  await pass(clock, minutes(1));
  assert.equal(ca.current.roots.length, 2);
  server.ask('abort');
  await clock.advance(minutes(1));
  assert.deepEqual([ca.current.material.certificatePem, ca.current.roots.length], [before.certificatePem, 1]);
  await pass(clock, 3 * DAY);
  assert.equal(ca.current.material.keyPem, before.keyPem);
});

test('a replica that does not write changes nothing, and a wish is carried out by the one that does', async (t) => {
  const [server, clock] = [new SecretServer(), new FakeClock()];
  const { ca, state } = await replica(t, server, clock, false);
  server.ask('start');
  await pass(clock, hours(2));
  assert.equal(ca.current.roots.length, 1);
  state.writes = true;
  ca.act();
  await clock.advance(0);
  assert.equal(ca.current.roots.length, 2);
});

test('a Secret that somebody deletes comes back with the same root', async (t) => {
  const [server, clock] = [new SecretServer(), new FakeClock()];
  const { ca } = await replica(t, server, clock);
  const before = server.secret?.data;
  server.remove();
  await clock.advance(0);
  assert.deepEqual(server.secret?.data, before);
  assert.equal(ca.current.material.certificatePem, Buffer.from(before?.['ca-cert.pem'] ?? '', 'base64').toString());
});

test('the plan that a rehearsal shows is what then happens', () => {
  const parameters = { trustDomain: 'cluster.local', lifetimeMs: 10 * YEAR, now: 0 };
  let secret = withAnnotation(newSecret('istio-system', parameters), ROTATION_REQUEST, 'start');
  const planned = plan(rotationOf(secret), DAY, 0);
  const happened = [];
  for (const _ of planned) {
    const { step, at } = nextStep(rotationOf(secret), DAY);
    happened.push({ step, at });
    secret = afterStep(secret, step, { ...parameters, now: at });
  }
  assert.deepEqual(happened, planned);
  assert.deepEqual(
    planned.map(({ step }) => step),
    ['introduce', 'switch', 'retire'],
  );
});

function folder(t: TestContext, clock: FakeClock) {
  const directory = mkdtempSync(join(tmpdir(), 'cacerts-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const life = { notBefore: clock.now() - 1000, notAfter: clock.now() + YEAR };
  const rootOf = (trustDomain: string) => selfSignedRoot({ trustDomain, ...life });
  const write = (
    signer: ReturnType<typeof rootOf>,
    roots: readonly ReturnType<typeof rootOf>[],
    more: Record<string, string> = {},
  ): void => {
    const files = {
      'ca-cert.pem': signer.certificatePem,
      'ca-key.pem': signer.keyPem,
      'cert-chain.pem': signer.certificatePem,
      'root-cert.pem': roots.map(({ certificatePem }) => certificatePem).join(''),
      ...more,
    };
    for (const [name, text] of Object.entries(files)) writeFileSync(join(directory, name), text);
  };
  return { directory, rootOf, write };
}

test("the operator's CA is read again: overlapping roots are taken, foreign ones refused, and what is broken changes nothing", async (t) => {
  const clock = new FakeClock();
  const { directory, rootOf, write } = folder(t, clock);
  const [old, next, stranger] = [rootOf('old'), rootOf('next'), rootOf('stranger')];
  write(old, [old]);
  const outcomes: string[] = [];
  let changes = 0;
  const log = recordingLog();
  const ca = new PluggedInCa({ directory, clock, log, onChange: () => void changes++, reloaded: (outcome) => void outcomes.push(outcome) });
  t.after(() => ca.close());
  const reload = async (): Promise<void> => clock.advance(minutes(1));
  await reload();
  assert.deepEqual([changes, outcomes], [0, []], 'nothing changed, nothing said');

  write(stranger, [stranger]);
  await reload();
  await reload();
  assert.equal(ca.current.material.certificatePem, old.certificatePem);
  assert.deepEqual(outcomes, ['refused'], 'and said once');
  assert.match(JSON.stringify(ca.describe()), /none of the roots is trusted by the mesh now/);

  write(old, [old, next]);
  await reload();
  assert.equal(ca.current.roots.length, 2);
  write(next, [old, next]);
  await reload();
  assert.ok(trusts(ca.current, leafOf(ca.current)));
  write(next, [next], { 'ca-crl.pem': '-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n' });
  await reload();
  assert.deepEqual([changes, outcomes.filter((outcome) => outcome === 'taken').length], [3, 3]);
  assert.match(ca.crlPem, /X509 CRL/);
  assert.doesNotMatch(JSON.stringify(ca.describe()), /problem/);

  for (const broken of [
    { 'ca-key.pem': old.keyPem },
    { 'ca-cert.pem': 'nonsense' },
    { 'root-cert.pem': '' },
    { 'ca-crl.pem': 'nonsense' },
  ]) {
    write(next, [next], broken);
    await reload();
    assert.equal(ca.current.material.certificatePem, next.certificatePem);
  }
  assert.equal(changes, 3);
  assert.ok(log.entries.filter(({ level }) => level === 'error').length >= 4);
});

test('a CA in the form of a kubernetes.io/tls Secret is read too', (t) => {
  const clock = new FakeClock();
  const { directory, rootOf } = folder(t, clock);
  const root = rootOf('corp');
  writeFileSync(join(directory, 'tls.crt'), root.certificatePem);
  writeFileSync(join(directory, 'tls.key'), root.keyPem);
  writeFileSync(join(directory, 'ca.crt'), root.certificatePem);
  const ca = new PluggedInCa({ directory, clock, log: recordingLog(), onChange: () => undefined, reloaded: () => undefined });
  ca.close();
  assert.ok(trusts(ca.current, leafOf(ca.current)));
});
