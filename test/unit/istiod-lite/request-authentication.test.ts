/** RequestAuthentications from the object to what a waypoint is told, as keys come and go. */
import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { test } from 'node:test';
import * as make from '../../support/kube-objects.ts';
import { TranslatedMesh } from '../../support/translated-mesh.ts';

const KEYS = JSON.stringify({ keys: [generateKeyPairSync('ed25519').publicKey.export({ format: 'jwk' })] });
const OBJECT = 'RequestAuthentication shop/ra';

const meshWith = (rule: object, spec: object = { targetRefs: [{ group: '', kind: 'Service', name: 'web' }] }): TranslatedMesh =>
  TranslatedMesh.shop().set('RequestAuthentication', make.authorizationPolicy({ name: 'ra', spec: { ...spec, jwtRules: [rule] } }));

test('a rule with its keys goes over with everything that it says', () => {
  const mesh = meshWith({
    issuer: 'me',
    audiences: ['a'],
    jwks: KEYS,
    fromHeaders: [{ name: 'x', prefix: 'p' }],
    fromParams: ['t'],
    outputPayloadToHeader: 'x-p',
    outputClaimToHeaders: [{ header: 'x-c', claim: 'a.b' }],
    forwardOriginalToken: true,
  });
  const [told] = mesh.tokens();
  assert.deepEqual(told?.targets, [{ type: { $case: 'service', value: 'shop/web.shop.svc.cluster.local' } }]);
  assert.deepEqual(told?.rules, [
    {
      issuer: 'me',
      audiences: ['a'],
      keys: KEYS,
      fromHeaders: [{ name: 'x', prefix: 'p' }],
      fromParams: ['t'],
      fromCookies: [],
      payloadHeader: 'x-p',
      forwardToken: true,
      claimHeaders: [{ header: 'x-c', claim: 'a.b' }],
    },
  ]);
  assert.deepEqual(mesh.conditions(OBJECT), ['WaypointAccepted=True Accepted']);
});

test('keys that are fetched come when they are there, and until then no token is valid and the status says so', () => {
  const mesh = meshWith({ issuer: 'https://me', jwksUri: 'https://me/keys' });
  mesh.flush();
  assert.deepEqual([...mesh.index.keySources()], ['https://me/keys']);
  assert.equal(mesh.tokens()[0]?.rules[0]?.keys, '');
  assert.match(mesh.message(OBJECT, 'WaypointAccepted') ?? '', /keys of https:\/\/me are not fetched yet/);
  mesh.index.setKeys('https://me/keys', { problem: 'timed out' });
  assert.match(mesh.message(OBJECT, 'WaypointAccepted') ?? '', /timed out/);
  mesh.index.setKeys('https://me/keys', { keys: KEYS });
  assert.equal(mesh.tokens()[0]?.rules[0]?.keys, KEYS);
  assert.deepEqual(mesh.conditions(OBJECT), ['WaypointAccepted=True Accepted']);
  mesh.remove('RequestAuthentication', make.authorizationPolicy({ name: 'ra', spec: {} }));
  assert.deepEqual([mesh.tokens(), [...mesh.index.keySources()]], [[], []]);
});

test('an issuer that names no keys is asked where they are', () => {
  assert.deepEqual([...meshWith({ issuer: 'https://me' }).flush().index.keySources()], ['discover https://me']);
});

test('keys that cannot be read, and a rule without an issuer, let no token pass', () => {
  const mesh = meshWith({ issuer: 'me', jwks: '{"keys":[]}' });
  assert.equal(mesh.tokens()[0]?.rules[0]?.keys, '');
  assert.deepEqual(mesh.conditions(OBJECT), ['WaypointAccepted=True UnsupportedValue']);
  assert.notEqual(meshWith({ jwks: KEYS }).tokens()[0]?.rules[0]?.issuer, '');
});

test('without targets it holds for nothing here, and that is a problem of the object', () => {
  const mesh = meshWith({ issuer: 'me', jwks: KEYS }, { selector: { matchLabels: { app: 'web' } } });
  assert.deepEqual(mesh.tokens(), []);
  assert.ok([...mesh.index.problems()].some(({ object, message }) => object === OBJECT && message.includes('targetRefs')));
});
