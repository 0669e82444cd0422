/** `kubectl port-forward`: each connection is a pair of streams, one for data and one for the error that may end it. */
import type { Duplex, Writable } from 'node:stream';
import { ApiError } from '../api-error.ts';
import type { PodTarget } from './pod-target.ts';
import type { SpdyStream } from './spdy.ts';
import type { WebSocketChannels } from './web-socket-channels.ts';

const MAX_PAIRS = 500;

/** SPDY: streams carry `streamtype`, `port` and the `requestid` that makes them a pair. */
export function forwardOverSpdy(target: PodTarget): (stream: SpdyStream) => void {
  const waiting = new Map<string, SpdyStream>();
  return (stream) => {
    const request = stream.headers.get('requestid') ?? '';
    const partner = waiting.get(request);
    if (!partner) {
      if (waiting.size >= MAX_PAIRS) stream.destroy();
      else waiting.set(request, stream);
      stream.once('close', () => waiting.delete(request));
      return;
    }
    waiting.delete(request);
    const isError = stream.headers.get('streamtype') === 'error';
    const [error, data] = isError ? [stream, partner] : [partner, stream];
    error.resume();
    void forward(target, Number(data.headers.get('port')), data, error);
  };
}

/** WebSocket channels: for the n-th port data on 2n and errors on 2n+1, each beginning with the port in two bytes. */
export function forwardOverChannels(channels: WebSocketChannels, target: PodTarget, query: URLSearchParams): void {
  const ports = query
    .getAll('ports')
    .flatMap((text) => text.split(','))
    .map(Number);
  ports.forEach((port, i) => {
    const data = channels.writer(2 * i);
    const error = channels.writer(2 * i + 1);
    const head = Buffer.alloc(2);
    head.writeUInt16LE(port & 0xffff);
    data.write(head);
    error.write(head);
    const reader = channels.reader(2 * i);
    void dial(target, port, error).then((socket) => {
      if (!socket) return;
      reader.pipe(socket).pipe(data);
      channels.onClose(() => socket.destroy());
    });
  });
}

async function forward(target: PodTarget, port: number, data: Duplex, error: Writable): Promise<void> {
  const socket = await dial(target, port, error);
  if (!socket) {
    data.destroy();
    return;
  }
  socket.once('close', () => {
    data.end();
    error.end();
  });
  data.once('close', () => socket.destroy());
  data.pipe(socket).pipe(data);
}

async function dial({ kubelet, pod }: PodTarget, port: number, error: Writable): Promise<Duplex | undefined> {
  try {
    if (!(Number.isInteger(port) && port > 0 && port < 65536)) throw ApiError.badRequest(`${port} is no port`);
    const socket = await kubelet.portForward(pod, port);
    socket.on('error', (reason) => {
      error.end(`an error occurred forwarding ${port}: ${reason.message}`);
      socket.destroy();
    });
    return socket;
  } catch (reason) {
    error.end(`an error occurred forwarding ${port}: ${reason instanceof Error ? reason.message : String(reason)}`);
    return undefined;
  }
}
