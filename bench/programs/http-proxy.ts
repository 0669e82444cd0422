/**
 * common/http and nothing else as a plaintext reverse proxy, for measuring it alone: `http-proxy.ts LISTEN_PORT UPSTREAM_IP UPSTREAM_PORT`.
 * Connections to the upstream are kept; every head is read, changed and written again.
 */
import net from 'node:net';
import { systemClock as clock } from '../../common/base/clock.ts';
import { AppSocket } from '../../common/hbone/app-socket.ts';
import type { HttpClientConnection } from '../../common/http/connections.ts';
import { connectHttp1 } from '../../common/http/http1-client.ts';
import { serveHttp1 } from '../../common/http/http1-server.ts';
import { type ClientExchange, defaultHttpLimits as limits, type ServerExchange } from '../../common/http/types.ts';

const [, , listen, ip = '', port] = process.argv;
const to = { ip, port: Number(port) };
const idle: HttpClientConnection[] = [];

function forward(exchange: ServerExchange, connection: HttpClientConnection): void {
  const fields = [...exchange.head.fields, 'x-forwarded-proto', 'http'];
  const sent: ClientExchange = connection.request({ ...exchange.head, fields }, exchange.body, {
    informational: (head) => exchange.inform(head),
    response: (head, body) => {
      head.fields.push('x-envoy-upstream-service-time', '0');
      body.into(exchange.respond(head, body));
    },
    failed: (error) => exchange.abort(error),
  });
  exchange.onClientGone((error) => sent.abort(error));
  exchange.body.into(sent.body);
}

async function dial(exchange: ServerExchange): Promise<void> {
  const socket = await AppSocket.connect(undefined, to, { timeoutMs: 5000, clock });
  const connection = connectHttp1(socket, { limits, clock, onClose() {}, onRoom: () => void idle.push(connection) });
  forward(exchange, connection);
}

net
  .createServer({ pauseOnConnect: true, allowHalfOpen: true }, (socket) => {
    serveHttp1(AppSocket.accepted(socket), {
      limits,
      clock,
      onExchange(exchange) {
        let kept = idle.pop();
        while (kept && !kept.usable) kept = idle.pop();
        if (kept) forward(exchange, kept);
        else dial(exchange).catch((error) => exchange.abort(error));
      },
      onClose() {},
    });
  })
  .listen(Number(listen));
