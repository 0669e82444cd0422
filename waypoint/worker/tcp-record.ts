/** What is counted and logged about one connection that carries no HTTP. */

import type { Clock } from '../../common/base/clock.ts';
import { outcomes, type ProxyError } from '../../common/base/errors.ts';
import type { Member } from '../../common/base/roster.ts';
import type { TelemetryFacts } from '../../common/decision/telemetry-facts.ts';
import type { EventSink } from '../../common/decision/traffic-event.ts';
import type { Relay } from '../../common/hbone/types.ts';
import type { AccessLog } from '../../common/server/access-log.ts';
import type { MetricFamily } from '../../common/server/metric-family.ts';
import type { SeriesWriter } from '../../common/server/shared-series.ts';
import type { PickedEndpoint } from '../cluster/endpoint.ts';
import type { Connection } from '../http/context.ts';
import { httpOutcome } from '../http/outcomes.ts';
import { metrics } from '../metrics.ts';
import { changedSlot, type OwnTelemetry, tagValues, writeLines } from '../telemetry/own-telemetry.ts';
import { connectionFacts } from '../telemetry/request-facts.ts';
import { connectionFields, connectionLabels } from './describe.ts';
import { tcpEvent } from './events.ts';
import type { WaypointJournal } from './journal.ts';

export interface TcpRecordOptions {
  readonly series: SeriesWriter;
  readonly access: AccessLog;
  readonly clock: Clock;
  readonly events: EventSink;
  readonly journal?: WaypointJournal | undefined;
  readonly own?: OwnTelemetry;
}

/** What rules for connections made of it. */
export interface RoutedConnection {
  /** Of a TLS client hello, where a rule asked for it. */
  readonly serverName: string | undefined;
  readonly routeName: string | undefined;
}

interface ConnectionOfRecord {
  readonly connection: Connection;
  readonly endpoint: PickedEndpoint | undefined;
  readonly id: string;
  readonly routed?: RoutedConnection | undefined;
}

export class TcpRecord implements Member {
  place = -1;
  error: ProxyError | undefined;
  /** namespace/name of the policy that allowed it. */
  policy: string | undefined;
  readonly #options: TcpRecordOptions;
  readonly #facts: ConnectionOfRecord;
  readonly #ended: (record: TcpRecord) => void;
  readonly #startedAt: number;
  readonly #openedAt: number;
  readonly #slots: Readonly<Record<'opened' | 'closed' | 'received' | 'sent', number | undefined>>;
  #relay: Pick<Relay, 'forward' | 'backward'> | undefined;
  #forward = 0;
  #backward = 0;

  constructor(options: TcpRecordOptions, facts: ConnectionOfRecord, ended: (record: TcpRecord) => void) {
    const { clock, own } = options;
    this.#options = options;
    this.#facts = facts;
    this.#ended = ended;
    this.#startedAt = clock.monotonic();
    this.#openedAt = clock.now();
    const labels = this.#labels('-');
    const { connection, endpoint } = facts;
    const changes = own?.of(connection.target.serviceKey)?.metrics;
    const values = own && changes ? tagValues(changes, { ...connectionFacts(connection, endpoint, own.identity), ...facts.routed }) : [];
    const slot = (family: MetricFamily): number | undefined =>
      changes ? changedSlot(options.series, { family }, labels, changes, values) : options.series.slot(family, labels);
    this.#slots = {
      opened: slot(metrics.tcpOpened),
      closed: slot(metrics.tcpClosed),
      received: slot(metrics.tcpReceived),
      sent: slot(metrics.tcpSent),
    };
    this.#add(this.#slots.opened, 1);
    this.#happened('opened');
  }

  get slots(): number[] {
    return Object.values(this.#slots).filter((slot) => slot !== undefined);
  }

  /** Client to server is `forward`. */
  running(relay: Pick<Relay, 'forward' | 'backward'>): void {
    this.#relay = relay;
  }

  flush(): void {
    if (!this.#relay) return;
    const { forward, backward } = this.#relay;
    this.#add(this.#slots.received, forward - this.#forward);
    this.#add(this.#slots.sent, backward - this.#backward);
    this.#forward = forward;
    this.#backward = backward;
  }

  /** Tells the journal that it goes on, for somebody who asks it now. */
  journalRunning(): void {
    if (this.#relay) this.#options.journal?.running(this.#facts.connection, this.policy);
  }

  /** Exactly once. */
  ended(error?: ProxyError): void {
    this.error = error;
    this.flush();
    const { clock, journal, own } = this.#options;
    journal?.connection({
      ...this.#facts,
      policy: this.policy,
      error,
      durationMs: clock.monotonic() - this.#startedAt,
      sent: this.#forward,
      received: this.#backward,
    });
    this.#add(this.#slots.closed, 1);
    const loggers = own?.of(this.#facts.connection.target.serviceKey)?.loggers;
    if (own && loggers) writeLines(own, loggers, this.#told(own.identity));
    else this.#writeLine();
    this.#happened('closed');
    this.#ended(this);
  }

  #add(slot: number | undefined, amount: number): void {
    if (slot !== undefined) this.#options.series.add(slot, amount);
  }

  #told(identity: string): TelemetryFacts {
    const { connection, endpoint, id, routed } = this.#facts;
    const { error } = this;
    const outcome = error && httpOutcome(error.code);
    return {
      ...connectionFacts(connection, endpoint, identity),
      ...routed,
      startedAt: this.#openedAt,
      durationMs: this.#options.clock.monotonic() - this.#startedAt,
      responseFlags: outcome?.flag ?? '-',
      responseCodeDetails: outcome?.details,
      bytesReceived: this.#forward,
      bytesSent: this.#backward,
      upstreamFailure: outcome?.flag.startsWith('U') ? error?.message : undefined,
      traceId: id,
      code: error?.code,
      policy: error?.policy ?? this.policy,
    };
  }

  #writeLine(): void {
    const { access, clock } = this.#options;
    const { error } = this;
    const level = error ? outcomes[error.code].level : 'info';
    access.write(level, 'connection complete', () => {
      const { connection, endpoint, id } = this.#facts;
      return [
        ...connectionFields(connection, endpoint),
        ['response_flags', error ? httpOutcome(error.code).flag : '-'],
        ['bytes_received', this.#forward],
        ['bytes_sent', this.#backward],
        ['duration', Math.round(clock.monotonic() - this.#startedAt)],
        ['error', error?.message],
        ['id', id],
        ['warren.code', error?.code],
        ['warren.policy', error?.policy],
      ];
    });
  }

  #happened(type: 'opened' | 'closed'): void {
    const { events, clock } = this.#options;
    if (!events.wanted) return;
    const { connection, endpoint, id } = this.#facts;
    const durationMs = Math.round((clock.monotonic() - this.#startedAt) * 1000) / 1000;
    const measured = { bytesForward: this.#forward, bytesBackward: this.#backward, durationMs };
    events.take(tcpEvent(connection, endpoint, { type, timeMs: clock.now(), id, ...measured, error: this.error }));
  }

  #labels(flag: string): string[] {
    const { connection, endpoint } = this.#facts;
    const { caller, target } = connection;
    return [...connectionLabels(caller, target.service, endpoint?.workload ?? target.workload), 'tcp', flag];
  }
}
