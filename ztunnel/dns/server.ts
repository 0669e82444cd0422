/**
 * The DNS proxy of a pod (Istio's ztunnel, src/dns): UDP and TCP on the pod's loopback, where redirection brings its queries. Services are
 * answered from the mesh's state, everything else goes to the node's nameservers.
 */
import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { createServer, type Server, type Socket } from 'node:net';
import { isIpv6, type SocketAddress } from '../../common/base/address.ts';
import { errorMessage } from '../../common/base/errors.ts';
import type { Workload } from '../../common/decision/mesh-view.ts';
import { isLinuxError } from '../../common/linux/libc.ts';
import { listenTcp, udpSocket } from '../../common/linux/sockets.ts';
import type { PodContext } from '../worker/context.ts';
import { DnsForwarder } from './forward.ts';
import { type DnsFound, lookupName } from './lookup.ts';
import { type DnsQuery, encodeAnswer, fitUdp, parseQuery } from './message.ts';
import { DnsFramer, framed } from './tcp-framing.ts';

const TCP_IDLE_MS = 5000;
const MAX_TCP_CONNECTIONS = 128;

type Protocol = 'udp' | 'tcp';

export class DnsServer {
  readonly #pod: PodContext;
  readonly #forwarder: DnsForwarder;
  #udp: UdpSocket[] = [];
  #tcp: Server[] = [];
  readonly #connections = new Set<Socket>();
  #underWay = 0;
  #whenIdle: (() => void)[] = [];

  constructor(pod: PodContext, nameservers: readonly SocketAddress[]) {
    this.#pod = pod;
    this.#forwarder = new DnsForwarder(pod, nameservers);
  }

