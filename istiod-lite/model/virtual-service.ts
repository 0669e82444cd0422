/**
 * VirtualService (networking.istio.io/v1) → the mesh's reading of it: rules in their order, whose destinations are still names. What cannot be
 * done is kept beside the rule: such a rule answers 500, and the object's status says why (decision 8).
 */
import { parseCidr } from '../../common/base/address.ts';
import type { Cors, DirectAnswer, Fault, HeaderChange, PathChange, Redirect, Retry, Rewrite } from '../../common/codec/gen/waypoint.ts';
import { RedirectPort } from '../../common/codec/gen/waypoint.ts';
import { isRetryCondition } from '../../common/decision/http-rule.ts';
import type { MeshModelConfig } from './config.ts';
import { checkRegex, exportsOf, fullHost, optionalDurationMs, type Problems, perMillion, stringMatch } from './istio-values.ts';
import {
  at,
  isRecord,
  type Labels,
  objectKey,
  portOf,
  quote,
  type Report,
  readMeta,
  records,
  text,
  textMap,
  texts,
  whole,
} from './objects.ts';
import { ANY_REQUEST, readSource, readVirtualMatch, type VirtualMatch } from './virtual-service-match.ts';

export interface VirtualService {
  readonly key: string;
  readonly namespace: string;
  readonly name: string;
  readonly createdAt: string;
  readonly generation: number;
  /** As they are meant; `*.example.com` stands for all below. None: it is a delegate of others. */
  readonly hosts: readonly string[];
  readonly exportTo: readonly string[];
  /** Whether it is for the mesh, and not for gateways alone. */
  readonly mesh: boolean;
  readonly http: readonly VirtualRule[];
  readonly connections: readonly VirtualConnection[];
}

export interface VirtualRule {
  /** `VirtualService shop/web rule 0`, or with the rule's own name. */
  readonly name: string;
  readonly matches: readonly VirtualMatch[];
  readonly delegate: string | undefined;
  readonly requestHeaders: HeaderChange | undefined;
  readonly responseHeaders: HeaderChange | undefined;
  readonly redirect: Redirect | undefined;
  readonly directAnswer: DirectAnswer | undefined;
  readonly rewrite: Rewrite | undefined;
  readonly timeoutMs: number;
  readonly perTryTimeoutMs: number;
  readonly retry: Retry | undefined;
  readonly fault: Fault | undefined;
  readonly cors: Cors | undefined;
  readonly mirrors: readonly { readonly to: VirtualDestination; readonly perMillion: number }[];
  readonly route: readonly VirtualRoute[];
  /** What of the rule cannot be done. */
  readonly problems: readonly string[];
  /** Matches that are left out, each with the reason. */
  readonly unreadable: readonly string[];
}

export interface VirtualRoute {
  readonly to: VirtualDestination;
  readonly weight: number;
  readonly requestHeaders: HeaderChange | undefined;
  readonly responseHeaders: HeaderChange | undefined;
}

export interface VirtualDestination {
  readonly host: string;
  readonly subset: string;
  readonly port: number | undefined;
}

/** One match of a `tcp` or `tls` rule. */
export interface VirtualConnection {
  readonly name: string;
  readonly port: number | undefined;
  readonly serverNames: readonly string[];
  readonly destinationRanges: readonly string[];
  readonly source: { readonly namespace: string; readonly labels: Labels } | undefined;
  readonly route: readonly Pick<VirtualRoute, 'to' | 'weight'>[];
}

export function readVirtualService(config: MeshModelConfig, object: unknown, report: Report): VirtualService | undefined {
  const meta = readMeta(object);
  if (!meta) return undefined;
  const key = objectKey(meta);
  const spec = at(object, 'spec');
  const gateways = texts(at(spec, 'gateways'));
  const host = (name: string): string => fullHost(name, meta.namespace, config.domain);
  return {
    key,
    namespace: meta.namespace,
    name: meta.name,
    createdAt: meta.createdAt,
    generation: meta.generation,
    hosts: [...new Set(texts(at(spec, 'hosts')).map(host))],
    exportTo: exportsOf(object),
    mesh: gateways.length === 0 || gateways.includes('mesh'),
    http: records(at(spec, 'http')).map((rule, index) =>
      readRule(rule, `VirtualService ${key} rule ${text(rule.name) || index}`, meta.namespace, host),
    ),
    connections: [...readConnections(spec, 'tls', key, host, report), ...readConnections(spec, 'tcp', key, host, report)],
  };
}

