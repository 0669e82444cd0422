/**
 * Further attempts. What was certainly not handled is sent to another endpoint without being asked for it; what may have been handled is
 * sent again where the route says so, or where the method is idempotent and an idle connection went away under it (RFC 9110 §9.2.2).
 */
import type { Clock } from '../../common/base/clock.ts';
import { sleep } from '../../common/base/clock.ts';
import type { Log } from '../../common/base/log.ts';
import { fieldValue } from '../../common/decision/http-route.ts';
import type { RetryPlan } from '../../common/decision/http-rule.ts';
import type { ClusterState } from '../cluster/cluster-state.ts';
import { AttemptFailed } from './attempt.ts';
import type { Answer, Handler, RequestContext, Stage } from './context.ts';
import { follow } from './later.ts';

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
    request.attempts++;
    const first = attemptOf(next, request);
    // Nearly every request takes one attempt, which should cost no more than itself.
    if (!request.entry?.plan.retry)
      return follow(first, undefined, (reason) => new Attempts(parts, request, next).run(Promise.reject(reason)));
    return new Attempts(parts, request, next).run(first);
  };
}

class Attempts {
  readonly #parts: RetryParts;
  readonly #request: RequestContext;
  readonly #next: Handler;
  readonly #plan: RetryPlan | undefined;
  /** That the route's policy has asked for. */
  #retries = 0;
  #refusals = 0;
  #freshTried = false;
  /** Where the attempt under way counts as a retry. */
  #countedAt: ClusterState | undefined;

  constructor(parts: RetryParts, request: RequestContext, next: Handler) {
    this.#parts = parts;
    this.#request = request;
    this.#next = next;
    this.#plan = request.entry?.plan.retry;
  }

  /** @param attempt the first one, under way */
  async run(attempt: PromiseLike<Answer>): Promise<Answer> {
    for (;;) {
      let waitMs: number;
      try {
        const answer = await attempt;
        this.#uncount();
        if (!this.#mayAskAgain(answer)) return answer;
        const askedMs = askedWaitMs(answer, this.#parts.clock.now());
        if (askedMs > LONGEST_BACKOFF_MS || !this.#count()) return answer;
        waitMs = Math.max(this.#backoffMs(), askedMs);
        answer.body?.cancel();
        this.#avoidEndpoint();
      } catch (reason) {
        this.#uncount();
        const waitFirst = this.#afterFailure(reason);
        if (waitFirst === undefined || (waitFirst && !this.#count())) throw reason;
        if (!waitFirst) {
          this.#parts.retried?.();
          attempt = this.#again();
          continue;
        }
        waitMs = this.#backoffMs();
      }
      this.#retries++;
      this.#parts.retried?.();
      try {
        await sleep(this.#parts.clock, waitMs, this.#request.signal);
      } catch (reason) {
        this.#uncount();
        throw reason;
      }
      attempt = this.#again();
    }
  }

  #again(): PromiseLike<Answer> {
    this.#request.attempts++;
    return attemptOf(this.#next, this.#request);
  }

  /** An answer whose status the policy wants to be retried. */
  #mayAskAgain({ head }: Answer): boolean {
    const plan = this.#plan;
    if (!plan || !this.#hasRetry()) return false;
    if (plan.statuses.has(head.status)) return true;
    if (plan.grpcStatuses.size === 0) return false;
    const grpc = fieldValue(head.fields, 'grpc-status');
    return grpc !== undefined && plan.grpcStatuses.has(grpc);
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
      // Where the route's policy would ask again by itself, this is one of the attempts that it allows.
      if (this.#hasRetry() && (unsent ? this.#plan?.onConnectFailure : this.#plan?.onReset)) this.#retries++;
      return false;
    }
    // Whoever asks for no attempts at all means these too.
    if (unsent && key !== undefined && this.#refusals < MAX_REFUSALS && this.#plan?.attempts !== 0) {
      request.avoid(key);
      if (this.#parts.hasOthers(request)) {
        this.#refusals++;
        return false;
      }
    }
    if (!this.#hasRetry() || !(unsent ? this.#plan?.onConnectFailure : this.#plan?.onReset)) return undefined;
    this.#avoidEndpoint();
    return true;
  }

  #avoidEndpoint(): void {
    const key = this.#request.endpoint?.key;
    if (key !== undefined && this.#plan?.sameEndpoint !== true) this.#request.avoid(key);
  }

  #hasRetry(): boolean {
    return this.#plan !== undefined && this.#retries < this.#plan.attempts && this.#request.body.replayable && !this.#request.cancelled;
  }

  /** @returns whether the cluster's budget has room for one more */
  #count(): boolean {
    const cluster = this.#request.endpoint?.cluster;
    if (!cluster) return true;
    if (!cluster.mayRetry()) return false;
    cluster.retries++;
    this.#countedAt = cluster;
    return true;
  }

  #uncount(): void {
    if (this.#countedAt) this.#countedAt.retries--;
    this.#countedAt = undefined;
  }

  /** At least what the route says; doubled each time, and spread so that many clients do not come back at once. */
  #backoffMs(): number {
    const first = this.#plan?.backoffMs || DEFAULT_BACKOFF_MS;
    return Math.min(first * 2 ** this.#retries, Math.max(first, LONGEST_BACKOFF_MS)) * (1 + this.#parts.random() / 2);
  }
}

/** What a stage throws at once fails the attempt as what it rejects does. */
function attemptOf(next: Handler, request: RequestContext): PromiseLike<Answer> {
  try {
    return next(request);
  } catch (reason) {
    return Promise.reject(reason);
  }
}

/**
 * What a backend that is asked too often says of the next time: Retry-After, in seconds or as a date (RFC 9110 §10.2.3), else
 * X-RateLimit-Reset, in seconds or as the time that it will be (Envoy, rate_limited_retry_back_off). 0 where it says nothing that can be read.
 */
function askedWaitMs({ head }: Answer, nowMs: number): number {
  if (head.status !== 429 && head.status !== 503) return 0;
  const after = fieldValue(head.fields, 'retry-after');
  const text = after ?? fieldValue(head.fields, 'x-ratelimit-reset') ?? '';
  if (/^\d{1,10}$/.test(text)) {
    const seconds = Number(text);
    return seconds < TIMES_FROM_S ? seconds * 1000 : Math.max(0, seconds * 1000 - nowMs);
  }
  const date = after === undefined ? Number.NaN : Date.parse(after);
  return Number.isFinite(date) ? Math.max(0, date - nowMs) : 0;
}

/** More seconds than anybody waits: a time since 1970. */
const TIMES_FROM_S = 1_000_000_000;
