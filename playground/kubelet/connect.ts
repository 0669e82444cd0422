/** TCP connections made in another network namespace: the node's for probes, the pod's for port-forward. */
import type { Socket } from 'node:net';
import { isIpv6 } from '../../common/base/address.ts';
import type { Clock } from '../../common/base/clock.ts';
import { Netns } from '../../common/linux/netns.ts';
import { socketFromFd } from '../../common/linux/node.ts';
import { tcpSocket } from '../../common/linux/sockets.ts';

/** Resolves with a connected socket, paused. @throws the socket's error, or one that says that the time was over */
export function connectInside(netns: Netns, ip: string, port: number, timeoutMs: number, clock: Clock): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = socketFromFd(tcpSocket({ netns, family: isIpv6(ip) ? 6 : 4 }), { allowHalfOpen: true });
    const timer = clock.after(timeoutMs, () => socket.destroy(new Error(`dial tcp ${ip}:${port}: i/o timeout`)));
    socket.once('error', (error) => {
      timer.cancel();
      reject(error);
    });
    socket.once('connect', () => {
      timer.cancel();
      socket.removeAllListeners('error');
      // Until the caller listens: a reset in between is theirs to see as a closed socket.
      socket.on('error', () => undefined);
      resolve(socket);
    });
    socket.connect({ host: ip, port });
  });
}

/** The pod's own loopback, first IPv4: what an application that listens on localhost only hears. */
export async function connectLoopback(netnsPath: string, port: number, timeoutMs: number, clock: Clock): Promise<Socket> {
  const netns = Netns.open(netnsPath);
  try {
    return await connectInside(netns, '127.0.0.1', port, timeoutMs, clock);
  } catch (error) {
    try {
      return await connectInside(netns, '::1', port, timeoutMs, clock);
    } catch {
      // The first answer is the one to tell.
      throw error;
    }
  } finally {
    netns.close();
  }
}
