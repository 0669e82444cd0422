/** What meshctl says of itself: completion for shells, and versions. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { completionScript } from '../../../meshctl/commands/completion.ts';
import { versionLines } from '../../../meshctl/commands/version.ts';
import { createProgram } from '../../../meshctl/program.ts';

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
});

test('there are scripts for zsh and fish, and for nothing else', () => {
  assert.match(completionScript(createProgram({}), 'zsh'), /bashcompinit[\s\S]*complete -F _meshctl meshctl$/);
  assert.match(completionScript(createProgram({}), 'fish'), /complete -c meshctl -f -n '__fish_use_subcommand' -a waypoint -d 'waypoints'/);
  assert.throws(() => completionScript(createProgram({}), 'csh'), /expected bash, zsh, fish/);
});

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
