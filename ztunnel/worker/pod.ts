/**
 * One pod's share of a data worker: listeners in the pod's network namespace, its pool of tunnels, its local workload. All of the pod's
 * sockets are made inside its namespace and carry our mark, so that redirection leaves them alone.
 */
import { createServer } from 'node:net';
import type { SocketAddress } from '../../common/base/address.ts';
import { errorMessage, type ProxyError } from '../../common/base/errors.ts';
import { socketEnds } from '../../common/base/socket-ends.ts';
import { HBONE_PORT, INBOUND_PLAINTEXT_PORT, OUTBOUND_PORT, SOCKS5_PORT } from '../../common/decision/ports.ts';
import { AppSocket, mostConnectionsInTurn, turnsAreShared } from '../../common/hbone/app-socket.ts';
import { HbonePool } from '../../common/hbone/pool.ts';
import { Lane } from '../../common/hbone/turn-shares.ts';
import { Netns } from '../../common/linux/netns.ts';
import { fdOf } from '../../common/linux/node.ts';
import { closeFd, gatherConnections, type Keepalive, listenTcp, setKeepalive, spreadConnections } from '../../common/linux/sockets.ts';
import { listenOn } from '../../common/linux/tcp-listener.ts';
import { DnsServer } from '../dns/server.ts';
import { HboneInbound } from '../inbound/hbone.ts';
import { servePlaintext } from '../inbound/plaintext.ts';
import { clientLimits } from '../outbound/limits.ts';
import { serveOutbound } from '../outbound/outbound.ts';
import { serveSocks } from '../outbound/socks5.ts';
import { dialTunnel } from '../outbound/tunnel.ts';
import type { PodSpec } from '../protocol.ts';
import type { ZtunnelSettings } from '../settings.ts';
import { LimitReached } from './admission.ts';
import type { PodContext, WorkerParts } from './context.ts';
import { Gathering, MOST_GATHERED } from './gathering.ts';
import { LocalWorkload } from './local-workload.ts';

export class PodProxy implements PodContext {
  readonly parts: WorkerParts;
  readonly spec: PodSpec;
  readonly #netns: Netns | undefined;
  readonly local: LocalWorkload;
  readonly pool: HbonePool;
  readonly lane = new Lane();
  readonly mark: number | undefined;
  readonly keepalive: Keepalive | undefined;
  /** Aborted when the pod is removed. */
  readonly #removed = new AbortController();
  readonly #inbound: HboneInbound;
  readonly #dns: DnsServer;
  /** Names of the policies that selected the pod when last looked at. */
  #selectedBy: string | undefined;
  #listeners: { close(): unknown }[] = [];

  /** @throws {LinuxError} where the namespace is gone */
  constructor(parts: WorkerParts, spec: PodSpec) {
    const { settings, view, changes, clock } = parts;
    this.parts = parts;
    this.spec = spec;
    // The supervisor's descriptor: one of our own would stay behind, and with it the namespace, if this thread were lost.
    this.#netns = spec.netnsFd === undefined ? undefined : Netns.fromFd(spec.netnsFd);
    this.mark = spec.kind === 'self' ? undefined : settings.packetMark;
    this.keepalive = settings.keepalive ? keepaliveOf(settings) : undefined;
    this.local = new LocalWorkload({ view, info: spec.info, changes, clock });
    this.pool = new HbonePool({
      clock,
      dial: (key, signal) => dialTunnel(this, key, signal),
      limits: clientLimits(settings),
      maxStreamsPerConnection: settings.poolMaxStreams,
      unusedReleaseMs: settings.poolUnusedMs,
    });
    this.#inbound = new HboneInbound(this);
    this.#dns = new DnsServer(this, parts.nameservers);
  }

  /** @throws {ProxyError} once the pod is removed: the descriptor's number may be another file's by then */
  get netns(): Netns | undefined {
    this.#removed.signal.throwIfAborted();
    return this.#netns;
  }

