/** What this worker's part of the decision journal is told of connections: once for each, when it ends. */
import type { SocketAddress } from '../../common/base/address.ts';
import type { ProxyError } from '../../common/base/errors.ts';
import { type Decision, type Ending, type Journal, verdictOf } from '../../common/decision/journal.ts';
import type { Service, Workload } from '../../common/decision/mesh-view.ts';

export interface JournaledConnection {
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

  constructor(journal: Journal, now: () => number) {
    this.#journal = journal;
    this.#now = now;
  }

  record(made: JournaledConnection): void {
    const { destinationWorkload: to, error } = made;
    const policy = error?.policy ?? made.policy ?? '';
    const uid = uidOf(made);
    const key = keyOf(made, uid, policy);
    const ending = this.#ending;
    ending.id = made.id;
    ending.nowMs = this.#now();
    ending.durationMs = made.durationMs;
    ending.endpoint = to ? `${to.namespace}/${to.name}` : '';
    ending.sent = made.sent;
    ending.received = made.received;
    ending.message = error?.message ?? '';
    this.#journal.count(key, ending, () => decisionOf(made, uid, policy));
  }

  /** A connection that goes on: what it was allowed by is to be seen before it ends. */
  running(made: JournaledConnection): void {
    const { policy = '' } = made;
    const uid = uidOf(made);
    this.#journal.touch(keyOf(made, uid, policy), this.#now(), () => decisionOf(made, uid, policy));
  }
}

const uidOf = ({ direction, service, destinationWorkload: to }: JournaledConnection): string =>
  direction === 'inbound' || !service ? (to?.uid ?? '') : '';

const keyOf = (
  { direction, source, target, sourceIdentity = '', service, error }: JournaledConnection,
  uid: string,
  policy: string,
): string =>
  `${direction} ${source.ip} ${sourceIdentity} ${uid} ${target.ip} ${target.port} ${service?.hostname ?? ''} ${error?.code ?? ''} ${policy}`;

function decisionOf(made: JournaledConnection, uid: string, policy: string): Decision {
  const { direction, source, sourceWorkload: from, sourceIdentity, target, service, destinationWorkload: to, mutualTls, error } = made;
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
