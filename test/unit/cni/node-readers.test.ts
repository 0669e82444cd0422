import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { findKubeletUid } from '../../../cni/host/kubelet-user.ts';
import type { ProbeRules } from '../../../cni/host/probe-rules.ts';
import { ProbeSets } from '../../../cni/host/probe-sets.ts';
import { NetnsFinder, ownIdentity } from '../../../cni/namespace/find-netns.ts';
import { findPodProcesses, podUidOfCgroup, startTimeOfStat } from '../../../cni/namespace/proc-scan.ts';
import { countInTable } from '../../../cni/namespace/relayed.ts';
import { parseCmdAdd } from '../../../cni/plugin/cmdadd.ts';

const UID = '863b91d4-4b68-4efa-917f-4b560e3e86aa';

test("a pod's UID is read from the cgroups of both drivers, and the innermost counts", () => {
  assert.equal(podUidOfCgroup(`0::/kubepods/besteffort/pod${UID}/0a1b`), UID);
  assert.equal(podUidOfCgroup(`0::/kubelet-kubepods-pod${UID.replaceAll('-', '_')}.slice/cri-containerd-0a.scope\n`), UID);
  const outer = '11111111-2222-3333-4444-555555555555';
  assert.equal(podUidOfCgroup(`0::/kubepods/pod${outer}/docker/kubepods/pod${UID}/x`), UID);
  for (const text of ['0::/system.slice/sshd.service', '0::/', '', `0::/podman/${UID}`, '0::/kubepods/podwhatever/x']) {
    assert.equal(podUidOfCgroup(text), undefined, text);
  }
});

test('the start time is found behind a name with blanks and brackets', () => {
  const fields = Array.from({ length: 30 }, (_, i) => String(i + 3)).join(' ');
  assert.equal(startTimeOfStat(`42 (a) b (c d) ${fields}`), 22n);
  assert.equal(startTimeOfStat('42 (cut'), undefined);
});

test('the oldest process of a pod counts, and what is no process or cannot be read is passed over', (t) => {
  const root = folder(t);
  addProcess(root, 7, `0::/kubepods/pod${UID}/a`, 300);
  addProcess(root, 8, `0::/kubepods/pod${UID}/b`, 200);
  addProcess(root, 9, '0::/init.scope', 1);
  mkdirSync(join(root, '10'));
  mkdirSync(join(root, 'sys'));
  assert.deepEqual([...findPodProcesses(root)], [[UID, { pid: 8, startTime: 200n }]]);
  assert.equal(findPodProcesses(root, new Set(['other'])).size, 0);
});

