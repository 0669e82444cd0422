/** Tokens of every wrong kind, each with its status and its reason, and those that are odd and good. */
import assert from 'node:assert/strict';
import { createHmac, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { test } from 'node:test';
import type { JwtRule } from '../../../common/codec/gen/waypoint.ts';
import { authenticateJwt, type CompiledJwtRule, compileJwt, readKeys, TokenCache, withToken } from '../../../common/decision/jwt.ts';

const NOW = 1_800_000_000;
const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
const other = generateKeyPairSync('rsa', { modulusLength: 2048 });
const weak = generateKeyPairSync('rsa', { modulusLength: 1024 });
const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const jwk = (key: KeyObject, more: object): object => ({ ...key.export({ format: 'jwk' }), ...more });
const KEYS = JSON.stringify({ keys: [jwk(rsa.publicKey, { kid: 'r' }), jwk(ec.publicKey, { kid: 'e' })] });

const part = (value: unknown): string => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');
type Signer = (bytes: Buffer) => Buffer;
const byRsa: Signer = (bytes) => sign('sha256', bytes, rsa.privateKey);
const byEc: Signer = (bytes) => sign('sha256', bytes, { key: ec.privateKey, dsaEncoding: 'ieee-p1363' });
const CLAIMS = { iss: 'me', sub: 'ada', aud: 'shop', exp: NOW + 100 };

/** Header and claims as objects, or as JSON text. */
const token = (header: unknown, claims: unknown = CLAIMS, signer: Signer = byRsa): string => {
  const signed = `${part(header)}.${part(claims)}`;
  return `${signed}.${signer(Buffer.from(signed)).toString('base64url')}`;
};
const RS = { alg: 'RS256', kid: 'r' };
const ES = { alg: 'ES256', kid: 'e' };
const good = token(RS);
const [head = '', payload = '', signature = ''] = good.split('.');

const ruleOf = (more: Partial<JwtRule> = {}): readonly CompiledJwtRule[] =>
  compileJwt({
    namespace: 'n',
    name: 'n',
    targets: [{ type: { $case: 'everything', value: {} } }],
    rules: [
      {
        issuer: 'me',
        audiences: ['shop'],
        keys: KEYS,
        fromHeaders: [],
        fromParams: [],
        fromCookies: [],
        payloadHeader: '',
        forwardToken: false,
        claimHeaders: [],
        ...more,
      },
    ],
  }).rules;

const asked = (fields: string[], path = '/') => ({ method: 'GET', scheme: 'http', authority: 'shop', path, fields });
const judge = (rules: readonly CompiledJwtRule[], fields: string[], path = '/'): string => {
  const verdict = authenticateJwt(rules, asked(fields, path), NOW, new TokenCache());
  return verdict.at === 'refused'
    ? `${verdict.status} ${verdict.reason}`
    : verdict.at === 'valid'
      ? `valid ${verdict.token.principal}`
      : 'absent';
};
const bearer = (text: string): string[] => ['authorization', `Bearer ${text}`];

const FORM = '401 Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections';
const ALG = '401 Jwt header [alg] field value is not supported';
const HEADER = '401 Jwt header is an invalid JSON';
const PAYLOAD = '401 Jwt payload is an invalid JSON';
const SIGNATURE = '401 Jwt signature is an invalid Base64url encoded';
const FAILS = '401 Jwt verification fails';
const NO_KEY = "401 Jwks doesn't have key to match kid or alg from Jwt";
const ISSUER = '401 Jwt issuer is not configured';
const TIME = '401 Jwt has a time that is none';
const AUDIENCE = '403 Audiences in Jwt are not allowed';
const VALID = 'valid me/ada';

const publicPem = rsa.publicKey.export({ format: 'pem', type: 'spki' });
const publicDer = rsa.publicKey.export({ format: 'der', type: 'spki' });
const zeros: Signer = () => Buffer.alloc(64);

const ROWS: readonly (readonly [what: string, text: string, expected: string])[] = [
  ['a good one', good, VALID],
  // Algorithms.
  ['alg none, no signature', `${part({ alg: 'none' })}.${payload}.`, FORM],
  ['alg none, some signature', token({ alg: 'none' }), ALG],
  ['alg NONE in other letters', token({ alg: 'nOnE' }), ALG],
  ['no alg', token({ kid: 'r' }), ALG],
  ['alg that is no text', token({ alg: ['RS256'], kid: 'r' }), ALG],
  ['alg of the prototype', token({ alg: 'toString', kid: 'r' }), ALG],
  ['alg in lower case', token({ alg: 'rs256', kid: 'r' }), ALG],
  [
    'HS256 with the public key as PEM',
    token({ alg: 'HS256', kid: 'r' }, CLAIMS, (b) => createHmac('sha256', publicPem).update(b).digest()),
    ALG,
  ],
  [
    'HS256 with the public key as DER',
    token({ alg: 'HS256', kid: 'r' }, CLAIMS, (b) => createHmac('sha256', publicDer).update(b).digest()),
    ALG,
  ],
  ['HS512 with nothing', token({ alg: 'HS512', kid: 'r' }, CLAIMS, (b) => createHmac('sha512', '').update(b).digest()), ALG],
  ['ES256 that names an RSA key', token({ alg: 'ES256', kid: 'r' }, CLAIMS, byEc), NO_KEY],
  ['RS256 that names an EC key', token({ alg: 'RS256', kid: 'e' }), NO_KEY],
  ['PS256 over a PKCS #1 signature', token({ alg: 'PS256', kid: 'r' }), FAILS],
  ['RS384 over a SHA-256 signature', token({ alg: 'RS384', kid: 'r' }), FAILS],
  ['ES256', token(ES, CLAIMS, byEc), VALID],
  ['ES256 with a signature in DER', token(ES, CLAIMS, (bytes) => sign('sha256', bytes, ec.privateKey)), FAILS],
  ['ES256 with a signature of zeros', token(ES, CLAIMS, zeros), FAILS],
  ['ES256 with a signature too long', token(ES, CLAIMS, (bytes) => Buffer.concat([byEc(bytes), Buffer.alloc(1)])), FAILS],
  // Keys.
  ['a kid that nobody has', token({ alg: 'RS256', kid: 'x' }), NO_KEY],
  ['a kid that is a path', token({ alg: 'RS256', kid: '../../dev/null' }), NO_KEY],
  ['a kid that is SQL', token({ alg: 'RS256', kid: "' OR '1'='1" }), NO_KEY],
  ['no kid: every key of the kind is tried', token({ alg: 'RS256' }), VALID],
  ['a kid that is no text counts as none', token({ alg: 'RS256', kid: 7 }), VALID],
  ["somebody else's key", token(RS, CLAIMS, (bytes) => sign('sha256', bytes, other.privateKey)), FAILS],
  ['a jwk in the header', token({ ...RS, jwk: jwk(other.publicKey, {}) }, CLAIMS, (b) => sign('sha256', b, other.privateKey)), FAILS],
  ['a jku in the header', token({ ...RS, jku: 'http://10.0.0.1/keys' }, CLAIMS, (b) => sign('sha256', b, other.privateKey)), FAILS],
  ['an x5u in the header', token({ ...RS, x5u: 'http://10.0.0.1/c.pem' }, CLAIMS, (b) => sign('sha256', b, other.privateKey)), FAILS],
  ['an x5c in the header', token({ ...RS, x5c: ['MIIB'] }, CLAIMS, (b) => sign('sha256', b, other.privateKey)), FAILS],
  ['a good one with all of them', token({ ...RS, jwk: jwk(other.publicKey, {}), jku: 'http://x', x5u: 'http://x' }), VALID],
  // The header's other fields.
  ['a crit header', token({ ...RS, crit: ['exp'], exp: 1 }), ALG],
  ['an empty crit header', token({ ...RS, crit: [] }), ALG],
  ['an unencoded payload', token({ ...RS, b64: false, crit: ['b64'] }), ALG],
  ['alg twice, the last one none', token('{"alg":"RS256","kid":"r","alg":"none"}'), ALG],
  ['alg twice, the last one good', token('{"alg":"none","kid":"r","alg":"RS256"}'), VALID],
  // Encoding.
  ['nothing but a word', 'token', FORM],
  ['two sections', `${head}.${payload}`, FORM],
  ['four sections', `${good}.x`, FORM],
  ['an encrypted token (JWE)', `${part({ alg: 'RSA-OAEP', enc: 'A256GCM' })}.a.b.c.d`, FORM],
  ['a token in a token', token({ ...RS, cty: 'JWT' }, good), PAYLOAD],
  ['a header with padding', `${head}=.${payload}.${signature}`, HEADER],
  ['a header of base64 with + and /', `${Buffer.from('{"a":"??>>"}').toString('base64')}.${payload}.${signature}`, HEADER],
  ['a header that is a list', token([RS]), HEADER],
  ['a header that is null', token('null'), HEADER],
  ['a payload that is no JSON', token(RS, '{"iss":"me"'), PAYLOAD],
  ['a payload that is text', token(RS, '"me"'), PAYLOAD],
  ['a payload with a space in it', `${head}.${payload.slice(0, 4)} ${payload.slice(4)}.${signature}`, PAYLOAD],
  ['a signature with padding', `${good}==`, SIGNATURE],
  ['a signature with what decoders read over', `${head}.${payload}.${signature.slice(0, 9)}!${signature.slice(9)}`, SIGNATURE],
  ['a signature of standard base64', `${head}.${payload}.${signature.slice(0, 9)}+${signature.slice(10)}`, SIGNATURE],
  ['a signature cut short', good.slice(0, -4), FAILS],
  ['an oversized one', token(RS, { ...CLAIMS, filler: 'x'.repeat(20_000) }), '401 Jwt is too long'],
  ['a quote around it', `"${good}"`, HEADER],
  // Claims.
  ['another issuer', token(RS, { ...CLAIMS, iss: 'you' }), ISSUER],
  ['no issuer', token(RS, { ...CLAIMS, iss: undefined }), ISSUER],
  ['a list of issuers', token(RS, { ...CLAIMS, iss: ['me'] }), ISSUER],
  ['two issuers: the last one counts', token(RS, '{"iss":"me","iss":"you","sub":"ada","aud":"shop"}'), ISSUER],
  ['another audience', token(RS, { ...CLAIMS, aud: 'bank' }), AUDIENCE],
  ['no audience', token(RS, { ...CLAIMS, aud: undefined }), AUDIENCE],
  ['an audience that is an object', token(RS, { ...CLAIMS, aud: { shop: true } }), AUDIENCE],
  ['an audience among numbers', token(RS, { ...CLAIMS, aud: [1, null, 'shop'] }), VALID],
  ['expired', token(RS, { ...CLAIMS, exp: NOW - 61 }), '401 Jwt is expired'],
  ['expired at the beginning of time', token(RS, { ...CLAIMS, exp: 0 }), '401 Jwt is expired'],
  ['without an end', token(RS, { ...CLAIMS, exp: undefined }), VALID],
  ['an end that is text', token(RS, { ...CLAIMS, exp: String(NOW + 100) }), TIME],
  ['an end that is null', token(RS, { ...CLAIMS, exp: null }), TIME],
  ['an end before 1970', token(RS, { ...CLAIMS, exp: -1 }), TIME],
  ['an end beyond all numbers', token(RS, '{"iss":"me","sub":"ada","aud":"shop","exp":1e999}'), TIME],
  ['not yet valid', token(RS, { ...CLAIMS, nbf: NOW + 61 }), '401 Jwt not yet valid'],
  ['a beginning that is text', token(RS, { ...CLAIMS, nbf: 'now' }), TIME],
  ['a subject that is a number: nobody', token(RS, { ...CLAIMS, sub: 7 }), 'valid '],
  ['no subject: nobody', token(RS, { ...CLAIMS, sub: undefined }), 'valid '],
  ['an empty subject: nobody', token(RS, { ...CLAIMS, sub: '' }), 'valid '],
];

test('each token of a wrong kind has its status and its reason, and those that are odd and good are good', () => {
  const rules = ruleOf();
  for (const [what, text, expected] of ROWS) assert.equal(judge(rules, bearer(text)), expected, what);
});

test('a request with several tokens passes if each of them is good, wherever it is', () => {
  const rules = ruleOf({ fromHeaders: [{ name: 'authorization', prefix: 'Bearer ' }], fromParams: ['access_token'], fromCookies: ['sid'] });
  const bad = token(RS, { ...CLAIMS, exp: 1 });
  const otherGood = token(RS, { ...CLAIMS, sub: 'bob' });
  assert.equal(judge(rules, bearer(good), `/?access_token=${otherGood}`), VALID, 'the first speaks for the request');
  for (const [what, fields, path] of [
    ['a bad one behind a good one', bearer(good), `/?access_token=${bad}`],
    ['a good one behind a bad one', bearer(bad), `/?access_token=${good}`],
    ['a parameter twice', [], `/?access_token=${good}&access_token=${bad}`],
    ['a parameter twice, once in other writing', [], `/?access_token=${good}&%61ccess_token=${bad}`],
    ['a cookie twice', ['cookie', `sid=${good}; sid=${bad}`], '/'],
    ['two cookie fields', ['cookie', `sid=${good}`, 'cookie', `sid=${bad}`], '/'],
  ] as const) {
    assert.equal(judge(rules, [...fields], path), '401 Jwt is expired', what);
  }
  const [twice] = [[...bearer(good), ...bearer(otherGood)]];
  assert.equal(judge(rules, twice), FORM, 'two Authorization fields are one that makes no sense');
  assert.equal(judge(rules, ['authorization', `Bearer ${good}, Bearer ${otherGood}`]), FORM);
  const many = Array.from({ length: 9 }, (_, i) => `access_token=${token(RS, { ...CLAIMS, jti: i })}`).join('&');
  assert.equal(judge(rules, [], `/?${many}`), '401 More than 8 Jwts');
});

test('keys that are too short to prove anything are not used', () => {
  assert.throws(() => readKeys(JSON.stringify({ keys: [jwk(weak.publicKey, { kid: 'w' })] })), /no key/);
  const rules = ruleOf({ keys: JSON.stringify({ keys: [jwk(weak.publicKey, { kid: 'w' }), jwk(rsa.publicKey, { kid: 'r' })] }) });
  assert.equal(judge(rules, bearer(token({ alg: 'RS256', kid: 'w' }, CLAIMS, (bytes) => sign('sha256', bytes, weak.privateKey)))), NO_KEY);
  assert.equal(judge(rules, bearer(good)), VALID);
});

test('keys for encryption and shared secrets verify nothing', () => {
  const keys = {
    keys: [jwk(rsa.publicKey, { kid: 'r', use: 'enc' }), { kty: 'oct', k: 'c2VjcmV0', kid: 'r', alg: 'HS256' }, jwk(ec.publicKey, {})],
  };
  const rules = ruleOf({ keys: JSON.stringify(keys) });
  assert.equal(judge(rules, bearer(good)), NO_KEY);
  assert.equal(
    judge(rules, bearer(token({ alg: 'HS256', kid: 'r' }, CLAIMS, (b) => createHmac('sha256', 'secret').update(b).digest()))),
    ALG,
  );
});

const PLACES: readonly (readonly [
  what: string,
  rule: Partial<JwtRule>,
  fields: (text: string) => string[],
  path: (text: string) => string,
])[] = [
  ['the default header', {}, bearer, () => '/p?a=1'],
  ['the default parameter', {}, () => [], (text) => `/p?a=1&access_token=${text}`],
  ['a header with a prefix', { fromHeaders: [{ name: 'X-Token', prefix: 'jwt ' }] }, (text) => ['x-token', `jwt ${text}`], () => '/p?a=1'],
  ['a header without a prefix', { fromHeaders: [{ name: 'x-token', prefix: '' }] }, (text) => ['x-token', text], () => '/p?a=1'],
  ['a parameter', { fromParams: ['t'] }, () => [], (text) => `/p?a=1&t=${text}`],
  ['a cookie', { fromCookies: ['sid'] }, (text) => ['cookie', `b=2; sid=${text}; c=3`], () => '/p?a=1'],
  ['the only cookie', { fromCookies: ['sid'] }, (text) => ['cookie', `sid=${text}`], () => '/p?a=1'],
];

for (const [what, rule, fields, path] of PLACES) {
  test(`a token in ${what} is found there, not forwarded, and forwarded where the rule says so`, () => {
    const brought = asked([...fields(good), 'kept', '1'], path(good));
    const seen = (more: Partial<JwtRule>): string => {
      const rules = ruleOf({ ...rule, ...more });
      const verdict = authenticateJwt(rules, brought, NOW, new TokenCache());
      assert.equal(verdict.at, 'valid');
      return JSON.stringify(withToken(brought, rules, verdict));
    };
    const dropped = seen({});
    assert.ok(!dropped.includes(good) && dropped.includes('"kept","1"') && dropped.includes('/p?a=1"'), dropped);
    if (what === 'a cookie') assert.ok(dropped.includes('"b=2; c=3"'), dropped);
    if (what === 'the only cookie') assert.ok(!dropped.includes('cookie'), dropped);
    assert.ok(seen({ forwardToken: true }).includes(good));
    if (Object.keys(rule).length > 0) assert.equal(judge(ruleOf(rule), bearer(good)), 'absent', 'elsewhere it is not looked for');
  });
}

test('headers made of a token are the token’s alone: what a client writes in their place, with dashes or underscores, is gone', () => {
  const rules = ruleOf({
    payloadHeader: 'X-Payload',
    claimHeaders: [
      { header: 'X-Role', claim: 'role' },
      { header: 'X-Groups', claim: 'groups' },
      { header: 'X-Deep', claim: 'a.b' },
      { header: 'X-Number', claim: 'n' },
      { header: 'X-Object', claim: 'o' },
      { header: 'X-Evil', claim: 'evil' },
      { header: 'X-Absent', claim: 'absent' },
    ],
  });
  const claims = { ...CLAIMS, role: 'user', groups: ['a', 'b', 7, {}], a: { b: 'deep' }, n: 1.5, o: { x: 1 }, evil: 'a\r\nx-role: admin' };
  const spoofed = ['x-role', 'admin', 'x_role', 'admin', 'x-payload', 'fake', 'x_payload', 'fake', 'x-absent', 'fake', 'x_absent', 'fake'];
  const text = token(RS, claims);
  const brought = asked([...spoofed, ...bearer(text), 'kept', '1']);
  const verdict = authenticateJwt(rules, brought, NOW, new TokenCache());
  assert.deepEqual(withToken(brought, rules, verdict).fields, [
    ...['kept', '1', 'x-payload', text.split('.')[1], 'x-role', 'user', 'x-groups', 'a,b,7', 'x-deep', 'deep', 'x-number', '1.5'],
  ]);
  const anonymous = asked([...spoofed, 'kept', '1']);
  assert.deepEqual(withToken(anonymous, rules, { at: 'absent' }).fields, ['kept', '1'], 'also without a token');
});
