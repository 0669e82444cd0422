/** TLS ports of the echo server: the certificate from files where they are there, else one made for the occasion. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import type { Server, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import tls from 'node:tls';

/** @throws {Error} where there is no certificate and none can be made */
export function createEchoTls(crt: string | undefined, key: string | undefined, handler: (socket: Socket) => void): Server {
  const given = crt !== undefined && key !== undefined && existsSync(crt) && existsSync(key);
  const pair = given ? { cert: readFileSync(crt, 'utf8'), key: readFileSync(key, 'utf8') } : selfSigned();
  return tls.createServer({ ...pair, ALPNProtocols: ['h2', 'http/1.1'], allowHalfOpen: true }, (socket) => {
    socket.on('error', () => socket.destroy());
    handler(socket);
  });
}

/** For `*`, as the conformance suite's own. Clients of the echo program do not verify. */
function selfSigned(): { cert: string; key: string } {
  const folder = mkdtempSync(join(tmpdir(), 'echo-'));
  const [cert, key] = [join(folder, 'cert.pem'), join(folder, 'key.pem')];
  try {
    execFileSync(
      'openssl',
      [
        'req',
        '-x509',
        '-newkey',
        'ec',
        '-pkeyopt',
        'ec_paramgen_curve:P-256',
        '-nodes',
        '-days',
        '30',
        '-subj',
        '/CN=*',
        '-addext',
        'subjectAltName=DNS:*',
        '-keyout',
        key,
        '-out',
        cert,
      ],
      { stdio: ['ignore', 'ignore', 'pipe'] },
    );
    return { cert: readFileSync(cert, 'utf8'), key: readFileSync(key, 'utf8') };
  } catch (error) {
    throw new Error(
      `no --crt and --key, and openssl could not make a certificate: ${error instanceof Error ? error.message : String(error)}`,
    );
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
