/**
 * Lines of an access log in the formats that Envoy's users write (Envoy, "Access log format"): text, or JSON, with operators like
 * `%REQ(X-REQUEST-ID)%` in it. A format is compiled once; an operator that is not known is refused by its name and place, as a line that says
 * `-` for ever looks like traffic without that property.
 */
import { formatSocketAddress, type SocketAddress } from '../base/address.ts';
import { errorMessage } from '../base/errors.ts';
import { compileCel } from './cel.ts';
import { celText } from './cel-values.ts';
import { type TelemetryFacts, telemetryAttributes } from './telemetry-facts.ts';

export interface LogFormatOptions {
  /** Where a value is missing: nothing, instead of `-` in texts and null in JSON. */
  readonly omitEmptyValues: boolean;
  /** A variable of the proxy's environment. */
  environment(name: string): string | undefined;
}

export type LogFormat = (facts: TelemetryFacts) => string;

/** Istio's (pilot/pkg/model/telemetry_logging.go). */
export const ISTIO_TEXT_FORMAT =
  '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% ' +
  '%RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% ' +
  '%DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" ' +
  '"%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% ' +
  '%DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n';

export const ISTIO_JSON_FORMAT: Readonly<Record<string, string>> = {
  start_time: '%START_TIME%',
  route_name: '%ROUTE_NAME%',
  method: '%REQ(:METHOD)%',
  path: '%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%',
  protocol: '%PROTOCOL%',
  response_code: '%RESPONSE_CODE%',
  response_flags: '%RESPONSE_FLAGS%',
  response_code_details: '%RESPONSE_CODE_DETAILS%',
  connection_termination_details: '%CONNECTION_TERMINATION_DETAILS%',
  bytes_received: '%BYTES_RECEIVED%',
  bytes_sent: '%BYTES_SENT%',
  duration: '%DURATION%',
  upstream_service_time: '%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%',
  x_forwarded_for: '%REQ(X-FORWARDED-FOR)%',
  user_agent: '%REQ(USER-AGENT)%',
  request_id: '%REQ(X-REQUEST-ID)%',
  authority: '%REQ(:AUTHORITY)%',
  upstream_host: '%UPSTREAM_HOST%',
  upstream_cluster: '%UPSTREAM_CLUSTER_RAW%',
  upstream_local_address: '%UPSTREAM_LOCAL_ADDRESS%',
  downstream_local_address: '%DOWNSTREAM_LOCAL_ADDRESS%',
  downstream_remote_address: '%DOWNSTREAM_REMOTE_ADDRESS%',
  requested_server_name: '%REQUESTED_SERVER_NAME%',
  upstream_transport_failure_reason: '%UPSTREAM_TRANSPORT_FAILURE_REASON%',
};

/**
 * A line of text, with a line end whether the format has one or not.
 * @throws {Error} naming the operator and its position
 */
export function compileTextFormat(format: string, options: LogFormatOptions): LogFormat {
  if (format.length > MOST_CHARACTERS) throw new Error(`the format is longer than ${MOST_CHARACTERS} characters`);
  const text = textOf(piecesOf(format.endsWith('\n') ? format : `${format}\n`, options), options);
  return text;
}

/**
 * An object of JSON on one line. A value that is one operator alone keeps its type; nested objects and lists stay what they are.
 * @throws {Error} naming the operator, its key and position
 */
export function compileJsonFormat(labels: Readonly<Record<string, unknown>>, options: LogFormatOptions): LogFormat {
  let left = MOST_VALUES;
  const compile = (value: unknown, path: string): ((facts: TelemetryFacts) => string | undefined) => {
    if (--left < 0) throw new Error(`the format has more than ${MOST_VALUES} values`);
    if (typeof value === 'string') return jsonValue(value, path, options);
    if (Array.isArray(value)) {
      const items = value.map((item, i) => compile(item, `${path}[${i}]`));
      return (facts) => `[${items.map((item) => item(facts) ?? 'null').join(',')}]`;
    }
    if (typeof value === 'object' && value !== null) return objectOf(value as Readonly<Record<string, unknown>>, path);
    const written = JSON.stringify(value) ?? 'null';
    return () => written;
  };
  const objectOf = (value: Readonly<Record<string, unknown>>, path: string): ((facts: TelemetryFacts) => string) => {
    const fields = Object.entries(value).map(
      ([key, item]) => [`${JSON.stringify(key)}:`, compile(item, path === '' ? key : `${path}.${key}`)] as const,
    );
    return (facts) => {
      let line = '';
      for (const [key, item] of fields) {
        const made = item(facts);
        if (made !== undefined) line += `${line === '' ? '' : ','}${key}${made}`;
      }
      return `{${line}}`;
    };
  };
  const whole = objectOf(labels, '');
  return (facts) => `${whole(facts)}\n`;
}

