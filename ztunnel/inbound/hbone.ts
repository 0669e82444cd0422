/**
 * Port 15008 of a pod: TLS with the pod's certificate, the peer's identity, and for each CONNECT on the connection the decision whether and
 * where it is delivered (Istio's ztunnel, src/proxy/inbound.rs).
 */
import type { Socket } from 'node:net';
import { createServer, type Server, type TLSSocket } from 'node:tls';
import { formatSocketAddress, type SocketAddress } from '../../common/base/address.ts';
import { errorMessage, outcomes, ProxyError } from '../../common/base/errors.ts';
import { socketEnds } from '../../common/base/socket-ends.ts';
import { formatSpiffeId, type SpiffeId } from '../../common/base/spiffe.ts';
import { formatBaggage, parseBaggage, parseForwardedHost, traceIdOf } from '../../common/decision/headers.ts';
import { inboundService, resolveInbound } from '../../common/decision/inbound.ts';
import type { MeshView, Workload } from '../../common/decision/mesh-view.ts';
import { beginInTurn } from '../../common/hbone/app-socket.ts';
import { refusalHeaders } from '../../common/hbone/refusal-header.ts';
import { relay } from '../../common/hbone/relay.ts';
import { HboneServerConnection } from '../../common/hbone/server.ts';
import type { Lane } from '../../common/hbone/turn-shares.ts';
import type { ConnectRequest, HboneLimits, Headers } from '../../common/hbone/types.ts';
import { defaultServerLimits } from '../../common/hbone/types.ts';
import { belongsToTrustDomain, firstSpiffeId, MESH_ALPN, peerUris } from '../../common/tls/mesh-tls.ts';
import type { ReadyCertificate } from '../../common/tls/worker-certificates.ts';
import { LimitReached } from '../worker/admission.ts';
import type { LiveConnection } from '../worker/connections.ts';
import type { PodContext } from '../worker/context.ts';
import { dialApplication } from '../worker/dial.ts';
import type { ConnectionRecord } from '../worker/telemetry.ts';
import { enforce, recheck } from './enforce.ts';
import { proxyHeader } from './proxy-protocol.ts';

const HANDSHAKE_TIMEOUT_MS = 10_000;

interface Peer {
  readonly remote: SocketAddress;
  /** The pod's address and 15008. */
  readonly local: SocketAddress;
  readonly identity: SpiffeId;
  /** What its tunnels use of a turn. */
  readonly lane: Lane;
}

export class HboneInbound {
  readonly #pod: PodContext;
  readonly #connections = new Set<HboneServerConnection>();
  /** By the peer's address, with what to call when the handshake is over. */
  readonly #handshaking = new Map<string, { readonly socket: Socket; over(): void }>();
  #tls: { readonly identity: string; readonly server: Server; readonly unwatch: () => void } | undefined;
  #draining = false;
  #whenEmpty: (() => void) | undefined;

  constructor(pod: PodContext) {
    this.#pod = pod;
  }

  /** Takes an accepted TCP connection that nobody has read from. Never rejects for what the peer did. */
  async accept(socket: Socket): Promise<void> {
    const ends = socketEnds(socket);
    if (!ends) {
      socket.destroy();
      return;
    }
    const { admission, telemetry } = this.#pod.parts;
    try {
      const over = admission.handshake(this.#pod);
      this.#handshaking.set(formatSocketAddress(ends.remote), { socket, over });
      socket.once('close', () => this.#handshaken(ends.remote));
    } catch (error) {
      socket.resetAndDestroy();
      if (!(error instanceof LimitReached)) throw error;
      telemetry.failedEarly({ direction: 'inbound', source: ends.remote, destination: ends.local, error, quiet: error.quiet });
      return;
    }
    try {
      const local = await this.#pod.local.wait(this.#pod.removed);
      const server = await this.#server(local);
      if (socket.destroyed) return;
      server.emit('connection', socket);
    } catch (error) {
      socket.destroy();
      this.#pod.parts.telemetry.failedEarly({
        direction: 'inbound',
        source: ends.remote,
        destination: ends.local,
        error: ProxyError.from(error, 'TLS_FAILURE', 'TLS cannot be served'),
      });
    }
  }

