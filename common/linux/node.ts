/**
 * Where descriptors meet node:net. `manualStart` and `_handle.fd` are not documented; they are used in this file only, and its tests run
 * on every Node that we support.
 */
import net from 'node:net';
import { closeFd } from './descriptor.ts';

/**
 * Hands a TCP descriptor to Node: one that is connected, or one to be connected by `.connect({ host: ip, port })`, with an address, as a
 * name would be resolved outside the namespace. From here on the socket owns it; where this throws, it has been closed.
 * Reading begins with the first consumer (`on('data')`, `resume()`, a pipe); without one an end or an error is not noticed either.
 */
export function socketFromFd(fd: number, options: net.SocketConstructorOpts = {}): net.Socket {
  try {
    // Without manualStart the constructor reads at once, which fails with ENOTCONN on a socket that is connected in a later tick.
    const manual: net.SocketConstructorOpts & { manualStart: true } = { ...options, fd, manualStart: true };
    return new net.Socket(manual);
  } catch (error) {
    closeFd(fd);
    throw error;
  }
}

/** The descriptor under a socket or server, which stays its property. @throws {Error} where it has none (closed, or not yet open) */
export function fdOf(socket: net.Socket | net.Server): number {
  const handle = '_handle' in socket ? socket._handle : undefined;
  const fd = typeof handle === 'object' && handle !== null && 'fd' in handle ? handle.fd : undefined;
  if (typeof fd !== 'number' || fd < 0) throw new Error('the socket has no descriptor: it is closed or not yet open');
  return fd;
}
