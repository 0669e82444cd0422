import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { hours } from '../../../common/base/clock.ts';
import { silentLog } from '../../../common/base/log.ts';
import { DeltaResponse } from '../../../common/client/delta-response.ts';
import { DeltaDiscoveryResponse } from '../../../common/codec/gen/discovery.ts';
import { staticResources } from '../../../common/state/static-config.ts';
import { ADDRESS_TYPE, AUTHORIZATION_TYPE, MeshStateWriter } from '../../../common/state/writer.ts';
import { KeptCertificates } from '../../../ztunnel/supervisor/kept-certificates.ts';
import { KeptState } from '../../../ztunnel/supervisor/kept-state.ts';
import { openPrivateFolder, reachesDisk, replaceFile } from '../../../ztunnel/supervisor/private-folder.ts';
import { testAuthority } from '../../support/certificates.ts';
import { FakeClock } from '../../support/fake-clock.ts';

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'warren-kept-'));
  t.after(() => rmSync(path, { recursive: true }));
  return join(path, 'kept');
}

const workload = (name: string, ip: string): string => `
- uid: Kubernetes//Pod/shop/${name}
  name: ${name}
  namespace: shop
  workloadIps: ["${ip}"]
  services: {}`;
const policy = (name: string): string => `
- name: ${name}
  namespace: shop
  scope: Namespace
  action: Deny
  rules: [[[{destinationPorts: [8080]}]]]
  dryRun: false`;
const pushes = (workloads: string, policies = '') =>
  staticResources(`${workloads === '' ? '' : `workloads:${workloads}\n`}${policies === '' ? '' : `policies:${policies}\n`}`);

const owner = { clusterId: 'Kubernetes', node: 'node1', network: '', boot: 'boot1' };

/** A ztunnel's life with one folder: what it was told, and what the next one finds. */
function life(path: string, { clock = new FakeClock(Date.now()), whose = owner, maxAgeMs = hours(24) } = {}) {
  const writer = new MeshStateWriter({ seed: 1 });
  const state = KeptState.open({ folder: path, maxAgeMs, owner: whose, writer, clock, log: silentLog });
  assert.ok(state);
  const push = (list: ReturnType<typeof staticResources>): void => {
    for (const one of list) state.applied(one, new Set(writer.apply(one).rejected.map(({ name }) => name)));
  };
  const names = () => ({
    addresses: [...writer.versions(ADDRESS_TYPE).keys()].sort(),
    policies: [...writer.versions(AUTHORIZATION_TYPE).keys()].sort(),
  });
  return { writer, state, push, names, clock };
}

test('what the control plane said is there again in the next life, pushes after the first picture too', (t) => {
  const path = folder(t);
  const first = life(path);
  first.push(pushes(workload('a', '10.0.0.1'), policy('p')));
  first.state.synced();
  first.push(pushes(workload('b', '10.0.0.2')));
  const removed = { typeUrl: AUTHORIZATION_TYPE, resources: [], removed: ['shop/p'] };
  first.writer.apply(removed);
  first.state.applied(removed, new Set());

  const second = life(path);
  assert.ok((second.state.restore()?.ageMs ?? Infinity) < hours(1));
  assert.deepEqual(second.names(), { addresses: ['Kubernetes//Pod/shop/a', 'Kubernetes//Pod/shop/b'], policies: [] });
  assert.deepEqual(second.writer.versions(ADDRESS_TYPE), first.writer.versions(ADDRESS_TYPE));
});

test('a push that came over the wire is there again too, whole or without what was not taken of it', (t) => {
  const path = folder(t);
  const first = life(path);
  first.state.synced();
  const [own] = pushes(`${workload('a', '10.0.0.1')}${workload('b', '10.0.0.2')}`);
  assert.ok(own);
  const message = (names: readonly string[]) =>
    DeltaResponse.decode(
      DeltaDiscoveryResponse.encode({
        systemVersionInfo: '',
        typeUrl: own.typeUrl,
        nonce: '7',
        removedResources: [],
        resources: own.resources
          .filter(({ name }) => names.some((end) => name.endsWith(end)))
          .map(({ name, bytes }) => ({ name, version: '1', aliases: ['/10.0.0.9'], resource: { typeUrl: own.typeUrl, value: bytes } })),
      }).finish(),
    );
  first.state.applied(message(['/a']), new Set());
  first.state.applied(message(['/a', '/b']), new Set(['Kubernetes//Pod/shop/b']));
  const second = life(path);
  second.state.restore();
  assert.deepEqual(second.names().addresses, ['Kubernetes//Pod/shop/a']);
});

