/** `meshctl ztunnel-config`: finds the ztunnel that is meant, asks it by way of istiod, prints what it says. */
import { readFileSync } from 'node:fs';
import { errorMessage } from '../../common/base/errors.ts';
import type { KubeApi, KubeObject } from '../../common/client/kube-api.ts';
import { CommandError } from '../command-error.ts';
import { withIstiod } from '../session.ts';
import { type Connection, checkFormat, print } from '../terminal.ts';
import { readDump, type ZtunnelDump } from '../ztunnel-config/dump.ts';
import { allTables, certificateTable, connectionTable, policyTable, serviceTable, workloadTable } from '../ztunnel-config/tables.ts';

export interface ZtunnelConfigOptions extends Connection {
  readonly table: 'workload' | 'service' | 'policy' | 'certificate' | 'connections' | 'all';
  /** `POD` or `POD.NAMESPACE`, of a ztunnel or of a pod whose ztunnel is meant. */
  readonly proxy: string | undefined;
  /** Of a POD that names none. */
  readonly namespace: string;
  readonly node?: string;
  readonly file?: string;
  readonly output: string;
  readonly workloadNamespace?: string;
  readonly address?: string;
  readonly workloadNode?: string;
  readonly serviceNamespace?: string;
  readonly policyNamespace?: string;
  readonly direction?: string;
  readonly raw?: boolean;
  readonly withHeaders?: boolean;
}

/** Of each table, where a dump has it. */
const FIELDS = {
  workload: 'workloads',
  service: 'services',
  policy: 'policies',
  certificate: 'certificates',
  connections: 'workloadState',
} as const;

export async function ztunnelConfig(options: ZtunnelConfigOptions): Promise<number> {
  const { table, output, direction } = options;
  checkFormat(output, ['short', 'wide', 'json', 'yaml']);
  if (direction !== undefined && direction !== 'inbound' && direction !== 'outbound')
    throw new CommandError(`--direction ${direction}: expected inbound or outbound`);
  const json = options.file === undefined ? await ask(options) : fromFile(options.file);
  let dump: ZtunnelDump;
  try {
    dump = readDump(json);
  } catch (error) {
    throw new CommandError(errorMessage(error));
  }
  const shown = table === 'all' ? json : (json as Record<string, unknown>)[FIELDS[table]];
  await print(shown, output, (width) => short(dump, options, Date.now(), width));
  return 0;
}

function short(dump: ZtunnelDump, options: ZtunnelConfigOptions, nowMs: number, width: number): string {
  const { workloadNamespace: namespace, direction } = options;
  switch (options.table) {
    case 'workload':
      return workloadTable(dump, { namespace, address: options.address, node: options.workloadNode }, width);
    case 'service':
      return serviceTable(dump, options.serviceNamespace, width);
    case 'policy':
      return policyTable(dump, options.policyNamespace, width);
    case 'certificate':
      return certificateTable(dump, nowMs, width);
    case 'connections':
      return connectionTable(dump, { namespace, direction: direction as 'inbound' | 'outbound' | undefined, raw: options.raw }, width);
    case 'all':
      return allTables(dump, nowMs, options.withHeaders === true, width);
  }
}

export async function ztunnelLog({
  proxy,
  namespace,
  node,
  level = '',
  reset,
  ...connection
}: Connection & {
  readonly proxy: string | undefined;
  readonly namespace: string;
  readonly node?: string;
  readonly level?: string;
  readonly reset: boolean;
}): Promise<number> {
  return withIstiod(connection, async (api, istiod) => {
    const all = await ztunnelsOf(api, connection.systemNamespace);
    const one = proxy !== undefined || node !== undefined;
    for (const ztunnel of one ? [await findZtunnel(api, all, { proxy, namespace, node })] : all) {
      // istioctl writes a colon between scope and level, ztunnel an equals sign.
      const query = { level: level.replaceAll(':', '='), ...(reset && { reset: 'true' }) };
      const now = await istiod.ofProxy<{ level: string }>('/debug/proxy/log', idOf(ztunnel), 'POST', query);
      console.log(`${idOf(ztunnel)}: ${now.level}`);
    }
    return 0;
  });
}

async function ask({ proxy, namespace, node, ...connection }: ZtunnelConfigOptions): Promise<unknown> {
  return withIstiod(connection, async (api, istiod) => {
    const ztunnel = await findZtunnel(api, await ztunnelsOf(api, connection.systemNamespace), { proxy, namespace, node });
    if (proxy === undefined && node === undefined) console.error(`asking ${idOf(ztunnel)}; name another one, or --node`);
    return istiod.ofProxy<unknown>('/debug/proxy', idOf(ztunnel));
  });
}

export const ztunnelsOf = (api: KubeApi, systemNamespace: string): Promise<KubeObject[]> =>
  api.list<KubeObject>(`/api/v1/namespaces/${systemNamespace}/pods`, { labelSelector: 'app=ztunnel' });

export const idOf = ({ metadata }: KubeObject): string => `${metadata.name}.${metadata.namespace}`;
const nodeOf = ({ spec }: KubeObject): string | undefined => (spec as { nodeName?: string } | undefined)?.nodeName;

/** The ztunnel that is meant. @throws {CommandError} where there is none */
export async function findZtunnel(
  api: KubeApi,
  ztunnels: readonly KubeObject[],
  {
    proxy,
    namespace: own = 'default',
    node,
  }: { readonly proxy?: string | undefined; readonly namespace?: string; readonly node?: string | undefined },
): Promise<KubeObject> {
  if (node !== undefined) return onNode(ztunnels, node);
  const first = ztunnels[0];
  if (proxy === undefined) {
    if (!first) throw new CommandError('no ztunnel is running');
    return first;
  }
  const named = ztunnels.find((ztunnel) => proxy === ztunnel.metadata.name || proxy === idOf(ztunnel));
  if (named) return named;
  const [name = '', namespace = own] = proxy.split('.', 2);
  const pods = await api.list<KubeObject>(`/api/v1/namespaces/${namespace}/pods`, { fieldSelector: `metadata.name=${name}` });
  const [pod] = pods.filter(({ metadata }) => metadata.name === name);
  if (!pod)
    throw new CommandError(
      `there is no ztunnel ${proxy} and no pod ${namespace}/${name} (POD.NAMESPACE, or -n, names one of another namespace)`,
    );
  const at = nodeOf(pod);
  if (at === undefined) throw new CommandError(`pod ${namespace}/${name} is on no node yet`);
  return onNode(ztunnels, at);
}

function onNode(ztunnels: readonly KubeObject[], node: string): KubeObject {
  const found = ztunnels.find((ztunnel) => nodeOf(ztunnel) === node);
  if (!found) throw new CommandError(`no ztunnel runs on node ${node}`);
  return found;
}

function fromFile(file: string): unknown {
  try {
    return JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    throw new CommandError(`${file}: ${errorMessage(error)}`);
  }
}
