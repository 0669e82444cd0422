/**
 * Brings an object into the form of its schema: unknown fields are found and dropped, nulls dropped, types checked, defaults filled in.
 * Patterns, ranges and alternatives are the validators' matter, which run afterwards.
 */
import type { FieldCause } from '../api-error.ts';
import { cloneDeep, isObject, type JsonObject } from '../json.ts';
import { joinPath, shown } from './causes.ts';
import type { SchemaNode } from './schema.ts';

export interface Conformed {
  readonly object: JsonObject;
  /** Paths of fields that the schema does not know. */
  readonly unknown: readonly string[];
  /** `spec.replicas: expected integer, found "two"`. */
  readonly mismatches: readonly string[];
}

type Path = readonly (string | number)[];

const MAX_REPORTED = 20;

/** @param options defaults are left out for a server-side apply, which owns only what was written */
export function conform(object: JsonObject, node: SchemaNode, options: { readonly defaults: boolean } = { defaults: true }): Conformed {
  const unknown: string[] = [];
  const mismatches: string[] = [];

  const walk = (value: unknown, at: SchemaNode, path: Path): unknown => {
    const { schema } = at;
    if (schema['x-kubernetes-int-or-string']) {
      return typeof value === 'string' || typeof value === 'number' ? value : mismatch(value, 'integer or string', path);
    }
    switch (schema.type) {
      case 'object':
        return isObject(value) ? walkObject(value, at, path) : mismatch(value, 'object', path);
      case 'array': {
        if (!Array.isArray(value)) return mismatch(value, 'array', path);
        const items = at.items();
        return items ? value.map((item, i) => walk(item, items, [...path, i])) : value;
      }
      case 'string':
        return typeof value === 'string' ? value : mismatch(value, 'string', path);
      case 'boolean':
        return typeof value === 'boolean' ? value : mismatch(value, 'boolean', path);
      case 'integer':
        return Number.isInteger(value) ? value : mismatch(value, 'integer', path);
      case 'number':
        return typeof value === 'number' ? value : mismatch(value, 'number', path);
      default:
        return isObject(value) && !at.open ? walkObject(value, at, path) : value;
    }
  };

  const walkObject = (value: JsonObject, at: SchemaNode, path: Path): JsonObject => {
    const result: JsonObject = {};
    const quantities = at.schema.format === 'quantity';
    for (const [name, inner] of Object.entries(value)) {
      const field = at.field(name);
      if (!field) {
        if (at.open || isEmbedded(at, name)) result[name] = inner;
        else if (unknown.length < MAX_REPORTED) unknown.push(joinPath([...path, name]));
        continue;
      }
      if (inner === null) {
        if (field.schema.nullable) result[name] = null;
        continue;
      }
      // Quantities are strings that manifests often write as numbers.
      const readable = typeof inner === 'number' && (quantities || field.schema.format === 'quantity') ? String(inner) : inner;
      const walked = walk(readable, field, [...path, name]);
      if (walked !== undefined) result[name] = walked;
    }
    if (!options.defaults) return result;
    for (const [name, property] of Object.entries(at.schema.properties ?? {})) {
      const { default: fallback } = property;
      if (fallback === undefined || result[name] !== undefined) continue;
      const field = at.field(name);
      result[name] = field ? walk(cloneDeep(fallback), field, [...path, name]) : cloneDeep(fallback);
    }
    return result;
  };

  const mismatch = (value: unknown, expected: string, path: Path): undefined => {
    if (mismatches.length < MAX_REPORTED) mismatches.push(`${joinPath(path)}: expected ${expected}, found ${shown(value)}`);
    return undefined;
  };

  return { object: walkObject(object, node, []), unknown, mismatches };
}

/**
 * What a type's own validator may not see: elements of keyed lists and sets that are there twice, and values outside the sets and patterns
 * that `annotations.ts` adds.
 */
export function structuralCauses(object: JsonObject, node: SchemaNode): FieldCause[] {
  const causes: FieldCause[] = [];
  const walk = (value: unknown, at: SchemaNode | undefined, path: Path): void => {
    if (!at) return;
    if (Array.isArray(value)) {
      const items = at.items();
      const keys = at.listKeys;
      const seen = new Set<string>();
      value.forEach((item, i) => {
        const element = keys?.length === 0 ? item : isObject(item) ? Object.fromEntries((keys ?? []).map((key) => [key, item[key]])) : item;
        const name = JSON.stringify(element);
        if (keys && seen.has(name))
          causes.push({ field: joinPath([...path, i]), reason: 'FieldValueDuplicate', message: `Duplicate value: ${name}` });
        seen.add(name);
        walk(item, items, [...path, i]);
      });
    } else if (isObject(value)) {
      for (const [name, inner] of Object.entries(value)) walk(inner, at.field(name), [...path, name]);
    } else if (typeof value === 'string') {
      const { enum: allowed, pattern } = at.schema;
      const field = joinPath(path);
      if (allowed && !allowed.includes(value)) {
        const list = allowed.map((item) => JSON.stringify(item)).join(', ');
        causes.push({ field, reason: 'FieldValueNotSupported', message: `Unsupported value: ${shown(value)}: supported values: ${list}` });
      } else if (pattern !== undefined && !matches(pattern, value)) {
        causes.push({ field, reason: 'FieldValueInvalid', message: `Invalid value: ${shown(value)}: must match '${pattern}'` });
      }
    }
  };
  // What the object is has been decided; stored in one version and checked in another, it would not match.
  const { apiVersion: _a, kind: _k, ...rest } = object;
  walk(rest, node, []);
  return causes;
}

const patterns = new Map<string, RegExp>();

function matches(pattern: string, value: string): boolean {
  let compiled = patterns.get(pattern);
  if (!compiled) {
    compiled = new RegExp(pattern);
    patterns.set(pattern, compiled);
  }
  return compiled.test(value);
}

/** Required fields that are absent or empty, as Kubernetes reports them for its own kinds. Status is the controllers' and is not looked at. */
export function missingFields(object: JsonObject, node: SchemaNode): FieldCause[] {
  const causes: FieldCause[] = [];
  const walk = (value: unknown, at: SchemaNode, path: Path): void => {
    if (Array.isArray(value)) {
      const items = at.items();
      if (items) value.forEach((item, i) => void walk(item, items, [...path, i]));
      return;
    }
    if (!isObject(value)) return;
    for (const name of at.schema.required ?? []) {
      const inner = value[name];
      const empty =
        inner === undefined || inner === null || inner === '' || (Array.isArray(inner) && inner.length === 0 && name === 'containers');
      if (empty) causes.push({ field: joinPath([...path, name]), reason: 'FieldValueRequired', message: 'Required value' });
    }
    for (const [name, inner] of Object.entries(value)) {
      if (path.length === 0 && (name === 'status' || name === 'metadata')) continue;
      const field = at.field(name);
      if (field) walk(inner, field, [...path, name]);
    }
  };
  walk(object, node, []);
  return causes;
}

const isEmbedded = (at: SchemaNode, name: string): boolean =>
  at.schema['x-kubernetes-embedded-resource'] === true && (name === 'apiVersion' || name === 'kind' || name === 'metadata');