  /** @throws {Error} naming address and cause where a port is taken; an address family that the pod does not have is left out */
  listen({ port, addresses }: { readonly port: number; readonly addresses: readonly string[] }): void {
    for (const address of addresses) {
      if (address === '::1' && !this.#pod.parts.settings.ipv6) continue;
      try {
        this.#listenUdp(address, port);
        this.#listenTcp(address, port);
      } catch (error) {
        if (address === '::1' && (isLinuxError(error, 'EADDRNOTAVAIL') || isLinuxError(error, 'EAFNOSUPPORT'))) continue;
        this.close();
        throw new Error(`cannot listen for DNS on ${address} port ${port} for ${this.#pod.name}: ${errorMessage(error)}`, { cause: error });
      }
    }
  }

  /**
   * Takes no more connections, and goes on answering datagrams: another ztunnel listens beside us by now, but the kernel gives some of the
   * pod's questions to us for as long as our socket is there, and a question that is lost costs its asker seconds.
   */
  drain(): void {
    for (const server of this.#tcp) server.close();
    this.#tcp = [];
  }

  /** Resolves when no question is under way. */
  idle(): Promise<void> {
    if (this.#underWay === 0) return Promise.resolve();
    return new Promise((resolve) => this.#whenIdle.push(resolve));
  }

  close(): void {
    for (const socket of this.#udp) socket.close();
    for (const server of this.#tcp) server.close();
    for (const connection of this.#connections) connection.destroy();
    this.#udp = [];
    this.#tcp = [];
  }

  #listenUdp(address: string, port: number): void {
    const socket = createSocket({ type: isIpv6(address) ? 'udp6' : 'udp4' });
    socket.on('error', (error) => this.#pod.parts.log.error({ pod: this.#pod.name, error: error.message }, 'DNS listener failed'));
    socket.on('message', (raw, from) => {
      void this.#serve(raw, 'udp').then((answer) => {
        // The pod may have been removed while its question was under way.
        if (answer && this.#udp.includes(socket)) socket.send(answer, from.port, from.address);
      });
    });
    socket.bind({ fd: udpSocket({ ...this.#options(), address, port }) });
    this.#udp.push(socket);
  }

  #listenTcp(address: string, port: number): void {
    const fd = listenTcp({ ...this.#options(), address, port });
    const server = createServer((connection) => this.#serveConnection(connection));
    server.maxConnections = MAX_TCP_CONNECTIONS;
    server.on('error', (error) => this.#pod.parts.log.error({ pod: this.#pod.name, error: error.message }, 'DNS listener failed'));
    server.listen({ fd });
    this.#tcp.push(server);
  }

  #options() {
    const { netns, mark, parts } = this.#pod;
    return { ...(netns ? { netns } : {}), ...(mark !== undefined ? { mark } : {}), reusePort: parts.settings.portReuse };
  }

  #serveConnection(connection: Socket): void {
    this.#connections.add(connection);
    const framer = new DnsFramer((raw) => {
      // One answer at a time would be polite; many at once are bounded by what the forwarder takes and by the peer's window.
      void this.#serve(raw, 'tcp').then((answer) => answer && connection.writable && connection.write(framed(answer)));
    });
    connection.setTimeout(TCP_IDLE_MS, () => connection.destroy());
    connection.on('error', () => undefined);
    connection.on('close', () => this.#connections.delete(connection));
    connection.on('data', (chunk: Buffer) => framer.push(chunk));
  }

  /** @returns undefined for bytes that cannot be answered. Never rejects. */
  async #serve(raw: Buffer, protocol: Protocol): Promise<Buffer | undefined> {
    const parsed = parseQuery(raw);
    if (!parsed) return undefined;
    if ('refusal' in parsed) return parsed.refusal;
    this.#underWay++;
    try {
      return await this.#answer(parsed.query, protocol);
    } catch (error) {
      // A name that can be read and not be written again; its asker will give up on it.
      this.#pod.parts.log.warn(
        { pod: this.#pod.name, query: parsed.query.name.slice(0, 300), error: errorMessage(error) },
        'no DNS answer',
      );
      return undefined;
    } finally {
      this.#underWay--;
      if (this.#underWay === 0) for (const resolve of this.#whenIdle.splice(0)) resolve();
    }
  }

  async #answer(query: DnsQuery, protocol: Protocol): Promise<Buffer> {
    const { telemetry, log } = this.#pod.parts;
    let client: Workload;
    try {
      client = await this.#pod.local.wait(this.#pod.removed);
    } catch (error) {
      log.debug({ pod: this.#pod.name, query: query.name, error: errorMessage(error) }, 'dns');
      return encodeAnswer(query, { rcode: 'SERVFAIL', authoritative: false });
    }
    const asker = { client, type: query.type, protocol };
    telemetry.dnsRequest(asker);
    const found = this.#lookup(query, client);
    if (found) {
      log.debug(
        { pod: this.#pod.name, query: query.name, type: query.type, service: found.service.hostname, addresses: found.addresses.length },
        'dns',
      );
      const { alias, addresses } = found;
      const answer = encodeAnswer(query, {
        rcode: 'NOERROR',
        authoritative: true,
        alias: addresses.length > 0 ? alias : undefined,
        addresses: this.#shuffled(addresses),
      });
      return protocol === 'udp' ? fitUdp(query, answer) : answer;
    }
    const finished = telemetry.dnsUpstream(asker);
    try {
      const answer = await this.#forwarder.ask(query.raw, protocol);
      finished(true);
      // As it came: the nameserver knew from the same question how much the asker takes.
      return answer;
    } catch (error) {
      finished(false);
      log.debug({ pod: this.#pod.name, query: query.name, type: query.type, error: errorMessage(error) }, 'dns');
      return encodeAnswer(query, { rcode: 'SERVFAIL', authoritative: false });
    }
  }

  #lookup({ name, type }: DnsQuery, client: Workload): DnsFound | undefined {
    if (type !== 'A' && type !== 'AAAA') return undefined;
    const { view, settings } = this.#pod.parts;
    return lookupName(view, {
      name: name.toLowerCase().replace(/\.$/, ''),
      type,
      client,
      clusterDomain: settings.clusterDomain,
      preferredNamespace: settings.preferredServiceNamespace,
      ipv6: settings.ipv6,
    });
  }

  #shuffled<T>(items: readonly T[]): T[] {
    const { random } = this.#pod.parts;
    const shuffled = [...items];
    for (let i = shuffled.length - 1; i > 0; i--) {
      const j = Math.floor(random() * (i + 1));
      const [a, b] = [shuffled[i], shuffled[j]];
      if (a === undefined || b === undefined) continue;
      shuffled[i] = b;
      shuffled[j] = a;
    }
    return shuffled;
  }
}
