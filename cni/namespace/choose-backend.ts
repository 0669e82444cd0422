/**
 * Which back-end redirects on this node: what the setting says, else nftables, unless the kernel or the programs cannot do it, or an agent
 * with iptables has left its rules on the node, which then stays with iptables until somebody decides (as Istio does until a reboot).
 * A back-end is tried in an empty network namespace before it is trusted with a pod.
 */
import { errorMessage } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';
import { IptablesProbeRules, NftProbeRules, type ProbeRules } from '../host/probe-rules.ts';
import type { HostRulesConfig } from '../rules/host-rules.ts';
import { hasOwnRules } from '../rules/iptables-restore.ts';
import type { PodRulesConfig } from '../rules/pod-rules.ts';
import { IptablesBackend, type IptablesVariant, iptablesProgram, iptablesSave } from './iptables-backend.ts';
import { NftBackend } from './nft-backend.ts';
import { PodNetwork } from './pod-network.ts';
import type { RuleBackend } from './rule-backend.ts';
import { type Inside, runInside } from './run-inside.ts';

export interface BackendChoice {
  /** NATIVE_NFTABLES. */
  readonly nativeNftables: 'true' | 'false' | 'auto';
  /** FORCE_IPTABLES_BINARY. */
  readonly iptables: 'nft' | 'legacy' | 'auto';
  readonly node: Inside;
  readonly podRules: PodRulesConfig;
  readonly hostRules: HostRulesConfig;
  readonly log: Log;
}

export interface Redirection {
  readonly backend: RuleBackend['name'];
  readonly network: PodNetwork;
  readonly probes: ProbeRules;
}

/** @throws {Error} where neither back-end works here, or the one that the settings name, with what it said */
export async function chooseBackend(choice: BackendChoice): Promise<Redirection> {
  const { nativeNftables, podRules, log } = choice;
  const found = await findIptables(choice);
  const nft = new NftBackend();
  const iptables = new IptablesBackend(found.variant);
  const nftFails = nativeNftables === 'false' ? undefined : await whyNot(nft, podRules);
  if (nativeNftables === 'true' && nftFails !== undefined)
    throw new Error(`NATIVE_NFTABLES is true, and nftables cannot be used: ${nftFails}`);
  const wantsNft = nativeNftables === 'true' || (nativeNftables === 'auto' && nftFails === undefined && !found.inUse);
  const iptablesFails = wantsNft ? undefined : await whyNot(iptables, podRules);
  if (iptablesFails !== undefined && nativeNftables === 'false') {
    throw new Error(`NATIVE_NFTABLES is false, and iptables cannot be used: ${iptablesFails}`);
  }
  if (iptablesFails !== undefined && nftFails !== undefined) {
    throw new Error(`neither nftables (${nftFails}) nor iptables (${iptablesFails}) can be used on this node`);
  }
  const useNft = wantsNft || iptablesFails !== undefined;
  if (nftFails !== undefined) log.warn({ error: nftFails }, 'nftables cannot be used here, so rules are written with iptables');
  return useNft ? withNft(choice, nft, found) : withIptables(choice, iptables, found, nft);
}

interface FoundIptables {
  readonly variant: IptablesVariant;
  /** Programs that work here, of either variant. */
  readonly variants: readonly IptablesVariant[];
  /** An agent has left its rules for probes on the node, by this variant. */
  readonly inUse: boolean;
}

async function withNft(choice: BackendChoice, nft: NftBackend, found: FoundIptables): Promise<Redirection> {
  const { node, hostRules } = choice;
  for (const variant of found.variants) {
    const old = new IptablesProbeRules(node, hostRules, variant);
    if (await old.present()) await removeOld(choice, old);
  }
  const others = found.variants.map((variant) => new IptablesBackend(variant));
  return { backend: 'nftables', network: new PodNetwork(nft, others), probes: new NftProbeRules(node, hostRules) };
}

async function withIptables(choice: BackendChoice, iptables: IptablesBackend, found: FoundIptables, nft: NftBackend): Promise<Redirection> {
  const { node, hostRules, podRules } = choice;
  const probes = new IptablesProbeRules(node, hostRules, found.variant);
  const nftWorks = (await whyNot(nft, podRules)) === undefined;
  if (nftWorks) await removeOld(choice, new NftProbeRules(node, hostRules));
  return { backend: 'iptables', network: new PodNetwork(iptables, nftWorks ? [nft] : []), probes };
}

async function removeOld({ log }: BackendChoice, old: ProbeRules): Promise<void> {
  await old.remove().catch((error: unknown) => {
    log.warn({ error: errorMessage(error), backend: old.backend }, "the node's rules of another back-end could not be removed");
  });
}

async function whyNot(backend: RuleBackend, podRules: PodRulesConfig): Promise<string | undefined> {
  try {
    await backend.try(podRules);
    return undefined;
  } catch (error) {
    return errorMessage(error);
  }
}

/** As Istio: the variant whose rules the node has; where it has both or none, what the system calls iptables. */
async function findIptables({ iptables, node }: BackendChoice): Promise<FoundIptables> {
  const rules = { nft: await countRules(node, 'nft'), legacy: await countRules(node, 'legacy') };
  const plain = rules.nft === undefined && rules.legacy === undefined ? await countRules(node, '') : undefined;
  const variants: IptablesVariant[] = [
    ...(rules.nft === undefined ? [] : ['nft' as const]),
    ...(rules.legacy === undefined ? [] : ['legacy' as const]),
    ...(plain === undefined ? [] : ['' as const]),
  ];
  const inUse: IptablesVariant[] = [];
  for (const variant of variants) if (await ownRulesOnNode(node, variant)) inUse.push(variant);
  const onlyLegacy = (rules.legacy ?? 0) > 0 && (rules.nft ?? 0) === 0;
  const detected = inUse[0] ?? (onlyLegacy ? 'legacy' : (variants[0] ?? ''));
  return { variant: iptables === 'auto' ? detected : iptables, variants, inUse: inUse.length > 0 };
}

/** @returns undefined where the program is not there, or cannot work with this kernel */
async function countRules(node: Inside, variant: IptablesVariant): Promise<number | undefined> {
  try {
    const saved = await runInside(node, iptablesProgram({ family: 'v4', variant }, 'save'), []);
    return saved.split('\n').filter((line) => line.startsWith('-A ')).length;
  } catch {
    // Asked only in order to find out.
    return undefined;
  }
}

const ownRulesOnNode = async (node: Inside, variant: IptablesVariant): Promise<boolean> =>
  hasOwnRules(await iptablesSave(node, { family: 'v4', variant }));
