/**
 * The one gate: lint, types, dependency rules, generated files, the conformance suites, the unit tests in one process, and what needs a network of its
 * own, the mesh and cluster tests, each file in a process. Every one of them is a stage with a deadline (stage.ts), a few at a time, and this process
 * does nothing but start and count them: no test can keep the gate from its end.
 * Output is TAP where it is no terminal; the last line counts everything.
 */
import { existsSync, globSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readTimes, stolenShare } from '../bench/support/stolen.ts';
import { SHARED } from '../test/support/image-bundle.ts';
import { removeLeftovers } from '../test/support/leftovers.ts';
import { OUTCOMES, type Outcome, runStage, type Stage, type StageResult, type Tally } from './stage.ts';

const root = join(import.meta.dirname, '..');
const tally: Tally = { passed: 0, failed: 0, skipped: 0 };

/**
 * Several times what each takes on two processors that others use as well. Only the parts of clusters may take long rightly: where Go has never built
 * Kubernetes on the machine, ten minutes, beside all that runs meanwhile. So the whole gate has its minutes from when they are there: at most 47, and
 * .ci/run adds what it takes to install packages.
 */
const MINUTE_MS = 60_000;
const DEADLINES = { check: 8, conformance: 8, unit: 10, parts: 22, mesh: 7, cluster: 15, all: 25 } as const;
/** More would not be faster on two processors, and what runs would miss time limits that are meant for something else. */
const SIDE_BY_SIDE = 4;
/** What takes minutes begins first, so that nothing runs alone at the end. */
const LONGEST = ['cluster/story', 'mesh/ca-rotation', 'cluster/plugin', 'mesh/istiod-replicas', 'mesh/explain', 'mesh/cli', 'mesh/capture'];
const SLOW_MS = 30_000;
/** More than this is no accident; but where the host of the machine took it away for seconds, all that were running then may have failed by that. */
const MOST_SECOND_TRIES = { undisturbed: 3, disturbed: 8 } as const;
const DISTURBED_FROM = 0.05;
const started = readTimes();

interface Planned extends Stage {
  readonly isFile?: boolean;
  readonly onKubernetes?: boolean;
  /** Its output as it comes, rather than whole at its end. */
  readonly streamed?: boolean;
}

function record(name: string, outcome: Outcome, detail = ''): void {
  tally[outcome]++;
  console.log(`${outcome === 'failed' ? 'not ok' : 'ok'} - ${name}${detail ? ` ${detail}` : ''}`);
}

const stage = (name: string, minutes: number, ...args: readonly string[]): Planned => ({
  name,
  argv: [process.execPath, '--disable-warning=ExperimentalWarning', join(root, 'scripts/stage-main.ts'), ...args],
  deadlineMs: minutes * MINUTE_MS,
});

function filesStage(name: string, minutes: number, files: readonly string[]): Planned {
  // A test that waits in vain fails before its stage does.
  const timeoutMs = Math.round(minutes * MINUTE_MS * 0.9);
  return stage(name, minutes, 'files', process.stdout.isTTY ? 'spec' : 'tap', String(timeoutMs), ...files);
}

const files = (kind: string): string[] => globSync(`test/${kind}/**/*.test.ts`, { cwd: root }).sort();

const unit = (): Planned => ({ ...filesStage('unit', DEADLINES.unit, files('unit')), streamed: true });

function fileStage(file: string): Planned {
  const cases = process.env.EXPLAIN_CASES;
  const onKubernetes = file.startsWith('test/cluster/');
  const minutes =
    onKubernetes || file.startsWith('test/interop/') ? DEADLINES.cluster : cases === undefined ? DEADLINES.mesh : Number(cases) / 3;
  return { ...filesStage(file, minutes, [file]), isFile: true, onKubernetes };
}

function longestFirst(files: readonly string[]): string[] {
  const rank = (file: string): number => {
    const at = LONGEST.findIndex((name) => file === `test/${name}.test.ts`);
    return at < 0 ? LONGEST.length : at;
  };
  return [...files].sort((a, b) => rank(a) - rank(b));
}

/** Ends all stages; its reason says why. */
const over = new AbortController();

/** Stages begin in this order, some at a time; those on Kubernetes once there is what it is made of. */
async function runStages(planned: readonly Planned[], sideBySide: number): Promise<void> {
  const results = new Map<Planned, StageResult>();
  const queue = [...planned];
  const places = new Places(sideBySide);
  if (planned.some(({ onKubernetes }) => onKubernetes)) places.building = buildParts().then((built) => places.built(built));
  while (!over.signal.aborted) {
    const next = queue.find((each) => places.hasOneFor(each));
    if (next) {
      queue.splice(queue.indexOf(next), 1);
      places.take(next, runOne(next, results));
    } else if (!(await places.change())) break;
  }
  await places.allFree();
  if (queue.length > 0) record('not begun', 'failed', queue.map(({ name }) => name).join(', '));
  if (sideBySide > 1) await tryAgain(results);
  // The gate's time is limited: whoever adds to it sees where it goes.
  const slow = [...results].filter(([, { ms }]) => ms >= SLOW_MS).sort(([, a], [, b]) => b.ms - a.ms);
  for (const [{ name }, { ms }] of slow) console.log(`# ${Math.round(ms / 1000)} s ${name}`);
  for (const result of results.values()) for (const outcome of OUTCOMES) tally[outcome] += result[outcome];
}

/** Who runs now, and who may begin. */
class Places {
  readonly #most: number;
  readonly #running = new Map<Planned, Promise<unknown>>();
  #onKubernetes = false;
  /** While it goes on, files wait: a first build of Kubernetes, which yields to everything, would take as long as all of them. */
  building: Promise<void> | undefined;

