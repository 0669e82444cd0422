/** Requests that leave HTTP: exec and port-forward over WebSockets or SPDY, whichever the client offers. */
import type { IncomingMessage } from 'node:http';
import { createRequire } from 'node:module';
import type { Duplex } from 'node:stream';
import { ApiError } from '../api-error.ts';
import type { ResourcePath } from '../http/path.ts';
import type { Store } from '../store/store.ts';
import { execOverChannels, execOverSpdy, execRequest } from './exec.ts';
import { type Kubelets, type PodTarget, podTarget } from './pod-target.ts';
import { forwardOverChannels, forwardOverSpdy } from './port-forward.ts';
import { SpdyConnection, type SpdyStream } from './spdy.ts';
import { WebSocketChannels } from './web-socket-channels.ts';

const require = createRequire(import.meta.url);

const EXEC_PROTOCOLS = ['v5.channel.k8s.io', 'v4.channel.k8s.io'];
const FORWARD_PROTOCOLS = ['SPDY/3.1+portforward.k8s.io', 'v5.channel.k8s.io', 'v4.channel.k8s.io'];
const SPDY_EXEC_PROTOCOLS = ['v4.channel.k8s.io', 'v3.channel.k8s.io', 'v2.channel.k8s.io'];
const SPDY_FORWARD_PROTOCOL = 'portforward.k8s.io';
const MAX_MESSAGE_BYTES = 16 << 20;

export interface UpgradeParts {
  readonly store: Store;
  readonly kubelets: Kubelets;
}

/** @throws {ApiError} before anything is answered; afterwards errors go over the streams */
export function serveUpgrade(
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
  url: URL,
  path: ResourcePath,
  { store, kubelets }: UpgradeParts,
): void {
  const kind = path.subresource;
  if (path.group !== '' || path.plural !== 'pods' || (kind !== 'exec' && kind !== 'portforward')) throw ApiError.noSuchPath();
  const target = podTarget(store, kubelets, path.namespace, path.name);
  const protocol = (request.headers.upgrade ?? '').toLowerCase();
  if (protocol === 'websocket') overWebSocket(request, socket, head, url, kind, target);
  else if (protocol === 'spdy/3.1') overSpdy(request, socket, head, url, kind, target);
  else throw ApiError.badRequest(`unable to upgrade: expected websocket or SPDY/3.1, found "${protocol}"`);
}

/** Answers a request for an upgrade that cannot be. */
export function refuseUpgrade(socket: Duplex, error: unknown): void {
  const known =
    error instanceof ApiError ? error : new ApiError(500, 'InternalError', error instanceof Error ? error.message : String(error));
  const body = JSON.stringify(known.status());
  socket.on('error', () => socket.destroy());
  socket.end(
    `HTTP/1.1 ${known.code} ${known.reason}\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n${body}`,
  );
}

function overWebSocket(
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
  url: URL,
  kind: 'exec' | 'portforward',
  target: PodTarget,
): void {
  const supported = kind === 'exec' ? EXEC_PROTOCOLS : FORWARD_PROTOCOLS;
  const offered = String(request.headers['sec-websocket-protocol'] ?? '')
    .split(',')
    .map((each) => each.trim());
  const chosen = supported.find((each) => offered.includes(each));
  if (!chosen)
    throw ApiError.badRequest(`unable to upgrade: none of the protocols ${JSON.stringify(offered)} is supported: ${supported.join(', ')}`);
  const exec = kind === 'exec' ? execRequest(url.searchParams, target) : undefined;
  // Loaded with the first of them: it takes a fifth of the time that the server needs to start.
  const { createWebSocketStream, WebSocketServer } = require('ws') as typeof import('ws');
  const server = new WebSocketServer({
    noServer: true,
    maxPayload: MAX_MESSAGE_BYTES,
    perMessageDeflate: false,
    handleProtocols: () => chosen,
  });
  server.handleUpgrade(request, socket, head, (webSocket) => {
    if (chosen.startsWith('SPDY')) {
      const carrier = createWebSocketStream(webSocket);
      new SpdyConnection(carrier, forwardOverSpdy(target));
    } else if (exec) void execOverChannels(new WebSocketChannels(webSocket), target, exec);
    else forwardOverChannels(new WebSocketChannels(webSocket), target, url.searchParams);
  });
}

function overSpdy(request: IncomingMessage, socket: Duplex, head: Buffer, url: URL, kind: 'exec' | 'portforward', target: PodTarget): void {
  const offered = String(request.headers['x-stream-protocol-version'] ?? '')
    .split(',')
    .map((each) => each.trim());
  const supported = kind === 'exec' ? SPDY_EXEC_PROTOCOLS : [SPDY_FORWARD_PROTOCOL];
  const chosen = supported.find((each) => offered.includes(each));
  if (!chosen)
    throw ApiError.badRequest(`unable to upgrade: none of the protocols ${JSON.stringify(offered)} is supported: ${supported.join(', ')}`);
  const onClose = (run: () => void): void => void socket.once('close', run);
  const begin = kind === 'exec' ? execOverSpdy(target, execRequest(url.searchParams, target), onClose) : forwardOverSpdy(target);
  socket.write(
    `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: ${chosen}\r\n\r\n`,
  );
  if (head.length > 0) socket.unshift(head);
  const connection: SpdyConnection = new SpdyConnection(socket, (stream: SpdyStream) => begin(stream, connection));
}
