/** The types that the API server serves: built-in ones from the start, CustomResourceDefinitions as they come and go. */
import type { FieldCause } from './api-error.ts';
import type { KubeObject } from './object.ts';
import type { SchemaNode } from './schemas/schema.ts';

export interface PrinterColumn {
  readonly name: string;
  readonly type: string;
  readonly jsonPath: string;
  readonly description?: string;
  readonly format?: string;
  /** Above 0: shown with `-o wide` only. */
  readonly priority?: number;
}

export interface ServedVersion {
  readonly name: string;
  readonly schema: SchemaNode;
  /** Columns of `kubectl get` after the name; the built-in tables of `tables/` where they are not given. */
  readonly columns?: readonly PrinterColumn[];
  /** Everything that the structure does not say: patterns, ranges, alternatives. */
  readonly check?: (object: KubeObject) => readonly FieldCause[];
}

export interface ScalePaths {
  readonly specReplicasPath: string;
  readonly statusReplicasPath: string;
  readonly labelSelectorPath?: string;
}

export interface ResourceType {
  /** '' for the core group. */
  readonly group: string;
  readonly kind: string;
  readonly plural: string;
  readonly singular: string;
  readonly shortNames: readonly string[];
  readonly categories: readonly string[];
  readonly namespaced: boolean;
  /** The preferred one first. There is no conversion: all of them show the same fields. */
  readonly versions: readonly ServedVersion[];
  readonly storageVersion: string;
  /** Whether `status` is written through its own subresource. */
  readonly status: boolean;
  readonly scale?: ScalePaths;
  /** Defined by a CustomResourceDefinition on a real cluster: no strategic merge patches. */
  readonly custom?: boolean;
  /** Accepts POST and keeps nothing, such as TokenReview. */
  readonly virtual?: boolean;
}

export const apiVersionOf = (group: string, version: string): string => (group ? `${group}/${version}` : version);

export function splitApiVersion(apiVersion: string): { group: string; version: string } {
  const slash = apiVersion.indexOf('/');
  return slash < 0 ? { group: '', version: apiVersion } : { group: apiVersion.slice(0, slash), version: apiVersion.slice(slash + 1) };
}

export class Registry {
  readonly #byPlural = new Map<string, ResourceType>();
  readonly #byKind = new Map<string, ResourceType>();
  readonly #listeners = new Set<() => void>();

  constructor(builtIn: readonly ResourceType[]) {
    for (const type of builtIn) this.#add(type);
  }

  get types(): Iterable<ResourceType> {
    return this.#byPlural.values();
  }

  byPlural(group: string, plural: string): ResourceType | undefined {
    return this.#byPlural.get(`${group}/${plural}`);
  }

  byKind(group: string, kind: string): ResourceType | undefined {
    return this.#byKind.get(`${kind}.${group}`);
  }

  /** `Pod`, `Deployment`, or `Gateway.networking.istio.io` where several groups have the kind. The first registered one wins otherwise. */
  find(reference: string): ResourceType | undefined {
    const exact = this.#byKind.get(reference) ?? this.#byKind.get(`${reference}.`);
    if (exact || reference.includes('.')) return exact;
    for (const type of this.#byPlural.values()) if (type.kind === reference) return type;
    return undefined;
  }

  /** Replaces a type of the same group and plural. */
  register(type: ResourceType): void {
    this.#add(type);
    this.#changed();
  }

  unregister(group: string, plural: string): void {
    const key = `${group}/${plural}`;
    const type = this.#byPlural.get(key);
    if (!type) return;
    this.#byPlural.delete(key);
    this.#byKind.delete(`${type.kind}.${group}`);
    this.#changed();
  }

  /** Calls `listener` after each change of what is served. */
  onChange(listener: () => void): void {
    this.#listeners.add(listener);
  }

  #add(type: ResourceType): void {
    this.#byPlural.set(`${type.group}/${type.plural}`, type);
    this.#byKind.set(`${type.kind}.${type.group}`, type);
  }

  #changed(): void {
    for (const listener of this.#listeners) listener();
  }
}
