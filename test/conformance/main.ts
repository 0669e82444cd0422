/**
 * Runs the cases that other projects wrote (conformance/) against our code and says which of them hold.
 *   --cases DIR    another folder of the same layout
 *   --suite NAME   only this suite: a folder (`ztunnel/derived`, `recorded`) or a file of suites/ (`rbac`)
 *   --json FILE    one array with one row for each case: {suite, case, verdict, reason}
 *   --kubernetes   what needs a cluster runs on real Kubernetes (scripts/cluster) with the mesh installed from its images, not in a playground;
 *                  with `--suite gateway-api-mesh`, for instance
 *   --brief        without the Gateway API's cases for gateways, which take a minute in the playground
 * Exit status 1 when a case fails or a suite breaks, 2 for bad arguments.
 */
import { readdirSync, writeFileSync } from 'node:fs';
import { isAbsolute, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { Cases, type Row, type Suite } from './suite.ts';

const projectRoot = fileURLToPath(new URL('../../', import.meta.url));
const suitesFolder = fileURLToPath(new URL('./suites/', import.meta.url));
const defaultCases = resolve(projectRoot, '../shared/conformance');

interface SuiteFile {
  readonly file: string;
  readonly suite: Suite;
}

/** One file that cannot be loaded is one failure; the others still run. */
async function loadSuites(): Promise<{ suites: SuiteFile[]; broken: Row[] }> {
  const suites: SuiteFile[] = [];
  const broken: Row[] = [];
  const files = readdirSync(suitesFolder).filter((name) => name.endsWith('.ts'));
  for (const file of files.map((name) => name.slice(0, -3)).sort()) {
    try {
      const module: { suite?: Suite } = await import(pathToFileURL(resolve(suitesFolder, `${file}.ts`)).href);
      if (!module.suite) throw new Error('it exports no suite');
      suites.push({ file, suite: module.suite });
    } catch (error) {
      broken.push({ suite: file, case: 'load', verdict: 'fail', reason: describe(error) });
    }
  }
  return { suites, broken };
}

const describe = (error: unknown): string => (error instanceof Error ? (error.stack ?? error.message) : String(error));

const selected = (name: string, { file, suite }: SuiteFile): boolean =>
  name === file || name === suite.suite || suite.suite.startsWith(`${name}/`) || name === `${suite.suite}/${file}`;

async function runSuite({ file, suite }: SuiteFile, cases: Cases): Promise<Row[]> {
  if (!cases.has(suite.suite)) {
    console.log(`# skip ${suite.suite} (${file}): ${cases.root} has no such folder`);
    return [];
  }
  const rows: Row[] = [];
  try {
    for await (const row of suite.run(cases)) rows.push({ suite: suite.suite, ...row });
  } catch (error) {
    // A suite that breaks half-way has failed, whatever it had counted so far; the other suites still run.
    rows.push({ suite: suite.suite, case: file, verdict: 'fail', reason: `the suite broke: ${describe(error)}` });
  }
  return rows;
}

const count = (rows: readonly Row[], verdict: Row['verdict']): number => rows.filter((row) => row.verdict === verdict).length;

const summary = (rows: readonly Row[]): string =>
  `${count(rows, 'pass')} passed, ${count(rows, 'fail')} failed, ${count(rows, 'skip')} skipped`;

function report(rows: readonly Row[]): void {
  for (const row of rows) {
    if (row.verdict === 'fail') console.log(`not ok ${row.suite} ${row.case}: ${row.reason}`);
    if (row.verdict === 'skip') console.log(`# skip ${row.suite} ${row.case}: ${row.reason}`);
  }
  for (const suite of new Set(rows.map((row) => row.suite))) {
    const own = rows.filter((row) => row.suite === suite);
    const differing = own.filter((row) => row.verdict === 'pass' && row.reason.startsWith('differs:')).length;
    console.log(`${suite}: ${summary(own)}${differing > 0 ? ` (${differing} differ on purpose)` : ''}`);
  }
  console.log(summary(rows));
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      cases: { type: 'string' },
      suite: { type: 'string' },
      json: { type: 'string' },
      kubernetes: { type: 'boolean', default: false },
      brief: { type: 'boolean', default: false },
    },
  });
  const given = values.cases ?? defaultCases;
  const cases = new Cases(isAbsolute(given) ? given : resolve(process.cwd(), given), defaultCases, values);
  const { suite: name } = values;
  const loaded = await loadSuites();
  const suites = loaded.suites.filter((entry) => name === undefined || selected(name, entry));
  const rows = loaded.broken.filter((row) => name === undefined || row.suite === name);
  if (suites.length + rows.length === 0) {
    console.error(`no suite is called ${name}`);
    return 2;
  }
  if (!cases.has('.')) console.log(`# skip everything: the folder ${cases.root} is absent`);
  for (const entry of suites) rows.push(...(await runSuite(entry, cases)));
  report(rows);
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(rows, null, 1)}\n`);
  return rows.some((row) => row.verdict === 'fail') ? 1 : 0;
}

try {
  process.exitCode = await main();
} catch (error) {
  console.error(`conformance: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 2;
}