/** One text with operators, as a tag of a span has it; undefined where all of it is missing. @throws {Error} naming the operator */
export function compileFormatter(format: string, environment: LogFormatOptions['environment']): (facts: TelemetryFacts) => string {
  return textOf(piecesOf(format, { omitEmptyValues: true, environment }), { omitEmptyValues: true });
}

const MOST_CHARACTERS = 16_384;
const MOST_VALUES = 200;

type Value = string | number | undefined;
type Reader = (facts: TelemetryFacts) => Value;
type Piece = string | Reader;

function textOf(pieces: readonly Piece[], { omitEmptyValues }: Pick<LogFormatOptions, 'omitEmptyValues'>): LogFormat {
  const missing = omitEmptyValues ? '' : '-';
  return (facts) => {
    let line = '';
    for (const piece of pieces) line += typeof piece === 'string' ? piece : oneLine(piece(facts) ?? missing);
    return line;
  };
}

/** A caller's line end in a header must not begin a line of its own. */
const oneLine = (value: string | number): string | number =>
  typeof value === 'string' && CONTROL.test(value) ? value.replace(CONTROLS, escapeOf) : value;
// biome-ignore lint/suspicious/noControlCharactersInRegex: those are what must not get through
const CONTROL = /[\x00-\x1f\x7f]/;
// biome-ignore lint/suspicious/noControlCharactersInRegex: those are what must not get through
const CONTROLS = /[\x00-\x1f\x7f]/g;
const escapeOf = (letter: string): string => `\\x${letter.charCodeAt(0).toString(16).padStart(2, '0')}`;

function jsonValue(format: string, path: string, options: LogFormatOptions): (facts: TelemetryFacts) => string | undefined {
  let pieces: Piece[];
  try {
    pieces = piecesOf(format, options);
  } catch (error) {
    throw new Error(`${path}: ${errorMessage(error)}`);
  }
  const [only] = pieces;
  if (pieces.length === 1 && typeof only === 'function') {
    return (facts) => {
      const value = only(facts);
      return value === undefined ? (options.omitEmptyValues ? undefined : 'null') : JSON.stringify(value);
    };
  }
  const missing = options.omitEmptyValues ? '' : '-';
  return (facts) => JSON.stringify(pieces.map((piece) => (typeof piece === 'string' ? piece : (piece(facts) ?? missing))).join(''));
}

const OPERATOR = /([A-Z][A-Z0-9_]*)(?:\(([^)]*)\))?(?::([0-9]+))?%/y;
/** An expression has parentheses of its own. */
const CEL = /(CEL)\((.*?)\)(?::([0-9]+))?%/y;

function piecesOf(format: string, options: LogFormatOptions): Piece[] {
  const pieces: Piece[] = [];
  let plain = '';
  const flush = (): void => {
    if (plain !== '') pieces.push(plain);
    plain = '';
  };
  for (let at = 0; at < format.length; ) {
    const letter = format[at] ?? '';
    if (letter !== '%') {
      plain += letter;
      at++;
      continue;
    }
    if (format[at + 1] === '%') {
      plain += '%';
      at += 2;
      continue;
    }
    const pattern = format.startsWith('CEL(', at + 1) ? CEL : OPERATOR;
    pattern.lastIndex = at + 1;
    const match = pattern.exec(format);
    if (!match) throw new Error(`at character ${at + 1}: no operator ends here, and % alone is written %%`);
    const [all, name = '', argument, length] = match;
    flush();
    try {
      pieces.push(shortened(operator(name, argument, options), length));
    } catch (error) {
      throw new Error(`at character ${at + 1}: ${errorMessage(error)}`);
    }
    at += 1 + all.length;
  }
  flush();
  return pieces;
}

function shortened(read: Reader, length: string | undefined): Reader {
  if (length === undefined) return read;
  const most = Number(length);
  return (facts) => {
    const value = read(facts);
    return typeof value === 'string' ? value.slice(0, most) : value;
  };
}

function operator(name: string, argument: string | undefined, options: LogFormatOptions): Reader {
  const made = Object.hasOwn(withArgument, name) ? withArgument[name] : undefined;
  if (made) {
    if (argument === undefined && name !== 'START_TIME') throw new Error(`%${name}% takes an argument in parentheses`);
    return made(argument ?? '', options);
  }
  const found = Object.hasOwn(plainOperators, name) ? plainOperators[name] : undefined;
  if (!found) throw new Error(`%${name}% is not known`);
  if (argument !== undefined && argument !== '') throw new Error(`%${name}% takes no argument`);
  return found;
}

