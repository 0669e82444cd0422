/**
 * Who may import whom (ARCHITECTURE.md): components never import each other, `common/` imports only tiers below, decision code does no I/O,
 * nobody imports tests, and there are no cycles, type imports included. Run by scripts/test.
 */
import { globSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';

const COMPONENTS = ['ztunnel', 'waypoint', 'istiod-lite', 'cni', 'meshctl', 'playground'];
const TIERS: readonly (readonly string[])[] = [
  ['base'],
  ['codec'],
  ['decision', 'linux', 'tls'],
  ['state', 'hbone'],
  ['http'],
  ['client'],
  ['certificates', 'server'],
];
const OUTSIDE = ['test', 'bench', 'scripts', 'images'];
/** Folders that do no I/O and read no clock: what `meshctl explain` runs as well. */
const PURE = ['common/decision/', 'istiod-lite/model/', 'istiod-lite/analysis/'];
/** What of a component another one may use: pure functions, so that an analysis on a laptop says what admission says. */
const SHARED: Readonly<Record<string, readonly string[]>> = { 'meshctl/analyze/': ['istiod-lite/analysis/', 'istiod-lite/model/'] };
const IMPURE = /^node:(?!crypto$|buffer$|net$|util$|assert)/;
const HEAVY = '@kubernetes/client-node';
/** An import of these loads much that nobody uses; what stands for each says why. */
const INSTEAD: Readonly<Record<string, string>> = { 'node:http': 'common/base/node-http.ts' };

interface Edge {
  readonly from: string;
  readonly to: string;
}

/** @returns one line for each broken rule */
export function checkImports(root: string): string[] {
  const files = [...COMPONENTS, 'common', ...OUTSIDE].flatMap((folder) => globSync(`${folder}/**/*.ts`, { cwd: root }));
  const problems: string[] = [];
  const edges: Edge[] = [];
  for (const file of files) {
    const source = readFileSync(join(root, file), 'utf8');
    for (const [target, instead] of Object.entries(INSTEAD))
      if (file !== instead && !OUTSIDE.includes(file.split('/')[0] ?? '') && importsValueOf(source, target))
        problems.push(`${file} imports ${target}: take ${instead}`);
    for (const target of importsOf(source)) {
      if (target.startsWith('.')) {
        const to = normalize(join(dirname(file), target));
        edges.push({ from: file, to });
        const problem = forbidden(file, to);
        if (problem) problems.push(`${file} imports ${to}: ${problem}`);
      } else if (PURE.some((folder) => file.startsWith(folder)) && IMPURE.test(target)) {
        problems.push(`${file} imports ${target}: decision code does no I/O`);
      }
    }
  }
  problems.push(...heavyInDataPlane(root, edges), ...cycles(edges));
  return problems;
}

function importsOf(source: string): string[] {
  const found = [
    ...source.matchAll(
      /(?:^|\n)\s*(?:import|export)\s[^'"`;]*?from\s*['"]([^'"]+)['"]|import\(\s*['"]([^'"]+)['"]\s*\)|(?:^|\n)\s*import\s*['"]([^'"]+)['"]/g,
    ),
  ];
  return found.map(([, from, dynamic, bare]) => from ?? dynamic ?? bare ?? '');
}

/** `import type` costs nothing. */
const importsValueOf = (source: string, target: string): boolean =>
  new RegExp(`(?:^|\\n)\\s*import\\s(?!type\\s)[^'"\`;]*?from\\s*['"]${target}['"]|import\\(\\s*['"]${target}['"]`).test(source);

function forbidden(from: string, to: string): string | undefined {
  const [fromTop = '', fromSub = ''] = from.split('/');
  const [toTop = '', toSub = ''] = to.split('/');
  if (OUTSIDE.includes(fromTop)) return undefined;
  if (OUTSIDE.includes(toTop)) return 'nothing imports tests, benches or scripts';
  if (fromTop === 'common') {
    if (toTop !== 'common') return 'common imports no component';
    if (tier(toSub) > tier(fromSub)) return `tier ${fromSub} is below tier ${toSub}`;
    if (tier(toSub) === tier(fromSub) && toSub !== fromSub) return `${fromSub} and ${toSub} are beside each other`;
    return undefined;
  }
  if (Object.entries(SHARED).some(([folder, allowed]) => from.startsWith(folder) && allowed.some((pure) => to.startsWith(pure))))
    return undefined;
  return toTop === fromTop || toTop === 'common' ? undefined : 'components meet on the wire, not by import';
}

const tier = (folder: string): number => TIERS.findIndex((names) => names.includes(folder));

/** 60 MB that a proxy must not carry (decision 6). */
function heavyInDataPlane(root: string, edges: readonly Edge[]): string[] {
  const targets = adjacency(edges);
  return ['ztunnel/main.ts', 'waypoint/main.ts'].flatMap((entry) => {
    const seen = new Set<string>();
    const queue = [entry];
    for (let file = queue.pop(); file !== undefined; file = queue.pop()) {
      if (seen.has(file)) continue;
      seen.add(file);
      queue.push(...(targets.get(file) ?? []));
    }
    return [...seen]
      .filter((file) => importsOf(read(join(root, file))).includes(HEAVY))
      .map((file) => `${entry} reaches ${HEAVY} through ${file}`);
  });
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    // An entry that does not exist yet reaches nothing.
    return '';
  }
}

function adjacency(edges: readonly Edge[]): Map<string, string[]> {
  const targets = new Map<string, string[]>();
  for (const { from, to } of edges) targets.set(from, [...(targets.get(from) ?? []), to]);
  return targets;
}

function cycles(edges: readonly Edge[]): string[] {
  const targets = adjacency(edges);
  const state = new Map<string, 'open' | 'done'>();
  const found: string[] = [];
  const visit = (file: string, path: readonly string[]): void => {
    if (state.get(file) === 'done') return;
    if (state.get(file) === 'open') {
      found.push(`cycle: ${[...path.slice(path.indexOf(file)), file].join(' → ')}`);
      return;
    }
    state.set(file, 'open');
    for (const next of targets.get(file) ?? []) visit(next, [...path, file]);
    state.set(file, 'done');
  };
  for (const file of targets.keys()) visit(file, []);
  return found;
}
