/**
 * Further attempts. What was certainly not handled is sent to another endpoint without being asked for it; what may have been handled is
 * sent again where the route says so, or where the method is idempotent and an idle connection went away under it (RFC 9110 §9.2.2).
 */
import type { Clock } from '../../common/base/clock.ts';
import { sleep } from '../../common/base/clock.ts';
import type { Log } from '../../common/base/log.ts';
import type { HttpRule } from '../../common/codec/gen/waypoint.ts';
import { AttemptFailed } from './attempt.ts';
import type { Answer, RequestContext, Stage } from './context.ts';

export interface RetryParts {
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Pick<Log, 'debug'>;
  /** Whether the request's backend has an endpoint that has not refused it. */
  hasOthers(request: RequestContext): boolean;
  /** A further attempt was made. */
  retried?(): void;
}

/** Endpoints that a request is offered to because those before did not take it. */
const MAX_REFUSALS = 4;
const DEFAULT_BACKOFF_MS = 25;
const LONGEST_BACKOFF_MS = 10_000;
const IDEMPOTENT: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PUT', 'DELETE']);

export function retry(parts: RetryParts): Stage {
  return (next) => (request) => {
    const attempts = new Attempts(parts, request, next);
    return attempts.run();
  };
}

class Attempts {
  readonly #parts: RetryParts;
  readonly #request: RequestContext;
  readonly #next: (request: RequestContext) => Promise<Answer>;
  readonly #policy: HttpRule['retry'];
  /** That the route's policy has asked for. */
  #retries = 0;
  #refusals = 0;
  #freshTried = false;

  constructor(parts: RetryParts, request: RequestContext, next: (request: RequestContext) => Promise<Answer>) {
    this.#parts = parts;
    this.#request = request;
    this.#next = next;
    this.#policy = request.entry?.rule.retry;
  }

  async run(): Promise<Answer> {
    for (;;) {
      this.#request.attempts++;
      try {
        const answer = await this.#next(this.#request);
        if (!this.#mayAskAgain(answer)) return answer;
        answer.body?.cancel();
      } catch (reason) {
        const waitFirst = this.#afterFailure(reason);
        if (waitFirst === undefined) throw reason;
        if (!waitFirst) {
          this.#parts.retried?.();
          continue;
        }
      }
      this.#retries++;
      this.#parts.retried?.();
      await sleep(this.#parts.clock, this.#backoffMs(), this.#request.signal);
    }
  }

  /** An answer whose status the policy wants to be retried. */
  #mayAskAgain({ head }: Answer): boolean {
    return this.#hasRetry() && (this.#policy?.statusCodes.includes(head.status) ?? false);
  }

  /** @returns whether to wait before the next attempt; undefined where there is none */
  #afterFailure(reason: unknown): boolean | undefined {
    const request = this.#request;
    if (request.cancelled || !(reason instanceof AttemptFailed) || !request.body.replayable) return undefined;
    const { unsent, reused, error } = reason;
    const key = request.endpoint?.key;
    this.#parts.log.debug({ id: request.traceId, attempt: request.attempts, endpoint: key, error: error.message }, 'attempt failed');
    // An idle connection that the endpoint closed just then says nothing about the endpoint.
    if (reused && !this.#freshTried && (unsent || (error.code === 'CONNECTION_LOST' && IDEMPOTENT.has(request.received.method)))) {
      this.#freshTried = true;
      request.freshConnection = true;
      return false;
    }
    if (unsent && key !== undefined && this.#refusals < MAX_REFUSALS) {
      request.refusedBy.add(key);
      if (this.#parts.hasOthers(request)) {
        this.#refusals++;
        return false;
      }
    }
    if (!this.#hasRetry()) return undefined;
    if (key !== undefined) request.refusedBy.add(key);
    return true;
  }

  #hasRetry(): boolean {
    return this.#policy !== undefined && this.#retries < this.#policy.attempts && this.#request.body.replayable && !this.#request.cancelled;
  }

  /** At least what the route says; doubled each time, and spread so that many clients do not come back at once. */
  #backoffMs(): number {
    const first = this.#policy?.backoffMs || DEFAULT_BACKOFF_MS;
    return Math.min(first * 2 ** (this.#retries - 1), Math.max(first, LONGEST_BACKOFF_MS)) * (1 + this.#parts.random() / 2);
  }
}
