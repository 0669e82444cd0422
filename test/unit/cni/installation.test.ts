import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Bypass } from '../../../cni/bypass/bypass.ts';
import { Keeper } from '../../../cni/conflist/keeper.ts';
import { DEFAULT_SELECTORS, decideEnrolment, type Pod } from '../../../cni/enrol/decision.ts';
import { type CacheContent, CacheFile, describeNode } from '../../../cni/plugin/cache.ts';
import { PluginExecutable } from '../../../cni/plugin/executable.ts';
import { bypassFile, Installation, type InstallResult } from '../../../cni/plugin/installation.ts';
import { silentLog } from '../../../common/base/log.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { recordingLog } from '../../support/recording-log.ts';

const MODE = 'istio.io/dataplane-mode';
const AMBIENT = { [MODE]: 'ambient' };
const LIST = '{"cniVersion":"1.0.0","name":"net","plugins":[{"type":"ptp"}]}';

// ---- what the plugin goes by -----------------------------------------------------------------------------------------------------------

const pod = (namespace: string, uid: string, labels: Record<string, string> = {}, more: Partial<Pod> = {}): Pod => ({
  metadata: { namespace, uid, name: uid, labels },
  ...more,
});

function describe(namespaces: Record<string, Record<string, string>>, pods: readonly Pod[]): CacheContent {
  const rules = { selectors: DEFAULT_SELECTORS, excludedNamespaces: ['kube-system'] };
  return describeNode({
    askTimeoutMs: 30_000,
    excludeNamespaces: ['kube-system'],
    namespaces: Object.entries(namespaces),
    pods,
    enrols: (one) => decideEnrolment(rules, one, namespaces[one.metadata.namespace ?? '']).enrol,
  });
}

test('namespaces say what holds for a pod without labels, and pods of the node say otherwise', () => {
  const { namespaces, pods } = describe({ shop: AMBIENT, web: {}, mixed: {}, 'kube-system': AMBIENT }, [
    pod('shop', 'plain'),
    pod('shop', 'opted-out', { [MODE]: 'none' }),
    pod('web', 'outside'),
    pod('mixed', 'opted-in', AMBIENT),
    pod('kube-system', 'dns'),
  ]);
  assert.deepEqual(namespaces, { 'kube-system': 'out', mixed: 'may', shop: 'in', web: 'out' });
  assert.deepEqual(pods, { 'opted-in': 'in', 'opted-out': 'out' });
});

test('pods that need no start any more, or none of ours, are not in it', () => {
  const { pods } = describe({ shop: AMBIENT }, [
    pod('shop', 'finished', { [MODE]: 'none' }, { status: { phase: 'Succeeded' } }),
    pod('shop', 'on-the-node', { [MODE]: 'none' }, { spec: { hostNetwork: true } }),
  ]);
  assert.deepEqual(pods, {});
});

test('it is bounded, and what does not fit may be in the mesh', () => {
  const many = Object.fromEntries(Array.from({ length: 20_010 }, (_, i) => [`n${String(i).padStart(6, '0')}`, {}]));
  const { namespaces } = describe(many, []);
  assert.equal(Object.keys(namespaces).length, 20_000);
  assert.equal(namespaces.n020005, undefined);
});

test('changes that come together are written together, for root alone', async (t) => {
  const path = join(emptyFolder(t), 'state/cache.json');
  const clock = new FakeClock();
  let described = 0;
  const content = describe({ shop: AMBIENT }, []);
  const file = new CacheFile({
    path,
    clock,
    log: silentLog,
    describe() {
      described++;
      return content;
    },
  });
  for (let i = 0; i < 5; i++) file.changed();
  assert.equal(existsSync(path), false);
  await clock.advance(250);
  assert.equal(described, 1);
  assert.deepEqual(JSON.parse(readFileSync(path, 'utf8')), content);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.equal(statSync(join(path, '..')).mode & 0o777, 0o700);
  const { ino } = statSync(path);
  assert.deepEqual(file.ensure(), []);
  assert.equal(statSync(path).ino, ino, 'nothing to write, nothing written');
  rmSync(path);
  file.ensure();
  assert.ok(existsSync(path));
});

