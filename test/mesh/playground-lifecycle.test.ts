/** Playgrounds come and go: beside each other, killed at any moment, refused; and leave nothing on the machine. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { runProgram } from '../support/kube-commands.ts';
import { command } from '../support/netns.ts';
import { playgroundArguments, root, startPlayground, type TestPlayground, withoutPlayground } from '../support/playground.ts';
import { clientPod, web } from './playground-pods.ts';

const skip = withoutPlayground ?? false;

test('two playgrounds run beside each other, and a name is taken once', { skip, timeout: 120_000 }, async (t) => {
  const [first, second] = await Promise.all([startPlayground(t, { nodes: 1 }), startPlayground(t, { nodes: 1 })]);
  for (const cluster of [first, second]) {
    await cluster.apply(
      `{ apiVersion: v1, kind: ConfigMap, metadata: { name: mine }, data: { of: ${cluster.name} } }\n---\n${clientPod('client1', 'node1')}`,
    );
  }
  for (const cluster of [first, second]) {
    await cluster.podsReady('default');
    assert.equal(await cluster.kubectl('get', 'configmap', 'mine', '-o', 'jsonpath={.data.of}'), cluster.name);
    assert.match(await cluster.client('default', 'client1', 'http://localhost:8080/'), /Hostname=client1/);
  }
  const again = await runProgram(process.execPath, playgroundArguments('up', '--name', first.name));
  assert.equal(again.code, 2);
  assert.match(again.stderr, new RegExp(`"${first.name}" is already running \\(pid ${first.process.pid}\\)`));
  const list = await runProgram(process.execPath, playgroundArguments('list'));
  for (const {
    name,
    process: { pid },
  } of [first, second])
    assert.match(list.stdout, new RegExp(`^${name}\tpid ${pid}\t/run/warren/${name}/kubeconfig$`, 'm'));
  await runProgram(process.execPath, playgroundArguments('down', '--name', second.name));
  // The command ends when the playground has; that our child has ended may be heard a moment later.
  await second.eventually('the outer process ended in order', () => second.process.exitCode === 0);
});

for (const [what, kill] of [
  ['Ctrl-C', (cluster: TestPlayground) => cluster.process.kill('SIGINT')],
  ['kill -9 of the outer process', (cluster: TestPlayground) => cluster.process.kill('SIGKILL')],
  ['kill -9 of the inner process', (cluster: TestPlayground) => process.kill(innerOf(cluster), 'SIGKILL')],
] as const) {
  test(`${what} leaves no process, namespace, mount or rule behind, and the name is free`, { skip, timeout: 120_000 }, async (t) => {
    const before = machine();
    const cluster = await startPlayground(t);
    await cluster.apply(`${clientPod('client1', 'node1')}${web()}`);
    await cluster.podsReady('default');
    const inside = processesBelow(cluster.process.pid ?? 0);
    assert.ok(inside.length > 8, 'there is something to leave behind');
    const namespaces = inside.flatMap(netnsOf);
    kill(cluster);
    await cluster.eventually('its processes are gone', () => inside.every((pid) => !existsSync(`/proc/${pid}`)));
    await cluster.eventually('its namespaces are gone', () =>
      allNetns().every((ns) => !namespaces.includes(ns) || before.netns.includes(ns)),
    );
    await cluster.eventually('the outer process is gone', () => cluster.process.exitCode !== null || cluster.process.signalCode !== null);
    assert.deepEqual(machine().lasting, before.lasting);
    await runProgram(process.execPath, playgroundArguments('down', '--name', cluster.name));
    assert.ok(!existsSync(`/run/warren/${cluster.name}`));
  });
}

for (const afterMs of [50, 250, 600]) {
  test(`kill -9 ${afterMs} ms after the start leaves nothing, and the name can be taken again`, { skip, timeout: 120_000 }, async (t) => {
    const before = machine();
    const name = `test-${process.pid}-${afterMs}`;
    const first = spawn(process.execPath, playgroundArguments('up', '--name', name), { stdio: 'ignore' });
    const firstEnded = new Promise((resolve) => first.once('exit', resolve));
    await new Promise((resolve) => setTimeout(resolve, afterMs));
    const inside = processesBelow(first.pid ?? 0);
    first.kill('SIGKILL');
    await firstEnded;
    const deadline = performance.now() + 10_000;
    while (inside.some((pid) => existsSync(`/proc/${pid}`))) {
      assert.ok(performance.now() < deadline, 'its processes are gone');
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    assert.deepEqual(machine().lasting, before.lasting);
    const second = spawn(process.execPath, playgroundArguments('up', '--name', name), { stdio: ['ignore', 'pipe', 'inherit'] });
    t.after(() => second.kill('SIGKILL'));
    const said = await new Promise<string>((resolve) => second.stdout.setEncoding('utf8').once('data', resolve));
    assert.match(said, /ready after/);
    assert.equal((await runProgram(process.execPath, playgroundArguments('down', '--name', name))).code, 0);
  });
}

test('manifests that are refused end a start with the mesh, by name, and leave nothing', { skip, timeout: 120_000 }, async (t) => {
  const before = machine();
  const folder = mkdtempSync(join(tmpdir(), 'warren-test-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  for (const [manifest, complaint] of [
    [
      '{ apiVersion: apps/v1, kind: Deployment, metadata: { name: x }, spec: { replicas: many } }',
      /broken\.yaml: Deployment x: .*replicas/,
    ],
    ['a: [b', /broken\.yaml/],
  ] as const) {
    writeFileSync(join(folder, 'broken.yaml'), manifest);
    // In a mount namespace of its own, with other manifests in the checkout.
    const up = playgroundArguments('up', '--mesh', '--name', `test-${process.pid}-broken`);
    const script = 'mount --bind "$0" "$1" && shift && exec "$@"';
    const { code, stderr } = await runProgram('unshare', [
      '--mount',
      'sh',
      '-c',
      script,
      folder,
      join(root, 'manifests'),
      process.execPath,
      ...up,
    ]);
    assert.equal(code, 1);
    assert.match(stderr, complaint);
  }
  assert.deepEqual(machine().lasting, before.lasting);
});

test('a start that fails leaves nothing and says why', { skip, timeout: 120_000 }, async () => {
  const before = machine();
  for (const [args, complaint] of [
    [['--nodes', '0'], /--nodes 0: expected/],
    [['--name', 'No Good'], /"No Good" is no playground name/],
    [['--bogus'], /Unknown option '--bogus'/],
    [['--log-level', 'loud'], /--log-level loud: expected one of trace, debug/],
    [['--ready-fd', 'four'], /--ready-fd four: expected the number/],
  ] as const) {
    const { code, stderr } = await runProgram(process.execPath, playgroundArguments('up', ...args));
    assert.equal(code, 2);
    assert.match(stderr, complaint);
  }
  assert.deepEqual(machine().lasting, before.lasting);
});

/** What of this machine a playground could have touched, without what other tests and benches that run at the same time have. */
function machine(): { lasting: Record<string, string>; netns: string[] } {
  const lines = (text: string, others: RegExp): string =>
    text
      .split('\n')
      .filter((line) => !others.test(line))
      .sort()
      .join('\n');
  return {
    lasting: {
      named: lines(command('ip', 'netns', 'list'), /^warren-(test|bench)-/),
      mounts: lines(readFileSync('/proc/self/mounts', 'utf8'), /^nsfs | \/run\/netns /),
      rules: command('nft', 'list', 'ruleset'),
      links: lines(command('ip', '-brief', 'link'), /^(?!lo |warren|node\d|pod)/),
    },
    netns: allNetns(),
  };
}

function allNetns(): string[] {
  return readdirSync('/proc').flatMap((pid) => {
    return /^\d+$/.test(pid) ? netnsOf(Number(pid)) : [];
  });
}

function netnsOf(pid: number): string[] {
  try {
    return [readlinkSync(`/proc/${pid}/ns/net`)];
  } catch {
    // It ended meanwhile.
    return [];
  }
}

function childrenOf(pid: number): number[] {
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number);
  } catch {
    // It ended meanwhile.
    return [];
  }
}

const processesBelow = (pid: number): number[] => childrenOf(pid).flatMap((child) => [child, ...processesBelow(child)]);

/** Below `setpriv`, now `unshare`, is the first process of the playground's PID namespace. */
const innerOf = ({ process: { pid } }: TestPlayground): number => childrenOf(childrenOf(pid ?? 0)[0] ?? 0)[0] ?? 0;