  constructor(most: number) {
    this.#most = most;
  }

  built(successfully: boolean): void {
    this.building = undefined;
    this.#onKubernetes = successfully;
  }

  hasOneFor({ isFile, onKubernetes }: Planned): boolean {
    if (isFile && this.building) return false;
    if (onKubernetes && !this.#onKubernetes) return false;
    return this.#running.size < this.#most;
  }

  take(planned: Planned, run: Promise<void>): void {
    this.#running.set(
      planned,
      run.finally(() => this.#running.delete(planned)),
    );
  }

  /** @returns false where nothing is left that could change */
  async change(): Promise<boolean> {
    const awaited = this.#awaited();
    if (awaited.length === 0) return false;
    await Promise.race(awaited);
    return true;
  }

  async allFree(): Promise<void> {
    await Promise.all(this.#awaited());
  }

  #awaited(): Promise<unknown>[] {
    return [...this.#running.values(), ...(this.building ? [this.building] : [])];
  }
}

async function runOne(planned: Planned, results: Map<Planned, StageResult>): Promise<void> {
  const { name, streamed = false } = planned;
  const result = await runStage(planned, { signal: over.signal, streamed });
  results.set(planned, result);
  process.stdout.write(`# ${name}: ${Math.round(result.ms / 1000)} s\n${result.output}`);
  if (result.problem === undefined) return;
  console.log(`not ok - ${name} ${result.problem}`);
  // Killed programs cannot tidy up.
  removeLeftovers();
}

/**
 * Real kernels, clocks and programs: what failed beside another file, on a machine whose load is not ours, is tried once more alone. That it was
 * necessary is said, and a file that fails again has failed.
 */
async function tryAgain(results: Map<Planned, StageResult>): Promise<void> {
  const failed = [...results].filter(([{ isFile }, result]) => isFile && result.failed > 0).map(([planned]) => planned);
  // What was cut off is likely to hang again, and there is no time for it to.
  if (failed.some((planned) => (results.get(planned)?.ms ?? 0) >= planned.deadlineMs)) return;
  const stolen = stolenShare(started, readTimes());
  if (failed.length > 0) console.log(`# the host took ${(100 * stolen).toFixed(1)} % of this machine's processors for others`);
  if (failed.length > MOST_SECOND_TRIES[stolen < DISTURBED_FROM ? 'undisturbed' : 'disturbed']) return;
  for (const planned of failed) {
    if (over.signal.aborted || performance.now() + (results.get(planned)?.ms ?? 0) > wholeEndsMs) return;
    await runOne(planned, results);
    const outcome = results.get(planned)?.failed === 0 ? 'passed' : 'failed';
    console.log(`# ${planned.name}: failed beside another file, ${outcome} at its second try`);
  }
}

/** @returns whether there is now what clusters are made of */
async function buildParts(): Promise<boolean> {
  const folder = mkdtempSync(join(tmpdir(), 'warren-test-images-'));
  process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
  const results = new Map<Planned, StageResult>();
  const planned = stage('cluster-parts', DEADLINES.parts, 'cluster-parts', folder);
  await runOne(planned, results);
  const result = results.get(planned);
  for (const outcome of OUTCOMES) tally[outcome] += result?.[outcome] ?? 0;
  if (wholeTimer) limitWhole(DEADLINES.all);
  const archive = join(folder, 'images.tar');
  if (existsSync(archive)) process.env[SHARED] = archive;
  return result?.failed === 0;
}

async function main(what: string): Promise<void> {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => over.abort(`was ended by ${signal}`));
  const streamed = true;
  if (what === 'all') return await runStages(all(), SIDE_BY_SIDE);
  if (what === 'check' || what === 'conformance') return await runStages([{ ...stage(what, DEADLINES[what], what), streamed }], 1);
  if (what === 'unit') return await runStages([unit()], 1);
  if (what === 'mesh' || what === 'cluster') return await runStages(longestFirst(files(what)).map(fileStage), SIDE_BY_SIDE);
  const named = what === 'interop' ? files(what) : globSync(`test/*/**/*${what}*.test.ts`, { cwd: root }).sort();
  // In CI the random configurations are few; whoever asks for them gets a thousand.
  if (what === 'explain') process.env.EXPLAIN_CASES ??= '1000';
  if (named.length > 0)
    return await runStages(
      named.map((file) => ({ ...fileStage(file), streamed })),
      1,
    );
  record(what, 'failed', 'no test file has this in its name, and it is none of all, check, unit, mesh, conformance, cluster, interop');
}

function all(): Planned[] {
  const needing = longestFirst([...files('mesh'), ...files('cluster')]).map(fileStage);
  limitWhole(DEADLINES.parts + DEADLINES.all);
  return [unit(), stage('check', DEADLINES.check, 'check'), stage('conformance', DEADLINES.conformance, 'conformance'), ...needing];
}

let wholeTimer: NodeJS.Timeout | undefined;
let wholeEndsMs = Infinity;

function limitWhole(minutes: number): void {
  wholeEndsMs = performance.now() + minutes * MINUTE_MS;
  clearTimeout(wholeTimer);
  wholeTimer = setTimeout(() => over.abort(`was cut off: the whole gate has ${minutes} minutes`), minutes * MINUTE_MS).unref();
}

await main(process.argv[2] ?? 'all');
console.log(`${tally.passed} passed, ${tally.failed} failed, ${tally.skipped} skipped`);
process.exit(tally.failed > 0 ? 1 : 0);
