/** TCP connections that a pod's proxy makes: inside the pod's namespace, marked, with a time limit, from the right source address. */
import type { Socket } from 'node:net';
import { formatSocketAddress, isIpv6, type SocketAddress } from '../../common/base/address.ts';
import type { CancelSignal } from '../../common/base/cancellation.ts';
import { errorMessage, type OutcomeCode, ProxyError } from '../../common/base/errors.ts';
import { AppSocket } from '../../common/hbone/app-socket.ts';
import type { Lane } from '../../common/hbone/turn-shares.ts';
import { LinuxError } from '../../common/linux/libc.ts';
import { socketFromFd } from '../../common/linux/node.ts';
import { tcpSocket } from '../../common/linux/sockets.ts';
import type { PodContext } from './context.ts';

/** Every connection of the data plane is given up after this time (Istio's ztunnel, src/socket.rs). */
export const CONNECT_TIMEOUT_MS = 10_000;

export interface ApplicationDial {
  readonly to: SocketAddress;
  /** The caller's address, which the application shall see. */
  readonly source?: SocketAddress;
  readonly signal: CancelSignal;
  /** It is the pod's own, and listens in its namespace. */
  readonly own?: boolean;
  /** Whose share of a turn it uses; the pod's own where it is not given. */
  readonly lane?: Lane;
}

/** @throws {ProxyError} UPSTREAM_CONNECT naming the address and why; the signal's reason */
export function dialApplication(pod: PodContext, dial: ApplicationDial): AppSocket | Promise<AppSocket> {
  if (!dial.own) return dialElsewhere(pod, dial);
  const { to, source, signal, lane = pod.lane } = dial;
  if (signal.aborted) throw dialError(signal.reason, to, signal, 'UPSTREAM_CONNECT', 'connection');
  try {
    const app = AppSocket.connectedAtOnce(openSocket(pod, to, source), to, { lane, expectEnd: true });
    return app ?? dialElsewhere(pod, dial);
  } catch (error) {
    throw dialError(error, to, signal, 'UPSTREAM_CONNECT', 'connection');
  }
}

async function dialElsewhere(pod: PodContext, { to, source, signal, lane = pod.lane }: ApplicationDial): Promise<AppSocket> {
  try {
    const fd = openSocket(pod, to, source);
    return await AppSocket.connect(fd, to, { timeoutMs: CONNECT_TIMEOUT_MS, clock: pod.parts.clock, signal, lane, expectEnd: true });
  } catch (error) {
    throw dialError(error, to, signal, 'UPSTREAM_CONNECT', 'connection');
  }
}

/** A plain connection to a peer's HBONE port. @throws {ProxyError} UPSTREAM_CONNECT, UPSTREAM_TIMEOUT; the signal's reason */
export async function dialPeer(pod: PodContext, to: SocketAddress, signal: AbortSignal): Promise<Socket> {
  const what = 'connection to the HBONE port';
  try {
    const socket = socketFromFd(openSocket(pod, to, undefined), { allowHalfOpen: true });
    await connected(pod, socket, to, signal);
    return socket;
  } catch (error) {
    throw dialError(error, to, signal, 'UPSTREAM_CONNECT', what);
  }
}

function connected(pod: PodContext, socket: Socket, to: SocketAddress, signal: AbortSignal): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const fail = (error: unknown): void => {
    reject(error);
    socket.destroy();
  };
  const aborted = (): void => fail(signal.reason);
  const timer = pod.parts.clock.after(CONNECT_TIMEOUT_MS, () => {
    const address = formatSocketAddress(to);
    fail(new ProxyError('UPSTREAM_TIMEOUT', `connection timed out, maybe a NetworkPolicy is blocking HBONE port ${to.port}: ${address}`));
  });
  socket.once('error', fail);
  socket.once('connect', resolve);
  if (signal.aborted) aborted();
  else {
    signal.addEventListener('abort', aborted, { once: true });
    socket.connect({ host: to.ip, port: to.port });
  }
  return promise.finally(() => {
    timer.cancel();
    signal.removeEventListener('abort', aborted);
    socket.off('error', fail);
  });
}

/**
 * @param source bound with IP_TRANSPARENT where the families agree and it is not the destination itself
 * @throws {LinuxError} where a socket cannot be made; with ENABLE_ORIG_SRC=true also where the source cannot be kept
 */
function openSocket(pod: PodContext, to: SocketAddress, source: SocketAddress | undefined): number {
  const family = isIpv6(to.ip) ? 6 : 4;
  const { netns, mark, keepalive } = pod;
  const wanted = pod.parts.settings.originalSource;
  if (!source || wanted === false || pod.spec.kind === 'self' || source.ip === to.ip || isIpv6(source.ip) !== isIpv6(to.ip)) {
    return tcpSocket({ netns, family, mark, keepalive });
  }
  try {
    return tcpSocket({ netns, family, mark, keepalive, source: { ip: source.ip, port: 0 } });
  } catch (error) {
    if (wanted === true || !(error instanceof LinuxError) || error.code !== 'EPERM') throw error;
    return tcpSocket({ netns, family, mark, keepalive });
  }
}

function dialError(error: unknown, to: SocketAddress, signal: CancelSignal, code: OutcomeCode, what: string): ProxyError {
  if (signal.aborted && signal.reason instanceof ProxyError) return signal.reason;
  if (error instanceof ProxyError) {
    if (error.code !== 'UPSTREAM_TIMEOUT' || what !== 'connection') return error;
    // Only port 15008 is what a NetworkPolicy typically forgets; an application that does not answer is an application's matter.
    return new ProxyError(code, error.message, { cause: error });
  }
  return new ProxyError(code, `${what} to ${formatSocketAddress(to)} failed: ${errorMessage(error)}`, { cause: error });
}
