/**
 * Reading Kubernetes objects that anybody may have written. Nothing here throws: what has the wrong type reads as absent, and whoever
 * needs it says so to the object's report.
 */

export type Labels = Readonly<Record<string, string>>;

/**
 * Takes a sentence about the object that is being read.
 * @param weight `mild` where the object does all the same what it was written for: a word too many, or nothing that anybody relies on
 */
export type Report = (message: string, weight?: 'mild') => void;

export interface ObjectMeta {
  /** Empty for objects of the cluster. */
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly labels: Labels;
  readonly annotations: Labels;
  /** RFC 3339 as the API server wrote it, so that text order is time order; empty where it is missing. */
  readonly createdAt: string;
  readonly generation: number;
}

const NONE: Labels = Object.freeze({});

/** @returns undefined where there is no name, without which an object cannot be anything */
export function readMeta(object: unknown): ObjectMeta | undefined {
  const meta = at(object, 'metadata');
  const name = text(at(meta, 'name'));
  if (name === '') return undefined;
  return {
    namespace: text(at(meta, 'namespace')),
    name,
    uid: text(at(meta, 'uid')),
    labels: textMap(at(meta, 'labels')),
    annotations: textMap(at(meta, 'annotations')),
    createdAt: text(at(meta, 'creationTimestamp')),
    generation: whole(at(meta, 'generation')) ?? 0,
  };
}

/** `namespace/name`, or `name` alone for objects of the cluster. */
export const objectKey = ({ namespace, name }: { namespace: string; name: string }): string =>
  namespace === '' ? name : `${namespace}/${name}`;

export const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** The value at the end of a path of field names; undefined as soon as one is missing. */
export function at(value: unknown, ...path: readonly string[]): unknown {
  let here = value;
  for (const field of path) {
    if (!isRecord(here) || !Object.hasOwn(here, field)) return undefined;
    here = here[field];
  }
  return here;
}

export const text = (value: unknown): string => (typeof value === 'string' ? value : '');

export const list = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : []);

export const records = (value: unknown): readonly Record<string, unknown>[] => list(value).filter(isRecord);

export const texts = (value: unknown): readonly string[] => list(value).filter((item) => typeof item === 'string');

export const whole = (value: unknown): number | undefined => (typeof value === 'number' && Number.isSafeInteger(value) ? value : undefined);

/** A port as objects write it: a number, or the same in digits. */
export function portOf(value: unknown): number | undefined {
  const number = typeof value === 'string' && /^\d{1,5}$/.test(value) ? Number(value) : whole(value);
  return number !== undefined && number >= 1 && number <= 65535 ? number : undefined;
}

/** The map itself where every value is text, else a copy without the others. */
export function textMap(value: unknown): Labels {
  if (!isRecord(value)) return NONE;
  const entries = Object.entries(value);
  if (entries.length === 0) return NONE;
  const good = entries.filter((entry): entry is [string, string] => typeof entry[1] === 'string');
  return good.length === entries.length ? (value as Labels) : Object.fromEntries(good);
}

/**
 * Labels to select by. With some of its pairs missing a selector would pick more than its author wrote, so it is read whole or not at all.
 * @returns undefined where there is none, 'unreadable' (and a report) where it has values that are no text
 */
export function selectorLabels(value: unknown, field: string, report: Report): Labels | 'unreadable' | undefined {
  if (value === undefined || value === null) return undefined;
  const labels = textMap(value);
  if (isRecord(value) && Object.keys(labels).length === Object.keys(value).length) return labels;
  report(`${field}: ${quote(value)} is no map of labels`);
  return 'unreadable';
}

/** The given keys only, so that a kept slice does not keep `last-applied-configuration` alive. */
export function pick(labels: Labels, keys: readonly string[]): Labels {
  const found = keys.filter((key) => Object.hasOwn(labels, key));
  return found.length === 0 ? NONE : Object.fromEntries(found.map((key) => [key, labels[key] ?? '']));
}

/** A value in a sentence about it, however long it is. */
export function quote(value: unknown): string {
  const written = JSON.stringify(value) ?? 'nothing';
  return written.length > 80 ? `${written.slice(0, 77)}...` : written;
}

/** Booleans in annotations, with the spellings of Go's strconv.ParseBool, which Istio uses for them. */
export function annotationFlag(value: string | undefined): boolean | undefined {
  if (value === undefined) return undefined;
  if (['1', 't', 'T', 'TRUE', 'true', 'True'].includes(value)) return true;
  return ['0', 'f', 'F', 'FALSE', 'false', 'False'].includes(value) ? false : undefined;
}

/** Whether a value that was read from YAML has no more parts than this; aliases let a few lines stand for gigabytes, and each counts as what it stands for. */
export function isBounded(value: unknown, most: number): boolean {
  // Not by recursion: an alias may lead back to where it stands.
  const waiting: unknown[] = [value];
  for (let left = most; waiting.length > 0; left--) {
    if (left <= 0 || waiting.length > most) return false;
    const item = waiting.pop();
    if (typeof item === 'object' && item !== null) for (const each of Object.values(item)) waiting.push(each);
  }
  return true;
}
