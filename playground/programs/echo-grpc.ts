/** The echo server's gRPC side: `proto.EchoTestService/Echo`, the standard health service; anything else is UNIMPLEMENTED. Two messages of one string each do not need a library. */
import http2, { type IncomingHttpHeaders, type ServerHttp2Stream } from 'node:http2';
import type { Socket } from 'node:net';
import { byName } from './echo-headers.ts';
import { type Identity, plainIp } from './echo-identity.ts';

const OK = 0;
const INVALID_ARGUMENT = 3;
const UNIMPLEMENTED = 12;
const MOST_MESSAGE = 4 << 20;

export function grpcHandler(identity: Identity): (socket: Socket) => void {
  const server = http2.createServer();
  server.on('sessionError', () => undefined);
  server.on('stream', (stream: ServerHttp2Stream, headers: IncomingHttpHeaders, _flags: number, raw: readonly string[]) => {
    stream.on('error', () => undefined);
    collect(stream, (body) => {
      const path = headers[':path'];
      if (path === '/proto.EchoTestService/Echo') respond(stream, echo(body, headers, raw, stream, identity));
      // HealthCheckResponse{status: SERVING}.
      else if (path === '/grpc.health.v1.Health/Check') respond(stream, Buffer.from([0x08, 0x01]));
      else fail(stream, UNIMPLEMENTED, `unknown method ${path}`);
    });
  });
  return (socket) => void server.emit('connection', socket);
}

function echo(body: Buffer, headers: IncomingHttpHeaders, raw: readonly string[], stream: ServerHttp2Stream, identity: Identity): Buffer {
  const lines = [
    'StatusCode=200',
    `ServiceVersion=${identity.version}`,
    `ServicePort=${identity.port}`,
    ...(identity.cluster === '' ? [] : [`Cluster=${identity.cluster}`]),
    `Host=${headers[':authority'] ?? ''}`,
    `IP=${plainIp(stream.session?.socket.remoteAddress)}`,
    'Proto=GRPC',
    ...metadataLines(raw),
    `Echo=${decodeString(body.subarray(5))}`,
    `Hostname=${identity.hostname}`,
  ];
  return encodeString(`${lines.join('\n')}\n`);
}

/** Lower-case, as gRPC metadata is; binary entries are not for eyes. */
function metadataLines(raw: readonly string[]): string[] {
  const lines: string[] = [];
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i] ?? '';
    if (!name.startsWith(':') && name !== 'te' && !name.endsWith('-bin')) lines.push(`RequestHeader=${name}:${raw[i + 1] ?? ''}`);
  }
  return byName(lines);
}

function collect(stream: ServerHttp2Stream, onEnd: (body: Buffer) => void): void {
  const chunks: Buffer[] = [];
  let size = 0;
  stream.on('data', (chunk: Buffer) => {
    size += chunk.length;
    if (size <= MOST_MESSAGE) chunks.push(chunk);
  });
  stream.on('end', () => {
    const body = Buffer.concat(chunks);
    if (size > MOST_MESSAGE || body.length < 5) fail(stream, INVALID_ARGUMENT, 'no message, or one too large');
    else onEnd(body);
  });
}

function respond(stream: ServerHttp2Stream, message: Buffer): void {
  const frame = Buffer.alloc(5);
  frame.writeUInt32BE(message.length, 1);
  stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
  stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': String(OK) }));
  stream.end(Buffer.concat([frame, message]));
}

function fail(stream: ServerHttp2Stream, status: number, message: string): void {
  stream.respond(
    { ':status': 200, 'content-type': 'application/grpc', 'grpc-status': String(status), 'grpc-message': encodeURIComponent(message) },
    { endStream: true },
  );
}

/** A message whose only field is string 1. */
export function encodeString(text: string): Buffer {
  const bytes = Buffer.from(text);
  const length: number[] = [];
  let left = bytes.length;
  do {
    length.push((left & 0x7f) | (left > 0x7f ? 0x80 : 0));
    left >>>= 7;
  } while (left > 0);
  return Buffer.concat([Buffer.from([0x0a, ...length]), bytes]);
}

/** The same backwards; '' where the field is absent. */
export function decodeString(message: Buffer): string {
  if (message[0] !== 0x0a) return '';
  let length = 0;
  let at = 1;
  for (let shift = 0; shift < 35; shift += 7) {
    const byte = message[at++] ?? 0;
    length |= (byte & 0x7f) << shift;
    if (byte < 0x80) break;
  }
  return message.subarray(at, at + length).toString('utf8');
}
