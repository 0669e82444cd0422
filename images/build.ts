/**
 * Puts images together: five layers each (root, node, tools, dependencies, program), of which the first two are the same in all images and the
 * others wherever their content is. Everything comes from the lock files and the source; nothing from the machine.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Image, image } from './archive.ts';
import { compile } from './compile.ts';
import {
  type Architecture,
  type Component,
  compiledPath,
  entrypoint,
  fields,
  type Lists,
  NODE,
  npmCpu,
  PROGRAM_ROOT,
  string,
} from './components.ts';
import { base, type DebianPackage, fetchPackage, select, unpack } from './debian.ts';
import { type Layer, LayerCache } from './layer.ts';
import { filesBelow, installPackages, packageEntries } from './npm.ts';
import { closure, type LockedPackage, reach } from './reach.ts';
import { type Contents, goVersion, sbom } from './sbom.ts';
import type { Entry } from './tar.ts';

export interface BuildOptions {
  /** The checkout or a copy of one of its commits. */
  readonly source: string;
  readonly lists: Lists;
  readonly architecture: Architecture;
  readonly debian: readonly DebianPackage[];
  readonly mirrors: ReadonlyMap<string, string>;
  /** Folder for what was fetched. */
  readonly cache: string;
  /** Folder for layers, which the images refer to. */
  readonly layers: string;
  /** The images' tag; the version of package.json where undefined. */
  readonly tag?: string;
  /** Commit, for the label of that name; left out where undefined, so that equal content has an equal digest. */
  readonly revision?: string;
  readonly onProgress: (text: string) => void;
}

export interface Built {
  readonly component: Component;
  readonly image: Image;
  readonly sbom: (digest: string) => string;
}

