/** `meshctl waypoint-config TABLE [WAYPOINT]`: asks one of a waypoint's pods by way of istiod, prints what it says. */
import { readFileSync } from 'node:fs';
import { errorMessage } from '../../common/base/errors.ts';
import { CommandError } from '../command-error.ts';
import { idOf } from '../istiod.ts';
import { withIstiod } from '../session.ts';
import { type Connection, checkFormat, print } from '../terminal.ts';
import { part, type TableName, waypointTable } from '../waypoint-config/tables.ts';
import { workloadOf } from './top.ts';

export interface WaypointConfigOptions extends Connection {
  readonly table: TableName;
  /** `NAME`, `NAMESPACE/NAME` of the Gateway or of a pod, or `POD.NAMESPACE`. */
  readonly waypoint: string | undefined;
  readonly namespace: string;
  readonly file?: string;
  readonly output: string;
}

type Dump = Readonly<Record<string, unknown>>;

export async function waypointConfig(options: WaypointConfigOptions): Promise<number> {
  const { table, output, file } = options;
  checkFormat(output, ['short', 'wide', 'json', 'yaml']);
  const dump = file === undefined ? await ask(options) : fromFile(file);
  await print(part(dump, table), output, (width) => waypointTable(dump, table, width));
  return 0;
}

function ask({ waypoint, namespace, ...connection }: WaypointConfigOptions): Promise<Dump> {
  return withIstiod(connection, async (_api, istiod) => {
    const all = (await istiod.proxies()).filter(({ kind }) => kind === 'waypoint');
    const wanted = waypoint === undefined || waypoint.includes('/') ? waypoint : `${namespace}/${waypoint}`;
    const found = all.find(
      (proxy) =>
        wanted === undefined || workloadOf(proxy) === wanted || `${proxy.namespace}/${proxy.name}` === wanted || idOf(proxy) === waypoint,
    );
    if (!found) {
      const names = [...new Set(all.map(workloadOf))].join(', ');
      throw new CommandError(
        wanted === undefined
          ? 'no waypoint reports to istiod (meshctl waypoint list -A)'
          : `no waypoint ${wanted} reports to istiod${names && `, but ${names}`} (NAMESPACE/NAME, or -n)`,
      );
    }
    if (wanted === undefined || `${found.namespace}/${found.name}` !== wanted) console.error(`asking ${idOf(found)}`);
    return istiod.at<Dump>(found, '/debug/proxy');
  });
}

function fromFile(file: string): Dump {
  let json: unknown;
  try {
    json = JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    throw new CommandError(`${file}: ${errorMessage(error)}`);
  }
  if (json === null || typeof json !== 'object') throw new CommandError(`${file}: a configuration dump is a JSON object`);
  return json as Dump;
}
