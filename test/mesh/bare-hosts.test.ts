/** docs/bare-hosts.md and docs/bare-mesh.md, followed word for word on hosts that are network namespaces; only addresses and folders are the test's. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { joinNetns, makeNetns, type TestNetns, withoutNamespaces } from '../support/netns.ts';
import { call, startEcho } from '../support/pair-programs.ts';
import { startProgram } from '../support/programs.ts';
import { until } from '../support/until.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));

/** The blocks of a page, by their labels. */
function blocksOf(file: string): (label: string) => string {
  const page = readFileSync(join(ROOT, 'docs', file), 'utf8');
  return (label) => {
    const found = new RegExp(`^\`\`\`(?:sh|yaml) ${label}\n([^]*?)^\`\`\``, 'm').exec(page)?.[1];
    assert.ok(found, `the page has a block ${label}`);
    return found;
  };
}

/** The page's commands with the programs of this run. */
const runnable = (text: string): string =>
  text.replaceAll('scripts/meshctl', `${process.execPath} ${ROOT}meshctl/main.ts`).replaceAll('scripts/node', process.execPath);

test('two hosts that do what docs/bare-hosts.md says have a mesh of their own', {
  skip: withoutNamespaces ?? false,
  timeout: 120_000,
}, async (t) => {
  const block = blocksOf('bare-hosts.md');
  const folder = mkdtempSync(join(tmpdir(), 'warren-bare-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const [a, b] = [makeNetns(t), makeNetns(t)];
  const ends = joinNetns(a, b, 90 + (process.pid % 10));
  const localized = (text: string, host: string): string =>
    text.replaceAll('10.0.0.1', ends.a.v4).replaceAll('10.0.0.2', ends.b.v4).replaceAll('/etc/ztunnel', join(folder, host));

  const workstation = join(folder, 'workstation');
  mkdirSync(workstation);
  shell(undefined, runnable(block('workstation')), workstation);
  for (const [host, netns] of [
    ['shop-a', a],
    ['shop-b', b],
  ] as const) {
    cpSync(join(workstation, host), join(folder, host, 'certificates'), { recursive: true });
    writeFileSync(join(folder, host, 'mesh.yaml'), localized(block('/etc/ztunnel/mesh.yaml'), host));
    shell(netns, localized(block('both'), host), folder);
  }
  const client = start(t, a, localized(block('shop-a'), 'shop-a'));
  const server = start(t, b, localized(block('shop-b'), 'shop-b'));
  await Promise.all([client.line(/ztunnel serves/), server.line(/ztunnel serves/)]);
  await startEcho(t, b, 8080);

  assert.equal((await call(a, ends.b.v4, 8080)).received, 'hello worldhello world');
  for (const ztunnel of [client, server]) {
    const line = await ztunnel.line(/connection complete/);
    assert.match(line, /src\.identity="spiffe:\/\/cluster\.local\/ns\/shop\/sa\/client"/);
    assert.match(line, /dst\.identity="spiffe:\/\/cluster\.local\/ns\/shop\/sa\/server"/);
  }

  client.kill();
  await client.ended;
  a.exec('nft', 'delete', 'table', 'inet', 'ztunnel');
  assert.equal((await call(a, ends.b.v4, 8080)).received, '', 'in plaintext nobody is let in');
  await server.line(/allow policies exist, but none allowed/);
});

test('three machines that do what docs/bare-mesh.md says have a mesh with a control plane, policies and health', {
  skip: withoutNamespaces ?? false,
  timeout: 120_000,
}, async (t) => {
  const block = blocksOf('bare-mesh.md');
  const folder = mkdtempSync(join(tmpdir(), 'warren-bare-mesh-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const subnet = `10.252.${process.pid % 250}`;
  const [control, a, b] = joinAll(t, subnet, [10, 1, 2]);
  const localized = (text: string, host: string): string =>
    text
      .replace(/\b10\.0\.0\.(\d+)\b/g, `${subnet}.$1`)
      .replaceAll('/etc/ztunnel', join(folder, host))
      .replaceAll('/etc/istiod', join(folder, 'config'))
      .replaceAll('/var/lib/istiod', join(folder, 'state'))
      // Not what a page should say, and sooner than anybody would wait for.
      .replace('WARREN_HEALTH_INTERVAL=5s', 'WARREN_HEALTH_INTERVAL=300ms');
  const mesh = join(folder, 'config/mesh.yaml');
  mkdirSync(join(folder, 'config'));
  writeFileSync(mesh, localized(block('/etc/istiod/mesh.yaml'), 'control'));
  const istiod = start(t, control, localized(block('control'), 'control'));
  await istiod.line(/cluster read/);
  shell(undefined, runnable(localized(block('tokens'), 'control')).replaceAll('istiod-lite/', `${ROOT}istiod-lite/`), folder);
  for (const [host, netns] of [
    ['shop-a', a],
    ['shop-b', b],
  ] as const) {
    mkdirSync(join(folder, host));
    cpSync(join(folder, `${host}.token`), join(folder, host, 'token'));
    cpSync(join(folder, 'state/root-cert.pem'), join(folder, host, 'root-cert.pem'));
    shell(netns, localized(block('both'), host), folder);
  }
  const client = start(t, a, localized(block('shop-a'), 'shop-a'));
  const server = start(t, b, localized(block('shop-b'), 'shop-b'));
  await Promise.all([
    client.line(/ztunnel serves/),
    server.line(/ztunnel serves/),
    istiod.line(/host answers.*client/),
    istiod.line(/host answers.*server/),
  ]);
  await startEcho(t, b, 8080);
  const received = async (): Promise<string> => (await call(a, `${subnet}.100`, 80)).received;
  const ANSWER = 'hello worldhello world';

  await until(async () => (await received()) === ANSWER);
  const line = await server.line(/connection complete/);
  assert.match(line, /src\.identity="spiffe:\/\/cluster\.local\/ns\/shop\/sa\/client"/);
  assert.match(line, /dst\.identity="spiffe:\/\/cluster\.local\/ns\/shop\/sa\/server"/);
  await istiod.line(/certificate issued.*ns\/shop\/sa\/server/);

  shell(undefined, localized(block('another'), 'control'), folder);
  await until(async () => (await received()) === '');
  await server.line(/allow policies exist, but none allowed/);
  writeFileSync(mesh, localized(block('/etc/istiod/mesh.yaml'), 'control'));
  await until(async () => (await received()) === ANSWER);

  server.kill();
  await server.ended;
  await istiod.line(/host does not answer.*server/);
  await until(async () => {
    await received();
    return /NO_HEALTHY|no healthy/i.test(client.output());
  });
  start(t, b, localized(block('shop-b'), 'shop-b'));
  await until(async () => (await received()) === ANSWER);
});

/** Machines in one network, by the last parts of their addresses. */
function joinAll(t: TestContext, subnet: string, numbers: readonly [number, number, number]): [TestNetns, TestNetns, TestNetns] {
  const made: [TestNetns, TestNetns, TestNetns] = [makeNetns(t), makeNetns(t), makeNetns(t)];
  const [first] = made;
  first.exec('ip', 'link', 'add', 'lan', 'type', 'bridge');
  first.exec('ip', 'link', 'set', 'lan', 'up');
  first.exec('ip', 'address', 'add', `${subnet}.${numbers[0]}/24`, 'dev', 'lan');
  for (const [i, netns] of made.entries()) {
    if (i === 0) continue;
    first.exec('ip', 'link', 'add', `lan${i}`, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', netns.name);
    first.exec('ip', 'link', 'set', `lan${i}`, 'master', 'lan', 'up');
    netns.exec('ip', 'address', 'add', `${subnet}.${numbers[i]}/24`, 'dev', 'eth0');
    netns.exec('ip', 'link', 'set', 'eth0', 'up');
  }
  return made;
}

function shell(netns: TestNetns | undefined, text: string, cwd: string): void {
  const enter = netns ? ['nsenter', `--net=${netns.path}`, '--'] : [];
  const [program = '', ...argv] = [...enter, 'bash', '-ec', text];
  // Components refuse variables that would change Node.
  execFileSync(program, argv, { cwd, stdio: 'pipe', env: { PATH: process.env.PATH } });
}

/** The block's settings and program, started in the host. */
function start(t: TestContext, netns: TestNetns, text: string) {
  const words = text.replaceAll('\\\n', ' ').trim().split(/\s+/);
  const at = words.indexOf('scripts/node');
  assert.ok(at > 0, text);
  const env = Object.fromEntries(words.slice(0, at).map((word) => [word.slice(0, word.indexOf('=')), word.slice(word.indexOf('=') + 1)]));
  const [file = '', ...args] = words.slice(at + 1);
  return startProgram(t, netns, file, args, env);
}