const address = (of: SocketAddress | undefined): Value => of && formatSocketAddress(of);
const millis = (ms: number | undefined): Value => (ms === undefined ? undefined : Math.round(ms));
const GRPC_NAMES =
  'OK Canceled Unknown InvalidArgument DeadlineExceeded NotFound AlreadyExists PermissionDenied ResourceExhausted FailedPrecondition Aborted OutOfRange Unimplemented Internal Unavailable DataLoss Unauthenticated'.split(
    ' ',
  );
const nothing: Reader = () => undefined;
const filled = (value: string): Value => (value === '' ? undefined : value);

const plainOperators: Readonly<Record<string, Reader>> = {
  PROTOCOL: ({ protocol }) => protocol,
  RESPONSE_CODE: ({ responseCode }) => responseCode ?? 0,
  RESPONSE_FLAGS: ({ responseFlags }) => (responseFlags === '-' ? undefined : responseFlags),
  RESPONSE_CODE_DETAILS: ({ responseCodeDetails }) => responseCodeDetails,
  // A connection that policy ends is told of by RESPONSE_CODE_DETAILS.
  CONNECTION_TERMINATION_DETAILS: nothing,
  UPSTREAM_TRANSPORT_FAILURE_REASON: ({ upstreamFailure }) => upstreamFailure,
  BYTES_RECEIVED: ({ bytesReceived }) => bytesReceived,
  BYTES_SENT: ({ bytesSent }) => bytesSent,
  DURATION: ({ durationMs }) => millis(durationMs),
  RESPONSE_DURATION: ({ answeredMs }) => millis(answeredMs),
  RESPONSE_TX_DURATION: ({ durationMs, answeredMs }) => (answeredMs === undefined ? undefined : millis(durationMs - answeredMs)),
  GRPC_STATUS: ({ grpcStatus }) => (grpcStatus === undefined ? undefined : (GRPC_NAMES[grpcStatus] ?? String(grpcStatus))),
  GRPC_STATUS_NUMBER: ({ grpcStatus }) => grpcStatus,
  UPSTREAM_HOST: ({ upstreamHost }) => address(upstreamHost),
  UPSTREAM_REMOTE_ADDRESS: ({ upstreamHost }) => address(upstreamHost),
  UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT: ({ upstreamHost }) => upstreamHost?.ip,
  UPSTREAM_REMOTE_PORT: ({ upstreamHost }) => upstreamHost?.port,
  UPSTREAM_CLUSTER: ({ upstreamCluster }) => upstreamCluster,
  UPSTREAM_CLUSTER_RAW: ({ upstreamCluster }) => upstreamCluster,
  // Streams of many requests share a tunnel, whose own end says nothing about any of them.
  UPSTREAM_LOCAL_ADDRESS: nothing,
  UPSTREAM_REQUEST_ATTEMPT_COUNT: ({ attempts }) => attempts,
  DOWNSTREAM_LOCAL_ADDRESS: ({ downstreamLocal }) => address(downstreamLocal),
  DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT: ({ downstreamLocal }) => downstreamLocal.ip,
  DOWNSTREAM_LOCAL_PORT: ({ downstreamLocal }) => downstreamLocal.port,
  DOWNSTREAM_REMOTE_ADDRESS: ({ downstreamRemote }) => address(downstreamRemote),
  DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT: ({ downstreamRemote }) => downstreamRemote.ip,
  DOWNSTREAM_REMOTE_PORT: ({ downstreamRemote }) => downstreamRemote.port,
  DOWNSTREAM_DIRECT_REMOTE_ADDRESS: ({ downstreamRemote }) => address(downstreamRemote),
  DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT: ({ downstreamRemote }) => downstreamRemote.ip,
  DOWNSTREAM_PEER_URI_SAN: ({ principal }) => filled(principal),
  DOWNSTREAM_LOCAL_URI_SAN: ({ localPrincipal }) => filled(localPrincipal),
  DOWNSTREAM_TLS_VERSION: ({ principal }) => (principal === '' ? undefined : 'TLSv1.3'),
  REQUESTED_SERVER_NAME: ({ serverName }) => serverName,
  ROUTE_NAME: ({ routeName }) => routeName,
  STREAM_ID: ({ requestId }) => requestId,
  TRACE_ID: ({ traceId }) => traceId,
  SPAN_ID: ({ spanId }) => spanId,
};