  get name(): string {
    return `${this.spec.info.namespace}/${this.spec.info.name}`;
  }

  /** @throws {Error} naming port and pod where a listener cannot be opened; then none is left open */
  listen(): void {
    try {
      const { dns, proxy, socks5 } = this.parts.settings;
      if (proxy) this.#listenForPeers();
      if (this.spec.kind === 'self') return;
      if (dns) this.#dns.listen(dns);
      if (!proxy) return;
      this.#listen(INBOUND_PLAINTEXT_PORT, (app) => servePlaintext(this, app));
      this.#listen(OUTBOUND_PORT, (app) => serveOutbound(this, app));
      if (socks5) this.#listen(SOCKS5_PORT, (app) => serveSocks(this, app), '127.0.0.1');
    } catch (error) {
      this.stopListening();
      this.#dns.close();
      throw error;
    }
  }

  /** The kernel gives new connections to whoever else listens there; open ones go on. */
  stopListening(): void {
    for (const listener of this.#listeners) listener.close();
    this.#listeners = [];
  }

  /** Resolves when no DNS question of the pod is under way. */
  answered(): Promise<void> {
    return this.#dns.idle();
  }

  /** Tells peers to open no more tunnels on their connections, and resolves when those have ended. */
  drain(): Promise<void> {
    this.stopListening();
    this.#dns.drain();
    return this.#inbound.drain();
  }

  /** The mesh's state is another one. @returns whether other policies apply to the pod now, or another word about its waypoint */
  workloadChanged(): boolean {
    this.#inbound.workloadChanged();
    const local = this.local.get();
    const selected = local && [...local.authorizationPolicies, JSON.stringify(local.requireWaypoint ?? '')].join('\n');
    const changed = selected !== this.#selectedBy;
    this.#selectedBy = selected;
    return changed;
  }

  /** The end of everything, at once. */
  destroy(error: ProxyError): void {
    this.stopListening();
    this.#dns.close();
    this.#removed.abort(error);
    this.parts.connections.abortAll(error, this.spec.uid);
    this.#inbound.destroy(error);
    this.pool.destroy(error);
  }

  get removed(): AbortSignal {
    return this.#removed.signal;
  }

  /** Asked before anything else is done for it. */
  #admits({ fd, ends, reset }: Arrival, port: number): boolean {
    try {
      this.parts.admission.connection(this, fd, port === HBONE_PORT ? this.#inbound.size : 0);
      return true;
    } catch (error) {
      const known = ends();
      reset();
      if (!(error instanceof LimitReached)) throw error;
      if (known)
        this.parts.telemetry.failedEarly({
          direction: directionOf(port),
          source: known.remote,
          destination: known.local,
          error,
          quiet: error.quiet,
        });
      return false;
    }
  }

  /** @returns the listener's descriptor, bound and not yet listening for us */
  #bind(port: number, address = this.parts.settings.ipv6 ? '::' : '0.0.0.0'): number {
    let fd: number;
    try {
      fd = listenTcp({
        ...(this.netns ? { netns: this.netns } : {}),
        address,
        port,
        reusePort: this.parts.settings.portReuse,
        transparent: this.spec.kind === 'self' ? 'no' : 'try',
        ...(this.mark !== undefined ? { mark: this.mark } : {}),
      });
    } catch (error) {
      throw new Error(`cannot listen on port ${port} for ${this.name}: ${errorMessage(error)}`, { cause: error });
    }
    try {
      // Accepted sockets inherit it from their listener. Peers of 15008 are proxies, which ping.
      if (this.keepalive && port !== HBONE_PORT) setKeepalive(fd, this.keepalive);
    } catch (error) {
      closeFd(fd);
      throw error;
    }
    return fd;
  }

