/** What CONNECT requests at a pod's tunnel port lead to, as ztunnel's tests decide it. */
import { formatSocketAddress, parseSocketAddress } from '../../../common/base/address.ts';
import { type InboundRoute, resolveInbound } from '../../../common/decision/inbound.ts';
import type { MeshView, Service, Workload } from '../../../common/decision/mesh-view.ts';
import { memberOf, service, waypointAt, workload } from '../../support/builders.ts';
import { meshes } from '../../support/meshes.ts';
import { attempt, type CaseResult, type Cases, compare, type Suite } from '../suite.ts';

interface Waypoint {
  readonly attachedTo: 'Workload' | 'Service';
  readonly address: string;
  readonly appTunnel: { readonly port: number; readonly protocol: 'PROXY' | 'NONE' } | null;
}

interface InboundFile {
  readonly fixture: {
    readonly network: string;
    readonly workloads: readonly {
      name: string;
      uid: string;
      ip: string;
      protocol?: 'HBONE' | 'TCP';
      waypoint?: string;
      applicationTunnel?: string;
    }[];
    readonly services: readonly { hostname: string; vip: string; ports: Record<number, number>; endpoints: string[]; waypoint?: string }[];
  };
  readonly findUpstream: readonly {
    readonly name: string;
    readonly waypoint: Waypoint | null;
    readonly connectionDst: string;
    readonly hboneDst: string;
    readonly hbonePort: number;
    readonly expectUpstream: string | null;
  }[];
  readonly buildInboundRequest: readonly {
    readonly name: string;
    readonly waypoint: Waypoint | null;
    readonly connectionDst: string;
    readonly connectAuthority: string;
    readonly expect: { readonly upstream: string; readonly tunnelTarget: string | null } | null;
  }[];
}

const FILE = 'ztunnel/derived/inbound.json';

export const suite: Suite = {
  suite: 'ztunnel/derived',
  *run(cases: Cases): Iterable<CaseResult> {
    if (!cases.has(FILE)) return;
    const file: InboundFile = JSON.parse(cases.read(FILE));
    for (const [kind, meshOf] of Object.entries(meshes)) {
      for (const row of file.findUpstream ?? []) {
        const name = `inbound/find upstream, ${row.name} (${kind})`;
        yield attempt(name, () => {
          const route = resolve(file, meshOf(contents(file, row.waypoint)), row.connectionDst, `${row.hboneDst}:${row.hbonePort}`);
          return compare(name, 'refuse' in route ? null : formatSocketAddress(route.to), row.expectUpstream, 'upstream');
        });
      }
      for (const row of file.buildInboundRequest ?? []) {
        const name = `inbound/request, ${row.name} (${kind})`;
        yield attempt(name, () => {
          const route = resolve(file, meshOf(contents(file, row.waypoint)), row.connectionDst, row.connectAuthority);
          return compare(name, describe(route), row.expect, 'request');
        });
      }
    }
  },
};

function resolve(file: InboundFile, view: MeshView, connection: string, authority: string): InboundRoute {
  const pod = parseSocketAddress(connection);
  const local = pod && view.workloadByAddress(file.fixture.network, pod.ip);
  if (!local) throw new Error(`no workload at ${connection}`);
  return resolveInbound(view, { local, podIp: pod.ip, network: file.fixture.network, authority });
}

const describe = (route: InboundRoute): InboundFile['buildInboundRequest'][number]['expect'] =>
  'refuse' in route
    ? null
    : { upstream: formatSocketAddress(route.to), tunnelTarget: route.tunnel ? formatSocketAddress(route.tunnel.target) : null };

/** The fixture with the case's waypoint where the fixture's text says that it goes. */
function contents({ fixture }: InboundFile, waypoint: Waypoint | null): { workloads: Workload[]; services: Service[] } {
  const gateway = waypoint ? waypointAt(waypoint.address) : undefined;
  const services = fixture.services.map((entry) => {
    const [name = ''] = entry.hostname.split('.');
    return service({
      name,
      namespace: 'default',
      hostname: entry.hostname,
      vips: [entry.vip],
      ports: entry.ports,
      waypoint: entry.waypoint !== undefined && waypoint?.attachedTo === 'Service' ? gateway : undefined,
    });
  });
  const workloads = fixture.workloads.map((entry) => {
    const members = services.filter((own) =>
      fixture.services.find(({ hostname }) => hostname === own.hostname)?.endpoints.includes(entry.uid),
    );
    return workload({
      name: entry.name,
      uid: entry.uid,
      namespace: 'default',
      addresses: [entry.ip],
      protocol: entry.protocol ?? 'HBONE',
      services: memberOf(...members),
      waypoint: entry.waypoint !== undefined && waypoint?.attachedTo === 'Workload' ? gateway : undefined,
      applicationTunnel: entry.applicationTunnel === undefined ? undefined : (waypoint?.appTunnel ?? undefined),
    });
  });
  return { workloads, services };
}