test('nothing is kept before everything has come once: workloads without their policies would be open to all', (t) => {
  const path = folder(t);
  const first = life(path);
  first.push(pushes(workload('a', '10.0.0.1')));
  assert.deepEqual(readdirSync(path), []);
  assert.equal(life(path).state.restore(), undefined);
});

test('files are for their owner only, in a folder for its owner only', (t) => {
  const path = folder(t);
  const first = life(path);
  first.state.synced();
  assert.equal(statSync(path).mode & 0o777, 0o700);
  for (const name of readdirSync(path)) assert.equal(statSync(join(path, name)).mode & 0o777, 0o600);
});

test('a push that was cut off in the middle of being written is left out, and what came before it is not', (t) => {
  const path = folder(t);
  const first = life(path);
  first.push(pushes(workload('a', '10.0.0.1')));
  first.state.synced();
  first.push(pushes(workload('b', '10.0.0.2')).slice(0, 1));
  const [name = ''] = readdirSync(path);
  const whole = readFileSync(join(path, name));
  writeFileSync(join(path, name), whole.subarray(0, whole.length - 3));
  const second = life(path);
  assert.ok(second.state.restore());
  assert.deepEqual(second.names().addresses, ['Kubernetes//Pod/shop/a']);
});

test('state of another cluster, node, boot or version, damaged or too old, is not used', (t) => {
  const path = folder(t);
  const first = life(path);
  first.push(pushes(workload('a', '10.0.0.1')));
  first.state.synced();
  for (const other of [{ clusterId: 'other' }, { node: 'node2' }, { network: 'n2' }, { boot: 'boot2' }]) {
    const second = life(path, { whose: { ...owner, ...other } });
    assert.equal(second.state.restore(), undefined, JSON.stringify(other));
    assert.deepEqual(second.names().addresses, []);
  }
  const [name = ''] = readdirSync(path);
  const file = join(path, name);
  const late = new FakeClock(statSync(file).mtimeMs + hours(24) + 1000);
  assert.equal(life(path, { clock: late }).state.restore(), undefined);
  const early = new FakeClock(statSync(file).mtimeMs - hours(1));
  assert.equal(life(path, { clock: early }).state.restore(), undefined);

  const whole = readFileSync(file);
  for (const broken of [
    whole.subarray(0, 10),
    Buffer.concat([Buffer.from('WARREN-MESH-STATE 9\n'), whole.subarray(20)]),
    Buffer.alloc(0),
  ]) {
    writeFileSync(file, broken);
    assert.equal(life(path).state.restore(), undefined);
  }
});

test('a confirmation of the control plane keeps old state young', async (t) => {
  const path = folder(t);
  const clock = new FakeClock(Date.now());
  const first = life(path, { clock });
  first.state.synced();
  await clock.advance(hours(23));
  first.state.confirm();
  await clock.advance(hours(23));
  assert.equal(life(path, { clock }).state.restore()?.ageMs, hours(23));
});

test('the journal is rewritten as a picture when it outgrows it, and the file does not grow without end', (t) => {
  const path = folder(t);
  const first = life(path);
  first.state.synced();
  let largest = 0;
  for (let i = 0; i < 300; i++) {
    first.push(pushes(`${workload('a', `10.0.${i >> 8}.${i & 255}`)}\n  hostname: ${'x'.repeat(20_000)}`));
    const [name = ''] = readdirSync(path);
    largest = Math.max(largest, statSync(join(path, name)).size);
  }
  assert.ok(largest < 2 << 20, `${largest} bytes for one workload`);
  const second = life(path);
  second.state.restore();
  assert.deepEqual(second.names(), first.names());
});

test('while two processes write, the newer one is believed, and older files go', (t) => {
  const path = folder(t);
  const clock = new FakeClock(Date.now());
  for (const name of ['old', 'middle', 'new']) {
    clock.jump(1000);
    const one = life(path, { clock });
    one.push(pushes(workload(name, '10.0.0.1')));
    one.state.synced();
  }
  assert.equal(readdirSync(path).length, 2);
  const next = life(path, { clock });
  assert.ok(next.state.restore());
  assert.deepEqual(next.names().addresses, ['Kubernetes//Pod/shop/new']);
});

const authority = testAuthority();
const identity = (name: string): string => `spiffe://cluster.local/ns/shop/sa/${name}`;

function certificates(path: string, clock = new FakeClock(Date.now()), problem?: string) {
  return KeptCertificates.open({ folder: path, clock, log: silentLog, reachesDisk: () => problem });
}

const issued = (name: string, life?: { notAfter: number }) => {
  const made = authority.issue(identity(name), life);
  return { ...made, notBefore: 0, notAfter: life?.notAfter ?? Date.now() + hours(24) };
};

