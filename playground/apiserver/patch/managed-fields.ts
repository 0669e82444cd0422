/**
 * Field ownership. Updates take over what they change; a server-side apply owns exactly what it sets, removes what it no longer sets and
 * nobody else owns, and meets a conflict where another manager owns a field that it would change.
 * Merging follows the structured-merge-diff rules that Kubernetes documents under "Server-Side Apply".
 */
import { ApiError, type ResourceName } from '../api-error.ts';
import { cloneDeep, isObject, type JsonObject } from '../json.ts';
import type { KubeObject, ManagedFieldsEntry } from '../object.ts';
import type { SchemaNode } from '../schemas/schema.ts';
import { children, compare, elementName, type FieldSet, fieldsOf, intersect, isGranular, paths, subtract, union } from './field-set.ts';

export interface Writer {
  readonly manager: string;
  readonly apiVersion: string;
  readonly subresource?: string;
  /** For writes that keep the status as it is, whatever they carry. */
  readonly disownsStatus?: boolean;
  /** RFC 3339. */
  readonly time: string;
}

// Fields that the server sets belong to nobody.
const UNOWNED: FieldSet = {
  'f:apiVersion': {},
  'f:kind': {},
  'f:metadata': {
    'f:name': {},
    'f:namespace': {},
    'f:uid': {},
    'f:resourceVersion': {},
    'f:generation': {},
    'f:creationTimestamp': {},
    'f:deletionTimestamp': {},
    'f:deletionGracePeriodSeconds': {},
    'f:selfLink': {},
    'f:managedFields': {},
    'f:generateName': {},
  },
};

const MAX_UPDATE_MANAGERS = 10;

/** The managers after an update, which owns what it changed. */
export function trackUpdate(before: KubeObject | undefined, after: KubeObject, node: SchemaNode, writer: Writer): ManagedFieldsEntry[] {
  const entries = after.metadata.managedFields ?? before?.metadata.managedFields ?? [];
  const { changed, removed } = compare(before ? withoutManagers(before) : {}, withoutManagers(after), node);
  const gained = ownable(writer.disownsStatus ? subtract(changed, { 'f:status': changed?.['f:status'] ?? {} }) : changed);
  const lost = ownable(removed);
  if (!gained && !lost) return entries;
  const others = entries.filter((entry) => !isBy(entry, 'Update', writer));
  const mine = entries.find((entry) => isBy(entry, 'Update', writer));
  const kept = others.flatMap((entry) => withFields(entry, subtract(subtract(fieldsIn(entry), gained), lost)));
  const owned = union(subtract(mine && fieldsIn(mine), lost), gained);
  return limited(owned ? [...kept, entryOf('Update', writer, owned)] : kept);
}

/**
 * Merges an applied configuration into the live object.
 * @throws {ApiError} Conflict naming the fields and their managers, unless forced
 */
