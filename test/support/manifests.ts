/** Manifests of this checkout, given to the playground's store, which knows Kubernetes' schemas and refuses unknown fields when told to. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import yaml from 'js-yaml';
import type { KubeObject } from '../../playground/apiserver/object.ts';
import { apiStore, object } from './api-store.ts';

export const root: string = join(import.meta.dirname, '../..');

export function documentsOf(text: string): KubeObject[] {
  return yaml.loadAll(text).filter((each): each is KubeObject => typeof each === 'object' && each !== null);
}

export const manifest = (path: string): KubeObject[] => documentsOf(readFileSync(join(root, path), 'utf8'));

/** `Kind/namespace/name`. */
export const nameOf = ({ kind, metadata }: KubeObject): string => [kind, metadata.namespace, metadata.name].filter(Boolean).join('/');

/** One line for each object that the API server would refuse: a field that it does not know, or a value of the wrong kind. */
export function refusals(objects: readonly KubeObject[]): string[] {
  const { store } = apiStore();
  for (const namespace of new Set(objects.flatMap(({ metadata }) => metadata.namespace ?? [])))
    store.create(object('v1', 'Namespace', { name: namespace }));
  return objects.flatMap((each) => {
    if (each.kind === 'Namespace') return [];
    try {
      store.create(each, { dryRun: true, fieldValidation: 'Strict' });
      return [];
    } catch (error) {
      return [`${nameOf(each)}: ${error instanceof Error ? error.message : String(error)}`];
    }
  });
}
