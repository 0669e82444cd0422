/** A connection that carries no HTTP: judged by what policies say of connections, and carried to one endpoint as it is. */
import type { Clock, Timer } from '../../common/base/clock.ts';
import { ProxyError } from '../../common/base/errors.ts';
import type { Member } from '../../common/base/roster.ts';
import { type ClientHello, readClientHello } from '../../common/codec/client-hello.ts';
import { matchConnection, rulesNeedServerName } from '../../common/decision/connection-route.ts';
import { decideHttp, policiesNeedServerName, type ServerName } from '../../common/decision/http-authorization.ts';
import { chooseBackend } from '../../common/decision/http-route.ts';
import type { MeshView } from '../../common/decision/mesh-view.ts';
import { relay } from '../../common/hbone/relay.ts';
import type { Pipe, Relay } from '../../common/hbone/types.ts';
import { peek } from '../../common/http/sniff.ts';
import type { Dialer } from '../cluster/dial.ts';
import type { PickedEndpoint } from '../cluster/endpoint.ts';
import type { EndpointPicker } from '../cluster/picker.ts';
import type { Backend, Connection } from '../http/context.ts';
import { routeSource } from '../http/route.ts';
import type { Configuration } from '../worker/configuration.ts';
import type { RoutedConnection, TcpRecord } from '../worker/tcp-record.ts';
import type { Telemetry } from '../worker/telemetry.ts';

export interface PassthroughParts {
  readonly configuration: Pick<Configuration, 'transportPoliciesOf' | 'routesOf' | 'labelOf' | 'labelAt'>;
  readonly view: Pick<MeshView, 'serviceByKey'>;
  readonly picker: Pick<EndpointPicker, 'pick' | 'alone' | 'size' | 'original' | 'keepsDestination'>;
  readonly clock: Clock;
  /** How long a client of a port that was not declared to be TLS may stay silent before its server is taken to speak first. */
  readonly sniffTimeoutMs: number;
  readonly random: () => number;
  readonly dialer: Pick<Dialer, 'connect'>;
  readonly telemetry: Pick<Telemetry, 'tcpOpened'>;
}

/** Endpoints that a connection is offered to because those before could not be reached. */
const MAX_ENDPOINTS = 3;
const LOOKS_PER_LIMIT = 8;
/** A client of TLS speaks first. */
const HELLO_MS = 10_000;
const NO_REQUEST = { method: '', scheme: '', authority: '', path: '', fields: [] } as const;

/** One such connection, from its first decision to its end. */
export class Passthrough implements Member {
  place = -1;
  readonly #parts: PassthroughParts;
  readonly #pipe: Pipe;
  readonly #connection: Connection;
  readonly #id: string;
  readonly #abort = new AbortController();
  #relay: Relay | undefined;
  /** How the client began, once somebody had to know; undefined where it has not said it in time. */
  #hello: ClientHello | 'none' | undefined;
  /** What its rules had to know, and the one that took it. */
  #routed: RoutedConnection | undefined;

  constructor(parts: PassthroughParts, pipe: Pipe, connection: Connection, id: string) {
    this.#parts = parts;
    this.#pipe = pipe;
    this.#connection = connection;
    this.#id = id;
  }

