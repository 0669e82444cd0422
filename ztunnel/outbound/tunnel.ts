/**
 * The TLS connections under tunnels: dialled from the pod's namespace with the pod's certificate, and only to identities that we meant. And
 * the tunnel within a tunnel that leads through a gateway into another network (istio-data-plane.md §2.8).
 */
import type { Duplex } from 'node:stream';
import { connect, type TLSSocket } from 'node:tls';
import { formatSocketAddress, type SocketAddress } from '../../common/base/address.ts';
import { errorMessage, ProxyError } from '../../common/base/errors.ts';
import { formatSpiffeId } from '../../common/base/spiffe.ts';
import type { Workload } from '../../common/decision/mesh-view.ts';
import type { DoubleTunnel } from '../../common/decision/outbound.ts';
import { HboneClient } from '../../common/hbone/client.ts';
import type { PoolKey } from '../../common/hbone/pool.ts';
import { duplexOf } from '../../common/hbone/stream-duplex.ts';
import type { Headers, StreamPipe } from '../../common/hbone/types.ts';
import { ignoreServerName, isExpectedPeer, MESH_ALPN, peerUris } from '../../common/tls/mesh-tls.ts';
import type { PodContext } from '../worker/context.ts';
import { CONNECT_TIMEOUT_MS, dialPeer } from '../worker/dial.ts';
import { clientLimits } from './limits.ts';

/** @throws {ProxyError} IDENTITY_UNAVAILABLE, UPSTREAM_CONNECT, UPSTREAM_TIMEOUT, TLS_FAILURE; the signal's reason */
export async function dialTunnel(pod: PodContext, key: PoolKey, signal: AbortSignal): Promise<TLSSocket> {
  // The certificate first: without one there is no point in knocking.
  await pod.parts.certificates.get(key.source, signal);
  const socket = await dialPeer(pod, key.to, signal);
  return secure(pod, { socket, source: key.source, peers: key.destinations, about: formatSocketAddress(key.to) }, signal);
}

export interface DoubleTunnelRequest {
  readonly route: DoubleTunnel;
  readonly source: Workload;
  readonly from: SocketAddress;
  readonly headers: Headers;
}

/**
 * The outer tunnel to the gateway is pooled like any other; the inner one belongs to this connection alone, since whoever shares it would be
 * bound to the same remote pod.
 * @throws {ProxyError} as dialTunnel, for either end; {TunnelRefused} where either end refuses
 */
export async function openDoubleTunnel(pod: PodContext, request: DoubleTunnelRequest, signal: AbortSignal): Promise<StreamPipe> {
  const { route, source, from, headers } = request;
  const identity = formatSpiffeId(source);
  const outer = await pod.pool.connect(
    { source: identity, destinations: route.peers, to: route.to, sourceIp: from.ip },
    { authority: route.authority, headers, signal },
  );
  const about = `${route.authority} behind ${formatSocketAddress(route.to)}`;
  const tls = await secure(pod, { socket: duplexOf(outer), source: identity, peers: route.innerPeers, about }, signal);
  const { settings, clock } = pod.parts;
  const client: HboneClient = new HboneClient(tls, {
    limits: clientLimits(settings),
    clock,
    maxStreams: 1,
    onClose: () => undefined,
    // One tunnel and no more: the connection closes when that one has ended.
    onStreamEnd: () => client.goAway(),
  });
  try {
    const inner: Headers = [...headers, ['x-forwarded-network', settings.network]];
    return await client.connect({ authority: route.authority, headers: inner, signal });
  } catch (error) {
    client.destroy();
    throw error;
  }
}

interface Handshake {
  readonly socket: Duplex;
  /** Identity that we prove. */
  readonly source: string;
  /** Identities of which the peer has to prove one. */
  readonly peers: readonly string[];
  /** Who the peer is, for errors. */
  readonly about: string;
}

/** A TLS handshake over whatever carries it, and a look at who answered. Destroys the carrier where it fails. */
async function secure(pod: PodContext, { socket, source, peers, about }: Handshake, signal: AbortSignal): Promise<TLSSocket> {
  let tls: TLSSocket | undefined;
  try {
    const { context } = await pod.parts.certificates.get(source, signal);
    tls = connect({
      socket,
      secureContext: context,
      ALPNProtocols: MESH_ALPN,
      // The result of verification is looked at below, with the peer's name in the error.
      rejectUnauthorized: false,
      checkServerIdentity: ignoreServerName,
    });
    await handshaken(pod, tls, signal);
    assertPeer(tls, peers, about);
    return tls;
  } catch (error) {
    tls?.destroy();
    socket.destroy();
    if (signal.aborted && signal.reason instanceof ProxyError) throw signal.reason;
    throw ProxyError.from(error, 'TLS_FAILURE', `TLS handshake with ${about} failed`);
  }
}

function handshaken(pod: PodContext, tls: TLSSocket, signal: AbortSignal): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const aborted = (): void => reject(signal.reason);
  const closed = (): void => reject(new Error('the peer closed the connection'));
  const timer = pod.parts.clock.after(CONNECT_TIMEOUT_MS, () => reject(new Error(`no answer within ${CONNECT_TIMEOUT_MS / 1000} s`)));
  // Stays: an error after the handshake belongs to whoever then owns the connection, and must not be unhandled until then.
  tls.on('error', reject);
  tls.once('close', closed);
  tls.once('secureConnect', resolve);
  signal.addEventListener('abort', aborted, { once: true });
  if (signal.aborted) aborted();
  return promise.finally(() => {
    timer.cancel();
    tls.off('close', closed);
    signal.removeEventListener('abort', aborted);
  });
}

function assertPeer(tls: TLSSocket, peers: readonly string[], about: string): void {
  if (!tls.authorized) {
    throw new ProxyError('TLS_FAILURE', `the certificate of ${about} was not accepted: ${errorMessage(tls.authorizationError)}`);
  }
  const uris = peerUris(tls);
  if (isExpectedPeer(uris, peers)) return;
  const presented = uris.join(', ') || 'no identity';
  throw new ProxyError(
    'TLS_FAILURE',
    `identity verification error: ${about} presented ${presented}, expected ${peers.join(' or ') || 'nobody'}`,
  );
}
