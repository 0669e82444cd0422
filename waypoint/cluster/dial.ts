/**
 * Byte pipes to endpoints: through a tunnel to the pod's port 15008 under the waypoint's own identity, or plain TCP to what is not in the
 * mesh. Tunnels share connections; what is spoken inside them is somebody else's matter.
 */
import { connect as connectTcp, type Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { formatSocketAddress, type IpAddress, isIpv6, type SocketAddress } from '../../common/base/address.ts';
import type { Clock } from '../../common/base/clock.ts';
import { errorMessage, ProxyError } from '../../common/base/errors.ts';
import type { HostnameResolver } from '../../common/client/hostname-resolver.ts';
import { formatBaggage, formatForwarded, formatTraceparent } from '../../common/decision/headers.ts';
import type { Workload } from '../../common/decision/mesh-view.ts';
import { HBONE_PORT } from '../../common/decision/ports.ts';
import { AppSocket } from '../../common/hbone/app-socket.ts';
import { HbonePool, type PoolKey } from '../../common/hbone/pool.ts';
import type { HboneLimits, Pipe } from '../../common/hbone/types.ts';
import { secureTunnel } from '../../common/tls/tunnel-handshake.ts';
import type { WorkerCertificates } from '../../common/tls/worker-certificates.ts';
import type { PickedEndpoint } from './endpoint.ts';
import { type Origination, originate } from './originate.ts';

export interface DialerOptions {
  /** `spiffe://…` of the waypoint. */
  readonly identity: string;
  readonly self: () => Workload;
  readonly certificates: WorkerCertificates;
  readonly clock: Clock;
  readonly resolver: Pick<HostnameResolver, 'resolve'>;
  randomHex(digits: number): string;
  readonly limits: HboneLimits;
  readonly maxStreamsPerConnection: number;
  readonly unusedReleaseMs: number;
}

/** Every connection of the data plane is given up after this time. */
const CONNECT_TIMEOUT_MS = 10_000;

/** Whom a connection is for. */
export interface DialedFor {
  readonly address: SocketAddress;
  readonly workload: Workload | undefined;
  /** Trace id of its own connection, which goes on with this one. */
  readonly id?: string;
}

export class Dialer {
  readonly #options: DialerOptions;
  readonly #tunnels: HbonePool;

  constructor(options: DialerOptions) {
    this.#options = options;
    this.#tunnels = new HbonePool({
      clock: options.clock,
      dial: (key, signal) => this.#dialTunnel(key, signal),
      limits: options.limits,
      maxStreamsPerConnection: options.maxStreamsPerConnection,
      unusedReleaseMs: options.unusedReleaseMs,
    });
  }

  /**
   * @param from the caller, for the endpoint's proxy to label what arrives; a pipe that carries many callers' requests has none
   * @throws {ProxyError} saying what could not be reached and why; the signal's reason
   */
  async connect(endpoint: PickedEndpoint, signal: AbortSignal, from?: DialedFor, alpn?: Origination['alpn']): Promise<Pipe> {
    const { policy } = endpoint.cluster;
    if (!policy) return this.#reach(endpoint, signal, from);
    const limitMs = policy.pool?.connectTimeoutMs || CONNECT_TIMEOUT_MS;
    const late = new AbortController();
    const timer = this.#options.clock.after(limitMs, () =>
      late.abort(new ProxyError('UPSTREAM_CONNECT', `no connection to ${endpoint.workload.uid} within ${limitMs} ms`)),
    );
    const either = AbortSignal.any([signal, late.signal]);
    try {
      const pipe = await this.#reach(endpoint, either, from);
      const { tls, proxyProtocol } = policy;
      if (!tls && proxyProtocol === 0) return pipe;
      const to = endpoint.address ?? { ip: '0.0.0.0', port: endpoint.port };
      return await originate(
        pipe,
        { tls, proxyProtocol, alpn, from: endpoint.caller ?? from?.address, to, clock: this.#options.clock },
        either,
      );
    } finally {
      timer.cancel();
    }
  }

  async #reach(endpoint: PickedEndpoint, signal: AbortSignal, from: DialedFor | undefined): Promise<Pipe> {
    const { identity, self, randomHex } = this.#options;
    const to = await this.#address(endpoint);
    if (!endpoint.peers) return this.#plain(to, signal);
    const own = self();
    const sourceIp = ownAddress(own, to.ip);
    const headers = [
      ['baggage', formatBaggage(from?.workload ?? own)],
      ['forwarded', formatForwarded(from?.address ?? { ip: sourceIp, port: 0 }, endpoint.service?.hostname)],
      ['traceparent', formatTraceparent(from?.id ?? randomHex(32), randomHex(16))],
    ] as const;
    try {
      return await this.#tunnels.connect(
        { source: identity, destinations: endpoint.peers, to: { ip: to.ip, port: HBONE_PORT }, sourceIp },
        { authority: formatSocketAddress(to), headers, signal },
      );
    } catch (error) {
      if (signal.aborted && signal.reason instanceof ProxyError) throw signal.reason;
      throw ProxyError.from(error, 'UPSTREAM_CONNECT', `tunnel to ${formatSocketAddress(to)}`);
    }
  }

  get tunnels(): number {
    return this.#tunnels.size;
  }

  destroy(error: ProxyError): void {
    this.#tunnels.destroy(error);
  }

  async #address({ address, workload, port }: PickedEndpoint): Promise<SocketAddress> {
    if (address) return address;
    const [ip] = workload.hostname === '' ? [] : await this.#options.resolver.resolve(workload.hostname);
    if (ip === undefined) throw new ProxyError('UPSTREAM_CONNECT', `no address for ${workload.hostname || workload.uid}`);
    return { ip, port };
  }

  async #plain(to: SocketAddress, signal: AbortSignal): Promise<Pipe> {
    try {
      return await AppSocket.connect(undefined, to, { timeoutMs: CONNECT_TIMEOUT_MS, clock: this.#options.clock, signal });
    } catch (error) {
      if (signal.aborted && signal.reason instanceof ProxyError) throw signal.reason;
      throw new ProxyError('UPSTREAM_CONNECT', `connection to ${formatSocketAddress(to)} failed: ${errorMessage(error)}`, { cause: error });
    }
  }

  async #dialTunnel(key: PoolKey, signal: AbortSignal): Promise<TLSSocket> {
    const { certificates, clock } = this.#options;
    // The certificate first: without one there is no point in knocking.
    await certificates.get(key.source, signal);
    const socket = await this.#dialPeer(key.to, signal);
    return secureTunnel(
      { certificates, clock },
      { socket, source: key.source, peers: key.destinations, about: formatSocketAddress(key.to) },
      signal,
    );
  }

  #dialPeer(to: SocketAddress, signal: AbortSignal): Promise<Socket> {
    const about = formatSocketAddress(to);
    return new Promise((resolve, reject) => {
      const socket = connectTcp({ host: to.ip, port: to.port, allowHalfOpen: true, noDelay: true });
      const fail = (error: unknown): void => {
        settle();
        socket.destroy();
        reject(ProxyError.from(error, 'UPSTREAM_CONNECT', `connection to the HBONE port ${about} failed`));
      };
      const aborted = (): void => fail(signal.reason);
      const connected = (): void => {
        settle();
        resolve(socket);
      };
      const timer = this.#options.clock.after(CONNECT_TIMEOUT_MS, () =>
        fail(new ProxyError('UPSTREAM_TIMEOUT', `connection timed out, maybe a NetworkPolicy is blocking HBONE port ${to.port}: ${about}`)),
      );
      const settle = (): void => {
        timer.cancel();
        signal.removeEventListener('abort', aborted);
        socket.off('error', fail).off('connect', connected);
      };
      socket.once('error', fail).once('connect', connected);
      signal.addEventListener('abort', aborted, { once: true });
      if (signal.aborted) aborted();
    });
  }
}

/** Of the family that the connection will have. */
const ownAddress = ({ addresses }: Workload, to: IpAddress): IpAddress =>
  addresses.find((ip) => isIpv6(ip) === isIpv6(to)) ?? addresses[0] ?? (isIpv6(to) ? '::' : '0.0.0.0');
