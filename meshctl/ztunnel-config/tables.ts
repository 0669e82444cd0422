/** The tables of `meshctl ztunnel-config`, column by column as istioctl has them (Istio, istioctl/pkg/writer/ztunnel/configdump). Pure. */
import { shortIdentities } from '../live/policies.ts';
import { table } from '../terminal.ts';
import type { DumpCertificate, DumpConnections, DumpGateway, DumpPolicy, DumpService, DumpWorkload, ZtunnelDump } from './dump.ts';

export interface WorkloadFilter {
  readonly namespace?: string | undefined;
  readonly address?: string | undefined;
  readonly node?: string | undefined;
}

/** istioctl's tables have one space between columns, that of certificates five. */
const GAP = ' ';
const WIDE_GAP = '     ';

export function workloadTable(dump: ZtunnelDump, { namespace, address, node }: WorkloadFilter = {}, width = Infinity): string {
  const shown = dump.workloads.filter(
    (workload) =>
      (namespace === undefined || workload.namespace === namespace) &&
      (address === undefined || workload.workloadIps.includes(address)) &&
      (node === undefined || workload.node === node),
  );
  return table(
    ['NAMESPACE', 'POD NAME', 'ADDRESS', 'NODE', 'WAYPOINT', 'PROTOCOL'],
    inOrder(shown).map((workload: DumpWorkload) => [
      workload.namespace,
      workload.name,
      workload.workloadIps.join(',') || workload.hostname,
      workload.node,
      waypointName(dump, workload.waypoint),
      workload.protocol,
    ]),
    { gap: GAP, width },
  );
}

export function serviceTable(dump: ZtunnelDump, namespace?: string, width = Infinity): string {
  const healthy = new Set(dump.workloads.filter(({ status }) => status === 'Healthy').map(({ uid }) => uid));
  return table(
    ['NAMESPACE', 'SERVICE NAME', 'SERVICE VIP', 'WAYPOINT', 'ENDPOINTS'],
    inOrder(of(namespace, dump.services)).map((service: DumpService) => {
      const uids = Object.values(service.endpoints).map(({ workloadUid }) => workloadUid);
      return [
        service.namespace,
        service.name,
        service.vips.map(withoutNetwork).join(','),
        waypointName(dump, service.waypoint),
        `${uids.filter((uid) => healthy.has(uid)).length}/${uids.length}`,
      ];
    }),
    { gap: GAP, width },
  );
}

export function policyTable({ policies }: ZtunnelDump, namespace?: string, width = Infinity): string {
  return table(
    ['NAMESPACE', 'POLICY NAME', 'ACTION', 'SCOPE'],
    inOrder(of(namespace, policies)).map((policy: DumpPolicy) => [policy.namespace, policy.name, policy.action, policy.scope]),
    { gap: GAP, width },
  );
}

export function certificateTable({ certificates }: ZtunnelDump, nowMs: number, width = Infinity): string {
  return table(
    ['CERTIFICATE NAME', 'TYPE', 'STATUS', 'VALID CERT', 'SERIAL NUMBER', 'NOT AFTER', 'NOT BEFORE'],
    certificates
      .flatMap((certificate) => certificateRows(certificate, nowMs))
      .map(([identity = '', ...cells]) => [
        // Seven columns leave little room for a name.
        width === Infinity ? identity : shortIdentities(identity),
        ...cells,
      ]),
    { gap: width === Infinity ? WIDE_GAP : GAP, width, whole: [1, 2, 3, 5, 6] },
  );
}

function certificateRows({ identity, state, certChain, rootCerts }: DumpCertificate, nowMs: number): string[][] {
  const status = ['Available', 'Initializing', 'Unavailable'].find((word) => state.startsWith(word)) ?? state;
  if (certChain.length === 0 && rootCerts.length === 0) return [[identity, 'NA', status, 'false', 'NA', 'NA', 'NA']];
  // Older ztunnels show the root as the last of the chain.
  const typed = [
    ...certChain.map((facts, i) => ({
      facts,
      type: i === 0 ? 'Leaf' : i === certChain.length - 1 && rootCerts.length === 0 ? 'Root' : 'Intermediate',
    })),
    ...rootCerts.map((facts) => ({ facts, type: 'Root' })),
  ];
  return typed.map(({ facts: { serialNumber, validFrom, expirationTime }, type }) => {
    const valid = Date.parse(validFrom) <= nowMs && nowMs <= Date.parse(expirationTime);
    return [identity, type, status, String(valid), hexadecimal(serialNumber), expirationTime, validFrom];
  });
}

