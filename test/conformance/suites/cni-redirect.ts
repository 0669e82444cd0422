/**
 * The redirection rules that Istio's node agent writes, against ours in Istio's form. Compared command by command, with runs of blanks as
 * one. The rows of the node's rules carry the default probe address while their golden files were written with another, and with the
 * kubelet's user 1000, which is in no row: both are read from the golden file.
 */
import { hostRules } from '../../../cni/rules/host-rules.ts';
import { restoreInput } from '../../../cni/rules/iptables-restore.ts';
import { type Family, iptablesHostRules, iptablesPodRules } from '../../../cni/rules/iptables-rules.ts';
import { podRules } from '../../../cni/rules/pod-rules.ts';
import { attempt, type CaseResult, type Cases, compare, type Suite, uniqueNames } from '../suite.ts';

interface RedirectCase {
  readonly name: string;
  readonly scope: 'pod' | 'host';
  readonly ipv6: boolean;
  readonly config: { readonly redirectDNS: boolean; readonly hostProbeSNATAddress: string; readonly hostProbeV6SNATAddress: string };
  readonly podOverrides?: {
    readonly ingressMode?: boolean;
    readonly virtualInterfaces?: readonly string[];
    readonly dnsProxy?: 'enabled' | 'disabled';
  };
  readonly nftablesGolden: string;
  readonly iptablesGolden: string;
}

const FILE = 'istio/derived/cni-redirect-cases.json';

export const suite: Suite = {
  suite: 'istio/derived',
  *run(cases: Cases): Iterable<CaseResult> {
    if (!cases.has(FILE)) return;
    const rows = JSON.parse(cases.read(FILE)) as { cases: readonly RedirectCase[] };
    const unique = uniqueNames();
    for (const row of rows.cases) {
      const name = unique(`cni-redirect-cases/${row.scope} ${row.name}${row.ipv6 ? ' ipv6' : ''}`);
      yield attempt(`${name} nftables`, () => {
        const golden = commandsOf(
          cases.read(cases.has(`istio/${row.nftablesGolden}`) ? `istio/${row.nftablesGolden}` : row.nftablesGolden),
        );
        const rules = row.scope === 'pod' ? podRules(podConfig(row)) : hostRules(hostConfig(row, golden));
        return compare(`${name} nftables`, rules.map(normal), golden, 'commands');
      });
      yield attempt(`${name} iptables`, () => {
        const golden = commandsOf(
          cases.read(cases.has(`istio/${row.iptablesGolden}`) ? `istio/${row.iptablesGolden}` : row.iptablesGolden),
        );
        const families: readonly Family[] = row.ipv6 ? ['v4', 'v6'] : ['v4'];
        const tables = (family: Family) =>
          row.scope === 'pod' ? iptablesPodRules(podConfig(row), family) : iptablesHostRules(hostConfig(row, golden), family);
        // Istio looks at what is there before it writes, and its golden files begin with these two commands.
        const rules = ['iptables-save', 'ip6tables-save', ...families.flatMap((family) => restoreInput(tables(family), new Map()))];
        return compare(`${name} iptables`, rules.map(normal), golden, 'commands');
      });
    }
  },
};

function podConfig({ config, podOverrides = {}, ipv6 }: RedirectCase): Parameters<typeof podRules>[0] {
  const { ingressMode = false, virtualInterfaces = [], dnsProxy } = podOverrides;
  const redirectDns = dnsProxy === undefined ? config.redirectDNS : dnsProxy === 'enabled';
  const probeSource = { v4: config.hostProbeSNATAddress, v6: config.hostProbeV6SNATAddress };
  return { redirectDns, ingressMode, virtualInterfaces, ipv6, probeSource, captureOpenConnections: true };
}

function hostConfig({ config, ipv6 }: RedirectCase, golden: readonly string[]): Parameters<typeof hostRules>[0] {
  const text = golden.join('\n');
  const v6 = /ip6 daddr .* snat to (\S+)/.exec(text)?.[1] ?? config.hostProbeV6SNATAddress;
  const uid = /skuid (\d+)/.exec(text)?.[1];
  return { ipv6, probeSource: { v4: config.hostProbeSNATAddress, v6 }, kubeletUid: uid === undefined ? undefined : Number(uid) };
}

const normal = (command: string): string => command.trim().replace(/\s+/g, ' ');
const commandsOf = (text: string): string[] => text.split('\n').map(normal).filter(Boolean);
