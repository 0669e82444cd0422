import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KubeApiError } from '../../../common/client/kube-api.ts';
import { coveragePage } from '../../../istiod-lite/server/coverage-page.ts';
import * as make from '../../support/kube-objects.ts';
import { TranslatedMesh } from '../../support/translated-mesh.ts';

const POLICIES = '/apis/security.istio.io/v1/authorizationpolicies';
const policies = (['b', 'a'] as const).map((name) => make.authorizationPolicy({ name, spec: { rules: [{}, {}] } }));
const foreign = make.authorizationPolicy({ name: 'x', namespace: 'other', labels: { 'istio.io/rev': 'other' }, spec: { rules: [{}] } });

function page(namespace?: string) {
  const mesh = TranslatedMesh.shop();
  mesh.set('Pod', make.pod({ name: 'p', annotations: { 'warren.dev/require-waypoint': 'true' } })).flush();
  const asked: string[] = [];
  const listPage = async (path: string, { continue: from }: { continue?: string | undefined } = {}) => {
    asked.push(path);
    if (path.includes('envoyfilters')) throw new KubeApiError(404, 'NotFound', 'no such kind');
    if (!path.endsWith('/authorizationpolicies')) return { items: [], resourceVersion: '', continue: '' };
    const all = path === POLICIES ? [...policies, foreign] : policies;
    const at = Number(from ?? 0);
    return { items: all.slice(at, at + 1), resourceVersion: '', continue: at + 1 < all.length ? String(at + 1) : '' };
  };
  const inScope = (_: unknown, { metadata }: { metadata: { labels?: Record<string, string> } }) =>
    metadata.labels?.['istio.io/rev'] === undefined;
  const sources = { api: { listPage } as never, index: mesh.index, inScope, signal: new AbortController().signal };
  return coveragePage(sources, namespace).then((found) => ({ ...found, asked }));
}

test('every rule of every object that is ours is judged, page by page, in the order of names; kinds that are not installed have none', async () => {
  const { rules, more, asked } = await page();
  assert.deepEqual(
    rules.map(({ kind, namespace, name, rule }) => `${kind} ${namespace}/${name} ${rule}`),
    [
      'AuthorizationPolicy shop/a rules[0]',
      'AuthorizationPolicy shop/a rules[1]',
      'AuthorizationPolicy shop/b rules[0]',
      'AuthorizationPolicy shop/b rules[1]',
      'Pod shop/p annotation warren.dev/require-waypoint',
    ],
  );
  assert.equal(more, 0);
  assert.equal(asked.filter((path) => path === POLICIES).length, 3);
  assert.ok(!asked.some((path) => path.endsWith('/pods')), 'the index knows which of many pods say something');
});

test('who sees one namespace gets the objects of that one, and no others are listed', async () => {
  const { rules, asked } = await page('shop');
  assert.equal(rules.length, 5);
  assert.ok(asked.includes('/apis/security.istio.io/v1/namespaces/shop/authorizationpolicies'));
  assert.ok(asked.every((path) => path.includes('/namespaces/shop/') || path === '/api/v1/namespaces'));
  assert.deepEqual(
    (await page('other')).rules.filter(({ kind }) => kind === 'Pod'),
    [],
  );
});
