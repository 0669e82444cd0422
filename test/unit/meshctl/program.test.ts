/** What meshctl says of itself: completion for shells, and versions. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Command } from 'commander';
import { findingLine, linked, pageOf, warning } from '../../../meshctl/check/finding.ts';
import { completionScript } from '../../../meshctl/commands/completion.ts';
import { versionLines } from '../../../meshctl/commands/version.ts';
import { namespaceOf } from '../../../meshctl/namespace.ts';
import { argumentsInOrder, createProgram } from '../../../meshctl/program.ts';

/** What bash offers for the last word. */
function offered(...words: string[]): string[] {
  const script = `${completionScript(createProgram({}), 'bash')}
COMP_WORDS=(meshctl ${words.map((word) => `'${word}'`).join(' ')}); COMP_CWORD=${words.length}; _meshctl; printf '%s\\n' "\${COMPREPLY[@]}"`;
  const { status, stdout, stderr } = spawnSync('bash', ['-c', script], { encoding: 'utf8' });
  assert.equal(status, 0, stderr);
  return stdout.trim().split('\n');
}

test('bash completes commands, their own commands under every name, and flags, past arguments', () => {
  assert.deepEqual(offered('way'), ['waypoint-config', 'waypoint']);
  assert.ok(offered('waypoint', '').includes('apply'));
  assert.deepEqual(offered('zc', 'cert'), ['certificate']);
  assert.ok(offered('waypoint', 'apply', '--enr').includes('--enroll-namespace'));
  assert.ok(offered('explain', 'shop/client', 'orders:80', '--me').includes('--method'));
  assert.ok(offered('status', '--kube').includes('--kubeconfig'), "the program's own flags go with every command");
  assert.deepEqual(offered('--kubeconfig', 'file', 'waypoint', 'del'), ['delete'], "a flag's value is no command");
  assert.deepEqual(offered('top', '-n', ''), [''], 'nor is one that is still to be written');
});

test('there are scripts for zsh and fish, and for nothing else', () => {
  assert.match(completionScript(createProgram({}), 'zsh'), /bashcompinit[\s\S]*complete -o default -F _meshctl meshctl$/);
  assert.match(completionScript(createProgram({}), 'fish'), /complete -c meshctl -f -n '__fish_use_subcommand' -a waypoint -d 'waypoints'/);
  assert.match(
    completionScript(createProgram({}), 'fish'),
    /-n '__fish_seen_subcommand_from waypoint; and not __fish_seen_subcommand_from apply [a-z ]+' -a apply/,
  );
  assert.match(completionScript(createProgram({}), 'fish'), /-n '__fish_seen_subcommand_from top' -l namespace -s n -r /);
  assert.throws(() => completionScript(createProgram({}), 'csh'), /expected bash, zsh, fish/);
});

// Those that this machine has.
for (const shell of ['bash', 'zsh', 'fish'].filter((name) => spawnSync(name, ['-c', 'true']).status === 0)) {
  test(`${shell} takes its completion script`, (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'meshctl-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const script = completionScript(createProgram({}), shell);
    writeFileSync(join(folder, 'script'), script);
    const { status, stderr } = spawnSync(shell, ['-n', join(folder, 'script')], { encoding: 'utf8' });
    assert.equal(status, 0, stderr);
    if (shell !== 'fish') return;
    const offers = (line: string): string =>
      spawnSync('fish', ['--no-config', '-c', `${script}\ncomplete -C "${line}"`], { encoding: 'utf8' }).stdout;
    assert.match(offers('meshctl waypoint '), /^apply\t/m);
    assert.doesNotMatch(offers('meshctl waypoint apply '), /^delete\t/m, 'commands of a command are offered until one is there');
    assert.match(offers('meshctl waypoint apply --enr'), /^--enroll-namespace\t/);
  });
}

test('versions are one line each, replicas only where they differ, and what differs from this program is said', () => {
  assert.deepEqual(
    versionLines({
      clientVersion: '1',
      controlPlane: [
        { pod: 'a', version: '1' },
        { pod: 'b', version: '1' },
      ],
      dataPlane: [{ version: '1', proxies: 1 }],
    }),
    ['client version: 1', 'control plane version: 1', 'data plane version: 1 (1 proxy)'],
  );
  assert.deepEqual(
    versionLines({
      clientVersion: '2',
      controlPlane: [
        { pod: 'a', version: '1' },
        { pod: 'b', version: '2' },
      ],
      dataPlane: [
        { version: '1', proxies: 3 },
        { version: '2', proxies: 1 },
      ],
    }),
    [
      'client version: 2',
      'control plane version: 1 (a)',
      'control plane version: 2 (b)',
      'data plane version: 1 (3 proxies), 2 (1 proxy)',
      "1 other version than this program's: meshctl upgrade brings all to 2",
    ],
  );
  assert.deepEqual(versionLines({ clientVersion: '1' }), ['client version: 1']);
});

