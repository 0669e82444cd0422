/**
 * One spelling of a path for everybody: routes match, policies judge and the backend gets the same one, whatever a client wrote. Asked of the whole
 * pipeline, with every kind of match that a policy has and every kind that a route has.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { normalizePath } from '../../../common/decision/http-path.ts';
import { FakeExchange, type PipelineWorld, pipelineWorld } from '../../support/waypoint-fakes.ts';

const HOST = 'orders.shop.svc.cluster.local';

/** Spellings that somebody has been fooled by, of paths with and without `admin` in them. */
const NASTY: readonly string[] = [
  '/admin',
  '/admin/',
  '/admin/x',
  '/./admin',
  '/x/../admin',
  '/x/..//admin',
  '/x/%2e%2e/admin',
  '/x/%2E%2e/admin',
  '/x/.%2e/admin',
  '/x/..%2fadmin',
  '/x/..%2Fadmin',
  '/x%2f..%2fadmin',
  '/x%2f../admin',
  '/%2e/admin',
  '/%61dmin',
  '/%61%64%6d%69%6e',
  '/%2561dmin',
  '/%252e%252e/admin',
  '/%%36%31dmin',
  '/ADMIN',
  '/Admin',
  '/adm%69n%2f',
  '/adm%69n%2Fx',
  '//admin',
  '///admin',
  '/x//admin',
  '/admin//x',
  '/\\admin',
  '\\/admin'.slice(1),
  '/x\\..\\admin',
  '/x/..\\admin',
  '/x%5c..%5cadmin',
  '/x%5C../admin',
  '/admin;',
  '/admin;x=y',
  '/admin;/x',
  '/;/admin',
  '/x/..;/admin',
  '/x/.;/../admin',
  '/admin%3bx',
  '/admin%00',
  '/admin%00.html',
  '/admin%0a',
  '/admin%0d%0aX:y',
  '/admin%20',
  '/admin%09',
  '/admin%23',
  '/admin%3f',
  '/admin?',
  '/admin?x',
  '/admin?/../x',
  '/admin?%2e%2e',
  '/x?/admin',
  '/admin%',
  '/admin%2',
  '/admin%zz',
  '/admin%u002f',
  '/%c0%ae%c0%ae/admin',
  '/%c0%afadmin',
  '/%e0%80%afadmin',
  '/%ff%fe/admin',
  '/%F0%28%8C%BC',
  '/%ef%bc%8fadmin',
  '/%ef%bc%a1dmin',
  '/admin.',
  '/admin..',
  '/admin/.',
  '/admin/..',
  '/admin/x/..',
  '/admin/...',
  '/.admin',
  '/..admin',
  '/../../admin',
  '/a/b/../../admin',
  '/a/b/../../../admin',
  '/~admin',
  '/%7eadmin',
  '/a+b',
  '/a%2bb',
  '/a%2Bb',
  '/%2D%2d',
  '/%5f%5F',
  '*',
];

/** Kinds of policy about one normal path. */
const KINDS: readonly (readonly [kind: string, deny: (path: string) => string])[] = [
  ['exact', (path) => `paths: [{exact: ${JSON.stringify(path)}}]`],
  ['prefix', (path) => `paths: [{prefix: ${JSON.stringify(path)}}]`],
  ['suffix', (path) => `paths: [{suffix: ${JSON.stringify(path)}}]`],
  ['template', (path) => `paths: [{template: ${JSON.stringify(path.replace(/\/[^/{}]+$/, '/{*}'))}}]`],
  ['any', () => 'paths: [{presence: {}}]'],
  ['all but others', () => `notPaths: [{exact: /somewhere-else-entirely}]`],
];

const bare = (path: string): string => path.split('?')[0] ?? '';

const routed = (match: string, policies = ''): string => `
routes:
- {namespace: shop, hostname: ${HOST}, ports: [{port: 80, table: [{match: {path: ${match}}, rule: 0}], rules: [{name: r, backends: [{to: {namespace: shop, hostname: ${HOST}, port: 80}}]}]}]}
${policies}`;

const denying = (operation: string): string =>
  `policies: [{namespace: shop, name: p, action: DENY, targets: [{everything: {}}], rules: [{to: [{${operation}}]}]}]`;
const allowing = (operation: string): string => denying(operation).replace('DENY', 'ALLOW');

const worlds = new Map<string, PipelineWorld>();

