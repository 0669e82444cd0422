/** gRPC mode of the conformance suite's backend (grpcecho.proto): what was called, with which metadata, and by whom it is answered. */
import http2, { type IncomingHttpHeaders, type ServerHttp2Stream } from 'node:http2';
import type { Socket } from 'node:net';
import type { BasicIdentity } from './echo-basic-http.ts';

const SERVICE = '/gateway_api_conformance.echo_basic.grpcecho.GrpcEcho/';
const UNIMPLEMENTED = 12;

export function basicGrpcServer(identity: BasicIdentity): (socket: Socket) => void {
  const server = http2.createServer();
  server.on('sessionError', () => undefined);
  server.on('stream', (stream: ServerHttp2Stream, headers: IncomingHttpHeaders, _flags: number, raw: readonly string[]) => {
    stream.on('error', () => undefined);
    stream.resume();
    const path = headers[':path'] ?? '';
    if (path !== `${SERVICE}Echo` && path !== `${SERVICE}EchoTwo`) {
      stream.respond(
        { ':status': 200, 'content-type': 'application/grpc', 'grpc-status': String(UNIMPLEMENTED), 'grpc-message': 'unimplemented' },
        { endStream: true },
      );
      return;
    }
    const message = field(1, assertions(path, headers, raw, identity, stream));
    const frame = Buffer.alloc(5);
    frame.writeUInt32BE(message.length, 1);
    stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
    stream.end(Buffer.concat([frame, message]));
  });
  return (socket) => {
    socket.on('error', () => socket.destroy());
    server.emit('connection', socket);
  };
}

function assertions(
  path: string,
  headers: IncomingHttpHeaders,
  raw: readonly string[],
  identity: BasicIdentity,
  stream: ServerHttp2Stream,
): Buffer {
  const metadata: Buffer[] = [];
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i] ?? '';
    if (!name.startsWith(':')) metadata.push(field(2, Buffer.concat([text(1, name), text(2, raw[i + 1] ?? '')])));
  }
  const context = Buffer.concat([text(1, identity.namespace), text(2, identity.ingress), text(3, identity.service), text(4, identity.pod)]);
  const socket = stream.session?.socket;
  const tls =
    socket && 'getProtocol' in socket
      ? [
          field(
            5,
            Buffer.concat([
              text(1, socket.getProtocol() ?? ''),
              text(2, socket.alpnProtocol || ''),
              text(3, 'servername' in socket ? String(socket.servername ?? '') : ''),
              text(4, socket.getCipher().standardName),
            ]),
          ),
        ]
      : [];
  return Buffer.concat([text(1, path), ...metadata, text(3, String(headers[':authority'] ?? '')), field(4, context), ...tls]);
}

/** A length-delimited field of a protobuf message. */
function field(number: number, bytes: Buffer): Buffer {
  const head: number[] = [(number << 3) | 2];
  let left = bytes.length;
  do {
    head.push((left & 0x7f) | (left > 0x7f ? 0x80 : 0));
    left >>>= 7;
  } while (left > 0);
  return Buffer.concat([Buffer.from(head), bytes]);
}

const text = (number: number, value: string): Buffer => (value === '' ? Buffer.alloc(0) : field(number, Buffer.from(value)));
