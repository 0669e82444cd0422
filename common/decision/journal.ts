/**
 * What a proxy has decided lately, in bounded memory: equal decisions are one entry with counts, and the latest connections and requests are
 * kept one by one under their ids. `meshctl explain ID`, `rehearse` and `policy suggest` are made from it. No payloads, no queries, and of
 * headers and tokens only what some rule asks for. Pure: time comes as an argument.
 */

/** What was decided, as far as policies and routes can ask for it. Equal ones are one entry of the journal. */
export interface Decision {
  /** `outbound`: at the source's ztunnel. `inbound`: at the destination's. `request` and `connection`: at a waypoint. */
  readonly at: 'outbound' | 'inbound' | 'request' | 'connection';
  /** `namespace/name` of the pod that called; empty where it is not known. */
  readonly source: string;
  readonly sourceIp: string;
  /** SPIFFE URI that TLS proved; empty for plaintext. */
  readonly identity: string;
  /** `namespace/hostname` of the service that was asked for; empty for a pod's own address. */
  readonly service: string;
  /** `namespace/name` of the pod that decided (`inbound`), or that was addressed itself; empty where there is none. */
  readonly pod: string;
  /** Uid of that pod's workload. */
  readonly uid: string;
  /** What was asked for (`outbound`, `request`, `connection`), or what is dialled in the pod (`inbound`); empty where it is not known. */
  readonly ip: string;
  readonly port: number;
  readonly mutualTls: boolean;
  /** Of requests only. */
  readonly request?: DecidedRequestFacts;
  /** `failed`: let through, and then it did not get there. */
  readonly verdict: 'allowed' | 'refused' | 'failed';
  /** Of the table of errors; empty where all went well. */
  readonly code: string;
  /** namespace/name of the policy that decided; empty where none did. */
  readonly policy: string;
  /** Name of the route's rule; empty where there is none. */
  readonly route: string;
}

export interface DecidedRequestFacts {
  readonly method: string;
  /** Lower case, with its port where it had one. */
  readonly host: string;
  /** Without its query; null where it is not kept, because there were too many or it was too long. */
  readonly path: string | null;
  /** Headers that some rule asked for, by name in lower case; null where the request did not have it, and no entry where it is not known. */
  readonly headers: Readonly<Record<string, string | null>>;
  /** Of a request that is only thought of: all of it is here, and what is not, it does not have. */
  readonly complete?: boolean;
  /** Query parameters that some rule asks for, likewise. */
  readonly query: Readonly<Record<string, string | null>>;
  /** Of the token that was found good; absent where none was brought. */
  readonly token?: TokenFacts;
}

/** Null where no rule asked for it. */
export interface TokenFacts {
  readonly principal: string | null;
  readonly audiences: readonly string[] | null;
  readonly presenter: string | null;
  /** Claims that some rule asked for; the key is the path of names, as JSON. */
  readonly claims: Readonly<Record<string, readonly string[]>>;
}

/** A decision and how often it was made. Times in milliseconds since 1970. */
export interface JournalRow {
  readonly decision: Decision;
  readonly count: number;
  readonly firstMs: number;
  readonly lastMs: number;
  /** Of the latest one. */
  readonly id: string;
  readonly endpoint: string;
}

/** One connection or request, as it was. */
export interface JournalEvent {
  readonly id: string;
  /** Id of the connection to the waypoint that a request came by; empty otherwise. */
  readonly tunnel: string;
  readonly decision: Decision;
  /** When it ended, in milliseconds since 1970. */
  readonly endMs: number;
  readonly durationMs: number;
  /** Pod, or address, that got it; empty where none did. */
  readonly endpoint: string;
  /** From the caller's side. */
  readonly sent: number;
  readonly received: number;
  /** HTTP status; 0 where there is none. */
  readonly status: number;
  readonly attempts: number;
  /** In the words of the error; empty where all went well. */
  readonly message: string;
}

/** How one of them ended; handed to `count`, and not kept as an object. */
export interface Ending {
  readonly id: string;
  readonly tunnel: string;
  readonly nowMs: number;
  readonly durationMs: number;
  readonly endpoint: string;
  readonly sent: number;
  readonly received: number;
  readonly status: number;
  readonly attempts: number;
  readonly message: string;
}

export interface JournalOptions {
  /** Of this journal; several workers share a proxy's limit. */
  readonly maxBytes: number;
  /** A request that took longer is kept apart, where faster ones do not push it out. */
  readonly slowMs: number;
}

export interface JournalAnswer {
  readonly rows: readonly JournalRow[];
  readonly events: readonly JournalEvent[];
  /** Entries that were let go or not taken, for want of room. */
  readonly dropped: number;
  /** Decisions before this time may be missing; 0 where none was let go. */
  readonly completeSinceMs: number;
}

export const SLOW_REQUEST_MS = 1000;
/** Of a journal that is switched off. */
export const NO_ANSWER: JournalAnswer = { rows: [], events: [], dropped: 0, completeSinceMs: 0 };

