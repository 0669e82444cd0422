/** The handshake under a tunnel, on the side that opens it: our certificate, and a peer that has to be one of those we meant. */
import type { Duplex } from 'node:stream';
import { connect, type TLSSocket } from 'node:tls';
import type { Clock } from '../base/clock.ts';
import { errorMessage, ProxyError } from '../base/errors.ts';
import { ignoreServerName, isExpectedPeer, MESH_ALPN, peerUris } from './mesh-tls.ts';
import type { Revocations } from './revocations.ts';
import type { WorkerCertificates } from './worker-certificates.ts';

export interface TunnelTls {
  readonly certificates: WorkerCertificates;
  readonly clock: Clock;
  /** Where there is a revocation list. */
  readonly revocations?: Revocations;
}

const HANDSHAKE_TIMEOUT_MS = 10_000;

export interface Handshake {
  readonly socket: Duplex;
  /** Identity that we prove. */
  readonly source: string;
  /** Identities of which the peer has to prove one. */
  readonly peers: readonly string[];
  /** Who the peer is, for errors. */
  readonly about: string;
}

/**
 * A TLS handshake over whatever carries it, and a look at who answered. Destroys the carrier where it fails.
 * @throws {ProxyError} IDENTITY_UNAVAILABLE, TLS_FAILURE; the signal's reason
 */
export async function secureTunnel(tls: TunnelTls, { socket, source, peers, about }: Handshake, signal: AbortSignal): Promise<TLSSocket> {
  let secured: TLSSocket | undefined;
  try {
    const { context } = await tls.certificates.get(source, signal);
    secured = connect({
      socket,
      secureContext: context,
      ALPNProtocols: MESH_ALPN,
      // The result of verification is looked at below, with the peer's name in the error.
      rejectUnauthorized: false,
      checkServerIdentity: ignoreServerName,
    });
    await handshaken(tls.clock, secured, signal);
    assertPeer(secured, peers, about);
    tls.revocations?.admit(secured, 'source');
    return secured;
  } catch (error) {
    secured?.destroy();
    socket.destroy();
    if (signal.aborted && signal.reason instanceof ProxyError) throw signal.reason;
    throw ProxyError.from(error, 'TLS_FAILURE', `TLS handshake with ${about} failed`);
  }
}

function handshaken(clock: Clock, tls: TLSSocket, signal: AbortSignal): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const aborted = (): void => reject(signal.reason);
  const closed = (): void => reject(new Error('the peer closed the connection'));
  const timer = clock.after(HANDSHAKE_TIMEOUT_MS, () => reject(new Error(`no answer within ${HANDSHAKE_TIMEOUT_MS / 1000} s`)));
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
