/** What waypoints enforce on account of policies that name their targets, rule by rule. */
import { type BackendTls, backendTlsConditions } from './backend-tls-policy.ts';
import type { Condition } from './conditions.ts';
import {
  byCondition,
  type CoverageView,
  eachRule,
  type Judge,
  narrowed,
  nowhere,
  type RuleCoverage,
  together,
  type Verdict,
} from './coverage-view.ts';
import { at, records } from './objects.ts';
import { readTargetedPolicy, type TargetedKind, type TargetedPolicy, targetConditions, targetSource } from './policy-targets.ts';
import { hasTargets } from './request-authentication.ts';

/** An AuthorizationPolicy with targets. */
export const waypointPolicyRules: Judge = (view, object) =>
  eachRule(object, 'rules', (item, rule) => {
    const part = item === undefined ? object : narrowed(object, { rules: [item] });
    return targeted(view, 'AuthorizationPolicy', rule, part, (policy, waypoints) => {
      const { http } = policy;
      if (http?.enforced && http.dryRun) return nowhere('a dry run: it is logged what it would refuse, and nothing is refused');
      return byCondition(view.translation.policies.condition(policy), waypoints);
    });
  });

/** A RequestAuthentication: each issuer. */
export const tokenRules: Judge = (view, object) =>
  eachRule(object, 'jwtRules', (item, rule) => {
    if (!hasTargets(object)) return line(rule, nowhere('only targetRefs are read: without them it holds for nothing here'));
    if (item === undefined) return line(rule, nowhere('it has no jwtRules, so it asks for nothing'));
    return targeted(view, 'RequestAuthentication', rule, narrowed(object, { jwtRules: [item] }), (policy, waypoints) => {
      const condition = view.translation.policies.condition(policy);
      // Alone it is the first one, and its line says which one it is.
      return byCondition({ ...condition, message: condition.message.replaceAll('rule 0: ', '') }, waypoints);
    });
  });

/** A RateLimitPolicy: each limit. Whether one counts depends on those before it, so each is what it adds to them. */
export const limitRules: Judge = (view, object) => {
  const before = { limits: 0, problem: '' };
  const items = records(at(object, 'spec', 'limits'));
  return eachRule(object, 'limits', (_, rule, index) => {
    if (!hasTargets(object)) return line(rule, nowhere('without targetRefs it limits nothing'));
    return targeted(view, 'RateLimitPolicy', rule, narrowed(object, { limits: items.slice(0, index + 1) }), (whole, waypoints) => {
      const { limits = [], problem = '', dryRun = false } = whole.limits ?? {};
      const own = { limits: limits.slice(before.limits), problem: problem.slice(before.problem.length).replace(/^; /, ''), dryRun };
      before.limits = limits.length;
      before.problem = problem;
      if (dryRun) return nowhere('a dry run: it is counted what it would refuse, and nothing is refused');
      const policy = { ...whole, limits: { ...own, problem: own.problem === '' ? undefined : own.problem } };
      return byTargets(view, policy, waypoints);
    });
  });
};

/** A BackendTLSPolicy: each target, as it has nothing else that could be enforced for itself. */
export const tlsRules: Judge = (view, object) =>
  eachRule(object, 'targetRefs', (item, rule) => {
    if (item === undefined) return line(rule, nowhere('it has no targetRefs'));
    return targeted(view, 'BackendTLSPolicy', rule, narrowed(object, { targetRefs: [item] }), (policy) => {
      const waypoints = policy.targets.flatMap((target) => {
        const source = targetSource(target);
        const users = view.servicesOfSource(source).flatMap((service) => [...view.inputs.usersOf(service)]);
        return [...view.translation.bindings.waypointsOf(source), ...users];
      });
      return byTargets(view, policy, [...new Set(waypoints)], policy.tls);
    });
  });

const line = (rule: string, verdict: Verdict): RuleCoverage => ({ rule, services: [], ...verdict });

/** The part of a policy that is one rule, judged. */
function targeted(
  view: CoverageView,
  kind: TargetedKind,
  rule: string,
  part: unknown,
  judge: (policy: TargetedPolicy, waypoints: readonly string[]) => Verdict,
): RuleCoverage {
  const policy = readTargetedPolicy(part, () => undefined, kind);
  if (!policy) return line(rule, nowhere('its targets cannot be read'));
  const waypoints = view.translation.policies.waypointsOf(policy);
  return { rule, services: view.servicesOfTargets(policy.targets, waypoints), ...judge(policy, waypoints) };
}

/** Of kinds whose status has an entry for each target. */
function byTargets(view: CoverageView, policy: TargetedPolicy, waypoints: readonly string[], tls?: BackendTls): Verdict {
  const found = tls && backendTlsConditions(tls, (source) => view.inputs.certificates.at(source));
  return together(
    policy.targets.map((target) => {
      const status = view.translation.policies.targetStatus(policy, target);
      const [accepted] = targetConditions(policy, found?.problem && status.bound ? { ...found.problem, bound: false } : status);
      const conditions = [accepted, found?.resolved].filter((one): one is Condition => one !== undefined);
      const wrong = conditions.find((one) => one.status !== 'True');
      if (wrong === undefined || accepted?.status !== 'True') return byCondition(accepted ?? MISSING, waypoints);
      // Accepted, and something that it refers to is not there.
      return byCondition({ ...wrong, status: 'True' }, waypoints);
    }),
  );
}

const MISSING: Condition = { type: 'Accepted', status: 'False', reason: 'Pending', message: 'nothing is known of it' };
