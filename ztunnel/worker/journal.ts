/** What this worker's part of the decision journal is told of connections: once for each, when it ends. */
import type { SocketAddress } from '../../common/base/address.ts';
import type { ProxyError } from '../../common/base/errors.ts';
import { type Decision, type Ending, type Journal, verdictOf } from '../../common/decision/journal.ts';
import type { Service, Workload } from '../../common/decision/mesh-view.ts';

/** What is known of a connection when it begins. */
export interface JournaledFacts {
  readonly direction: 'inbound' | 'outbound';
  readonly id: string;
  readonly source: SocketAddress;
  readonly sourceWorkload: Workload | undefined;
  readonly sourceIdentity: string | undefined;
  /** What the pod asked for, or what is dialled in it. */
  readonly target: SocketAddress;
  readonly destinationWorkload: Workload | undefined;
  readonly service: Pick<Service, 'hostname' | 'namespace'> | undefined;
  readonly mutualTls: boolean;
}

/** What has become of it. */
export interface JournaledEnd {
  /** That allowed it. */
  readonly policy: string | undefined;
  readonly error: ProxyError | undefined;
  readonly durationMs: number;
  readonly sent: number;
  readonly received: number;
}

export class ConnectionJournal {
  readonly #journal: Journal;
  readonly #now: () => number;
  /** One for all: what is counted is copied out of it. */
  readonly #ending: { -readonly [F in keyof Ending]: Ending[F] } = {
    id: '',
    tunnel: '',
    nowMs: 0,
    durationMs: 0,
    endpoint: '',
    sent: 0,
    received: 0,
    status: 0,
    attempts: 0,
    message: '',
  };

  /** The next connection is like this one more often than not, and keys are long. */
  #last: Keyed | undefined;

  constructor(journal: Journal, now: () => number) {
    this.#journal = journal;
    this.#now = now;
  }

  record(facts: JournaledFacts, end: JournaledEnd): void {
    const { destinationWorkload: to } = facts;
    const { error } = end;
    const policy = error?.policy ?? end.policy ?? '';
    const uid = uidOf(facts);
    if (!this.#last || !sameKey(this.#last, facts, error, policy))
      this.#last = { facts, error, policy, key: keyOf(facts, error, uid, policy) };
    const { key } = this.#last;
    const ending = this.#ending;
    ending.id = facts.id;
    ending.nowMs = this.#now();
    ending.durationMs = end.durationMs;
    ending.endpoint = to ? `${to.namespace}/${to.name}` : '';
    ending.sent = end.sent;
    ending.received = end.received;
    ending.message = error?.message ?? '';
    this.#journal.count(key, ending, () => decisionOf(facts, error, uid, policy));
  }

  /** A connection that goes on: what it was allowed by is to be seen before it ends. */
  running(facts: JournaledFacts, policy = ''): void {
    const uid = uidOf(facts);
    this.#journal.touch(keyOf(facts, undefined, uid, policy), this.#now(), () => decisionOf(facts, undefined, uid, policy));
  }
}

const uidOf = ({ direction, service, destinationWorkload: to }: JournaledFacts): string =>
  direction === 'inbound' || !service ? (to?.uid ?? '') : '';

const keyOf = (
  { direction, source, target, sourceIdentity = '', service }: JournaledFacts,
  error: ProxyError | undefined,
  uid: string,
  policy: string,
): string =>
  `${direction} ${source.ip} ${sourceIdentity} ${uid} ${target.ip} ${target.port} ${service?.hostname ?? ''} ${error?.code ?? ''} ${policy}`;

interface Keyed {
  readonly facts: JournaledFacts;
  readonly error: ProxyError | undefined;
  readonly policy: string;
  readonly key: string;
}

/** Whether the key of these is that one. By identity where the view or a header says the same object twice. */
const sameKey = (of: Keyed, facts: JournaledFacts, error: ProxyError | undefined, policy: string): boolean =>
  of.facts.direction === facts.direction &&
  of.facts.source.ip === facts.source.ip &&
  of.facts.sourceIdentity === facts.sourceIdentity &&
  of.facts.destinationWorkload === facts.destinationWorkload &&
  of.facts.service === facts.service &&
  of.facts.target.ip === facts.target.ip &&
  of.facts.target.port === facts.target.port &&
  of.error?.code === error?.code &&
  of.policy === policy;

function decisionOf(facts: JournaledFacts, error: ProxyError | undefined, uid: string, policy: string): Decision {
  const { direction, source, sourceWorkload: from, sourceIdentity, target, service, destinationWorkload: to, mutualTls } = facts;
  return {
    at: direction,
    source: from ? `${from.namespace}/${from.name}` : '',
    sourceIp: source.ip,
    identity: sourceIdentity ?? '',
    service: service ? `${service.namespace}/${service.hostname}` : '',
    pod: to && uid !== '' ? `${to.namespace}/${to.name}` : '',
    uid,
    ip: target.ip,
    port: target.port,
    mutualTls,
    verdict: verdictOf(error?.code),
    code: error?.code ?? '',
    policy,
    route: '',
  };
}
