import assert from 'node:assert/strict';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { ConflistError, chain, isChained, notANetwork, type PluginOptions, unchain } from '../../../cni/conflist/conflist.ts';
import { type Form, install, NoNetworkYet, uninstall } from '../../../cni/conflist/install.ts';
import { HostFileError } from '../../../cni/host/host-file.ts';

const options: PluginOptions = {
  logLevel: 'info',
  agentRunDir: '/var/run/istio-cni',
  ambientEnabled: true,
  selectors: [],
  excludeNamespaces: ['kube-system'],
  podNamespace: 'istio-system',
  nativeNftables: false,
  detectionRetry: false,
};
const chained: Form = { form: 'chained', file: '' };
const owned: Form = { form: 'owned', file: '02-istio-cni.conflist' };
const LIST = '{"cniVersion":"1.0.0","name":"net","plugins":[{"type":"ptp","mtu":1500}]}';

test('chaining twice is chaining once, and what was there comes back when it is undone', () => {
  const once = chain(LIST, options);
  assert.equal(chain(once, options), once);
  assert.deepEqual(JSON.parse(unchain(once) ?? ''), JSON.parse(LIST));
  assert.equal(unchain(LIST), LIST);
});

test('what is not ours is kept, whatever it is called', () => {
  const strange = '{"name":"n","plugins":[{"type":"x","__proto__":{"a":1},"list":[3,[],{"b":null}]}],"disableCheck":true}';
  const { plugins, ...rest } = JSON.parse(chain(strange, options));
  assert.deepEqual(rest, { name: 'n', disableCheck: true });
  assert.equal(JSON.stringify(plugins[0]), '{"__proto__":{"a":1},"list":[3,[],{"b":null}],"type":"x"}');
});

test('what cannot be chained to is refused by what is wrong with it', () => {
  for (const [text, message] of [
    ['', /is empty/],
    ['{', /is no JSON/],
    ['[]', /is no JSON object/],
    ['{"name":"n"}', /has no list 'plugins'/],
    ['{"plugins":["x"]}', /no plugin \(number 1\)/],
    ['{"type":"istio-cni"}', /nothing to chain it to/],
  ] as const) {
    assert.throws(
      () => chain(text, options),
      (error: unknown) => error instanceof ConflistError && message.test(error.message),
      text,
    );
    assert.equal(isChained(text), text.includes('istio-cni'));
  }
  assert.match(notANetwork('a.conf', LIST) ?? '', /perhaps it is a \.conflist/);
  assert.match(notANetwork('a.conflist', '{"name":"n","plugins":[{"type":"x"},{}]}') ?? '', /without 'type' \(number 2\)/);
});

test('a file of which the mesh is the only plugin goes with it', () => {
  assert.equal(unchain('{"type":"istio-cni"}'), undefined);
  assert.equal(unchain(`{"name":"n","plugins":[{"type":"istio-cni"}]}`), undefined);
});

test('the plugin moves to the file that runtimes take, and an uninstall finds it everywhere', (t) => {
  const folder = emptyFolder(t);
  assert.throws(() => install(folder, chained, options), NoNetworkYet);
  write(folder, '50-late.conflist', LIST);
  assert.equal(install(folder, chained, options).path, join(folder, '50-late.conflist'));
  write(folder, '10-early.conflist', LIST);
  write(folder, '05-damaged.conflist', '{');
  assert.deepEqual(install(folder, chained, options), { path: join(folder, '10-early.conflist'), changed: true });
  assert.deepEqual(install(folder, chained, options), { path: join(folder, '10-early.conflist'), changed: false });
  assert.equal(uninstall(folder, chained).length, 2);
  for (const name of ['10-early.conflist', '50-late.conflist']) assert.deepEqual(JSON.parse(read(folder, name)), JSON.parse(LIST));
  assert.equal(read(folder, '05-damaged.conflist'), '{');
});

