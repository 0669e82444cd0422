/**
 * What a rule does beside choosing a backend, compiled once: when to try again, what to tell browsers of other origins, which requests to
 * disturb on purpose. A rule that says nothing of these has `undefined` here, and a request of it pays nothing for them.
 */
import type { Cors, Fault, HttpRule, PathChange, Retry } from '../codec/gen/waypoint.ts';

export interface RulePlan {
  readonly retry: RetryPlan | undefined;
  readonly cors: CorsPlan | undefined;
  readonly fault: Fault | undefined;
  /** Of a rewrite by expression. */
  readonly rewritePattern: RegExp | undefined;
}

export interface RetryPlan {
  /** Beside the first attempt. */
  readonly attempts: number;
  readonly backoffMs: number;
  readonly statuses: ReadonlySet<number>;
  /** `grpc-status` values, as text. */
  readonly grpcStatuses: ReadonlySet<string>;
  /** The connection was never made. */
  readonly onConnectFailure: boolean;
  /** It broke after the request was sent, and before a response. */
  readonly onReset: boolean;
  readonly sameEndpoint: boolean;
}

export interface CorsPlan {
  readonly origins: readonly OriginTest[];
  readonly methods: string;
  readonly anyMethod: boolean;
  readonly headers: string;
  readonly anyHeader: boolean;
  readonly exposeHeaders: string;
  readonly maxAge: string;
  readonly credentials: boolean;
  readonly answerAllPreflights: boolean;
}

export type OriginTest = 'any' | { readonly exact: string } | { readonly prefix: string } | { readonly regex: RegExp };

export type CompileRegex = (source: string, where: string) => RegExp;

/** @throws {Error} that names what cannot be compiled */
export function compilePlan(rule: HttpRule, compileRegex: CompileRegex): RulePlan {
  const rewrite = rule.rewrite?.path;
  return {
    retry: rule.retry && retryPlan(rule.retry),
    cors: rule.cors && corsPlan(rule.cors, compileRegex, rule.name),
    fault: rule.fault && (rule.fault.delayPerMillion > 0 || rule.fault.abortPerMillion > 0) ? rule.fault : undefined,
    rewritePattern: rewrite && patternOf(rewrite, compileRegex, rule.name),
  };
}

function patternOf({ type }: PathChange, compileRegex: CompileRegex, where: string): RegExp | undefined {
  if (type?.$case !== 'regex') return undefined;
  // Checked as every expression is, and used without its anchors: a rewrite is of what is found, not of the whole.
  compileRegex(type.value.pattern, `${where}, rewrite`);
  return new RegExp(type.value.pattern, 'g');
}

const GATEWAY_ERRORS = [502, 503, 504];
const SERVER_ERRORS = Array.from({ length: 100 }, (_, i) => 500 + i);

/** Envoy's words for statuses (envoy: router filter, x-envoy-retry-on). */
const STATUS_CONDITIONS: Readonly<Record<string, readonly number[]>> = {
  '5xx': SERVER_ERRORS,
  'gateway-error': GATEWAY_ERRORS,
  'retriable-4xx': [409],
  'envoy-ratelimited': [429],
};

const GRPC_CONDITIONS: Readonly<Record<string, string>> = {
  cancelled: '1',
  'deadline-exceeded': '4',
  'resource-exhausted': '8',
  internal: '13',
  unavailable: '14',
};

const RESET_CONDITIONS: ReadonlySet<string> = new Set(['5xx', 'gateway-error', 'reset']);
/** Of what an endpoint has certainly not handled. */
const CONNECT_CONDITIONS: ReadonlySet<string> = new Set([...RESET_CONDITIONS, 'connect-failure', 'refused-stream', 'reset-before-request']);

/** Words that a waypoint carries out; whoever translates says so of any other. */
export const isRetryCondition = (word: string): boolean =>
  Object.hasOwn(STATUS_CONDITIONS, word) ||
  Object.hasOwn(GRPC_CONDITIONS, word) ||
  RESET_CONDITIONS.has(word) ||
  CONNECT_CONDITIONS.has(word) ||
  word === 'retriable-status-codes';

