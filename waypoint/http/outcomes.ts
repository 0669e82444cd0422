/**
 * What a client gets where the waypoint answers itself, and what Envoy would have called it in metrics and logs: Istio's dashboards and
 * alerts look for those flags (envoy: source/common/stream_info/utility.h).
 */
import type { OutcomeCode } from '../../common/base/errors.ts';

export interface HttpOutcome {
  readonly status: number;
  /** `response_flags`. */
  readonly flag: string;
  /** `response_code_details`. */
  readonly details: string;
}

const UNREACHABLE: HttpOutcome = { status: 503, flag: 'UF', details: 'upstream_reset_before_response_started{connection_failure}' };

const known: { readonly [code in OutcomeCode]?: HttpOutcome } = {
  POLICY_DENIED: { status: 403, flag: '-', details: 'rbac_access_denied' },
  POLICY_REVOKED: { status: 403, flag: '-', details: 'rbac_access_denied' },
  ROUTE_UNMATCHED: { status: 404, flag: 'NR', details: 'route_not_found' },
  BACKEND_INVALID: { status: 500, flag: '-', details: 'direct_response' },
  NO_HEALTHY_UPSTREAM: { status: 503, flag: 'UH', details: 'no_healthy_upstream' },
  SERVICE_UNKNOWN: { status: 503, flag: 'NC', details: 'cluster_not_found' },
  NO_ROUTE: { status: 503, flag: 'UH', details: 'no_healthy_upstream' },
  REQUEST_TIMEOUT: { status: 504, flag: 'UT', details: 'response_timeout' },
  CONNECTION_LOST: { status: 503, flag: 'UC', details: 'upstream_reset_before_response_started{connection_termination}' },
  HTTP2_FAILURE: { status: 502, flag: 'UPE', details: 'upstream_reset_before_response_started{protocol_error}' },
  TOKEN_INVALID: { status: 401, flag: '-', details: 'jwt_authn_access_denied' },
  AUTHORIZER_DENIED: { status: 403, flag: 'UAEX', details: 'ext_authz_denied' },
  AUTHORIZER_FAILED: { status: 403, flag: 'UAEX', details: 'ext_authz_error' },
  RATE_LIMITED: { status: 429, flag: 'RL', details: 'local_rate_limited' },
  FAULT_INJECTED: { status: 503, flag: 'FI', details: 'fault_filter_abort' },
  CLIENT_GONE: { status: 0, flag: 'DC', details: 'downstream_remote_disconnect' },
  BAD_REQUEST: { status: 400, flag: 'DPE', details: 'http1.codec_error' },
  OVERLOADED: { status: 503, flag: 'UO', details: 'upstream_reset_before_response_started{overflow}' },
  DRAINED: { status: 503, flag: '-', details: 'drained' },
};

export const httpOutcome = (code: OutcomeCode): HttpOutcome => known[code] ?? UNREACHABLE;

/** What gRPC makes of an HTTP status (grpc: doc/http-grpc-status-mapping.md). */
export function grpcStatusOf(status: number): number {
  switch (status) {
    case 400:
      return 13;
    case 401:
      return 16;
    case 403:
      return 7;
    case 404:
      return 12;
    case 429:
    case 502:
    case 503:
    case 504:
      return 14;
    default:
      return 2;
  }
}
