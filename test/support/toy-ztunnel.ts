/**
 * The least that stands in for ztunnel inside a pod's namespace: takes what the rules redirect, notes where it was going, and relays it in
 * the clear; inbound with the caller's address, as ztunnel does. Proves the rules without any of ztunnel's own logic.
 */
import net from 'node:net';
import type { TestContext } from 'node:test';
import { formatSocketAddress, isIpv6, parseIp } from '../../common/base/address.ts';
import type { Netns } from '../../common/linux/netns.ts';
import { fdOf, socketFromFd } from '../../common/linux/node.ts';
import { listenTcp, originalDestination, tcpSocket } from '../../common/linux/sockets.ts';

const MARK = 0x539;

export interface ToyZtunnel {
  /** `out DESTINATION` or `in DESTINATION from SOURCE`, in order. */
  readonly seen: string[];
}

export function startToyZtunnel(t: TestContext, netns: Netns): ToyZtunnel {
  const seen: string[] = [];
  listen(t, netns, 15001, (socket) => {
    const to = originalDestination(fdOf(socket));
    if (!to) return socket.destroy();
    seen.push(`out ${formatSocketAddress(to)}`);
    return relay(t, socket, tcpSocket({ netns, family: isIpv6(to.ip) ? 6 : 4, mark: MARK }), to);
  });
  listen(t, netns, 15006, (socket) => {
    const to = originalDestination(fdOf(socket));
    const source = parseIp(socket.remoteAddress ?? '');
    if (!to || !source) return socket.destroy();
    seen.push(`in ${formatSocketAddress(to)} from ${source}`);
    return relay(t, socket, tcpSocket({ netns, family: isIpv6(to.ip) ? 6 : 4, mark: MARK, source: { ip: source, port: 0 } }), to);
  });
  return { seen };
}

/** An application: echoes, and says its name first so that callers know that they have arrived. */
export function startApp(t: TestContext, netns: Netns, port: number): { readonly callers: string[] } {
  const callers: string[] = [];
  listen(t, netns, port, (socket) => {
    callers.push(parseIp(socket.remoteAddress ?? '') ?? '');
    socket.write('app\n');
    socket.pipe(socket);
  });
  return { callers };
}

/** An open connection of a client inside `netns`, that can be asked whether it still works. */
export class ToyClient {
  readonly #socket: net.Socket;
  #text = '';
  #wake: (() => void) | undefined;

  private constructor(socket: net.Socket) {
    this.#socket = socket;
    socket.on('data', (chunk) => {
      this.#text += String(chunk);
      this.#wake?.();
    });
    for (const event of ['close', 'error'] as const) socket.on(event, () => this.#wake?.());
  }

  /** @throws where the application does not answer within `timeoutMs` */
  static async open(t: TestContext, netns: Netns, host: string, port: number, source?: string): Promise<ToyClient> {
    const family = isIpv6(host) ? 6 : 4;
    const socket = socketFromFd(tcpSocket({ netns, family, ...(source !== undefined && { source: { ip: source, port: 0 } }) }));
    t.after(() => socket.destroy());
    const client = new ToyClient(socket);
    socket.connect({ host, port });
    await client.#expect('app\n');
    return client;
  }

  /** Sends a line and waits for its echo. */
  async say(line: string): Promise<void> {
    this.#text = '';
    this.#socket.write(`${line}\n`);
    await this.#expect(`${line}\n`);
  }

  end(): void {
    this.#socket.destroy();
  }

  async #expect(wanted: string): Promise<void> {
    const deadline = performance.now() + 20_000;
    while (!this.#text.includes(wanted)) {
      if (this.#socket.destroyed) throw new Error(`the connection was cut while waiting for ${JSON.stringify(wanted)}`);
      if (performance.now() > deadline) throw new Error(`no ${JSON.stringify(wanted)} within 20 s`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 50);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }
}

function listen(t: TestContext, netns: Netns, port: number, onConnection: (socket: net.Socket) => void): void {
  const open = new Set<net.Socket>();
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    open.add(socket);
    socket.on('close', () => open.delete(socket));
    socket.on('error', () => socket.destroy());
    onConnection(socket);
  });
  server.listen({
    fd: listenTcp({ netns, address: '::', port, transparent: 'require', mark: port === 15001 || port === 15006 ? MARK : 0 }),
  });
  t.after(() => {
    server.close();
    for (const socket of open) socket.destroy();
  });
}

function relay(t: TestContext, socket: net.Socket, fd: number, to: { ip: string; port: number }): void {
  const upstream = socketFromFd(fd, { allowHalfOpen: true });
  t.after(() => upstream.destroy());
  upstream.connect({ host: to.ip, port: to.port });
  upstream.on('error', () => socket.destroy());
  upstream.on('close', () => socket.destroy());
  socket.on('close', () => upstream.destroy());
  socket.pipe(upstream);
  upstream.pipe(socket);
}
