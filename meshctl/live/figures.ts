/**
 * Rates, success, latency and bytes of services and edges, from what proxies counted in a window. Pure.
 *
 * Each connection is counted by up to three proxies. A request is taken from the waypoint that carried it; a connection from the caller's
 * ztunnel, and from the called pod's where the caller has none. What a waypoint carries as requests is not shown as connections besides.
 */
import type { ProxyDelta, Series } from './counters.ts';

export interface Figures {
  /** `http`: requests; `tcp`: connections. */
  readonly protocol: 'http' | 'tcp';
  /** Requests or connections a second. */
  readonly rate: number;
  /** 0 to 1; undefined where there was none. */
  readonly success: number | undefined;
  /** Milliseconds: of requests from their head to the end of the response, of connections until they stand. */
  readonly p50: number | undefined;
  readonly p95: number | undefined;
  readonly p99: number | undefined;
  /** Bytes a second, from client to server and back. */
  readonly in: number;
  readonly out: number;
  readonly mtls: 'yes' | 'no' | 'partly' | 'unknown';
}

export interface EdgeFigures extends Figures {
  readonly source: string;
  readonly destination: string;
}

export interface ServiceFigures extends Figures {
  readonly service: string;
}

export interface Top {
  readonly services: readonly ServiceFigures[];
  readonly edges: readonly EdgeFigures[];
  /** Refused or failed in the window, by code and policy. */
  readonly refusals: readonly { readonly code: string; readonly policy: string; readonly count: number }[];
}

interface Sum {
  readonly source: string;
  readonly destination: string;
  readonly protocol: 'http' | 'tcp';
  rate: number;
  counted: number;
  failed: number;
  secure: number;
  in: number;
  out: number;
  readonly buckets: Map<number, number>;
}

/** Answers that say that the server, or what is in front of it, failed. */
const GRPC_FAILURES = new Set(['2', '4', '13', '14', '15']);

/** @param waypoints `namespace/workload` of each: what they open themselves is not shown */
export function figures(deltas: readonly ProxyDelta[], waypoints: ReadonlySet<string> = new Set(), namespace?: string): Top {
  const sums = new Map<string, Sum>();
  const refusals = new Map<string, { code: string; policy: string; count: number }>();
  const fromSource = new Set(
    deltas.flatMap(({ series }) => series.filter(({ labels }) => labels.reporter === 'source').map(({ labels }) => edgeKey('tcp', labels))),
  );
  const asking = new Set(
    deltas.flatMap(({ series }) => series.filter(({ family }) => family === 'istio_requests_total').map(({ labels }) => sourceOf(labels))),
  );
  for (const { kind, seconds, series } of deltas) {
    for (const each of series) {
      if (each.family === 'warren_refusals_total') {
        const { code = '', policy = '' } = each.labels;
        const known = refusals.get(`${code} ${policy}`);
        if (known) known.count += each.value;
        else refusals.set(`${code} ${policy}`, { code, policy, count: each.value });
        continue;
      }
      const protocol = each.family.startsWith('istio_re') ? 'http' : 'tcp';
      if (waypoints.has(sourceOf(each.labels))) continue;
      // A route may lead to another service than was called: the waypoint says which, and the connection to it is no call of its own.
      if (protocol === 'tcp' && kind === 'ztunnel' && asking.has(sourceOf(each.labels)) && waypoints.has(hopOf(each.labels))) continue;
      const key = edgeKey(protocol, each.labels);
      // Where the caller's ztunnel counts as well, it is the same connection.
      if (each.labels.reporter === 'destination' && fromSource.has(key)) continue;
      if (protocol === 'tcp' && kind === 'waypoint' && fromSource.has(key)) continue;
      let sum = sums.get(key);
      if (!sum) {
        sum = {
          source: sourceOf(each.labels),
          destination: destinationOf(each.labels),
          protocol,
          rate: 0,
          counted: 0,
          failed: 0,
          secure: 0,
          in: 0,
          out: 0,
          buckets: new Map(),
        };
        sums.set(key, sum);
      }
      add(sum, each, seconds);
    }
  }
  const carried = new Set(
    [...sums.values()].filter(({ protocol }) => protocol === 'http').map(({ source, destination }) => `${source} ${destination}`),
  );
  const shown = [...sums.values()].filter(
    ({ source, destination, protocol, counted, failed, in: bytesIn, out }) =>
      (protocol === 'http' || !carried.has(`${source} ${destination}`)) &&
      counted + failed + bytesIn + out > 0 &&
      (namespace === undefined || source.startsWith(`${namespace}/`) || destination.startsWith(`${namespace}/`)),
  );
  const byService = new Map<string, Sum>();
  for (const sum of shown) {
    const key = `${sum.protocol} ${sum.destination}`;
    const known = byService.get(key);
    if (known) merge(known, sum);
    else byService.set(key, { ...sum, buckets: new Map(sum.buckets) });
  }
  return {
    services: [...byService.values()].map((sum) => ({ service: sum.destination, ...figuresOf(sum) })).sort(byRate),
    edges: shown.map((sum) => ({ source: sum.source, destination: sum.destination, ...figuresOf(sum) })).sort(byRate),
    refusals: [...refusals.values()].map((each) => ({ ...each, count: Math.round(each.count) })).sort((a, b) => b.count - a.count),
  };
}

