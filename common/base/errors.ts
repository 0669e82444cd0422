/**
 * Every reason for which a connection is refused or fails, in one closed table: what the peer's CONNECT is answered with, which flag the
 * metrics carry, how loud the log line is, and what the documentation says (docs/errors.md is generated from here).
 * Flags are ztunnel's (src/proxy/metrics.rs): `-`, DENY, CONNECT, TLS_FAILURE, H2_HANDSHAKE_FAILURE, NETWORK_POLICY, IDENTITY_ERROR, CERT_REVOKED.
 */

export type ResponseFlag =
  | '-'
  | 'DENY'
  | 'CONNECT'
  | 'TLS_FAILURE'
  | 'H2_HANDSHAKE_FAILURE'
  | 'NETWORK_POLICY'
  | 'IDENTITY_ERROR'
  | 'CERT_REVOKED';

interface Outcome {
  readonly flag: ResponseFlag;
  /** Status of the answer to a peer's CONNECT; undefined where there is nobody to answer. */
  readonly status?: number;
  readonly level: 'info' | 'warn' | 'error';
  /** What happened and what to do about it, for docs/errors.md. */
  readonly doc: string;
}

const outcome = (flag: ResponseFlag, status: number | undefined, level: Outcome['level'], doc: string): Outcome =>
  status === undefined ? { flag, level, doc } : { flag, status, level, doc };