export function applyConfiguration(
  live: KubeObject | undefined,
  config: KubeObject,
  node: SchemaNode,
  writer: Writer & { readonly force: boolean; readonly type: ResourceName },
): { object: KubeObject; managers: ManagedFieldsEntry[] } {
  const entries = live?.metadata.managedFields ?? [];
  const liveFields = live ? withoutManagers(live) : {};
  const configFields = withoutManagers(config);
  const merged = merge(liveFields, configFields, node);
  const set = ownable(fieldsOf(configFields, node));
  const { changed } = compare(liveFields, merged, node);
  const wanted = intersect(set, changed);

  const previous = entries.find((entry) => isBy(entry, 'Apply', writer));
  const others = entries.filter((entry) => entry !== previous);
  const conflicts = others.flatMap((entry) => {
    const fields = intersect(fieldsIn(entry), wanted);
    return fields ? [{ entry, fields }] : [];
  });
  if (!writer.force) {
    const allowed = writer.manager === 'kubectl' && live ? lastApplied(live, node) : undefined;
    const refused = conflicts.flatMap(({ entry, fields }) => {
      const rest = subtract(fields, allowed);
      return rest ? [{ entry, fields: rest }] : [];
    });
    if (refused.length > 0) throw conflictError(refused, config, writer.type);
  }
  const keptOf = (entry: ManagedFieldsEntry): ManagedFieldsEntry[] =>
    withFields(entry, subtract(fieldsIn(entry), conflicts.find((c) => c.entry === entry)?.fields));
  const kept = others.flatMap(keptOf);

  const othersOwn = kept.reduce<FieldSet | undefined>((all, entry) => union(all, fieldsIn(entry)), undefined);
  // Name and namespace are in every configuration; without them an apply that drops its last label would drop all of metadata.
  const pruned = prune(merged, previous && fieldsIn(previous), union(set, UNOWNED), othersOwn, node);
  const mine = set ? [entryOf('Apply', writer, set)] : [];
  // In its place of before: an apply that changes nothing must leave the object as it is.
  const managers = previous ? entries.flatMap((entry) => (entry === previous ? mine : keptOf(entry))) : [...kept, ...mine];
  return { object: (isObject(pruned) ? pruned : {}) as KubeObject, managers };
}

/** `config` over `live`: objects field by field, keyed lists element by element, anything else as a whole. */
export function merge(live: unknown, config: unknown, node: SchemaNode | undefined): unknown {
  if (isGranular(live, node) && isGranular(config, node)) {
    const result: JsonObject = { ...live };
    for (const [name, value] of Object.entries(config))
      result[name] = name in live ? merge(live[name], value, node?.field(name)) : cloneDeep(value);
    return result;
  }
  if (!Array.isArray(live) || !Array.isArray(config) || !node?.listKeys) return cloneDeep(config);
  return mergeElements(live, config, node);
}

/** Elements come as the configuration orders them; those that are live only stay behind the element that they followed. */
function mergeElements(live: readonly unknown[], config: readonly unknown[], node: SchemaNode): unknown[] {
  const items = node.items();
  const current = new Map(live.map((item) => [elementName(item, node), item]));
  const names: string[] = [];
  const elements = new Map<string, unknown>();
  for (const item of config) {
    const name = elementName(item, node);
    const known = current.get(name);
    if (!elements.has(name)) names.push(name);
    elements.set(name, known === undefined ? cloneDeep(item) : merge(known, item, items));
  }
  let previous = '';
  for (const [name, item] of current) {
    if (!elements.has(name)) {
      names.splice(names.indexOf(previous) + 1, 0, name);
      elements.set(name, item);
    }
    previous = name;
  }
  return names.map((name) => elements.get(name));
}

/**
 * What kubectl's client-side apply set and nobody changed since: its server-side apply may take these fields over without a conflict, which
 * is how an object moves from the one to the other.
 */
function lastApplied(live: KubeObject, node: SchemaNode): FieldSet | undefined {
  const text = live.metadata.annotations?.['kubectl.kubernetes.io/last-applied-configuration'];
  if (text === undefined) return undefined;
  let applied: unknown;
  try {
    applied = JSON.parse(text);
  } catch {
    // An annotation that somebody broke allows nothing.
    return undefined;
  }
  const { changed, removed } = compare(applied, withoutManagers(live), node);
  return subtract(subtract(fieldsOf(applied, node), changed), removed);
}

/** Takes out what the last apply set and this one does not, as far as nobody else owns it. */
function prune(
  value: unknown,
  last: FieldSet | undefined,
  next: FieldSet | undefined,
  others: FieldSet | undefined,
  node: SchemaNode | undefined,
): unknown {
  if (!last) return value;
  if (!next) return keepOwned(value, others, node);
  if (isGranular(value, node)) {
    const result: JsonObject = {};
    for (const [name, inner] of Object.entries(value)) {
      const element = `f:${name}`;
      const kept = prune(inner, last[element], next[element], others?.[element], node?.field(name));
      if (kept !== undefined) result[name] = kept;
    }
    return result;
  }
  if (!Array.isArray(value) || !node?.listKeys) return value;
  return value.flatMap((item) => {
    const element = elementName(item, node);
    const kept = prune(item, last[element], next[element], others?.[element], node.items());
    return kept === undefined ? [] : [kept];
  });
}

