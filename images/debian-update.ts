/**
 * Writes `debian.json` anew: apt itself decides, with a database of its own (an empty machine) and the machine's sources, which packages in
 * which versions the images' lists come to, and has checked Debian's signatures before. Run by hand, the result is committed.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Architecture, Lists } from './components.ts';
import type { DebianPackage } from './debian.ts';

/** @param work a folder for apt's lists. @throws {Error} where apt fails or its sources are of another suite */
export function resolveDebian(
  lists: Lists,
  architectures: readonly Architecture[],
  work: string,
): Partial<Record<Architecture, DebianPackage[]>> {
  const wanted = new Set([...Object.keys(lists.packages), ...lists.components.flatMap(({ packages }) => Object.keys(packages))]);
  const leftOut = new Set(Object.keys(lists.leftOut));
  return Object.fromEntries(
    architectures.map((architecture) => [architecture, resolveFor(architecture, [...wanted], leftOut, join(work, architecture))]),
  );
}

function resolveFor(architecture: Architecture, wanted: readonly string[], leftOut: ReadonlySet<string>, work: string): DebianPackage[] {
  mkdirSync(join(work, 'lists/partial'), { recursive: true });
  mkdirSync(join(work, 'cache/archives/partial'), { recursive: true });
  writeFileSync(join(work, 'status'), '');
  const options = {
    'Dir::State': work,
    'Dir::State::lists': join(work, 'lists'),
    'Dir::State::status': join(work, 'status'),
    'Dir::Cache': join(work, 'cache'),
    'APT::Architecture': architecture,
    'APT::Architectures': architecture,
  };
  const flags = Object.entries(options).flatMap(([key, value]) => ['-o', `${key}=${value}`]);
  const apt = (program: string, ...args: string[]): string =>
    execFileSync(program, [...flags, ...args], { encoding: 'utf8', maxBuffer: 64 << 20, stdio: ['ignore', 'pipe', 'inherit'] });
  apt('apt-get', '-qq', 'update');
  const plan = apt('apt-get', '-qq', '--no-install-recommends', '--simulate', 'install', ...wanted);
  const chosen = [...plan.matchAll(/^Inst (\S+) \((\S+) /gm)].map(([, name = '', version = '']) => ({ name, version }));
  const names = new Set(chosen.map(({ name }) => name));
  const kept = chosen.filter(({ name }) => !leftOut.has(name)).map(({ name, version }) => `${name}=${version}`);
  const stanzas = apt('apt-cache', 'show', ...kept).split(/\n\n+(?=Package: )/);
  const list = stanzas.map((stanza) => locked(stanza, names, leftOut));
  return needed(list, wanted).sort((a, b) => (a.name < b.name ? -1 : 1));
}

function locked(stanza: string, names: ReadonlySet<string>, leftOut: ReadonlySet<string>): DebianPackage {
  const field = (key: string): string => new RegExp(`^${key}: (.*)$`, 'm').exec(stanza)?.[1] ?? '';
  const path = field('Filename');
  const depends = `${field('Pre-Depends')},${field('Depends')}`
    .split(/[,|]/)
    .map((item) => item.trim().split(/[\s:(]/)[0] ?? '')
    .filter((name) => names.has(name) && !leftOut.has(name));
  return {
    name: field('Package'),
    version: field('Version'),
    source: (field('Source') || field('Package')).split(' ')[0] ?? '',
    archive: path.startsWith('pool/updates/') ? 'debian-security' : 'debian',
    path,
    size: Number(field('Size')),
    sha256: field('SHA256'),
    depends: [...new Set(depends)].sort(),
  };
}

/** Without what only packages needed that are left out. */
function needed(list: readonly DebianPackage[], wanted: readonly string[]): DebianPackage[] {
  const reached = new Set<string>();
  const queue = [...wanted];
  for (let name = queue.pop(); name !== undefined; name = queue.pop()) {
    if (reached.has(name)) continue;
    reached.add(name);
    queue.push(...(list.find((item) => item.name === name)?.depends ?? []));
  }
  return list.filter(({ name }) => reached.has(name));
}
