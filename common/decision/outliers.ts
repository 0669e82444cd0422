/**
 * Endpoints that fail too often in a row are left out for a while (Envoy, outlier detection; Istio, DestinationRule.outlierDetection). This is
 * what is remembered of each endpoint and when it changes; time is an argument.
 */
import type { OutlierDetection } from '../codec/gen/waypoint.ts';

export interface OutlierSettings {
  /** 0 is off; so with the other two. */
  readonly consecutive5xx: number;
  readonly consecutiveGatewayErrors: number;
  readonly consecutiveLocalFailures: number;
  readonly splitLocalErrors: boolean;
  readonly baseEjectionMs: number;
  readonly intervalMs: number;
  readonly maxEjectionPercent: number;
  readonly minHealthPercent: number;
}

/** Istio's defaults for what is left out. */
export function outlierSettings(detection: OutlierDetection): OutlierSettings {
  return {
    consecutive5xx: detection.consecutive5xx ?? 5,
    consecutiveGatewayErrors: detection.consecutiveGatewayErrors ?? 0,
    consecutiveLocalFailures: detection.consecutiveLocalFailures ?? 5,
    splitLocalErrors: detection.splitLocalErrors,
    baseEjectionMs: detection.baseEjectionMs || 30_000,
    intervalMs: detection.intervalMs || 10_000,
    maxEjectionPercent: detection.maxEjectionPercent || 10,
    minHealthPercent: detection.minHealthPercent,
  };
}

/** What came of a request at an endpoint. */
export type EndpointResult = 'ok' | 'server-error' | 'gateway-error' | 'local-failure';

export const resultOfStatus = (status: number): EndpointResult => {
  if (status < 500) return 'ok';
  return status === 502 || status === 503 || status === 504 ? 'gateway-error' : 'server-error';
};

/** One endpoint's record. */
export class EndpointHealth {
  #serverErrors = 0;
  #gatewayErrors = 0;
  #localFailures = 0;
  #ejectedUntil = 0;
  /** Times that it was ejected of late: each makes the next ejection longer. */
  #times = 0;
  #healthySince = 0;

  isEjected(now: number): boolean {
    return now < this.#ejectedUntil;
  }

  get ejectedUntil(): number {
    return this.#ejectedUntil;
  }

  /** @returns whether it has failed often enough to be ejected */
  record(result: EndpointResult, settings: OutlierSettings): boolean {
    if (result === 'ok') {
      this.#serverErrors = 0;
      this.#gatewayErrors = 0;
      this.#localFailures = 0;
      return false;
    }
    if (result === 'local-failure' && settings.splitLocalErrors) {
      this.#localFailures++;
      return reached(this.#localFailures, settings.consecutiveLocalFailures);
    }
    // Without the split a failure of ours counts as the 503 that it becomes.
    this.#serverErrors++;
    if (result === 'server-error') this.#gatewayErrors = 0;
    else this.#gatewayErrors++;
    return reached(this.#serverErrors, settings.consecutive5xx) || reached(this.#gatewayErrors, settings.consecutiveGatewayErrors);
  }

  eject(now: number, settings: OutlierSettings): void {
    // For each interval that it was well, one ejection of the past is forgiven.
    const forgiven = this.#healthySince === 0 ? 0 : Math.floor((now - this.#healthySince) / settings.intervalMs);
    this.#times = Math.max(0, this.#times - forgiven) + 1;
    this.#ejectedUntil = now + Math.min(this.#times * settings.baseEjectionMs, Math.max(LONGEST_EJECTION_MS, settings.baseEjectionMs));
    this.#healthySince = this.#ejectedUntil;
    this.#serverErrors = 0;
    this.#gatewayErrors = 0;
    this.#localFailures = 0;
  }
}

const LONGEST_EJECTION_MS = 300_000;

const reached = (count: number, limit: number): boolean => limit > 0 && count >= limit;

/** Whether one more may be ejected. One may always, however few there are (Envoy). */
export const mayEject = (ejected: number, size: number, { maxEjectionPercent }: OutlierSettings): boolean =>
  ejected === 0 ? maxEjectionPercent > 0 : ((ejected + 1) * 100) / size <= maxEjectionPercent;
