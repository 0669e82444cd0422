/** Listening sockets of libuv's, whose connections come as `TcpStream`s (tcp-stream.ts), several in a turn. */
import type { SocketAddress } from '../base/address.ts';
import { closeFd } from './descriptor.ts';
import { acceptAtOnce, ownAddress } from './sockets.ts';
import { constants, systemError, TCP, type TcpHandle } from './tcp-handle.ts';
import { TcpStream } from './tcp-stream.ts';

/** As `net.Server` asks for; the kernel's own limit (somaxconn) holds too. */
const BACKLOG = 511;

/** Connections that arrive at a listener's descriptor, as streams. */
export interface TcpListener {
  readonly port: number;
  /** Takes no more; the descriptor is closed. */
  close(): void;
}

export interface TcpListenerOptions {
  onConnection(stream: TcpStream): void;
  /** A connection could not be taken (EMFILE and its kin); others still can. */
  onError(error: Error): void;
  /**
   * How many connections a turn of the event loop takes. libuv takes one; several in one turn leave together wherever they go, which a tenth of what each
   * costs hangs on (bench ztunnel, new connections), and make the turn longer for all others.
   */
  mostInTurn(): number;
}

/** Listens on a bound descriptor, which is ours from here on. @throws {Error} where that fails; then it has been closed */
export function listenOn(fd: number, options: TcpListenerOptions): TcpListener {
  const handle = new TCP(constants.SERVER);
  const status = handle.open(fd);
  if (status === 0) return listening(handle, '', options);
  closeFd(fd);
  throw systemError('listen', status);
}

/**
 * Listens on an address, with SO_REUSEPORT: the kernel spreads connections over those who listen there.
 * @param at `::` takes IPv4 as well
 * @throws {Error} the system's, where that fails
 */
export function listenAt({ ip, port }: SocketAddress, options: TcpListenerOptions): TcpListener {
  const handle = new TCP(constants.SERVER);
  const flags = constants.UV_TCP_REUSEPORT;
  const status = ip.includes(':') ? handle.bind6(ip, port, flags) : handle.bind(ip, port, flags);
  if (status === 0) return listening(handle, `${ip}:${port}`, options);
  handle.close();
  throw systemError('bind', status, `${ip}:${port}`);
}

function listening(handle: TcpHandle, about: string, { onConnection, onError, mostInTurn }: TcpListenerOptions): TcpListener {
  handle.onconnection = (failed, accepted) => {
    if (!accepted) {
      onError(systemError('accept', failed));
      return;
    }
    onConnection(new TcpStream(accepted, true));
    const most = mostInTurn();
    for (let taken = 1; taken < most; taken++) {
      const next = acceptAtOnce(handle.fd);
      // What cannot be taken is libuv's to find, in the next turn.
      if (!next) return;
      onConnection(TcpStream.fromFd(next.fd, next.remote));
    }
  };
  // Linux hands it down to what is accepted.
  handle.setNoDelay(true);
  const status = handle.listen(BACKLOG);
  if (status !== 0) {
    handle.close();
    throw systemError('listen', status, about);
  }
  return { port: ownAddress(handle.fd)?.port ?? 0, close: () => handle.close() };
}
