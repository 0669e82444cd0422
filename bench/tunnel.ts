/**
 * common/hbone alone: two processes that do nothing but tunnel, on two namespaces. TUNNEL_PEER names a program with the arguments of
 * programs/tunnel-end.ts to be held against ours in the same run.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { testAuthority } from '../test/support/certificates.ts';
import type { Bench } from './rows.ts';
import { BULK_PORT, HTTP_PORT, Lab, type Program } from './support/lab.ts';
import type { Subject } from './support/load.ts';
import { buildRelease } from './support/release.ts';
import { tunnelTable } from './support/tunnel-table.ts';
import { unwindable } from './support/unwinding.ts';

const NEAR_HTTP = 9001;
const NEAR_BULK = 9002;

export const bench: Bench = {
  name: 'tunnel',
  doc: 'tunnels alone (common/hbone): two processes, against direct and against TUNNEL_PEER',
  selective: true,
  async run({ only }) {
    await using labs = unwindable();
    const lab = async (): Promise<Lab> => {
      const made = labs.use(new Lab());
      await made.startServers();
      return made;
    };
    const direct = await lab();
    const peers: Subject[] = [
      {
        name: 'direct',
        lab: direct,
        proxies: [],
        http: { ip: direct.far.ip, port: HTTP_PORT },
        bulk: { ip: direct.far.ip, port: BULK_PORT },
      },
    ];
    const { TUNNEL_PEER } = process.env;
    if (TUNNEL_PEER) peers.push(await tunnel('TUNNEL_PEER', TUNNEL_PEER, await lab()));
    const ours = await ownTunnel(await lab());
    return await tunnelTable({ bench: 'tunnel', rounds: 3, seconds: 2, ours, peers, only, progress: (text) => console.error(text) });
  },
};

/** common/hbone in a process at each end, and nothing around it. */
export const ownTunnel = (lab: Lab): Promise<Subject> => tunnel('ours', join(buildRelease(), 'bench/programs/tunnel-end.js'), lab);

async function tunnel(name: string, program: string, lab: Lab): Promise<Subject> {
  const { key, chain, roots } = testAuthority().issue('spiffe://cluster.local/ns/bench/sa/bench');
  mkdirSync(join(lab.folder, 'certs'));
  for (const [file, text] of [
    ['leaf.key', key],
    ['leaf.pem', chain],
    ['ca.pem', roots],
  ] as const)
    writeFileSync(join(lab.folder, 'certs', file), text);
  const proxies: Program[] = [];
  // The peer may know one application only, so requests and bulk have a pair of ends each.
  for (const [listen, between, app] of [
    [NEAR_HTTP, 15008, HTTP_PORT],
    [NEAR_BULK, 15009, BULK_PORT],
  ] as const) {
    proxies.push(lab.start(lab.far, `${name}-in`, [process.execPath, program, 'in', String(between), String(app)]));
    await lab.waitForPort(lab.far, between);
    proxies.push(
      lab.start(lab.near, `${name}-out`, [process.execPath, program, 'out', String(listen), String(between)], { PEER: lab.far.ip }),
    );
    await lab.waitForPort(lab.near, listen);
  }
  return { name, lab, proxies, http: { ip: '127.0.0.1', port: NEAR_HTTP }, bulk: { ip: '127.0.0.1', port: NEAR_BULK } };
}
