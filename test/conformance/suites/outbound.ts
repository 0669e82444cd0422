/** Where outbound connections go, as ztunnel's tests decide it. */
import { formatSocketAddress, parseIp, parseSocketAddress } from '../../../common/base/address.ts';
import { type OutboundRoute, routeOutbound } from '../../../common/decision/outbound.ts';
import { meshes } from '../../support/meshes.ts';
import { addressFromJson } from '../../support/proto-json.ts';
import { attempt, type CaseResult, type Cases, compare, type Suite, uniqueNames } from '../suite.ts';

type Fields = Record<string, unknown>;

interface FixtureWorkload {
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly addresses: readonly string[];
  readonly node: string;
  readonly serviceAccount: string;
}

interface OutboundFile {
  readonly fixture: { readonly sourceWorkload: FixtureWorkload; readonly extraWorkloads?: readonly FixtureWorkload[] };
  readonly cases: readonly {
    readonly test: string;
    readonly from: string;
    readonly to: string;
    readonly xds: readonly (Fields & { readonly kind: string })[];
    readonly expect: { readonly protocol: string; readonly hbone_destination: string; readonly destination: string } | null;
    readonly expectWorkload?: string | null;
  }[];
}

const FILE = 'ztunnel/derived/outbound-build-request.json';

export const suite: Suite = {
  suite: 'ztunnel/derived',
  *run(cases: Cases): Iterable<CaseResult> {
    if (!cases.has(FILE)) return;
    const file: OutboundFile = JSON.parse(cases.read(FILE));
    const unique = uniqueNames();
    for (const row of file.cases) {
      const name = unique(`outbound-build-request/${row.test}`);
      for (const [kind, meshOf] of Object.entries(meshes)) {
        const full = `${name} (${kind})`;
        yield attempt(full, () => {
          const fixture = [file.fixture.sourceWorkload, ...(file.fixture.extraWorkloads ?? [])];
          const resources = [
            ...fixture.map((workload) => addressFromJson('Workload', { ...workload, service_account: workload.serviceAccount })),
            ...row.xds.map((resource) => addressFromJson(resource.kind, resource)),
          ];
          const view = meshOf({
            workloads: resources.flatMap((resource) => ('workload' in resource ? [resource.workload] : [])),
            services: resources.flatMap((resource) => ('service' in resource ? [resource.service] : [])),
          });
          const source = view.workloadByUid(file.fixture.sourceWorkload.uid);
          const destination = parseSocketAddress(row.to);
          const sourceIp = parseIp(row.from);
          if (!source || !destination || sourceIp === undefined) throw new Error('the case names no source or destination');
          const route = routeOutbound(view, { source, sourceIp, destination, network: '', random: () => 0 });
          const expected = row.expect && { ...row.expect, ...('expectWorkload' in row && { workload: row.expectWorkload }) };
          const actual = describe(route);
          return compare(
            full,
            actual && { ...actual, ...('expectWorkload' in row && { workload: workloadName(route) }) },
            expected,
            'route',
          );
        });
      }
    }
  },
};

const PROTOCOLS = { passthrough: 'TCP', tcp: 'TCP', hbone: 'HBONE', 'double-hbone': 'DOUBLEHBONE' } as const;

/** As the cases write it; null for a refusal. */
function describe(route: OutboundRoute): { protocol: string; hbone_destination: string; destination: string } | null {
  if ('refuse' in route || route.via === 'resolve') return null;
  const authority = 'authority' in route ? route.authority : '';
  return { protocol: PROTOCOLS[route.via], hbone_destination: authority, destination: formatSocketAddress(route.to) };
}

const workloadName = (route: OutboundRoute): string | null => ('workload' in route ? (route.workload?.name ?? null) : null);
