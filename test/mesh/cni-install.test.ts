/** What the node agent leaves on a node, on disks that cannot take it. */
import assert from 'node:assert/strict';
import { chownSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { chain, type PluginOptions } from '../../cni/conflist/conflist.ts';
import { install, uninstall } from '../../cni/conflist/install.ts';
import { ownSocketFolder } from '../../cni/host/host-file.ts';
import { PluginExecutable } from '../../cni/plugin/executable.ts';
import { command, withoutNamespaces } from '../support/netns.ts';

const options = { skip: withoutNamespaces ?? false, timeout: 60_000 };
const plugin: PluginOptions = {
  logLevel: 'info',
  agentRunDir: '/var/run/istio-cni',
  ambientEnabled: true,
  selectors: [],
  excludeNamespaces: ['kube-system'],
  podNamespace: 'istio-system',
  nativeNftables: false,
  detectionRetry: false,
};
const chained = { form: 'chained', file: '' } as const;
const LIST = `{"cniVersion":"1.0.0","name":"net","plugins":[{"type":"ptp"}]}`;

test('a full disk is named, and what was there stays as it was', options, (t) => {
  const folder = disk(t, 'size=64k');
  writeFileSync(join(folder, '10-net.conflist'), LIST);
  fill(folder);
  assert.throws(() => install(folder, chained, plugin), /10-net\.conflist cannot be written: the disk is full \(ENOSPC\)/);
  assert.equal(readFileSync(join(folder, '10-net.conflist'), 'utf8'), LIST);
  const image = join(folder, '../image');
  writeFileSync(image, 'x'.repeat(200_000));
  assert.throws(() => new PluginExecutable(image, folder).ensure(), /istio-cni cannot be written: the disk is full \(ENOSPC\)/);
  assert.deepEqual(readdirSync(folder).sort(), ['10-net.conflist', 'filled'], 'nothing half-written is left');
  rmSync(join(folder, 'filled'));
  assert.equal(install(folder, chained, plugin).changed, true);
});

test('a read-only folder is named, and an uninstall says what it could not take out', options, (t) => {
  const folder = disk(t, 'size=1m');
  writeFileSync(join(folder, '10-net.conflist'), LIST);
  command('mount', '-o', 'remount,ro', folder);
  assert.throws(() => install(folder, chained, plugin), /cannot be written: the file system is read-only.*\(EROFS\)/);
  command('mount', '-o', 'remount,rw', folder);
  writeFileSync(join(folder, '10-net.conflist'), chain(LIST, plugin));
  command('mount', '-o', 'remount,ro', folder);
  assert.throws(() => uninstall(folder, chained), /10-net\.conflist cannot be written: the file system is read-only/);
});

test("a socket's folder is root's, and nobody else may put a socket in the place of ours", options, (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'warren-sockets-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'run');
  ownSocketFolder(path);
  mkdirSync(join(folder, 'open'));
  command('chmod', '777', join(folder, 'open'));
  ownSocketFolder(join(folder, 'open'));
  for (const name of ['run', 'open']) assert.equal(statSync(join(folder, name)).mode & 0o777, 0o755);
  symlinkSync(path, join(folder, 'link'));
  assert.throws(() => ownSocketFolder(join(folder, 'link')), /link cannot be used for a socket: it is no folder/);
  chownSync(path, 65_534, 65_534);
  assert.throws(() => ownSocketFolder(path), /run cannot be used for a socket: it belongs to user 65534, not to 0/);
});

/** A file system of its own. */
function disk(t: TestContext, mountOptions: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'warren-disk-'));
  const path = join(folder, 'net.d');
  mkdirSync(path);
  command('mount', '-t', 'tmpfs', '-o', mountOptions, 'none', path);
  t.after(() => {
    command('umount', path);
    rmSync(folder, { recursive: true });
  });
  return path;
}

function fill(folder: string): void {
  for (let size = 60_000; size >= 1000; size -= 1000) {
    try {
      writeFileSync(join(folder, 'filled'), 'x'.repeat(size));
      // The rest of the last page is somebody's until nothing more can be made.
      writeFileSync(join(folder, 'probe'), 'x');
      rmSync(join(folder, 'probe'));
      writeFileSync(join(folder, 'filled'), 'x'.repeat(4096), { flag: 'a' });
    } catch {
      // As full as it gets.
    }
    try {
      writeFileSync(join(folder, 'probe'), 'x');
      rmSync(join(folder, 'probe'));
    } catch {
      rmSync(join(folder, 'probe'), { force: true });
      return;
    }
  }
}