export const outcomes = {
  POLICY_DENIED: outcome(
    'DENY',
    401,
    'error',
    'An authorization policy refused the connection. The log line names the policy; look at it with kubectl.',
  ),
  POLICY_REVOKED: outcome('DENY', 401, 'error', 'A policy changed and no longer allows this open connection, so it was closed.'),
  MTLS_REQUIRED: outcome(
    'DENY',
    401,
    'error',
    'The workload is STRICT and the caller came in plaintext. Enrol the caller, or relax the PeerAuthentication.',
  ),
  WAYPOINT_BYPASSED: outcome(
    'DENY',
    401,
    'error',
    "The caller dialled a pod's own address, past its service's waypoint, and the pod or its namespace asks for the waypoint (warren.dev/require-waypoint). Call the service, or leave the port out (warren.dev/require-waypoint-except-ports).",
  ),
  SELF_CALL: outcome('DENY', 503, 'error', "The destination is one of ztunnel's own ports."),
  IP_MISMATCH: outcome('DENY', 400, 'error', 'The CONNECT authority is not an address of the pod that received it.'),
  BAD_REQUEST: outcome('DENY', 400, 'error', 'The peer sent something that is no CONNECT request with host and port.'),
  WORKLOAD_UNKNOWN: outcome(
    'CONNECT',
    503,
    'error',
    'The control plane has not told ztunnel about this pod. Check meshctl status: is ztunnel synced?',
  ),
  SERVICE_UNKNOWN: outcome('CONNECT', 503, 'error', 'The CONNECT authority names no service, or no port of it, that this pod serves.'),
  NO_HEALTHY_UPSTREAM: outcome('CONNECT', undefined, 'error', 'The service has no healthy endpoint on this port.'),
  NO_ROUTE: outcome('CONNECT', undefined, 'error', 'The destination is in another network and no gateway to it is known.'),
  NOT_IN_REGISTRY: outcome(
    'DENY',
    undefined,
    'error',
    'The destination is no known service, ServiceEntry or workload, and outboundTrafficPolicy is REGISTRY_ONLY. Add a ServiceEntry for it.',
  ),
  WAYPOINT_ABSENT: outcome(
    'CONNECT',
    undefined,
    'error',
    'The destination is bound to a waypoint that is not there or not ready; what it would enforce cannot be enforced, so nothing passes.',
  ),
  UPSTREAM_CONNECT: outcome('CONNECT', 503, 'error', 'Connecting to the upstream failed or took longer than ten seconds.'),
  UPSTREAM_TIMEOUT: outcome('NETWORK_POLICY', 503, 'error', 'Connecting to port 15008 timed out; a NetworkPolicy may block it.'),
  UPSTREAM_STATUS: outcome(
    'CONNECT',
    undefined,
    'error',
    "The peer's proxy answered the CONNECT with something other than 200. The status says why; 401 is a policy.",
  ),
  UPSTREAM_PROTOCOL: outcome('CONNECT', 502, 'error', 'The upstream answered with something that is no HTTP; the log line says what.'),
  TLS_FAILURE: outcome(
    'TLS_FAILURE',
    undefined,
    'error',
    'The TLS handshake failed: no certificate, an unknown root, a foreign trust domain, or an identity that was not expected.',
  ),
  HTTP2_FAILURE: outcome(
    'H2_HANDSHAKE_FAILURE',
    undefined,
    'error',
    'The peer broke HTTP/2 (the log says how), and its connection was closed.',
  ),
  IDENTITY_UNAVAILABLE: outcome(
    'IDENTITY_ERROR',
    503,
    'error',
    "No certificate for the pod's service account: the CA refused or could not be reached.",
  ),
  CERT_REVOKED: outcome('CERT_REVOKED', undefined, 'error', 'A certificate in the chain is on the revocation list.'),
  DRAINED: outcome('-', 503, 'info', 'ztunnel is shutting down and the time for open connections was over.'),
  POD_REMOVED: outcome('-', 503, 'info', 'The pod left the mesh or was deleted.'),
  PREDATES_MESH: outcome(
    'DENY',
    undefined,
    'warn',
    "The connection was open before its pod joined the mesh, so no policy reached it; the node agent cut it once STRICT or a policy applied, or because the pod's annotation warren.dev/open-connections says so. Its client connects again, through the mesh.",
  ),
  WAYPOINT_NOT_BOUND: outcome(
    'DENY',
    404,
    'error',
    'The caller asked a waypoint for something that is not bound to it. Right after a label changed that passes; else look at the binding with meshctl status.',
  ),
  ROUTE_UNMATCHED: outcome('-', 404, 'warn', 'The service has routes and none of them matches the request: 404.'),
  BACKEND_INVALID: outcome(
    '-',
    500,
    'error',
    'The route chose a backend that does not exist or that a waypoint cannot serve: 500. The status of the route says which.',
  ),
  REQUEST_TIMEOUT: outcome('-', 504, 'warn', "The route's time for the request, or for one attempt at it, was over: 504."),
  TOKEN_INVALID: outcome(
    'DENY',
    401,
    'warn',
    'The request brought a JSON Web Token that no RequestAuthentication of its service finds good: 401, or 403 for another audience.',
  ),
  AUTHORIZER_DENIED: outcome(
    'DENY',
    403,
    'warn',
    'The authorization server that a CUSTOM policy asks refused the request, and its answer was passed on. The log line names policy and provider.',
  ),
  AUTHORIZER_FAILED: outcome(
    'DENY',
    403,
    'error',
    "The authorization server that a CUSTOM policy asks could not be asked, or answered with an error; the log line says what. The provider's failOpen and statusOnError say what callers get.",
  ),
  RATE_LIMITED: outcome(
    '-',
    429,
    'warn',
    'A RateLimitPolicy has no more requests to give at the moment: 429, with Retry-After. The log line names the policy and its limit.',
  ),
  FAULT_INJECTED: outcome('-', undefined, 'info', "The route's fault injection answered: the VirtualService asks for it."),
  CLIENT_GONE: outcome('-', undefined, 'info', 'The client went away before its response was whole.'),
  CONNECTION_LOST: outcome('-', undefined, 'error', 'The other side reset the connection, or the tunnel under it broke.'),
  TIME_OVER: outcome(
    '-',
    undefined,
    'info',
    'The connection was as old, or as long without a byte, as its DestinationRule lets connections be (connectionPool.tcp.maxConnectionDuration, idleTimeout), and was closed.',
  ),
  OVERLOADED: outcome('CONNECT', 503, 'error', 'A limit of this proxy was reached; the log line names it.'),
} as const satisfies Record<string, Outcome>;

export type OutcomeCode = keyof typeof outcomes;

/** A failure with a code of the table above. Its message is what the access log's `error` field shows. */
export class ProxyError extends Error {
  readonly code: OutcomeCode;
  /** namespace/name of the policy that decided, where one did. */
  readonly policy: string | undefined;

  constructor(code: OutcomeCode, message: string, options: { cause?: unknown; policy?: string } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'ProxyError';
    this.code = code;
    this.policy = options.policy;
  }

  /** The one way in from a `catch`: keeps a ProxyError, wraps anything else under `code`. */
  static from(reason: unknown, code: OutcomeCode, context: string): ProxyError {
    if (reason instanceof ProxyError) return reason;
    return new ProxyError(code, `${context}: ${errorMessage(reason)}`, { cause: reason });
  }
}

export const errorMessage = (reason: unknown): string => (reason instanceof Error ? reason.message : String(reason));
