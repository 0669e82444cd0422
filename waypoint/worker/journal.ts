/**
 * What this worker's part of the decision journal is told of requests and connections: once for each, when it ends. What was judged is kept,
 * not what came or went: paths are normalized by then, and a route may change both afterwards.
 */
import { formatSocketAddress, parseSocketAddress } from '../../common/base/address.ts';
import type { ProxyError } from '../../common/base/errors.ts';
import { type Asked, claimKey, SECRET_HEADERS } from '../../common/decision/asked.ts';
import { claimValues } from '../../common/decision/claims.ts';
import { fieldValue } from '../../common/decision/http-route.ts';
import { type DecidedRequestFacts, type Decision, type Ending, type Journal, verdictOf } from '../../common/decision/journal.ts';
import type { VerifiedToken } from '../../common/decision/jwt.ts';
import type { RequestHead } from '../../common/http/types.ts';
import type { PickedEndpoint } from '../cluster/endpoint.ts';
import type { Connection, LatestRequest, RequestContext } from '../http/context.ts';
import type { Delivered } from '../http/deliver.ts';
import type { Configuration } from './configuration.ts';

/** Of a path, a header's value and the like; what is longer is not kept. */
const MAX_TEXT = 256;

export interface JournaledTcp {
  readonly connection: Connection;
  readonly endpoint: PickedEndpoint | undefined;
  readonly id: string;
  readonly policy: string | undefined;
  readonly error: ProxyError | undefined;
  readonly durationMs: number;
  readonly sent: number;
  readonly received: number;
}

export class WaypointJournal {
  readonly #journal: Journal;
  readonly #configuration: Pick<Configuration, 'askedOf'>;
  readonly #now: () => number;
  /** One for all: what is counted is copied out of it. */
  readonly #ending: { -readonly [F in keyof Ending]: Ending[F] } = {
    id: '',
    tunnel: '',
    nowMs: 0,
    durationMs: 0,
    endpoint: '',
    sent: 0,
    received: 0,
    status: 0,
    attempts: 0,
    message: '',
  };

  constructor(journal: Journal, configuration: Pick<Configuration, 'askedOf'>, now: () => number) {
    this.#journal = journal;
    this.#configuration = configuration;
    this.#now = now;
  }

  /** @param latest of the request's connection, where it had some before */
  request(request: RequestContext, delivered: Delivered, durationMs: number, latest?: LatestRequest): void {
    const { connection, error, endpoint, token } = request;
    const head = request.judged ?? request.head;
    const asked = this.#configuration.askedOf(connection.target.serviceKey);
    const policy = error?.policy ?? request.policy ?? '';
    const route = request.entry?.rule.name ?? '';
    const code = error?.code ?? '';
    const ending = this.#ending;
    ending.id = request.traceId;
    ending.tunnel = connection.id ?? '';
    ending.nowMs = this.#now();
    ending.durationMs = durationMs;
    ending.endpoint = endpointText(endpoint);
    ending.sent = request.body.bytes;
    ending.received = delivered.bytes;
    ending.status = error?.code === 'CLIENT_GONE' ? 0 : delivered.status;
    ending.attempts = request.attempts;
    ending.message = error?.message ?? '';
    const like = latest?.journaled;
    if (
      like &&
      like.asked === asked &&
      like.method === head.method &&
      like.authority === head.authority &&
      like.path === head.path &&
      like.code === code &&
      like.policy === policy &&
      like.route === route &&
      token === undefined &&
      this.#journal.countAgain(like.key, ending)
    )
      return;
    const { key, path } = this.#keyOf(request, head, asked, { code, policy, route });
    if (latest && path !== null && head.path.length <= MAX_TEXT && token === undefined && asked.headers.length + asked.query.length === 0)
      latest.journaled = { asked, method: head.method, authority: head.authority, path: head.path, code, policy, route, key };
    this.#journal.count(key, ending, () => ({
      ...endsOf(connection),
      at: 'request',
      request: requestFacts(head, path, token, asked),
      verdict: verdictOf(error?.code),
      code,
      policy,
      route,
    }));
  }

  /** Equal for equal decisions. @returns its path, too, null where that is not kept */
  #keyOf(
    { connection: { caller, target }, token }: RequestContext,
    head: RequestHead,
    asked: Asked,
    { code, policy, route }: { readonly code: string; readonly policy: string; readonly route: string },
  ): { readonly key: string; readonly path: string | null } {
    const end = head.path.indexOf('?');
    const path = end < 0 ? head.path : head.path.slice(0, end);
    let base = `${caller.address.ip} ${caller.principal} ${target.serviceKey ?? target.workload?.uid ?? ''} ${target.ip ?? ''} ${target.port} ${head.method} ${head.authority} ${code} ${policy} ${route}`;
    for (const name of asked.headers)
      if (!SECRET_HEADERS.has(name)) base += `\n${fieldValue(head.fields, name)?.slice(0, MAX_TEXT + 1) ?? '\0'}`;
    if (asked.query.length > 0) base += `\n${end < 0 ? '' : head.path.slice(end)}`;
    if (token) base += `\n${token.principal} ${asked.claims.length > 0 ? token.payload : ''}`;
    const key = `${base}\n${path}`;
    if (this.#journal.has(key) || (path.length <= MAX_TEXT && this.#journal.admitsPath(base))) return { key, path };
    return { key: base, path: null };
  }

  connection({ connection, endpoint, id, policy, error, durationMs, sent, received }: JournaledTcp): void {
    const decidedBy = error?.policy ?? policy ?? '';
    const key = tcpKey(connection, error?.code ?? '', decidedBy);
    const ending = this.#ending;
    ending.id = id;
    ending.tunnel = '';
    ending.nowMs = this.#now();
    ending.durationMs = durationMs;
    ending.endpoint = endpointText(endpoint);
    ending.sent = sent;
    ending.received = received;
    ending.status = 0;
    ending.attempts = 0;
    ending.message = error?.message ?? '';
    this.#journal.count(key, ending, () => ({
      ...endsOf(connection),
      at: 'connection',
      verdict: verdictOf(error?.code),
      code: error?.code ?? '',
      policy: decidedBy,
      route: '',
    }));
  }

  /** One that carries no HTTP and goes on. */
  running(connection: Connection, policy = ''): void {
    this.#journal.touch(tcpKey(connection, '', policy), this.#now(), () => ({
      ...endsOf(connection),
      at: 'connection',
      verdict: 'allowed',
      code: '',
      policy,
      route: '',
    }));
  }

  /** A tunnel that was refused before anybody knew what it was for. */
  tunnelRefused({
    source,
    authority,
    principal,
    error,
    id,
  }: {
    source: string;
    authority: string;
    principal: string;
    error: ProxyError;
    id: string;
  }): void {
    const ending = this.#ending;
    const from = parseSocketAddress(source);
    const to = parseSocketAddress(authority);
    ending.id = id;
    ending.tunnel = '';
    ending.nowMs = this.#now();
    ending.durationMs = ending.sent = ending.received = ending.status = ending.attempts = 0;
    ending.endpoint = '';
    ending.message = error.message;
    this.#journal.count(`tunnel ${from?.ip ?? ''} ${principal} ${authority} ${error.code}`, ending, () => ({
      at: 'connection',
      source: '',
      sourceIp: from?.ip ?? '',
      identity: principal,
      service: '',
      pod: '',
      uid: '',
      ip: to?.ip ?? authority.slice(0, MAX_TEXT),
      port: to?.port ?? 0,
      mutualTls: principal !== '',
      verdict: verdictOf(error.code),
      code: error.code,
      policy: error.policy ?? '',
      route: '',
    }));
  }
}