export interface ConnectionFilter {
  readonly namespace?: string | undefined;
  readonly direction?: 'inbound' | 'outbound' | undefined;
  /** Addresses as they are, not the names of what is there. */
  readonly raw?: boolean | undefined;
}

export function connectionTable(
  dump: Pick<ZtunnelDump, 'workloads' | 'services' | 'workloadState'>,
  { namespace, direction, raw = false }: ConnectionFilter = {},
  width = Infinity,
): string {
  const names = raw ? new Map<string, string>() : namesByAddress(dump);
  const named = (address: string | null | undefined): string => {
    const at = (address ?? '').lastIndexOf(':');
    const name = names.get((address ?? '').slice(0, at).replace(/^\[|\]$/g, ''));
    return name === undefined ? (address ?? '') : `${name}${(address ?? '').slice(at)}`;
  };
  const workloads = dump.workloadState.filter(({ info }) => namespace === undefined || info.namespace === namespace);
  const sorted = [...workloads].sort((a, b) => compare(workloadOf(a), workloadOf(b)));
  return table(
    ['WORKLOAD', 'DIRECTION', 'LOCAL', 'REMOTE', 'REMOTE TARGET', 'PROTOCOL'],
    sorted.flatMap((workload) => [
      ...(direction === 'outbound' ? [] : workload.connections.inbound).map((connection) => [
        workloadOf(workload),
        'Inbound',
        named(connection.actualDst),
        named(connection.src),
        named(connection.originalDst),
        connection.protocol,
      ]),
      ...(direction === 'inbound' ? [] : workload.connections.outbound).map((connection) => [
        workloadOf(workload),
        'Outbound',
        named(connection.src),
        named(connection.actualDst),
        named(connection.originalDst),
        connection.protocol,
      ]),
    ]),
    { gap: GAP, width },
  );
}

const workloadOf = ({ info }: DumpConnections): string => `${info.name}.${info.namespace}`;

function namesByAddress({ workloads, services }: Pick<ZtunnelDump, 'workloads' | 'services'>): Map<string, string> {
  return new Map([
    ...workloads.flatMap(({ workloadIps, name, namespace }) => workloadIps.map((ip) => [ip, `${name}.${namespace}`] as const)),
    ...services.flatMap(({ vips, hostname }) => vips.map((vip) => [withoutNetwork(vip), hostname] as const)),
  ]);
}

/** All of it, each table under its title where titles are wanted. */
export function allTables(dump: ZtunnelDump, nowMs: number, withHeaders: boolean, width = Infinity): string {
  const tables: [title: string, text: string][] = [
    ['WORKLOAD', workloadTable(dump, {}, width)],
    ['SERVICE', serviceTable(dump, undefined, width)],
    ['POLICY', policyTable(dump, undefined, width)],
    ['SECRET', certificateTable(dump, nowMs, width)],
    ['CONNECTIONS', connectionTable(dump, { raw: true }, width)],
  ];
  return tables.map(([title, text]) => (withHeaders ? `------ ${title} INFO ------\n\n${text}` : text)).join('\n\n');
}

/** None, the name of the service that it is, or NA where it is nothing that this ztunnel knows. */
function waypointName({ services }: ZtunnelDump, waypoint: DumpGateway | undefined): string {
  if (!waypoint) return 'None';
  const { destination } = waypoint;
  const found = services.find(({ vips, namespace, hostname }) => vips.includes(destination) || `${namespace}/${hostname}` === destination);
  return found?.name ?? 'NA';
}

const withoutNetwork = (address: string): string => address.slice(address.indexOf('/') + 1);

const hexadecimal = (decimal: string): string => (/^\d+$/.test(decimal) ? BigInt(decimal).toString(16) : decimal);

const of = <T extends { readonly namespace: string }>(namespace: string | undefined, items: readonly T[]): readonly T[] =>
  namespace === undefined ? items : items.filter((item) => item.namespace === namespace);

const inOrder = <T extends { readonly namespace: string; readonly name: string }>(items: readonly T[]): T[] =>
  [...items].sort((a, b) => compare(a.namespace, b.namespace) || compare(a.name, b.name));

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);