test("a namespace is found by its file or by a process, never the node's own, and never a file that is none", (t) => {
  const root = folder(t);
  const names = folder(t);
  symlinkSync('/proc/self/ns/net', join(names, 'by-file'));
  writeFileSync(join(names, 'broken'), '');
  addProcess(root, 7, `0::/kubepods/pod${UID}/a`, 300);
  mkdirSync(join(root, '7/ns'));
  symlinkSync('/proc/self/ns/net', join(root, '7/ns/net'));
  const elsewhere = new NetnsFinder({ folder: names, procRoot: root, nodeIdentity: 'somewhere else' });
  const found = elsewhere.findAll(['by-file', 'broken', 'absent', UID]);
  assert.deepEqual([...found.keys()], ['by-file', UID]);
  for (const netns of found.values()) netns.close();
  elsewhere.open('/proc/7/ns/net').close();
  const here = new NetnsFinder({ folder: names, procRoot: root, nodeIdentity: ownIdentity() });
  assert.equal(here.find(UID), undefined);
  assert.throws(() => here.open(join(names, 'by-file')), /by-file is the node's own network namespace/);
  assert.throws(() => here.open(join(names, 'broken')), /broken is no network namespace/);
  assert.throws(() => here.open(join(names, 'absent')), /ENOENT/);
});

test("the kubelet's user is read, and its absence is no error", (t) => {
  const root = folder(t);
  assert.equal(findKubeletUid(root), undefined);
  for (const [pid, comm, uid] of [
    [1, 'systemd', 0],
    [2, 'kubelet', 1001],
  ] as const) {
    mkdirSync(join(root, String(pid)));
    writeFileSync(join(root, String(pid), 'comm'), `${comm}\n`);
    writeFileSync(join(root, String(pid), 'status'), `Name:\t${comm}\nUid:\t${uid}\t${uid}\t${uid}\t${uid}\n`);
  }
  assert.equal(findKubeletUid(root), 1001);
});

test("relayed connections are those on the capture ports and those with a stranger's address, while they last", () => {
  const row = (local: string, state: string): string =>
    `   0: ${local} 0200FB0A:1F90 ${state} 00000000:00000000 00:00000000 00000000 0 0 1 1`;
  const header = '  sl  local_address rem_address   st';
  const table = (...rows: string[]): string => [header, ...rows, ''].join('\n');
  const own = new Set(['10.251.1.1', 'fd00:251:1::1']);
  assert.equal(countInTable(table(row('0101FB0A:3A99', '01')), own), 1, 'established on 15001');
  assert.equal(countInTable(table(row('0101FB0A:3A9E', '05')), own), 1, 'half closed on 15006');
  assert.equal(countInTable(table(row('0909FB0A:C000', '01')), own), 1, "another's address");
  assert.equal(countInTable(table(row('0101FB0A:3AA0', '01')), own), 0, 'a tunnel on 15008');
  assert.equal(countInTable(table(row('0101FB0A:C000', '01'), row('0100007F:C001', '01')), own), 0, "the pod's own");
  for (const state of ['06', '07', '0A']) assert.equal(countInTable(table(row('00000000:3A99', state)), own), 0, state);
  assert.equal(countInTable(table(row('510200FD000001000000000001000000:C000', '01')), own), 0, "the pod's own, IPv6");
  assert.equal(countInTable(table(row('510200FD000001000000000002000000:C000', '01')), own), 1, "another's address, IPv6");
  assert.equal(countInTable(table(row('0000000000000000FFFF00000101FB0A:1F90', '01')), own), 0, 'IPv4-mapped, its own');
  assert.equal(countInTable('', own), 0);
});

test('an event of the plugin is read in every form that addresses come in', () => {
  const event = (IPs: unknown): string => JSON.stringify({ Netns: '/var/run/netns/x', PodName: 'p', PodNamespace: 'n', IPs });
  for (const form of [
    '10.0.0.7',
    '10.0.0.7/24',
    { Address: '10.0.0.7/24' },
    { address: '10.0.0.7' },
    { IP: '10.0.0.7', Mask: '////' },
    { Address: { IP: '10.0.0.7', Mask: '' } },
  ]) {
    assert.deepEqual(parseCmdAdd(event([form])).ips, ['10.0.0.7'], JSON.stringify(form));
  }
  assert.deepEqual(parseCmdAdd(event(['FD00::7/64'])).ips, ['fd00::7']);
  for (const none of [undefined, null, []]) assert.deepEqual(parseCmdAdd(event(none)).ips, []);
});

test('an event that is wrong is refused by the name of its field', () => {
  const event = (fields: object): string => JSON.stringify({ Netns: '/ns', PodName: 'p', PodNamespace: 'n', ...fields });
  for (const [text, message] of [
    ['', /no JSON/],
    ['null', /no JSON object/],
    [event({ Netns: 7 }), /Netns: expected text/],
    [event({ PodName: '' }), /PodName: expected text/],
    [event({ PodNamespace: 'x'.repeat(254) }), /PodNamespace: expected text of 1 to 253/],
    [event({ IPs: '10.0.0.1' }), /IPs: expected a list/],
    [event({ IPs: [{ Address: 7 }] }), /IPs\[0\]: expected an address/],
    [event({ IPs: Array(17).fill('10.0.0.1') }), /at most 16/],
  ] as const) {
    assert.throws(() => parseCmdAdd(text), message);
  }
});

test('changes of the probed pods that come while one is written are written together', async () => {
  const writes: string[] = [];
  const ends: (() => void)[] = [];
  const sets = new ProbeSets(
    probeRules((addresses) => {
      writes.push([...addresses].flat().join(' '));
      return new Promise((resolve) => ends.push(resolve));
    }),
  );
  const first = sets.set('a', ['10.0.0.1']);
  const later = [sets.set('b', ['10.0.0.2']), sets.set('c', ['10.0.0.3']), sets.set('a', [])];
  assert.equal(writes.length, 1);
  ends.shift()?.();
  await first;
  await turn();
  assert.equal(writes.length, 2);
  assert.equal(writes[1], '10.0.0.2 b 10.0.0.3 c');
  ends.shift()?.();
  await Promise.all(later);
  await sets.set('unknown', []);
  assert.equal(writes.length, 2);
});

test('what the start has written is not written again, unless a write has failed since', async () => {
  let writes = 0;
  let failing = false;
  const sets = new ProbeSets(
    probeRules(async () => {
      writes++;
      if (failing) throw new Error('nft failed');
    }),
  );
  await sets.start(new Map([['a', ['10.0.0.1']]]));
  assert.equal(writes, 1);
  await sets.set('a', ['10.0.0.1']);
  assert.equal(writes, 1);
  failing = true;
  await assert.rejects(sets.set('b', ['10.0.0.2']), /nft failed/);
  failing = false;
  await sets.set('b', ['10.0.0.2']);
  assert.equal(writes, 3, 'the retry writes, although nothing has changed');
  await sets.set('b', ['10.0.0.2']);
  assert.equal(writes, 3);
});

test("the node's rules are written again when asked, with what is probed by then", async () => {
  const done: string[] = [];
  const note = (what: string) => async (addresses: ReadonlyMap<string, string>) =>
    void done.push(`${what} ${[...addresses.keys()].join()}`);
  const sets = new ProbeSets({ backend: 'nftables', install: note('install'), write: note('write'), remove: async () => {} });
  await sets.start(new Map());
  const changes = [sets.set('a', ['10.0.0.1']), sets.refresh(), sets.set('b', ['10.0.0.2'])];
  await Promise.all(changes);
  assert.deepEqual(done, ['install ', 'write 10.0.0.1', 'install 10.0.0.1,10.0.0.2']);
});

test('a write that fails is told to who caused it, and the next one repeats everything', async () => {
  const writes: string[] = [];
  const sets = new ProbeSets(
    probeRules(async (addresses) => {
      writes.push([...addresses].flat().join(' '));
      if (writes.length === 1) throw new Error('nft failed');
    }),
  );
  const first = sets.set('a', ['10.0.0.1']);
  const second = sets.set('b', ['10.0.0.2']);
  await assert.rejects(first, /nft failed/);
  await second;
  assert.match(writes.at(-1) ?? '', /10\.0\.0\.1.*10\.0\.0\.2/);
});

const probeRules = (write: ProbeRules['write']): ProbeRules => ({ backend: 'nftables', install: write, write, remove: async () => {} });

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'warren-cni-'));
  t.after(() => rmSync(path, { recursive: true }));
  return path;
}

function addProcess(root: string, pid: number, cgroup: string, startTime: number): void {
  mkdirSync(join(root, String(pid)));
  writeFileSync(join(root, String(pid), 'cgroup'), `${cgroup}\n`);
  writeFileSync(join(root, String(pid), 'stat'), `${pid} (x) S ${'0 '.repeat(18)}${startTime} 0 0\n`);
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