function keepOwned(value: unknown, owners: FieldSet | undefined, node: SchemaNode | undefined): unknown {
  if (!owners) return undefined;
  if (children(owners).length === 0) return value;
  if (isGranular(value, node)) {
    const result: JsonObject = {};
    for (const [name, inner] of Object.entries(value)) {
      const kept = keepOwned(inner, owners[`f:${name}`], node?.field(name));
      if (kept !== undefined) result[name] = kept;
    }
    return result;
  }
  if (!Array.isArray(value) || !node?.listKeys) return value;
  return value.filter((item) => owners[elementName(item, node)] !== undefined);
}

function conflictError(
  conflicts: readonly { entry: ManagedFieldsEntry; fields: FieldSet }[],
  config: KubeObject,
  type: ResourceName,
): ApiError {
  const causes = conflicts.flatMap(({ entry, fields }) =>
    paths(fields).map((field) => ({ reason: 'FieldManagerConflict', field, message: `conflict with ${describe(entry)}` })),
  );
  const groups = conflicts.map(({ entry, fields }) => {
    const list = paths(fields);
    return list.length === 1
      ? `conflict with ${describe(entry)}: ${list[0]}`
      : `conflicts with ${describe(entry)}:\n${list.map((path) => `- ${path}`).join('\n')}`;
  });
  const count = causes.length === 1 ? '1 conflict' : `${causes.length} conflicts`;
  return new ApiError(409, 'Conflict', `Apply failed with ${count}: ${groups.join('\n')}`, {
    name: config.metadata.name,
    ...(type.group ? { group: type.group } : {}),
    kind: type.plural,
    causes,
  });
}

const describe = ({ manager, operation, subresource, apiVersion }: ManagedFieldsEntry): string =>
  `"${manager}"${subresource ? ` with subresource "${subresource}"` : ''}${operation === 'Update' ? ` using ${apiVersion}` : ''}`;

const fieldsIn = (entry: ManagedFieldsEntry): FieldSet | undefined => entry.fieldsV1 as FieldSet | undefined;

const withFields = (entry: ManagedFieldsEntry, fields: FieldSet | undefined): ManagedFieldsEntry[] =>
  fields && Object.keys(fields).length > 0 ? [{ ...entry, fieldsV1: fields }] : [];

const isBy = (entry: ManagedFieldsEntry, operation: string, { manager, subresource }: Writer): boolean =>
  entry.manager === manager && entry.operation === operation && (entry.subresource ?? '') === (subresource ?? '');

const ownable = (set: FieldSet | undefined): FieldSet | undefined => {
  const rest = subtract(set, UNOWNED);
  return rest && Object.keys(rest).length > 0 ? rest : undefined;
};

function entryOf(
  operation: 'Apply' | 'Update',
  { manager, apiVersion, subresource, time }: Writer,
  fieldsV1: FieldSet,
): ManagedFieldsEntry {
  return { manager, operation, apiVersion, time, fieldsType: 'FieldsV1', fieldsV1, ...(subresource ? { subresource } : {}) };
}

/** The oldest updates are forgotten: their fields then belong to nobody, which only means that an apply takes them without a conflict. */
function limited(entries: ManagedFieldsEntry[]): ManagedFieldsEntry[] {
  let excess = entries.filter((entry) => entry.operation === 'Update').length - MAX_UPDATE_MANAGERS;
  return entries.filter((entry) => entry.operation !== 'Update' || excess-- <= 0);
}

function withoutManagers(object: KubeObject): JsonObject {
  const { managedFields: _, ...metadata } = object.metadata;
  return { ...object, metadata };
}
