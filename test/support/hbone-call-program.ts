/**
 * Sends CONNECT requests to a peer's HBONE port as a mesh peer that may mean no good: arguments are address, port, folder of the
 * certificate, then authorities. Prints one JSON line for each: `{authority, status}`, or `{authority, error}`, or what came back.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { systemClock } from '../../common/base/clock.ts';
import { HboneClient } from '../../common/hbone/client.ts';
import { TunnelRefused } from '../../common/hbone/refusal.ts';
import { duplexOf } from '../../common/hbone/stream-duplex.ts';
import { defaultClientLimits } from '../../common/hbone/types.ts';
import { ignoreServerName, MESH_ALPN, meshContext } from '../../common/tls/mesh-tls.ts';

const [host = '', port = '', folder = '', ...authorities] = process.argv.slice(2);
const file = (name: string): string => readFileSync(join(folder, name), 'utf8');
const certificate = { identity: '', key: file('key.pem'), chain: file('cert-chain.pem'), roots: file('root-cert.pem') };
const say = (line: object): void => console.log(JSON.stringify(line));

const socket = connect({
  host,
  port: Number(port),
  secureContext: meshContext(certificate, { postQuantumOnly: false }),
  ALPNProtocols: MESH_ALPN,
  rejectUnauthorized: false,
  checkServerIdentity: ignoreServerName,
});
socket.once('error', (error) => {
  say({ error: error.message });
  process.exit(0);
});
await new Promise((resolve) => socket.once('secureConnect', resolve));
const client = new HboneClient(socket, { limits: defaultClientLimits, clock: systemClock, onClose: () => undefined });
for (const authority of authorities) {
  try {
    const duplex = duplexOf(await client.connect({ authority, headers: [['forwarded', 'for="1.2.3.4:5"']] }));
    let received = '';
    duplex.on('data', (chunk: Buffer) => {
      received += chunk.toString();
    });
    const ended = new Promise((resolve) => duplex.once('end', resolve));
    duplex.end('hello');
    await ended;
    say({ authority, status: 200, received });
  } catch (error) {
    if (error instanceof TunnelRefused) say({ authority, status: error.status, reason: error.reason?.code, policy: error.reason?.policy });
    else say({ authority, error: error instanceof Error ? error.message : String(error) });
  }
}
client.destroy();
