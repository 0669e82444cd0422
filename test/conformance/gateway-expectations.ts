/** What a case for gateways expects of an answer, compared with what came back: as the upstream suite compares, and what it only declares besides. */
import type { GatewayAnswer } from '../support/gateway-client.ts';

export interface GatewayExpectation {
  readonly statusCodes?: readonly number[];
  readonly grpcCode?: number;
  readonly backend?: string;
  readonly namespace?: string;
  readonly backendRequest?: {
    readonly method?: string;
    readonly path?: string;
    readonly host?: string;
    readonly headersPresent?: Readonly<Record<string, string>>;
    readonly headersAbsent?: readonly string[];
    readonly fullyQualifiedMethod?: string;
  };
  readonly headersPresent?: Readonly<Record<string, string>>;
  readonly headersAbsent?: readonly string[];
  readonly headersOneOf?: Readonly<Record<string, readonly string[]>>;
  readonly ignoreWhitespaceInHeaderValues?: boolean;
  readonly redirect?: Redirect;
  readonly weights?: Readonly<Record<string, number>>;
  readonly sampling?: { readonly requests: number; readonly toleranceAbs: number; readonly maxAttempts: number };
  readonly repeat?: number;
  readonly backendEqualsRequestHeader?: string;
  readonly mirroredTo?: readonly { readonly backend: string; readonly namespace: string; readonly percent?: number }[];
  readonly mirrorSampling?: { readonly requests: number; readonly rounds: number; readonly toleranceStdDevs: number };
  readonly echoFrames?: boolean;
}

interface Redirect {
  readonly scheme?: string | null;
  readonly host?: string | null;
  readonly port?: string | null;
  readonly path?: string | null;
}

/** What the backend says that it was asked. */
export interface Seen {
  readonly method: string;
  readonly path: string;
  readonly host: string;
  readonly namespace: string;
  readonly pod: string;
  /** Names in lower case. */
  readonly headers: ReadonlyMap<string, string>;
}

/** @param asked path and query as they were sent. @returns what is wrong, or undefined */
export function problemOf(answer: GatewayAnswer, expect: GatewayExpectation, asked: string): string | undefined {
  if (answer.error !== '') return answer.error;
  if (expect.echoFrames) return answer.body === '2' ? undefined : `${answer.body} frames came back, expected 2`;
  if (expect.grpcCode !== undefined) return grpcProblem(answer, expect);
  const wanted = expect.statusCodes ?? [200];
  const timeouts = [408, 504];
  const accepted = wanted.some((code) => timeouts.includes(code)) ? [...wanted, ...timeouts] : wanted;
  if (!accepted.includes(answer.status)) return `status ${answer.status}, expected ${wanted.join(' or ')}`;
  const headers = new Map(Object.entries(answer.headers));
  return (
    headersProblem('response', headers, expect) ??
    oneOfProblem(headers, expect) ??
    (expect.redirect ? redirectProblem(headers.get('location') ?? '', expect.redirect) : undefined) ??
    ([200, 204].includes(answer.status) ? seenProblem(seenBy(answer), expect, asked) : undefined)
  );
}

/** undefined where the answer is none of the backend's. */
export function seenBy(answer: GatewayAnswer): Seen | undefined {
  if (answer.grpcCode >= 0) return answer.body === '' ? undefined : grpcSeen(Buffer.from(answer.body, 'base64'));
  if (answer.headers['content-type'] !== 'application/json') return undefined;
  const { method, path, host, namespace, pod, headers } = JSON.parse(answer.body) as Omit<Seen, 'headers'> & {
    readonly headers: Readonly<Record<string, readonly string[]>>;
  };
  const fields = Object.entries(headers).map(([name, values]): [string, string] => [name.toLowerCase(), values.join(',')]);
  return { method, path, host, namespace, pod, headers: new Map(fields) };
}

/** Name of the backend, of a pod's `BACKEND-HASH-HASH`. */
export const backendOf = (pod: string): string => pod.split('-').slice(0, -2).join('-');

function grpcProblem(answer: GatewayAnswer, expect: GatewayExpectation): string | undefined {
  if (answer.grpcCode !== expect.grpcCode) return `code ${answer.grpcCode}, expected ${expect.grpcCode}`;
  if (expect.grpcCode !== 0) return undefined;
  const seen = seenBy(answer);
  if (!seen) return 'an answer without a message';
  const method = expect.backendRequest?.fullyQualifiedMethod;
  if (method !== undefined && seen.path !== method) return `the backend was asked for ${seen.path}, expected ${method}`;
  // Headers that are declared beside are not compared: the manifest has two rules for one method, of which the second would have to make them.
  return backendProblem(seen, expect);
}

