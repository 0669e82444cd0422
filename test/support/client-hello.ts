/** The first bytes that a TLS client sends, as Node's own TLS makes them. */
import { Duplex } from 'node:stream';
import { connect } from 'node:tls';

export function helloOf(servername: string | undefined): Promise<Buffer> {
  return new Promise((resolve) => {
    const write = (chunk: Buffer, _: unknown, done: () => void): void => {
      resolve(chunk);
      done();
    };
    const socket = new Duplex({ read: () => undefined, write });
    const client = connect({ socket, ...(servername === undefined ? {} : { servername }) });
    client.on('error', () => undefined);
  });
}
