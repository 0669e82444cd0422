/** `scripts/images`: command line to images on disk, with their sizes and digests. Exit status 1 where an input is missing or wrong, 2 for a bad flag. */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { errorMessage } from '../common/base/errors.ts';
import { imageDigest, imageId, writeArchive } from './archive.ts';
import { type Built, build } from './build.ts';
import { type Architecture, architectures, type Component, type Lists, readLists, root } from './components.ts';
import { type DebianPackage, machineMirrors, readDebianLock } from './debian.ts';
import { resolveDebian } from './debian-update.ts';
import { removeUnused } from './layer.ts';

const USAGE = `usage: scripts/images [options] [COMPONENT …]

Builds images without Docker and without a registry: DIR/COMPONENT.tar (docker load, ctr image import, kind load image-archive, k3s ctr)
and DIR/COMPONENT.spdx.json. Without a name, all that are not for tests.

  --out DIR            where they go (default: dist/images)
  --bundle FILE        one archive with all of them, common layers once, in place of an archive each
  --trees DIR          in place of archives the layers' files in folders: what the Dockerfile copies
  --test               the images for tests too
  --arch ARCH          amd64 or arm64 (default: this machine's)
  --tag TAG            default: the version of package.json
  --commit REV         from a commit in place of the working tree
  --label-revision REV the label org.opencontainers.image.revision; without it equal content has an equal digest
  --mirror NAME=URL    where Debian packages come from, NAME being debian or debian-security (default: as apt here); digests are checked
  --newest-debian      Debian packages as apt offers them today, not as images/debian.json has them: for tests, when a mirror has dropped one
  --update-debian      only writes images/debian.json anew`;

const options = {
  out: { type: 'string', default: 'dist/images' },
  bundle: { type: 'string' },
  trees: { type: 'string' },
  test: { type: 'boolean', default: false },
  arch: { type: 'string', default: process.arch === 'arm64' ? 'arm64' : 'amd64' },
  tag: { type: 'string' },
  commit: { type: 'string' },
  'label-revision': { type: 'string' },
  mirror: { type: 'string', multiple: true },
  'newest-debian': { type: 'boolean', default: false },
  'update-debian': { type: 'boolean', default: false },
  help: { type: 'boolean', short: 'h', default: false },
} as const;

class UsageError extends Error {}

const CACHE = join(root, 'node_modules/.cache/images');
const LAYERS = join(CACHE, 'layers');
const KEPT_MS = 7 * 24 * 3_600_000;

async function main(argv: readonly string[]): Promise<void> {
  const { values, positionals } = parse(argv);
  if (values.help) return console.log(USAGE);
  const progress = (text: string): void => console.error(`images: ${text}`);
  if (values['update-debian']) return updateDebian(progress);
  const source = values.commit === undefined ? root : checkOut(values.commit);
  try {
    const lists = readLists(readFileSync(join(source, 'images/components.json'), 'utf8'));
    const architecture = architectureOf(values.arch);
    const built = await build(chosen(lists, positionals, values.test), {
      source,
      lists,
      architecture,
      debian: values['newest-debian'] ? newest(lists, architecture, progress) : locked(source, architecture),
      mirrors: mirrors(values.mirror ?? []),
      cache: CACHE,
      layers: LAYERS,
      ...(values.tag !== undefined && { tag: values.tag }),
      ...(values['label-revision'] !== undefined && { revision: values['label-revision'] }),
      onProgress: progress,
    });
    if (values.trees !== undefined) return writeTrees(built, resolve(values.trees));
    writeImages(built, resolve(values.out), values.bundle);
    removeUnused(LAYERS, Date.now() - KEPT_MS);
    report(built);
  } finally {
    if (source !== root) rmSync(source, { recursive: true, force: true });
  }
}

function parse(argv: readonly string[]) {
  try {
    return parseArgs({ args: [...argv], options, allowPositionals: true });
  } catch (error) {
    throw new UsageError(errorMessage(error));
  }
}

function architectureOf(name: string): Architecture {
  const found = architectures.find((architecture) => architecture === name);
  if (!found) throw new UsageError(`--arch ${name}: expected ${architectures.join(' or ')}`);
  return found;
}

