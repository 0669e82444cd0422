/**
 * Sets of fields in the form of `metadata.managedFields[].fieldsV1`: a tree whose names are `f:FIELD`, `k:{KEYS}` for an element of a list
 * with keys and `v:VALUE` for an element of a set. A node without children, or with a child named `.`, is itself a member.
 */
import { isObject, type JsonObject } from '../json.ts';
import type { SchemaNode } from '../schemas/schema.ts';

export interface FieldSet {
  [element: string]: FieldSet;
}

const isMember = (set: FieldSet): boolean => '.' in set || Object.keys(set).length === 0;

export function union(a: FieldSet | undefined, b: FieldSet | undefined): FieldSet | undefined {
  if (!a || !b) return a ?? b;
  const result: FieldSet = {};
  for (const name of new Set([...children(a), ...children(b)])) {
    const merged = union(a[name], b[name]);
    if (merged) result[name] = merged;
  }
  return withSelf(result, isMember(a) || isMember(b));
}

/** Members of `a` that are not members of `b`; undefined where none is left. */
export function subtract(a: FieldSet | undefined, b: FieldSet | undefined): FieldSet | undefined {
  if (!a || !b) return a;
  const result: FieldSet = {};
  for (const name of children(a)) {
    const rest = subtract(a[name], b[name]);
    if (rest) result[name] = rest;
  }
  return withSelf(result, isMember(a) && !isMember(b));
}

export function intersect(a: FieldSet | undefined, b: FieldSet | undefined): FieldSet | undefined {
  if (!a || !b) return undefined;
  const result: FieldSet = {};
  for (const name of children(a)) {
    const both = intersect(a[name], b[name]);
    if (both) result[name] = both;
  }
  return withSelf(result, isMember(a) && isMember(b));
}

/** Every field that a value sets. */
export function fieldsOf(value: unknown, node: SchemaNode | undefined): FieldSet {
  const result: FieldSet = {};
  if (isGranular(value, node)) {
    for (const [name, inner] of Object.entries(value)) result[`f:${name}`] = fieldsOf(inner, node?.field(name));
  } else if (Array.isArray(value) && node?.listKeys) {
    const items = node.items();
    for (const item of value) {
      const inner = node.listKeys.length > 0 ? fieldsOf(item, items) : {};
      result[elementName(item, node)] = Object.keys(inner).length > 0 ? { '.': {}, ...inner } : {};
    }
  }
  return result;
}

/** What differs between two values: fields that are new or have another value, and fields that are gone. */
export function compare(
  before: unknown,
  after: unknown,
  node: SchemaNode | undefined,
): { changed: FieldSet | undefined; removed: FieldSet | undefined } {
  if (before === undefined) return { changed: after === undefined ? undefined : addedFields(after, node), removed: undefined };
  if (after === undefined) return { changed: undefined, removed: addedFields(before, node) };
  if (before === after) return { changed: undefined, removed: undefined };
  const pairs = pairUp(before, after, node);
  if (!pairs) return { changed: JSON.stringify(before) === JSON.stringify(after) ? undefined : {}, removed: undefined };
  const changed: FieldSet = {};
  const removed: FieldSet = {};
  for (const [name, [a, b, child]] of pairs) {
    const inner = compare(a, b, child);
    if (inner.changed) changed[name] = inner.changed;
    if (inner.removed) removed[name] = inner.removed;
  }
  return { changed: orUndefined(changed), removed: orUndefined(removed) };
}

/** `.spec.replicas`, `.spec.containers[name="a"].image`: each member as kubectl prints conflicts. */
export function paths(set: FieldSet, prefix = ''): string[] {
  const own = isMember(set) && prefix !== '' ? [prefix] : [];
  return [...own, ...children(set).flatMap((name) => paths(set[name] ?? {}, prefix + pathElement(name)))];
}

/** A value whose fields may have different owners. */
export function isGranular(value: unknown, node: SchemaNode | undefined): value is JsonObject {
  return isObject(value) && !node?.atomicMap;
}

/** How a list element is named in a field set. */
export function elementName(item: unknown, list: SchemaNode): string {
  const keys = list.listKeys ?? [];
  if (keys.length === 0) return `v:${JSON.stringify(item)}`;
  const element = list.items();
  const values: JsonObject = {};
  for (const key of [...keys].sort()) {
    const value = isObject(item) ? (item[key] ?? element?.field(key)?.schema.default) : undefined;
    if (value !== undefined) values[key] = value;
  }
  return `k:${JSON.stringify(values)}`;
}

export const children = (set: FieldSet): string[] => Object.keys(set).filter((name) => name !== '.');

type Pair = [before: unknown, after: unknown, node: SchemaNode | undefined];

function pairUp(before: unknown, after: unknown, node: SchemaNode | undefined): Map<string, Pair> | undefined {
  const pairs = new Map<string, Pair>();
  if (isGranular(before, node) && isGranular(after, node)) {
    for (const name of new Set([...Object.keys(before), ...Object.keys(after)]))
      pairs.set(`f:${name}`, [before[name], after[name], node?.field(name)]);
    return pairs;
  }
  if (!Array.isArray(before) || !Array.isArray(after) || !node?.listKeys) return undefined;
  const items = node.items();
  for (const item of before) pairs.set(elementName(item, node), [item, undefined, items]);
  for (const item of after) {
    const name = elementName(item, node);
    pairs.set(name, [pairs.get(name)?.[0], item, items]);
  }
  return pairs;
}

/** Like fieldsOf, with maps and list elements as members of their own, which is how updates own them. */
function addedFields(value: unknown, node: SchemaNode | undefined): FieldSet {
  const fields = fieldsOf(value, node);
  const isMap = typeof node?.schema.additionalProperties === 'object';
  return isMap && Object.keys(fields).length > 0 ? { '.': {}, ...fields } : fields;
}

function withSelf(set: FieldSet, self: boolean): FieldSet | undefined {
  if (Object.keys(set).length === 0) return self ? {} : undefined;
  return self ? { '.': {}, ...set } : set;
}

const orUndefined = (set: FieldSet): FieldSet | undefined => (Object.keys(set).length > 0 ? set : undefined);

function pathElement(name: string): string {
  const text = name.slice(2);
  if (name.startsWith('f:')) return `.${text}`;
  if (name.startsWith('v:')) return `[=${text}]`;
  const keys = Object.entries(JSON.parse(text) as JsonObject).map(([key, value]) => `${key}=${JSON.stringify(value)}`);
  return `[${keys.join(',')}]`;
}
