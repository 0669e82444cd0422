/** What somebody wants to rehearse: objects to apply and objects to delete, as they came with the question. */
import { isRecord, readMeta } from '../model/objects.ts';
import { type WatchedKindName, watchedKinds } from '../model/watched-kinds.ts';

export interface Candidate {
  readonly apply: readonly {
    readonly kind: WatchedKindName;
    readonly object: unknown;
    readonly namespace: string;
    readonly name: string;
  }[];
  readonly remove: readonly { readonly kind: WatchedKindName; readonly namespace: string; readonly name: string }[];
  readonly sinceMs: number;
}

/** The question is none; the message says what is wrong with it, and where. */
export class BadCandidate extends Error {}

const MAX_OBJECTS = 1000;

/** @param sight the one namespace that its objects may be of; undefined for any @throws {BadCandidate} */
export function readCandidate(body: unknown, sight: string | undefined): Candidate {
  if (!isRecord(body)) throw new BadCandidate('expected a JSON object with apply, remove and sinceMs');
  const apply = listOf(body.apply, 'apply').map((object, i) => {
    const at = `object ${i + 1}`;
    const meta = readMeta(object);
    if (!isRecord(object) || !meta) throw new BadCandidate(`${at} has no metadata.name`);
    const named = isRecord(object.metadata) && typeof object.metadata.namespace === 'string' ? object.metadata.namespace : '';
    return { ...placeOf(object.kind, { namespace: named, name: meta.name }, at, sight), object };
  });
  const remove = listOf(body.remove, 'remove').map((object, i) => {
    const at = `deletion ${i + 1}`;
    if (!isRecord(object) || typeof object.name !== 'string') throw new BadCandidate(`${at} names no object`);
    return placeOf(object.kind, { namespace: typeof object.namespace === 'string' ? object.namespace : '', name: object.name }, at, sight);
  });
  if (apply.length + remove.length === 0) throw new BadCandidate('there is nothing to apply and nothing to delete');
  return { apply, remove, sinceMs: typeof body.sinceMs === 'number' ? body.sinceMs : 0 };
}

function listOf(value: unknown, field: string): readonly unknown[] {
  if (value === undefined) return [];
  if (!Array.isArray(value)) throw new BadCandidate(`${field}: expected a list`);
  if (value.length > MAX_OBJECTS) throw new BadCandidate(`${field}: more than ${MAX_OBJECTS} objects`);
  return value;
}

function placeOf(kind: unknown, meta: { namespace: string; name: string }, at: string, sight: string | undefined) {
  if (typeof kind !== 'string' || !Object.hasOwn(watchedKinds, kind))
    throw new BadCandidate(`${at}: istiod makes nothing of kind ${String(kind).slice(0, 100)}`);
  const known = kind as WatchedKindName;
  const { namespace, name } = meta;
  if (watchedKinds[known].namespaced && namespace === '') throw new BadCandidate(`${at}: ${kind} ${name} has no metadata.namespace`);
  if (sight !== undefined && namespace !== sight)
    throw new BadCandidate(`${at}: ${kind} ${name} is not of namespace ${sight}, and you may rehearse only objects of that one`);
  return { kind: known, namespace, name };
}
