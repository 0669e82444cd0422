/**
 * Strategic merge patch, as kubectl's `apply`, `patch`, `edit`, `label` and `set` send it for built-in kinds: lists with a merge key are
 * merged element by element, and the directives `$patch`, `$retainKeys`, `$deleteFromPrimitiveList` and `$setElementOrder` are obeyed.
 */
import { ApiError } from '../api-error.ts';
import { cloneDeep, equalDeep, isObject, type JsonObject } from '../json.ts';
import type { SchemaNode } from '../schemas/schema.ts';

const DELETE_FROM = '$deleteFromPrimitiveList/';
const ELEMENT_ORDER = '$setElementOrder/';

/** @throws {ApiError} 400 where a patch element has no merge key */
export function applyStrategicMerge(target: unknown, patch: unknown, node: SchemaNode | undefined): unknown {
  if (!isObject(patch)) return cloneDeep(patch);
  const directive = patch.$patch;
  if (directive === 'replace') return without(patch, '$patch');
  if (directive === 'delete') return {};
  const result: JsonObject = isObject(target) ? { ...target } : {};
  retainKeys(result, patch);
  for (const [name, value] of Object.entries(patch)) {
    if (name.startsWith('$')) continue;
    if (value === null) delete result[name];
    else if (Array.isArray(value)) result[name] = mergeList(result[name], value, node?.field(name), name);
    else if (isObject(value) && value.$patch === 'delete') delete result[name];
    else result[name] = applyStrategicMerge(result[name], value, node?.field(name));
  }
  for (const [name, value] of Object.entries(patch)) {
    if (!Array.isArray(value)) continue;
    if (name.startsWith(DELETE_FROM)) {
      const field = name.slice(DELETE_FROM.length);
      const list = result[field];
      if (Array.isArray(list)) result[field] = list.filter((item) => !value.some((gone) => equalDeep(gone, item)));
    } else if (name.startsWith(ELEMENT_ORDER)) {
      const field = name.slice(ELEMENT_ORDER.length);
      const list = result[field];
      if (Array.isArray(list)) result[field] = inOrder(list, value, mergeKey(node?.field(field)));
    }
  }
  return result;
}

function mergeList(target: unknown, patch: readonly unknown[], node: SchemaNode | undefined, name: string): unknown[] {
  const current = Array.isArray(target) ? target : [];
  if (patch.some((item) => isObject(item) && item.$patch === 'replace')) {
    return patch.filter((item) => !(isObject(item) && item.$patch === 'replace')).map(cloneDeep);
  }
  if (!node?.schema['x-kubernetes-patch-strategy']?.includes('merge')) return patch.map(cloneDeep);
  const key = mergeKey(node);
  if (key === undefined) return [...current, ...patch.filter((item) => !current.some((own) => equalDeep(own, item))).map(cloneDeep)];
  let result = [...current];
  for (const item of patch) {
    if (!isObject(item) || item[key] === undefined)
      throw ApiError.badRequest(`map: ${JSON.stringify(item)} does not contain declared merge key: ${key} (in ${name})`);
    const index = result.findIndex((own) => isObject(own) && equalDeep(own[key], item[key]));
    if (item.$patch === 'delete') result = result.filter((_, i) => i !== index);
    else if (index < 0) result.push(applyStrategicMerge({}, item, node.items()));
    else result[index] = applyStrategicMerge(result[index], item, node.items());
  }
  return result;
}

const mergeKey = (node: SchemaNode | undefined): string | undefined => node?.schema['x-kubernetes-patch-merge-key'];

/** Elements that the order names come in that order; the others keep their place after the element that they followed. */
function inOrder(list: readonly unknown[], order: readonly unknown[], key: string | undefined): unknown[] {
  const rank = (item: unknown): number =>
    order.findIndex((wanted) =>
      key === undefined ? equalDeep(wanted, item) : isObject(wanted) && isObject(item) && equalDeep(wanted[key], item[key]),
    );
  let last = -1;
  return list
    .map((item, at) => {
      const own = rank(item);
      if (own >= 0) last = own;
      return { item, at, rank: own >= 0 ? own : last, follows: own < 0 };
    })
    .sort((a, b) => a.rank - b.rank || Number(a.follows) - Number(b.follows) || a.at - b.at)
    .map(({ item }) => item);
}

function retainKeys(target: JsonObject, patch: JsonObject): void {
  const keep = patch.$retainKeys;
  if (!Array.isArray(keep)) return;
  for (const name of Object.keys(target)) if (!keep.includes(name)) delete target[name];
}

function without(object: JsonObject, name: string): JsonObject {
  const { [name]: _, ...rest } = object;
  return rest;
}
