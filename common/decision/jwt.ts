/**
 * JSON Web Tokens (RFC 7519) in requests: where they are looked for, whether they are valid, and what of them policies, routes and backends get
 * to see. Keys are compiled when they come; a token costs one signature, which is remembered for as long as it holds.
 */
import { createPublicKey, type KeyObject, verify } from 'node:crypto';
import type { JwtAuthentication, JwtRule } from '../codec/gen/waypoint.ts';
import { claimValues } from './claims.ts';
import { fieldValue, type RoutedRequest } from './http-route.ts';

export interface CompiledJwtRule {
  readonly issuer: string;
  readonly audiences: readonly string[];
  readonly keys: readonly VerificationKey[];
  readonly locations: readonly TokenLocation[];
  readonly payloadHeader: string;
  readonly forwardToken: boolean;
  readonly claimHeaders: readonly { readonly header: string; readonly claim: readonly string[] }[];
}

export interface CompiledJwt {
  /** namespace/name. */
  readonly key: string;
  /** Services (namespace/hostname) that it holds for; undefined for everything that the waypoint serves. */
  readonly services: ReadonlySet<string> | undefined;
  readonly rules: readonly CompiledJwtRule[];
}

interface VerificationKey {
  readonly id: string | undefined;
  readonly algorithm: string | undefined;
  readonly type: string;
  readonly object: KeyObject;
}

type TokenLocation = { readonly header: string; readonly prefix: string } | { readonly parameter: string } | { readonly cookie: string };

/** What a valid token says. */
export interface VerifiedToken {
  /** ISSUER/SUBJECT; empty where it does not name both. */
  readonly principal: string;
  readonly audiences: readonly string[];
  /** `azp`. */
  readonly presenter: string;
  readonly claims: Readonly<Record<string, unknown>>;
  /** Of the token, as it was: base64url. */
  readonly payload: string;
  /** Seconds since 1970; undefined where it does not end. */
  readonly expiresAt: number | undefined;
}

export type JwtVerdict =
  | { readonly at: 'absent' }
  /** Tokens at these places are not for the backend. */
  | { readonly at: 'valid'; readonly token: VerifiedToken; readonly rule: CompiledJwtRule; readonly drop: readonly TokenLocation[] }
  /** 401, or 403 for a token that is good and for somebody else. */
  | { readonly at: 'refused'; readonly status: 401 | 403; readonly reason: string };

interface FoundToken {
  readonly text: string;
  readonly at: TokenLocation;
}

const DEFAULT_LOCATIONS: readonly TokenLocation[] = [{ header: 'authorization', prefix: 'Bearer ' }, { parameter: 'access_token' }];
/** A clock of an issuer may be so much ahead or behind (Envoy's default). */
const LEEWAY_S = 60;
const MAX_TOKEN = 16 << 10;
const MAX_KEYS = 100;

/** @throws {Error} that says which part cannot be used */
export function compileJwt(authentication: JwtAuthentication): CompiledJwt {
  const everything = authentication.targets.some(({ type }) => type?.$case === 'everything');
  return {
    key: `${authentication.namespace}/${authentication.name}`,
    services: everything
      ? undefined
      : new Set(authentication.targets.flatMap(({ type }) => (type?.$case === 'service' ? [type.value] : []))),
    rules: authentication.rules.map(compileRule),
  };
}

function compileRule(rule: JwtRule): CompiledJwtRule {
  const locations: TokenLocation[] = [
    ...rule.fromHeaders.map(({ name, prefix }) => ({ header: name.toLowerCase(), prefix })),
    ...rule.fromParams.map((parameter) => ({ parameter })),
    ...rule.fromCookies.map((cookie) => ({ cookie })),
  ];
  return {
    issuer: rule.issuer,
    audiences: rule.audiences,
    keys: rule.keys === '' ? [] : readKeys(rule.keys),
    locations: locations.length > 0 ? locations : DEFAULT_LOCATIONS,
    payloadHeader: rule.payloadHeader.toLowerCase(),
    forwardToken: rule.forwardToken,
    claimHeaders: rule.claimHeaders.map(({ header, claim }) => ({ header: header.toLowerCase(), claim: claim.split('.') })),
  };
}

/**
 * Public keys of a JSON Web Key Set (RFC 7517). Keys of kinds that are not used for signatures of tokens are passed over.
 * @throws {Error} where it is no key set, or has no key that can be used
 */
export function readKeys(text: string): VerificationKey[] {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    throw new Error('the key set is no JSON', { cause: error });
  }
  const list = typeof parsed === 'object' && parsed !== null && 'keys' in parsed && Array.isArray(parsed.keys) ? parsed.keys : undefined;
  if (!list) throw new Error('the key set has no list of keys');
  const keys = list.slice(0, MAX_KEYS).flatMap((key: unknown) => readKey(key) ?? []);
  if (keys.length === 0) throw new Error('the key set has no key for RSA, EC or Ed25519 signatures');
  return keys;
}

