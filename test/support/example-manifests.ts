/**
 * Manifests that other projects say must be accepted or refused, given to the playground's store. What only a CEL rule of the
 * CustomResourceDefinition refuses is told apart from what its schema refuses: the playground has no CEL, and says so.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join, relative } from 'node:path';
import yaml from 'js-yaml';
import { isObject } from '../../playground/apiserver/json.ts';
import type { KubeObject } from '../../playground/apiserver/object.ts';
import { customSchema } from '../../playground/apiserver/schemas/custom.ts';
import { loadDefinitions } from '../../playground/apiserver/schemas/definitions.ts';
import { conform, structuralCauses } from '../../playground/apiserver/schemas/structure.ts';
import { type CaseResult, type Cases, uniqueNames } from '../conformance/suite.ts';
import { apiStore, object } from './api-store.ts';

export interface Example {
  readonly name: string;
  readonly object: KubeObject;
  /** Whether it must be refused. */
  readonly invalid: boolean;
}

/** All objects of all manifests below a folder. `invalid` decides by the document, whose fields that start with `_` are the suite's own. */
export function examplesBelow(root: string, invalid: (document: Record<string, unknown>) => boolean): Example[] {
  const name = uniqueNames();
  return manifestsBelow(root).flatMap((file) =>
    documents(file).map((document) => {
      const fields = Object.fromEntries(Object.entries(document).filter(([field]) => !field.startsWith('_')));
      const each = fields as unknown as KubeObject;
      return {
        name: name(`${relative(root, file).replace(/\.ya?ml$/, '')}/${each.metadata?.name ?? each.kind}`),
        object: each,
        invalid: invalid(document),
      };
    }),
  );
}

/** @param crds folders or files with the definitions whose schemas say what is not CEL's matter */
export function* judge(examples: readonly Example[], cases: Cases, crds: readonly string[]): Generator<CaseResult> {
  const { store } = apiStore();
  const schemas = new Map<string, (object: KubeObject) => readonly unknown[]>();
  const alone = (each: KubeObject): boolean => {
    if (schemas.size === 0) for (const path of crds) addSchemas(schemas, cases.fixture(path));
    return (schemas.get(`${each.apiVersion}/${each.kind}`)?.(each) ?? []).length === 0;
  };
  for (const { name, object: each, invalid } of examples) {
    const { namespace } = each.metadata;
    if (namespace && !store.get('Namespace', namespace)) store.create(object('v1', 'Namespace', { name: namespace }));
    const refusal = each.kind === 'Namespace' ? '' : refusalOf(() => store.create(each, { dryRun: true, fieldValidation: 'Strict' }));
    if ((refusal !== '') === invalid) yield { case: name, verdict: 'pass', reason: '' };
    else if (!invalid) yield { case: name, verdict: 'fail', reason: `refused: ${refusal}` };
    else if (alone(each)) yield { case: name, verdict: 'skip', reason: 'only a CEL rule refuses it, and the playground has no CEL' };
    else yield { case: name, verdict: 'fail', reason: 'accepted, although the schema of its definition refuses it' };
  }
}

function refusalOf(create: () => void): string {
  try {
    create();
    return '';
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

function addSchemas(schemas: Map<string, (object: KubeObject) => readonly unknown[]>, path: string): void {
  const definitions = loadDefinitions();
  for (const file of manifestsBelow(path)) {
    for (const document of documents(file)) {
      const crd = document as {
        kind?: string;
        spec?: { group: string; names: { kind: string }; versions: { name: string; schema?: { openAPIV3Schema?: unknown } }[] };
      };
      if (crd.kind !== 'CustomResourceDefinition' || !crd.spec) continue;
      for (const version of crd.spec.versions) {
        const { schema, check } = customSchema(version.schema?.openAPIV3Schema, definitions);
        schemas.set(`${crd.spec.group}/${version.name}/${crd.spec.names.kind}`, (each) => {
          const { object: conformed, unknown, mismatches } = conform({ ...each }, schema);
          return [...unknown, ...mismatches, ...check(conformed as unknown as KubeObject), ...structuralCauses(conformed, schema)];
        });
      }
    }
  }
}

function manifestsBelow(path: string): string[] {
  if (statSync(path).isFile()) return [path];
  return readdirSync(path)
    .sort()
    .flatMap((name) => (statSync(join(path, name)).isDirectory() || /\.ya?ml$/.test(name) ? manifestsBelow(join(path, name)) : []));
}

/** Go's YAML reads an address that ends in `::` within brackets as text; ours needs quotes to. */
const quoteAddresses = (text: string): string => text.replace(/([[,]\s*)([0-9a-f:]+::)(?=\s*[\],])/g, '$1"$2"');

const documents = (file: string): Record<string, unknown>[] =>
  yaml
    .loadAll(quoteAddresses(readFileSync(file, 'utf8')), undefined, { schema: yaml.JSON_SCHEMA })
    .filter((each): each is Record<string, unknown> => isObject(each) && 'kind' in each);