type Host = (name: string) => string;

function readRule(rule: Record<string, unknown>, name: string, namespace: string, host: Host): VirtualRule {
  const problems: Problems = [];
  const unreadable: Problems = [];
  const written = records(rule.match);
  const matches = written.flatMap((match) => {
    const wrong: Problems = [];
    const read = readVirtualMatch(match, wrong);
    unreadable.push(...wrong);
    return read && wrong.length === 0 ? [read] : [];
  });
  const delegate = isRecord(rule.delegate) ? `${text(rule.delegate.namespace) || namespace}/${text(rule.delegate.name)}` : undefined;
  if (delegate !== undefined && (Array.isArray(rule.route) || isRecord(rule.redirect)))
    problems.push('a rule that delegates has no route of its own');
  const { requestHeaders, responseHeaders } = readHeaders(rule.headers);
  const retries = isRecord(rule.retries) ? rule.retries : undefined;
  return {
    name,
    matches: written.length > 0 ? matches : [ANY_REQUEST],
    delegate,
    requestHeaders,
    responseHeaders,
    redirect: isRecord(rule.redirect) ? readRedirect(rule.redirect, problems) : undefined,
    directAnswer: isRecord(rule.directResponse) ? readDirect(rule.directResponse, problems) : undefined,
    rewrite: isRecord(rule.rewrite) ? readRewrite(rule.rewrite, problems) : undefined,
    timeoutMs: optionalDurationMs(rule.timeout, 'timeout', problems),
    perTryTimeoutMs: optionalDurationMs(retries?.perTryTimeout, 'retries.perTryTimeout', problems),
    retry: retries && readRetry(retries, problems),
    fault: isRecord(rule.fault) ? readFault(rule.fault, problems) : undefined,
    cors: isRecord(rule.corsPolicy) ? readCors(rule.corsPolicy, problems) : undefined,
    mirrors: readMirrors(rule, host),
    route: readRoutes(rule.route, host),
    problems,
    unreadable,
  };
}

function readDestination(destination: unknown, host: Host): VirtualDestination {
  return {
    host: host(text(at(destination, 'host'))),
    subset: text(at(destination, 'subset')),
    port: portOf(at(destination, 'port', 'number')),
  };
}

/** A single destination has all of the traffic, whatever its weight says. */
function readRoutes(route: unknown, host: Host): VirtualRoute[] {
  const written = records(route);
  return written.map((one) => ({
    to: readDestination(one.destination, host),
    weight: written.length === 1 ? Math.max(1, whole(one.weight) ?? 1) : Math.min(Math.max(whole(one.weight) ?? 0, 0), 1_000_000),
    ...readHeaders(one.headers),
  }));
}

function readMirrors(rule: Record<string, unknown>, host: Host): { to: VirtualDestination; perMillion: number }[] {
  const all = 1_000_000;
  const deprecated = whole(rule.mirrorPercent ?? rule.mirror_percent);
  const one = isRecord(rule.mirror)
    ? [
        {
          to: readDestination(rule.mirror, host),
          perMillion: perMillion(rule.mirrorPercentage, deprecated === undefined ? all : Math.min(Math.max(deprecated, 0), 100) * 10_000),
        },
      ]
    : [];
  const more = records(rule.mirrors).map((mirror) => ({
    to: readDestination(mirror.destination, host),
    perMillion: perMillion(mirror.percentage, all),
  }));
  return [...one, ...more];
}

function readHeaders(headers: unknown): { requestHeaders: HeaderChange | undefined; responseHeaders: HeaderChange | undefined } {
  return { requestHeaders: readChange(at(headers, 'request')), responseHeaders: readChange(at(headers, 'response')) };
}

function readChange(change: unknown): HeaderChange | undefined {
  if (!isRecord(change)) return undefined;
  const pairs = (values: unknown): HeaderChange['set'] => Object.entries(textMap(values)).map(([name, value]) => ({ name, value }));
  return { set: pairs(change.set), add: pairs(change.add), remove: [...texts(change.remove)] };
}