function readKey(key: unknown): VerificationKey | undefined {
  if (typeof key !== 'object' || key === null) return undefined;
  const { kty, kid, alg, use } = key as Record<string, unknown>;
  // A key that is shared, or for encryption, verifies nothing.
  if (typeof kty !== 'string' || !['RSA', 'EC', 'OKP'].includes(kty) || use === 'enc') return undefined;
  try {
    const object = createPublicKey({ key: key as Record<string, string>, format: 'jwk' });
    // Shorter ones prove nothing any more (RFC 7518, section 3.3).
    if (kty === 'RSA' && (object.asymmetricKeyDetails?.modulusLength ?? 0) < 2048) return undefined;
    return { id: typeof kid === 'string' ? kid : undefined, algorithm: typeof alg === 'string' ? alg : undefined, type: kty, object };
  } catch {
    // Some curve or size that this machine does not know: the others may do.
    return undefined;
  }
}

interface Algorithm {
  readonly type: 'RSA' | 'EC' | 'OKP';
  readonly hash: string | null;
  readonly curve?: string;
  readonly pss?: boolean;
}

/** RFC 7518, section 3.1. What is signed with a shared secret, or not at all, is never valid. */
const ALGORITHMS: Readonly<Record<string, Algorithm>> = {
  RS256: { type: 'RSA', hash: 'sha256' },
  RS384: { type: 'RSA', hash: 'sha384' },
  RS512: { type: 'RSA', hash: 'sha512' },
  PS256: { type: 'RSA', hash: 'sha256', pss: true },
  PS384: { type: 'RSA', hash: 'sha384', pss: true },
  PS512: { type: 'RSA', hash: 'sha512', pss: true },
  ES256: { type: 'EC', hash: 'sha256', curve: 'prime256v1' },
  ES384: { type: 'EC', hash: 'sha384', curve: 'secp384r1' },
  ES512: { type: 'EC', hash: 'sha512', curve: 'secp521r1' },
  EdDSA: { type: 'OKP', hash: null },
};

const PSS_PADDING = 6;
const SALT_AS_DIGEST = -1;

/** Remembers tokens whose signature was good, for one set of rules. */
export class TokenCache {
  readonly #tokens = new Map<string, { readonly rule: CompiledJwtRule; readonly token: VerifiedToken }>();

  get(text: string): { readonly rule: CompiledJwtRule; readonly token: VerifiedToken } | undefined {
    return this.#tokens.get(text);
  }

