/** Which requests a rule is for, as HTTPRoute and GRPCRoute write it. */
import { errorMessage } from '../../common/base/errors.ts';
import type { HttpMatch, PathMatch, ValueMatch } from '../../common/codec/gen/waypoint.ts';
import { compileRegex } from '../../common/decision/http-model.ts';
import { at, quote, records, text } from './objects.ts';

/** What a rule without matches stands for. */
export const EVERY_REQUEST: HttpMatch = { path: prefixPath('/'), method: '', headers: [], queryParams: [], withoutHeaders: [] };

/** @param problems takes why the match cannot be read; with any, it must not be used */
export function readHttpMatch(match: Record<string, unknown>, problems: string[]): HttpMatch {
  return {
    path: readPath(match.path, problems),
    method: text(match.method),
    headers: records(match.headers).map((item) => readValue(item, 'headers', problems)),
    queryParams: records(match.queryParams).map((item) => readValue(item, 'queryParams', problems)),
    withoutHeaders: [],
  };
}

/** Method and service are two segments of the path; one that is not named is any. */
export function readGrpcMatch(match: Record<string, unknown>, problems: string[]): HttpMatch {
  return {
    path: grpcPath(match.method, problems),
    method: '',
    headers: records(match.headers).map((item) => readValue(item, 'headers', problems)),
    queryParams: [],
    withoutHeaders: [],
  };
}

function prefixPath(value: string): PathMatch {
  return { type: { $case: 'prefix', value }, ignoreCase: false };
}

function readPath(path: unknown, problems: string[]): PathMatch {
  const value = text(at(path, 'value')) || '/';
  switch (at(path, 'type') ?? 'PathPrefix') {
    case 'Exact':
      return { type: { $case: 'exact', value }, ignoreCase: false };
    case 'RegularExpression':
      return regexPath(value, problems);
    case 'PathPrefix':
      return prefixPath(value);
    default:
      problems.push(`matches.path.type ${quote(at(path, 'type'))}`);
      return prefixPath(value);
  }
}

const ANY_SEGMENT = '[^/]+';

function grpcPath(method: unknown, problems: string[]): PathMatch {
  const [service, name] = [text(at(method, 'service')), text(at(method, 'method'))];
  const type = at(method, 'type') ?? 'Exact';
  if (service === '' && name === '') return prefixPath('/');
  if (type === 'RegularExpression') return regexPath(`/${service || ANY_SEGMENT}/${name || ANY_SEGMENT}`, problems);
  if (type !== 'Exact') problems.push(`matches.method.type ${quote(type)}`);
  if (name === '') return prefixPath(`/${service}`);
  if (service === '') return regexPath(`/${ANY_SEGMENT}/${escaped(name)}`, problems);
  return { type: { $case: 'exact', value: `/${service}/${name}` }, ignoreCase: false };
}

const escaped = (name: string): string => name.replace(/[.*+?^${}()|[\]\\/]/g, '\\$&');

function regexPath(value: string, problems: string[]): PathMatch {
  checkRegex(value, 'matches.path', problems);
  return { type: { $case: 'regex', value }, ignoreCase: false };
}

function readValue(item: Record<string, unknown>, field: 'headers' | 'queryParams', problems: string[]): ValueMatch {
  const value = text(item.value);
  // Names of headers have no case (RFC 9110 §5.1); those of query parameters have.
  const name = field === 'headers' ? text(item.name).toLowerCase() : text(item.name);
  const type = item.type ?? 'Exact';
  if (type === 'RegularExpression') {
    checkRegex(value, `matches.${field} ${name}`, problems);
    return { name, type: { $case: 'regex', value } };
  }
  if (type !== 'Exact') problems.push(`matches.${field}.type ${quote(type)}`);
  return { name, type: { $case: 'exact', value } };
}

/** A waypoint refuses a table with an expression that it cannot compile, and with it everybody else's routes. */
function checkRegex(value: string, where: string, problems: string[]): void {
  try {
    compileRegex(value, where);
  } catch (error) {
    problems.push(errorMessage(error));
  }
}
