/**
 * An east-west gateway as a program: ends the outer tunnel and hands its bytes, which are somebody else's TLS, to one address. Arguments:
 * port, target address, target port, folder of its certificate. Prints each CONNECT's authority.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createServer } from 'node:tls';
import { systemClock } from '../../common/base/clock.ts';
import { AppSocket } from '../../common/hbone/app-socket.ts';
import { relay } from '../../common/hbone/relay.ts';
import { HboneServerConnection } from '../../common/hbone/server.ts';
import { defaultServerLimits } from '../../common/hbone/types.ts';
import { MESH_ALPN, meshContextOptions } from '../../common/tls/mesh-tls.ts';

const [port = '', ip = '', targetPort = '', folder = ''] = process.argv.slice(2);
const file = (name: string): string => readFileSync(join(folder, name), 'utf8');
const certificate = { identity: '', key: file('key.pem'), chain: file('cert-chain.pem'), roots: file('root-cert.pem') };
const server = createServer({
  ...meshContextOptions(certificate, { postQuantumOnly: false }),
  requestCert: true,
  rejectUnauthorized: true,
  ALPNProtocols: MESH_ALPN,
});
server.on('secureConnection', (socket) => {
  new HboneServerConnection(socket, {
    limits: defaultServerLimits,
    clock: systemClock,
    onClose: () => undefined,
    onConnect: (request) => {
      console.log('CONNECT', request.authority, JSON.stringify(Object.fromEntries(request.headers)));
      AppSocket.connect(undefined, { ip, port: Number(targetPort) }, { timeoutMs: 5000, clock: systemClock }).then(
        (app) => relay(request.accept([]), app),
        () => request.refuse(503, []),
      );
    },
  });
});
server.listen(Number(port), '0.0.0.0', () => console.log('listening'));
