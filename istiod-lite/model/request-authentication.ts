/**
 * RequestAuthentication → rules for end users' tokens at waypoints. Keys are written into the object, or fetched from where it says; which keys
 * there are at the moment is an argument. A rule whose keys are not there is sent all the same: no token of its issuer is valid then.
 */
import type { JwtAuthentication, JwtRule, Target } from '../../common/codec/gen/waypoint.ts';
import { readKeys } from '../../common/decision/jwt.ts';
import { at, isRecord, quote, type Report, records, text, texts } from './objects.ts';

export interface TokenPolicy {
  readonly rules: readonly TokenRule[];
  readonly problem: string | undefined;
}

export interface TokenRule {
  readonly rule: JwtRule;
  /** Where the keys come from; empty where they are in the object. */
  readonly keysFrom: string;
}

/** What is known of the keys at an address; `discover ISSUER` stands for the issuer's own word on where they are. */
export interface FetchedKeys {
  readonly keys?: string;
  readonly problem?: string;
}

export type KeysAt = (address: string) => FetchedKeys | undefined;

export function readTokenPolicy(object: unknown, report: Report): TokenPolicy {
  const problems: string[] = [];
  const rules = records(at(object, 'spec', 'jwtRules')).map((rule, index) =>
    readRule(rule, (message) => {
      report(`spec.jwtRules[${index}]: ${message}`);
      problems.push(`rule ${index}: ${message}`);
    }),
  );
  return { rules, problem: problems.length > 0 ? problems.join('; ') : undefined };
}

function readRule(written: Record<string, unknown>, report: Report): TokenRule {
  const issuer = text(written.issuer);
  if (issuer === '') report('no issuer, so no token is valid');
  const inline = text(written.jwks);
  const address = text(written.jwksUri) || text(written.jwks_uri);
  let keys = '';
  if (inline !== '') {
    try {
      readKeys(inline);
      keys = inline;
    } catch (error) {
      report(`jwks: ${error instanceof Error ? error.message : quote(inline)}: no token is valid`);
    }
  }
  const headers = records(written.fromHeaders).map(({ name, prefix }) => ({ name: text(name), prefix: text(prefix) }));
  const claims = records(written.outputClaimToHeaders).map(({ header, claim }) => ({ header: text(header), claim: text(claim) }));
  return {
    rule: {
      // Without one, any issuer would do.
      issuer: issuer === '' ? 'none' : issuer,
      audiences: [...texts(written.audiences)],
      keys,
      fromHeaders: headers.filter(({ name }) => name !== ''),
      fromParams: [...texts(written.fromParams)],
      fromCookies: [...texts(written.fromCookies)],
      payloadHeader: text(written.outputPayloadToHeader),
      forwardToken: written.forwardOriginalToken === true,
      claimHeaders: claims.filter(({ header, claim }) => header !== '' && claim !== ''),
    },
    keysFrom: inline !== '' || issuer === '' ? '' : address !== '' ? address : `${DISCOVER}${issuer}`,
  };
}

/** Goes before an issuer whose own document says where its keys are (OpenID Connect Discovery, section 4). */
export const DISCOVER = 'discover ';

export const keySources = ({ rules }: TokenPolicy): string[] => rules.flatMap(({ keysFrom }) => (keysFrom === '' ? [] : [keysFrom]));

export function tokenResource(
  about: { readonly namespace: string; readonly name: string },
  { rules }: TokenPolicy,
  targets: readonly Target[],
  keysAt: KeysAt,
): JwtAuthentication {
  return {
    namespace: about.namespace,
    name: about.name,
    targets: [...targets],
    rules: rules.map(({ rule, keysFrom }) => (keysFrom === '' ? rule : { ...rule, keys: keysAt(keysFrom)?.keys ?? '' })),
  };
}

/** What its status says beside its targets: which keys are missing, and why. */
export function tokenProblem({ rules, problem }: TokenPolicy, keysAt: KeysAt): string | undefined {
  const missing = rules.flatMap(({ keysFrom, rule }) => {
    if (keysFrom === '') return [];
    const found = keysAt(keysFrom);
    if (found?.keys !== undefined) return [];
    return [
      `the keys of ${rule.issuer} ${found?.problem === undefined ? 'are not fetched yet' : `cannot be fetched (${found.problem})`}: no token of it is valid`,
    ];
  });
  const all = [...(problem === undefined ? [] : [problem]), ...missing];
  return all.length > 0 ? all.join('; ') : undefined;
}

export const hasTargets = (object: unknown): boolean =>
  isRecord(at(object, 'spec', 'targetRef')) || records(at(object, 'spec', 'targetRefs')).length > 0;
