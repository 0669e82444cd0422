/**
 * Port 15008: TLS with the waypoint's certificate, the caller's identity, and for each CONNECT the decision whether what it asks for is bound
 * to this waypoint.
 */
import { createServer as createTcpServer, type Socket, type Server as TcpServer } from 'node:net';
import { createServer, type Server, type TLSSocket } from 'node:tls';
import { formatSocketAddress, type SocketAddress } from '../../common/base/address.ts';
import type { Clock } from '../../common/base/clock.ts';
import { errorMessage, outcomes, ProxyError } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';
import { socketEnds } from '../../common/base/socket-ends.ts';
import { formatSpiffeId, type SpiffeId } from '../../common/base/spiffe.ts';
import { formatBaggage, parseBaggage, traceIdOf } from '../../common/decision/headers.ts';
import { type MeshView, serviceKey, type Workload } from '../../common/decision/mesh-view.ts';
import { refusalHeaders } from '../../common/hbone/refusal-header.ts';
import { HboneServerConnection } from '../../common/hbone/server.ts';
import type { ConnectRequest, HboneLimits, Headers } from '../../common/hbone/types.ts';
import { belongsToTrustDomain, firstSpiffeId, MESH_ALPN, peerUris } from '../../common/tls/mesh-tls.ts';
import type { ReadyCertificate, WorkerCertificates } from '../../common/tls/worker-certificates.ts';
import type { Caller, Connection, Target } from '../http/context.ts';
import type { Telemetry } from '../worker/telemetry.ts';
import { type Binding, resolveBinding, type WaypointName } from './binding.ts';
import type { Connections } from './connection.ts';
import { Shedder } from './rebalance.ts';

export interface HboneInboundOptions {
  readonly identity: string;
  readonly trustDomain: string;
  readonly network: string;
  readonly view: MeshView;
  readonly waypoint: () => WaypointName;
  readonly self: () => Workload;
  readonly certificates: WorkerCertificates;
  readonly connections: Connections;
  readonly telemetry: Pick<Telemetry, 'connectionRefused' | 'connectionOpened' | 'connectionClosed'>;
  readonly clock: Clock;
  readonly log: Log;
  readonly limits: HboneLimits;
  readonly maxConnections: number;
  readonly random: () => number;
  randomHex(digits: number): string;
}

const HANDSHAKE_TIMEOUT_MS = 10_000;

interface Peer {
  readonly remote: SocketAddress;
  readonly local: SocketAddress;
  readonly identity: SpiffeId;
}

export class HboneInbound {
  readonly #options: HboneInboundOptions;
  readonly #ended = new AbortController();
  readonly #tunnels = new Set<HboneServerConnection>();
  readonly #handshaking = new Set<Socket>();
  readonly #shedder: Shedder<HboneServerConnection>;
  #listener: TcpServer | undefined;
  #tls: Promise<Server> | undefined;
  #draining = false;

  constructor(options: HboneInboundOptions) {
    this.#options = options;
    this.#shedder = new Shedder(() => this.#tunnels, options);
  }