function readRedirect(redirect: Record<string, unknown>, problems: Problems): Redirect {
  const uri = text(redirect.uri);
  const derive = text(redirect.derivePort);
  if (derive !== '' && derive !== 'FROM_PROTOCOL_DEFAULT' && derive !== 'FROM_REQUEST_PORT')
    problems.push(`redirect.derivePort ${quote(derive)}`);
  const portFrom = { FROM_PROTOCOL_DEFAULT: RedirectPort.SCHEME_DEFAULT, FROM_REQUEST_PORT: RedirectPort.LISTENER } as const;
  return {
    scheme: text(redirect.scheme),
    hostname: text(redirect.authority),
    port: portOf(redirect.port) ?? 0,
    status: whole(redirect.redirectCode) || 301,
    path: uri === '' ? undefined : redirectPath(uri),
    portFrom: Object.hasOwn(portFrom, derive) ? portFrom[derive as keyof typeof portFrom] : RedirectPort.AUTHORITY,
  };
}

/** `%PREFIX()%/more` keeps what comes after the prefix that matched. */
function redirectPath(uri: string): PathChange {
  const rest = /^%PREFIX\(\)%(.*)$/.exec(uri)?.[1];
  return rest === undefined ? { type: { $case: 'full', value: uri } } : { type: { $case: 'textPrefix', value: rest || '/' } };
}

function readDirect(direct: Record<string, unknown>, problems: Problems): DirectAnswer {
  const status = whole(direct.status) ?? 0;
  if (status < 200 || status > 599) problems.push(`directResponse.status ${quote(direct.status)}`);
  const bytes = at(direct.body, 'bytes');
  const body = typeof bytes === 'string' ? Buffer.from(bytes, 'base64') : Buffer.from(text(at(direct.body, 'string')));
  if (body.length > LARGEST_BODY) problems.push(`directResponse.body of ${body.length} bytes, where ${LARGEST_BODY} are allowed`);
  return { status, body: body.subarray(0, LARGEST_BODY) };
}

// Istio's limit.
const LARGEST_BODY = 1 << 20;

function readRewrite(rewrite: Record<string, unknown>, problems: Problems): Rewrite {
  const uri = text(rewrite.uri);
  const pattern = text(at(rewrite.uriRegexRewrite, 'match'));
  if (pattern !== '') checkRegex(pattern, 'rewrite.uriRegexRewrite', problems);
  const regex: PathChange = {
    type: { $case: 'regex', value: { pattern, substitution: text(at(rewrite.uriRegexRewrite, 'rewrite')) } },
  };
  const path: PathChange | undefined = pattern !== '' ? regex : uri === '' ? undefined : { type: { $case: 'textPrefix', value: uri } };
  return { hostname: text(rewrite.authority), path };
}

// Istio's for a rule that says `retries` and not on what.
const DEFAULT_CONDITIONS = ['connect-failure', 'refused-stream', 'unavailable', 'cancelled'];
const DEFAULT_BACKOFF_MS = 25;
const MOST_ATTEMPTS = 1000;

function readRetry(retries: Record<string, unknown>, problems: Problems): Retry {
  const words = text(retries.retryOn)
    .split(',')
    .map((word) => word.trim())
    .filter((word) => word !== '');
  const codes = words.filter((word) => /^[1-5]\d\d$/.test(word)).map(Number);
  const conditions = words.filter((word) => !/^\d+$/.test(word));
  for (const word of conditions) if (!isRetryCondition(word)) problems.push(`retries.retryOn ${quote(word)}`);
  return {
    attempts: Math.min(Math.max(whole(retries.attempts) ?? 2, 0), MOST_ATTEMPTS),
    statusCodes: codes,
    backoffMs: optionalDurationMs(retries.backoff, 'retries.backoff', problems) || DEFAULT_BACKOFF_MS,
    // With codes alone, failed connections are meant as well (Istio adds retriable-status-codes to nothing).
    conditions: words.length === 0 ? DEFAULT_CONDITIONS : conditions.length === 0 ? ['retriable-status-codes'] : conditions,
    // Further localities are asked in any case once everybody near has refused, so retryRemoteLocalities says nothing more.
    sameEndpoint: at(retries, 'retryIgnorePreviousHosts') === false,
  };
}

