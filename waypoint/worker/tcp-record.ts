/** What is counted and logged about one connection that carries no HTTP. */

import type { Clock } from '../../common/base/clock.ts';
import { outcomes, type ProxyError } from '../../common/base/errors.ts';
import type { EventSink } from '../../common/decision/traffic-event.ts';
import type { Relay } from '../../common/hbone/types.ts';
import type { AccessLog } from '../../common/server/access-log.ts';
import type { SeriesWriter } from '../../common/server/shared-series.ts';
import type { PickedEndpoint } from '../cluster/endpoint.ts';
import type { Connection } from '../http/context.ts';
import { httpOutcome } from '../http/outcomes.ts';
import { metrics } from '../metrics.ts';
import { connectionFields, peerLabels } from './describe.ts';
import { tcpEvent } from './events.ts';
import type { WaypointJournal } from './journal.ts';

export interface TcpRecordOptions {
  readonly series: SeriesWriter;
  readonly access: AccessLog;
  readonly clock: Clock;
  readonly events: EventSink;
  readonly journal?: WaypointJournal | undefined;
}

export class TcpRecord {
  error: ProxyError | undefined;
  /** namespace/name of the policy that allowed it. */
  policy: string | undefined;
  readonly #options: TcpRecordOptions;
  readonly #facts: { readonly connection: Connection; readonly endpoint: PickedEndpoint | undefined; readonly id: string };
  readonly #ended: (record: TcpRecord) => void;
  readonly #startedAt: number;
  readonly #slots: { readonly opened: number; readonly closed: number; readonly received: number; readonly sent: number };
  #relay: Pick<Relay, 'forward' | 'backward'> | undefined;
  #forward = 0;
  #backward = 0;

  constructor(
    options: TcpRecordOptions,
    facts: { connection: Connection; endpoint: PickedEndpoint | undefined; id: string },
    ended: (record: TcpRecord) => void,
  ) {
    const { series, clock } = options;
    this.#options = options;
    this.#facts = facts;
    this.#ended = ended;
    this.#startedAt = clock.monotonic();
    const labels = this.#labels('-');
    this.#slots = {
      opened: series.slot(metrics.tcpOpened, labels),
      closed: series.slot(metrics.tcpClosed, labels),
      received: series.slot(metrics.tcpReceived, labels),
      sent: series.slot(metrics.tcpSent, labels),
    };
    series.add(this.#slots.opened, 1);
    this.#happened('opened');
  }

  get slots(): number[] {
    return Object.values(this.#slots);
  }

  /** Client to server is `forward`. */
  running(relay: Pick<Relay, 'forward' | 'backward'>): void {
    this.#relay = relay;
  }

  flush(): void {
    if (!this.#relay) return;
    const { series } = this.#options;
    const { forward, backward } = this.#relay;
    series.add(this.#slots.received, forward - this.#forward);
    series.add(this.#slots.sent, backward - this.#backward);
    this.#forward = forward;
    this.#backward = backward;
  }

  /** Exactly once. */
  ended(error?: ProxyError): void {
    this.error = error;
    this.flush();
    const { series, access, clock, journal } = this.#options;
    journal?.connection({
      ...this.#facts,
      policy: this.policy,
      error,
      durationMs: clock.monotonic() - this.#startedAt,
      sent: this.#forward,
      received: this.#backward,
    });
    series.add(this.#slots.closed, 1);
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
    this.#happened('closed');
    this.#ended(this);
  }

  #happened(type: 'opened' | 'closed'): void {
    const { events, clock } = this.#options;
    if (!events.wanted) return;
    const { connection, endpoint, id } = this.#facts;
    const measured = { bytesForward: this.#forward, bytesBackward: this.#backward, durationMs: clock.monotonic() - this.#startedAt };
    events.take(tcpEvent(connection, endpoint, { type, timeMs: clock.now(), id, ...measured, error: this.error }));
  }

  #labels(flag: string): string[] {
    const { connection, endpoint } = this.#facts;
    const { caller, target } = connection;
    return [...peerLabels(caller, target.service, endpoint?.workload ?? target.workload), 'tcp', flag];
  }
}
