/** What `meshctl top` shows, as text. */
import { table } from '../terminal.ts';
import type { Figures, Top } from './figures.ts';

export interface TopScreen extends Top {
  readonly windowSeconds: number;
  readonly proxies: number;
  readonly missing: readonly { readonly proxy: string; readonly reason: string }[];
}

const HEAD = ['RATE', 'SUCCESS', 'P50', 'P95', 'P99', 'IN', 'OUT', 'MTLS'];

export function topText({ windowSeconds, proxies, missing, services, edges, refusals }: TopScreen, width: number): string {
  const lines = [`${proxies} ${proxies === 1 ? 'proxy' : 'proxies'}, ${seconds(windowSeconds)} each`];
  for (const { proxy, reason } of missing) lines.push(`${proxy} did not answer: ${reason}`);
  if (services.length === 0) lines.push('', 'nothing was sent in this time');
  else {
    lines.push(
      '',
      table(
        ['SERVICE', ...HEAD],
        services.map(({ service, ...figures }) => [service, ...cells(figures)]),
        { gap: '  ', width },
      ),
      '',
      table(
        ['FROM', 'TO', ...HEAD],
        edges.map(({ source, destination, ...figures }) => [source, destination, ...cells(figures)]),
        { gap: '  ', width },
      ),
      '',
      'rps: requests, as a waypoint saw them; P50 to P99 until the end of the response',
      'cps: connections, as ztunnels saw them; P50 to P99 until the connection stood. IN is to the server',
    );
  }
  if (refusals.length > 0)
    lines.push('', ...refusals.map(({ code, policy, count }) => `${count} × ${code}${policy === '' ? '' : ` by ${policy}`}`));
  return lines.join('\n');
}

const cells = ({ protocol, rate, success, p50, p95, p99, in: bytesIn, out, mtls }: Figures): string[] => [
  `${rateText(rate)} ${protocol === 'http' ? 'rps' : 'cps'}`,
  success === undefined ? '-' : `${percent(success)}%`,
  ...[p50, p95, p99].map(milliseconds),
  `${bytes(bytesIn)}/s`,
  `${bytes(out)}/s`,
  mtls === 'unknown' ? '-' : mtls,
];

const seconds = (n: number): string => `${Math.round(n * 10) / 10} s`;
const rateText = (rate: number): string => (rate >= 100 ? rate.toFixed(0) : rate.toFixed(1));
/** Never rounded up to success. */
const percent = (share: number): string => (share === 1 ? '100' : String(Math.floor(share * 1000) / 10));

export function milliseconds(ms: number | undefined): string {
  if (ms === undefined) return '-';
  if (ms < 10) return `${Math.round(ms * 10) / 10}ms`;
  return ms < 10_000 ? `${Math.round(ms)}ms` : `${Math.round(ms / 100) / 10}s`;
}

export function bytes(n: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let unit = 0;
  let value = n;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${value >= 100 || unit === 0 ? Math.round(value) : Math.round(value * 10) / 10}${units[unit]}`;
}
