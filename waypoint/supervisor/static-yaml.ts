/** Reading protobuf's JSON names from YAML that somebody wrote by hand: an unknown key, or two where one is meant, is an error that names its place. */
import type { YamlNode } from '../../common/state/yaml-node.ts';

export const UINT32 = 2 ** 32 - 1;

export const list = <T>(node: YamlNode, key: string, read: (entry: YamlNode) => T): T[] => node.optional(key)?.list(read) ?? [];

export const text = (node: YamlNode, key: string): string => node.optional(key)?.text() ?? '';

export const number = (node: YamlNode, key: string, max = UINT32): number => node.optional(key)?.integer(max) ?? 0;

export const texts = (node: YamlNode, key: string): string[] => list(node, key, (entry) => entry.text());

/** A generated enumeration as words to choose from. */
export const enumWords = <T extends number>(words: Readonly<Record<string, T>>): Record<string, T> =>
  Object.fromEntries(Object.entries(words).filter(([, value]) => value >= 0));

export const flag = (node: YamlNode, key: string): boolean => node.optional(key)?.flag() ?? false;

export const textMap = (node: YamlNode, key: string): { [name: string]: string } =>
  Object.fromEntries(node.optional(key)?.entries((name, value) => [name, value.text()] as const) ?? []);

export const maybe = <T>(node: YamlNode, key: string, read: (entry: YamlNode) => T): T | undefined => node.optional(key)?.map(read);

/** The one of these keys that is there; others that may stand beside it are not looked at. */
export function one<K extends string>(
  node: YamlNode,
  keys: readonly K[],
  beside: readonly string[] = [],
): { readonly key: K; readonly value: YamlNode } | undefined {
  node.allowKeys([...keys, ...beside]);
  const found = keys.flatMap((key) => {
    const value = node.optional(key);
    return value ? [{ key, value }] : [];
  });
  if (found.length > 1) throw node.error(`expected one of ${keys.join(', ')}`);
  return found[0];
}