const tcpKey = ({ caller, target }: Connection, code: string, policy: string): string =>
  `tcp ${caller.address.ip} ${caller.principal} ${target.serviceKey ?? target.workload?.uid ?? ''} ${target.ip ?? ''} ${target.port} ${code} ${policy}`;

type Ends = Pick<Decision, 'source' | 'sourceIp' | 'identity' | 'service' | 'pod' | 'uid' | 'ip' | 'port' | 'mutualTls'>;

const endsOf = ({ caller, target }: Connection): Ends => ({
  source: caller.workload ? `${caller.workload.namespace}/${caller.workload.name}` : '',
  sourceIp: caller.address.ip,
  identity: caller.principal,
  service: target.serviceKey ?? '',
  pod: target.workload ? `${target.workload.namespace}/${target.workload.name}` : '',
  uid: target.workload?.uid ?? '',
  ip: target.ip ?? '',
  port: target.port,
  mutualTls: caller.principal !== '',
});

function endpointText(endpoint: PickedEndpoint | undefined): string {
  if (!endpoint) return '';
  const { workload, address } = endpoint;
  return workload.name === '' ? (address ? formatSocketAddress(address) : '') : `${workload.namespace}/${workload.name}`;
}

function requestFacts(head: RequestHead, path: string | null, token: VerifiedToken | undefined, asked: Asked): DecidedRequestFacts {
  const { claims, principal, audiences, presenter } = asked;
  const end = head.path.indexOf('?');
  const parameters = new URLSearchParams(end < 0 ? '' : head.path.slice(end + 1));
  return {
    method: head.method,
    host: head.authority.toLowerCase().slice(0, MAX_TEXT),
    path,
    headers: valuesOf(
      asked.headers.filter((name) => !SECRET_HEADERS.has(name)),
      (name) => fieldValue(head.fields, name) ?? null,
    ),
    query: valuesOf(asked.query, (name) => parameters.get(name)),
    ...(token && {
      token: {
        principal: principal ? token.principal : null,
        audiences: audiences ? token.audiences : null,
        presenter: presenter ? token.presenter : null,
        claims: Object.fromEntries(claims.map((names) => [claimKey(names), claimValues(token.claims, names)])),
      },
    }),
  };
}

const valuesOf = (names: readonly string[], value: (name: string) => string | null): Record<string, string | null> =>
  Object.fromEntries(
    names.flatMap((name) => {
      const said = value(name);
      return said !== null && said.length > MAX_TEXT ? [] : [[name, said] as const];
    }),
  );
