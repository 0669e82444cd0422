/** Tokens: which are valid, where they are found, and what policies and backends see of them. */
import assert from 'node:assert/strict';
import { constants, createHmac, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import type { JwtRule } from '../../../common/codec/gen/waypoint.ts';
import { claimValues } from '../../../common/decision/claims.ts';
import {
  authenticateJwt,
  type CompiledJwtRule,
  compileJwt,
  type JwtVerdict,
  readKeys,
  TokenCache,
  verifyToken,
  withToken,
} from '../../../common/decision/jwt.ts';

const NOW = 1_800_000_000;
const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const ed = generateKeyPairSync('ed25519');
const jwk = (key: KeyObject, more: object) => ({ ...key.export({ format: 'jwk' }), ...more });
const KEYS = JSON.stringify({
  keys: [
    jwk(rsa.publicKey, { kid: 'r' }),
    jwk(ec.publicKey, { kid: 'e', alg: 'ES256' }),
    jwk(ed.publicKey, { kid: 'd' }),
    { kty: 'oct', k: 'AAAA' },
  ],
});

const part = (value: unknown): string => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');

function token(claims: object, { alg = 'RS256', kid = 'r', header = {} }: { alg?: string; kid?: string; header?: object } = {}): string {
  const signed = `${part({ alg, kid, ...header })}.${part({ iss: 'me', sub: 'ada', exp: NOW + 100, ...claims })}`;
  return `${signed}.${signature(alg, Buffer.from(signed)).toString('base64url')}`;
}

function signature(alg: string, bytes: Buffer): Buffer {
  if (alg === 'ES256') return sign('sha256', bytes, { key: ec.privateKey, dsaEncoding: 'ieee-p1363' });
  if (alg === 'EdDSA') return sign(null, bytes, ed.privateKey);
  if (alg === 'PS256') return sign('sha256', bytes, { key: rsa.privateKey, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 });
  if (alg === 'HS256')
    return createHmac('sha256', JSON.stringify(jwk(rsa.publicKey, {})))
      .update(bytes)
      .digest();
  return alg === 'none' ? Buffer.from('x') : sign('sha256', bytes, rsa.privateKey);
}

const rules = (...written: Partial<JwtRule>[]): readonly CompiledJwtRule[] =>
  compileJwt({
    namespace: 'n',
    name: 'n',
    targets: [{ type: { $case: 'everything', value: {} } }],
    rules: written.map((one) => ({
      issuer: 'me',
      audiences: [],
      keys: KEYS,
      fromHeaders: [],
      fromParams: [],
      fromCookies: [],
      payloadHeader: '',
      forwardToken: false,
      claimHeaders: [],
      ...one,
    })),
  }).rules;

const [plain] = rules({});
const reason = (text: string, rule = plain, now = NOW): string => {
  const result = verifyToken(rule ?? assert.fail(), text, now);
  return 'principal' in result ? `${result.principal}` : `${result.status} ${result.reason}`;
};

for (const [alg, kid] of [
  ['RS256', 'r'],
  ['PS256', 'r'],
  ['ES256', 'e'],
  ['EdDSA', 'd'],
] as const) {
  test(`a token with ${alg} is valid, and one with a changed byte is not`, () => {
    const good = token({}, { alg, kid });
    assert.equal(reason(good), 'me/ada');
    const [header, , signed] = good.split('.');
    assert.equal(reason(`${header}.${part({ iss: 'me', sub: 'eve', exp: NOW + 100 })}.${signed}`), '401 Jwt verification fails');
    assert.equal(reason(token({}, { alg, kid: 'unknown' })), "401 Jwks doesn't have key to match kid or alg from Jwt");
  });
}

test('tokens of every wrong kind are refused', () => {
  assert.match(reason(token({}, { alg: 'none' })), /^401 .*\[alg\]/);
  assert.match(reason(token({}, { alg: 'HS256' })), /^401 .*\[alg\]/, 'a public key is no secret');
  assert.match(reason(token({}, { header: { crit: ['b64'] } })), /^401/);
  assert.match(reason(token({}, { header: { alg: 'constructor' } })), /^401/);
  assert.equal(reason(token({ exp: NOW - 61 })), '401 Jwt is expired');
  assert.equal(reason(token({ exp: NOW - 59 })), 'me/ada', 'clocks differ a little');
  assert.equal(reason(token({ nbf: NOW + 61 })), '401 Jwt not yet valid');
  assert.match(reason(token({ exp: 'soon' })), /^401/);
  assert.equal(reason(token({ iss: 'you' })), '401 Jwt issuer is not configured');
  for (const text of [
    '',
    'a.b',
    'a.b.c.d',
    'a..c',
    `${part('[]')}.${part('{}')}.x`,
    `${part({ alg: 'RS256' })}.!!.x`,
    'x'.repeat(20_000),
  ]) {
    assert.match(reason(text), /^401/, text.slice(0, 20));
  }
  const [none] = rules({ keys: '' });
  assert.equal(reason(token({}), none), '401 Jwks remote fetch is failed');
});

test('an EC key of another curve than the algorithm names verifies nothing', () => {
  const wide = generateKeyPairSync('ec', { namedCurve: 'P-384' });
  const [rule] = rules({ keys: JSON.stringify({ keys: [jwk(wide.publicKey, {})] }) });
  assert.match(reason(token({}, { alg: 'ES256' }), rule), /^401 Jwks doesn't have key/);
});

test('an audience that is not wanted is 403; several and none are what they say', () => {
  const [rule] = rules({ audiences: ['https://shop/', 'other'] });
  assert.equal(reason(token({ aud: 'shop' }), rule), 'me/ada');
  assert.equal(reason(token({ aud: ['x', 'other'] }), rule), 'me/ada');
  assert.equal(reason(token({ aud: 'x' }), rule), '403 Audiences in Jwt are not allowed');
  assert.equal(reason(token({}), rule), '403 Audiences in Jwt are not allowed');
});

const request = (fields: string[], path = '/') => ({ method: 'GET', scheme: 'http', authority: 'shop', path, fields });
const judged = (of: readonly CompiledJwtRule[], fields: string[], path = '/'): JwtVerdict =>
  authenticateJwt(of, request(fields, path), NOW, new TokenCache());

test('tokens are found in the header, the parameter, or where the rule says, and without one a request passes', () => {
  const text = token({});
  assert.equal(judged(rules({}), ['authorization', `bearer ${text}`]).at, 'valid');
  assert.equal(judged(rules({}), [], `/?access_token=${text}`).at, 'valid');
  assert.equal(judged(rules({}), ['authorization', 'Basic abc']).at, 'absent');
  const own = rules({ fromHeaders: [{ name: 'X-Token', prefix: 'tok-' }], fromCookies: ['sid'] });
  assert.equal(judged(own, ['x-token', `tok-${text}`]).at, 'valid');
  assert.equal(judged(own, ['cookie', `a=1; sid=${text}`]).at, 'valid');
  assert.equal(judged(own, ['authorization', `Bearer ${text}`]).at, 'absent');
});

test('of several issuers each has its rule, and the reason told is the one of the rule that the token was for', () => {
  const both = rules({ issuer: 'you' }, {});
  assert.equal(judged(both, ['authorization', `Bearer ${token({})}`]).at, 'valid');
  const late = judged(both, ['authorization', `Bearer ${token({ exp: 1 })}`]);
  assert.deepEqual(late, { at: 'refused', status: 401, reason: 'Jwt is expired' });
});

test('a token is remembered, and forgotten at its end', () => {
  const cache = new TokenCache();
  const fields = ['authorization', `Bearer ${token({})}`];
  const of = rules({});
  assert.equal(authenticateJwt(of, request(fields), NOW, cache).at, 'valid');
  assert.equal(authenticateJwt(of, request(fields), NOW + 200, cache).at, 'refused');
  assert.equal(authenticateJwt(rules({ keys: '' }), request(fields), NOW, cache).at, 'refused', 'other rules judge for themselves');
});

test('the backend gets claims in headers and no token, and what a client wrote in their place is gone', () => {
  const of = rules({
    payloadHeader: 'X-Payload',
    claimHeaders: [
      { header: 'X-Role', claim: 'realm.roles' },
      { header: 'x-none', claim: 'none' },
    ],
  });
  const text = token({ realm: { roles: ['a', 'b'] } });
  const fields = ['authorization', `Bearer ${text}`, 'x-role', 'admin', 'x-none', 'fake', 'x-payload', 'fake', 'kept', '1'];
  const verdict = judged(of, fields);
  const changed = withToken(request(fields), of, verdict);
  assert.deepEqual(changed.fields, ['kept', '1', 'x-payload', text.split('.')[1], 'x-role', 'a,b']);
  const anonymous = ['x-role', 'admin'];
  assert.deepEqual(withToken(request(anonymous), of, judged(of, anonymous)).fields, []);
  const path = `/p?a=1&access_token=${text}&b=2`;
  assert.equal(withToken(request([], path), rules({}), judged(rules({}), [], path)).path, '/p?a=1&b=2');
  const kept = rules({ forwardToken: true });
  assert.deepEqual(withToken(request(fields), kept, judged(kept, fields)).fields, fields);
});

test('claims are found by their names from the outside in', () => {
  const claims = { a: { b: ['x', 1, true, {}] }, s: 't' };
  assert.deepEqual(
    [claimValues(claims, ['a', 'b']), claimValues(claims, ['s']), claimValues(claims, ['a']), claimValues(claims, ['constructor'])],
    [['x', '1', 'true'], ['t'], [], []],
  );
});

test('a key set without a key that can be used is an error that says so', () => {
  for (const text of ['', '{}', '{"keys":[]}', '{"keys":[{"kty":"oct","k":"AA"}]}', '{"keys":[{"kty":"RSA","n":"","e":""}]}', 'null']) {
    assert.throws(() => readKeys(text), /key set/, text);
  }
});

test('whatever comes as a token is told from a valid one', () => {
  fc.assert(
    fc.property(fc.string({ maxLength: 200 }), (text) => {
      const result = verifyToken(plain ?? assert.fail(), text, NOW);
      assert.ok('status' in result);
    }),
  );
});
