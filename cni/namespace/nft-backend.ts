/** Redirection with nftables. Writing starts `nft`, since a transaction waits inside the kernel; reading goes through its library. */
import { Netns } from '../../common/linux/netns.ts';
import { type Nftables, openNftables } from '../../common/linux/nftables.ts';
import { MANGLE_TABLE, NAT_TABLE, RAW_TABLE } from '../rules/constants.ts';
import { drainingRules, noRules, type PodRulesConfig, podRules } from '../rules/pod-rules.ts';
import { CanonicalTexts, type PodNamespace, type RuleBackend, type RuleState } from './rule-backend.ts';
import { CommandError, type Inside, type PodNetns, runInside } from './run-inside.ts';

const TABLES = [NAT_TABLE, MANGLE_TABLE, RAW_TABLE];

export class NftBackend implements RuleBackend {
  readonly name = 'nftables';
  readonly #library: Nftables | undefined;
  readonly #canonical = new CanonicalTexts((config) => this.#ask(config));

  /** @param library undefined where libnftables is not installed: then `nft` is started for reading too */
  constructor(library: Nftables | undefined = openNftables()) {
    this.#library = library;
  }

  async apply(pod: PodNamespace, config: PodRulesConfig): Promise<void> {
    // A pod that no longer wants DNS capture, or that wears another program's idea of it.
    const stale = !config.redirectDns && (await this.#read(pod, [RAW_TABLE])) !== '' ? [`delete table inet ${RAW_TABLE}`] : [];
    await nftReplacing(pod, [...podRules(config), ...stale]);
  }

  drain(pod: PodNamespace): Promise<void> {
    return nftReplacing(pod, drainingRules());
  }

  remove(pod: PodNamespace): Promise<void> {
    return nft(pod, noRules());
  }

  async inspect(pod: PodNamespace, config: PodRulesConfig): Promise<RuleState> {
    const text = await this.#read(pod, TABLES);
    if (text === '') return 'absent';
    return text === (await this.#canonical.of(config, true)) ? 'wanted' : 'different';
  }

  async try(config: PodRulesConfig): Promise<void> {
    await this.#canonical.of(config, true);
  }

  async present(pod: PodNamespace): Promise<boolean> {
    return (await this.#read(pod, [NAT_TABLE])) !== '';
  }

  async #ask(config: PodRulesConfig): Promise<string> {
    const netns = Netns.create();
    try {
      const empty = { netns, about: 'an empty network namespace' };
      await nft(empty, podRules(config));
      return await this.#read(empty, TABLES);
    } finally {
      netns.close();
    }
  }

  /** Our tables, one after the other; '' where there are none. */
  async #read(pod: PodNamespace, tables: readonly string[]): Promise<string> {
    const { netns } = pod;
    if (this.#library) return readTables(this.#library, netns, tables);
    const texts = await Promise.all(tables.map((name) => listTable(pod, name)));
    return texts.join('');
  }
}

/** One transaction. @throws {CommandError} */
export async function nft(inside: Inside, commands: readonly string[]): Promise<void> {
  await runInside(inside, 'nft', ['-f', '-'], `${commands.join('\n')}\n`);
}

const readTables = (library: Nftables, netns: PodNetns, tables: readonly string[]): string =>
  netns.run(() => tables.map((name) => library.listTable('inet', name) ?? '').join(''));

/** A table of our name whose chains somebody else has made differently cannot be filled: it is replaced as a whole. */
async function nftReplacing(pod: PodNamespace, commands: readonly string[]): Promise<void> {
  try {
    await nft(pod, commands);
  } catch (error) {
    if (!(error instanceof CommandError) || !/File exists|Invalid argument|not supported|busy/i.test(error.stderr)) throw error;
    const tables = commands.flatMap((command) => /^add table inet (\S+)$/.exec(command)?.[1] ?? []);
    const anew = tables.flatMap((name) => [`add table inet ${name}`, `delete table inet ${name}`]);
    // Where that was not it, the first error is the one that tells.
    await nft(pod, [...anew, ...commands]).catch(() => Promise.reject(error));
  }
}

async function listTable(pod: PodNamespace, name: string): Promise<string> {
  try {
    return await runInside(pod, 'nft', ['-s', 'list', 'table', 'inet', name]);
  } catch (error) {
    if (error instanceof CommandError && /No such file or directory/.test(error.stderr)) return '';
    throw error;
  }
}