test('a certificate that was saved is there in the next life, with its key, until it expires', (t) => {
  const path = folder(t);
  const one = issued('a');
  certificates(path)?.save(one);
  const next = certificates(path);
  assert.equal(next?.get(identity('a'))?.key, one.key);
  assert.equal(next?.get(identity('b')), undefined);
  for (const name of readdirSync(path)) assert.equal(statSync(join(path, name)).mode & 0o777, 0o600);
  const late = certificates(path, new FakeClock(Date.now() + hours(25)));
  assert.equal(late?.get(identity('a')), undefined);
  assert.deepEqual(readdirSync(path), [], 'what has expired is deleted');
});

test('a certificate that nobody needs leaves no file', (t) => {
  const path = folder(t);
  const kept = certificates(path);
  for (const name of ['a', 'b']) kept?.save(issued(name));
  kept?.remove(identity('a'));
  assert.equal(readdirSync(path).length, 1);
  const next = certificates(path);
  next?.prune(new Set([identity('c')]));
  assert.deepEqual(readdirSync(path), []);
});

test('what is broken in the folder is deleted and disturbs nothing else', (t) => {
  const path = folder(t);
  certificates(path)?.save(issued('a'));
  const [name = ''] = readdirSync(path);
  const text = readFileSync(join(path, name), 'utf8');
  writeFileSync(join(path, 'x.identity'), '{');
  writeFileSync(join(path, 'y.identity'), text);
  writeFileSync(join(path, 'z.identity'), text.replace('"version":1', '"version":2'));
  writeFileSync(join(path, '.torn'), 'half');
  writeFileSync(join(path, 'w.identity'), JSON.stringify({ ...JSON.parse(text), key: issued('b').key }));
  assert.ok(certificates(path)?.get(identity('a')));
  assert.deepEqual(readdirSync(path), [name]);
});

test('keys are not kept where they could reach a disk', (t) => {
  assert.equal(certificates(folder(t), undefined, 'it is on a disk'), undefined);
  const none = { swaps: 'Filename Type Size Used Priority\n', mounts: '' };
  const tmpfs = { fileSystem: 0x01021994, ...none };
  assert.equal(reachesDisk('/run/keys', tmpfs), undefined);
  assert.match(reachesDisk('/var/keys', { ...tmpfs, fileSystem: 0xef53 }) ?? '', /on a disk/);
  const swapping = { ...tmpfs, swaps: `${none.swaps}/dev/sda2 partition 1 0 -2\n` };
  assert.match(reachesDisk('/run/keys', swapping) ?? '', /swaps to \/dev\/sda2/);
  assert.equal(reachesDisk('/run/keys', { ...tmpfs, swaps: `${none.swaps}/dev/zram0 partition 1 0 -2\n` }), undefined);
  const mounts = [
    '1 0 0:1 / / rw - ext4 /dev/sda1 rw',
    '2 1 0:2 / /run rw - tmpfs tmpfs rw',
    '3 2 0:3 / /run/keys rw - tmpfs tmpfs rw,noswap',
  ];
  assert.equal(reachesDisk('/run/keys', { ...swapping, mounts: mounts.join('\n') }), undefined);
  assert.match(reachesDisk('/run/other', { ...swapping, mounts: mounts.join('\n') }) ?? '', /noswap/);
});

test('a folder that is a link is refused, one that others may read is closed to them', (t) => {
  const path = folder(t);
  openPrivateFolder(path);
  chmodSync(path, 0o755);
  openPrivateFolder(path);
  assert.equal(statSync(path).mode & 0o777, 0o700);
  symlinkSync(path, `${path}-link`);
  assert.throws(() => openPrivateFolder(`${path}-link`), /is no folder/);
});

test('a file is replaced as a whole, and nothing else is left behind', (t) => {
  const path = folder(t);
  openPrivateFolder(path);
  replaceFile(path, 'a', 'one');
  replaceFile(path, 'a', 'two');
  assert.equal(readFileSync(join(path, 'a'), 'utf8'), 'two');
  assert.deepEqual(readdirSync(path), ['a']);
  assert.ok(existsSync(path));
});

test('a certificate of an earlier mesh, whose root is another one now, is not used and goes', (t) => {
  const path = folder(t);
  const [now, before] = [testAuthority(), testAuthority()];
  const identity = 'spiffe://cluster.local/ns/shop/sa/a';
  const open = (roots: string) =>
    KeptCertificates.open({ folder: path, clock: new FakeClock(Date.now()), log: silentLog, roots, reachesDisk: () => undefined });
  open(before.root)?.save({ ...before.issue(identity), notBefore: Date.now(), notAfter: Date.now() + hours(1) });
  assert.ok(open(`${now.root}${before.root}`)?.get(identity), 'while the root changes, both are there');
  assert.equal(open(now.root)?.get(identity), undefined);
  assert.deepEqual(readdirSync(path), []);
});
