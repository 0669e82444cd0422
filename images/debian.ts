/**
 * Debian packages without apt's database or root: `debian.json` names each by path and SHA-256, so a mirror need not be trusted, and the
 * content is unpacked into memory. No maintainer script runs; what they would have done that matters here (merged /usr, the alternatives of
 * iptables, accounts) is done below, and the rest of a package (manuals, locales, set-up) stays out.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Architecture, fields, string, strings } from './components.ts';
import { type Entry, readTar } from './tar.ts';

export interface DebianPackage {
  readonly name: string;
  readonly version: string;
  /** The source package, for those who look up vulnerabilities. */
  readonly source: string;
  /** Which of a mirror's archives has it. */
  readonly archive: 'debian' | 'debian-security';
  /** Within the archive: `pool/main/g/glibc/libc6_….deb`. */
  readonly path: string;
  readonly size: number;
  /** Hexadecimal. */
  readonly sha256: string;
  /** Names of the packages of this list that it needs. */
  readonly depends: readonly string[];
}

/** @throws {Error} that names what is missing */
export function readDebianLock(text: string, architecture: Architecture): DebianPackage[] {
  const at = `images/debian.json, ${architecture}`;
  const list = fields(JSON.parse(text), at)[architecture];
  if (!Array.isArray(list)) throw new Error(`${at}: expected a list`);
  return list.map((item: unknown) => {
    const { name, version, source, archive, path, size, sha256, depends } = fields(item, at);
    if (archive !== 'debian' && archive !== 'debian-security') throw new Error(`${at}: ${String(name)} is of archive ${String(archive)}`);
    if (typeof size !== 'number') throw new Error(`${at}: ${String(name)} has no size`);
    return {
      name: string(name, at),
      version: string(version, at),
      source: string(source, at),
      archive,
      path: string(path, at),
      size,
      sha256: string(sha256, at),
      depends: strings(depends, at),
    };
  });
}