/** Many spellings are one path. */
async function status(path: string, config: string): Promise<number | undefined> {
  const world = worlds.get(config) ?? pipelineWorld((request) => request.answer(200), config);
  worlds.set(config, world);
  return (await world.ask(new FakeExchange({ path }))).response?.status;
}

test('what policies have judged is what the backend gets, and what the next proxy would make of it', async () => {
  const world = pipelineWorld((request) => request.answer(200));
  for (const path of NASTY) {
    await world.ask(new FakeExchange({ path }));
    const forwarded = world.requests.at(-1)?.head.path;
    assert.equal(forwarded, normalizePath(path), path);
    assert.equal(normalizePath(forwarded ?? ''), forwarded, `${path}: twice is once`);
    assert.equal(world.over.at(-1)?.request.judged?.path, forwarded, `${path}: as policies saw it`);
  }
});

test('a policy of each kind about the normal path holds for each spelling of it: DENY refuses, ALLOW lets pass', async () => {
  for (const path of NASTY) {
    const normal = bare(normalizePath(path));
    for (const [kind, operation] of KINDS) {
      const about = `${kind} for ${path}, which is ${normal}`;
      if (kind === 'template' && !/\/[^/{}]+$/.test(normal)) continue;
      assert.equal(await status(path, denying(operation(normal))), 403, `DENY ${about}`);
      assert.equal(await status(path, allowing(operation(normal))), 200, `ALLOW ${about}`);
    }
  }
});

test('a route of each kind for the normal path takes each spelling of it', async () => {
  for (const path of NASTY) {
    const normal = bare(normalizePath(path));
    if (normal === '*') continue;
    const quoted = JSON.stringify(normal.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
    for (const match of [
      `{exact: ${JSON.stringify(normal)}}`,
      `{prefix: ${JSON.stringify(normal)}}`,
      `{regex: ${quoted}}`,
      `{textPrefix: ${JSON.stringify(normal)}}`,
    ])
      assert.equal(await status(path, routed(match)), 200, `${match} for ${path}`);
  }
});

/** How a backend that decodes once and takes away dots would understand it: whatever is `/admin` to it must have been so to the policy. */
const asBackendsRead = (path: string): string => {
  const url = new URL(`http://backend${bare(path)}`);
  return url.pathname.replace(/%(?:2d|2e|5f|7e|[3-6][0-9a-f]|7[0-9a])/gi, (written) => {
    const text = String.fromCharCode(Number.parseInt(written.slice(1), 16));
    return /[A-Za-z0-9._~-]/.test(text) ? text : written;
  });
};

test('no spelling is /admin to the backend and something else to a policy', async () => {
  const piece = fc.constantFrom(
    '/',
    '//',
    '.',
    '..',
    '%2e',
    '%2E',
    '\\',
    'admin',
    '%61dmin',
    'a',
    '%2f',
    '%5c',
    '%',
    ';',
    '%%36%31',
    '%25',
    '61',
    '?',
    'x',
  );
  const world = pipelineWorld((request) => request.answer(200), denying('paths: [{exact: /admin}]'));
  await fc.assert(
    fc.asyncProperty(fc.array(piece, { maxLength: 8 }), async (pieces) => {
      const path = `/${pieces.join('')}`;
      const before = world.requests.length;
      const { response } = await world.ask(new FakeExchange({ path }));
      const forwarded = world.requests[before];
      // Refused, or forwarded as something that is not the path that is refused.
      if (response?.status === 403) assert.equal(forwarded, undefined);
      else assert.notEqual(asBackendsRead(forwarded?.head.path ?? ''), '/admin', path);
      assert.equal(response?.status === 403, bare(normalizePath(path)) === '/admin', path);
    }),
    { numRuns: 300 },
  );
});

test('header matches, rewrites and mirrors start from the same spelling', async () => {
  const config = `
routes:
- {namespace: shop, hostname: ${HOST}, ports: [{port: 80, table: [{match: {path: {prefix: /old}}, rule: 0}], rules: [{name: r, rewrite: {path: {prefix: /new}}, backends: [{to: {namespace: shop, hostname: ${HOST}, port: 80}}]}]}]}`;
  const world = pipelineWorld((request) => request.answer(200), config);
  for (const path of ['/x/../%6fld/%2e/y', '/%6f%6cd/y', '/old/z/%2e%2e/y']) await world.ask(new FakeExchange({ path }));
  assert.deepEqual(
    world.requests.map(({ head }) => head.path),
    ['/new/y', '/new/y', '/new/y'],
  );
});
