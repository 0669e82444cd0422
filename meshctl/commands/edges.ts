/** `meshctl edges`: who talks to whom, as counted by the proxies since they started (an hour after the last time, an edge is forgotten). */
import { takePicture, total } from '../live/counters.ts';
import { type Edge, edges } from '../live/edges.ts';
import { withIstiod } from '../session.ts';
import { type Connection, checkFormat, print, table } from '../terminal.ts';

export interface EdgesOptions extends Connection {
  readonly namespace?: string;
  readonly output: string;
}

export async function edgesCommand({ namespace, output, ...connection }: EdgesOptions): Promise<number> {
  checkFormat(output);
  return withIstiod(connection, async (_api, istiod) => {
    const proxies = await istiod.proxies();
    const picture = await takePicture(istiod, proxies, { latencies: false });
    for (const { proxy, reason } of picture.missing) console.error(`${proxy} did not answer: ${reason}`);
    const found = edges(total(picture), namespace);
    await print(found, output, (width) => edgesTable(found, width));
    return picture.missing.length > 0 ? 1 : 0;
  });
}

export function edgesTable(found: readonly Edge[], width: number): string {
  if (found.length === 0) return 'nobody has talked to anybody yet';
  const identity = (spiffe: string): string => {
    if (spiffe === '') return '-';
    // The account is what tells identities of one mesh apart.
    return width === Infinity ? spiffe : spiffe.replace(/^spiffe:\/\/[^/]+\/ns\/([^/]+)\/sa\//, '$1/');
  };
  return table(
    ['FROM', 'TO', 'CLIENT', 'SERVER', 'MTLS'],
    found.map(({ source, destination, client, server, mtls, why }) => [
      source,
      destination,
      identity(client),
      identity(server),
      mtls ? 'yes' : `no: ${why}`,
    ]),
    { width },
  );
}
