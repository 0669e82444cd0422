/** Routes by what a request's token says (Istio, JWT claim based routing). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compileRoutes } from '../../../common/decision/http-model.ts';
import { matchRoute } from '../../../common/decision/http-route.ts';
import * as make from '../../support/kube-objects.ts';
import { TranslatedMesh } from '../../support/translated-mesh.ts';

const claims = { sub: 'ann', Group: ['dev', 'ops'], nested: { key: 'v' }, on: true };

function takes(match: object, request: { claims?: Record<string, unknown>; fields?: string[] }): boolean {
  const destination = { destination: { host: 'web', port: { number: 80 } } };
  const mesh = TranslatedMesh.shop().set(
    'VirtualService',
    make.virtualService({ name: 'v', spec: { hosts: ['web'], http: [{ match: [match], route: [destination] }] } }),
  );
  const [routes] = mesh.routes();
  assert.ok(routes);
  const { claims: said, fields = [] } = request;
  const found = matchRoute(compileRoutes(routes), 80, { method: 'GET', scheme: 'http', authority: 'web', path: '/', fields, claims: said });
  return typeof found !== 'string';
}

for (const [name, value, expected] of [
  ['@request.auth.claims.sub', { exact: 'ann' }, true],
  ['@request.auth.claims.sub', { exact: 'bob' }, false],
  ['@request.auth.claims.Group', { exact: 'ops' }, true],
  ['@request.auth.claims.group', { exact: 'ops' }, false],
  ['@request.auth.claims[nested][key]', { exact: 'v' }, true],
  ['@request.auth.claims.nested.key', { prefix: 'v' }, true],
  ['@request.auth.claims.on', { exact: 'true' }, true],
  ['@request.auth.claims.none', { regex: '.*' }, false],
] as const) {
  test(`${name} ${JSON.stringify(value)} ${expected ? 'takes' : 'does not take'} a request of such a token`, () => {
    assert.equal(takes({ headers: { [name]: value } }, { claims }), expected);
    assert.equal(takes({ withoutHeaders: { [name]: value } }, { claims }), !expected);
  });
}

test('a request without a token has no claims, and a field of that name is none', () => {
  const match = { headers: { '@request.auth.claims.sub': { exact: 'ann' } } };
  assert.equal(takes(match, {}), false);
  assert.equal(takes(match, { fields: ['@request.auth.claims.sub', 'ann'] }), false);
});

test('claims stand beside other headers', () => {
  const match = { headers: { '@request.auth.claims.sub': { exact: 'ann' }, 'x-a': { exact: '1' } } };
  assert.equal(takes(match, { claims }), false);
  assert.equal(takes(match, { claims, fields: ['x-a', '1'] }), true);
});
