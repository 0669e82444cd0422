/** JSON patch (RFC 6902) and JSON merge patch (RFC 7396). Both leave their input as it is. */
import { ApiError } from '../api-error.ts';
import { cloneDeep, equalDeep, isObject, type JsonObject } from '../json.ts';

const MAX_OPERATIONS = 10_000;

/** @throws {ApiError} 422 where a path does not exist or a test fails, 400 where the patch is malformed */
export function applyJsonPatch(target: unknown, patch: unknown): unknown {
  if (!Array.isArray(patch)) throw ApiError.badRequest('a JSON patch is an array of operations');
  if (patch.length > MAX_OPERATIONS)
    throw new ApiError(413, 'RequestEntityTooLarge', `a JSON patch has at most ${MAX_OPERATIONS} operations`);
  let document = cloneDeep(target);
  for (const operation of patch) {
    if (!isObject(operation) || typeof operation.op !== 'string' || typeof operation.path !== 'string') {
      throw ApiError.badRequest('each operation of a JSON patch has op and path');
    }
    document = applyOperation(document, operation, operation.op, operation.path);
  }
  return document;
}

export function applyMergePatch(target: unknown, patch: unknown): unknown {
  if (!isObject(patch)) return patch;
  const result: JsonObject = isObject(target) ? { ...target } : {};
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) delete result[name];
    else result[name] = applyMergePatch(result[name], value);
  }
  return result;
}

function applyOperation(document: unknown, operation: JsonObject, op: string, path: string): unknown {
  switch (op) {
    case 'add':
      return put(document, path, operation.value, 'add');
    case 'replace':
      read(document, path);
      return put(document, path, operation.value, 'replace');
    case 'remove':
      return remove(document, path);
    case 'move': {
      const from = String(operation.from ?? '');
      const value = read(document, from);
      return put(remove(document, from), path, value, 'add');
    }
    case 'copy':
      return put(document, path, cloneDeep(read(document, String(operation.from ?? ''))), 'add');
    case 'test':
      if (!equalDeep(read(document, path), operation.value)) throw refused(`testing path ${path}: value differs`);
      return document;
    default:
      throw ApiError.badRequest(`unknown operation "${op}" in a JSON patch`);
  }
}

const refused = (message: string): ApiError =>
  new ApiError(422, 'Invalid', `the server rejected our request due to an error in our request: ${message}`);

const segments = (path: string): string[] => {
  if (path === '') return [];
  if (!path.startsWith('/')) throw ApiError.badRequest(`"${path}" is no JSON pointer`);
  return path
    .slice(1)
    .split('/')
    .map((name) => name.replaceAll('~1', '/').replaceAll('~0', '~'));
};

function read(document: unknown, path: string): unknown {
  let current = document;
  for (const name of segments(path)) {
    const next = Array.isArray(current) ? current[Number(name)] : isObject(current) ? current[name] : undefined;
    if (next === undefined) throw refused(`path ${path} does not exist`);
    current = next;
  }
  return current;
}

function parentOf(document: unknown, path: string): { parent: JsonObject | unknown[]; name: string } {
  const names = segments(path);
  const name = names.pop() ?? '';
  const parent = read(document, names.map((part) => `/${part.replaceAll('~', '~0').replaceAll('/', '~1')}`).join(''));
  if (!Array.isArray(parent) && !isObject(parent)) throw refused(`path ${path} does not exist`);
  return { parent, name };
}

function put(document: unknown, path: string, value: unknown, op: 'add' | 'replace'): unknown {
  if (value === undefined) throw ApiError.badRequest(`operation ${op} on ${path} has no value`);
  if (path === '') return value;
  const { parent, name } = parentOf(document, path);
  if (!Array.isArray(parent)) parent[name] = value;
  else {
    const index = name === '-' ? parent.length : Number(name);
    if (!Number.isInteger(index) || index < 0 || index > parent.length) throw refused(`index ${name} is out of range in ${path}`);
    parent.splice(index, op === 'replace' ? 1 : 0, value);
  }
  return document;
}

function remove(document: unknown, path: string): unknown {
  read(document, path);
  const { parent, name } = parentOf(document, path);
  if (Array.isArray(parent)) parent.splice(Number(name), 1);
  else delete parent[name];
  return document;
}
