/**
 * The two forms in which a request is told to an authorization server, and its answers read: a message of envoy.service.auth.v3 over gRPC, and
 * plain HTTP, where the question is a copy of the request's head and the answer's status decides. Pure.
 */
import { errorMessage } from '../../common/base/errors.ts';
import { formatSpiffeId } from '../../common/base/spiffe.ts';
import { CheckRequest, CheckResponse, HeaderAppendAction, type HeaderValueOption } from '../../common/codec/gen/ext-authz.ts';
import { type CheckVerdict, type CompiledAuthorizer, type FieldChange, mayChange, namesField } from '../../common/decision/authorizer.ts';
import { fieldValue } from '../../common/decision/http-route.ts';
import type { Fields, RequestHead, ResponseHead } from '../../common/http/types.ts';
import type { Connection } from './context.ts';

/** The request as it is told. */
export interface Asked {
  readonly head: RequestHead;
  readonly connection: Connection;
  readonly requestId: string;
  /** Milliseconds since 1970. */
  readonly startedAt: number;
  /** The beginning of its body; undefined where it is not told. */
  readonly body: Buffer | undefined;
}

export interface Question {
  readonly head: RequestHead;
  readonly body: Buffer;
}

/** An answer, whole. */
export interface Answered {
  readonly head: ResponseHead;
  readonly body: Buffer;
  readonly trailers: Fields;
}

const CHECK = '/envoy.service.auth.v3.Authorization/Check';
const PREFIX_BYTES = 5;

export function grpcQuestion(authorizer: CompiledAuthorizer, asked: Asked): Question {
  const message = CheckRequest.encode(checkRequest(authorizer, asked)).finish();
  const body = Buffer.alloc(PREFIX_BYTES + message.length);
  body.writeUInt32BE(message.length, 1);
  body.set(message, PREFIX_BYTES);
  const timeout = authorizer.timeoutMs > 0 ? ['grpc-timeout', grpcTimeout(authorizer.timeoutMs)] : [];
  const fields = ['content-type', 'application/grpc', 'te', 'trailers', ...timeout, ...traceOf(asked), ...authorizer.additional];
  return { head: questionHead(authorizer, 'POST', CHECK, authorizer.to.hostname, fields, body.length, '2'), body };
}

/** At most eight digits (gRPC over HTTP/2, "Timeout"). */
const grpcTimeout = (ms: number): string => (ms < 100_000_000 ? `${ms}m` : `${Math.floor(ms / 1000)}S`);

const traceOf = ({ head }: Asked): string[] => {
  const trace = fieldValue(head.fields, 'traceparent');
  return trace === undefined ? [] : ['traceparent', trace];
};

function checkRequest(authorizer: CompiledAuthorizer, { head, connection, requestId, startedAt, body }: Asked): CheckRequest {
  const { caller, target, local } = connection;
  const address = (ip: string, port: number) => ({ socketAddress: { address: ip, portValue: port } });
  const headers: Record<string, string> = {};
  for (let i = 0; i < head.fields.length; i += 2) {
    const name = head.fields[i] ?? '';
    if (authorizer.includes.length > 0 && !namesField(authorizer.includes, name)) continue;
    headers[name] = Object.hasOwn(headers, name) ? `${headers[name]},${head.fields[i + 1]}` : (head.fields[i + 1] ?? '');
  }
  headers[':method'] = head.method;
  headers[':path'] = head.path;
  headers[':authority'] = head.authority;
  headers[':scheme'] = head.scheme;
  const packed = authorizer.body?.packAsBytes === true;
  return {
    attributes: {
      source: {
        address: address(caller.address.ip, caller.address.port),
        service: caller.workload?.canonicalName ?? caller.baggage?.canonicalName ?? '',
        labels: {},
        principal: caller.identity ? formatSpiffeId(caller.identity) : '',
      },
      destination: {
        address: address(target.ip ?? local.ip, target.port),
        service: target.service?.hostname ?? '',
        labels: {},
        principal: '',
      },
      request: {
        time: new Date(startedAt),
        http: {
          id: requestId,
          method: head.method,
          headers,
          path: head.path,
          host: head.authority,
          scheme: head.scheme,
          size: BigInt(head.bodyBytes ?? -1),
          protocol: head.version === '2' ? 'HTTP/2' : `HTTP/${head.version}`,
          body: packed || !body ? '' : body.toString(),
          rawBody: packed && body ? body : new Uint8Array(),
        },
      },
      contextExtensions: {},
    },
  };
}

export function grpcVerdict({ head, body, trailers }: Answered): CheckVerdict {
  const failed = (reason: string): CheckVerdict => ({ at: 'failed', reason });
  if (head.status !== 200) return failed(`HTTP status ${head.status}`);
  const status = fieldValue(trailers, 'grpc-status') ?? fieldValue(head.fields, 'grpc-status');
  if (status !== '0') {
    const said = fieldValue(trailers, 'grpc-message') ?? fieldValue(head.fields, 'grpc-message') ?? '';
    return failed(`gRPC status ${status ?? 'missing'}${said === '' ? '' : `: ${said.slice(0, 200)}`}`);
  }
  if (body.length < PREFIX_BYTES || body[0] !== 0 || body.readUInt32BE(1) !== body.length - PREFIX_BYTES)
    return failed('not one gRPC message');
  try {
    return checkVerdict(CheckResponse.decode(body.subarray(PREFIX_BYTES)));
  } catch (error) {
    return failed(`an answer that cannot be read: ${errorMessage(error)}`);
  }
}