test('every command, and every command of one, has an example, which a test runs', () => {
  const folder = join(import.meta.dirname, '../../../docs/cli/examples');
  const leaves = (command: Command): string[] =>
    command.commands.length === 0
      ? [command.name()]
      : command.commands.flatMap((child) => leaves(child).map((name) => `${command.name()} ${name}`));
  // They are what the test's own playground is started by.
  const without = ['playground up', 'playground list'];
  for (const command of createProgram({}).commands) {
    const text = readFileSync(join(folder, `${command.name()}.txt`), 'utf8');
    for (const name of leaves(command)) if (!without.includes(name)) assert.match(text, new RegExp(`^\\$ meshctl ${name}\\b`, 'm'), name);
    assert.ok(text.split('\n').filter((line) => line !== '' && !line.startsWith('$ ')).length > 0, `${command.name()} prints something`);
  }
});

test('whatever a check finds has a mend, and a page of docs/ that is there, heading and all', () => {
  const folder = join(import.meta.dirname, '../../..');
  const found = { installation: [] as string[], preflight: [] as string[] };
  for (const [file, checks] of Object.entries({
    installation: [found.installation],
    preflight: [found.preflight],
    'network-policies': [found.installation, found.preflight],
  })) {
    const source = readFileSync(join(folder, `meshctl/check/${file}.ts`), 'utf8');
    for (const [, check = ''] of source.matchAll(/\b(?:warning|failure)\(\s*(?:'([^']+)'|"([^"]+)"),/g))
      for (const list of checks) list.push(check);
    assert.doesNotMatch(source, /\b(?:warning|failure)\([^()]*, ''\)/, 'each problem says what to do about it');
  }
  found.installation.push(
    'Deployment istio-system/istiod',
    'DaemonSet istio-system/ztunnel',
    'DaemonSet istio-system/istio-cni-node',
    'ztunnel',
  );
  assert.ok(found.installation.length > 15 && found.preflight.length > 10);
  for (const [checks, pre] of [
    [found.installation, false],
    [found.preflight, true],
  ] as const)
    for (const check of checks) {
      const [page = '', heading = ''] = pageOf(check, pre).split('#');
      const headings = [...readFileSync(join(folder, page), 'utf8').matchAll(/^#+ (.*)$/gm)].map(([, text = '']) =>
        text
          .toLowerCase()
          .replaceAll(/[^\w -]/g, '')
          .replaceAll(' ', '-'),
      );
      assert.ok(headings.includes(heading), `${check}: ${page}#${heading}`);
    }
  assert.match(
    findingLine(linked(warning('pods', 'two are not in the mesh', 'meshctl status says why'), false), false),
    /\(meshctl status says why; see docs\/enrolment\.md#what-is/,
  );
});

test('help and versions load nothing of the cluster, of certificates, or of YAML', () => {
  const watch = `import { registerHooks } from 'node:module';
registerHooks({ load(url, context, next) { if (/node-forge|kube-api|client-node|js-yaml|grpc/.test(url)) process.exit(9); return next(url, context); } });`;
  for (const args of [['--help'], ['version', '--client']]) {
    const { status, stdout } = spawnSync(
      process.execPath,
      ['--import', `data:text/javascript,${encodeURIComponent(watch)}`, join(import.meta.dirname, '../../../meshctl/main.ts'), ...args],
      { encoding: 'utf8' },
    );
    assert.equal(status, 0, `meshctl ${args.join(' ')} loads what it does not need`);
    assert.ok(stdout.length > 10);
  }
});

test('flags of a command may stand before it, as with kubectl; what reaches the cluster stays there', () => {
  const order = (line: string): string => argumentsInOrder(line.split(' ')).join(' ');
  assert.equal(order('-n shop top'), 'top -n shop');
  assert.equal(order('--context two --namespace=shop -o json waypoint list'), '--context two waypoint list --namespace=shop -o json');
  assert.equal(order('-n shop explain -- web orders'), 'explain -n shop -- web orders');
  assert.equal(order('top -n shop'), 'top -n shop');
  assert.equal(order('--help'), '--help');
});

test('the namespace is the one of the context, where no flag names one', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'meshctl-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const kubeconfig = join(folder, 'config');
  const context = { cluster: 'here', user: 'me', namespace: 'shop' };
  writeFileSync(
    kubeconfig,
    JSON.stringify({
      'current-context': 'one',
      contexts: [{ name: 'one', context }],
      clusters: [{ name: 'here', cluster: { server: 'https://localhost:1' } }],
    }),
  );
  const reach = { systemNamespace: 'istio-system', env: { KUBECONFIG: kubeconfig } };
  assert.equal(await namespaceOf(reach), 'shop');
  assert.equal(await namespaceOf(reach, 'vault'), 'vault');
  assert.equal(await namespaceOf({ ...reach, context: 'absent' }), 'default');
});

test('what is wrong is one line with the mend, and an exit status that says nothing of the mesh', () => {
  const said = (...args: string[]): string => {
    const env = { ...process.env, KUBECONFIG: '/nowhere/config' };
    const { status, stdout, stderr } = spawnSync(process.execPath, [join(import.meta.dirname, '../../../meshctl/main.ts'), ...args], {
      encoding: 'utf8',
      env,
    });
    assert.deepEqual([status, stdout], [2, '']);
    return stderr;
  };
  assert.equal(said('top', '--nmespace', 'shop'), "meshctl: unknown option '--nmespace' (Did you mean --namespace?)\n");
  assert.equal(said('explain'), "meshctl: missing required argument 'pod-or-id' (--help says what there is)\n");
  assert.match(said('status'), /^meshctl: cannot read kubeconfig \/nowhere\/config: ENOENT.* \(--kubeconfig FILE names another\)\n$/);
});
