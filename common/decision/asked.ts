/** What policies and routes look at in a request beside its method, host and path: what the decision journal keeps of it, and no more. */
import type { CompiledAuthorization, CompiledRoutes } from './http-model.ts';

export interface Asked {
  /** Names in lower case. */
  readonly headers: readonly string[];
  readonly query: readonly string[];
  /** Names from the outermost in. */
  readonly claims: readonly (readonly string[])[];
  readonly principal: boolean;
  readonly audiences: boolean;
  readonly presenter: boolean;
}

export const NOTHING_ASKED: Asked = { headers: [], query: [], claims: [], principal: false, audiences: false, presenter: false };

/** Values that are secrets whatever a rule makes of them. */
export const SECRET_HEADERS: ReadonlySet<string> = new Set(['authorization', 'proxy-authorization', 'cookie', 'set-cookie']);

/** Names of claims may have dots in them. */
export const claimKey = (names: readonly string[]): string => JSON.stringify(names);

export function askedBy(policies: readonly CompiledAuthorization[], routes: CompiledRoutes | undefined): Asked {
  const headers = new Set<string>();
  const query = new Set<string>();
  const claims = new Map<string, readonly string[]>();
  const of = new Set<string>();
  for (const { rules } of policies) {
    for (const { from, when } of rules) {
      if (from.some(({ requestPrincipals, notRequestPrincipals }) => requestPrincipals.length + notRequestPrincipals.length > 0))
        of.add('requestPrincipal');
      for (const { attribute } of when) {
        if (attribute === undefined) continue;
        if ('header' in attribute) headers.add(attribute.header);
        else if ('claim' in attribute) claims.set(claimKey(attribute.claim), attribute.claim);
        else if ('query' in attribute) query.add(attribute.query);
        else of.add(attribute.of);
      }
    }
  }
  for (const entries of routes?.ports.values() ?? []) {
    for (const { match } of entries) {
      for (const { name } of [...match.headers, ...(match.more?.withoutHeaders ?? [])]) headers.add(name.toLowerCase());
      for (const { name } of match.queryParams) query.add(name);
    }
  }
  return {
    headers: [...headers].sort(),
    query: [...query].sort(),
    claims: [...claims.values()],
    principal: of.has('requestPrincipal'),
    audiences: of.has('audiences'),
    presenter: of.has('presenter'),
  };
}
