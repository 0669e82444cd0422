/** Loads the generated schemas of the built-in kinds and adds what `annotations.ts` knows about them. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  ATOMIC_MAPS,
  DEFAULTS,
  MAP_LISTS,
  MERGE_KEYS,
  NEWER_FIELDS,
  NEWER_VALUES,
  PATTERNS,
  RETAIN_KEYS,
  SET_LISTS,
} from './annotations.ts';
import type { Definitions, Schema } from './schema.ts';

export function loadDefinitions(): Definitions {
  const definitions = new Map<string, Schema>();
  for (const file of ['kubernetes', 'gateway-api', 'istio']) {
    for (const line of readFileSync(join(import.meta.dirname, `${file}.jsonl`), 'utf8').split('\n')) {
      if (line === '') continue;
      const [name, schema] = JSON.parse(line) as [string, Schema];
      definitions.set(name, schema);
    }
  }
  addNewerFields(definitions);
  annotate(definitions);
  markQuantities(definitions);
  return definitions;
}

function addNewerFields(definitions: Map<string, Schema>): void {
  const additions = new Map<string, [string, string][]>();
  for (const [sibling, field = '', schema = ''] of rows(NEWER_FIELDS))
    additions.set(sibling, [...(additions.get(sibling) ?? []), [field, schema]]);
  const visit = (schema: Schema): void => {
    const { properties = {} } = schema;
    for (const [name, inner] of Object.entries(properties)) {
      visit(inner);
      // The package's validator knows which values there are; one that is newer must pass both.
      if (inner.enum?.includes('MERGE') && inner.enum.includes('INSERT_FIRST')) inner.enum.push(...NEWER_VALUES);
      for (const [field, added] of additions.get(name) ?? []) properties[field] ??= JSON.parse(added) as Schema;
    }
    if (schema.items) visit(schema.items);
    if (typeof schema.additionalProperties === 'object') visit(schema.additionalProperties);
  };
  for (const [type, schema] of definitions) {
    if (!type.includes('/')) continue;
    visit(schema);
    // Istio's definitions leave the status open.
    const status = schema.properties?.status;
    if (status && type.includes('.istio.io/')) status['x-kubernetes-preserve-unknown-fields'] = true;
  }
}

function annotate(definitions: Map<string, Schema>): void {
  for (const [path, ...keys] of rows(MAP_LISTS)) {
    const list = find(definitions, path);
    if (!list) continue;
    list['x-kubernetes-list-type'] = 'map';
    list['x-kubernetes-list-map-keys'] = keys;
    if (keys[0] !== undefined) list['x-kubernetes-patch-merge-key'] = keys[0];
    list['x-kubernetes-patch-strategy'] = 'merge';
  }
  for (const [path, key] of rows(MERGE_KEYS)) {
    const list = find(definitions, path);
    if (!list || key === undefined || key === '-') continue;
    list['x-kubernetes-patch-merge-key'] = key;
    list['x-kubernetes-patch-strategy'] = 'merge';
  }
  for (const path of SET_LISTS.split(/\s+/)) {
    const list = find(definitions, path);
    if (!list) continue;
    list['x-kubernetes-list-type'] = 'set';
    list['x-kubernetes-patch-strategy'] = 'merge';
  }
  for (const path of ATOMIC_MAPS.split(/\s+/)) {
    const map = find(definitions, path);
    if (map) map['x-kubernetes-map-type'] = 'atomic';
  }
  for (const path of RETAIN_KEYS.split(' ')) {
    const field = find(definitions, path);
    if (field) field['x-kubernetes-patch-strategy'] = field.type === 'array' ? 'merge,retainKeys' : 'retainKeys';
  }
  for (const row of PATTERNS.trim().split('\n')) {
    const space = row.indexOf(' ');
    const field = find(definitions, row.slice(0, space));
    if (field) field.pattern = row.slice(space + 1);
  }
  for (const row of DEFAULTS.trim().split('\n')) {
    const space = row.indexOf(' ');
    const field = find(definitions, row.slice(0, space));
    if (field) field.default = JSON.parse(row.slice(space + 1));
  }
}

// Fields of resource amounts, which manifests write as numbers as well as strings.
const QUANTITIES = new Set([
  'limits',
  'requests',
  'capacity',
  'allocatable',
  'hard',
  'used',
  'overhead',
  'sizeLimit',
  'divisor',
  'allocatedResources',
]);

function markQuantities(definitions: Map<string, Schema>): void {
  for (const [type, schema] of definitions) {
    if (type.includes('/')) continue;
    for (const [name, field] of Object.entries(schema.properties ?? {})) {
      if (QUANTITIES.has(name) && (field.type === 'string' || typeof field.additionalProperties === 'object')) field.format = 'quantity';
    }
  }
}

const rows = (table: string): [string, ...string[]][] =>
  table
    .trim()
    .split('\n')
    .map((row) => row.split(' ') as [string, ...string[]]);

/** `Type` or `Type.field`; type names of the models have dots and slashes before their last slash. */
function find(definitions: ReadonlyMap<string, Schema>, path: string): Schema | undefined {
  const dot = path.indexOf('.', path.lastIndexOf('/') + 1);
  if (dot < 0) return definitions.get(path);
  const fields = path.slice(dot + 1).split('.');
  return fields.reduce<Schema | undefined>((schema, field) => schema?.properties?.[field], definitions.get(path.slice(0, dot)));
}
