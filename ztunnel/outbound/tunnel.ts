/** The TLS connection under a tunnel: dialled from the pod's namespace with the pod's certificate, and only to the identity that we meant. */
import { connect, type TLSSocket } from 'node:tls';
import { formatSocketAddress } from '../../common/base/address.ts';
import { errorMessage, ProxyError } from '../../common/base/errors.ts';
import type { PoolKey } from '../../common/hbone/pool.ts';
import { ignoreServerName, isExpectedPeer, MESH_ALPN, peerUris } from '../../common/tls/mesh-tls.ts';
import type { PodContext } from '../worker/context.ts';
import { CONNECT_TIMEOUT_MS, dialPeer } from '../worker/dial.ts';

/** @throws {ProxyError} IDENTITY_UNAVAILABLE, UPSTREAM_CONNECT, UPSTREAM_TIMEOUT, TLS_FAILURE; the signal's reason */
export async function dialTunnel(pod: PodContext, key: PoolKey, signal: AbortSignal): Promise<TLSSocket> {
  const { context } = await pod.parts.certificates.get(key.source, signal);
  const socket = await dialPeer(pod, key.to, signal);
  const tls = connect({
    socket,
    secureContext: context,
    ALPNProtocols: MESH_ALPN,
    // The result of verification is looked at below, with the peer's name in the error.
    rejectUnauthorized: false,
    checkServerIdentity: ignoreServerName,
  });
  try {
    await handshaken(pod, tls, signal);
    assertPeer(tls, key);
    return tls;
  } catch (error) {
    tls.destroy();
    if (signal.aborted && signal.reason instanceof ProxyError) throw signal.reason;
    throw ProxyError.from(error, 'TLS_FAILURE', `TLS handshake with ${formatSocketAddress(key.to)} failed`);
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
  return promise.finally(() => {
    timer.cancel();
    tls.off('close', closed);
    signal.removeEventListener('abort', aborted);
  });
}

function assertPeer(tls: TLSSocket, { destinations, to }: PoolKey): void {
  const address = formatSocketAddress(to);
  if (!tls.authorized) {
    throw new ProxyError('TLS_FAILURE', `the certificate of ${address} was not accepted: ${errorMessage(tls.authorizationError)}`);
  }
  const uris = peerUris(tls);
  if (!isExpectedPeer(uris, destinations)) {
    throw new ProxyError(
      'TLS_FAILURE',
      `identity verification error: ${address} presented ${uris.join(', ') || 'no identity'}, expected ${destinations.join(' or ')}`,
    );
  }
}
