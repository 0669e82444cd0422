/**
 * RateLimitPolicy (`warren.dev/v1alpha1`, our own) → limits at waypoints. What cannot be read of a limit errs on the side of counting more: a
 * condition that is not known is left out, and so is what its buckets would be kept apart by; a limit without numbers is none, and said so.
 */
import type { Limit, Condition as LimitCondition } from '../../common/codec/gen/waypoint.ts';
import { isLimitCondition, limitAttribute } from '../../common/decision/rate-limit.ts';
import { addressMatch, pathMatch, textMatch } from './http-policy.ts';
import { durationMs } from './istio-values.ts';
import * as names from './names.ts';
import { annotationFlag, at, list, quote, type Report, readMeta, records, text, texts, whole } from './objects.ts';

export interface LimitPolicy {
  readonly limits: readonly Limit[];
  readonly dryRun: boolean;
  /** What differs from the policy as written, for its status. */
  readonly problem: string | undefined;
}

const MAX_LIMITS = 16;
const MAX_NUMBER = 1_000_000_000;
const MAX_PERIOD_MS = 31 * 86_400_000;

export function readLimitPolicy(object: unknown, report: Report): LimitPolicy {
  const problems: string[] = [];
  const found = new Map<string, Limit>();
  for (const [index, written] of records(at(object, 'spec', 'limits')).entries()) {
    const name = text(written.name) || `limit-${index}`;
    const problem = (message: string): void => void problems.push(`limit ${name}: ${message}`);
    if (found.has(name)) problem('there is another one of this name, which counts');
    else if (found.size >= MAX_LIMITS) problem(`it is beyond the first ${MAX_LIMITS}, and does not count`);
    else {
      const limit = readLimit(name, written, problem);
      if (limit) found.set(name, limit);
    }
  }
  if (found.size === 0 && problems.length === 0) problems.push('spec.limits has no limit');
  for (const message of problems) report(message);
  return {
    limits: [...found.values()],
    dryRun: annotationFlag(readMeta(object)?.annotations[names.DRY_RUN]) === true,
    problem: problems.length > 0 ? problems.join('; ') : undefined,
  };
}

function readLimit(name: string, written: Record<string, unknown>, problem: (message: string) => void): Limit | undefined {
  const requests = whole(written.requests);
  const periodMs = durationMs(written.per);
  const burst = written.burst === undefined ? requests : whole(written.burst);
  if (requests === undefined || requests < 1 || requests > MAX_NUMBER)
    problem(`requests: ${quote(written.requests)} is no number of requests`);
  else if (periodMs === undefined || periodMs < 1 || periodMs > MAX_PERIOD_MS)
    problem(`per: ${quote(written.per)} is no period up to 31 days`);
  else if (burst === undefined || burst < 1 || burst > MAX_NUMBER) problem(`burst: ${quote(written.burst)} is no number of requests`);
  else {
    return {
      name,
      requests,
      periodMs,
      burst,
      by: attributes(written.by, 'by', problem),
      fairBetween: attributes(written.fairBetween, 'fairBetween', problem),
      when: records(written.when).flatMap((condition) => readCondition(condition, problem) ?? []),
    };
  }
  return undefined;
}

function attributes(written: unknown, field: string, problem: (message: string) => void): string[] {
  const known = texts(written).filter((key) => limitAttribute(key) !== undefined);
  const unknown = list(written).filter((key) => !known.includes(text(key)));
  if (unknown.length > 0) problem(`${field}: ${unknown.map(quote).join(', ')} is nothing that buckets can be kept by, and left out`);
  return known;
}

/** @returns undefined where it is left out: then more is counted */
function readCondition(written: Record<string, unknown>, problem: (message: string) => void): LimitCondition | undefined {
  const key = text(written.key);
  if (!isLimitCondition(key)) {
    problem(`when: ${quote(written.key)} is not known, and left out`);
    return undefined;
  }
  const parse = key.endsWith('.ip') ? addressMatch : key === 'request.path' ? pathMatch : textMatch;
  const values = texts(written.values).flatMap((value) => parse(value) ?? []);
  const notValues = texts(written.notValues).flatMap((value) => parse(value) ?? []);
  if (
    values.length < list(written.values).length ||
    notValues.length < list(written.notValues).length ||
    values.length + notValues.length === 0
  ) {
    problem(`when: the values of ${key} cannot be read, and the condition is left out`);
    return undefined;
  }
  return { key, values, notValues };
}
