/** From a CustomResourceDefinition's `openAPIV3Schema` to a served version: its structure for pruning and merging, ajv for everything else. */
import { createRequire } from 'node:module';
import type { Ajv, ValidateFunction } from 'ajv';
import type { FormatsPlugin } from 'ajv-formats';
import type { FieldCause } from '../api-error.ts';
import { isObject, type JsonObject } from '../json.ts';
import type { KubeObject } from '../object.ts';
import { type SchemaError, schemaCauses } from './causes.ts';
import { type Definitions, type Schema, SchemaNode } from './schema.ts';

const require = createRequire(import.meta.url);

export interface CustomSchema {
  readonly schema: SchemaNode;
  readonly check: (object: KubeObject) => readonly FieldCause[];
}

/** Metadata, apiVersion and kind are Kubernetes' own, whatever the definition says of them. */
export function customSchema(openApi: unknown, definitions: Definitions): CustomSchema {
  const root: Schema = isObject(openApi) ? (openApi as Schema) : { type: 'object', 'x-kubernetes-preserve-unknown-fields': true };
  const schema: Schema = {
    ...root,
    type: 'object',
    properties: { ...root.properties, apiVersion: { type: 'string' }, kind: { type: 'string' }, metadata: { $ref: 'V1ObjectMeta' } },
  };
  let validate: ValidateFunction | undefined;
  return {
    schema: new SchemaNode(schema, definitions),
    check(object) {
      validate ??= compile(root);
      const { metadata: _, ...rest } = object;
      return validate(rest) ? [] : schemaCauses((validate.errors ?? []) as SchemaError[], object);
    },
  };
}

/**
 * What is wrong with a schema, as `path: why`; the first few. Looked at when a definition is stored, since compiling a large one takes ajv
 * seconds: that waits for the first object.
 */
export function schemaProblems(openApi: unknown, path = ''): string[] {
  if (!isObject(openApi)) return [`${path || 'schema'}: expected an object`];
  const problems: string[] = [];
  const { type, pattern, $ref } = openApi;
  if ($ref !== undefined) problems.push(`${path}.$ref: is not supported`);
  if (type !== undefined && !TYPES.has(String(type))) problems.push(`${path}.type: ${JSON.stringify(type)} is no type`);
  if (typeof pattern === 'string' && !isPattern(pattern))
    problems.push(`${path}.pattern: ${JSON.stringify(pattern)} is no regular expression`);
  for (const [key, value] of Object.entries(openApi)) {
    const at = `${path}.${key}`;
    if (SCHEMA_MAPS.has(key) && isObject(value))
      problems.push(...Object.entries(value).flatMap(([name, inner]) => schemaProblems(inner, `${at}.${name}`)));
    else if (SUBSCHEMAS.has(key) && isObject(value)) problems.push(...schemaProblems(value, at));
    else if (SCHEMA_LISTS.has(key) && Array.isArray(value))
      problems.push(...value.flatMap((inner, i) => schemaProblems(inner, `${at}[${i}]`)));
    if (problems.length >= MAX_PROBLEMS) break;
  }
  return problems.slice(0, MAX_PROBLEMS);
}

const MAX_PROBLEMS = 5;
const TYPES = new Set(['object', 'array', 'string', 'integer', 'number', 'boolean']);

function isPattern(text: string): boolean {
  try {
    new RegExp(text);
    return true;
  } catch {
    // The engine's message is about JavaScript; ours names the field.
    return false;
  }
}

function compile(openApi: unknown): ValidateFunction {
  // Loaded with the first object of a custom type: most runs have none.
  const { Ajv: Construct } = require('ajv') as { Ajv: typeof Ajv };
  const { default: addFormats } = require('ajv-formats') as { default: FormatsPlugin };
  const ajv = new Construct({ allErrors: true, strict: false, logger: false, unicodeRegExp: false, validateSchema: false });
  addFormats(ajv);
  const schema = forAjv(openApi);
  if (isObject(schema) && isObject(schema.properties)) {
    const { metadata: _, ...properties } = schema.properties;
    schema.properties = properties;
    if (Array.isArray(schema.required)) schema.required = schema.required.filter((name) => name !== 'metadata');
  }
  return ajv.compile(isObject(schema) ? schema : {});
}

const SUBSCHEMAS = new Set(['items', 'additionalProperties', 'not']);
const SCHEMA_LISTS = new Set(['allOf', 'anyOf', 'oneOf']);
const SCHEMA_MAPS = new Set(['properties', 'patternProperties', 'definitions']);
const DROPPED = new Set(['default', 'description', 'example', 'externalDocs', 'title', '$schema', 'id']);

function forAjv(schema: unknown): unknown {
  if (!isObject(schema)) return schema;
  const result: JsonObject = {};
  for (const [key, value] of Object.entries(schema)) {
    if (DROPPED.has(key) || key.startsWith('x-kubernetes-')) continue;
    if (SUBSCHEMAS.has(key)) result[key] = forAjv(value);
    else if (SCHEMA_LISTS.has(key) && Array.isArray(value)) result[key] = value.map(forAjv);
    else if (SCHEMA_MAPS.has(key) && isObject(value))
      result[key] = Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, forAjv(inner)]));
    else result[key] = value;
  }
  // In draft 4 these are flags beside the limit.
  for (const [flag, limit] of [
    ['exclusiveMinimum', 'minimum'],
    ['exclusiveMaximum', 'maximum'],
  ] as const) {
    if (typeof result[flag] !== 'boolean') continue;
    if (result[flag]) {
      result[flag] = result[limit];
      delete result[limit];
    } else delete result[flag];
  }
  if (schema['x-kubernetes-int-or-string']) {
    delete result.type;
    result.anyOf ??= [{ type: 'integer' }, { type: 'string' }];
  }
  if (result.nullable && result.type === undefined) delete result.nullable;
  return result;
}
