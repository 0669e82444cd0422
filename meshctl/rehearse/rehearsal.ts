/** What replicas of istiod answered to a rehearsal, put together, and how it is shown. */
import type { Decision, JournalRow } from '../../common/decision/journal.ts';
import type { Judgement } from '../../common/decision/recorded.ts';
import { plural, table } from '../terminal.ts';

export interface RehearsedRow extends JournalRow {
  readonly now: Judgement;
  readonly after: Judgement;
}

export interface Rehearsal {
  readonly unchanged: { readonly rows: number; readonly count: number };
  readonly changed: readonly RehearsedRow[];
  readonly unknown: readonly RehearsedRow[];
  readonly problems: readonly string[];
  readonly notes: readonly string[];
}

export function together(parts: readonly Rehearsal[]): Rehearsal {
  const rows = (of: 'changed' | 'unknown'): RehearsedRow[] => parts.flatMap((part) => part[of]).sort((a, b) => b.count - a.count);
  return {
    unchanged: {
      rows: parts.reduce((sum, { unchanged }) => sum + unchanged.rows, 0),
      count: parts.reduce((sum, { unchanged }) => sum + unchanged.count, 0),
    },
    changed: rows('changed'),
    unknown: rows('unknown'),
    problems: [...new Set(parts.flatMap(({ problems }) => problems))],
    notes: [...new Set(parts.flatMap(({ notes }) => notes))],
  };
}

/** 0: nothing that was seen would change. 1: something would. 3: nothing is known to, and of some it cannot be said. */
export const exitOf = ({ changed, unknown }: Rehearsal): number => (changed.length > 0 ? 1 : unknown.length > 0 ? 3 : 0);

type Paint = Readonly<Record<'green' | 'red' | 'yellow' | 'bold', (text: string) => string>>;

const MAX_SHOWN = 50;

export function renderRehearsal(rehearsal: Rehearsal, paint: Paint): string {
  const { unchanged, changed, unknown, problems, notes } = rehearsal;
  const lines: string[] = [];
  if (changed.length > 0) lines.push(tableOf(changed, paint), '');
  if (unknown.length > 0) {
    lines.push(paint.bold('cannot be said'), tableOf(unknown, paint), '');
  }
  for (const problem of problems) lines.push(paint.yellow(`! ${problem}`));
  for (const note of notes) lines.push(paint.yellow(`! ${note}`));
  if (problems.length + notes.length > 0) lines.push('');
  const count = (rows: readonly RehearsedRow[]): number => rows.reduce((sum, row) => sum + row.count, 0);
  const summary = [
    `${plural(count(changed), 'call')} would end otherwise`,
    ...(unknown.length > 0 ? [`of ${plural(count(unknown), 'call')} it cannot be said`] : []),
    `${unchanged.count} would not`,
  ].join(', ');
  lines.push(changed.length > 0 ? paint.red(summary) : unknown.length > 0 ? paint.yellow(summary) : paint.green(summary));
  return lines.join('\n');
}

/** For one connection: each decision on its way, as it is and as it would be. */
export function renderDiff({ unchanged, changed, unknown, problems }: Rehearsal, paint: Paint): string {
  const lines = [...changed, ...unknown].flatMap(({ decision, now, after }) => [
    `${decision.at === 'inbound' ? `at ${decision.pod}` : `at the waypoint of ${shortName(decision.service) || decision.pod}`}, port ${decision.port}`,
    paint.red(`- ${judgementText(now)}`),
    (after.outcome === 'unknown' ? paint.yellow : paint.green)(`+ ${judgementText(after)}`),
  ]);
  const same = unchanged.rows === 1 ? '1 decision stays as it is' : `${unchanged.rows} decisions stay as they are`;
  return [...lines, ...problems.map((problem) => paint.yellow(`! ${problem}`)), same].join('\n');
}

const judgementText = ({ outcome, code, policy, route, reason }: Judgement): string =>
  [outcome, code, policy === '' ? '' : `by ${policy}`, route === '' ? '' : `along ${route}`, reason === '' ? '' : `(${reason})`]
    .filter((text) => text !== '')
    .join(' ');

function tableOf(rows: readonly RehearsedRow[], paint: Paint): string {
  const shown = rows.slice(0, MAX_SHOWN);
  const shade = { refused: paint.red, allowed: paint.green, unknown: paint.yellow };
  const text = table(
    ['WOULD BE', 'CALLS', 'FROM', 'TO', 'REQUEST', 'BECAUSE'],
    shown.map(({ decision, count, now, after }) => [
      wouldBe(now, after),
      String(count),
      decision.source || nameOf(decision.identity) || decision.sourceIp,
      `${shortName(decision.service) || decision.pod || decision.ip}:${decision.port}`,
      requestText(decision),
      because(after),
    ]),
    { gap: '  ', paint: (row, line) => shade[shown[row]?.after.outcome ?? 'unknown'](line) },
  );
  return [text, ...(rows.length > shown.length ? [`${rows.length - shown.length} more rows (-o json has all)`] : [])].join('\n');
}

function wouldBe(now: Judgement, after: Judgement): string {
  if (after.outcome === 'unknown') return 'unknown';
  if (now.outcome !== after.outcome || after.outcome === 'refused') return after.outcome;
  return 'rerouted';
}

const because = ({ outcome, policy, route, reason }: Judgement): string =>
  outcome === 'unknown'
    ? reason
    : policy !== '' && outcome === 'refused'
      ? policy
      : outcome === 'refused'
        ? reason
        : route || policy || 'no policy refuses it';

const requestText = ({ request }: Decision): string => (request ? `${request.method} ${request.path ?? '*'}` : '');

/** `namespace/name.namespace.svc.domain` as `name.namespace`. */
const shortName = (service: string): string => service.slice(service.indexOf('/') + 1).replace(/\.svc\..*$/, '');

/** `spiffe://domain/ns/shop/sa/web` as `shop/web`. */
const nameOf = (identity: string): string => identity.replace(/^spiffe:\/\/[^/]+\/ns\/([^/]+)\/sa\//, '$1/');
