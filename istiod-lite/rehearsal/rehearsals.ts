/** Rehearsals of this replica, one after the other: each translates the whole cluster. Who sees one namespace learns of that one. */
import type { Judgement } from '../../common/decision/recorded.ts';
import { concerns, destinationOf, eachJournal, journalSeenFrom, type ProxyJournal } from '../diagnostics/journals.ts';
import { AskError, type ProxyReports } from '../diagnostics/reports.ts';
import type { Candidate } from './candidate.ts';
import { type Rehearsal, type RehearsalWorld, type RehearsedRow, rehearse } from './rehearse.ts';

export interface RehearsalsOptions extends RehearsalWorld {
  readonly reports: Pick<ProxyReports, 'rows' | 'ask'>;
}

export class Rehearsals {
  readonly #options: RehearsalsOptions;
  #busy = false;

  constructor(options: RehearsalsOptions) {
    this.#options = options;
  }

  /** @param namespace the one that the caller sees; undefined for all @throws {AskError | BadCandidate} */
  async run(candidate: Candidate, namespace: string | undefined): Promise<Rehearsal> {
    if (this.#busy) throw new AskError('busy', 'another rehearsal is under way; try again');
    this.#busy = true;
    try {
      const journals: ProxyJournal[] = [];
      if (candidate.asked) journals.push(...journalsOf(candidate.asked, this.#options.reports));
      else
        await eachJournal(this.#options.reports, { sinceMs: candidate.sinceMs, id: '' }, (journal) => {
          journals.push(namespace === undefined ? journal : journalSeenFrom(namespace, journal));
        });
      const rehearsal = await rehearse(candidate, journals, this.#options);
      return namespace === undefined ? rehearsal : seenFrom(namespace, rehearsal);
    } finally {
      this.#busy = false;
    }
  }
}

/** Decisions that somebody thinks of, as if proxies had recorded them. */
function journalsOf(asked: NonNullable<Candidate['asked']>, reports: Pick<ProxyReports, 'rows'>): ProxyJournal[] {
  const rows = reports.rows();
  return asked.map(({ proxy, decision }): ProxyJournal => {
    const known = rows.find(({ name, namespace }) => `${name}.${namespace}` === proxy);
    if (decision.at !== 'inbound' && !known) throw new AskError('absent', `no proxy ${proxy.slice(0, 300)} reports to this istiod`);
    const row = { decision, count: 1, firstMs: 0, lastMs: 0, id: '', endpoint: '' };
    return {
      proxy,
      kind: known?.kind ?? '',
      node: '',
      gateway: known?.gateway ?? '',
      rows: [row],
      events: [],
      dropped: 0,
      completeSinceMs: 0,
    };
  });
}

function seenFrom(namespace: string, rehearsal: Rehearsal): Rehearsal {
  const seen = (rows: readonly RehearsedRow[]): RehearsedRow[] =>
    rows.flatMap((row) => {
      if (!concerns(row.decision, namespace)) return [];
      return destinationOf(row.decision) === namespace ? [row] : [{ ...row, now: withoutNames(row.now), after: withoutNames(row.after) }];
    });
  const own = new RegExp(`\\b${RegExp.escape(namespace)}/`);
  return {
    ...rehearsal,
    changed: seen(rehearsal.changed),
    unknown: seen(rehearsal.unknown),
    problems: rehearsal.problems.filter((text) => own.test(text)),
  };
}

const withoutNames = (judgement: Judgement): Judgement => ({ ...judgement, policy: '', route: '', reason: '' });