function add(sum: Sum, { family, labels, value }: Series, seconds: number): void {
  switch (family) {
    case 'istio_requests_total':
    case 'istio_tcp_connections_opened_total':
      sum.rate += value / seconds;
      sum.counted += value;
      if (labels.connection_security_policy === 'mutual_tls') sum.secure += value;
      if (family === 'istio_requests_total' && isFailure(labels)) sum.failed += value;
      break;
    case 'istio_tcp_connections_failed_total':
      sum.failed += value;
      break;
    case 'istio_tcp_received_bytes_total':
    case 'istio_request_bytes_sum':
      sum.in += value / seconds;
      break;
    case 'istio_tcp_sent_bytes_total':
    case 'istio_response_bytes_sum':
      sum.out += value / seconds;
      break;
    case 'istio_request_duration_milliseconds_bucket':
    case 'warren_tcp_connect_duration_milliseconds_bucket': {
      const bound = labels.le === '+Inf' ? Infinity : Number(labels.le);
      sum.buckets.set(bound, (sum.buckets.get(bound) ?? 0) + value);
    }
  }
}

function merge(into: Sum, from: Sum): void {
  into.rate += from.rate;
  into.counted += from.counted;
  into.failed += from.failed;
  into.secure += from.secure;
  into.in += from.in;
  into.out += from.out;
  for (const [bound, count] of from.buckets) into.buckets.set(bound, (into.buckets.get(bound) ?? 0) + count);
}

const isFailure = ({ response_code: code = '', grpc_response_status: grpc = '' }: Series['labels']): boolean =>
  code.startsWith('5') || GRPC_FAILURES.has(grpc);

function figuresOf({ protocol, rate, counted, failed, secure, in: bytesIn, out, buckets }: Sum): Figures {
  const all = Math.max(counted, failed);
  return {
    protocol,
    rate,
    success: all === 0 ? undefined : 1 - failed / all,
    p50: quantile(buckets, 0.5),
    p95: quantile(buckets, 0.95),
    p99: quantile(buckets, 0.99),
    in: bytesIn,
    out,
    mtls: counted === 0 ? 'unknown' : secure === 0 ? 'no' : secure >= counted ? 'yes' : 'partly',
  };
}

/** As Prometheus's histogram_quantile: within its bucket a value may lie anywhere. Beyond the last bound the bound is all that is known. */
export function quantile(buckets: ReadonlyMap<number, number>, q: number): number | undefined {
  const sorted = [...buckets].sort(([a], [b]) => a - b);
  const all = sorted.at(-1)?.[1] ?? 0;
  if (all === 0) return undefined;
  const rank = q * all;
  let lower = 0;
  let below = 0;
  for (const [bound, count] of sorted) {
    if (count >= rank) return bound === Infinity ? lower : lower + ((bound - lower) * (rank - below)) / Math.max(count - below, 1);
    lower = bound;
    below = count;
  }
  return lower;
}

const known = (name: string | undefined): name is string => name !== undefined && name !== '' && name !== 'unknown';

/** The workload at the other end of the tunnel. */
const hopOf = ({ destination_workload: workload, destination_workload_namespace: namespace }: Series['labels']): string =>
  `${namespace}/${workload}`;

/** `namespace/workload`. */
export const sourceOf = ({ source_workload: workload, source_workload_namespace: namespace }: Series['labels']): string =>
  known(workload) ? `${namespace}/${workload}` : 'outside the mesh';

/** The service, or the workload where its address was dialled. */
export function destinationOf(labels: Series['labels']): string {
  const { destination_service: host, destination_workload: workload, destination_workload_namespace: namespace } = labels;
  const [, name, serviceNamespace] = /^([^.]+)\.([^.]+)\.svc\./.exec(host ?? '') ?? [];
  if (name !== undefined && serviceNamespace !== undefined) return `${serviceNamespace}/${name}`;
  if (known(host)) return host;
  return known(workload) ? `${namespace}/${workload}` : 'outside the mesh';
}

const edgeKey = (protocol: string, labels: Series['labels']): string => `${protocol} ${sourceOf(labels)} ${destinationOf(labels)}`;

const byRate = (a: Figures, b: Figures): number => b.rate - a.rate || b.in + b.out - a.in - a.out;
