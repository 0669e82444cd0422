/**
 * The one gate: lint, types, dependency rules, generated files and the conformance suites beside the unit tests, then what needs a network of
 * its own: the mesh and cluster tests, a few at a time. Those that mostly wait begin with the unit tests.
 * Output is TAP where it is no terminal; the last line counts everything.
 */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, globSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { run } from 'node:test';
import { spec, tap } from 'node:test/reporters';
import fc from 'fast-check';
import { checkGenerated } from './generate.ts';
import { checkImports } from './imports.ts';

const root = join(import.meta.dirname, '..');
const tally = { passed: 0, failed: 0, skipped: 0 };

type Outcome = 'passed' | 'failed' | 'skipped';

function record(name: string, outcome: Outcome, detail = ''): void {
  tally[outcome]++;
  const mark = outcome === 'failed' ? 'not ok' : 'ok';
  console.log(`${mark} - ${name}${outcome === 'skipped' ? ' # SKIP' : ''}${detail ? ` ${detail}` : ''}`);
}

function command(name: string, argv: readonly string[]): void {
  const [program = '', ...args] = argv;
  const { status, stdout, stderr } = spawnSync(program, args, { cwd: root, encoding: 'utf8', maxBuffer: 64 << 20 });
  record(name, status === 0 ? 'passed' : 'failed');
  if (status !== 0) console.log(`${stdout}${stderr}`);
}

function problems(name: string, found: readonly string[]): void {
  record(name, found.length === 0 ? 'passed' : 'failed');
  for (const problem of found) console.log(`  ${problem}`);
}

function check(): void {
  command('lint and format', [join(root, 'node_modules/.bin/biome'), 'check', '--error-on-warnings', '.']);
  command('types', [join(root, 'node_modules/.bin/tsc'), '-p', '.']);
  goVet();
  problems('dependency rules', checkImports(root));
  problems('generated files', checkGenerated(root));
}

/** The CNI plugin's executable is the one thing that is not TypeScript. */
function goVet(): void {
  const name = 'Go: format and vet';
  if (spawnSync('go', ['version']).status !== 0) record(name, 'skipped', 'no Go on this machine');
  else command(name, ['sh', '-c', 'cd cni/plugin/executable && test -z "$(gofmt -l .)" && GOFLAGS=-mod=mod GOWORK=off go vet ./...']);
}

async function tests(kind: string, files: readonly string[]): Promise<void> {
  if (files.some(isOnKubernetes)) await buildCluster();
  if (files.length === 0) return record(kind, 'skipped', 'no test file');
  addUp(await runFiles(files, { isolated: kind !== 'unit' }));
}

/** The mesh and cluster tests, a few at a time. */
async function sideBySide(files: readonly string[]): Promise<void> {
  if (files.some(isOnKubernetes)) await buildCluster();
  const results = await runFiles(files, { isolated: true, concurrency: SIDE_BY_SIDE });
  // Real kernels, clocks and programs: what failed beside another file, on a machine whose load is not ours, is tried once more alone. That it was
  // necessary is said, and a file that fails again has failed.
  const failed = [...results].filter(([file, { failed: count }]) => file !== '' && count > 0).map(([file]) => file);
  if (failed.length > 0 && failed.length <= MOST_SECOND_TRIES) {
    for (const [file, result] of await runFiles(failed, { isolated: true })) {
      console.log(`# ${file}: failed beside another file, ${result.failed === 0 ? 'passed' : 'failed'} at its second try`);
      results.set(file, result);
    }
  }
  // The gate's time is limited: whoever adds to it sees where it goes.
  const slow = [...results].filter(([, { ms }]) => ms >= SLOW_MS).sort(([, a], [, b]) => b.ms - a.ms);
  for (const [file, { ms }] of slow) console.log(`# ${Math.round(ms / 1000)} s ${file}`);
  addUp(results);
}

function addUp(results: ReadonlyMap<string, Tally>): void {
  for (const result of results.values()) for (const outcome of OUTCOMES) tally[outcome] += result[outcome];
}

const isOnKubernetes = (file: string): boolean => file.startsWith('test/cluster/');

type Tally = Record<Outcome, number> & { ms: number };
const OUTCOMES = ['passed', 'failed', 'skipped'] as const;
const SIDE_BY_SIDE = 4;
/** What takes minutes begins first, so that nothing runs alone at the end. */
const LONGEST = [
  'cluster/story',
  'mesh/ca-rotation',
  'cluster/plugin',
  'mesh/istiod-replicas',
  'cluster/install-ways',
  'mesh/explain',
  'mesh/cli',
];
/** Mostly they wait, for minutes: beside the unit tests they cost little time. The stage `waiting`. */
const MOSTLY_WAITING = ['cluster/story', 'mesh/ca-rotation'];
const SLOW_MS = 30_000;
/** More than this is no accident. */
const MOST_SECOND_TRIES = 3;

interface Counted {
  readonly file?: string | undefined;
  readonly nesting: number;
  readonly details: { readonly duration_ms: number };
}

