/**
 * OpenAPI v3, one document for each group and version: paths enough for kubectl to know that field validation and apply patches are there,
 * and the schemas for `kubectl explain` and for the merge keys of client-side apply.
 */
import { randomUUID } from 'node:crypto';
import { isObject, type JsonObject } from '../json.ts';
import type { Registry, ResourceType } from '../registry.ts';
import type { Definitions, Schema } from '../schemas/schema.ts';

/** The types of OpenAPI v2 in protobuf that kubectl up to 1.30 asks for. */
export const OPENAPI_V2_TYPE = 'application/com.github.proto-openapi.spec.v2.v1.0+protobuf';

/**
 * A v2 document that describes nothing: older kubectl must be able to read one before it looks at v3, which has everything. Two fields of
 * the protobuf message: the version "2.0", and the title and version of what is described.
 */
export const EMPTY_OPENAPI_V2 = Buffer.concat([
  lengthPrefixed(0x0a, Buffer.from('2.0')),
  lengthPrefixed(0x12, Buffer.concat([lengthPrefixed(0x0a, Buffer.from('playground')), lengthPrefixed(0x12, Buffer.from('v1'))])),
]);

export class OpenApi {
  readonly #registry: Registry;
  readonly #definitions: Definitions;
  readonly #documents = new Map<string, string>();
  readonly #start = randomUUID();
  #changes = 0;

  constructor(registry: Registry, definitions: Definitions) {
    this.#registry = registry;
    this.#definitions = definitions;
    registry.onChange(() => {
      this.#changes++;
      this.#documents.clear();
    });
  }

  /** `/openapi/v3`: where the documents are. Their hash names this process and the registry's state: making them all to hash them takes long. */
  index(): object {
    const paths: JsonObject = {};
    for (const path of this.#groupVersions())
      paths[path] = { serverRelativeURL: `/openapi/v3/${path}?hash=${this.#start}-${this.#changes}` };
    return { paths };
  }

  /** @param path `api/v1` or `apis/GROUP/VERSION` */
  document(path: string): string | undefined {
    const known = this.#documents.get(path);
    if (known !== undefined) return known;
    const [root, first = '', second = ''] = path.split('/');
    const [group, version] = root === 'api' ? ['', first] : [first, second];
    const types = [...this.#registry.types].filter((type) => type.group === group && type.versions.some(({ name }) => name === version));
    if (types.length === 0) return undefined;
    const text = JSON.stringify(this.#build(group, version, types));
    this.#documents.set(path, text);
    return text;
  }

  #groupVersions(): string[] {
    const paths = new Set<string>();
    for (const type of this.#registry.types)
      for (const { name } of type.versions) paths.add(type.group ? `apis/${type.group}/${name}` : `api/${name}`);
    return [...paths].sort();
  }

  #build(group: string, version: string, types: readonly ResourceType[]): object {
    const paths: JsonObject = {};
    const schemas: Record<string, unknown> = {};
    const queue: string[] = [];
    for (const type of types) {
      const served = type.versions.find(({ name }) => name === version);
      if (!served) continue;
      const gvk = { group, version, kind: type.kind };
      const schemaName = `${group || 'core'}.${version}.${type.kind}`;
      schemas[schemaName] = { ...published(served.schema.schema, queue), 'x-kubernetes-group-version-kind': [gvk] };
      const root = `${group ? `/apis/${group}` : '/api'}/${version}${type.namespaced ? '/namespaces/{namespace}' : ''}/${type.plural}`;
      paths[root] = { get: operation('list', gvk, schemaName), post: operation('post', gvk, schemaName) };
      if (type.virtual) continue;
      paths[`${root}/{name}`] = {
        get: operation('get', gvk, schemaName),
        put: operation('put', gvk, schemaName),
        patch: operation('patch', gvk, schemaName, type.custom ? PATCH_TYPES.filter((each) => !each.includes('strategic')) : PATCH_TYPES),
        delete: operation('delete', gvk, schemaName),
      };
    }
    for (let name = queue.pop(); name !== undefined; name = queue.pop()) {
      const key = componentName(name);
      if (schemas[key] !== undefined) continue;
      schemas[key] = {};
      schemas[key] = published(this.#definitions.get(name) ?? {}, queue);
    }
    return { openapi: '3.0.0', info: { title: 'Warren playground', version: 'v1' }, paths, components: { schemas } };
  }
}

function lengthPrefixed(tag: number, bytes: Buffer): Buffer {
  return Buffer.concat([Buffer.from([tag, bytes.length]), bytes]);
}

const PARAMETERS: Readonly<Record<string, readonly string[]>> = {
  post: ['dryRun', 'fieldManager', 'fieldValidation'],
  put: ['dryRun', 'fieldManager', 'fieldValidation'],
  patch: ['dryRun', 'fieldManager', 'fieldValidation', 'force'],
};

const BODY_TYPES = ['application/json', 'application/yaml'];

const PATCH_TYPES = [
  'application/apply-patch+yaml',
  'application/json-patch+json',
  'application/merge-patch+json',
  'application/strategic-merge-patch+json',
];

function operation(action: string, gvk: object, schemaName: string, types: readonly string[] = BODY_TYPES): object {
  const body = { schema: { $ref: `#/components/schemas/${schemaName}` } };
  return {
    'x-kubernetes-action': action,
    'x-kubernetes-group-version-kind': gvk,
    parameters: (PARAMETERS[action] ?? []).map((name) => ({
      name,
      in: 'query',
      schema: { type: name === 'force' ? 'boolean' : 'string', uniqueItems: true },
    })),
    ...(PARAMETERS[action] ? { requestBody: { content: Object.fromEntries(types.map((type) => [type, body])) } } : {}),
    responses: { 200: { description: 'OK', content: { 'application/json': body } } },
  };
}

/** A schema with JSON pointers for references; `queue` gets the definitions that it needs. */
function published(schema: Schema, queue: string[]): object {
  const copy = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(copy);
    if (!isObject(value)) return value;
    const { $ref, ...rest } = value;
    const fields = Object.fromEntries(Object.entries(rest).map(([key, inner]) => [key, copy(inner)]));
    if (typeof $ref !== 'string') return fields;
    queue.push($ref);
    const pointer = { $ref: `#/components/schemas/${componentName($ref)}` };
    return Object.keys(fields).length > 0 ? { ...fields, allOf: [pointer] } : pointer;
  };
  return copy(schema) as object;
}

/** `V1PodSpec` as `v1.PodSpec`: kubectl shows what follows the last dot. */
const componentName = (definition: string): string =>
  definition
    .replace(
      /^([A-Z][a-z]+)?(V\d)([A-Z]\w*)$/,
      (_, group = '', version: string, name: string) => `${group ? `${group.toLowerCase()}.` : ''}${version.toLowerCase()}.${name}`,
    )
    .replaceAll(/[^\w.]+/g, '.')
    .replace(/^\.+/, '');