const FORBIDDEN = 403;

function checkVerdict({ status, httpResponse }: CheckResponse): CheckVerdict {
  const code = status?.code ?? 0;
  if (httpResponse?.$case === 'errorResponse')
    return { at: 'failed', reason: `an error of its own: ${httpResponse.value.body.slice(0, 200)}` };
  if (code !== 0) {
    const denied = httpResponse?.$case === 'deniedResponse' ? httpResponse.value : undefined;
    const given = denied?.status?.code ?? 0;
    return {
      at: 'denied',
      status: given >= 200 && given <= 599 ? given : FORBIDDEN,
      fields: changesOf(denied?.headers ?? [], 'set').flatMap(({ name, value }) => [name, value]),
      body: denied?.body ?? '',
    };
  }
  const ok = httpResponse?.$case === 'okResponse' ? httpResponse.value : undefined;
  const query = ok && ok.queryParametersToSet.length + ok.queryParametersToRemove.length > 0;
  return {
    at: 'allowed',
    changes: changesOf(ok?.headers ?? [], 'set'),
    remove: (ok?.headersToRemove ?? []).map((name) => name.toLowerCase()).filter((name) => mayChange(name, '')),
    query: query
      ? { set: ok.queryParametersToSet.map(({ key, value }) => [key, value] as const), remove: ok.queryParametersToRemove }
      : undefined,
    responseChanges: changesOf(ok?.responseHeadersToAdd ?? [], 'append'),
  };
}

const ACTIONS: Readonly<Record<number, FieldChange['how']>> = {
  [HeaderAppendAction.ADD_IF_ABSENT]: 'if-absent',
  [HeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD]: 'set',
  [HeaderAppendAction.OVERWRITE_IF_EXISTS]: 'if-present',
};

/** @param usual what an option means that says nothing (Envoy: a request's fields are replaced, a response's are added) */
function changesOf(options: readonly HeaderValueOption[], usual: 'set' | 'append'): FieldChange[] {
  return options.flatMap(({ header, append, appendAction }): FieldChange[] => {
    const name = header?.key.toLowerCase() ?? '';
    const value = header && header.rawValue.length > 0 ? Buffer.from(header.rawValue).toString('latin1') : (header?.value ?? '');
    if (!mayChange(name, value)) return [];
    const how = append === undefined ? (ACTIONS[appendAction] ?? usual) : append ? 'append' : 'set';
    return [{ name, value, how }];
  });
}

/** Told without being asked for. */
const ALWAYS: ReadonlySet<string> = new Set(['authorization', 'traceparent', 'x-envoy-auth-partial-body']);

export function httpQuestion(authorizer: CompiledAuthorizer, { head, body }: Asked): Question {
  const fields: string[] = [];
  const own = new Set(authorizer.additional.filter((_, i) => i % 2 === 0));
  for (let i = 0; i < head.fields.length; i += 2) {
    const name = head.fields[i] ?? '';
    if (!own.has(name) && (ALWAYS.has(name) || namesField(authorizer.includes, name))) fields.push(name, head.fields[i + 1] ?? '');
  }
  fields.push(...authorizer.additional);
  const bytes = body ?? Buffer.alloc(0);
  const bare = withoutLength(fields);
  return {
    head: questionHead(authorizer, head.method, `${authorizer.pathPrefix}${head.path}`, head.authority, bare, bytes.length, '1.1'),
    body: bytes,
  };
}

/** The length is that of the question. */
function withoutLength(fields: readonly string[]): string[] {
  const kept: string[] = [];
  for (let i = 0; i < fields.length; i += 2) if (fields[i] !== 'content-length') kept.push(fields[i] ?? '', fields[i + 1] ?? '');
  return kept;
}

const SERVER_ERROR = 500;

/** 200 lets pass, 5xx is the server's own failure, and everything else is the client's answer. */
export function httpVerdict(authorizer: CompiledAuthorizer, { head, body }: Answered): CheckVerdict {
  const { status, fields } = head;
  if (status >= SERVER_ERROR) return { at: 'failed', reason: `HTTP status ${status}` };
  const chosen = (wanted: (name: string) => boolean, how: FieldChange['how']): FieldChange[] => {
    const changes: FieldChange[] = [];
    for (let i = 0; i < fields.length; i += 2) {
      const [name = '', value = ''] = [fields[i], fields[i + 1]];
      if (wanted(name) && mayChange(name, value)) changes.push({ name, value, how });
    }
    return changes;
  };
  if (status === 200) {
    return {
      at: 'allowed',
      changes: chosen((name) => namesField(authorizer.toUpstreamOnAllow, name), 'set'),
      remove: [],
      query: undefined,
      responseChanges: chosen((name) => namesField(authorizer.toDownstreamOnAllow, name), 'append'),
    };
  }
  const { toDownstreamOnDeny: names } = authorizer;
  const told = chosen((name) => names.length === 0 || name === 'content-type' || namesField(names, name), 'set');
  return { at: 'denied', status, fields: told.flatMap(({ name, value }) => [name, value]), body: body.toString() };
}

const questionHead = (
  { grpc }: CompiledAuthorizer,
  method: string,
  path: string,
  authority: string,
  fields: Fields,
  bodyBytes: number,
  version: '1.1' | '2',
): RequestHead => ({ version: grpc ? '2' : version, method, scheme: 'http', authority, path, fields, bodyBytes, upgrade: undefined });
