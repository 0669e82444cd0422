/**
 * Asks the API server whose service-account token this is. Answers are kept for a short time, since a node's ztunnel shows the same token for
 * each of its pods' certificates; questions under way are shared, and only so many run at once. Where the API server cannot be asked, an answer
 * that it gave within the last minutes is good: its absence must not keep proxies from coming back and certificates from being renewed.
 * @see Istio: security/pkg/server/ca/authenticate/kubeauth
 */
import { createHash } from 'node:crypto';
import { type Clock, minutes, seconds } from '../../common/base/clock.ts';
import { type KubeApi, KubeApiError } from '../../common/client/kube-api.ts';

/** Whose token it is. */
export interface Caller {
  readonly namespace: string;
  readonly serviceAccount: string;
  /** The pod that the token is bound to; empty for tokens of no pod. */
  readonly podName: string;
  readonly podUid: string;
}

export type TokenVerdict = { readonly caller: Caller } | { readonly refuse: string };

/** Too many tokens are being looked at; the caller should come back. */
export class TooManyReviews extends Error {
  constructor() {
    super('too many tokens are being reviewed');
    this.name = 'TooManyReviews';
  }
}

export interface TokenReviewerOptions {
  readonly api: Pick<KubeApi, 'create'>;
  readonly audiences: readonly string[];
  readonly clock: Clock;
  reviewed(outcome: 'accepted' | 'refused' | 'failed'): void;
}

const ACCEPTED_FOR_MS = seconds(60);
// Short, because a token may become good: its pod was not there yet.
const REFUSED_FOR_MS = seconds(5);
const GOOD_WITHOUT_SERVER_MS = minutes(15);
const MAX_KEPT = 10_000;
const MAX_AT_ONCE = 16;
const MAX_WAITING = 2000;

interface Kept {
  readonly verdict: TokenVerdict;
  readonly until: number;
  /** Where the API server is away; both monotonic milliseconds. */
  readonly goodUntil: number;
}

export class TokenReviewer {
  readonly #options: TokenReviewerOptions;
  readonly #kept = new Map<string, Kept>();
  readonly #asking = new Map<string, Promise<TokenVerdict>>();
  readonly #waiting: (() => void)[] = [];
  #running = 0;

  constructor(options: TokenReviewerOptions) {
    this.#options = options;
  }

  /** @throws {TooManyReviews}; what the API server throws where it cannot be asked */
  async review(token: string): Promise<TokenVerdict> {
    // The token itself is not kept: who reads our memory shall not find what opens other doors.
    const key = createHash('sha256').update(token).digest('base64');
    const kept = this.#kept.get(key);
    if (kept && kept.until > this.#options.clock.monotonic()) return kept.verdict;
    const asking = this.#asking.get(key) ?? this.#ask(token).finally(() => this.#asking.delete(key));
    this.#asking.set(key, asking);
    try {
      const verdict = await asking;
      this.#keep(key, verdict, expiryOf(token));
      return verdict;
    } catch (error) {
      if (kept && isAway(error) && kept.goodUntil > this.#options.clock.monotonic()) return kept.verdict;
      throw error;
    }
  }

  async #ask(token: string): Promise<TokenVerdict> {
    await this.#turn();
    try {
      const { audiences } = this.#options;
      const review = await this.#options.api.create<TokenReview>('/apis/authentication.k8s.io/v1/tokenreviews', {
        apiVersion: 'authentication.k8s.io/v1',
        kind: 'TokenReview',
        spec: { token, audiences },
      });
      const verdict = readReview(review, audiences);
      this.#options.reviewed('caller' in verdict ? 'accepted' : 'refused');
      return verdict;
    } catch (error) {
      this.#options.reviewed('failed');
      throw error;
    } finally {
      this.#running--;
      this.#waiting.shift()?.();
    }
  }

  async #turn(): Promise<void> {
    if (this.#running >= MAX_AT_ONCE) {
      if (this.#waiting.length >= MAX_WAITING) throw new TooManyReviews();
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
    this.#running++;
  }

  #keep(key: string, verdict: TokenVerdict, expiresAt: number): void {
    const { clock } = this.#options;
    const left = Math.max(0, expiresAt - clock.now());
    const now = clock.monotonic();
    const accepted = 'caller' in verdict;
    this.#kept.delete(key);
    this.#kept.set(key, {
      verdict,
      until: now + (accepted ? Math.min(ACCEPTED_FOR_MS, left) : REFUSED_FOR_MS),
      goodUntil: now + (accepted ? Math.min(GOOD_WITHOUT_SERVER_MS, left) : 0),
    });
    // The oldest first: a Map keeps the order of insertion.
    for (const oldest of this.#kept.keys()) {
      if (this.#kept.size <= MAX_KEPT) break;
      this.#kept.delete(oldest);
    }
  }
}

/** It could not be reached, or says itself that it cannot answer; a refusal is an answer. */
const isAway = (error: unknown): boolean =>
  error instanceof KubeApiError ? error.status >= 500 || error.status === 429 : !(error instanceof TooManyReviews);

interface TokenReview {
  readonly status?: {
    readonly authenticated?: boolean;
    readonly error?: string;
    readonly audiences?: readonly string[];
    readonly user?: {
      readonly username?: string;
      readonly groups?: readonly string[];
      readonly extra?: Readonly<Record<string, readonly string[]>>;
    };
  };
}

function readReview({ status = {} }: TokenReview, audiences: readonly string[]): TokenVerdict {
  if (!status.authenticated) return { refuse: status.error || 'the token is not valid' };
  // An API server that knows no audiences answers without them, and has then checked only its own.
  if (!status.audiences?.some((audience) => audiences.includes(audience)))
    return { refuse: `the token is not for ${audiences.join(' or ')}` };
  const { username = '', groups = [], extra = {} } = status.user ?? {};
  if (!groups.includes('system:serviceaccounts')) return { refuse: `${username || 'the caller'} is no service account` };
  const match = /^system:serviceaccount:([^:]+):([^:]+)$/.exec(username);
  if (!match?.[1] || !match[2]) return { refuse: `${username || 'the caller'} is no service account` };
  return {
    caller: {
      namespace: match[1],
      serviceAccount: match[2],
      podName: extra['authentication.kubernetes.io/pod-name']?.[0] ?? '',
      podUid: extra['authentication.kubernetes.io/pod-uid']?.[0] ?? '',
    },
  };
}

/** `exp` of the token in milliseconds, unverified: it only shortens how long a verified answer is kept. */
function expiryOf(token: string): number {
  try {
    const claims = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString('utf8')) as { exp?: unknown };
    return typeof claims.exp === 'number' ? claims.exp * 1000 : Infinity;
  } catch {
    // Not a JWT: the API server knows what it is.
    return Infinity;
  }
}
