/** Objects out of a file of YAML or JSON, each with the line on which it begins. Pure. */
import yaml from 'js-yaml';
import { errorMessage } from '../../common/base/errors.ts';
import { at, isRecord, text } from '../../istiod-lite/model/objects.ts';

export interface Document {
  readonly value: Readonly<Record<string, unknown>>;
  readonly line: number;
}

export interface Documents {
  readonly documents: readonly Document[];
  /** What could not be read, each with its place. */
  readonly problems: readonly string[];
}

// Aliases let a few lines of YAML stand for gigabytes.
const MAX_VALUES = 1_000_000;

/** @param file for messages */
export function readDocuments(file: string, content: string): Documents {
  const documents: Document[] = [];
  const problems: string[] = [];
  for (const { line, source } of split(content)) {
    const place = `${file}:${line}`;
    let value: unknown;
    try {
      value = yaml.load(source, { schema: yaml.CORE_SCHEMA });
    } catch (error) {
      problems.push(`${place}: ${errorMessage(error).split('\n')[0]}`);
      continue;
    }
    if (value === null || value === undefined) continue;
    if (!isBounded(value)) {
      problems.push(`${place}: more than ${MAX_VALUES} values, aliases included`);
      continue;
    }
    const isList = text(at(value, 'kind')).endsWith('List') && Array.isArray(at(value, 'items'));
    for (const item of isList ? (at(value, 'items') as unknown[]) : [value]) {
      // It says what a folder is made of, and is nothing that a cluster has.
      if (text(at(item, 'kind')) === 'Kustomization') continue;
      const problem = problemOf(item);
      if (problem !== undefined) problems.push(`${place}: ${problem}`);
      else if (isRecord(item)) documents.push({ value: item, line });
    }
  }
  return { documents, problems };
}

function problemOf(value: unknown): string | undefined {
  if (!isRecord(value)) return 'is no object of Kubernetes';
  if (text(value.kind) === '' || text(value.apiVersion) === '') return 'is no object of Kubernetes: it has no kind and apiVersion';
  const name = text(at(value, 'metadata', 'name'));
  // Of something that gets its name when it is made nothing can be said.
  return name === '' && text(at(value, 'metadata', 'generateName')) === '' ? `${value.kind} without metadata.name` : undefined;
}

/** The documents of a file, each with its first line that says something. */
function* split(content: string): Generator<{ readonly line: number; readonly source: string }> {
  const lines = content.split(/\r?\n/);
  let from = 0;
  for (let at = 0; at <= lines.length; at++) {
    const isEnd = at === lines.length || /^---(?:\s|$)/.test(lines[at] ?? '');
    if (!isEnd) continue;
    // An object may begin behind the dashes.
    const own = lines.slice(from, at).map((line, i) => (i === 0 ? line.replace(/^---(?=\s|$)/, '   ') : line));
    const first = own.findIndex((line) => /^\s*[^\s#%]/.test(line));
    if (first >= 0) yield { line: from + first + 1, source: own.join('\n') };
    from = at;
  }
}

function isBounded(value: unknown): boolean {
  let left = MAX_VALUES;
  const walk = (item: unknown): void => {
    if (--left < 0 || typeof item !== 'object' || item === null) return;
    for (const each of Object.values(item)) {
      if (left < 0) return;
      walk(each);
    }
  };
  walk(value);
  return left >= 0;
}