/** Rough sizes of what is kept, measured with a million of them (Node 26, 64 bit). */
const ENTRY_BYTES = 600;
const EVENT_BYTES = 240;
/** The share of the memory that single connections and requests get. */
const EVENT_SHARE = 0.4;
/** So many go at once: sorting for each one that comes would cost more than it saves. */
const EVICT_SHARE = 1 / 8;
/** Of one caller to one service by one method: more are kept without their path. */
const MAX_PATHS = 100;
const MAX_QUESTION_ROWS = 50_000;

export class Journal {
  readonly #entries = new Map<string, Entry>();
  readonly #paths = new Map<string, number>();
  readonly #entryBudget: number;
  readonly #slowMs: number;
  readonly #latest: Ring;
  readonly #slow: Ring;
  readonly #refused: Ring;
  #entryBytes = 0;
  #dropped = 0;
  #completeSinceMs = 0;

  constructor({ maxBytes, slowMs }: JournalOptions) {
    const events = Math.max(Math.floor((maxBytes * EVENT_SHARE) / EVENT_BYTES), 8);
    this.#entryBudget = maxBytes * (1 - EVENT_SHARE);
    this.#slowMs = slowMs;
    this.#latest = new Ring(Math.floor(events / 2));
    this.#refused = new Ring(Math.floor((events * 3) / 8));
    this.#slow = new Ring(Math.floor(events / 8));
  }

  /**
   * Counts a decision.
   * @param key equal for equal decisions @param describe called for a key that is new
   */
  count(key: string, ending: Ending, describe: () => Decision): void {
    const known = this.#entries.get(key);
    this.#count(known ?? this.#begin(key, describe(), ending.nowMs), ending);
  }

  #count(entry: Entry, ending: Ending): void {
    entry.count++;
    entry.lastMs = ending.nowMs;
    entry.id = ending.id;
    entry.endpoint = ending.endpoint;
    this.#ringFor(entry.decision, ending).push(entry.decision, ending);
  }

  /** Counts a decision that was counted before. @returns false where it is not known any more, and then it is not counted */
  countAgain(key: string, ending: Ending): boolean {
    const entry = this.#entries.get(key);
    if (!entry) return false;
    this.#count(entry, ending);
    return true;
  }

  /** What goes on: it is counted when it ends, and is to be seen before. */
  touch(key: string, nowMs: number, describe: () => Decision): void {
    const entry = this.#entries.get(key) ?? this.#begin(key, describe(), nowMs);
    entry.lastMs = nowMs;
  }

  /** Whether a path of this caller, service and method may be kept; counts it. @param base all of a key but the path */
  admitsPath(base: string): boolean {
    const known = this.#paths.get(base) ?? 0;
    if (known >= MAX_PATHS) return false;
    this.#paths.set(base, known + 1);
    return true;
  }

  has(key: string): boolean {
    return this.#entries.has(key);
  }

  /** Bytes that are used, roughly. */
  get bytes(): number {
    return this.#entryBytes + (this.#latest.size + this.#refused.size + this.#slow.size) * EVENT_BYTES;
  }

  get size(): number {
    return this.#entries.size;
  }

  get dropped(): number {
    return this.#dropped;
  }

  /** Decisions that were made since, the latest first; with an id, the connections and requests that have it, or came by it. */
  answer({ sinceMs, id }: { readonly sinceMs: number; readonly id: string }): JournalAnswer {
    const about = { dropped: this.#dropped, completeSinceMs: this.#completeSinceMs };
    if (id !== '') {
      const events = [this.#latest, this.#refused, this.#slow].flatMap((ring) => ring.find(id));
      return { rows: [], events, ...about };
    }
    const rows = [...this.#entries.values()].filter(({ lastMs }) => lastMs >= sinceMs).sort((a, b) => b.lastMs - a.lastMs);
    return { rows: rows.slice(0, MAX_QUESTION_ROWS).map(rowOf), events: [], ...about };
  }

  #ringFor({ verdict }: Decision, { durationMs, status }: Ending): Ring {
    if (verdict !== 'allowed') return this.#refused;
    // A connection that lives long is not slow.
    return status !== 0 && durationMs >= this.#slowMs ? this.#slow : this.#latest;
  }

  #begin(key: string, decision: Decision, nowMs: number): Entry {
    const bytes = ENTRY_BYTES + 2 * key.length;
    if (this.#entryBytes + bytes > this.#entryBudget) this.#evict();
    const entry: Entry = { decision, count: 0, firstMs: nowMs, lastMs: nowMs, id: '', endpoint: '', bytes };
    this.#entries.set(key, entry);
    this.#entryBytes += bytes;
    return entry;
  }

  /** Those that were not made for the longest time. */
  #evict(): void {
    const oldest = [...this.#entries].sort(([, a], [, b]) => a.lastMs - b.lastMs).slice(0, Math.ceil(this.#entries.size * EVICT_SHARE));
    for (const [key, { bytes, lastMs }] of oldest) {
      this.#entries.delete(key);
      this.#entryBytes -= bytes;
      this.#dropped++;
      this.#completeSinceMs = Math.max(this.#completeSinceMs, lastMs + 1);
    }
    // Room was made for paths too, and who remembers how many of whose.
    this.#paths.clear();
  }
}

interface Entry {
  readonly decision: Decision;
  count: number;
  readonly firstMs: number;
  lastMs: number;
  id: string;
  endpoint: string;
  readonly bytes: number;
}

const rowOf = ({ decision, count, firstMs, lastMs, id, endpoint }: Entry): JournalRow => ({
  decision,
  // What has not ended yet is one.
  count: Math.max(count, 1),
  firstMs,
  lastMs,
  id,
  endpoint,
});

/** The latest of a kind, in columns: one that comes takes the place of the oldest, and nothing is allocated for it. */
class Ring {
  readonly #capacity: number;
  readonly #ids: string[] = [];
  readonly #tunnels: string[] = [];
  readonly #decisions: Decision[] = [];
  readonly #endpoints: string[] = [];
  readonly #messages: string[] = [];
  readonly #numbers: number[] = [];
  #next = 0;

  constructor(capacity: number) {
    this.#capacity = Math.max(capacity, 1);
  }

  get size(): number {
    return this.#ids.length;
  }

  push(decision: Decision, { id, tunnel, nowMs, durationMs, endpoint, sent, received, status, attempts, message }: Ending): void {
    const at = this.#next;
    this.#next = (at + 1) % this.#capacity;
    this.#ids[at] = id;
    this.#tunnels[at] = tunnel;
    this.#decisions[at] = decision;
    this.#endpoints[at] = endpoint;
    this.#messages[at] = message;
    const first = at * NUMBERS;
    this.#numbers[first] = nowMs;
    this.#numbers[first + 1] = durationMs;
    this.#numbers[first + 2] = sent;
    this.#numbers[first + 3] = received;
    this.#numbers[first + 4] = status;
    this.#numbers[first + 5] = attempts;
  }

  find(id: string): JournalEvent[] {
    return this.#ids.flatMap((known, at) => (known === id || this.#tunnels[at] === id ? (this.#at(at) ?? []) : []));
  }

  #at(at: number): JournalEvent | undefined {
    const decision = this.#decisions[at];
    if (!decision) return undefined;
    const number = (i: number): number => this.#numbers[at * NUMBERS + i] ?? 0;
    return {
      id: this.#ids[at] ?? '',
      tunnel: this.#tunnels[at] ?? '',
      decision,
      endMs: number(0),
      durationMs: number(1),
      endpoint: this.#endpoints[at] ?? '',
      sent: number(2),
      received: number(3),
      status: number(4),
      attempts: number(5),
      message: this.#messages[at] ?? '',
    };
  }
}