  /** Resolves when it is over; never rejects for what peers or the network did. */
  async run(): Promise<void> {
    let record: TcpRecord | undefined;
    let connected: PickedEndpoint | undefined;
    let policy: string | undefined;
    let limits: readonly Timer[] = [];
    try {
      if (policiesNeedServerName(this.#policies)) {
        const hello = await this.#readHello();
        this.#routed = { serverName: hello?.serverName, routeName: undefined };
      }
      policy = this.#authorize();
      const { endpoint, upstream } = await this.#connect();
      record = this.#parts.telemetry.tcpOpened(this.#connection, endpoint, this.#id, this.#routed);
      record.policy = policy;
      connected = endpoint;
      connected.cluster.connections++;
      this.#relay = relay(this.#pipe, upstream);
      if (this.#abort.signal.aborted) this.#relay.abort(this.#abort.signal.reason as ProxyError);
      record.running(this.#relay);
      limits = [...this.#limitAge(endpoint), ...this.#limitSilence(endpoint, this.#relay)];
      const { error } = await this.#relay.done;
      record.ended(error);
    } catch (reason) {
      const error = ProxyError.from(reason, 'CONNECTION_LOST', 'connection failed');
      record ??= this.#parts.telemetry.tcpOpened(this.#connection, undefined, this.#id, this.#routed);
      record.ended(error);
      this.#pipe.destroy(error);
    } finally {
      for (const timer of limits) timer.cancel();
      if (connected) connected.cluster.connections--;
    }
  }

  #limitAge({ cluster }: PickedEndpoint): Timer[] {
    const limitMs = cluster.policy?.pool?.maxConnectionDurationMs ?? 0;
    if (limitMs === 0) return [];
    const over = new ProxyError('TIME_OVER', `${cluster.name} lets no connection become older than ${limitMs / 1000} s`);
    return [this.#parts.clock.after(limitMs, () => this.abort(over))];
  }

  /** Looks now and then instead of at every byte: it ends an eighth of the limit late at most. */
  #limitSilence({ cluster }: PickedEndpoint, carried: Relay): Timer[] {
    const limitMs = cluster.policy?.pool?.tcpIdleTimeoutMs ?? 0;
    if (limitMs === 0) return [];
    const { clock } = this.#parts;
    let seen = 0;
    let since = clock.monotonic();
    const look = (): void => {
      const bytes = carried.forward + carried.backward;
      const now = clock.monotonic();
      if (bytes !== seen) [seen, since] = [bytes, now];
      if (now - since < limitMs) timer = clock.after(limitMs / LOOKS_PER_LIMIT, look);
      else this.abort(new ProxyError('TIME_OVER', `${cluster.name} lets no connection be silent for ${limitMs / 1000} s`));
    };
    let timer = clock.after(limitMs / LOOKS_PER_LIMIT, look);
    return [{ cancel: () => timer.cancel() }];
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

  /** @returns the policy that allowed it. @throws {ProxyError} POLICY_DENIED */
  #authorize(): string | undefined {
    const { caller, target } = this.#connection;
    const verdict = decideHttp(
      this.#policies,
      NO_REQUEST,
      { identity: caller.identity, ip: caller.address.ip, serverName: this.#serverName },
      { service: target.serviceKey, ip: target.ip, port: target.port },
    );
    if (!verdict.allowed)
      throw new ProxyError('POLICY_DENIED', verdict.reason, verdict.policy === undefined ? {} : { policy: verdict.policy });
    return verdict.policy;
  }

  get #policies(): ReturnType<Configuration['transportPoliciesOf']> {
    return this.#parts.configuration.transportPoliciesOf(this.#connection.target.serviceKey);
  }

  /** For policies: a client that says nothing, or half of it, must not get past a DENY by that, nor by having begun before there was one. */
  get #serverName(): ServerName | undefined {
    const hello = this.#hello;
    if (hello === undefined) return 'unknown';
    return hello === 'none' ? undefined : { is: hello.serverName ?? '' };
  }

  /** Waits for the client's first bytes. They stay where they are. */
  async #readHello(timeoutMs = this.#speaksFirst ? HELLO_MS : this.#parts.sniffTimeoutMs): Promise<ClientHello | undefined> {
    const { clock } = this.#parts;
    if (this.#hello === undefined) this.#hello = await peek(this.#pipe, { timeoutMs, clock }, readClientHello, undefined);
    return this.#hello === 'none' ? undefined : this.#hello;
  }

  get #speaksFirst(): boolean {
    return this.#connection.target.protocol === 'TLS';
  }

  async #connect(): Promise<{ endpoint: PickedEndpoint; upstream: Pipe }> {
    const { dialer, picker, clock } = this.#parts;
    const { caller, target } = this.#connection;
    const { service, workload, port, subset } = await this.#backend();
    const refused = new Set<string>();
    for (;;) {
      const keeps = service !== undefined && service === target.service && picker.keepsDestination(service, port, subset);
      const endpoint =
        keeps && target.ip !== undefined
          ? picker.original(service, port, target.ip)
          : service
            ? picker.pick(service, port, refused, subset)
            : workload && picker.alone(workload, port);
      if (!endpoint) throw new ProxyError('NO_HEALTHY_UPSTREAM', `no healthy upstream: ${service?.hostname ?? target.ip} port ${port}`);
      const { cluster, key, load } = endpoint;
      try {
        if (cluster.policy?.refuse) throw new ProxyError('BACKEND_INVALID', `${cluster.policy.origin}: ${cluster.policy.refuse}`);
        if (cluster.connections >= cluster.limit('maxConnections')) {
          throw new ProxyError('OVERLOADED', `${cluster.name} has ${cluster.connections} connections, which is its limit`);
        }
        const upstream = await dialer.connect(endpoint, this.#abort.signal, caller);
        cluster.report(key, load, 'ok', clock.monotonic());
        return { endpoint, upstream };
      } catch (error) {
        refused.add(key);
        if (!(error instanceof ProxyError && NOT_THE_ENDPOINTS.has(error.code)))
          cluster.report(key, load, 'local-failure', clock.monotonic());
        const others = service !== undefined && picker.size(service, port, subset) > refused.size;
        if (this.#abort.signal.aborted || !others || refused.size >= MAX_ENDPOINTS) throw error;
      }
    }
  }

  /** The service that was asked for, or where its rules for connections lead. */
  async #backend(): Promise<Backend> {
    const { configuration, view, random } = this.#parts;
    const { caller, target } = this.#connection;
    const routes = target.serviceKey === undefined ? undefined : configuration.routesOf(target.serviceKey)?.connections;
    const rules = routes?.get(target.port) ?? routes?.get(0);
    if (!rules) return { service: target.service, workload: target.workload, port: target.port, subset: '' };
    const hello = rulesNeedServerName(rules) ? await this.#readHello(HELLO_MS) : undefined;
    const serverName = hello?.serverName;
    this.#routed = { serverName, routeName: undefined };
    const rule = matchConnection(rules, { serverName, ip: target.ip, source: routeSource(configuration, caller) });
    if (!rule) {
      const said = serverName === undefined ? '' : ` for ${serverName}`;
      throw new ProxyError('ROUTE_UNMATCHED', `no route of ${target.serviceKey} port ${target.port} takes a connection${said}`);
    }
    this.#routed = { serverName, routeName: rule.name };
    const to = chooseBackend(rule, random)?.to;
    const service = to && view.serviceByKey(to.namespace, to.hostname);
    if (!to || !service) throw new ProxyError('BACKEND_INVALID', `${rule.name} chose a backend that is not valid`);
    return { service, workload: undefined, port: to.port, subset: to.subset };
  }
}

/** What a limit or a setting of ours refuses says nothing of the endpoint. */
const NOT_THE_ENDPOINTS: ReadonlySet<string> = new Set(['OVERLOADED', 'BACKEND_INVALID', 'CLIENT_GONE', 'DRAINED']);
