/**
 * What an L7 policy says about a connection that carries no HTTP. A rule of an ALLOW that asks for something of HTTP cannot hold, so it
 * allows nothing; a rule of a DENY refuses by the rest of what it asks for, because otherwise speaking no HTTP would be the way around it. An AUDIT
 * tells by the rest as well (Istio, pilot/pkg/security/authz/builder).
 */
import type { CompiledAuthorization, CompiledOperation } from './http-model.ts';

type Rule = CompiledAuthorization['rules'][number];

export function transportPart(policy: CompiledAuthorization): CompiledAuthorization {
  const rules = policy.action === 'ALLOW' ? policy.rules.flatMap(allowPart) : policy.rules.map(denyPart);
  // No server is asked about bytes: what CUSTOM would ask about is refused.
  const action = policy.action === 'CUSTOM' ? 'DENY' : policy.action;
  return { ...policy, action, rules };
}

function allowPart(rule: Rule): Rule[] {
  const to = rule.to.filter((operation) => !asksForHttp(operation));
  const from = rule.from.filter(
    ({ requestPrincipals, notRequestPrincipals }) => requestPrincipals.length + notRequestPrincipals.length === 0,
  );
  if ((to.length === 0 && rule.to.length > 0) || (from.length === 0 && rule.from.length > 0)) return [];
  return rule.when.some(({ key }) => isHttpKey(key)) ? [] : [{ ...rule, from, to }];
}

const denyPart = (rule: Rule): Rule => ({
  ...rule,
  from: rule.from.map((source) => ({ ...source, requestPrincipals: [], notRequestPrincipals: [] })),
  to: rule.to.map((operation) => ({ ...operation, ...NO_HTTP })),
  when: rule.when.filter(({ key }) => !isHttpKey(key)),
});

const NO_HTTP = { hosts: [], notHosts: [], methods: [], notMethods: [], paths: [], notPaths: [] } as const;

const asksForHttp = (operation: CompiledOperation): boolean =>
  Object.keys(NO_HTTP).some((field) => operation[field as keyof typeof NO_HTTP].length > 0);

const isHttpKey = (key: string): boolean => key.startsWith('request.');
