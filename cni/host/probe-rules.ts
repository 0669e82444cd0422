/** The node's rules for its own probes, with either back-end: sets of addresses, and the rules that ask them. */

import { type IptablesVariant, iptablesRestore, iptablesSave } from '../namespace/iptables-backend.ts';
import { nft } from '../namespace/nft-backend.ts';
import type { RuleBackend } from '../namespace/rule-backend.ts';
import { CommandError, type Inside, runInside } from '../namespace/run-inside.ts';
import { PROBE_SET_V4, PROBE_SET_V6 } from '../rules/constants.ts';
import { type HostRulesConfig, hostRules, noHostRules, probeSets } from '../rules/host-rules.ts';
import { hasOwnRules, restoreInput } from '../rules/iptables-restore.ts';
import { type Family, iptablesHostRules, probeIpSet, type TableRules } from '../rules/iptables-rules.ts';

/** UID of the pod for each address, canonical. */
export type ProbedAddresses = ReadonlyMap<string, string>;

/** Each can be repeated. @throws {CommandError} */
export interface ProbeRules {
  readonly backend: RuleBackend['name'];
  /** Sets and rules: probes of pods that are in the sets pass all the time. */
  install(addresses: ProbedAddresses): Promise<void>;
  /** The sets alone. */
  write(addresses: ProbedAddresses): Promise<void>;
  remove(): Promise<void>;
}

export class NftProbeRules implements ProbeRules {
  readonly backend = 'nftables';
  readonly #node: Inside;
  readonly #config: HostRulesConfig;

  constructor(node: Inside, config: HostRulesConfig) {
    this.#node = node;
    this.#config = config;
  }

  install = (addresses: ProbedAddresses): Promise<void> => nft(this.#node, [...probeSets(addresses), ...hostRules(this.#config)]);
  write = (addresses: ProbedAddresses): Promise<void> => nft(this.#node, probeSets(addresses));
  remove = (): Promise<void> => nft(this.#node, noHostRules());
}

export class IptablesProbeRules implements ProbeRules {
  readonly backend = 'iptables';
  readonly #node: Inside;
  readonly #config: HostRulesConfig;
  readonly #variant: IptablesVariant;

  constructor(node: Inside, config: HostRulesConfig, variant: IptablesVariant) {
    this.#node = node;
    this.#config = config;
    this.#variant = variant;
  }

  async install(addresses: ProbedAddresses): Promise<void> {
    await this.write(addresses);
    for (const family of this.#families) await this.#replace(family, iptablesHostRules(this.#config, family));
  }

  async write(addresses: ProbedAddresses): Promise<void> {
    const lines = this.#families.flatMap((family) => probeIpSet(addresses, family));
    await runInside(this.#node, 'ipset', ['-exist', 'restore'], `${lines.join('\n')}\n`);
  }

  async remove(): Promise<void> {
    for (const family of this.#families) await this.#replace(family, []);
    for (const set of [PROBE_SET_V4, PROBE_SET_V6]) {
      await runInside(this.#node, 'ipset', ['destroy', set]).catch((error: unknown) => {
        if (!(error instanceof CommandError && /does not exist/.test(error.stderr))) throw error;
      });
    }
  }

  /** Whether an agent has left its rules here, ours or Istio's. @throws {CommandError} */
  async present(): Promise<boolean> {
    for (const family of this.#families) {
      if (hasOwnRules(await iptablesSave(this.#node, { family, variant: this.#variant }))) return true;
    }
    return false;
  }

  async #replace(family: Family, wanted: readonly TableRules[]): Promise<void> {
    const iptables = { family, variant: this.#variant };
    await iptablesRestore(this.#node, iptables, restoreInput(wanted, await iptablesSave(this.#node, iptables)));
  }

  get #families(): readonly Family[] {
    return this.#config.ipv6 ? ['v4', 'v6'] : ['v4'];
  }
}
