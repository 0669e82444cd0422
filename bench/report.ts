/**
 * What a bench measured, as docs/performance.md shows it: for each group of its cases (`group: case`) a table and a chart of the processor
 * time, put between the marks `<!-- bench NAME GROUP -->` and `<!-- /bench -->`. What is said about them stands outside, and is written by hand.
 */
import type { Row } from './rows.ts';

export interface Section {
  /** As the marks name it: the bench, and the group where its cases have one. */
  readonly name: string;
  readonly markdown: string;
  /** Where there is processor time beside a peer's. */
  readonly chart?: { readonly file: string; readonly svg: string };
}

/** Folder of the charts, beside the page. */
export const CHARTS = 'charts';
/** What a chart shows. */
const CHARTED = 'CPU per ';

/** @param about where and when, for the line above each table */
export function sectionsOf(rows: readonly Row[], about: string): Section[] {
  const groups = new Map<string, Row[]>();
  for (const row of rows) {
    const [group, rest] = split(row.case);
    const name = group === '' ? row.bench : `${row.bench} ${group}`;
    groups.set(name, [...(groups.get(name) ?? []), { ...row, case: rest }]);
  }
  return [...groups].map(([name, members]) => {
    const bars = chartOf(members);
    const file = `${name.replaceAll(' ', '-')}.svg`;
    const picture = bars === undefined ? [] : [`![${name}: processor time, less is better](${CHARTS}/${file})`];
    const markdown = [`Measured ${about}.`, ...picture, ...tablesOf(members)].join('\n\n');
    return { name, markdown, ...(bars === undefined ? {} : { chart: { file, svg: bars } }) };
  });
}

/** @throws {Error} where the page has no such section */
export function replaceSection(page: string, { name, markdown }: Section): string {
  const begin = `<!-- bench ${name} -->`;
  const end = '<!-- /bench -->';
  const from = page.indexOf(begin);
  const to = page.indexOf(end, from);
  if (from < 0 || to < 0) throw new Error(`the page has no section between ${begin} and ${end}`);
  return `${page.slice(0, from + begin.length)}\n${markdown}\n${page.slice(to)}`;
}

function split(name: string): [group: string, rest: string] {
  const at = name.indexOf(': ');
  return at < 0 ? ['', name] : [name.slice(0, at), name.slice(at + 2)];
}

const number = (value: number): string => value.toLocaleString('en', { maximumFractionDigits: value < 10 ? 2 : value < 1000 ? 1 : 0 });

/** Measurements beside the same peers in a table, each of the others as a point. */
function tablesOf(rows: readonly Row[]): string[] {
  const cases = new Map<string, Set<string>>();
  for (const { peerName, case: name, metric } of rows)
    if (peerName !== null) cases.set(peerName, new Set([...(cases.get(peerName) ?? []), `${name} ${metric}`]));
  const peers = [...cases].filter(([, names]) => names.size > 1).map(([name]) => name);
  const inTable = rows.filter(({ peerName }) => peerName !== null && peers.includes(peerName));
  const lines = new Map<string, Row[]>();
  for (const row of inTable) lines.set(`${row.case} | ${row.metric}`, [...(lines.get(`${row.case} | ${row.metric}`) ?? []), row]);
  const table = [...lines].map(([key, beside]) => {
    const [first] = beside;
    const against = peers.flatMap((peer) => {
      const row = beside.find(({ peerName }) => peerName === peer);
      return row ? [number(row.peer ?? 0), row.ratio === null ? '' : row.ratio.toFixed(2)] : ['', ''];
    });
    const judged = beside.find(({ target }) => target !== null);
    return `| ${[key, first ? `${number(first.ours)} ${first.unit}` : '', ...against, judged ? verdict(judged) : ''].join(' | ')} |`;
  });
  const head = ['case', 'metric', 'ours', ...peers.flatMap((peer) => [peer, 'ratio']), 'target'];
  const points = rows
    .filter((row) => !inTable.includes(row))
    .map((row) => {
      const against = row.ratio === null ? '' : `, ${row.ratio.toFixed(2)} of that of ${row.peerName} (${number(row.peer ?? 0)})`;
      return `- ${row.case}: ${row.metric} ${number(row.ours)} ${row.unit}${against}${row.target === null ? '' : `; target ${verdict(row)}`}`;
    });
  return [
    ...(table.length > 0 ? [[`| ${head.join(' | ')} |`, `|${'---|'.repeat(head.length)}`, ...table].join('\n')] : []),
    ...(points.length > 0 ? [points.join('\n')] : []),
  ];
}

const verdict = ({ target, met }: Row): string => `${number(target ?? 0)}: ${met ? 'met' : '**missed**'}`;

const WIDTH = 760;
const LABEL = 110;
const BAR = 14;
const ROOM = WIDTH - LABEL - 130;
const COLOURS = ['#1f6feb', '#8b949e', '#b1bac4', '#d0d7de'];

/** For each case a bar for each program, as long as its share of the case's dearest; a mark where the target is. */
function chartOf(rows: readonly Row[]): string | undefined {
  const cases = new Map<string, Row[]>();
  for (const row of rows) {
    if (!row.metric.startsWith(CHARTED) || row.peer === null) continue;
    cases.set(row.case, [...(cases.get(row.case) ?? []), row]);
  }
  if (cases.size === 0) return undefined;
  const parts: string[] = [];
  let y = 8;
  for (const [name, beside] of cases) {
    const [first] = beside;
    if (!first) continue;
    const bars = [{ who: 'ours', value: first.ours }, ...beside.map(({ peerName, peer }) => ({ who: peerName ?? '', value: peer ?? 0 }))];
    const most = Math.max(...bars.map(({ value }) => value), 1e-9);
    y += 18;
    parts.push(`<text x="8" y="${y - 4}" font-weight="bold">${escaped(`${name}: ${first.metric}`)}</text>`);
    bars.forEach(({ who, value }, at) => {
      const width = Math.max(1, (value / most) * ROOM).toFixed(1);
      parts.push(
        `<text x="${LABEL - 6}" y="${y + 11}" text-anchor="end">${escaped(who)}</text>`,
        `<rect x="${LABEL}" y="${y}" width="${width}" height="${BAR - 2}" fill="${COLOURS[Math.min(at, COLOURS.length - 1)]}"/>`,
        `<text x="${(LABEL + Number(width) + 5).toFixed(1)}" y="${y + 11}">${escaped(`${number(value)} ${first.unit}`)}</text>`,
      );
      y += BAR;
    });
    const judged = beside.find(({ target }) => target !== null);
    if (judged) {
      const x = (LABEL + Math.min(1.15, ((judged.target ?? 0) * (judged.peer ?? 0)) / most) * ROOM).toFixed(1);
      const top = y - BAR * bars.length;
      parts.push(`<line x1="${x}" x2="${x}" y1="${top - 2}" y2="${top + BAR}" stroke="#cf222e" stroke-width="2"/>`);
    }
    y += 8;
  }
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${y + 20}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="#ffffff"/>
${parts.join('\n')}
<text x="8" y="${y + 10}" fill="#57606a">Less is better. The red mark is where our bar may end at most.</text>
</svg>
`;
}

const escaped = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
