/**
 * One pod's share of a data worker: listeners in the pod's network namespace, its pool of tunnels, its local workload. All of the pod's
 * sockets are made inside its namespace and carry our mark, so that redirection leaves them alone.
 */
import { createServer, type Server, type Socket } from 'node:net';
import { errorMessage, type ProxyError } from '../../common/base/errors.ts';
import { socketEnds } from '../../common/base/socket-ends.ts';
import { HBONE_PORT, SOCKS5_PORT } from '../../common/decision/ports.ts';
import { HbonePool } from '../../common/hbone/pool.ts';
import { Netns } from '../../common/linux/netns.ts';
import { fdOf } from '../../common/linux/node.ts';
import { closeFd, type Keepalive, listenTcp, setNoDelayKeepalive } from '../../common/linux/sockets.ts';
import { DnsServer } from '../dns/server.ts';
import { HboneInbound } from '../inbound/hbone.ts';
import { servePlaintext } from '../inbound/plaintext.ts';
import { clientLimits } from '../outbound/limits.ts';
import { serveOutbound } from '../outbound/outbound.ts';
import { serveSocks } from '../outbound/socks5.ts';
import { dialTunnel } from '../outbound/tunnel.ts';
import type { PodSpec } from '../protocol.ts';
import { INBOUND_PLAINTEXT_PORT, OUTBOUND_PORT, type ZtunnelSettings } from '../settings.ts';
import { LimitReached } from './admission.ts';
import type { PodContext, WorkerParts } from './context.ts';
import { LocalWorkload } from './local-workload.ts';

export class PodProxy implements PodContext {
  readonly parts: WorkerParts;
  readonly spec: PodSpec;
  readonly #netns: Netns | undefined;
  readonly local: LocalWorkload;
  readonly pool: HbonePool;
  readonly mark: number | undefined;
  readonly keepalive: Keepalive | undefined;
  /** Aborted when the pod is removed. */
  readonly #removed = new AbortController();
  readonly #inbound: HboneInbound;
  readonly #dns: DnsServer;
  /** Names of the policies that selected the pod when last looked at. */
  #selectedBy: string | undefined;
  #servers: Server[] = [];

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
      if (proxy) this.#listen(HBONE_PORT, (socket) => this.#inbound.accept(socket));
      if (this.spec.kind === 'self') return;
      if (dns) this.#dns.listen(dns);
      if (!proxy) return;
      this.#listen(INBOUND_PLAINTEXT_PORT, (socket) => servePlaintext(this, socket));
      this.#listen(OUTBOUND_PORT, (socket) => serveOutbound(this, socket));
      if (socks5) this.#listen(SOCKS5_PORT, (socket) => serveSocks(this, socket), '127.0.0.1');
    } catch (error) {
      this.stopListening();
      this.#dns.close();
      throw error;
    }
  }

  /** The kernel gives new connections to whoever else listens there; open ones go on. */
  stopListening(): void {
    for (const server of this.#servers) server.close();
    this.#servers = [];
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
  #admits(socket: Socket, port: number): boolean {
    try {
      this.parts.admission.connection(this, fdOf(socket), port === HBONE_PORT ? this.#inbound.size : 0);
      return true;
    } catch (error) {
      const ends = socketEnds(socket);
      socket.resetAndDestroy();
      if (!(error instanceof LimitReached)) throw error;
      const direction = directionOf(port);
      if (ends) this.parts.telemetry.failedEarly({ direction, source: ends.remote, destination: ends.local, error, quiet: error.quiet });
      return false;
    }
  }

  #listen(port: number, serve: (socket: Socket) => Promise<void>, address = this.parts.settings.ipv6 ? '::' : '0.0.0.0'): void {
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
      // Accepted sockets inherit both from their listener. Peers of 15008 are proxies, which ping.
      if (this.keepalive && port !== HBONE_PORT) setNoDelayKeepalive(fd, this.keepalive);
    } catch (error) {
      closeFd(fd);
      throw error;
    }
    const server = createServer({ pauseOnConnect: true, allowHalfOpen: true, noDelay: true }, (socket) => {
      const direction = directionOf(port);
      // Until somebody reads it, a socket's error has no other listener.
      socket.on('error', () => undefined);
      if (!this.#admits(socket, port)) return;
      serve(socket).catch((error: unknown) => {
        socket.destroy();
        this.parts.log.error({ pod: this.name, direction, error: errorMessage(error) }, 'connection handler failed');
      });
    });
    server.on('error', (error) => this.parts.log.error({ pod: this.name, port, error: error.message }, 'listener failed'));
    server.listen({ fd });
    this.#servers.push(server);
  }
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
