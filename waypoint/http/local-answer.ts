/** Answers that the waypoint gives itself: plain text for HTTP, a status in trailers' place for gRPC, and for both a reason that is a code. */
import type { ProxyError } from '../../common/base/errors.ts';
import { refusalHeaders } from '../../common/hbone/refusal-header.ts';
import type { Fields } from '../../common/http/types.ts';
import { AuthorizerRefused } from './authorizer-refused.ts';
import type { Answer, RequestContext } from './context.ts';
import { isGrpc } from './grpc.ts';
import { grpcStatusOf, httpOutcome } from './outcomes.ts';
import { bufferSource } from './request-body.ts';
import { TokenRefused } from './token-refused.ts';

/** @returns the answer to a request that failed or was refused with this error */
export function errorAnswer(request: RequestContext, error: ProxyError): Answer {
  const { status } = httpOutcome(error.code);
  const { caller, target } = request.connection;
  const reason = refusalHeaders(error, request.traceId, caller.identity, target.namespace).flat();
  if (error instanceof TokenRefused) {
    return localAnswer(request, error.status, error.message, ['www-authenticate', error.challenge, ...reason]);
  }
  if (error instanceof AuthorizerRefused) {
    const own = error.fields.includes('content-type') ? 'as said' : 'plain';
    return localAnswer(
      request,
      error.status,
      error.body || (error.code === 'AUTHORIZER_FAILED' ? '' : 'denied'),
      [...error.fields, ...reason],
      own,
    );
  }
  return localAnswer(request, status || 503, error.code === 'POLICY_DENIED' ? 'RBAC: access denied' : textOf(error), reason);
}

/** @param text of the body; shown to the caller, so it says nothing that only operators may know */
export function localAnswer(
  request: RequestContext,
  status: number,
  text: string,
  fields: Fields,
  contentType: 'plain' | 'as said' = 'plain',
): Answer {
  if (isGrpc(request.received.fields)) {
    const grpc = ['content-type', 'application/grpc', 'grpc-status', String(grpcStatusOf(status)), 'grpc-message', percentEncoded(text)];
    return { head: { status: 200, fields: [...grpc, ...fields], bodyBytes: 0 }, body: undefined };
  }
  const body = Buffer.from(text);
  const type = text === '' || contentType === 'as said' ? [] : ['content-type', 'text/plain'];
  const isHead = request.received.method === 'HEAD';
  return {
    head: { status, fields: [...type, ...fields], bodyBytes: body.length },
    body: isHead || body.length === 0 ? undefined : bufferSource(body),
  };
}

/** Causes in a caller's words: addresses and names of other people's pods stay in the log. */
function textOf({ code }: ProxyError): string {
  switch (code) {
    case 'NO_HEALTHY_UPSTREAM':
      return 'no healthy upstream';
    case 'ROUTE_UNMATCHED':
      return '';
    case 'RATE_LIMITED':
      return 'too many requests';
    case 'REQUEST_TIMEOUT':
      return 'upstream request timeout';
    case 'BACKEND_INVALID':
      return 'the route has no valid backend';
    default:
      return 'upstream connect error or disconnect/reset before headers';
  }
}

/** As `grpc-message` wants it (grpc: doc/PROTOCOL-HTTP2.md). */
const percentEncoded = (text: string): string => encodeURIComponent(text).replaceAll('%20', ' ');