  /** @throws {Error} naming the port where it is taken */
  async listen(host: string, port: number): Promise<void> {
    const server = createTcpServer({ pauseOnConnect: true, allowHalfOpen: true, noDelay: true }, (socket) => void this.#accept(socket));
    server.maxConnections = this.#options.maxConnections;
    this.#listener = server;
    await listening(server, host, port);
    server.on('error', (error) => this.#options.log.error({ port, error: error.message }, 'listener failed'));
  }

  /** A part of the peers is asked to open its next tunnels on connections of their own, which may lead elsewhere. @returns how many */
  shed(part: number): number {
    return this.#shedder.shed(part);
  }

  /** Peers open no more tunnels on the connections that they have. */
  drain(): void {
    this.#draining = true;
    for (const tunnel of this.#tunnels) tunnel.drain();
  }

  close(): void {
    this.#listener?.close();
  }

  /** Ends whatever is open. */
  destroy(error: ProxyError): void {
    this.close();
    this.#ended.abort(error);
    for (const tunnel of [...this.#tunnels]) tunnel.destroy(error);
    for (const socket of this.#handshaking) socket.destroy();
  }

  async #accept(socket: Socket): Promise<void> {
    socket.on('error', () => undefined);
    const ends = socketEnds(socket);
    if (!ends) {
      socket.destroy();
      return;
    }
    this.#handshaking.add(socket);
    socket.once('close', () => this.#handshaking.delete(socket));
    try {
      this.#tls ??= this.#createTls().catch((error: unknown) => {
        this.#tls = undefined;
        throw error;
      });
      const server = await this.#tls;
      if (!socket.destroyed) server.emit('connection', socket);
    } catch (error) {
      socket.destroy();
      this.#refused(ends.remote, ProxyError.from(error, 'TLS_FAILURE', 'TLS cannot be served'));
    }
  }

  async #createTls(): Promise<Server> {
    const { certificates, identity } = this.#options;
    const ready = await certificates.get(identity, this.#ended.signal);
    const server = this.#tlsServer(ready);
    const unwatch = certificates.watch(identity, (renewed) => {
      if (renewed) server.setSecureContext(renewed.options);
      else {
        // What is gone is asked for again by the next connection.
        unwatch();
        this.#tls = undefined;
      }
    });
    return server;
  }

  /** Never listens: connections come from the listener, which works before there is a certificate. */
  #tlsServer(ready: ReadyCertificate): Server {
    const server = createServer({
      ...ready.options,
      requestCert: true,
      // Looked at once the handshake is over, so that the log can say what was wrong with it.
      rejectUnauthorized: false,
      ALPNProtocols: MESH_ALPN,
      handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
    });
    server.on('secureConnection', (tls) => this.#secured(tls));
    server.on('tlsClientError', (error, tls) => {
      tls.on('error', () => undefined);
      const remote = socketEnds(tls)?.remote;
      tls.destroy();
      if (remote) this.#refused(remote, new ProxyError('TLS_FAILURE', `TLS handshake failed: ${errorMessage(error)}`, { cause: error }));
    });
    return server;
  }

  #secured(tls: TLSSocket): void {
    tls.on('error', () => undefined);
    const { trustDomain, limits, clock, telemetry, log } = this.#options;
    const ends = socketEnds(tls);
    const uris = peerUris(tls);
    const identity = firstSpiffeId(uris);
    if (!ends || this.#ended.signal.aborted) {
      tls.destroy();
      return;
    }
    if (!tls.authorized || !identity || !belongsToTrustDomain(uris, trustDomain)) {
      const why = tls.authorized
        ? `identity verification error: peer presented ${uris.join(', ') || 'no identity'}, expected trust domain ${trustDomain}`
        : `the peer's certificate was not accepted: ${errorMessage(tls.authorizationError ?? 'none was sent')}`;
      tls.destroy();
      this.#refused(ends.remote, new ProxyError('TLS_FAILURE', why));
      return;
    }
    const peer: Peer = { remote: ends.remote, local: ends.local, identity };
    const tunnel: HboneServerConnection = new HboneServerConnection(tls, {
      limits,
      clock,
      onConnect: (request) => {
        this.#connect(peer, request).catch((error: unknown) => {
          // A fault of ours, not the peer's: this tunnel is lost, the worker goes on.
          log.error({ error: errorMessage(error) }, 'tunnel handler failed');
        });
      },
      onClose: (error) => {
        this.#tunnels.delete(tunnel);
        telemetry.connectionClosed();
        if (error?.code === 'HTTP2_FAILURE') this.#refused(peer.remote, error);
      },
    });
    this.#tunnels.add(tunnel);
    telemetry.connectionOpened();
    if (this.#draining) tunnel.drain();
  }

  async #connect(peer: Peer, request: ConnectRequest): Promise<void> {
    const { view, network, waypoint, self, connections, telemetry, maxConnections } = this.#options;
    const received = request.headers.find(([name]) => name === 'traceparent')?.[1];
    const id = (received === undefined ? undefined : traceIdOf(received)) ?? this.#options.randomHex(32);
    const principal = formatSpiffeId(peer.identity);
    const binding: Binding =
      request.method === 'CONNECT'
        ? resolveBinding(view, { waypoint: waypoint(), network, authority: request.authority, callerNamespace: peer.identity.namespace })
        : { refuse: 'BAD_REQUEST', message: `expected CONNECT, got ${request.method.slice(0, 32)}` };
    const refusal =
      'refuse' in binding
        ? new ProxyError(binding.refuse, binding.message)
        : connections.size >= maxConnections
          ? new ProxyError('OVERLOADED', `${maxConnections} connections are open already`)
          : undefined;
    if (refusal || 'refuse' in binding) {
      const error = refusal ?? new ProxyError('BAD_REQUEST', 'refused');
      const { status = 503 }: { readonly status?: number } = outcomes[error.code];
      request.refuse(status, refusalHeaders(error, id, peer.identity, waypoint().namespace));
      telemetry.connectionRefused({ source: formatSocketAddress(peer.remote), authority: request.authority, principal, error, id });
      return;
    }
    const caller: Caller = {
      address: peer.remote,
      identity: peer.identity,
      principal,
      workload: sourceWorkload(view, network, peer, request.headers),
      baggage: parseBaggage(fields(request.headers, 'baggage')),
    };
    const connection: Connection = { caller, target: targetOf(binding), local: peer.local, id };
    connections.serve(request.accept([['baggage', formatBaggage(self())]]), connection, id);
  }

  #refused(remote: SocketAddress, error: ProxyError): void {
    this.#options.telemetry.connectionRefused({ source: formatSocketAddress(remote), error });
  }
}

/** Where the caller comes from another network, its address means nothing in ours. */
function sourceWorkload(view: MeshView, network: string, peer: Peer, headers: Headers): Workload | undefined {
  const [from] = fields(headers, 'x-forwarded-network');
  if (from !== undefined && from.toLowerCase() !== network.toLowerCase()) return undefined;
  return view.workloadByAddress(network, peer.remote.ip);
}

const fields = (headers: Headers, name: string): string[] => headers.filter(([key]) => key === name).map(([, value]) => value);

export function targetOf(binding: Exclude<Binding, { refuse: unknown }>): Target {
  if ('service' in binding) {
    const { service, port, ip } = binding;
    return {
      serviceKey: serviceKey(service),
      service,
      workload: undefined,
      port,
      ip,
      namespace: service.namespace,
      protocol: service.appProtocols.get(port),
    };
  }
  const { workload, port, ip } = binding;
  return { serviceKey: undefined, service: undefined, workload, port, ip, namespace: workload.namespace, protocol: undefined };
}

/** Workers listen on the same port, and the kernel spreads connections over them. @throws {Error} naming the port where it is taken */
export function listening(server: TcpServer, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error) => reject(new Error(`cannot listen on port ${port}: ${error.message}`, { cause: error })));
    server.listen({ host, port, reusePort: true }, () => {
      server.removeAllListeners('error');
      resolve();
    });
  });
}