/** @returns the named packages and what they need, sorted by name, without those of `except`. @throws {Error} where one is not locked */
export function select(all: readonly DebianPackage[], names: Iterable<string>, except: ReadonlySet<string> = new Set()): DebianPackage[] {
  const byName = new Map(all.map((item) => [item.name, item]));
  const found = new Map<string, DebianPackage>();
  const queue = [...names];
  for (let name = queue.pop(); name !== undefined; name = queue.pop()) {
    if (found.has(name) || except.has(name)) continue;
    const item = byName.get(name);
    if (!item) throw new Error(`images/debian.json has no ${name}: scripts/images --update-debian`);
    found.set(name, item);
    queue.push(...item.depends);
  }
  return [...found.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** Where the machine's own apt fetches from, by archive. */
export function machineMirrors(): Map<string, string> {
  const format = '$(REPO_URI)';
  const lines = execFileSync('apt-get', ['indextargets', '--no-release-info', '--format', format, 'Created-By: Packages'], {
    encoding: 'utf8',
  });
  const mirrors = new Map<string, string>();
  for (const uri of lines.split('\n')) {
    const archive = uri.replace(/\/+$/, '').split('/').pop() ?? '';
    if ((archive === 'debian' || archive === 'debian-security') && !mirrors.has(archive)) mirrors.set(archive, uri.replace(/\/+$/, ''));
  }
  return mirrors;
}

const ATTEMPTS = 3;

/**
 * @param folder where packages are kept between runs
 * @returns the package's file. @throws {Error} that says what to do where no mirror has this version any more
 */
export async function fetchPackage(item: DebianPackage, folder: string, mirrors: ReadonlyMap<string, string>): Promise<string> {
  const file = join(folder, `${item.name}_${item.sha256}.deb`);
  if (existsSync(file)) return file;
  const mirror = mirrors.get(item.archive);
  if (mirror === undefined)
    throw new Error(`${item.name}: apt here knows no mirror of ${item.archive}; give one: --mirror ${item.archive}=URL`);
  const url = `${mirror}/${item.path}`;
  const content = await download(url, item);
  const sha256 = createHash('sha256').update(content).digest('hex');
  if (sha256 !== item.sha256) throw new Error(`${url}: SHA-256 is ${sha256}, images/debian.json has ${item.sha256}`);
  mkdirSync(folder, { recursive: true });
  writeFileSync(`${file}.${process.pid}`, content);
  renameSync(`${file}.${process.pid}`, file);
  return file;
}

async function download(url: string, { name, version, size }: DebianPackage): Promise<Buffer> {
  for (let attempt = 1; ; attempt++) {
    const response = await fetch(url).catch((error: unknown) => (error instanceof Error ? error : new Error(String(error))));
    if (response instanceof Error) {
      if (attempt < ATTEMPTS) continue;
      const { cause } = response;
      throw new Error(`${url}: ${cause instanceof Error ? cause.message : response.message}`);
    }
    if (response.status === 404)
      throw new Error(
        `the mirror no longer has ${name} ${version}: take the newer one with scripts/images --update-debian (for tests: --newest-debian)`,
      );
    if (!response.ok) throw new Error(`${url}: status ${response.status}`);
    const content = Buffer.from(await response.arrayBuffer());
    if (content.length !== size) throw new Error(`${url}: ${content.length} bytes, images/debian.json has ${size}`);
    return content;
  }
}

/** Content that programs do not read: manuals, translations, set-up of services, conversions that Node has of its own. */
const LEFT_OUT = [
  /^usr\/share\/(man|info|locale|lintian|bug|bash-completion|doc-base|menu|apport|gcc|base-files)(\/|$)/,
  // Licences stay: /usr/share/doc/NAME/copyright, and links from one NAME to another.
  /^usr\/share\/doc\/[^/]+\/(?!copyright$)/,
  /^usr\/lib\/[^/]+\/gconv(\/|$)/,
  /^(usr\/)?lib\/systemd(\/|$)/,
  /^usr\/(include|src)(\/|$)/,
  /^etc\/(?!os-release$|debian_version$|protocols$)/,
];
const MERGED = /^(bin|sbin|lib|lib64|lib32|libx32)(?=\/)/;

/**
 * @param deb the package's file
 * @param only the files that are wanted of it, as they lie in an image; all where undefined
 * @returns its files, and what `dpkg` would know of it in the form that scanners read. @throws {Error} where it has none of a wanted name
 */
export function unpack({ name }: DebianPackage, deb: string, only?: readonly string[]): Entry[] {
  const options = { maxBuffer: 256 << 20, stdio: ['ignore', 'pipe', 'pipe'] as ['ignore', 'pipe', 'pipe'] };
  const data = readTar(execFileSync('dpkg-deb', ['--fsys-tarfile', deb], options));
  const control = readTar(execFileSync('dpkg-deb', ['--ctrl-tarfile', deb], options));
  const files = data.filter(({ path, type }) => type !== 'folder' && !LEFT_OUT.some((pattern) => pattern.test(path))).map(asInstalled);
  const missing = only?.filter((wanted) => !files.some(({ path }) => path === wanted)) ?? [];
  if (missing.length > 0) throw new Error(`${name} has no ${missing.join(', ')}`);
  const entries = only ? files.filter(({ path }) => only.includes(path) || path.endsWith('/copyright')) : files;
  for (const [from, to] of [
    ['control', name],
    ['md5sums', `${name}.md5sums`],
  ]) {
    const content = control.find(({ path }) => path === from)?.content;
    if (content) entries.push({ path: `var/lib/dpkg/status.d/${to}`, type: 'file', mode: 0o644, content });
  }
  return entries;
}

/** Merged /usr, and nothing that changes who runs a program. */
const asInstalled = (entry: Entry): Entry => ({ ...entry, path: entry.path.replace(MERGED, 'usr/$1'), mode: entry.mode & 0o777 });

/** What no package brings and every image needs. */
export function base(): Entry[] {
  const file = (path: string, text: string): Entry => ({ path, type: 'file', mode: 0o644, content: Buffer.from(text) });
  const link = (path: string, target: string): Entry => ({ path, type: 'symlink', mode: 0o777, target });
  const folder = (path: string, mode = 0o755): Entry => ({ path, type: 'folder', mode });
  return [
    ...['bin', 'sbin', 'lib', 'lib64'].flatMap((name) => [link(name, `usr/${name}`), folder(`usr/${name}`)]),
    ...['dev', 'proc', 'sys', 'run', 'root', 'var/lib', 'app', 'usr/local/bin'].map((path) =>
      folder(path, path === 'root' ? 0o700 : 0o755),
    ),
    folder('tmp', 0o1777),
    link('var/run', '/run'),
    file('etc/passwd', 'root:x:0:0:root:/root:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n'),
    file('etc/group', 'root:x:0:\nnogroup:x:65534:\n'),
    // Names of the pod's own hosts file first, then DNS.
    file('etc/nsswitch.conf', 'passwd: files\ngroup: files\nhosts: files dns\n'),
  ];
}
