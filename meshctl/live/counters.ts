/** Counters of all proxies, asked of each where it reports; two pictures of them make rates. */
import { errorMessage } from '../../common/base/errors.ts';
import { type Istiod, idOf, type ReportingProxy } from '../istiod.ts';

export interface Series {
  readonly family: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

export interface Picture {
  readonly proxies: ReadonlyMap<string, ProxyCounters>;
  /** Proxies that did not answer, and why. */
  readonly missing: readonly { readonly proxy: string; readonly reason: string }[];
}

export interface ProxyCounters {
  readonly kind: ReportingProxy['kind'];
  readonly timeMs: number;
  readonly series: readonly Series[];
}

/** An istiod waits for sixteen answers at once, and others ask as well. */
const AT_ONCE = 6;

const EDGE = [
  'reporter',
  'source_workload',
  'source_workload_namespace',
  'destination_service',
  'destination_service_name',
  'destination_service_namespace',
  'destination_workload',
  'destination_workload_namespace',
  'connection_security_policy',
];

const COUNTERS = [
  'istio_requests_total',
  'istio_tcp_connections_opened_total',
  'istio_tcp_connections_failed_total',
  'istio_tcp_received_bytes_total',
  'istio_tcp_sent_bytes_total',
  'istio_request_bytes_sum',
  'istio_response_bytes_sum',
  'warren_refusals_total',
];
const COUNTER_LABELS = [...EDGE, 'response_code', 'grpc_response_status', 'source_principal', 'destination_principal', 'code', 'policy'];
/** Asked for by themselves: with the labels of the counters they would be many. */
const HISTOGRAMS = ['istio_request_duration_milliseconds_bucket', 'warren_tcp_connect_duration_milliseconds_bucket'];
const HISTOGRAM_LABELS = [...EDGE, 'le'];

export async function takePicture(
  istiod: Istiod,
  proxies: readonly ReportingProxy[],
  { latencies }: { latencies: boolean },
): Promise<Picture> {
  const found = new Map<string, ProxyCounters>();
  const missing: { proxy: string; reason: string }[] = [];
  let next = 0;
  const ask = async (): Promise<void> => {
    for (let proxy = proxies[next++]; proxy; proxy = proxies[next++]) {
      try {
        const of = proxy;
        const page = (family: string[], label: string[]): Promise<{ timeMs: number; series: Series[] }> =>
          istiod.at(of, '/debug/proxy/counters', { family, label });
        const [counters, histograms] = await Promise.all([
          page(COUNTERS, COUNTER_LABELS),
          latencies ? page(HISTOGRAMS, HISTOGRAM_LABELS) : { series: [] },
        ]);
        found.set(idOf(of), { kind: of.kind, timeMs: counters.timeMs, series: [...counters.series, ...histograms.series] });
      } catch (error) {
        missing.push({ proxy: idOf(proxy), reason: errorMessage(error) });
      }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, ask));
  return { proxies: found, missing };
}

/** What was counted between the two, each with how many seconds that was. A proxy that is new, or began anew, counts from nothing. */
export function difference(before: Picture, after: Picture): ProxyDelta[] {
  return [...after.proxies].flatMap(([id, now]) => {
    const then = before.proxies.get(id);
    // Nobody knows since when a proxy counts that was not there before.
    if (!then) return [];
    const earlier = new Map(then.series.map((series) => [keyOf(series), series.value]));
    const seconds = Math.max(0.001, (now.timeMs - then.timeMs) / 1000);
    const series = now.series.flatMap((each) => {
      const old = earlier.get(keyOf(each)) ?? 0;
      const grown = each.value < old ? each.value : each.value - old;
      return grown > 0 ? [{ ...each, value: grown }] : [];
    });
    return [{ kind: now.kind, seconds, series }];
  });
}

/** Everything that was counted so far, as the difference to nothing. */
export const total = (picture: Picture): ProxyDelta[] =>
  [...picture.proxies.values()].map(({ kind, series }) => ({ kind, seconds: 1, series }));

export interface ProxyDelta {
  readonly kind: ReportingProxy['kind'];
  readonly seconds: number;
  readonly series: readonly Series[];
}

const keyOf = ({ family, labels }: Series): string => `${family} ${JSON.stringify(labels)}`;
