/**
 * One connection or request as a proxy saw it: what its access-log line is made of, as data. `meshctl tap` shows events as they happen, and
 * whoever records decisions takes them from the same place. Names and outcomes only: no payload, no headers, no query of a path.
 */
import { outcomes, type ProxyError } from '../base/errors.ts';

export interface EventEnd {
  readonly namespace: string;
  /** Of the pod; empty where the mesh does not know it. */
  readonly name: string;
  /** Of its Deployment or the like. */
  readonly workload: string;
  /** SPIFFE URI, where TLS proved it; else empty. */
  readonly identity: string;
  /** `ip:port`. */
  readonly address: string;
}

export interface EventService {
  readonly namespace: string;
  readonly name: string;
  readonly hostname: string;
}

export interface RequestFacts {
  readonly method: string;
  /** Without its query. */
  readonly path: string;
  /** `HTTP/1.1`, `HTTP/2`, `gRPC`. */
  readonly protocol: string;
  /** 0 where the caller left before there was one. */
  readonly status: number;
  readonly grpcStatus?: string;
}

export interface TrafficEvent {
  /** Milliseconds since 1970, when it happened. */
  readonly timeMs: number;
  /** A connection began or ended, or a request ended. What was refused has ended. */
  readonly type: 'opened' | 'closed' | 'request';
  /** Which proxy saw it: the caller's ztunnel, the called pod's, or a waypoint. */
  readonly direction: 'outbound' | 'inbound' | 'waypoint';
  /** Trace id. */
  readonly id: string;
  readonly source: EventEnd;
  readonly destination: EventEnd;
  readonly service?: EventService;
  /** What was asked for: the port of the pod or of the service. */
  readonly port: number;
  readonly mutualTls: boolean;
  readonly request?: RequestFacts;
  /** From client to server, and back. */
  readonly bytesForward: number;
  readonly bytesBackward: number;
  readonly durationMs: number;
  /** Of the table of errors; absent where all went well. */
  readonly code?: string;
  /** Whether somebody decided so, rather than something broke. */
  readonly refused?: boolean;
  readonly policy?: string;
  readonly message?: string;
}

/** Takes events. Whoever has one to give looks at `wanted` first: an event that nobody wants is not made. */
export interface EventSink {
  readonly wanted: boolean;
  take(event: TrafficEvent): void;
}

/** Which events are shown; empty strings and 0 stand for any. */
export interface EventFilter {
  /** At either end: `NAMESPACE/NAME` of a pod, workload or service, `NAMESPACE/` for all of one. */
  readonly subject: string;
  readonly from: string;
  readonly to: string;
  readonly port: number;
  readonly method: string;
  /** Paths that begin so. */
  readonly path: string;
  /** `404` or `4xx`. */
  readonly status: string;
  /** `ok`, `refused`, `failed`, or a code. */
  readonly outcome: string;
}

/** Whether the filter lets the event through. Filters about requests let no connections through. */
export function matchesFilter(event: TrafficEvent, filter: EventFilter): boolean {
  const { subject, from, to, port, method, path, status, outcome } = filter;
  if (subject !== '' && !isSource(event, subject) && !isDestination(event, subject)) return false;
  if (from !== '' && !isSource(event, from)) return false;
  if (to !== '' && !isDestination(event, to)) return false;
  if (port !== 0 && event.port !== port) return false;
  if (method !== '' && event.request?.method !== method) return false;
  if (path !== '' && event.request?.path.startsWith(path) !== true) return false;
  if (status !== '' && !(event.request && hasStatus(event.request.status, status))) return false;
  return outcome === '' || hasOutcome(event, outcome);
}

const REFUSING_FLAGS: ReadonlySet<string> = new Set(['DENY', 'CERT_REVOKED']);

/** What an event says of what went wrong. */
export function failureFacts(error: ProxyError | undefined): Pick<TrafficEvent, 'code' | 'refused' | 'policy' | 'message'> {
  if (!error) return {};
  const { code, policy, message } = error;
  const refused = REFUSING_FLAGS.has(outcomes[code].flag) || code === 'WAYPOINT_ABSENT';
  return { code, refused, ...(policy !== undefined && { policy }), message: message.slice(0, MAX_MESSAGE) };
}

const MAX_MESSAGE = 300;
const MAX_PATH = 200;

/** A path as events show it: a query may hold what is nobody's business. */
export const eventPath = (path: string): string => (path.split('?', 1)[0] ?? '').slice(0, MAX_PATH);

const isSource = ({ source }: TrafficEvent, name: string): boolean => isNamed(source.namespace, [source.name, source.workload], name);

const isDestination = ({ destination, service }: TrafficEvent, name: string): boolean =>
  isNamed(destination.namespace, [destination.name, destination.workload], name) ||
  (service !== undefined && isNamed(service.namespace, [service.name, service.hostname], name));

function isNamed(namespace: string, names: readonly string[], wanted: string): boolean {
  const slash = wanted.indexOf('/');
  if (namespace !== wanted.slice(0, slash)) return false;
  const name = wanted.slice(slash + 1);
  return name === '' || names.includes(name);
}

const hasStatus = (status: number, wanted: string): boolean =>
  wanted.endsWith('xx') ? String(status).startsWith(wanted.slice(0, 1)) && status >= 100 : String(status) === wanted;

function hasOutcome({ type, code, refused = false, request }: TrafficEvent, wanted: string): boolean {
  switch (wanted) {
    case 'ok':
      return code === undefined && type !== 'opened' && (request === undefined || request.status < 500);
    case 'refused':
      return refused;
    case 'failed':
      return (code !== undefined && !refused) || (request !== undefined && code === undefined && request.status >= 500);
    default:
      return code === wanted;
  }
}
