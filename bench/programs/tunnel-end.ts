/**
 * One end of a tunnel and nothing else, for measuring common/hbone alone: `tunnel-end.ts out LISTEN_PORT PEER_PORT` takes connections on
 * loopback, `tunnel-end.ts in LISTEN_PORT APP_PORT` hands them to the application. The peer's address is in PEER; certificates lie in
 * ./certs (leaf.key, leaf.pem, ca.pem).
 */
import { readFileSync } from 'node:fs';
import net from 'node:net';
import tls from 'node:tls';
import { systemClock as clock } from '../../common/base/clock.ts';
import { AppSocket } from '../../common/hbone/app-socket.ts';
import { HbonePool } from '../../common/hbone/pool.ts';
import { relay } from '../../common/hbone/relay.ts';
import { HboneServerConnection } from '../../common/hbone/server.ts';
import { type ConnectRequest, defaultClientLimits, defaultServerLimits } from '../../common/hbone/types.ts';

const [, , mode, listen, port] = process.argv;
const peer = { ip: process.env.PEER ?? '127.0.0.1', port: Number(port) };
const options = {
  key: readFileSync('certs/leaf.key'),
  cert: readFileSync('certs/leaf.pem'),
  ca: readFileSync('certs/ca.pem'),
  requestCert: true,
  ALPNProtocols: ['h2'],
  checkServerIdentity: () => undefined,
};

if (mode === 'out') {
  const pool = new HbonePool({
    clock,
    limits: defaultClientLimits,
    maxStreamsPerConnection: 100,
    unusedReleaseMs: 300_000,
    dial: ({ to }) =>
      new Promise((resolve, reject) => {
        const socket = tls.connect({ ...options, host: to.ip, port: to.port }, () => resolve(socket));
        socket.on('error', reject);
      }),
  });
  const accept = async (socket: net.Socket): Promise<void> => {
    const app = AppSocket.accepted(socket);
    try {
      const key = { source: 'a', destinations: ['b'], to: peer, sourceIp: '127.0.0.1' };
      relay(app, await pool.connect(key, { authority: '10.0.0.1:80', headers: [['baggage', 'k8s.cluster.name=bench']] }));
    } catch (error) {
      console.log(String(error));
      app.destroy();
    }
  };
  net.createServer({ pauseOnConnect: true }, (socket) => void accept(socket)).listen(Number(listen), '0.0.0.0', 4096);
} else {
  const accept = async (request: ConnectRequest): Promise<void> => {
    try {
      const app = await AppSocket.connect(undefined, { ip: '127.0.0.1', port: peer.port }, { timeoutMs: 10_000, clock });
      relay(request.accept([]), app);
    } catch {
      request.refuse(503, []);
    }
  };
  tls
    .createServer(options, (socket) => {
      new HboneServerConnection(socket, {
        clock,
        limits: defaultServerLimits,
        onConnect: (request) => void accept(request),
        onClose: (error) => error && console.log(error.message),
      });
    })
    .listen(Number(listen), '0.0.0.0', 4096);
}
