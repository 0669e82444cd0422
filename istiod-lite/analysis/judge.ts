/** What the translation says of an object, in the words of the table: what admission and analysis have in common. */
import type { Finding, FindingKind } from '../model/findings.ts';
import { type Message, type MessageName, message, type Origin } from './messages.ts';

const NAMES: Readonly<Record<FindingKind, MessageName>> = {
  unreadable: 'unreadable',
  mild: 'mild',
  never: 'never',
  missing: 'notFound',
  stricter: 'stricter',
  'http-at-l4': 'httpAtL4',
  'deny-all': 'denyAll',
  unbound: 'unbound',
  'no-waypoint': 'noWaypoint',
  'not-ready': 'condition',
  rejected: 'rejected',
  wildcard: 'wildcard',
  claim: 'claim',
  conflict: 'conflict',
  ignored: 'ignored',
  idle: 'idle',
  'dry-run': 'idle',
};

/** Nobody reads more of one object, and objects can be huge. */
const MOST = 20;

export const judge = (origin: Origin, findings: readonly Finding[]): Message[] =>
  findings.slice(0, MOST).map(({ kind, message: detail }) => message(NAMES[kind], origin, detail));
