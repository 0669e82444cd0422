/** The images as scripts/images makes them, each run as a container would run it. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  closeSync,
  cpSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { imageDigest } from '../../images/archive.ts';
import { type Built, build } from '../../images/build.ts';
import { type Architecture, readLists, root } from '../../images/components.ts';
import { machineMirrors, readDebianLock } from '../../images/debian.ts';
import { type Entry, readTar } from '../../images/tar.ts';
import {
  type Container,
  type ContainerOptions,
  listLibraries,
  SILENT_ADDRESS,
  startContainer,
  UnpackedLayers,
} from '../support/image-container.ts';
import { withoutNamespaces } from '../support/netns.ts';

const options = { skip: withoutNamespaces ?? withoutDebian() ?? false, timeout: 280_000 };
const cache = join(root, 'node_modules/.cache/images');
const architecture: Architecture = process.arch === 'arm64' ? 'arm64' : 'amd64';

function withoutDebian(): string | undefined {
  try {
    execFileSync('dpkg-deb', ['--version'], { stdio: 'ignore' });
    machineMirrors();
    return undefined;
  } catch {
    return 'needs dpkg and apt';
  }
}

/** What the images are made from, standing still: somebody may be writing in the checkout. */
function copySource(t: TestContext): string {
  const copy = mkdtempSync(join(tmpdir(), 'warren-test-source-'));
  t.after(() => rmSync(copy, { recursive: true, force: true }));
  for (const name of readdirSync(root)) {
    if (!/^(\.git|node_modules|dist|test|docs)$/.test(name)) cpSync(join(root, name), join(copy, name), { recursive: true });
  }
  symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'));
  return copy;
}

const buildNamed = (source: string, names: readonly string[], layers: string): Promise<Built[]> => {
  const lists = readLists();
  const debian = readDebianLock(readFileSync(join(root, 'images/debian.json'), 'utf8'), architecture);
  const chosen = lists.components.filter(({ name }) => names.length === 0 || names.includes(name));
  return build(chosen, { source, lists, architecture, debian, mirrors: machineMirrors(), cache, layers, onProgress: () => undefined });
};

/** What each needs to start, and the line that says it has. None finds a cluster: starting, waiting and ending is what is looked at. */
const starts: Readonly<Record<string, { line: RegExp; env?: Record<string, string> }>> = {
  istiod: { line: /connect ENETUNREACH|connect ECONNREFUSED/, env: { KUBECONFIG: '/kubeconfig' } },
  ztunnel: { line: /ztunnel starts/ },
  cni: {
    line: /watch failed, trying again/,
    env: { KUBECONFIG: '/kubeconfig', NODE_NAME: 'node1' },
  },
  waypoint: { line: /waypoint starts/ },
  echo: { line: /listening on 8080/ },
};

/** What the manifest leaves a component of root's capabilities. */
function granted(name: string): string[] {
  const documents = readFileSync(join(root, 'manifests/install.yaml'), 'utf8').split(/^---$/m);
  const own = documents.find((text) => new RegExp(`image: "?warren/${name}:`).test(text));
  const [, list = ''] = /capabilities:\n\s+drop: \[ALL\]\n\s+add: \[(.*)\]/.exec(own ?? '') ?? [];
  return list
    .split(', ')
    .filter((item) => item !== '')
    .map((item) => item.toLowerCase());
}

const kubeconfig = (server: string): string =>
  JSON.stringify({
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'c', cluster: { server, 'insecure-skip-tls-verify': true } }],
    users: [{ name: 'u', user: { token: 'none' } }],
    contexts: [{ name: 'c', context: { cluster: 'c', user: 'u' } }],
    'current-context': 'c',
  });

