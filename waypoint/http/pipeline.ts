/** The path of one request, stage by stage; each may answer instead of passing on. */
import type { Clock } from '../../common/base/clock.ts';
import { errorMessage, ProxyError } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';
import type { ServerExchange } from '../../common/http/types.ts';
import type { Telemetry } from '../worker/telemetry.ts';
import { answerAlways } from './answer-always.ts';
import { type AuthenticateParts, authenticate } from './authenticate.ts';
import { authorize } from './authorize.ts';
import { type Connection, compose, type Handler, RequestContext } from './context.ts';
import { deliver } from './deliver.ts';
import { applyFilters, type FilterParts } from './filters.ts';
import { type ForwardParts, forward } from './forward.ts';
import { finish } from './later.ts';
import { type LimitParts, limitRate } from './limit-rate.ts';
import { pickEndpoint } from './pick.ts';
import { type RetryParts, retry } from './retry.ts';
import { route } from './route.ts';
import { requestTimeout } from './timeout.ts';
import { authenticateTokens, type TokenParts } from './tokens.ts';

export type PipelineParts = Parameters<typeof answerAlways>[0] &
  AuthenticateParts &
  TokenParts &
  Parameters<typeof authorize>[0] &
  LimitParts &
  Parameters<typeof route>[0] &
  FilterParts &
  RetryParts &
  Parameters<typeof pickEndpoint>[0] &
  ForwardParts;

export const pipeline = (parts: PipelineParts): Handler =>
  compose(
    [
      answerAlways(parts),
      authenticate(parts),
      authenticateTokens(parts),
      authorize(parts),
      limitRate(parts),
      route(parts),
      applyFilters(parts),
      requestTimeout(parts),
      retry(parts),
      pickEndpoint(parts),
    ],
    forward(parts),
  );

export interface RequestServer {
  readonly handler: Handler;
  readonly clock: Clock;
  readonly telemetry: Pick<Telemetry, 'requestStarted' | 'requestOver'>;
  readonly log: Pick<Log, 'error'>;
}

/** From an exchange's head to the last byte of its response, its line in the log included. */
export function serveRequest({ handler, clock, telemetry, log }: RequestServer, connection: Connection, exchange: ServerExchange): void {
  const request = new RequestContext(exchange, connection, { wall: clock.now(), monotonic: clock.monotonic() });
  telemetry.requestStarted();
  exchange.onClientGone((error) =>
    request.cancel(new ProxyError('CLIENT_GONE', `the client went away: ${error.message}`, { cause: error })),
  );
  finish(
    handler(request),
    (answer) => {
      request.answeredMonotonic = clock.monotonic();
      deliver(request, answer, (delivered) => telemetry.requestOver(request, delivered));
    },
    (reason) => {
      // A fault of ours: this request is lost, the worker goes on.
      log.error({ id: request.traceId, error: errorMessage(reason) }, 'response could not be delivered');
      exchange.abort(ProxyError.from(reason, 'CONNECTION_LOST', 'response could not be delivered'));
      request.over();
    },
  );
}