const NUMBERS = 6;

/** Codes of what let it pass: whoever ended it afterwards, no decision did. */
const PASSED: ReadonlySet<string> = new Set(['', 'CLIENT_GONE', 'DRAINED', 'POD_REMOVED', 'FAULT_INJECTED', 'POLICY_REVOKED']);
/** Decided, and not for want of anybody who answers. */
const REFUSED: ReadonlySet<string> = new Set([
  'POLICY_DENIED',
  'MTLS_REQUIRED',
  'TOKEN_INVALID',
  'ROUTE_UNMATCHED',
  'WAYPOINT_ABSENT',
  'WAYPOINT_BYPASSED',
  'WAYPOINT_NOT_BOUND',
  'NOT_IN_REGISTRY',
  'NO_ROUTE',
  'SELF_CALL',
  'IP_MISMATCH',
  'BAD_REQUEST',
  'WORKLOAD_UNKNOWN',
  'SERVICE_UNKNOWN',
  'PREDATES_MESH',
  'RATE_LIMITED',
]);

/** @param code of the table of errors; undefined where all went well */
export const verdictOf = (code: string | undefined): Decision['verdict'] =>
  PASSED.has(code ?? '') ? 'allowed' : REFUSED.has(code ?? '') ? 'refused' : 'failed';

/** Puts what several workers or proxies answered together. */
export function mergeAnswers(answers: readonly JournalAnswer[]): JournalAnswer {
  return {
    rows: mergeRows(answers.flatMap(({ rows }) => rows)),
    events: answers.flatMap(({ events }) => events).sort((a, b) => a.endMs - a.durationMs - (b.endMs - b.durationMs)),
    dropped: answers.reduce((sum, { dropped }) => sum + dropped, 0),
    completeSinceMs: Math.max(0, ...answers.map(({ completeSinceMs }) => completeSinceMs)),
  };
}

/** Rows of equal decisions become one, the latest first. */
export function mergeRows(rows: readonly JournalRow[]): JournalRow[] {
  const merged = new Map<string, JournalRow>();
  for (const row of rows) {
    const key = JSON.stringify(row.decision);
    const known = merged.get(key);
    const latest = known && known.lastMs > row.lastMs ? known : row;
    merged.set(key, known ? { ...latest, count: known.count + row.count, firstMs: Math.min(known.firstMs, row.firstMs) } : { ...row });
  }
  return [...merged.values()].sort((a, b) => b.lastMs - a.lastMs);
}
