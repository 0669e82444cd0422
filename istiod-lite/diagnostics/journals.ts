/**
 * The decision journals of all proxies that report to this replica, and how much of them a caller sees: who sees one namespace gets what went
 * into it and out of it, without the names of other namespaces' policies.
 */
import { errorMessage } from '../../common/base/errors.ts';
import type { Decision, JournalAnswer, JournalEvent, JournalRow } from '../../common/decision/journal.ts';
import type { ProxyReports, ProxyRow } from './reports.ts';

export interface ProxyJournal extends JournalAnswer {
  /** `POD.NAMESPACE`. */
  readonly proxy: string;
  readonly kind: string;
  readonly node: string;
  /** Of a waypoint: `namespace/name` of its Gateway. */
  readonly gateway: string;
  /** Why there is nothing of it; absent where it answered. */
  readonly error?: string;
}

export interface JournalsWanted {
  readonly sinceMs: number;
  /** Of a connection or request; empty for all decisions. */
  readonly id: string;
}

/** Answers are large, and each waits in this process until it is whole. */
const AT_ONCE = 4;

/** Of each proxy as its answer comes. @param see called once for each proxy, one after the other */
export async function eachJournal(
  reports: Pick<ProxyReports, 'rows' | 'ask'>,
  wanted: JournalsWanted,
  see: (journal: ProxyJournal) => void | Promise<void>,
): Promise<void> {
  const waiting = reports.rows();
  const work = async (): Promise<void> => {
    for (let row = waiting.shift(); row; row = waiting.shift()) await see(await journalOf(reports, row, wanted));
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
}

async function journalOf(reports: Pick<ProxyReports, 'ask'>, row: ProxyRow, { sinceMs, id }: JournalsWanted): Promise<ProxyJournal> {
  const proxy = `${row.name}.${row.namespace}`;
  const about = { proxy, kind: row.kind, node: row.node, gateway: row.gateway };
  try {
    const bytes = await reports.ask(proxy, { $case: 'journal', value: { sinceMs: BigInt(Math.round(sinceMs)), id } });
    const { rows = [], events = [], dropped = 0, completeSinceMs = 0 } = JSON.parse(bytes.toString()) as Partial<JournalAnswer>;
    return { ...about, rows, events, dropped, completeSinceMs };
  } catch (error) {
    // A proxy of another version may not know the question.
    return { ...about, rows: [], events: [], dropped: 0, completeSinceMs: 0, error: errorMessage(error) };
  }
}

/** What somebody who sees one namespace sees of it. */
export function journalSeenFrom(namespace: string, journal: ProxyJournal): ProxyJournal {
  return {
    ...journal,
    rows: journal.rows
      .filter(({ decision }) => concerns(decision, namespace))
      .map((row): JournalRow => ({ ...row, decision: censored(row.decision, namespace) })),
    events: journal.events
      .filter(({ decision }) => concerns(decision, namespace))
      .map((event): JournalEvent => {
        const decision = censored(event.decision, namespace);
        // The error's words name policies too.
        return decision.policy === event.decision.policy ? event : { ...event, decision, message: '' };
      }),
  };
}

export const concerns = (decision: Decision, namespace: string): boolean =>
  destinationOf(decision) === namespace || sourceOf(decision) === namespace;

export const destinationOf = ({ service, pod }: Decision): string => (pod !== '' ? pod : service).split('/')[0] ?? '';

const IDENTITY = /^spiffe:\/\/[^/]+\/ns\/([^/]+)\//;
const sourceOf = ({ source, identity }: Decision): string => IDENTITY.exec(identity)?.[1] ?? source.split('/')[0] ?? '';

/** Rules of the place that refuses are for those who run it. */
function censored(decision: Decision, namespace: string): Decision {
  const { policy } = decision;
  return policy === '' || policy.startsWith(`${namespace}/`) || destinationOf(decision) === namespace
    ? decision
    : { ...decision, policy: '', route: '' };
}