test('a lone configuration becomes a list with its mode, and its owner may write it anew', (t) => {
  const folder = emptyFolder(t);
  write(folder, '10-x.conf', '{"cniVersion":"0.4.0","name":"x","type":"bridge"}');
  chmodSync(join(folder, '10-x.conf'), 0o600);
  const { path } = install(folder, chained, options);
  assert.equal(path, join(folder, '10-x.conflist'));
  assert.equal(statSync(path).mode & 0o777, 0o600, 'it may hold secrets');
  assert.deepEqual(readdirSync(folder), ['10-x.conflist']);
  write(folder, '10-x.conf', '{"cniVersion":"0.4.0","name":"x","type":"bridge","mtu":9000}');
  install(folder, chained, options);
  assert.deepEqual(readdirSync(folder), ['10-x.conflist']);
  assert.equal(JSON.parse(read(folder, '10-x.conflist')).plugins[0].mtu, 9000);
});

test('a configuration of our own comes first, follows the original, and stands for it while it is gone', (t) => {
  const folder = emptyFolder(t);
  write(folder, '10-x.conflist', LIST);
  const { path } = install(folder, owned, options);
  assert.equal(path, join(folder, owned.file));
  assert.equal(read(folder, '10-x.conflist'), LIST);
  write(folder, '10-x.conflist', LIST.replace('1500', '1400'));
  assert.equal(install(folder, owned, options).changed, true);
  assert.match(read(folder, owned.file), /1400/);
  rmSync(join(folder, '10-x.conflist'));
  assert.equal(install(folder, owned, options).changed, false);
  write(folder, '01-x.conflist', LIST);
  assert.throws(() => install(folder, owned, options), /02-istio-cni\.conflist comes after 01-x\.conflist/);
  uninstall(folder, owned);
  assert.deepEqual(readdirSync(folder), ['01-x.conflist']);
});

test('a file that was chosen by name is waited for, as list or as lone configuration', (t) => {
  const folder = emptyFolder(t);
  write(folder, '00-other.conflist', LIST);
  const named: Form = { form: 'chained', file: '20-x.conf' };
  assert.throws(() => install(folder, named, options), /20-x\.conf is not there yet/);
  write(folder, '20-x.conflist', LIST);
  assert.equal(install(folder, named, options).path, join(folder, '20-x.conflist'));
});

test('for a runtime that chains by itself the plugin has a file of its own', (t) => {
  const folder = emptyFolder(t);
  const form: Form = { form: 'standalone', file: 'YYY-istio-cni.conf' };
  install(folder, form, options);
  assert.equal(JSON.parse(read(folder, form.file)).type, 'istio-cni');
  assert.equal(install(folder, form, options).changed, false);
  uninstall(folder, form);
  assert.deepEqual(readdirSync(folder), []);
});

test('folders, dead links and huge files are passed over; a folder that is missing is named', (t) => {
  const folder = emptyFolder(t);
  mkdirSync(join(folder, '00-folder.conflist'));
  symlinkSync('/nowhere', join(folder, '01-link.conflist'));
  write(folder, '02-huge.conflist', LIST.replace('1500', `1500${' '.repeat(2 << 20)}`));
  write(folder, '03-good.conflist', LIST);
  assert.equal(install(folder, chained, options).path, join(folder, '03-good.conflist'));
  assert.throws(
    () => install(join(folder, 'absent'), chained, options),
    (error: unknown) =>
      error instanceof HostFileError && /absent cannot be written: the folder is not there.*mounted.*ENOENT/.test(error.message),
  );
});

test('the first file that can be used is waited for, and the reason names those that cannot', (t) => {
  const folder = emptyFolder(t);
  write(folder, '10-a.conflist', 'null');
  write(folder, '20-b.conf', '{}');
  assert.throws(
    () => install(folder, chained, options),
    (error: unknown) => error instanceof NoNetworkYet && /10-a\.conflist is no JSON object; 20-b\.conf has no 'type'/.test(error.message),
  );
});

test('a write that fails leaves the old file and nothing else', (t) => {
  const folder = emptyFolder(t);
  write(folder, '10-x.conflist', LIST);
  // Where the new file would be written before it takes the old one's place.
  mkdirSync(join(folder, `10-x.conflist.${process.pid}.tmp`));
  assert.throws(() => install(folder, chained, options), HostFileError);
  assert.equal(read(folder, '10-x.conflist'), LIST);
  assert.equal(existsSync(join(folder, '10-x.conflist')), true);
});

function emptyFolder(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'warren-conflist-'));
  t.after(() => rmSync(folder, { recursive: true }));
  return folder;
}

const write = (folder: string, name: string, text: string): void => writeFileSync(join(folder, name), text);
const read = (folder: string, name: string): string => readFileSync(join(folder, name), 'utf8');