test('images: the same input gives the same digest, and each image runs as its user on a read-only root', options, async (t) => {
  const source = copySource(t);
  const built = await buildNamed(source, [], join(cache, 'layers'));
  const unpacked = new UnpackedLayers(t);
  const images = new Map(
    built.map(({ component, image: { settings, layers } }) => [
      component.name,
      { config: settings, layers: layers.map((layer) => unpacked.unpack(layer)), files: layers.map(({ file }) => file) },
    ]),
  );
  /** With a cluster that is not there, or one that says nothing. */
  const container = (t: TestContext, name: string, more: Partial<ContainerOptions> = {}, server = '127.0.0.1:9'): Container => {
    const image = images.get(name);
    assert.ok(image);
    const pod = unpacked.empty();
    chmodSync(pod, 0o755);
    writeFileSync(join(pod, 'kubeconfig'), kubeconfig(`http://${server}`));
    return startContainer(t, { ...image, ...more, layers: [...image.layers, pod] });
  };

  await t.test('an image built again, from nothing that was kept of the first, has the same digest', async () => {
    const fresh = unpacked.empty();
    const again = await buildNamed(source, ['cni'], fresh);
    rmSync(fresh, { recursive: true });
    assert.deepEqual(
      again.map(({ image }) => imageDigest(image)),
      built.filter(({ component }) => component.name === 'cni').map(({ image }) => imageDigest(image)),
    );
  });

  for (const [name, { line, env = {} }] of Object.entries(starts)) {
    await t.test(`${name} starts, and ends at SIGTERM as the first process of its container`, async (t) => {
      const running = container(t, name, { capabilities: granted(name), env });
      await running.line(line);
      assert.equal(await end(running), 0, running.output());
    });
  }

  await t.test('meshctl that waits for a cluster ends at SIGTERM too', async (t) => {
    const image = images.get('meshctl');
    assert.ok(image);
    const config = { ...image.config, command: ['status'] };
    const running = container(t, 'meshctl', { config, env: { KUBECONFIG: '/kubeconfig' } }, SILENT_ADDRESS);
    let over = false;
    void running.ended.then(() => {
      over = true;
    });
    while (!over && !asksSilentAddress(running)) await new Promise((resolve) => setTimeout(resolve, 20));
    assert.equal(await end(running), 143, running.output());
  });

  await t.test('every program and library of an image finds the libraries that it names', () => {
    for (const [name, { layers }] of images) {
      const files = layers.flatMap((folder) => elfFiles(folder));
      const loader = files.find((path) => /\/ld-linux[^/]*\.so/.test(path)) ?? '';
      const libraries = listLibraries(layers, loader, files);
      assert.match(libraries, /libstdc\+\+\.so\.6 => \/lib/, name);
      assert.doesNotMatch(libraries, /not found/, name);
    }
  });

  await t.test('the node agent has both kinds of rules at hand, and the CNI plugin to hand out', async (t) => {
    const variants = ['iptables', 'ip6tables'].flatMap((name) => [name, `${name}-nft`, `${name}-legacy`]);
    const commands = variants.flatMap((name) => [`${name}-save --version`, `${name}-restore --version`]);
    for (const command of ['nft list ruleset', 'ipset --version', ...commands]) {
      const { status, output } = await tool(t, 'cni', `/usr/sbin/${command}`.split(' '));
      assert.equal(status, 0, `${command}: ${output}`);
    }
    assert.match((await tool(t, 'cni', ['/opt/cni/bin/istio-cni'])).output, /istio-cni: no network configuration/);
  });

  async function tool(t: TestContext, name: string, entrypoint: string[]): Promise<{ status: number | string; output: string }> {
    const image = images.get(name);
    assert.ok(image);
    const capabilities = ['net_admin', 'net_raw'];
    const running = startContainer(t, { ...image, config: { ...image.config, user: '0:0', entrypoint, command: [] }, capabilities });
    return { status: await running.ended, output: running.output() };
  }

  const read = new Map<string, Pick<Entry, 'path' | 'type' | 'mode'>[]>();
  const entries = (name: string): Pick<Entry, 'path' | 'type' | 'mode'>[] =>
    (images.get(name)?.files ?? []).flatMap((file) => {
      const found = read.get(file) ?? readTar(readFileSync(file)).map(({ path, type, mode }) => ({ path, type, mode }));
      read.set(file, found);
      return found;
    });

  await t.test('nothing in an image is writable to others than root, but /tmp, and nothing raises privileges', () => {
    for (const name of images.keys()) {
      const loose = entries(name).filter(({ type, mode, path }) => type !== 'symlink' && path !== 'tmp' && (mode & 0o6022) !== 0);
      assert.deepEqual(
        loose.map(({ path }) => path),
        [],
        name,
      );
    }
  });

  await t.test("a proxy's image has no Kubernetes client, and none has types or tests", () => {
    for (const name of images.keys()) {
      const paths = entries(name).map(({ path }) => path);
      const client = paths.some((path) => path.startsWith('app/node_modules/@kubernetes/client-node/'));
      assert.equal(client, ['istiod', 'cni', 'meshctl'].includes(name), name);
      const unwanted = paths.filter((path) => /\.ts$|^app\/(test|bench|scripts)\/|node_modules\/typescript\//.test(path));
      assert.deepEqual(unwanted, [], name);
    }
  });
});

const PATIENCE_MS = 60_000;

/** @returns the exit status, or that it took no notice of the signal, and then by force */
async function end(running: Container): Promise<number | string> {
  process.kill(running.pid(), 'SIGTERM');
  const timeout = Promise.withResolvers<string>();
  const timer = setTimeout(() => timeout.resolve('took no notice of SIGTERM'), PATIENCE_MS);
  const how = await Promise.race([running.ended, timeout.promise]);
  clearTimeout(timer);
  return how;
}

/** Whether it has a connection to there that nobody answers: state 02, SYN_SENT. */
function asksSilentAddress(container: Container): boolean {
  try {
    return / 020200C0:0050 02 /.test(readFileSync(`/proc/${container.pid()}/net/tcp`, 'latin1'));
  } catch {
    // Its first process is not there yet.
    return false;
  }
}

function elfFiles(folder: string): string[] {
  const candidates = ['-xdev', '-type', 'f', '(', '-perm', '-100', '-o', '-name', '*.so*', '-o', '-name', '*.node', ')'];
  const paths = execFileSync('find', [folder, ...candidates], { encoding: 'utf8' })
    .split('\n')
    .filter((path) => path !== '');
  return paths.filter(startsLikeElf).map((path) => path.slice(folder.length));
}

function startsLikeElf(path: string): boolean {
  const start = Buffer.alloc(4);
  const file = openSync(path, 'r');
  readSync(file, start);
  closeSync(file);
  return start.equals(Buffer.from('\x7fELF', 'latin1'));
}
