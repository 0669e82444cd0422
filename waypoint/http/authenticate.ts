/**
 * Who sent the request is known from the tunnel, and from nothing that the request says: fields in which proxies tell such things are taken
 * away or written anew. Here a request also gets what it is followed by, a request id and a trace context, and its path the one spelling that
 * policies, routes and backends see.
 */
import { traceIdOf } from '../../common/decision/headers.ts';
import { normalizePath } from '../../common/decision/http-path.ts';
import type { Fields } from '../../common/http/types.ts';
import { startSpan } from '../telemetry/start-span.ts';
import type { Configuration } from '../worker/configuration.ts';
import type { Caller, Stage } from './context.ts';

export interface AuthenticateParts {
  /** `spiffe://…` of the waypoint. */
  readonly identity: string;
  /** Fresh random hexadecimal digits. */
  randomHex(digits: number): string;
  /** From 0 to 1. */
  readonly random: () => number;
  readonly configuration: Pick<Configuration, 'telemetryOf'>;
}

export function authenticate({ identity, randomHex, random, configuration }: AuthenticateParts): Stage {
  return (next) => (request) => {
    const { received, connection } = request;
    const fields: Fields = [];
    let requestId = '';
    let traceparent = '';
    let forwardedFor = '';
    let forwardedProto = '';
    for (let i = 0; i < received.fields.length; i += 2) {
      const name = received.fields[i] ?? '';
      const value = received.fields[i + 1] ?? '';
      if (name === 'x-request-id') requestId = value;
      else if (name === 'x-forwarded-for') forwardedFor = forwardedFor === '' ? value : `${forwardedFor},${value}`;
      else if (name === 'x-forwarded-proto') forwardedProto = value;
      else if (!isSpoofable(name)) {
        if (name === 'traceparent') traceparent = value;
        fields.push(name, value);
      }
    }
    const tracing = configuration.telemetryOf(connection.target.serviceKey)?.tracing;
    if (tracing) request.span = startSpan(tracing, fields, { randomHex, random });
    request.traceId = request.span?.traceId ?? traceOf(traceparent) ?? randomHex(32);
    request.requestId = requestId === '' || requestId.length > MAX_ID ? freshId(randomHex) : requestId;
    fields.push('x-request-id', request.requestId);
    // A gateway of the mesh says how its clients came; who has no identity is not believed.
    const cameByTls = forwardedProto === 'https' && connection.caller.principal !== '';
    fields.push('x-forwarded-proto', cameByTls ? 'https' : 'http');
    const from = connection.caller.address.ip;
    fields.push('x-forwarded-for', forwardedFor === '' ? from : `${forwardedFor},${from}`);
    if (connection.caller.principal !== '') fields.push('x-forwarded-client-cert', clientCertificate(identity, connection.caller));
    const { version, method, scheme, authority, bodyBytes, upgrade } = received;
    request.head = { version, method, scheme, authority, path: normalizePath(received.path), fields, bodyBytes, upgrade };
    return next(request);
  };
}

const MAX_ID = 256;

/**
 * Fields by which proxies speak to each other: from a client they are claims. With underscores they are the same to applications behind CGI, WSGI
 * and their kin, which know both as HTTP_X_….
 */
function isSpoofable(name: string): boolean {
  if (name.charCodeAt(0) !== X) return false;
  if (name.includes('_')) {
    const written = name.replaceAll('_', '-');
    return isSpoofable(written) || REWRITTEN.has(written);
  }
  if (name.charCodeAt(1) !== DASH) return false;
  return (
    name === 'x-forwarded-client-cert' ||
    name.startsWith('x-envoy-') ||
    name.startsWith('x-warren-') ||
    name === 'x-istio-attributes' ||
    name === 'x-istio-source'
  );
}

const [X, DASH] = [120, 45];
const REWRITTEN: ReadonlySet<string> = new Set(['x-forwarded-for', 'x-forwarded-proto', 'x-request-id']);

/** Envoy's form of it: who received, and who sent. */
const clientCertificate = (identity: string, { principal }: Caller): string => `By=${identity};URI=${principal}`;

/**
 * The caller's trace. Where nothing is traced the header goes on as it came, and none is made: a span that nobody reports would be a hole in the
 * trace, and a decision that nobody made would keep the application's own tracing from making it.
 */
const traceOf = (traceparent: string): string | undefined => {
  const id = traceparent === '' ? undefined : traceIdOf(traceparent);
  return id === NO_TRACE ? undefined : id;
};

const NO_TRACE = '0'.repeat(32);

/** The digits whose first bits are 10. */
const VARIANTS = '89ab';
const A = 97;

/** A random UUID (RFC 9562, version 4). */
function freshId(randomHex: (digits: number) => string): string {
  const text = randomHex(32);
  const digit = text.charCodeAt(16);
  // The last two bits of the digit: those of letters are one less in ASCII.
  const variant = VARIANTS[(digit < A ? digit : digit + 1) & 3];
  return `${text.slice(0, 8)}-${text.slice(8, 12)}-4${text.slice(13, 16)}-${variant}${text.slice(17, 20)}-${text.slice(20)}`;
}
