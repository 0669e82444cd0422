/** One call of grpc.health.v1.Health/Check, over a connected socket: two fields do not need a gRPC library. */
import http2 from 'node:http2';
import type { Socket } from 'node:net';
import type { Attempt } from './attempt.ts';

const SERVING = 1;

export function grpcHealth(socket: Socket, service: string, timeoutMs: number): Promise<Attempt> {
  const name = Buffer.from(service);
  const message = service === '' ? Buffer.alloc(0) : Buffer.concat([Buffer.from([0x0a, name.length]), name]);
  const frame = Buffer.alloc(5);
  frame.writeUInt32BE(message.length, 1);
  return new Promise<Attempt>((resolve, reject) => {
    const session = http2.connect('http://probe', { createConnection: () => socket });
    session.on('error', reject);
    const stream = session.request({
      ':method': 'POST',
      ':path': '/grpc.health.v1.Health/Check',
      'content-type': 'application/grpc',
      te: 'trailers',
      'user-agent': 'kube-probe/1.32',
    });
    const body: Buffer[] = [];
    let grpcStatus = '';
    const note = (headers: http2.IncomingHttpHeaders): void => {
      if (typeof headers['grpc-status'] === 'string') grpcStatus = headers['grpc-status'];
    };
    stream.on('response', note);
    stream.on('trailers', note);
    stream.on('data', (chunk: Buffer) => body.push(chunk));
    stream.on('error', reject);
    stream.setTimeout(timeoutMs, () => reject(new Error(`timeout: health rpc did not complete within ${timeoutMs}ms`)));
    stream.on('end', () => {
      // Field 1, a varint: the status. An absent one is 0, UNKNOWN.
      const answer = Buffer.concat(body).subarray(5);
      const status = answer[0] === 0x08 ? (answer[1] ?? 0) : 0;
      const success = (grpcStatus === '0' || grpcStatus === '') && status === SERVING;
      resolve({ success, detail: success ? '' : `service unhealthy (status ${status}, grpc-status ${grpcStatus || '0'})` });
    });
    stream.end(Buffer.concat([frame, message]));
  }).finally(() => socket.destroy());
}