function seenProblem(seen: Seen | undefined, expect: GatewayExpectation, asked: string): string | undefined {
  const { backendRequest, namespace } = expect;
  // A preflight is the proxy's to answer.
  if (backendRequest?.path === '' && namespace === '') return seen ? `answered by ${seen.pod}` : undefined;
  if (!backendRequest) return undefined;
  if (!seen) return 'the answer is none of the backend';
  if (backendRequest.method !== undefined && seen.method !== backendRequest.method)
    return `the backend was asked with ${seen.method}, expected ${backendRequest.method}`;
  // What was added to the query is part of what is asked.
  const path = asked.includes('?') && !backendRequest.path?.includes('?') ? seen.path.split('?')[0] : seen.path;
  const expected = backendRequest.path?.includes('?') ? asked : backendRequest.path;
  if (expected !== undefined && path !== expected) return `the backend was asked for ${path}, expected ${expected}`;
  if (backendRequest.host !== undefined && seen.host !== backendRequest.host)
    return `the backend was asked as ${seen.host}, expected ${backendRequest.host}`;
  return backendProblem(seen, expect) ?? headersProblem('request', seen.headers, backendRequest);
}

function backendProblem(seen: Seen, { backend, namespace }: GatewayExpectation): string | undefined {
  if (backend !== undefined && !seen.pod.startsWith(backend)) return `answered by ${seen.pod}, expected ${backend}`;
  return namespace === undefined || seen.namespace === namespace ? undefined : `answered in ${seen.namespace}, expected ${namespace}`;
}

function headersProblem(
  where: string,
  headers: ReadonlyMap<string, string>,
  { headersPresent = {}, headersAbsent = [] }: Pick<GatewayExpectation, 'headersPresent' | 'headersAbsent'>,
): string | undefined {
  for (const [name, value] of Object.entries(headersPresent)) {
    const got = headers.get(name.toLowerCase());
    if (got?.replaceAll(', ', ',') !== value.replaceAll(', ', ','))
      return `${where} header ${name} is ${got ?? 'absent'}, expected ${value}`;
  }
  const unwanted = headersAbsent.find((name) => headers.has(name.toLowerCase()));
  return unwanted === undefined ? undefined : `${where} header ${unwanted} is there`;
}

function oneOfProblem(
  headers: ReadonlyMap<string, string>,
  { headersOneOf = {}, ignoreWhitespaceInHeaderValues = false }: GatewayExpectation,
): string | undefined {
  const plain = (value: string): string => (ignoreWhitespaceInHeaderValues ? value.replaceAll(' ', '') : value);
  for (const [name, values] of Object.entries(headersOneOf)) {
    const got = headers.get(name.toLowerCase());
    if (got === undefined || !values.some((value) => plain(value) === plain(got)))
      return `response header ${name} is ${got ?? 'absent'}, expected one of ${values.join(' | ')}`;
  }
  return undefined;
}

const DEFAULT_PORTS: Readonly<Record<string, string>> = { 'http:': '80', 'https:': '443' };

function redirectProblem(location: string, { scheme, host, port, path }: Redirect): string | undefined {
  const url = URL.parse(location);
  if (!url) return `Location ${JSON.stringify(location)} is no URL`;
  const complaint = (what: string, got: string, wanted: string): string => `Location ${location} has ${what} ${got}, expected ${wanted}`;
  if (scheme && url.protocol !== `${scheme}:`) return complaint('scheme', url.protocol, scheme);
  if (host && url.hostname !== host) return complaint('host', url.hostname, host);
  if (path && url.pathname !== path) return complaint('path', url.pathname, path);
  const written = url.port || DEFAULT_PORTS[url.protocol];
  const wanted = port ?? DEFAULT_PORTS[url.protocol];
  return written === wanted ? undefined : complaint('port', written ?? 'none', wanted ?? 'none');
}

/** EchoResponse of grpcecho.proto: its assertions. */
function grpcSeen(message: Buffer): Seen {
  const assertions = fieldsOf(fieldsOf(message).get(1)?.[0] ?? Buffer.alloc(0));
  const text = (found: Buffer | undefined): string => (found ?? Buffer.alloc(0)).toString();
  const context = fieldsOf(assertions.get(4)?.[0] ?? Buffer.alloc(0));
  const headers = new Map<string, string>();
  for (const header of (assertions.get(2) ?? []).map(fieldsOf)) {
    const name = text(header.get(1)?.[0]).toLowerCase();
    const known = headers.get(name);
    const value = text(header.get(2)?.[0]);
    headers.set(name, known === undefined ? value : `${known},${value}`);
  }
  return {
    method: 'POST',
    path: text(assertions.get(1)?.[0]),
    host: text(assertions.get(3)?.[0]),
    namespace: text(context.get(1)?.[0]),
    pod: text(context.get(4)?.[0]),
    headers,
  };
}

/** Of a protobuf message that has fields of bytes only. */
function fieldsOf(message: Buffer): Map<number, Buffer[]> {
  const found = new Map<number, Buffer[]>();
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = message[at++] ?? 0;
      value += (byte & 127) * 2 ** shift;
      if (byte < 128) return value;
    }
  };
  while (at < message.length) {
    const number = varint() >>> 3;
    const length = varint();
    found.set(number, [...(found.get(number) ?? []), message.subarray(at, at + length)]);
    at += length;
  }
  return found;
}
