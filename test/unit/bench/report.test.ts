import assert from 'node:assert/strict';
import { test } from 'node:test';
import { replaceSection, sectionsOf } from '../../../bench/report.ts';
import { absoluteRow, ratioRow } from '../../../bench/rows.ts';

const row = (name: string, peerName: string, ours: number, peer: number, target?: number) =>
  ratioRow({
    bench: 'proxy',
    case: name,
    metric: 'CPU per request',
    unit: 'us',
    better: 'less',
    ours,
    peer,
    peerName,
    ...(target === undefined ? {} : { target }),
  });

const rows = [
  row('mesh: kept', 'other', 80, 40),
  row('mesh: kept', 'envoy', 80, 200, 0.6),
  row('mesh: new', 'other', 300, 100),
  row('mesh: new', 'envoy', 300, 200, 1),
  row('plain: many routes', 'few', 101, 100, 1.1),
  absoluteRow({ bench: 'proxy', case: 'plain: idle', metric: 'RSS', unit: 'MB', better: 'less', ours: 217, target: 200 }),
];

test('each group of cases has a table with the peers beside each other, and a verdict where there is a target', () => {
  const [mesh, plain] = sectionsOf(rows, 'today');
  assert.equal(mesh?.name, 'proxy mesh');
  assert.equal(
    mesh?.markdown,
    `Measured today.

![proxy mesh: processor time, less is better](charts/proxy-mesh.svg)

| case | metric | ours | other | ratio | envoy | ratio | target |
|---|---|---|---|---|---|---|---|
| kept | CPU per request | 80 us | 40 | 2.00 | 200 | 0.40 | 0.6: met |
| new | CPU per request | 300 us | 100 | 3.00 | 200 | 1.50 | 1: **missed** |`,
  );
  assert.match(
    plain?.markdown ?? '',
    /\n\n- many routes: CPU per request 101 us, 1\.01 of that of few \(100\); target 1\.1: met\n- idle: RSS 217 MB; target 200: \*\*missed\*\*$/,
  );
});

test('a chart has a bar for each program, none longer than there is room for', () => {
  const svg = sectionsOf(rows, 'today')[0]?.chart?.svg ?? '';
  const widths = [...svg.matchAll(/<rect x="110" y="\d+" width="([\d.]+)"/g)].map(([, width]) => Number(width));
  assert.deepEqual(widths, [208, 104, 520, 520, 173.3, 346.7]);
  assert.equal(svg.match(/<line/g)?.length, 2);
});

test('a section replaces what stood between its marks, and nothing else; a page without its marks is refused', () => {
  const [mesh] = sectionsOf(rows, 'today');
  assert.ok(mesh);
  const page = 'before\n<!-- bench proxy mesh -->\nold\n<!-- /bench -->\nafter\n<!-- bench proxy plain -->\nkept\n<!-- /bench -->\n';
  const replaced = replaceSection(page, mesh);
  assert.equal(replaced, page.replace('old', mesh.markdown));
  assert.throws(() => replaceSection(page.replace('proxy mesh', 'another'), mesh), /no section between <!-- bench proxy mesh -->/);
});
