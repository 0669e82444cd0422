/** What each connected proxy last said about itself, and its latest refusals: what `meshctl status` reads. Bounded for each proxy. */
import type { ProxyReport, ProxyStatus, Refusal } from '../../common/codec/gen/diagnostics.ts';

/** One row of /debug/proxies. */
export interface ProxyRow extends Omit<ProxyStatus, 'soonestExpiry'> {
  /** Seconds since 1970; 0 where the proxy has no certificate. */
  readonly soonestExpiry: number;
  readonly refusals: readonly RefusalRow[];
}

export interface RefusalRow extends Omit<Refusal, 'timeMs'> {
  readonly timeMs: number;
}

const MAX_REFUSALS = 50;

export class ProxyReports {
  readonly #proxies = new Map<symbol, { status: ProxyStatus | undefined; refusals: RefusalRow[] }>();

  /** @returns takes reports of this stream, and what ends it */
  connect(): { take(report: ProxyReport): void; leave(): void } {
    const key = Symbol();
    const proxy: { status: ProxyStatus | undefined; refusals: RefusalRow[] } = { status: undefined, refusals: [] };
    this.#proxies.set(key, proxy);
    return {
      take({ status, refusals }) {
        if (status) proxy.status = status;
        proxy.refusals = [...proxy.refusals, ...refusals.map((refusal) => ({ ...refusal, timeMs: Number(refusal.timeMs) }))].slice(
          -MAX_REFUSALS,
        );
      },
      leave: () => void this.#proxies.delete(key),
    };
  }

  rows(): ProxyRow[] {
    return [...this.#proxies.values()].flatMap(({ status, refusals }) =>
      status ? [{ ...status, soonestExpiry: Number(status.soonestExpiry), refusals }] : [],
    );
  }
}