  set(text: string, entry: { readonly rule: CompiledJwtRule; readonly token: VerifiedToken }): void {
    const oldest = this.#tokens.keys().next();
    if (this.#tokens.size >= MAX_REMEMBERED && !oldest.done) this.#tokens.delete(oldest.value);
    this.#tokens.set(text, entry);
  }

  clear(): void {
    this.#tokens.clear();
  }
}

const MAX_REMEMBERED = 1000;

/**
 * A request without a token passes, and has no principal; each token that it brings must be one that some rule takes, since whoever reads it behind us
 * may read another than we. The first that is good speaks for the request.
 * @param now seconds since 1970
 */
export function authenticateJwt(rules: readonly CompiledJwtRule[], request: RoutedRequest, now: number, cache: TokenCache): JwtVerdict {
  let first: { readonly token: VerifiedToken; readonly rule: CompiledJwtRule } | undefined;
  const drop: TokenLocation[] = [];
  /** Why a token is refused; undefined for one that is good. */
  const judged = new Map<string, Refused | undefined>();
  for (const rule of rules) {
    for (const { text, at } of tokensOf(rule, request)) {
      if (judged.size >= MAX_TOKENS && !judged.has(text)) return { at: 'refused', status: 401, reason: `More than ${MAX_TOKENS} Jwts` };
      const known = cache.get(text);
      const result = known && known.rule === rule ? stillValid(known.token, now) : verifyToken(rule, text, now);
      if ('principal' in result) {
        cache.set(text, { rule, token: result });
        judged.set(text, undefined);
        first ??= { token: result, rule };
        if (!rule.forwardToken) drop.push(at);
        // Another rule's token is no fault of this rule's.
      } else if (!judged.has(text) || (judged.get(text) !== undefined && result.reason !== FOREIGN)) judged.set(text, result);
    }
  }
  for (const refused of judged.values()) if (refused) return { at: 'refused', ...refused };
  return first ? { at: 'valid', ...first, drop } : { at: 'absent' };
}

const MAX_TOKENS = 8;

type Refused = { readonly status: 401 | 403; readonly reason: string };

const FOREIGN = 'Jwt issuer is not configured';

const stillValid = (token: VerifiedToken, now: number): VerifiedToken | Refused =>
  token.expiresAt !== undefined && now >= token.expiresAt + LEEWAY_S ? { status: 401, reason: 'Jwt is expired' } : token;

/** In Envoy's words. */
export function verifyToken(rule: CompiledJwtRule, text: string, now: number): VerifiedToken | Refused {
  const refuse = (reason: string, status: 401 | 403 = 401): Refused => ({ status, reason });
  if (text.length > MAX_TOKEN) return refuse('Jwt is too long');
  const [header = '', payload = '', signature = '', ...rest] = text.split('.');
  if (rest.length > 0 || signature === '') return refuse('Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections');
  const [head, claims] = [jsonOf(header), jsonOf(payload)];
  if (!head) return refuse('Jwt header is an invalid JSON');
  if (!claims) return refuse('Jwt payload is an invalid JSON');
  if (!BASE64URL.test(signature)) return refuse('Jwt signature is an invalid Base64url encoded');
  if (rule.issuer !== '' && claims.iss !== rule.issuer) return refuse(FOREIGN);
  const { alg, kid, crit } = head;
  const algorithm = typeof alg === 'string' && Object.hasOwn(ALGORITHMS, alg) ? ALGORITHMS[alg] : undefined;
  if (!algorithm || crit !== undefined) return refuse('Jwt header [alg] field value is not supported');
  const bad = timeProblem(claims, now);
  if (bad !== undefined) return refuse(bad);
  const audiences = [claims.aud].flat().filter((one) => typeof one === 'string');
  if (rule.audiences.length > 0 && !rule.audiences.some((wanted) => audiences.some((one) => sameAudience(one, wanted)))) {
    return refuse('Audiences in Jwt are not allowed', 403);
  }
  const keys = rule.keys.filter((key) => fits(key, algorithm, typeof kid === 'string' ? kid : undefined, alg as string));
  if (keys.length === 0)
    return refuse(rule.keys.length === 0 ? 'Jwks remote fetch is failed' : "Jwks doesn't have key to match kid or alg from Jwt");
  const signed = Buffer.from(`${header}.${payload}`);
  const bytes = Buffer.from(signature, 'base64url');
  if (!keys.some((key) => isSigned(key, algorithm, signed, bytes))) return refuse('Jwt verification fails');
  return {
    principal: principalOf(claims),
    audiences,
    presenter: typeof claims.azp === 'string' ? claims.azp : '',
    claims,
    payload,
    expiresAt: typeof claims.exp === 'number' ? claims.exp : undefined,
  };
}

/** ISSUER/SUBJECT; empty where a token lacks one of them, so that no policy takes it for somebody (Istio, request.auth.principal). */
export const principalOf = ({ iss, sub }: Readonly<Record<string, unknown>>): string =>
  typeof iss === 'string' && typeof sub === 'string' && iss !== '' && sub !== '' ? `${iss}/${sub}` : '';

/** Slashes and schemes at the ends do not make another audience (Envoy). */
const sameAudience = (one: string, wanted: string): boolean => bareAudience(one) === bareAudience(wanted);
const bareAudience = (audience: string): string => audience.replace(/^https?:\/\//, '').replace(/\/$/, '');

function timeProblem({ exp, nbf, iat }: Readonly<Record<string, unknown>>, now: number): string | undefined {
  for (const time of [exp, nbf, iat]) {
    if (time !== undefined && (typeof time !== 'number' || !Number.isFinite(time) || time < 0)) return 'Jwt has a time that is none';
  }
  if (typeof exp === 'number' && now >= exp + LEEWAY_S) return 'Jwt is expired';
  return typeof nbf === 'number' && now < nbf - LEEWAY_S ? 'Jwt not yet valid' : undefined;
}

function fits(key: VerificationKey, algorithm: Algorithm, id: string | undefined, name: string): boolean {
  if (key.type !== algorithm.type || (key.algorithm !== undefined && key.algorithm !== name)) return false;
  if (id !== undefined && key.id !== undefined && key.id !== id) return false;
  return algorithm.curve === undefined || key.object.asymmetricKeyDetails?.namedCurve === algorithm.curve;
}

function isSigned({ object }: VerificationKey, { hash, pss, type }: Algorithm, signed: Buffer, signature: Buffer): boolean {
  try {
    if (type === 'EC') return verify(hash, signed, { key: object, dsaEncoding: 'ieee-p1363' }, signature);
    return verify(hash, signed, pss ? { key: object, padding: PSS_PADDING, saltLength: SALT_AS_DIGEST } : object, signature);
  } catch {
    // A signature of a wrong length, or one that the key cannot have made: not its own.
    return false;
  }
}

/** Without padding (RFC 7515, section 2). What decoders read over would be another token that means the same. */
const BASE64URL = /^[A-Za-z0-9_-]+$/;

function jsonOf(part: string): Record<string, unknown> | undefined {
  if (!BASE64URL.test(part)) return undefined;
  try {
    const value: unknown = JSON.parse(Buffer.from(part, 'base64url').toString());
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : undefined;
  } catch {
    // Whatever it is, it is no token.
    return undefined;
  }
}

function tokensOf(rule: CompiledJwtRule, { fields, path }: RoutedRequest): FoundToken[] {
  return rule.locations.flatMap((at) => tokensAt(at, fields, path).flatMap((text) => (text === '' ? [] : [{ text, at }])));
}

function tokensAt(at: TokenLocation, fields: readonly string[], path: string): readonly string[] {
  if ('parameter' in at) {
    const query = path.indexOf('?');
    return query < 0 ? [] : new URLSearchParams(path.slice(query + 1)).getAll(at.parameter);
  }
  if ('cookie' in at) {
    const pairs = (fieldValue(fields, 'cookie') ?? '').split(/[;,]/);
    return pairs.flatMap((pair) => (cookieName(pair) === at.cookie ? [pair.slice(pair.indexOf('=') + 1).trim()] : []));
  }
  const value = fieldValue(fields, at.header);
  // Schemes have no case (RFC 9110, section 11.1).
  if (value === undefined || value.slice(0, at.prefix.length).toLowerCase() !== at.prefix.toLowerCase()) return [];
  return [value.slice(at.prefix.length).trim()];
}

const cookieName = (pair: string): string | undefined => {
  const equals = pair.indexOf('=');
  return equals > 0 ? pair.slice(0, equals).trim() : undefined;
};

/** The request as its backend gets it: with what the token says, without the token, and without what a client wrote in the token's place. */
export function withToken(
  request: Pick<RoutedRequest, 'fields' | 'path'>,
  rules: readonly CompiledJwtRule[],
  verdict: JwtVerdict,
): { fields: string[]; path: string } {
  const ours = new Set(
    rules
      .flatMap((rule) => [rule.payloadHeader, ...rule.claimHeaders.map(({ header }) => header)])
      .filter((name) => name !== '')
      .map(withDashes),
  );
  const drop = verdict.at === 'valid' ? verdict.drop : [];
  const headers = new Set(drop.flatMap((at) => ('header' in at ? [at.header] : [])));
  const cookies = new Set(drop.flatMap((at) => ('cookie' in at ? [at.cookie] : [])));
  const fields: string[] = [];
  for (let i = 0; i < request.fields.length; i += 2) {
    const [name = '', value = ''] = [request.fields[i], request.fields[i + 1]];
    if (ours.has(withDashes(name)) || headers.has(name)) continue;
    const kept = cookies.size > 0 && name === 'cookie' ? withoutCookies(value, cookies) : value;
    if (kept !== '' || value === '') fields.push(name, kept);
  }
  if (verdict.at === 'valid') {
    const { rule, token } = verdict;
    if (rule.payloadHeader !== '') fields.push(rule.payloadHeader, token.payload);
    for (const { header, claim } of rule.claimHeaders) {
      const values = claimValues(token.claims, claim).filter((value) => PRINTABLE.test(value));
      if (values.length > 0) fields.push(header, values.join(','));
    }
  }
  let { path } = request;
  for (const at of drop) if ('parameter' in at) path = withoutParameter(path, at.parameter);
  return { fields, path };
}

/** Applications behind CGI and its kin take x_role for x-role. */
const withDashes = (name: string): string => (name.includes('_') ? name.replaceAll('_', '-') : name);

const withoutCookies = (value: string, names: ReadonlySet<string>): string =>
  value
    .split(/[;,]/)
    .filter((pair) => !names.has(cookieName(pair) ?? ''))
    .map((pair) => pair.trim())
    .join('; ');

/** What a field's value can be made of; a claim with anything else is left out. */
const PRINTABLE = /^[\x20-\x7e]*$/;

function withoutParameter(path: string, name: string): string {
  const query = path.indexOf('?');
  if (query < 0) return path;
  const kept = path
    .slice(query + 1)
    .split('&')
    .filter((pair) => decodeName(pair.split('=', 1)[0] ?? '') !== name);
  return kept.length === 0 ? path.slice(0, query) : `${path.slice(0, query)}?${kept.join('&')}`;
}

function decodeName(name: string): string {
  try {
    return decodeURIComponent(name.replaceAll('+', ' '));
  } catch {
    // Not well-formed, so not the parameter that was asked for.
    return name;
  }
}