/** grpc: doc/statuscodes.md */
const GRPC_STATUSES = [
  'OK',
  'CANCELLED',
  'UNKNOWN',
  'INVALID_ARGUMENT',
  'DEADLINE_EXCEEDED',
  'NOT_FOUND',
  'ALREADY_EXISTS',
  'PERMISSION_DENIED',
  'RESOURCE_EXHAUSTED',
  'FAILED_PRECONDITION',
  'ABORTED',
  'OUT_OF_RANGE',
  'UNIMPLEMENTED',
  'INTERNAL',
  'UNAVAILABLE',
  'DATA_LOSS',
  'UNAUTHENTICATED',
];

function readFault(fault: Record<string, unknown>, problems: Problems): Fault {
  const { delay, abort } = fault;
  const grpc = text(at(abort, 'grpcStatus'));
  const grpcStatus = GRPC_STATUSES.indexOf(grpc.toUpperCase());
  const httpStatus = whole(at(abort, 'httpStatus')) ?? 0;
  if (grpc !== '' && grpcStatus < 0) problems.push(`fault.abort.grpcStatus ${quote(grpc)}`);
  if (isRecord(abort) && grpc === '' && (httpStatus < 200 || httpStatus > 599))
    problems.push(`fault.abort.httpStatus ${quote(at(abort, 'httpStatus'))}`);
  if (isRecord(delay) && delay.fixedDelay === undefined) problems.push('fault.delay without fixedDelay');
  // Without a percentage Istio disturbs nothing.
  const old = whole(at(delay, 'percent'));
  return {
    delayMs: optionalDurationMs(at(delay, 'fixedDelay'), 'fault.delay.fixedDelay', problems),
    delayPerMillion: isRecord(delay) ? perMillion(delay.percentage, old === undefined ? 0 : Math.min(Math.max(old, 0), 100) * 10_000) : 0,
    abortStatus: httpStatus,
    abortGrpcStatus: grpcStatus >= 0 && grpc !== '' ? grpcStatus : undefined,
    abortPerMillion: isRecord(abort) ? perMillion(abort.percentage, 0) : 0,
  };
}

function readCors(cors: Record<string, unknown>, problems: Problems): Cors {
  const old = texts(cors.allowOrigin).map((value) => ({ name: '', type: { $case: 'exact' as const, value } }));
  const origins = records(cors.allowOrigins).map((origin) => stringMatch('', origin, 'corsPolicy.allowOrigins', problems));
  return {
    allowOrigins: [...old, ...origins].filter(({ type }) => type?.$case !== 'presence'),
    allowMethods: [...texts(cors.allowMethods)],
    allowHeaders: [...texts(cors.allowHeaders)],
    exposeHeaders: [...texts(cors.exposeHeaders)],
    maxAgeS: Math.floor(optionalDurationMs(cors.maxAge, 'corsPolicy.maxAge', problems) / 1000),
    allowCredentials: cors.allowCredentials === true,
    answerAllPreflights: cors.unmatchedPreflights === 'IGNORE',
  };
}

function readConnections(spec: unknown, kind: 'tcp' | 'tls', key: string, host: Host, report: Report): VirtualConnection[] {
  return records(at(spec, kind)).flatMap((rule, index) => {
    const route = readRoutes(rule.route, host).map(({ to, weight }) => ({ to, weight }));
    const name = `VirtualService ${key} ${kind} rule ${index}`;
    const matches = records(rule.match);
    if (kind === 'tls' && matches.length === 0) report(`${name} has no match, so no connection takes it`);
    const read = (match: Record<string, unknown>): VirtualConnection[] => {
      const gateways = texts(match.gateways);
      if (gateways.length > 0 && !gateways.includes('mesh')) return [];
      const ranges = texts(match.destinationSubnets);
      const unreadable = ranges.find((range) => parseCidr(range) === undefined);
      if (unreadable !== undefined) {
        report(
          `${name}: destinationSubnets has ${JSON.stringify(unreadable.slice(0, 100))}, which is no address range: this match holds never`,
        );
        return [];
      }
      return [
        {
          name,
          port: portOf(match.port),
          serverNames: kind === 'tls' ? texts(match.sniHosts) : [],
          destinationRanges: ranges,
          source: readSource(match),
          route,
        },
      ];
    };
    return matches.length === 0 && kind === 'tcp' ? read({}) : matches.flatMap(read);
  });
}