/** @returns what came of each file, by its path in the checkout */
async function runFiles(
  files: readonly string[],
  { isolated, concurrency }: { readonly isolated: boolean; readonly concurrency?: number },
): Promise<Map<string, Tally>> {
  const cases = process.env.EXPLAIN_CASES;
  const timeoutMs = files.some(isOnKubernetes) ? 900_000 : cases === undefined ? 300_000 : Number(cases) * 20_000;
  const stream = run({
    cwd: root,
    files: files.map((file) => join(root, file)),
    // Unit tests share one process, since they touch nothing outside; the others may move their process about, so each file has its own.
    isolation: isolated ? 'process' : 'none',
    // Playgrounds and clusters wait more than they work.
    concurrency: concurrency ?? false,
    timeout: timeoutMs,
    execArgv: ['--disable-warning=ExperimentalWarning'],
  });
  const results = new Map<string, Tally>();
  const count = ({ file, nesting, details }: Counted, outcome: Outcome): void => {
    const name = file === undefined ? '' : relative(root, file);
    const tallied = results.get(name) ?? { passed: 0, failed: 0, skipped: 0, ms: 0 };
    tallied[outcome]++;
    if (nesting === 0) tallied.ms += details.duration_ms;
    results.set(name, tallied);
  };
  stream.on('test:pass', (test) => {
    if (test.details.type !== 'suite') count(test, test.skip === undefined || test.skip === false ? 'passed' : 'skipped');
  });
  stream.on('test:fail', (test) => {
    if (test.details.type !== 'suite') count(test, 'failed');
  });
  const report = process.stdout.isTTY ? stream.compose(new spec()) : stream.compose(tap);
  for await (const chunk of report) process.stdout.write(chunk);
  return results;
}

/** What clusters are made of takes minutes to build the first time, more than a test may take; the images are the same for all tests. */
const buildCluster = (): Promise<void> => {
  built ??= buildClusterOnce();
  return built;
};

let built: Promise<void> | undefined;

async function buildClusterOnce(): Promise<void> {
  const { withoutCluster } = await import('../test/support/cluster.ts');
  const { build } = await import('../test/cluster/build.ts');
  const { buildBundle, SHARED } = await import('../test/support/image-bundle.ts');
  if (withoutCluster !== undefined) return;
  const tell = (text: string): void => console.log(`# ${text}`);
  await build(tell);
  if (process.env[SHARED] !== undefined) return;
  const folder = mkdtempSync(join(tmpdir(), 'warren-test-images-'));
  process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));
  process.env[SHARED] = await buildBundle(folder, [], tell);
}

const files = (kind: string): string[] => globSync(`test/${kind}/**/*.test.ts`, { cwd: root }).sort();

function longestFirst(files: readonly string[]): string[] {
  const rank = (file: string): number => {
    const at = LONGEST.findIndex((name) => file === `test/${name}.test.ts`);
    return at < 0 ? LONGEST.length : at;
  };
  return [...files].sort((a, b) => rank(a) - rank(b));
}

const isMostlyWaiting = (file: string): boolean => MOSTLY_WAITING.some((name) => file === `test/${name}.test.ts`);

/** Stages in processes of their own, one after the other, beside what this one does: the machine has more than one processor. */
async function besides(...stages: readonly string[]): Promise<void> {
  for (const stage of stages) {
    const child = spawn(process.execPath, [join(root, 'scripts/test.ts'), stage], { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] });
    const output: Buffer[] = [];
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => output.push(chunk));
    await once(child, 'close');
    const text = Buffer.concat(output).toString().trimEnd();
    const [last = '', passed, failed, skipped] = /(\d+) passed, (\d+) failed, (\d+) skipped$/.exec(text) ?? [];
    process.stdout.write(`${text.slice(0, text.length - last.length)}`);
    if (last === '') record(stage, 'failed', 'did not come to its end');
    tally.passed += Number(passed ?? 0);
    tally.failed += Number(failed ?? 0);
    tally.skipped += Number(skipped ?? 0);
  }
}

function conformance(): void {
  const cases = join(root, '../shared/conformance');
  if (!existsSync(cases)) record('conformance', 'skipped', 'the folder of cases is not there');
  else command('conformance', [process.execPath, join(root, 'test/conformance/main.ts'), '--cases', cases, '--brief']);
}

async function main(what: string): Promise<void> {
  const all = what === 'all';
  const known = new Set(['all', 'check', 'unit', 'mesh', 'conformance', 'cluster', 'interop', 'waiting']);
  if (!known.has(what)) {
    const named = globSync(`test/*/**/*${what}*.test.ts`, { cwd: root }).sort();
    // In CI the random configurations are few; whoever asks for them gets a thousand.
    if (what === 'explain') process.env.EXPLAIN_CASES ??= '1000';
    if (named.length === 0) {
      record(what, 'failed', `no test file has this in its name, and it is none of ${[...known].join(', ')}`);
      return;
    }
    await tests('named', named);
    return;
  }
  if (all) {
    const waiting = buildCluster().then(() => besides('waiting'));
    await Promise.all([besides('check', 'conformance'), tests('unit', files('unit'))]);
    await sideBySide(longestFirst([...files('mesh'), ...files('cluster')]).filter((file) => !isMostlyWaiting(file)));
    await waiting;
  }
  if (what === 'check') check();
  if (what === 'unit') await tests('unit', files('unit'));
  if (what === 'conformance') conformance();
  if (what === 'waiting') await sideBySide([...files('mesh'), ...files('cluster')].filter(isMostlyWaiting));
  if (what === 'mesh' || what === 'cluster') await sideBySide(longestFirst(files(what)));
  if (what === 'interop') await tests('interop', files('interop'));
}

// A gate gives the same answer twice; by hand, properties are tried on new values each time.
if (process.env.CI) fc.configureGlobal({ seed: 20_261_121 });
await main(process.argv[2] ?? 'all');
console.log(`${tally.passed} passed, ${tally.failed} failed, ${tally.skipped} skipped`);
process.exit(tally.failed > 0 ? 1 : 0);
