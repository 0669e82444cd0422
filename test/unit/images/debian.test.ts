import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type DebianPackage, fetchPackage, select } from '../../../images/debian.ts';

const content = Buffer.from('a package');
const item = (more: Partial<DebianPackage> = {}): DebianPackage => ({
  name: 'libz',
  version: '1.2-3',
  source: 'zlib',
  archive: 'debian',
  path: 'pool/libz.deb',
  size: content.length,
  sha256: createHash('sha256').update(content).digest('hex'),
  depends: [],
  ...more,
});

/** A mirror with one package; it counts what it is asked. */
async function mirror(t: TestContext, body: Buffer = content) {
  const asked: (string | undefined)[] = [];
  const server = createServer((request, response) => {
    asked.push(request.url);
    response.writeHead(request.url === '/debian/pool/libz.deb' ? 200 : 404).end(body);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => server.close());
  const folder = mkdtempSync(join(tmpdir(), 'warren-test-debian-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const { port } = server.address() as AddressInfo;
  return { asked, folder, mirrors: new Map([['debian', `http://127.0.0.1:${port}/debian`]]) };
}

test('a package is fetched once and then kept', async (t) => {
  const { asked, folder, mirrors } = await mirror(t);
  const file = await fetchPackage(item(), folder, mirrors);
  assert.equal(await fetchPackage(item(), folder, mirrors), file);
  assert.deepEqual(readFileSync(file), content);
  assert.deepEqual(asked, ['/debian/pool/libz.deb']);
});

test('what a mirror has changed is refused, and not kept', async (t) => {
  const { folder, mirrors } = await mirror(t, Buffer.from('b package'));
  await assert.rejects(fetchPackage(item(), folder, mirrors), /libz\.deb: SHA-256 is [0-9a-f]{64}, images\/debian\.json has/);
  await assert.rejects(fetchPackage(item({ size: 5 }), folder, mirrors), /libz\.deb: 9 bytes, images\/debian\.json has 5/);
  assert.deepEqual(readdirSync(folder), []);
});

test('a version that a mirror has dropped, and a mirror that is not known or not there, are errors with the mend or the address', async (t) => {
  const { folder, mirrors } = await mirror(t);
  await assert.rejects(fetchPackage(item({ path: 'pool/gone.deb' }), folder, mirrors), /no longer has libz 1\.2-3: .* --update-debian/);
  await assert.rejects(
    fetchPackage(item({ archive: 'debian-security' }), folder, mirrors),
    /libz: .* give one: --mirror debian-security=URL/,
  );
  await assert.rejects(
    fetchPackage(item(), folder, new Map([['debian', 'http://127.0.0.1:1/debian']])),
    /127\.0\.0\.1:1\/debian\/pool\/libz\.deb: .*/,
  );
});

test('what is selected brings what it depends on, but for what is left out with all that only it needed', () => {
  const all = [item({ name: 'a', depends: ['b', 'c'] }), item({ name: 'b', depends: ['d'] }), item({ name: 'c' }), item({ name: 'd' })];
  const names = (except: string[]) => select(all, ['a'], new Set(except)).map(({ name }) => name);
  assert.deepEqual(names([]), ['a', 'b', 'c', 'd']);
  assert.deepEqual(names(['b']), ['a', 'c']);
  assert.throws(() => select(all, ['z']), /images\/debian\.json has no z: scripts\/images --update-debian/);
});
