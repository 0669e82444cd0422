/** Names as ztunnel's DNS proxy resolves them: what it answers itself, and what it leaves to the nameservers. */
import { decode, encode } from 'dns-packet';
import { parseIp } from '../../../common/base/address.ts';
import type { MeshView, Service, Workload } from '../../../common/decision/mesh-view.ts';
import { lookupName } from '../../../ztunnel/dns/lookup.ts';
import { encodeAnswer, parseQuery } from '../../../ztunnel/dns/message.ts';
import { kubernetesHostnames } from '../../../ztunnel/dns/names.ts';
import { service, workload } from '../../support/builders.ts';
import { meshes } from '../../support/meshes.ts';
import { attempt, type CaseResult, type Cases, compare, type Suite } from '../suite.ts';

interface DnsFile {
  readonly toKubeFqdns: readonly { readonly host: string; readonly clientNamespace: string; readonly expected: readonly string[] }[];
  readonly lookup: readonly {
    readonly name: string;
    readonly host: string;
    readonly type: 'A' | 'AAAA';
    readonly authoritative: boolean;
    readonly answers: readonly { readonly type: string; readonly name: string; readonly value: string }[];
  }[];
  readonly fixture: {
    readonly clientNamespace: string;
    readonly clientNetwork: string;
    readonly clusterDomain: string;
    readonly preferredServiceNamespace: string;
    readonly ipv6Enabled: boolean;
    readonly services: readonly {
      hostname: string;
      namespace: string;
      vips: { network: string; address: string }[];
      visibility?: string;
      canonical?: boolean;
      ipFamilies?: string;
    }[];
    readonly workloads: readonly { name: string; namespace: string; network: string; services?: string[]; addresses: string[] | string }[];
  };
}

const FILE = 'ztunnel/derived/dns.json';
const withoutDot = (name: string): string => name.replace(/\.$/, '');

export const suite: Suite = {
  suite: 'ztunnel/derived',
  *run(cases: Cases): Iterable<CaseResult> {
    if (!cases.has(FILE)) return;
    const file: DnsFile = JSON.parse(cases.read(FILE));
    for (const { host, clientNamespace, expected } of file.toKubeFqdns ?? []) {
      const name = `dns/kubernetes names of ${host}`;
      const context = { clientNamespace, clusterDomain: 'cluster.local' };
      yield attempt(name, () => compare(name, kubernetesHostnames(withoutDot(host), context), expected.map(withoutDot)));
    }
    for (const [kind, meshOf] of Object.entries(meshes)) {
      const view = meshOf(contents(file.fixture));
      for (const row of file.lookup ?? []) {
        const name = `dns/lookup, ${row.name} (${kind})`;
        yield attempt(name, () => compare(name, answer(view, file.fixture, row), row.authoritative ? expected(row.answers) : 'forwarded'));
      }
    }
  },
};

type Fixture = DnsFile['fixture'];
type Answers = DnsFile['lookup'][number]['answers'];

const client = ({ clientNamespace, clientNetwork }: Fixture): Workload =>
  workload({ name: 'client', namespace: clientNamespace, network: clientNetwork });

/** Through the bytes of query and answer; the order of answers means nothing. */
function answer(view: MeshView, fixture: Fixture, { host, type }: { host: string; type: 'A' | 'AAAA' }): 'forwarded' | string[] {
  const parsed = parseQuery(encode({ type: 'query', id: 7, questions: [{ type, name: withoutDot(host) }] }));
  if (!parsed || !('query' in parsed)) throw new Error('the query was not understood');
  const found = lookupName(view, {
    name: parsed.query.name,
    type,
    client: client(fixture),
    clusterDomain: fixture.clusterDomain,
    preferredNamespace: fixture.preferredServiceNamespace,
    ipv6: fixture.ipv6Enabled,
  });
  if (!found) return 'forwarded';
  const { addresses, alias } = found;
  const bytes = encodeAnswer(parsed.query, {
    rcode: 'NOERROR',
    authoritative: true,
    alias: addresses.length > 0 ? alias : undefined,
    addresses,
  });
  return expected(
    (decode(bytes).answers ?? []).map((record) => ({
      type: record.type,
      name: record.name,
      value: 'data' in record ? String(record.data) : '',
    })),
  );
}

const expected = (answers: Answers): string[] =>
  answers.map(({ type, name, value }) => `${type} ${withoutDot(name)} ${parseIp(value) ?? withoutDot(value)}`).sort();

const FAMILIES: Readonly<Record<string, Service['ipFamily']>> = { IPV4_ONLY: 'IPV4', IPV6_ONLY: 'IPV6' };

function contents(fixture: Fixture): { workloads: Workload[]; services: Service[] } {
  return {
    services: fixture.services.map(({ hostname, namespace, vips, visibility, canonical, ipFamilies }) => ({
      ...service({
        name: hostname.split('.')[0] ?? '',
        namespace,
        hostname,
        canonical: canonical ?? false,
        namespaceOnly: visibility === 'NAMESPACE',
      }),
      addresses: vips.map(({ network, address }) => ({ network, ip: parseIp(address) ?? address })),
      ipFamily: FAMILIES[ipFamilies ?? ''],
    })),
    workloads: fixture.workloads.map(({ name, namespace, network, services = [], addresses }) =>
      workload({
        name,
        namespace,
        network,
        addresses: typeof addresses === 'string' ? ['10.244.0.99'] : addresses.map((address) => parseIp(address) ?? address),
        services: new Map(services.map((key) => [key, new Map()])),
      }),
    ),
  };
}
