/**
 * Runs a bench of this folder: `main.ts NAME [--json FILE] [--docs] [--only TEXT] [--cluster] [--minutes N]`, without a name the list of benches.
 * Each file that exports `bench` is one. --docs puts tables and charts into docs/performance.md.
 * Exit status 0 whatever the numbers are: a missed target is a fact to look at, not an error.
 */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { CHARTS, replaceSection, sectionsOf } from './report.ts';
import type { Bench, Row } from './rows.ts';
import { readTimes, stolenShare } from './support/stolen.ts';

async function loadBenches(): Promise<Bench[]> {
  const files = readdirSync(new URL('.', import.meta.url)).filter((file) => file.endsWith('.ts') && !NOT_BENCHES.has(file));
  const modules: { bench?: Bench }[] = await Promise.all(files.sort().map((file) => import(new URL(file, import.meta.url).href)));
  return modules.flatMap(({ bench }) => bench ?? []);
}

const NOT_BENCHES = new Set(['main.ts', 'report.ts', 'rows.ts']);
const docs = join(import.meta.dirname, '../docs');

function printTable(rows: readonly Row[]): void {
  const number = (value: number | null): string =>
    value === null ? '-' : value.toLocaleString('en', { maximumFractionDigits: value < 10 ? 3 : 1 });
  const cells = rows.map((row) => [
    row.case,
    row.metric,
    `${number(row.ours)} ${row.unit}`,
    row.peer === null ? '-' : `${number(row.peer)} (${row.peerName})`,
    number(row.ratio),
    number(row.target),
    row.met === null ? '' : row.met ? 'met' : 'MISSED',
  ]);
  const table = [['case', 'metric', 'ours', 'peer', 'ratio', 'target', ''], ...cells];
  const widths = table[0]?.map((_, column) => Math.max(...table.map((line) => line[column]?.length ?? 0))) ?? [];
  for (const line of table)
    console.log(
      line
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    );
}

/** @throws {Error} where the page has no place for one of the tables; then nothing is written */
function writeDocs(rows: readonly Row[], stolen: string): void {
  const page = join(docs, 'performance.md');
  const sections = sectionsOf(rows, `${new Date().toISOString().slice(0, 10)}, ${availableParallelism()} processors, ${stolen}`);
  const text = sections.reduce(replaceSection, readFileSync(page, 'utf8'));
  mkdirSync(join(docs, CHARTS), { recursive: true });
  for (const { chart } of sections) if (chart) writeFileSync(join(docs, CHARTS, chart.file), chart.svg);
  writeFileSync(page, text);
}

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      json: { type: 'string' },
      docs: { type: 'boolean', default: false },
      cluster: { type: 'boolean', default: false },
      minutes: { type: 'string' },
      only: { type: 'string' },
      profile: { type: 'boolean', default: false },
    },
  });
  const benches = await loadBenches();
  const [name, ...more] = positionals;
  if (name === undefined) {
    for (const bench of benches) console.log(`${bench.name.padEnd(12)} ${bench.doc}`);
    return 0;
  }
  const bench = benches.find((candidate) => candidate.name === name);
  if (!bench || more.length > 0) {
    console.error(`bench: one of ${benches.map((candidate) => candidate.name).join(', ')}`);
    return 2;
  }
  if (values.cluster && !bench.onCluster) {
    console.error(`bench: ${bench.name} runs nothing on a real cluster`);
    return 2;
  }
  const minutes = values.minutes === undefined ? undefined : Number(values.minutes);
  if (minutes !== undefined && (!bench.timed || !(minutes > 0))) {
    console.error(bench.timed ? 'bench: --minutes is a number above 0' : `bench: ${bench.name} takes as long as it takes`);
    return 2;
  }
  const { cluster, only, profile } = values;
  if (profile && !bench.profiled) {
    console.error(`bench: ${bench.name} makes no profile`);
    return 2;
  }
  if (only !== undefined && (!bench.selective || values.docs)) {
    console.error(bench.selective ? 'bench: --docs takes whole tables, so no --only' : `bench: ${bench.name} runs all of its cases`);
    return 2;
  }
  const before = readTimes();
  const rows = await bench.run({
    cluster,
    ...(minutes === undefined ? {} : { minutes }),
    ...(only === undefined ? {} : { only }),
    profile,
  });
  const stolen = `of which the host took ${(100 * stolenShare(before, readTimes())).toFixed(1)} % for others`;
  printTable(rows);
  console.log(`${availableParallelism()} processors, ${stolen}`);
  if (values.docs) writeDocs(rows, stolen);
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(rows, null, 1)}\n`);
  return 0;
}

try {
  process.exitCode = await main();
} catch (error) {
  console.error(`bench: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 2;
}
