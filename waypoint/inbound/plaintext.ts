/** Ports without TLS, each in front of one service: the waypoint as a plain reverse proxy, for benches and tests (PLAINTEXT_LISTEN). */
import { formatSocketAddress, type IpAddress } from '../../common/base/address.ts';
import { errorMessage, ProxyError } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';
import type { MeshView } from '../../common/decision/mesh-view.ts';
import { AppSocket, mostConnectionsInTurn } from '../../common/hbone/app-socket.ts';
import { listenAt, type TcpListener } from '../../common/linux/tcp-listener.ts';
import type { PlaintextListener } from '../settings.ts';
import type { Telemetry } from '../worker/telemetry.ts';
import type { Connections } from './connection.ts';
import { targetOf } from './hbone.ts';

export interface PlaintextOptions {
  readonly view: MeshView;
  readonly network: string;
  readonly connections: Connections;
  readonly telemetry: Pick<Telemetry, 'connectionRefused'>;
  readonly log: Log;
  readonly maxConnections: number;
  randomHex(digits: number): string;
}

export class PlaintextInbound {
  readonly #options: PlaintextOptions;
  readonly #listeners: TcpListener[] = [];

  constructor(options: PlaintextOptions) {
    this.#options = options;
  }

  /** @throws {Error} naming the port where it is taken */
  listen(host: IpAddress, listener: PlaintextListener): void {
    const { log } = this.#options;
    const { port } = listener;
    try {
      this.#listeners.push(
        listenAt(
          { ip: host, port },
          {
            onConnection: (stream) => {
              const socket = new AppSocket(stream);
              try {
                this.#accept(socket, listener);
              } catch (reason) {
                // A fault of ours: this connection is lost, the worker goes on.
                socket.destroy();
                log.error({ port, error: errorMessage(reason) }, 'connection handler failed');
              }
            },
            onError: (error) => log.error({ port, error: error.message }, 'listener failed'),
            mostInTurn: mostConnectionsInTurn,
          },
        ),
      );
    } catch (error) {
      throw new Error(`cannot listen on port ${port}: ${errorMessage(error)}`, { cause: error });
    }
  }

  close(): void {
    for (const listener of this.#listeners.splice(0)) listener.close();
  }

  #accept(socket: AppSocket, { namespace, hostname, servicePort }: PlaintextListener): void {
    const { view, network, connections, telemetry, maxConnections, randomHex } = this.#options;
    const { ends } = socket;
    const service = view.serviceByKey(namespace, hostname);
    if (!ends) {
      socket.destroy();
      return;
    }
    const error = service?.ports.has(servicePort)
      ? connections.size >= maxConnections && new ProxyError('OVERLOADED', `${maxConnections} connections are open already`)
      : new ProxyError('SERVICE_UNKNOWN', `no service ${namespace}/${hostname} with port ${servicePort}`);
    if (!service || error) {
      socket.destroy();
      if (error) telemetry.connectionRefused({ source: formatSocketAddress(ends.remote), error });
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
    const id = randomHex(32);
    connections.serve(socket, { caller, target, local: ends.local }, id);
  }
}
