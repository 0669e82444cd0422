/**
 * Redirection with iptables, by the pair of programs that the node uses: those on top of nftables, or the old ones. Looked at with
 * iptables-save before each change, since iptables has no command that replaces a chain whatever was there.
 */
import { readFileSync } from 'node:fs';
import { Netns } from '../../common/linux/netns.ts';
import { type Nftables, openNftables } from '../../common/linux/nftables.ts';
import { hasOwnRules, parseSaved, restoreInput, type SavedTables, savedText } from '../rules/iptables-restore.ts';
import { type Family, iptablesDrainingRules, iptablesPodRules, type TableRules } from '../rules/iptables-rules.ts';
import type { PodRulesConfig } from '../rules/pod-rules.ts';
import { CanonicalTexts, loopbackHasIpv6, type PodNamespace, type RuleBackend, type RuleState } from './rule-backend.ts';
import { CommandError, type Inside, runInside } from './run-inside.ts';

/** Which iptables: the suffix of its programs' names (Istio, FORCE_IPTABLES_BINARY); '' is what the system calls iptables. */
export type IptablesVariant = '' | 'nft' | 'legacy';

export class IptablesBackend implements RuleBackend {
  readonly name = 'iptables';
  readonly #variant: IptablesVariant;
  readonly #library: Nftables | undefined;
  readonly #canonical = new CanonicalTexts((config, ipv6) => this.#ask(config, ipv6));

  constructor(variant: IptablesVariant, library: Nftables | undefined = openNftables()) {
    this.#variant = variant;
    this.#library = library;
  }

  apply(pod: PodNamespace, config: PodRulesConfig): Promise<void> {
    return this.#replace(pod, this.#families(pod), (family) => (family === 'v6' && !config.ipv6 ? [] : iptablesPodRules(config, family)));
  }

  drain(pod: PodNamespace): Promise<void> {
    return this.#replace(pod, this.#families(pod), () => iptablesDrainingRules());
  }

  remove(pod: PodNamespace): Promise<void> {
    return this.#replace(pod, this.#families(pod), () => []);
  }

  async inspect(pod: PodNamespace, config: PodRulesConfig): Promise<RuleState> {
    const families = this.#families(pod);
    const saved = await this.#saved(pod, families);
    if (!saved.some(hasOwnRules)) return 'absent';
    return saved.map(savedText).join('\n') === (await this.#canonical.of(config, families.length > 1)) ? 'wanted' : 'different';
  }

  async try(config: PodRulesConfig): Promise<void> {
    await this.#canonical.of(config, config.ipv6);
  }

  async present(pod: PodNamespace): Promise<boolean> {
    if (!this.#mayBePresent(pod)) return false;
    return (await this.#saved(pod, this.#families(pod))).some(hasOwnRules);
  }

  /** Without starting a program: most pods have no rules of iptables at all. */
  #mayBePresent({ netns }: PodNamespace): boolean {
    const library = this.#library;
    return netns.run(() => {
      const legacy = this.#variant !== 'nft' && ['ip', 'ip6'].some((family) => legacyTables(family).length > 0);
      if (legacy || this.#variant === 'legacy') return legacy;
      if (!library) return true;
      return ['ip', 'ip6'].some((family) => ['nat', 'mangle'].some((table) => library.listTable(family, table)?.includes('ISTIO_')));
    });
  }

  async #ask(config: PodRulesConfig, ipv6: boolean): Promise<string> {
    const netns = Netns.create();
    try {
      const empty = { netns, about: 'an empty network namespace' };
      await this.apply(empty, config);
      return (await this.#saved(empty, ipv6 ? ['v4', 'v6'] : ['v4'])).map(savedText).join('\n');
    } finally {
      netns.close();
    }
  }

  async #replace(inside: PodNamespace, families: readonly Family[], wanted: (family: Family) => readonly TableRules[]): Promise<void> {
    for (const family of families) {
      const [present = new Map()] = await this.#saved(inside, [family]);
      await iptablesRestore(inside, { family, variant: this.#variant }, restoreInput(wanted(family), present));
    }
  }

  #saved(inside: Inside, families: readonly Family[]): Promise<SavedTables[]> {
    return Promise.all(families.map((family) => iptablesSave(inside, { family, variant: this.#variant })));
  }

  #families = ({ netns }: PodNamespace): readonly Family[] => (loopbackHasIpv6(netns) ? ['v4', 'v6'] : ['v4']);
}

/** Tables that the old iptables has made in the namespace that the thread is in. */
function legacyTables(family: string): string[] {
  try {
    return readFileSync(`/proc/thread-self/net/${family}_tables_names`, 'utf8').split('\n').filter(Boolean);
  } catch {
    // A kernel without them.
    return [];
  }
}

export interface Iptables {
  readonly family: Family;
  readonly variant: IptablesVariant;
}

/** `iptables-legacy-restore`, `ip6tables-save`, … */
export function iptablesProgram({ family, variant }: Iptables, what: 'save' | 'restore'): string {
  return [family === 'v4' ? 'iptables' : 'ip6tables', ...(variant === '' ? [] : [variant]), what].join('-');
}

/** What is ours there. @throws {CommandError} */
export async function iptablesSave(inside: Inside, iptables: Iptables): Promise<SavedTables> {
  return parseSaved(await runInside(inside, iptablesProgram(iptables, 'save'), []));
}

/** @throws {CommandError} */
export async function iptablesRestore(inside: Inside, iptables: Iptables, lines: readonly string[]): Promise<void> {
  if (lines.length === 0) return;
  const program = iptablesProgram(iptables, 'restore');
  const input = `${lines.join('\n')}\n`;
  try {
    // The lock is the node's, and kube-proxy holds it often.
    await runInside(inside, program, ['--noflush', '--wait=5'], input);
  } catch (error) {
    // iptables on top of nftables reports a change that somebody else made meanwhile; the second try sees it.
    if (!(error instanceof CommandError) || !/Resource temporarily unavailable|try again/i.test(error.stderr)) throw error;
    await runInside(inside, program, ['--noflush', '--wait=5'], input);
  }
}
