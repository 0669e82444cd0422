import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startProblems } from '../../../common/linux/hardening.ts';

test("a variable that would change Node is refused by name, and a Kubernetes node's name is none", () => {
  const env = { NODE_NAME: 'node1', NODE_COMPILE_CACHE: '/x', PATH: '/bin', NODE_OPTIONS: '--inspect', NODE_TLS_REJECT_UNAUTHORIZED: '0' };
  assert.deepEqual(
    startProblems({ env, execArgv: [] }).map((text) => /NODE_\w+/.exec(text)?.[0]),
    ['NODE_OPTIONS', 'NODE_TLS_REJECT_UNAUTHORIZED'],
  );
  // Set to nothing it is still set, and somebody wanted something.
  assert.equal(startProblems({ env: { NODE_OPTIONS: '' }, execArgv: [] }).length, 1);
});

test('a flag that opens the process to others is refused, and the flags of the images are not', () => {
  const refused = [
    '--inspect=0.0.0.0',
    '--inspect-brk',
    '--heapsnapshot-signal=SIGUSR2',
    '--report-on-signal',
    '--tls-keylog=/tmp/keys',
    '--cpu-prof',
  ];
  assert.equal(startProblems({ env: {}, execArgv: refused }).length, refused.length);
  assert.deepEqual(startProblems({ env: {}, execArgv: ['--disable-sigusr1', '--max-semi-space-size=2', '--import', '/x.ts'] }), []);
});
