/** Values as Istio's networking types write them: durations of protobuf, string matches, percentages, hosts, and to whom an object is exported. */
import { errorMessage } from '../../common/base/errors.ts';
import type { ValueMatch } from '../../common/codec/gen/waypoint.ts';
import { compileRegex } from '../../common/decision/http-model.ts';
import { at, isRecord, quote, texts } from './objects.ts';

/** `1.5s`, `3m`, `1h2m`: what Go and protobuf write. @returns undefined for what is none */
export function durationMs(value: unknown): number | undefined {
  if (typeof value !== 'string' || !/^(?:[0-9]+(?:\.[0-9]+)?(?:h|ms|us|ns|m|s))+$/.test(value)) return undefined;
  let total = 0;
  for (const [, number = '', unit = ''] of value.matchAll(/([0-9.]+)(h|ms|us|ns|m|s)/g)) total += Number(number) * (UNITS[unit] ?? 0);
  return Math.min(Math.ceil(total), MOST_MS);
}

const UNITS: Readonly<Record<string, number>> = { h: 3_600_000, m: 60_000, s: 1000, ms: 1, us: 0.001, ns: 0.000001 };
const MOST_MS = 0xffff_ffff;

/** Takes why something cannot be carried out. */
export type Problems = string[];

/** 0 where there is none. @param problems takes what is no duration */
export function optionalDurationMs(value: unknown, field: string, problems: Problems): number {
  if (value === undefined || value === null) return 0;
  const read = durationMs(value);
  if (read === undefined) problems.push(`${field}: ${quote(value)} is no duration`);
  return read ?? 0;
}

/** `{exact}`, `{prefix}` or `{regex}`; nothing of them is presence. */
export function stringMatch(name: string, value: unknown, field: string, problems: Problems): ValueMatch {
  if (isRecord(value)) {
    const { exact, prefix, regex } = value;
    if (typeof exact === 'string') return { name, type: { $case: 'exact', value: exact } };
    if (typeof prefix === 'string') return { name, type: { $case: 'prefix', value: prefix } };
    if (typeof regex === 'string') {
      checkRegex(regex, field, problems);
      return { name, type: { $case: 'regex', value: regex } };
    }
  }
  return { name, type: { $case: 'presence', value: {} } };
}

/** A waypoint refuses a table with an expression that it cannot compile, and with it everybody else's routes. */
export function checkRegex(value: string, field: string, problems: Problems): void {
  try {
    compileRegex(value, field);
  } catch (error) {
    problems.push(errorMessage(error));
  }
}

const MILLION = 1_000_000;

/** `{value: 0.1}` is a tenth of a per cent. */
export function perMillion(percentage: unknown, fallback: number): number {
  const value = at(percentage, 'value');
  if (isRecord(percentage) && value === undefined) return 0;
  if (typeof value !== 'number' || !Number.isFinite(value)) return fallback;
  return Math.round(Math.min(Math.max(value, 0), 100) * (MILLION / 100));
}

/** A host as it is meant: a name without a dot is a Service of the object's own namespace. */
export function fullHost(host: string, namespace: string, domain: string): string {
  const lower = host.toLowerCase();
  return lower.includes('.') || lower === '*' || lower === '' ? lower : `${lower}.${namespace}.svc.${domain}`;
}

/** Whether a host, which may begin with `*`, stands for a hostname. */
export const hostCovers = (host: string, hostname: string): boolean =>
  host === hostname || host === '*' || (host.startsWith('*.') && hostname.endsWith(host.slice(1)));

/** Whether an object of `namespace` may be seen from another one. */
export function isExported(exportTo: readonly string[], namespace: string, to: string): boolean {
  if (exportTo.length === 0) return true;
  return exportTo.some((name) => name === '*' || name === to || (name === '.' && namespace === to));
}

export const exportsOf = (object: unknown): readonly string[] => texts(at(object, 'spec', 'exportTo'));