function retryPlan(retry: Retry): RetryPlan {
  const { conditions } = retry;
  // The Gateway API has codes only; what never came to an answer is tried again too.
  const plain = conditions.length === 0;
  return {
    attempts: retry.attempts,
    backoffMs: retry.backoffMs,
    statuses: new Set([...retry.statusCodes, ...conditions.flatMap((word) => STATUS_CONDITIONS[word] ?? [])]),
    grpcStatuses: new Set(conditions.flatMap((word) => GRPC_CONDITIONS[word] ?? [])),
    onConnectFailure: plain || conditions.some((word) => CONNECT_CONDITIONS.has(word)),
    onReset: plain || conditions.some((word) => RESET_CONDITIONS.has(word)),
    sameEndpoint: retry.sameEndpoint,
  };
}

function corsPlan(cors: Cors, compileRegex: CompileRegex, where: string): CorsPlan {
  return {
    origins: cors.allowOrigins.map(({ type }): OriginTest => {
      if (type?.$case === 'exact') return type.value === '*' ? 'any' : { exact: type.value };
      if (type?.$case === 'prefix') return { prefix: type.value };
      if (type?.$case === 'regex') return { regex: compileRegex(type.value, `${where}, CORS origin`) };
      throw new Error(`${where}: a CORS origin without a value`);
    }),
    methods: cors.allowMethods.join(','),
    anyMethod: cors.allowMethods.includes('*'),
    headers: cors.allowHeaders.join(','),
    anyHeader: cors.allowHeaders.includes('*'),
    exposeHeaders: cors.exposeHeaders.join(','),
    maxAge: cors.maxAgeS > 0 ? String(cors.maxAgeS) : '',
    credentials: cors.allowCredentials,
    answerAllPreflights: cors.answerAllPreflights,
  };
}

/** What CORS makes of a request: an answer to a preflight, or fields for the response; 'none' where it has nothing to say. */
export type CorsVerdict = 'none' | { readonly preflight: readonly string[] } | { readonly fields: readonly string[] };

/** @param field looks a request's field up by its name in lower case */
export function decideCors(cors: CorsPlan, method: string, field: (name: string) => string | undefined): CorsVerdict {
  const origin = field('origin');
  if (origin === undefined) return 'none';
  const wanted = method === 'OPTIONS' ? field('access-control-request-method') : undefined;
  const allowed = originIsAllowed(cors.origins, origin);
  if (wanted !== undefined && !allowed) return cors.answerAllPreflights ? { preflight: [] } : 'none';
  if (!allowed) return 'none';
  const always = ['access-control-allow-origin', allowedOrigin(cors, origin)];
  if (cors.credentials) always.push('access-control-allow-credentials', 'true');
  if (cors.exposeHeaders !== '') always.push('access-control-expose-headers', cors.exposeHeaders);
  if (wanted === undefined) return { fields: always };
  // With credentials `*` is a method of that name (Fetch, section 3.3.3), so what was asked for is named.
  const methods = cors.anyMethod ? wanted : cors.methods;
  const headers = cors.anyHeader ? (field('access-control-request-headers') ?? '') : cors.headers;
  if (methods !== '') always.push('access-control-allow-methods', methods);
  if (headers !== '') always.push('access-control-allow-headers', headers);
  if (cors.maxAge !== '') always.push('access-control-max-age', cors.maxAge);
  return { preflight: always };
}

const originIsAllowed = (tests: readonly OriginTest[], origin: string): boolean =>
  tests.some((test) => {
    if (test === 'any') return true;
    if ('exact' in test) return test.exact === origin;
    return 'prefix' in test ? origin.startsWith(test.prefix) : test.regex.test(origin);
  });

const allowedOrigin = ({ origins, credentials }: CorsPlan, origin: string): string =>
  origins.length === 1 && origins[0] === 'any' && !credentials ? '*' : origin;

const MILLION = 1_000_000;

/** Whether this request is among the chosen ones. @param random uniform in [0, 1) */
export const isChosen = (perMillion: number, random: () => number): boolean => perMillion > 0 && random() * MILLION < perMillion;
