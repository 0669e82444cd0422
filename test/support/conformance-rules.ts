/** Where we differ from Istio on purpose (design decision 13): what each rule makes of an expectation. A rule that changes one names itself. */
import { isDeepStrictEqual } from 'node:util';

type Json = Record<string, unknown>;

export const L7_DENY_RULE = 'L7-only DENY at L4 is enforced as DENY of its L4 part';
export const ABSENT_WAYPOINT_RULE = 'absent waypoint refuses';

/** @param policy in config_dump's shape: a match without fields is one that ztunnel never makes */
export function denyWithoutEmptyClauses(policy: Json, applied: Set<string>): Json {
  if (policy.action !== 'Deny' || !Array.isArray(policy.rules)) return policy;
  const kept = policy.rules.map((rule: readonly unknown[]) =>
    rule.filter((clause) => !(Array.isArray(clause) && clause.some(isEmptyMatch))),
  );
  if (!isDeepStrictEqual(kept, policy.rules)) applied.add(L7_DENY_RULE);
  return { ...policy, rules: kept };
}

const isEmptyMatch = (match: unknown): boolean => match !== null && typeof match === 'object' && Object.keys(match).length === 0;