  /** Applications' connections, which redirection brings. */
  #listen(port: number, serve: (app: AppSocket) => Promise<void>, address?: string): void {
    const fd = this.#bind(port, address);
    const gathering = port === OUTBOUND_PORT ? this.#gathering(fd) : undefined;
    const listener = listenOn(fd, {
      onConnection: (stream) => {
        gathering?.connection();
        const app = new AppSocket(stream, this.lane);
        const arrival = { fd: stream.fd, ends: () => app.ends, reset: () => app.destroy() };
        if (this.#admits(arrival, port)) serve(app).catch((error: unknown) => this.#handlerFailed(port, error, () => app.destroy()));
      },
      onError: (error) => this.#listenerFailed(port, error),
      mostInTurn: mostConnectionsInTurn,
    });
    if (gathering) this.#listeners.push({ close: () => gathering.stop() });
    this.#listeners.push(listener);
  }

  #gathering(fd: number): Gathering | undefined {
    const { settings, clock, load, connections, log } = this.parts;
    const { uid, gathering: shared } = this.spec;
    const { workers, portReuse, podMaxConnections } = settings;
    if (workers === 1 || !portReuse || podMaxConnections < workers * MOST_GATHERED) return undefined;
    // Not every pod's to the same worker.
    const index = Buffer.from(uid).reduce((sum, byte) => sum + byte, 0) % workers;
    const attempt = (what: string, run: () => void): boolean => {
      try {
        run();
        log.debug({ pod: this.name }, what);
        return true;
      } catch (error) {
        log.debug({ pod: this.name, error: errorMessage(error) }, `${what}: not possible`);
        return false;
      }
    };
    return new Gathering({
      shared,
      workers,
      clock,
      open: () => connections.countOf(uid),
      load,
      crowded: turnsAreShared,
      gather: () => attempt('new connections go to one worker', () => gatherConnections(fd, index)),
      spread: () => attempt('new connections go to all workers', () => spreadConnections(fd)),
    });
  }

  /** Peers' connections, for Node's TLS. */
  #listenForPeers(): void {
    const server = createServer({ pauseOnConnect: true, allowHalfOpen: true, noDelay: true }, (socket) => {
      // Until somebody reads it, a socket's error has no other listener.
      socket.on('error', () => undefined);
      const arrival = { fd: fdOf(socket), ends: () => socketEnds(socket), reset: () => socket.resetAndDestroy() };
      if (!this.#admits(arrival, HBONE_PORT)) return;
      this.#inbound.accept(socket).catch((error: unknown) => this.#handlerFailed(HBONE_PORT, error, () => socket.destroy()));
    });
    server.on('error', (error) => this.#listenerFailed(HBONE_PORT, error));
    server.listen({ fd: this.#bind(HBONE_PORT) });
    this.#listeners.push(server);
  }

  #handlerFailed(port: number, error: unknown, end: () => void): void {
    end();
    this.parts.log.error({ pod: this.name, direction: directionOf(port), error: errorMessage(error) }, 'connection handler failed');
  }

  #listenerFailed(port: number, { message }: Error): void {
    this.parts.log.error({ pod: this.name, port, error: message }, 'listener failed');
  }
}

/** A connection that nobody has looked at yet. */
interface Arrival {
  readonly fd: number;
  ends(): { readonly local: SocketAddress; readonly remote: SocketAddress } | undefined;
  reset(): void;
}

const directionOf = (port: number): 'outbound' | 'inbound' => (port === OUTBOUND_PORT || port === SOCKS5_PORT ? 'outbound' : 'inbound');

const keepaliveOf = (settings: ZtunnelSettings): Keepalive => ({
  timeS: Math.max(1, Math.round(settings.keepaliveTimeMs / 1000)),
  intervalS: Math.max(1, Math.round(settings.keepaliveIntervalMs / 1000)),
  probes: settings.keepaliveProbes,
  ...(settings.userTimeout
    ? { userTimeoutMs: Math.min(settings.keepaliveTimeMs + settings.keepaliveProbes * settings.keepaliveIntervalMs, 2 ** 31 - 1) }
    : {}),
});
