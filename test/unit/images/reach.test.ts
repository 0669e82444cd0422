import assert from 'node:assert/strict';
import { test } from 'node:test';
import { closure, reach } from '../../../images/reach.ts';

const modules = (files: Record<string, string>) => (path: string) => files[path];

test('modules are followed through every way of importing, packages are named once, and what nobody imports is left out', () => {
  const files = {
    'a/main.js':
      "import { x } from './x.js';\nimport '../common/side.js';\nexport * from './y.js';\nimport fs from 'node:fs';\nimport net from 'net';",
    'a/x.js': "const late = await import('./late.js');\nimport {\n  one,\n  two,\n} from '@scope/lib/sub';\nimport lib from '@scope/lib';",
    'a/y.js': "import yaml from 'js-yaml';",
    'a/late.js': "const { k } = await import('@kubernetes/client-node');",
    'common/side.js': '',
    'a/unused.js': "import 'left-pad';",
  };
  const found = reach(['a/main.js'], modules(files));
  assert.deepEqual(found.modules, ['a/late.js', 'a/main.js', 'a/x.js', 'a/y.js', 'common/side.js']);
  assert.deepEqual(found.packages, ['@kubernetes/client-node', '@scope/lib', 'js-yaml']);
});

test('a module that is not there is an error with the name of who imports it', () => {
  assert.throws(() => reach(['main.js'], modules({ 'main.js': "import './gone.js';" })), /gone\.js is not there, and main\.js names it/);
});

const entry = (more: object = {}) => ({ version: '1.0.0', integrity: 'sha512-AAAA', license: 'MIT', ...more });
const lock = {
  packages: {
    '': {},
    'node_modules/a': entry({ dependencies: { b: '^1', c: '^1' } }),
    'node_modules/a/node_modules/b': entry({ version: '1.9.0' }),
    'node_modules/b': entry({ version: '2.0.0' }),
    'node_modules/c': entry({
      optionalDependencies: { 'c-x64': '1', 'c-arm64': '1', 'c-win': '1' },
      peerDependencies: { b: '2', p: '1' },
      peerDependenciesMeta: { p: { optional: true } },
    }),
    'node_modules/c-x64': entry({ os: ['linux'], cpu: ['x64'] }),
    'node_modules/c-arm64': entry({ os: 'linux', cpu: 'arm64' }),
    'node_modules/d': entry(),
  },
};
const paths = (names: string[], cpu: string) => closure(lock, names, cpu).map(({ path }) => path.replaceAll('node_modules/', ''));

test('of the lock file come the packages that are named and what they depend on, nested ones as they lie, binaries of one processor', () => {
  assert.deepEqual(paths(['a'], 'x64'), ['a', 'a/b', 'b', 'c', 'c-x64']);
  assert.deepEqual(paths(['c'], 'arm64'), ['b', 'c', 'c-arm64']);
});

test('a package that the lock file lacks is an error that says who needs it', () => {
  assert.throws(
    () => closure({ packages: { 'node_modules/a': entry({ dependencies: { z: '1' } }) } }, ['a'], 'x64'),
    /has no z, which node_modules\/a needs/,
  );
});
