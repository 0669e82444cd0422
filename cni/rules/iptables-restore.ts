/**
 * What iptables-save printed, and the input of `iptables-restore --noflush` that turns it into what is wanted: each table in one
 * transaction, our chains and jumps replaced, other programs' rules untouched. Where nothing of ours is there, the input is Istio's own.
 */
import { JUMP_FROM, type OwnChain, type TableName, type TableRules } from './iptables-rules.ts';

/** What is ours in each table. */
export type SavedTables = ReadonlyMap<TableName, SavedTable>;

export interface SavedTable {
  readonly chains: readonly OwnChain[];
  /** Rules, `-A` taken off: jumps in built-in chains to ours, and everything in ours. */
  readonly jumps: readonly string[];
  readonly rules: readonly string[];
}

const OWN = Object.keys(JUMP_FROM) as readonly OwnChain[];
const TABLES: readonly TableName[] = ['mangle', 'nat', 'raw'];

/** @param text output of iptables-save; counters and comments are ignored */
export function parseSaved(text: string): Map<TableName, SavedTable> {
  const tables = new Map<TableName, SavedTable>();
  let current: { chains: OwnChain[]; jumps: string[]; rules: string[] } | undefined;
  for (const line of text.split('\n').map((part) => part.trim())) {
    if (line.startsWith('*')) {
      const name = TABLES.find((table) => table === line.slice(1).trim());
      current = name && { chains: [], jumps: [], rules: [] };
      if (name && current) tables.set(name, current);
    } else if (current && line.startsWith(':')) {
      const chain = OWN.find((own) => own === line.slice(1).split(/\s/)[0]);
      if (chain) current.chains.push(chain);
    } else if (current && line.startsWith('-A ')) {
      const rule = line.slice(3);
      if (OWN.some((own) => rule.startsWith(`${own} `))) current.rules.push(rule);
      else if (OWN.some((own) => rule.endsWith(` -j ${own}`))) current.jumps.push(rule);
    }
  }
  return tables;
}

export const hasOwnRules = (saved: SavedTables): boolean =>
  [...saved.values()].some(({ chains, jumps }) => chains.length + jumps.length > 0);

/** For comparing: the same for two namespaces whose packets meet the same rules of ours, in the same order. */
export function savedText(saved: SavedTables): string {
  return TABLES.flatMap((table) => {
    const { chains = [], jumps = [], rules = [] } = saved.get(table) ?? {};
    if (chains.length + jumps.length + rules.length === 0) return [];
    // Chains are printed in the order of their making, which changes nothing.
    const ordered = OWN.flatMap((chain) => rules.filter((rule) => rule.startsWith(`${chain} `)));
    return [`*${table}`, ...chains.toSorted(), ...jumps.toSorted(), ...ordered];
  }).join('\n');
}

/** @returns lines for `iptables-restore --noflush`; none where nothing is to be done */
export function restoreInput(wanted: readonly TableRules[], present: SavedTables): string[] {
  return TABLES.flatMap((table) => {
    const lines = [...removal(present.get(table)), ...creation(wanted.find((entry) => entry.table === table))];
    return lines.length > 0 ? [`* ${table}`, ...lines, 'COMMIT'] : [];
  });
}

function removal({ chains, jumps }: SavedTable = { chains: [], jumps: [], rules: [] }): string[] {
  return [...jumps.map((rule) => `-D ${rule}`), ...chains.map((chain) => `-F ${chain}`), ...chains.map((chain) => `-X ${chain}`)];
}

function creation(wanted: TableRules | undefined): string[] {
  if (!wanted) return [];
  // A jump needs its chain, also where the chain has no rule of its own (a drained pod).
  const jumpedTo = OWN.filter((chain) => wanted.jumps.some((jump) => jump.endsWith(chain)));
  const chains = new Set([...wanted.rules.map(([chain]) => chain), ...jumpedTo]);
  return [...[...chains].map((chain) => `-N ${chain}`), ...wanted.jumps, ...wanted.rules.map(([chain, rule]) => `-A ${chain} ${rule}`)];
}
