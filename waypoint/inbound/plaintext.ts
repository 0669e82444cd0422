/** Ports without TLS, each in front of one service: the waypoint as a plain reverse proxy, for benches and tests (PLAINTEXT_LISTEN). */
import { createServer, type Server, type Socket } from 'node:net';
import { formatSocketAddress } from '../../common/base/address.ts';
import { errorMessage, ProxyError } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';
import { socketEnds } from '../../common/base/socket-ends.ts';
import type { MeshView } from '../../common/decision/mesh-view.ts';
import { AppSocket } from '../../common/hbone/app-socket.ts';
import type { PlaintextListener } from '../settings.ts';
import type { Telemetry } from '../worker/telemetry.ts';
import type { Connections } from './connection.ts';
import { listening, targetOf } from './hbone.ts';

export interface PlaintextOptions {
  readonly view: MeshView;
  readonly network: string;
  readonly connections: Connections;
  readonly telemetry: Pick<Telemetry, 'connectionRefused'>;
  readonly log: Log;
  readonly maxConnections: number;
  randomBytes(length: number): Uint8Array;
}

export class PlaintextInbound {
  readonly #options: PlaintextOptions;
  readonly #servers: Server[] = [];

  constructor(options: PlaintextOptions) {
    this.#options = options;
  }

  /** @throws {Error} naming the port where it is taken */
  async listen(host: string, listener: PlaintextListener): Promise<void> {
    const { log, maxConnections } = this.#options;
    const server = createServer({ pauseOnConnect: true, allowHalfOpen: true, noDelay: true }, (socket) => {
      socket.on('error', () => undefined);
      this.#accept(socket, listener).catch((error: unknown) => {
        socket.destroy();
        log.error({ port: listener.port, error: errorMessage(error) }, 'connection handler failed');
      });
    });
    server.maxConnections = maxConnections;
    this.#servers.push(server);
    await listening(server, host, listener.port);
    server.on('error', (error) => log.error({ port: listener.port, error: error.message }, 'listener failed'));
  }

  close(): void {
    for (const server of this.#servers) server.close();
  }

  async #accept(socket: Socket, { namespace, hostname, servicePort }: PlaintextListener): Promise<void> {
    const { view, network, connections, telemetry, randomBytes } = this.#options;
    const ends = socketEnds(socket);
    const service = view.serviceByKey(namespace, hostname);
    if (!ends) {
      socket.destroy();
      return;
    }
    if (!service?.ports.has(servicePort)) {
      socket.destroy();
      const error = new ProxyError('SERVICE_UNKNOWN', `no service ${namespace}/${hostname} with port ${servicePort}`);
      telemetry.connectionRefused({ source: formatSocketAddress(ends.remote), error });
      return;
    }
    const caller = {
      address: ends.remote,
      identity: undefined,
      principal: '',
      workload: view.workloadByAddress(network, ends.remote.ip),
      baggage: undefined,
    };
    const target = targetOf({ service, port: servicePort, ip: undefined });
    const id = Buffer.from(randomBytes(16)).toString('hex');
    await connections.serve(AppSocket.accepted(socket), { caller, target, local: ends.local }, id);
  }
}
