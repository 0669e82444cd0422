/**
 * The backend of the Gateway API's conformance suite: tells what it was asked, in the form that the suite reads. One mode, by environment:
 * gRPC, TCP, UDP or HTTP.
 */
import dgram from 'node:dgram';
import net from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { BasicIdentity } from './echo-basic-http.ts';
import { createEchoTls } from './echo-tls.ts';

const GREETING = 'Gateway API Test TCP Server\n';
const LONGEST_LINE = 64 << 10;

async function main(env: NodeJS.ProcessEnv): Promise<void> {
  const identity: BasicIdentity = {
    namespace: env.NAMESPACE ?? '',
    ingress: env.INGRESS_NAME ?? '',
    service: env.SERVICE_NAME ?? '',
    pod: env.POD_NAME ?? '',
  };
  const port = (name: string, fallback: number): number => Number(env[name] || fallback);
  if (env.GRPC_ECHO_SERVER) {
    const { basicGrpcServer } = await import('./echo-basic-grpc.ts');
    const handler = basicGrpcServer(identity);
    await listen(net.createServer(handler), port('HTTP_PORT', 3000));
    if (env.TLS_SERVER_CERT && env.TLS_SERVER_PRIV_KEY) {
      await listen(createEchoTls(env.TLS_SERVER_CERT, env.TLS_SERVER_PRIV_KEY, handler), port('HTTPS_PORT', 8443));
    }
  } else if (env.TCP_ECHO_SERVER) {
    const ports = { tcpport: env.TCP_PORT ?? '3000', tlsport: env.TLS_PORT ?? '8443' };
    await listen(
      net.createServer((socket) => serveLines(socket, identity, ports)),
      port('TCP_PORT', 3000),
    );
    if (env.TLS_SERVER_CERT && env.TLS_SERVER_PRIV_KEY) {
      const server = createEchoTls(env.TLS_SERVER_CERT, env.TLS_SERVER_PRIV_KEY, (socket) => serveLines(socket, identity, ports));
      await listen(server, port('TLS_PORT', 8443));
    }
  } else if (env.UDP_ECHO_SERVER) serveDatagrams(port('UDP_PORT', 8080), identity);
  else {
    const { basicHttpServers } = await import('./echo-basic-http.ts');
    const { http1, http2, both } = basicHttpServers(identity);
    await listen(http1, port('HTTP_PORT', 3000));
    await listen(http2, port('H2C_PORT', 3001));
    if (env.TLS_SERVER_CERT && env.TLS_SERVER_PRIVKEY) {
      await listen(both(env.TLS_SERVER_CERT, env.TLS_SERVER_PRIVKEY, env.TLS_CLIENT_CACERTS), port('HTTPS_PORT', 8443));
    }
  }
}

/** The server speaks first; then one line, one answer. */
function serveLines(socket: net.Socket | TLSSocket, identity: BasicIdentity, ports: { tcpport: string; tlsport: string }): void {
  const isTls = 'getProtocol' in socket;
  let rest = '';
  socket.on('error', () => socket.destroy());
  socket.write(GREETING);
  socket.setEncoding('utf8').on('data', (text: string) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop() ?? '';
    if (rest.length > LONGEST_LINE) return void socket.destroy();
    for (const line of lines) {
      const word = line.trim();
      if (word === 'PING') socket.write('PONG\n');
      else if (word === 'IS_TLS') socket.write(`${isTls}\n`);
      else if (word === 'TEST') {
        const tls = isTls
          ? {
              version: socket.getProtocol() ?? '',
              serverName: 'servername' in socket ? String(socket.servername ?? '') : '',
              negotiatedProtocol: socket.alpnProtocol || '',
              cipherSuite: socket.getCipher().standardName,
            }
          : undefined;
        socket.write(`${JSON.stringify({ ...identity, ...ports, isTLS: isTls, ...(tls ? { tls } : {}) })}\n`);
      }
    }
  });
}

function serveDatagrams(port: number, identity: BasicIdentity): void {
  const socket = dgram.createSocket('udp6');
  socket.on('message', (message, from) => {
    socket.send(JSON.stringify({ request: message.toString('utf8'), ...identity }), from.port, from.address);
  });
  socket.bind(port, '::');
}

function listen(server: net.Server, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, '::', () => {
      process.stdout.write(`Starting server, listening on port ${port}\n`);
      resolve();
    });
  });
}

for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => process.exit(0));
main(process.env).catch((error: unknown) => {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exit(1);
});