test('a cache that cannot be written is said once', async (t) => {
  const folder = emptyFolder(t);
  writeFileSync(join(folder, 'state'), 'a file where the folder should be');
  const clock = new FakeClock();
  const log = recordingLog();
  const file = new CacheFile({ path: join(folder, 'state/cache.json'), clock, log, describe: () => describe({}, []) });
  for (let i = 0; i < 3; i++) {
    file.changed();
    await clock.advance(250);
  }
  assert.equal(log.entries.length, 1);
});

// ---- executable, configuration, and who undoes them ------------------------------------------------------------------------------------

test('the executable is put back where it is gone, changed or not executable, and not otherwise', (t) => {
  const folder = emptyFolder(t);
  const source = join(folder, 'image');
  const target = join(folder, 'istio-cni');
  const executable = new PluginExecutable(source, folder);
  assert.throws(() => executable.ensure(), /this image has no CNI plugin/);
  writeFileSync(source, 'v1');
  assert.deepEqual(executable.ensure(), [target]);
  assert.deepEqual(executable.ensure(), []);
  assert.equal(statSync(target).mode & 0o777, 0o755);
  writeFileSync(target, 'somebody else');
  assert.deepEqual(executable.ensure(), [target]);
  assert.equal(readFileSync(target, 'utf8'), 'v1');
  rmSync(target);
  assert.deepEqual(executable.ensure(), [target]);
  executable.remove();
  assert.equal(existsSync(target), false);
});

test('what somebody undoes is done again, at most once a second, and said once', async () => {
  const clock = new FakeClock();
  const log = recordingLog();
  let looks = 0;
  const keeper = new Keeper({ clock, log, folders: [], ensure: () => [`file ${++looks}`], onState: () => undefined });
  keeper.start();
  assert.equal(keeper.problem, undefined);
  for (let i = 0; i < 50; i++) {
    keeper.poke();
    await clock.advance(100);
  }
  assert.ok(looks >= 4 && looks <= 7, `${looks} looks in five seconds`);
  assert.equal(keeper.repairs, looks - 1);
  assert.deepEqual(
    log.entries.map(({ message }) => message),
    ['the CNI plugin is installed', 'something else changed the CNI configuration; the plugin was put back'],
  );
  keeper.stop();
  assert.equal(clock.pending, 0);
});

test('what stands in the way is said once, tried again, and reported when it is over', async () => {
  const clock = new FakeClock();
  const log = recordingLog();
  const states: (string | undefined)[] = [];
  let broken = true;
  const keeper = new Keeper({
    clock,
    log,
    folders: ['/nowhere'],
    ensure() {
      if (broken) throw new Error('the disk is full');
      return ['conflist'];
    },
    onState: (problem) => states.push(problem),
  });
  keeper.start();
  await clock.advance(20_000);
  assert.equal(keeper.problem, 'the disk is full');
  assert.equal(log.entries.length, 1);
  broken = false;
  await clock.advance(5000);
  assert.deepEqual(states, ['the disk is full', undefined]);
  keeper.stop();
});

test('everything is on the node before the runtime calls it; it stays with a restart and goes with an uninstall', async (t) => {
  const world = installationWorld(t);
  world.start();
  assert.match(world.installation.problem ?? '', /no CNI network to chain to yet/);
  assert.ok(existsSync(join(world.bin, 'istio-cni.d/cache.json')), 'what is asked for without the agent is there first');
  writeFileSync(join(world.config, '10-net.conflist'), LIST);
  await world.clock.advance(5000);
  assert.equal(world.installation.problem, undefined);
  assert.deepEqual(world.results, ['CREATE_CNI_CONFIG_FAILURE', 'SUCCESS']);

  world.installation.stop(false);
  assert.match(readFileSync(join(world.config, '10-net.conflist'), 'utf8'), /istio-cni/);
  assert.ok(existsSync(join(world.bin, 'istio-cni')));

  const next = world.again();
  next.start();
  next.stop(true);
  assert.deepEqual(JSON.parse(readFileSync(join(world.config, '10-net.conflist'), 'utf8')), JSON.parse(LIST));
  assert.equal(existsSync(join(world.bin, 'istio-cni')), false);
  assert.equal(existsSync(join(world.bin, 'istio-cni.d')), false);
});

