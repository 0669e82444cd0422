/**
 * Label selectors in both directions: which members a selector picks, and which selectors pick a member. Both go through one
 * `key=value` pair, so the cost is that of the pair's entries and not of the namespace.
 */
import { at, type Labels, records, text, textMap, texts } from './objects.ts';

/** Whether every pair is among the labels; an empty selector picks everything. */
export function picks(selector: Labels, labels: Labels): boolean {
  for (const key in selector) if (labels[key] !== selector[key]) return false;
  return true;
}

/** A Kubernetes LabelSelector with matchLabels and matchExpressions; an operator that is not known picks nothing. */
export function labelSelectorPicks(selector: unknown, labels: Labels): boolean {
  if (!picks(textMap(at(selector, 'matchLabels')), labels)) return false;
  return records(at(selector, 'matchExpressions')).every((expression) => {
    const key = text(expression.key);
    const value = Object.hasOwn(labels, key) ? labels[key] : undefined;
    const values = texts(expression.values);
    switch (expression.operator) {
      case 'In':
        return value !== undefined && values.includes(value);
      case 'NotIn':
        return value === undefined || !values.includes(value);
      case 'Exists':
        return value !== undefined;
      case 'DoesNotExist':
        return value === undefined;
      default:
        return false;
    }
  });
}

const pair = (key: string, value: string | undefined): string => `${key}=${value}`;

/** Keys with labels, by namespace. */
export class LabelIndex {
  readonly #namespaces = new Map<string, Members>();

  add(namespace: string, key: string, labels: Labels): void {
    this.remove(namespace, key);
    const members: Members = this.#namespaces.get(namespace) ?? { labels: new Map(), byPair: new Map() };
    members.labels.set(key, labels);
    for (const name in labels) insert(members.byPair, pair(name, labels[name]), key);
    this.#namespaces.set(namespace, members);
  }

  remove(namespace: string, key: string): void {
    const members = this.#namespaces.get(namespace);
    const labels = members?.labels.get(key);
    if (!members || !labels) return;
    members.labels.delete(key);
    for (const name in labels) erase(members.byPair, pair(name, labels[name]), key);
    if (members.labels.size === 0) this.#namespaces.delete(namespace);
  }

  /** Calls `visit` with each key of the namespace, or of all of them where it is undefined, that the selector picks. */
  select(namespace: string | undefined, selector: Labels, visit: (key: string) => void): void {
    if (namespace === undefined) {
      for (const members of this.#namespaces.values()) selectFrom(members, selector, visit);
      return;
    }
    const members = this.#namespaces.get(namespace);
    if (members) selectFrom(members, selector, visit);
  }
}

interface Members {
  readonly labels: Map<string, Labels>;
  /** A lone key stands for itself: most pairs (pod hashes, pod names) have one. */
  readonly byPair: Map<string, string | Set<string>>;
}

function selectFrom(members: Members, selector: Labels, visit: (key: string) => void): void {
  let fewest: string | Set<string> | undefined;
  let narrowed = false;
  for (const name in selector) {
    const entry = members.byPair.get(pair(name, selector[name]));
    if (entry === undefined) return;
    if (!narrowed || sizeOf(entry) < sizeOf(fewest)) fewest = entry;
    narrowed = true;
  }
  const candidates = narrowed ? keysOf(fewest) : members.labels.keys();
  for (const key of candidates) {
    const labels = members.labels.get(key);
    if (labels && picks(selector, labels)) visit(key);
  }
}

const sizeOf = (entry: string | Set<string> | undefined): number => (typeof entry === 'object' ? entry.size : 1);

const keysOf = (entry: string | Set<string> | undefined): Iterable<string> => (typeof entry === 'string' ? [entry] : (entry ?? []));

function insert(map: Map<string, string | Set<string>>, at: string, key: string): void {
  const entry = map.get(at);
  if (entry === undefined) map.set(at, key);
  else if (typeof entry === 'string') map.set(at, new Set([entry, key]));
  else entry.add(key);
}

function erase(map: Map<string, string | Set<string>>, at: string, key: string): void {
  const entry = map.get(at);
  if (typeof entry === 'object') {
    entry.delete(key);
    if (entry.size === 0) map.delete(at);
  } else if (entry === key) map.delete(at);
}

/** Things with a selector, by namespace. */
export class SelectorIndex<T extends { readonly selector: Labels }> {
  readonly #namespaces = new Map<string, Map<string, Set<T>>>();

  add(namespace: string, item: T): void {
    const byPair: Map<string, Set<T>> = this.#namespaces.get(namespace) ?? new Map();
    this.#namespaces.set(namespace, byPair);
    const key = handle(item.selector);
    const items = byPair.get(key);
    if (items) items.add(item);
    else byPair.set(key, new Set([item]));
  }

  remove(namespace: string, item: T): void {
    const byPair = this.#namespaces.get(namespace);
    const key = handle(item.selector);
    const items = byPair?.get(key);
    if (!byPair || !items) return;
    items.delete(item);
    if (items.size === 0) byPair.delete(key);
    if (byPair.size === 0) this.#namespaces.delete(namespace);
  }

  /** What picks these labels, in no particular order. */
  matching(namespace: string, labels: Labels): T[] {
    const byPair = this.#namespaces.get(namespace);
    if (!byPair) return [];
    const found: T[] = [...(byPair.get(EVERYTHING) ?? [])];
    for (const name in labels) {
      const items = byPair.get(pair(name, labels[name]));
      if (items) for (const item of items) if (picks(item.selector, labels)) found.push(item);
    }
    return found;
  }
}

const EVERYTHING = '';

/** The pair under which a selector is filed: any would do, as long as it is always the same one. */
function handle(selector: Labels): string {
  let last: string | undefined;
  for (const key in selector) if (last === undefined || key > last) last = key;
  return last === undefined ? EVERYTHING : pair(last, selector[last]);
}

export type Selecting<T> = T & { readonly selector: Labels };

export const isSelecting = <T extends { readonly selector: Labels | undefined }>(item: T): item is Selecting<T> =>
  item.selector !== undefined;
