/**
 * Servers that a CUSTOM policy asks (Envoy's ext_authz, in Istio's words): whom, how, and what of a request they are told, compiled once. And
 * what becomes of a request by their answer.
 */
import type { Authorizer, AuthorizerBody, BackendRef, TextMatch } from '../codec/gen/waypoint.ts';
import type { TextTest } from './text-test.ts';

export interface CompiledAuthorizer {
  readonly name: string;
  readonly to: BackendRef;
  readonly timeoutMs: number;
  readonly failOpen: boolean;
  readonly statusOnError: number;
  readonly grpc: boolean;
  readonly pathPrefix: string;
  readonly includes: readonly TextTest[];
  /** Flat. */
  readonly additional: readonly string[];
  readonly body: AuthorizerBody | undefined;
  readonly toUpstreamOnAllow: readonly TextTest[];
  readonly toDownstreamOnDeny: readonly TextTest[];
  readonly toDownstreamOnAllow: readonly TextTest[];
}

const FORBIDDEN = 403;

/** @param tests compiles matches of text @throws {Error} for a match without a value */
export function compileAuthorizer(authorizer: Authorizer, tests: (matches: readonly TextMatch[]) => TextTest[]): CompiledAuthorizer {
  const { name, to, timeoutMs, failOpen, statusOnError, grpc, pathPrefix, body } = authorizer;
  if (!to) throw new Error(`authorizer ${name}: nobody to ask`);
  return {
    name,
    to,
    timeoutMs,
    failOpen,
    statusOnError: statusOnError || FORBIDDEN,
    grpc,
    pathPrefix,
    includes: tests(authorizer.includeHeaders),
    additional: authorizer.additionalHeaders.flatMap((header) => [header.name.toLowerCase(), header.value]),
    body,
    toUpstreamOnAllow: tests(authorizer.toUpstreamOnAllow),
    toDownstreamOnDeny: tests(authorizer.toDownstreamOnDeny),
    toDownstreamOnAllow: tests(authorizer.toDownstreamOnAllow),
  };
}

/** @param name in lower case, as the tests are */
export const namesField = (tests: readonly TextTest[], name: string): boolean =>
  tests.some((test) => {
    if ('exact' in test) return test.exact === name;
    if ('prefix' in test) return name.startsWith(test.prefix);
    return 'suffix' in test ? name.endsWith(test.suffix) : 'presence' in test;
  });

/** One change of a field that an answer asks for. */
export interface FieldChange {
  readonly name: string;
  readonly value: string;
  readonly how: 'set' | 'append' | 'if-absent' | 'if-present';
}

export type CheckVerdict =
  | {
      readonly at: 'allowed';
      /** Of the request. */
      readonly changes: readonly FieldChange[];
      readonly remove: readonly string[];
      readonly query: { readonly set: readonly (readonly [string, string])[]; readonly remove: readonly string[] } | undefined;
      /** Of the response. */
      readonly responseChanges: readonly FieldChange[];
    }
  /** What the client gets. Fields are flat. */
  | { readonly at: 'denied'; readonly status: number; readonly fields: readonly string[]; readonly body: string }
  | { readonly at: 'failed'; readonly reason: string };

const FIELD_NAME = /^[!#$%&'*+.^_`|~0-9a-z-]+$/;
/** What says where a message ends, or where it goes, is not for an authorization server to change. */
const FRAMING: ReadonlySet<string> = new Set([
  'host',
  'content-length',
  'transfer-encoding',
  'connection',
  'keep-alive',
  'proxy-connection',
  'te',
  'trailer',
  'upgrade',
]);

/** Whether a field may be taken from an answer. */
export const mayChange = (name: string, value: string): boolean =>
  FIELD_NAME.test(name) && !FRAMING.has(name) && !name.startsWith('x-warren-') && !/[\0\r\n]/.test(value);

/** The fields as they are after the changes; flat, names in lower case. */
export function changedFields(fields: readonly string[], changes: readonly FieldChange[], remove: readonly string[] = []): string[] {
  const gone = new Set([...remove, ...changes.flatMap(({ name, how }) => (how === 'set' ? [name] : []))]);
  const present = new Set(fields.filter((_, i) => i % 2 === 0));
  const replaced = new Set(changes.flatMap(({ name, how }) => (how === 'if-present' && present.has(name) ? [name] : [])));
  const kept: string[] = [];
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i] ?? '';
    if (!gone.has(name) && !replaced.has(name)) kept.push(name, fields[i + 1] ?? '');
  }
  for (const { name, value, how } of changes) {
    if (how === 'if-absent' && present.has(name)) continue;
    if (how === 'if-present' && !present.has(name)) continue;
    kept.push(name, value);
  }
  return kept;
}

/** The path after changes of its query. */
export function changedQuery(
  path: string,
  change: { readonly set: readonly (readonly [string, string])[]; readonly remove: readonly string[] },
): string {
  const at = path.indexOf('?');
  const params = new URLSearchParams(at < 0 ? '' : path.slice(at + 1));
  for (const name of change.remove) params.delete(name);
  for (const [name, value] of change.set) params.set(name, value);
  const query = params.toString();
  const bare = at < 0 ? path : path.slice(0, at);
  return query === '' ? bare : `${bare}?${query}`;
}
