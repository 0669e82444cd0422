/**
 * What a stage of the gate does, in the process that is its own: check | conformance | cluster-parts FOLDER | files REPORTER TIMEOUT FILE…
 * Started by scripts/test.ts, to which it says what it is at and what came of it (stage.ts).
 */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join, relative } from 'node:path';
import { run } from 'node:test';
import { spec, tap } from 'node:test/reporters';
import fc from 'fast-check';
import { checkGenerated } from './generate.ts';
import { checkImports } from './imports.ts';
import { type Outcome, tell } from './stage.ts';

const root = join(import.meta.dirname, '..');
let good = true;

function came(outcome: Outcome): void {
  if (outcome === 'failed') good = false;
  tell({ outcome });
}

function record(name: string, outcome: Outcome, detail = ''): void {
  came(outcome);
  console.log(`${outcome === 'failed' ? 'not ok' : 'ok'} - ${name}${outcome === 'skipped' ? ' # SKIP' : ''}${detail ? ` ${detail}` : ''}`);
}

function command(name: string, argv: readonly string[]): void {
  const [program = '', ...args] = argv;
  tell({ begins: name });
  const { status, stdout, stderr } = spawnSync(program, args, { cwd: root, encoding: 'utf8', maxBuffer: 64 << 20 });
  tell({ ends: name });
  record(name, status === 0 ? 'passed' : 'failed');
  if (status !== 0) console.log(`${stdout}${stderr}`);
}

function problems(name: string, find: () => readonly string[]): void {
  tell({ begins: name });
  const found = find();
  tell({ ends: name });
  record(name, found.length === 0 ? 'passed' : 'failed');
  for (const problem of found) console.log(`  ${problem}`);
}

function check(): void {
  command('lint and format', [join(root, 'node_modules/.bin/biome'), 'check', '--error-on-warnings', '.']);
  // What it found out last time holds for files with the same content: kept where a fresh checkout has nothing.
  const known = ['--incremental', '--tsBuildInfoFile', join(root, 'node_modules/.cache/types.tsbuildinfo')];
  command('types', [join(root, 'node_modules/.bin/tsc'), '-p', '.', ...known]);
  goVet();
  problems('dependency rules', () => checkImports(root));
  problems('generated files', () => checkGenerated(root));
}

/** The CNI plugin's executable is the one thing that is not TypeScript. */
function goVet(): void {
  const name = 'Go: format and vet';
  if (spawnSync('go', ['version']).status !== 0) record(name, 'skipped', 'no Go on this machine');
  else command(name, ['sh', '-c', 'cd cni/plugin/executable && test -z "$(gofmt -l .)" && GOFLAGS=-mod=mod GOWORK=off go vet ./...']);
}

function conformance(): void {
  const cases = join(root, '../shared/conformance');
  if (!existsSync(cases)) record('conformance', 'skipped', 'the folder of cases is not there');
  else command('conformance', [process.execPath, join(root, 'test/conformance/main.ts'), '--cases', cases, '--brief']);
}

/** What clusters are made of takes minutes to build the first time, more than a test may take; the images are the same for all tests. */
async function clusterParts(folder: string): Promise<void> {
  const name = 'what clusters are made of';
  const { withoutCluster } = await import('../test/support/cluster.ts');
  if (withoutCluster !== undefined) return record(name, 'skipped', withoutCluster);
  const { build } = await import('../test/cluster/build.ts');
  const { buildBundle, SHARED } = await import('../test/support/image-bundle.ts');
  const say = (text: string): void => console.log(`# ${text}`);
  tell({ begins: 'the programs of Kubernetes' });
  await build(say);
  tell({ ends: 'the programs of Kubernetes' });
  tell({ begins: 'the images' });
  if (process.env[SHARED] === undefined) await buildBundle(folder, [], say);
  tell({ ends: 'the images' });
  record(name, 'passed');
}

/** All in this process; a test without a limit of its own may take `timeoutMs`. */
async function runFiles(reporter: string, timeoutMs: number, files: readonly string[]): Promise<void> {
  const stream = run({ cwd: root, files: files.map((file) => join(root, file)), isolation: 'none', timeout: timeoutMs });
  let loads = '';
  const nameOf = ({ file, name }: { readonly file?: string | undefined; readonly name: string }): string =>
    file === undefined ? name : `${relative(root, file)}: ${name}`;
  const count = (type: string | undefined, outcome: Outcome): void => {
    if (type !== 'suite') came(outcome);
  };
  // Listeners are called at once, before the test is; what reporters get comes later.
  stream.on('test:enqueue', ({ file }) => {
    if (file === undefined || file === loads) return;
    loads = file;
    tell({ loads: relative(root, file) });
  });
  stream.on('test:dequeue', (test) => tell({ begins: nameOf(test) }));
  stream.on('test:complete', (test) => tell({ ends: nameOf(test) }));
  stream.on('test:pass', ({ skip, details }) => count(details.type, skip === undefined || skip === false ? 'passed' : 'skipped'));
  stream.on('test:fail', ({ details }) => count(details.type, 'failed'));
  const report = reporter === 'spec' ? stream.compose(new spec()) : stream.compose(tap);
  for await (const chunk of report) process.stdout.write(chunk);
}

const [what, ...args] = process.argv.slice(2);
// kubectl is started by the hundred and ends before what it would collect matters: a quarter of its processor time.
process.env.GOGC ??= '400';
// A gate gives the same answer twice; by hand, properties are tried on new values each time.
if (process.env.CI) fc.configureGlobal({ seed: 20_261_121 });
if (what === 'check') check();
else if (what === 'conformance') conformance();
else if (what === 'cluster-parts') await clusterParts(args[0] ?? '');
else if (what === 'files') await runFiles(args[0] ?? '', Number(args[1]), args.slice(2));
else throw new Error(`${what} is no stage`);
process.exitCode = good ? 0 : 1;
// A file that has the process to itself must come to its end by itself: so it is seen when it leaves something open.
if (what !== 'files' || args.length > 3) process.exit();
