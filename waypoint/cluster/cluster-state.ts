/**
 * What a service's port (or a subset of it) is remembered by from one picture of the mesh to the next: its settings as they are now, what is
 * under way there against its limits, and which of its endpoints were put aside for failing.
 */
import { type EndpointResult, mayEject } from '../../common/decision/outliers.ts';
import type { CompiledPolicy } from '../../common/decision/traffic-model.ts';
import type { EndpointState } from './endpoint-state.ts';

/** What happens to endpoints, for whoever counts. */
export interface ClusterEvents {
  ejected(cluster: string, endpoint: string): void;
}

export class ClusterState {
  /** `namespace/hostname:port`, and `/subset` where there is one. */
  readonly name: string;
  policy: CompiledPolicy | undefined;
  /** Requests under way; those of them that wait for a connection; further attempts under way; connections. */
  requests = 0;
  pending = 0;
  retries = 0;
  connections = 0;
  /** Endpoints of the newest picture. */
  size = 0;
  /** Counts ejections, so that whoever keeps a list of usable ones sees that it is old. */
  ejections = 0;
  /** Of the monotonic clock: none is ejected any more then. */
  ejectedUntil = 0;
  readonly #events: ClusterEvents;
  readonly #share: number;
  #ejected: EndpointState[] = [];

  /** @param share of the limits that one worker has: 1 where there is one worker */
  constructor(name: string, share: number, events: ClusterEvents) {
    this.name = name;
    this.#share = share;
    this.#events = events;
  }

  /** This worker's part of a limit; Infinity where there is none. */
  limit(of: 'maxConnections' | 'maxPendingRequests' | 'maxRequests' | 'maxRetries'): number {
    const whole = this.policy?.pool?.[of] ?? 0;
    return whole === 0 ? Number.POSITIVE_INFINITY : Math.ceil(whole * this.#share);
  }

  /** What came of a request there. */
  report(endpoint: string, state: EndpointState, result: EndpointResult, now: number): void {
    const outliers = this.policy?.outliers;
    if (!outliers || !state.health.record(result, outliers) || state.health.isEjected(now)) return;
    this.#ejected = this.#ejected.filter(({ health }) => health.isEjected(now));
    if (!mayEject(this.#ejected.length, this.size, outliers)) return;
    state.health.eject(now, outliers);
    this.#ejected.push(state);
    this.ejections++;
    this.ejectedUntil = Math.max(this.ejectedUntil, state.health.ejectedUntil);
    this.#events.ejected(this.name, endpoint);
  }

  /** Endpoints that are put aside just now. */
  ejectedCount(now: number): number {
    return this.#ejected.filter(({ health }) => health.isEjected(now)).length;
  }

  /** Whether one more attempt is within the budget; without one, within max_retries. */
  mayRetry(): boolean {
    const budget = this.policy?.retryBudget;
    if (!budget) return this.retries < this.limit('maxRetries');
    return this.retries < Math.max(Math.ceil(budget.minConcurrency * this.#share), (this.requests * budget.percent) / 100);
  }
}
