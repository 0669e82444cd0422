/**
 * Lets a program that speaks plain TCP talk to a mesh peer: takes connections on loopback and adds TLS with a client certificate. Arguments:
 * port to listen on, address and port of the peer, folder of the certificate.
 */
import { readFileSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { ignoreServerName, MESH_ALPN, meshContext } from '../../common/tls/mesh-tls.ts';

const [listen = '', host = '', port = '', folder = ''] = process.argv.slice(2);
const file = (name: string): string => readFileSync(join(folder, name), 'utf8');
const certificate = { identity: '', key: file('key.pem'), chain: file('cert-chain.pem'), roots: file('root-cert.pem') };
const secureContext = meshContext(certificate, { postQuantumOnly: false });

net
  .createServer((plain) => {
    const tls = connect({
      host,
      port: Number(port),
      secureContext,
      ALPNProtocols: MESH_ALPN,
      rejectUnauthorized: false,
      checkServerIdentity: ignoreServerName,
    });
    plain.on('error', () => tls.destroy()).on('close', () => tls.destroy());
    tls.on('error', () => plain.destroy()).on('close', () => plain.destroy());
    plain.pipe(tls).pipe(plain);
  })
  .listen(Number(listen), '127.0.0.1', () => console.log('listening'));
