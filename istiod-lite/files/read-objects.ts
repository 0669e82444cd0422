/** Objects out of one YAML or JSON file: each document checked for kind and name, with the place of whatever is wrong. Pure. */
import yaml from 'js-yaml';
import { errorMessage } from '../../common/base/errors.ts';
import type { KubeObject } from '../../common/client/kube-api.ts';
import { at, isBounded, isRecord, text } from '../model/objects.ts';
import { allKinds, type WatchedKind } from '../model/watched-kinds.ts';

/** An object and the collection that it belongs to: `/api/v1/services`. */
export interface FileObject {
  readonly collection: string;
  readonly object: KubeObject;
}

export interface FileContents {
  readonly objects: readonly FileObject[];
  /** What is wrong, each with its place. Where there is any, the file as a whole is not to be used: half of a policy set is another one. */
  readonly problems: readonly string[];
}

// Aliases let a few lines of YAML stand for gigabytes.
const MAX_VALUES = 1_000_000;
const NAME = /^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/;

/** @param file for messages */
export function readObjects(file: string, content: string): FileContents {
  const objects: FileObject[] = [];
  const problems: string[] = [];
  let documents: unknown[] = [];
  try {
    documents = yaml.loadAll(content, undefined, { schema: yaml.CORE_SCHEMA, filename: file });
    if (!isBounded(documents, MAX_VALUES)) return { objects, problems: [`${file}: more than ${MAX_VALUES} values, aliases included`] };
  } catch (error) {
    return { objects, problems: [`${file}: ${errorMessage(error).split('\n')[0]}`] };
  }
  for (const [i, document] of documents.entries()) {
    if (document === null || document === undefined) continue;
    const items =
      at(document, 'kind') === 'List' && Array.isArray(at(document, 'items')) ? (at(document, 'items') as unknown[]) : [document];
    for (const item of items) {
      const read = readObject(item);
      if (typeof read === 'string') problems.push(`${file}, document ${i + 1}: ${read}`);
      else objects.push(read);
    }
  }
  return { objects, problems };
}

function readObject(value: unknown): FileObject | string {
  if (!isRecord(value)) return 'is no object';
  const [kind, apiVersion, name] = [text(value.kind), text(value.apiVersion), text(at(value, 'metadata', 'name'))];
  if (!NAME.test(name)) return `${kind || 'an object'} has no metadata.name, or one that no object can have: ${JSON.stringify(name)}`;
  const known: WatchedKind | undefined = Object.values(allKinds).find(
    (each) => each.kind === kind && groupOf(each.apiVersion) === groupOf(apiVersion),
  );
  if (!known) return `${kind} ${name} of ${apiVersion || 'no apiVersion'}: this kind is not read`;
  if (known.only !== undefined && known.only !== name) return `${kind} ${name}: only ${known.only} is read`;
  const namespace = text(at(value, 'metadata', 'namespace')) || (known.namespaced ? 'default' : '');
  const metadata = { ...(value.metadata as object), name, ...(known.namespaced && { namespace }) };
  return { collection: known.path, object: { ...value, apiVersion: known.apiVersion, kind, metadata } };
}

const groupOf = (apiVersion: string): string => (apiVersion.includes('/') ? (apiVersion.split('/')[0] ?? '') : '');