test('an image without the executable changes no configuration: its pods could not start', (t) => {
  const world = installationWorld(t);
  rmSync(world.image);
  writeFileSync(join(world.config, '10-net.conflist'), LIST);
  world.start();
  assert.deepEqual(world.results, ['COPY_BINARIES_FAILURE']);
  assert.equal(readFileSync(join(world.config, '10-net.conflist'), 'utf8'), LIST);
});

// ---- bypass ----------------------------------------------------------------------------------------------------------------------------

test('a node, a namespace and the cluster are bypassed by annotation, and back', () => {
  const changes: (string | undefined)[] = [];
  const bypass = new Bypass({
    clock: new FakeClock(),
    systemNamespace: 'istio-system',
    file: '/nowhere/bypass',
    onChange: (ns) => changes.push(ns),
  });
  const see = (name: string, value?: string): void =>
    bypass.seeNamespace({ metadata: { name, annotations: value === undefined ? {} : { 'warren.dev/bypass': value } } });
  see('shop', 'true');
  assert.deepEqual([bypass.scope('shop'), bypass.scope('web')], ['namespace', undefined]);
  see('shop', 'true');
  see('istio-system', 'cluster');
  assert.deepEqual([bypass.scope('shop'), bypass.scope('web')], ['cluster', 'cluster']);
  // Only the mesh's own namespace speaks for the cluster: whoever may edit a namespace must not bypass everybody.
  see('web', 'cluster');
  see('istio-system');
  assert.equal(bypass.scope('web'), undefined);
  bypass.seeNode({ metadata: { name: 'node1', annotations: { 'warren.dev/bypass': 'true' } } });
  assert.equal(bypass.scope('web'), 'node');
  bypass.seeNode(undefined);
  bypass.seeNamespace({ metadata: { name: 'shop', annotations: { 'warren.dev/bypass': 'true' } } }, true);
  assert.equal(bypass.scope('shop'), undefined);
  assert.deepEqual(changes, ['shop', undefined, undefined, undefined, undefined, 'shop']);
});

test('the file that somebody left on the node counts within a second, also from before the start', async (t) => {
  const bin = emptyFolder(t);
  const file = bypassFile(bin);
  mkdirSync(join(file, '..'));
  writeFileSync(file, '');
  const clock = new FakeClock();
  let changes = 0;
  const bypass = new Bypass({ clock, systemNamespace: 'istio-system', file, onChange: () => changes++ });
  assert.equal(bypass.scope('shop'), 'by hand');
  bypass.start();
  rmSync(file);
  await clock.advance(1000);
  assert.equal(bypass.scope('shop'), undefined);
  writeFileSync(file, '');
  await clock.advance(1000);
  assert.deepEqual([bypass.scope('shop'), changes], ['by hand', 2]);
  bypass.stop();
  assert.equal(clock.pending, 0);
});

function installationWorld(t: TestContext) {
  const folder = emptyFolder(t);
  const [bin, config, image] = [join(folder, 'bin'), join(folder, 'net.d'), join(folder, 'image')];
  for (const path of [bin, config]) mkdirSync(path);
  writeFileSync(image, 'program');
  const clock = new FakeClock();
  const results: InstallResult[] = [];
  const make = (): Installation =>
    new Installation({
      clock,
      log: silentLog,
      executable: image,
      binFolder: bin,
      configFolder: config,
      form: { form: 'chained', file: '' },
      options: {
        logLevel: 'info',
        agentRunDir: '/run',
        ambientEnabled: true,
        selectors: [],
        excludeNamespaces: [],
        podNamespace: 'istio-system',
        nativeNftables: false,
        detectionRetry: false,
      },
      describe: () => describe({ shop: AMBIENT }, []),
      onResult: (result) => results.push(result),
    });
  const installation = make();
  t.after(() => installation.stop(false));
  return {
    bin,
    config,
    image,
    clock,
    results,
    installation,
    start: () => installation.start(),
    again: make,
  };
}

function emptyFolder(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'warren-installation-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}