const withArgument: Readonly<Record<string, (argument: string, options: LogFormatOptions) => Reader>> = {
  START_TIME: (format) => timeFormat(format),
  REQ: (argument) => headers(argument, requestValue),
  REQ_WITHOUT_QUERY: (argument) => {
    const read = headers(argument, requestValue);
    return (facts) => String(read(facts) ?? '').split('?', 1)[0] || undefined;
  },
  RESP: (argument) => headers(argument, responseValue),
  TRAILER: (argument) => headers(argument, (facts, name) => facts.responseTrailer(name)),
  ENVIRONMENT: (name, { environment }) => {
    const value = environment(name);
    return () => value;
  },
  CEL: (expression) => {
    const { evaluate } = compileCel(expression, telemetryAttributes);
    return (facts) => celText(evaluate(facts));
  },
  // What Envoy's filters leave in metadata is of Envoy; this is ours.
  DYNAMIC_METADATA: (argument) => {
    if (argument === 'warren:code') return ({ code }) => code;
    if (argument === 'warren:policy') return ({ policy }) => policy;
    throw new Error(`%DYNAMIC_METADATA(${argument})% is not known: there are warren:code and warren:policy`);
  },
};

/** `FIRST?SECOND`: the second where the first is missing. */
function headers(argument: string, read: (facts: TelemetryFacts, name: string) => string | undefined): Reader {
  const [first = '', second, ...more] = argument.toLowerCase().split('?');
  if (first === '' || second === '' || more.length > 0) throw new Error(`(${argument}) is no header name, nor two with ? between them`);
  return second === undefined ? (facts) => read(facts, first) : (facts) => read(facts, first) ?? read(facts, second);
}

function requestValue(facts: TelemetryFacts, name: string): string | undefined {
  switch (name) {
    case ':method':
      return facts.method;
    case ':path':
      return facts.path;
    case ':authority':
    case 'host':
      return facts.authority;
    case ':scheme':
      return facts.scheme;
    default:
      return facts.requestHeader(name);
  }
}

function responseValue(facts: TelemetryFacts, name: string): string | undefined {
  if (name === ':status') return facts.responseCode === undefined ? undefined : String(facts.responseCode);
  // Envoy writes it into the response and reads it there; here it need not travel.
  if (name === 'x-envoy-upstream-service-time' && facts.upstreamHost && facts.answeredMs !== undefined)
    return facts.responseHeader(name) ?? String(Math.round(facts.answeredMs));
  return facts.responseHeader(name);
}

const two = (value: number): string => String(value).padStart(2, '0');
const DAYS = 'Sun Mon Tue Wed Thu Fri Sat'.split(' ');
const MONTHS = 'Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec'.split(' ');
const fraction = (time: Date, digits: number): string => `${String(time.getUTCMilliseconds()).padStart(3, '0')}000000`.slice(0, digits);
const seconds = (time: Date): string => two(time.getUTCSeconds());

const timeParts: Readonly<Record<string, (time: Date) => string>> = {
  Y: (time) => String(time.getUTCFullYear()),
  y: (time) => two(time.getUTCFullYear() % 100),
  m: (time) => two(time.getUTCMonth() + 1),
  d: (time) => two(time.getUTCDate()),
  e: (time) => String(time.getUTCDate()).padStart(2, ' '),
  H: (time) => two(time.getUTCHours()),
  M: (time) => two(time.getUTCMinutes()),
  S: seconds,
  T: (time) => time.toISOString().slice(11, 19),
  F: (time) => time.toISOString().slice(0, 10),
  a: (time) => DAYS[time.getUTCDay()] ?? '',
  b: (time) => MONTHS[time.getUTCMonth()] ?? '',
  s: (time) => String(Math.trunc(time.getTime() / 1000)),
  f: (time) => fraction(time, 9),
  '3f': (time) => fraction(time, 3),
  '6f': (time) => fraction(time, 6),
  '9f': (time) => fraction(time, 9),
  E3S: (time) => `${seconds(time)}.${fraction(time, 3)}`,
  E6S: (time) => `${seconds(time)}.${fraction(time, 6)}`,
  Z: () => 'UTC',
  z: () => '+0000',
  '%': () => '%',
};

function timeFormat(format: string): Reader {
  if (format === '') return ({ startedAt }) => new Date(startedAt).toISOString();
  const pieces = [...format.matchAll(/%(E[0-9]S|[0-9]f|.)|[^%]+/g)].map(([text, part]) => {
    if (part === undefined) return text;
    const made = Object.hasOwn(timeParts, part) ? timeParts[part] : undefined;
    if (!made) throw new Error(`%START_TIME(${format})%: there is no %${part}`);
    return made;
  });
  return ({ startedAt }) => {
    const time = new Date(startedAt);
    return pieces.map((piece) => (typeof piece === 'string' ? piece : piece(time))).join('');
  };
}