/** @throws {Error} that says which input is missing or wrong */
export async function build(components: readonly Component[], options: BuildOptions): Promise<Built[]> {
  const work = mkdtempSync(join(tmpdir(), 'warren-images-'));
  try {
    options.onProgress('compiling');
    compile(work, { source: options.source });
    const shared = await sharedParts(options, work);
    const built: Built[] = [];
    for (const component of components) built.push(await buildOne(component, options, shared));
    return built;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

interface Shared {
  readonly compiled: string;
  readonly lock: unknown;
  readonly version: string;
  readonly installed: string;
  readonly layers: LayerCache;
  readonly node: LockedPackage;
  readonly base: readonly DebianPackage[];
  readonly below: readonly Layer[];
}

async function sharedParts(options: BuildOptions, compiled: string): Promise<Shared> {
  const { source, lists, architecture, debian, mirrors, cache, onProgress } = options;
  const lock: unknown = JSON.parse(readFileSync(join(source, 'package-lock.json'), 'utf8'));
  const version = string(fields(lock, 'package-lock.json').version, 'package-lock.json, version');
  onProgress(`packages of package-lock.json for ${architecture}`);
  const installed = installPackages(source, cache, architecture);
  const layers = new LayerCache(options.layers);
  const [node] = closure(lock, [`node-linux-${npmCpu[architecture]}`], npmCpu[architecture]);
  if (!node) throw new Error(`package-lock.json has no Node for ${architecture}`);
  const packages = select(debian, Object.keys(lists.packages), new Set(Object.keys(lists.leftOut)));
  onProgress('Debian root and Node');
  const root = await layers.layer('root', packages, async () => [...base(), ...(await debianEntries(packages, lists, cache, mirrors))]);
  const runtime = await layers.layer('node', node, () => nodeEntries(join(installed, node.path)));
  return { compiled, lock, version, installed, layers, node, base: packages, below: [root, runtime] };
}

async function debianEntries(
  packages: readonly DebianPackage[],
  { only }: Lists,
  cache: string,
  mirrors: ReadonlyMap<string, string>,
): Promise<Entry[]> {
  const files = await Promise.all(packages.map((item) => fetchPackage(item, join(cache, 'debian'), mirrors)));
  return packages.flatMap((item, index) => unpack(item, files[index] ?? '', only[item.name]));
}

const nodeEntries = (folder: string): Entry[] => [
  { path: NODE.slice(1), type: 'file', mode: 0o755, content: readFileSync(join(folder, 'bin/node')) },
  { path: 'usr/share/doc/node/copyright', type: 'file', mode: 0o644, content: readFileSync(join(folder, 'LICENSE')) },
];

async function buildOne(component: Component, options: BuildOptions, shared: Shared): Promise<Built> {
  const { lists, architecture, debian, mirrors, cache, tag, revision, onProgress } = options;
  const { compiled, lock, version, installed, layers, node, below } = shared;
  onProgress(component.name);
  const reached = reach(
    component.entries.map((entry) => entry.replace(/\.ts$/, '.js')),
    (path) => (existsSync(join(compiled, path)) ? readFileSync(join(compiled, path), 'utf8') : undefined),
  );
  const packages = closure(lock, reached.packages, npmCpu[architecture]);
  const here = new Set(shared.base.map(({ name }) => name));
  const tools = select(debian, Object.keys(component.packages), new Set([...here, ...Object.keys(lists.leftOut)]));
  const own: Layer[] = [];
  if (tools.length > 0 || Object.keys(component.links).length > 0) {
    const make = async (): Promise<Entry[]> => [...links(component), ...(await debianEntries(tools, lists, cache, mirrors))];
    own.push(await layers.layer('tools', [tools, component.links, lists.only], make));
  }
  if (packages.length > 0) own.push(await layers.layer('dependencies', packages, () => packageEntries(installed, packages)));
  const built = Object.entries(component.built).map(([path, script]) => ({
    path,
    content: readFileSync(runBuild(join(options.source, script), architecture)),
  }));
  const program = layers.write('program', [
    ...programEntries(component, reached.modules, compiled, options.source),
    ...built.map(executable),
  ]);
  own.push(program);
  const name = `${lists.registry}/${component.name}`;
  const made = image(`${name}:${tag ?? version}`, { architecture, ...settings(component, version, revision) }, [...below, ...own]);
  const contents: Omit<Contents, 'digest'> = {
    name,
    version: tag ?? version,
    architecture,
    suite: lists.suite,
    debian: [...shared.base, ...tools],
    node,
    packages,
    program: program.digest,
    executables: built.map(({ path, content }) => ({ path, content, goVersion: goVersion(content) })),
  };
  return { component, image: made, sbom: (digest) => sbom({ ...contents, digest }) };
}

function settings(component: Component, version: string, revision: string | undefined) {
  return {
    user: component.user,
    entrypoint: entrypoint(component),
    command: component.command,
    env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin'],
    labels: {
      'org.opencontainers.image.title': component.title,
      'org.opencontainers.image.description': component.description,
      'org.opencontainers.image.version': version,
      ...(revision !== undefined && { 'org.opencontainers.image.revision': revision }),
    },
  };
}

const links = ({ links }: Component): Entry[] =>
  Object.entries(links).map(([path, target]) => ({ path, type: 'symlink', mode: 0o777, target }));

const executable = ({ path, content }: { path: string; content: Buffer }): Entry => ({ path, type: 'file', mode: 0o755, content });

function programEntries(component: Component, modules: readonly string[], compiled: string, source: string): Entry[] {
  const file = (path: string, content: Buffer, mode = 0o644): Entry => ({ path, type: 'file', mode, content });
  const app = PROGRAM_ROOT.slice(1);
  return [
    file(`${app}/package.json`, readFileSync(join(compiled, 'package.json'))),
    ...modules.map((path) => file(`${app}/${path}`, readFileSync(join(compiled, path)))),
    ...component.data.flatMap((path) => filesBelow(source, path)).map((path) => file(`${app}/${path}`, readFileSync(join(source, path)))),
    ...Object.entries(component.scripts).map(([name, argv]) => file(`usr/local/bin/${name}`, Buffer.from(script(component, argv)), 0o755)),
  ];
}

/** @returns the path that it printed */
const runBuild = (program: string, architecture: Architecture): string =>
  execFileSync(program, ['--arch', architecture], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] }).trim();

function script({ nodeFlags }: Component, [program = '', ...args]: readonly string[]): string {
  return `#!/bin/sh\nexec ${[NODE, ...nodeFlags, compiledPath(program), ...args].join(' ')} "$@"\n`;
}