function chosen({ components }: Lists, names: readonly string[], test: boolean): Component[] {
  const unknown = names.filter((name) => !components.some((component) => component.name === name));
  const known = components.map(({ name }) => name).join(', ');
  if (unknown.length > 0) throw new UsageError(`no component ${unknown.join(', ')}: there are ${known}`);
  return components.filter((component) => (names.length === 0 ? test || !component.test : names.includes(component.name)));
}

function mirrors(given: readonly string[]): Map<string, string> {
  const found = machineMirrors();
  for (const pair of given) {
    const [, name, url] = /^(debian|debian-security)=(https?:\/\/.+?)\/*$/.exec(pair) ?? [];
    if (name === undefined || url === undefined) throw new UsageError(`--mirror ${pair}: expected debian=URL or debian-security=URL`);
    found.set(name, url);
  }
  return found;
}

const locked = (source: string, architecture: Architecture): DebianPackage[] =>
  readDebianLock(readFileSync(join(source, 'images/debian.json'), 'utf8'), architecture);

function newest(lists: Lists, architecture: Architecture, progress: (text: string) => void): DebianPackage[] {
  progress('asking apt for the newest Debian packages: these images are not what images/debian.json describes');
  return resolveDebian(lists, [architecture], join(CACHE, 'apt'))[architecture] ?? [];
}

function updateDebian(progress: (text: string) => void): void {
  const lists = readLists();
  progress('asking apt, for all architectures');
  const resolved = resolveDebian(lists, architectures, join(CACHE, 'apt'));
  writeFileSync(join(root, 'images/debian.json'), `${JSON.stringify(resolved, null, 2)}\n`);
  for (const [architecture, packages] of Object.entries(resolved)) progress(`${architecture}: ${packages.length} packages`);
}

/** @returns a folder of its own that has the commit's files, and the packages installed here */
function checkOut(revision: string): string {
  const git = spawnSync('git', ['archive', '--', revision], { cwd: root, maxBuffer: 256 << 20 });
  if (git.status !== 0) throw new Error(`--commit ${revision}: ${git.error?.message ?? git.stderr.toString().trim()}`);
  const archive = git.stdout;
  const folder = mkdtempSync(join(tmpdir(), 'warren-images-source-'));
  execFileSync('tar', ['-x', '-C', folder], { input: archive });
  symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'));
  return folder;
}

function writeImages(built: readonly Built[], out: string, bundle: string | undefined): void {
  mkdirSync(out, { recursive: true });
  for (const { component, image, sbom } of built) {
    if (bundle === undefined) writeArchive(join(out, `${component.name}.tar`), [image]);
    writeFileSync(join(out, `${component.name}.spdx.json`), sbom(imageDigest(image)));
  }
  if (bundle !== undefined)
    writeArchive(
      resolve(bundle),
      built.map(({ image }) => image),
    );
}

/** root and node, which all images have; beside them a folder for each component. */
function writeTrees(built: readonly Built[], out: string): void {
  const unpacked = new Set<string>();
  for (const { component, image } of built) {
    for (const { name, file } of image.layers) {
      const folder = join(out, name === 'root' || name === 'node' ? name : join(component.name, name));
      if (unpacked.has(folder)) continue;
      unpacked.add(folder);
      rmSync(folder, { recursive: true, force: true });
      mkdirSync(folder, { recursive: true });
      execFileSync('tar', ['-x', '-p', '-f', file, '-C', folder]);
    }
  }
}

function report(built: readonly Built[]): void {
  const mb = (bytes: number): string => (bytes / 1e6).toFixed(1).padStart(7);
  for (const { image } of built) {
    const total = image.layers.reduce((sum, { bytes }) => sum + bytes, 0);
    console.log(`${image.reference.padEnd(24)} ${mb(total)} MB  ${imageDigest(image)}  id ${imageId(image).slice(0, 19)}`);
    for (const { name, bytes, digest } of image.layers) console.log(`  ${name.padEnd(22)} ${mb(bytes)} MB  sha256:${digest}`);
  }
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  console.error(`images: ${errorMessage(error)}${error instanceof UsageError ? `\n${USAGE}` : ''}`);
  process.exitCode = error instanceof UsageError ? 2 : 1;
}
