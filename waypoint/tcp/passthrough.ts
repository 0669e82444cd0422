/** A connection that carries no HTTP: judged by what policies say of connections, and carried to one endpoint as it is. */
import { ProxyError } from '../../common/base/errors.ts';
import { decideHttp } from '../../common/decision/http-authorization.ts';
import { relay } from '../../common/hbone/relay.ts';
import type { Pipe, Relay } from '../../common/hbone/types.ts';
import type { Dialer } from '../cluster/dial.ts';
import type { PickedEndpoint } from '../cluster/endpoint.ts';
import type { EndpointPicker } from '../cluster/picker.ts';
import type { Connection } from '../http/context.ts';
import type { Configuration } from '../worker/configuration.ts';
import type { TcpRecord } from '../worker/tcp-record.ts';
import type { Telemetry } from '../worker/telemetry.ts';

export interface PassthroughParts {
  readonly configuration: Pick<Configuration, 'transportPoliciesOf'>;
  readonly picker: Pick<EndpointPicker, 'pick' | 'alone' | 'size'>;
  readonly dialer: Pick<Dialer, 'connect'>;
  readonly telemetry: Pick<Telemetry, 'tcpOpened'>;
}

/** Endpoints that a connection is offered to because those before could not be reached. */
const MAX_ENDPOINTS = 3;
const NO_REQUEST = { method: '', scheme: '', authority: '', path: '', fields: [] } as const;

/** One such connection, from its first decision to its end. */
export class Passthrough {
  readonly #parts: PassthroughParts;
  readonly #pipe: Pipe;
  readonly #connection: Connection;
  readonly #id: string;
  readonly #abort = new AbortController();
  #relay: Relay | undefined;

  constructor(parts: PassthroughParts, pipe: Pipe, connection: Connection, id: string) {
    this.#parts = parts;
    this.#pipe = pipe;
    this.#connection = connection;
    this.#id = id;
  }

  /** Resolves when it is over; never rejects for what peers or the network did. */
  async run(): Promise<void> {
    let record: TcpRecord | undefined;
    try {
      this.#authorize();
      const { endpoint, upstream } = await this.#connect();
      record = this.#parts.telemetry.tcpOpened(this.#connection, endpoint, this.#id);
      this.#relay = relay(this.#pipe, upstream);
      if (this.#abort.signal.aborted) this.#relay.abort(this.#abort.signal.reason as ProxyError);
      record.running(this.#relay);
      const { error } = await this.#relay.done;
      record.ended(error);
    } catch (reason) {
      const error = ProxyError.from(reason, 'CONNECTION_LOST', 'connection failed');
      record ??= this.#parts.telemetry.tcpOpened(this.#connection, undefined, this.#id);
      record.ended(error);
      this.#pipe.destroy(error);
    }
  }

  /** Looks at it again under today's policies, and ends it where they no longer allow it. */
  recheck(): void {
    try {
      this.#authorize();
    } catch (reason) {
      const { policy, message } = ProxyError.from(reason, 'POLICY_DENIED', 'policy');
      this.abort(new ProxyError('POLICY_REVOKED', message, policy === undefined ? {} : { policy }));
    }
  }

  abort(error: ProxyError): void {
    this.#abort.abort(error);
    this.#relay?.abort(error);
  }

  /** @throws {ProxyError} POLICY_DENIED */
  #authorize(): void {
    const { caller, target } = this.#connection;
    const verdict = decideHttp(
      this.#parts.configuration.transportPoliciesOf(target.serviceKey),
      NO_REQUEST,
      { identity: caller.identity, ip: caller.address.ip },
      { service: target.serviceKey, ip: target.ip, port: target.port },
    );
    if (!verdict.allowed)
      throw new ProxyError('POLICY_DENIED', verdict.reason, verdict.policy === undefined ? {} : { policy: verdict.policy });
  }

  async #connect(): Promise<{ endpoint: PickedEndpoint; upstream: Pipe }> {
    const { dialer, picker } = this.#parts;
    const { caller, target } = this.#connection;
    const refused = new Set<string>();
    for (;;) {
      const endpoint = target.service
        ? picker.pick(target.service, target.port, refused)
        : target.workload && picker.alone(target.workload, target.port);
      if (!endpoint)
        throw new ProxyError('NO_HEALTHY_UPSTREAM', `no healthy upstream: ${target.serviceKey ?? target.ip} port ${target.port}`);
      try {
        return { endpoint, upstream: await dialer.connect(endpoint, this.#abort.signal, caller) };
      } catch (error) {
        refused.add(endpoint.key);
        const others = target.service !== undefined && picker.size(target.service, target.port) > refused.size;
        if (this.#abort.signal.aborted || !others || refused.size >= MAX_ENDPOINTS) throw error;
      }
    }
  }
}
