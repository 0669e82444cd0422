/** docs/bare-hosts.md, followed word for word on two hosts that are network namespaces; only addresses and folders are the test's. */
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

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const page = readFileSync(join(ROOT, 'docs/bare-hosts.md'), 'utf8');

/** The page's blocks with this label. */
function block(label: string): string {
  const found = new RegExp(`^\`\`\`(?:sh|yaml) ${label}\n([^]*?)^\`\`\``, 'm').exec(page)?.[1];
  assert.ok(found, `the page has a block ${label}`);
  return found;
}

/** The page's commands with the programs of this run. */
const runnable = (text: string): string =>
  text.replaceAll('scripts/meshctl', `${process.execPath} ${ROOT}meshctl/main.ts`).replaceAll('scripts/node', process.execPath);

test('two hosts that do what docs/bare-hosts.md says have a mesh of their own', {
  skip: withoutNamespaces ?? false,
  timeout: 120_000,
}, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'warren-bare-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const [a, b] = [makeNetns(t), makeNetns(t)];
  const ends = joinNetns(a, b, 90 + (process.pid % 10));
  const localized = (text: string, host: string): string =>
    text.replaceAll('10.0.0.1', ends.a.v4).replaceAll('10.0.0.2', ends.b.v4).replaceAll('/etc/ztunnel', join(folder, host));
  const shell = (netns: TestNetns | undefined, text: string, cwd: string): void => {
    const enter = netns ? ['nsenter', `--net=${netns.path}`, '--'] : [];
    const [program = '', ...argv] = [...enter, 'bash', '-ec', text];
    execFileSync(program, argv, { cwd, stdio: 'pipe' });
  };

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

/** The block's settings and program, started in the host. */
function start(t: TestContext, netns: TestNetns, text: string) {
  const words = text.replaceAll('\\\n', ' ').trim().split(/\s+/);
  const at = words.indexOf('scripts/node');
  assert.ok(at > 0, text);
  const env = Object.fromEntries(words.slice(0, at).map((word) => [word.slice(0, word.indexOf('=')), word.slice(word.indexOf('=') + 1)]));
  const [file = '', ...args] = words.slice(at + 1);
  return startProgram(t, netns, file, args, env);
}