  /** Connections of peers that are open. */
  get size(): number {
    return this.#connections.size;
  }

  /** The pod's identity is its workload's; where that is another one now, new connections get another certificate. */
  workloadChanged(): void {
    const local = this.#pod.local.get();
    if (local && this.#tls && this.#tls.identity !== formatSpiffeId(local)) this.#forgetServer();
  }

  /** Resolves when every peer has heard that no more tunnels are taken, and its tunnels have ended. */
  drain(): Promise<void> {
    this.#draining = true;
    const drained = Promise.withResolvers<void>();
    this.#whenEmpty = drained.resolve;
    for (const connection of this.#connections) connection.drain();
    this.#lookEmpty();
    return drained.promise;
  }

  #lookEmpty(): void {
    if (this.#connections.size === 0) this.#whenEmpty?.();
  }

  destroy(error: ProxyError): void {
    this.#forgetServer();
    for (const connection of this.#connections) connection.destroy(error);
    for (const { socket } of [...this.#handshaking.values()]) socket.destroy();
  }

  #forgetServer(): void {
    this.#tls?.unwatch();
    this.#tls = undefined;
  }

  async #server(local: Workload): Promise<Server> {
    const identity = formatSpiffeId(local);
    const { certificates } = this.#pod.parts;
    if (this.#tls?.identity === identity) return this.#tls.server;
    const ready = await certificates.get(identity, this.#pod.removed);
    // Another connection may have been here while this one waited.
    if (this.#tls?.identity === identity) return this.#tls.server;
    this.#forgetServer();
    const server = this.#createServer(ready, local.trustDomain);
    const unwatch = certificates.watch(identity, (renewed) => {
      if (renewed) server.setSecureContext(renewed.options);
      // What is gone is asked for again by the next connection.
      else this.#forgetServer();
    });
    this.#tls = { identity, server, unwatch };
    return server;
  }

  /** Never listens: connections come from the pod's listener. */
  #createServer(ready: ReadyCertificate, trustDomain: string): Server {
    const server = createServer({
      ...ready.options,
      requestCert: true,
      // Looked at once the handshake is over, so that the log can say what was wrong with it.
      rejectUnauthorized: false,
      ALPNProtocols: MESH_ALPN,
      handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
    });
    server.on('secureConnection', (tls) => this.#secured(tls, trustDomain));
    server.on('tlsClientError', (error, tls) => {
      tls.on('error', () => undefined);
      this.#refusePeer(tls, new ProxyError('TLS_FAILURE', `TLS handshake failed: ${errorMessage(error)}`, { cause: error }));
    });
    return server;
  }

  #secured(tls: TLSSocket, trustDomain: string): void {
    // HboneServerConnection listens from now on; this one is for errors of connections that are refused here.
    tls.on('error', () => undefined);
    const ends = socketEnds(tls);
    if (ends) this.#handshaken(ends.remote);
    const uris = peerUris(tls);
    const identity = firstSpiffeId(uris);
    if (!ends || this.#pod.removed.aborted) {
      tls.destroy();
      return;
    }
    if (!tls.authorized || !identity || !belongsToTrustDomain(uris, trustDomain)) {
      const why = tls.authorized
        ? `identity verification error: peer presented ${uris.join(', ') || 'no identity'}, expected trust domain ${trustDomain}`
        : `the peer's certificate was not accepted: ${errorMessage(tls.authorizationError ?? 'none was sent')}`;
      this.#refusePeer(tls, new ProxyError('TLS_FAILURE', why));
      return;
    }
    try {
      this.#pod.parts.revocations.admit(tls, 'destination');
    } catch (error) {
      this.#refusePeer(tls, ProxyError.from(error, 'CERT_REVOKED', 'revoked'));
      return;
    }
    const { lanes } = this.#pod.parts;
    const peer: Peer = { remote: ends.remote, local: ends.local, identity, lane: lanes.join(ends.remote.ip) };
    const connection: HboneServerConnection = new HboneServerConnection(tls, {
      limits: serverLimits(this.#pod),
      clock: this.#pod.parts.clock,
      onConnect: (request) =>
        beginInTurn(peer.lane, () => {
          serveConnect(this.#pod, peer, request).catch((error: unknown) => {
            // A fault of ours, not the peer's: this tunnel is lost, the worker goes on.
            this.#pod.parts.log.error({ pod: this.#pod.name, error: errorMessage(error) }, 'tunnel handler failed');
          });
        }),
      onClose: (error) => {
        this.#connections.delete(connection);
        lanes.leave(peer.remote.ip, peer.lane);
        this.#lookEmpty();
        if (error?.code === 'HTTP2_FAILURE' || error?.code === 'CERT_REVOKED') this.#logPeer(peer, error);
      },
    });
    this.#connections.add(connection);
    if (this.#draining) connection.drain();
  }

  #handshaken(remote: SocketAddress): void {
    const key = formatSocketAddress(remote);
    this.#handshaking.get(key)?.over();
    this.#handshaking.delete(key);
  }

  #refusePeer(tls: TLSSocket, error: ProxyError): void {
    const ends = socketEnds(tls);
    tls.destroy();
    if (ends) this.#handshaken(ends.remote);
    if (ends) this.#logPeer(ends, error);
  }

  #logPeer({ remote, local }: { remote: SocketAddress; local: SocketAddress }, error: ProxyError): void {
    this.#pod.parts.telemetry.failedEarly({ direction: 'inbound', source: remote, destination: local, error });
  }
}

/** A hostname names no namespace to ask for it in; the pod's own services are those that it can stand for. */
function withOwnServices(view: MeshView, local: Workload): MeshView {
  for (const key of local.services.keys()) {
    const slash = key.indexOf('/');
    view.serviceByKey(key.slice(0, slash), key.slice(slash + 1));
  }
  return view;
}

/** One CONNECT, from its arrival to the end of its relay. */
async function serveConnect(pod: PodContext, peer: Peer, request: ConnectRequest): Promise<void> {
  const { connections, telemetry } = pod.parts;
  const live = connections.add(pod.spec.uid);
  const abandoned = (): void => live.abort(new ProxyError('CONNECTION_LOST', 'the peer gave the tunnel up before it was open'));
  // It may have waited for its turn.
  if (request.signal.aborted) abandoned();
  else request.signal.addEventListener('abort', abandoned, { once: true });
  telemetry.socketOpened('inbound');
  const received = field(request.headers, 'traceparent');
  // Any other length is no traceparent that ztunnel would take over.
  const id = (received?.length === TRACEPARENT_LENGTH ? traceIdOf(received) : undefined) ?? pod.parts.randomHex(32);
  const context: Context = { pod, peer, request, live, id, opened: undefined };
  try {
    await deliver(context);
  } catch (reason) {
    const error = ProxyError.from(reason, 'CONNECTION_LOST', 'tunnel failed');
    refuse(context, error);
    if (context.opened) context.opened.ended(error);
    else {
      const quiet = error instanceof LimitReached && error.quiet;
      telemetry.failedEarly({ direction: 'inbound', source: peer.remote, destination: peer.local, error, id, quiet });
    }
  } finally {
    request.signal.removeEventListener('abort', abandoned);
    connections.remove(live);
    telemetry.socketClosed('inbound');
  }
}

interface Context {
  readonly pod: PodContext;
  readonly peer: Peer;
  readonly request: ConnectRequest;
  readonly live: LiveConnection;
  readonly id: string;
  opened: ConnectionRecord | undefined;
}

async function deliver(context: Context): Promise<void> {
  const { pod, peer, request, live } = context;
  const { view, settings } = pod.parts;
  pod.parts.admission.connection(pod, undefined);
  if (request.method !== 'CONNECT') throw new ProxyError('BAD_REQUEST', `expected CONNECT, got ${request.method.slice(0, 32)}`);
  const local = pod.local.get();
  if (!local) throw new ProxyError('WORKLOAD_UNKNOWN', `the control plane has not told us about ${pod.name}`);
  const { onDemand } = pod.parts;
  const inbound = { local, podIp: peer.local.ip, network: settings.network, authority: request.authority };
  const route = onDemand
    ? await onDemand.decided((known) => resolveInbound(withOwnServices(known, local), inbound), live.signal)
    : resolveInbound(view, inbound);
  if ('refuse' in route) throw new ProxyError(route.refuse, route.message);

  const subject = { source: peer.remote, destination: route.to, identity: peer.identity };
  const forwardedHost = parseForwardedHost(fields(request.headers, 'forwarded'))?.slice(0, MAX_HOSTNAME);
  context.opened = pod.parts.telemetry.opened({
    direction: 'inbound',
    id: context.id,
    source: peer.remote,
    sourceWorkload: sourceWorkload(context),
    sourceBaggage: settings.responseBaggage ? parseBaggage(fields(request.headers, 'baggage')) : undefined,
    sourceIdentity: formatSpiffeId(peer.identity),
    destination: peer.local,
    authority: request.authority,
    destinationWorkload: local,
    destinationIdentity: formatSpiffeId(local),
    service: route.service ?? inboundService(view, local, route.to.port, forwardedHost),
    mutualTls: true,
    target: route.to,
  });
  // Described before it is judged: a policy that changes in between must find this connection.
  live.tracked = {
    uid: pod.spec.uid,
    direction: 'inbound',
    src: formatSocketAddress(peer.remote),
    originalDst: forwardedHost ?? null,
    actualDst: formatSocketAddress(route.to),
    protocol: 'HBONE',
    recheck: () => recheck(pod, subject),
  };
  context.opened.policy = enforce(pod, local, subject);

  const onLoopback = route.tunnel && settings.loopbackAppTunnel;
  const to = onLoopback ? { ip: peer.local.ip.includes(':') ? '::1' : '127.0.0.1', port: route.to.port } : route.to;
  const header = route.tunnel && proxyHeader(peer.remote, route.tunnel.target, formatSpiffeId(peer.identity));
  const source = onLoopback ? {} : { source: peer.remote };
  const dialled = dialApplication(pod, { to, own: true, ...source, signal: live.cancelled, lane: peer.lane });
  const app = dialled instanceof Promise ? await dialled : dialled;
  if (request.signal.aborted) {
    app.destroy();
    throw request.signal.reason;
  }
  if (header) app.writeSlice(header);
  const running = relay(request.accept(settings.responseBaggage ? [['baggage', formatBaggage(local)]] : []), app);
  context.opened.running(running);
  live.relaying(running);
  const { error } = await running.done;
  context.opened.ended(error);
}

/** Where the caller comes from another network, its address means nothing in ours. */
function sourceWorkload({ pod, peer, request }: Context): Workload | undefined {
  const { view, settings } = pod.parts;
  const network = field(request.headers, 'x-forwarded-network');
  if (network !== undefined && network.toLowerCase() !== settings.network.toLowerCase()) return undefined;
  return view.workloadByAddress(settings.network, peer.remote.ip);
}

/** An answer, where the peer still waits for one. */
function refuse({ request, id, peer, pod }: Context, error: ProxyError): void {
  if (request.signal.aborted) return;
  // What has no status of its own happened behind us: the application could not be reached.
  const { status = 503 }: { readonly status?: number } = outcomes[error.code];
  request.refuse(status, refusalHeaders(error, id, peer.identity, pod.local.get()?.namespace));
}

const TRACEPARENT_LENGTH = 55;
const MAX_HOSTNAME = 253;

const fields = (headers: Headers, name: string): string[] => headers.filter(([key]) => key === name).map(([, value]) => value);
const field = (headers: Headers, name: string): string | undefined => headers.find(([key]) => key === name)?.[1];

const serverLimits = ({ parts }: PodContext): HboneLimits => ({
  ...defaultServerLimits,
  streamWindow: parts.settings.streamWindow,
  connectionWindow: parts.settings.connectionWindow,
  maxFrameSize: parts.settings.frameSize,
});
