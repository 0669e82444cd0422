/**
 * The one form in which the API server keeps a type's structure: OpenAPI v3 as CustomResourceDefinitions write it, with Kubernetes' own
 * `x-` keys. Built-in kinds are loaded into it, so pruning, defaults, unknown-field errors, strategic merge, server-side apply and
 * `kubectl explain` need no second description.
 */

export interface Schema {
  /** Name of a definition in `Definitions` (not a JSON pointer; `openapi.ts` makes those). */
  $ref?: string;
  type?: 'object' | 'array' | 'string' | 'number' | 'integer' | 'boolean';
  format?: string;
  description?: string;
  enum?: unknown[];
  pattern?: string;
  default?: unknown;
  nullable?: boolean;
  properties?: Record<string, Schema>;
  required?: string[];
  additionalProperties?: Schema | boolean;
  items?: Schema;
  'x-kubernetes-int-or-string'?: boolean;
  'x-kubernetes-preserve-unknown-fields'?: boolean;
  'x-kubernetes-embedded-resource'?: boolean;
  'x-kubernetes-list-type'?: 'atomic' | 'set' | 'map';
  'x-kubernetes-list-map-keys'?: string[];
  'x-kubernetes-map-type'?: 'atomic' | 'granular';
  'x-kubernetes-patch-strategy'?: string;
  'x-kubernetes-patch-merge-key'?: string;
  'x-kubernetes-group-version-kind'?: { group: string; version: string; kind: string }[];
  /** Everything else of JSON schema (pattern, minimum, oneOf …) is left to the validator. */
  [keyword: string]: unknown;
}

export type Definitions = ReadonlyMap<string, Schema>;

const ANY_NAME = '*';

/** A schema with the definitions that its references point into. */
export class SchemaNode {
  readonly schema: Schema;
  readonly #definitions: Definitions;
  /** Nodes are walked for every object that is written, so each is made once. */
  readonly #fields = new Map<string, SchemaNode | undefined>();
  #items: SchemaNode | undefined;

  constructor(schema: Schema, definitions: Definitions) {
    let resolved = schema;
    for (let hops = 0; resolved.$ref !== undefined && hops < 8; hops++) {
      const target = definitions.get(resolved.$ref);
      if (!target) break;
      const { $ref: _, ...own } = resolved;
      resolved = Object.keys(own).length > 0 ? { ...target, ...own } : target;
    }
    this.schema = resolved;
    this.#definitions = definitions;
  }

  /** The node of an object's field; undefined where the schema does not know it. */
  field(name: string): SchemaNode | undefined {
    const known = this.#fields.get(name);
    if (known) return known;
    const property = this.schema.properties?.[name];
    const { additionalProperties } = this.schema;
    if (!property) {
      // One node for all names of a map, whose names are without number.
      if (typeof additionalProperties !== 'object') return undefined;
      return this.#node(ANY_NAME, additionalProperties);
    }
    return this.#node(name, property);
  }

  #node(name: string, schema: Schema): SchemaNode {
    let node = this.#fields.get(name);
    if (!node) {
      node = new SchemaNode(schema, this.#definitions);
      this.#fields.set(name, node);
    }
    return node;
  }

  items(): SchemaNode | undefined {
    if (!this.#items && this.schema.items) this.#items = new SchemaNode(this.schema.items, this.#definitions);
    return this.#items;
  }

  /** Whether fields that the schema does not name are kept. */
  get open(): boolean {
    const { schema } = this;
    if (schema['x-kubernetes-preserve-unknown-fields'] || schema.additionalProperties === true) return true;
    return schema.type === undefined && schema.properties === undefined && schema.additionalProperties === undefined;
  }

  get atomicMap(): boolean {
    return this.schema['x-kubernetes-map-type'] === 'atomic';
  }

  /** Key fields of an associative list; empty for a set; undefined for an atomic list. */
  get listKeys(): readonly string[] | undefined {
    if (this.schema['x-kubernetes-list-type'] === 'set') return [];
    if (this.schema['x-kubernetes-list-type'] === 'map') return this.schema['x-kubernetes-list-map-keys'] ?? [];
    return undefined;
  }
}
