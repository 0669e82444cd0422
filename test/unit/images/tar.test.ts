import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, readlinkSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { complete, type Entry, readTar, writeTar } from '../../../images/tar.ts';

const file = (path: string, text: string, mode = 0o644): Entry => ({ path, type: 'file', mode, content: Buffer.from(text) });
const tar = (entries: readonly Entry[]): Buffer => Buffer.concat([...writeTar(entries, 0)]);
const long = (length: number): string => `app/node_modules/${'deep/'.repeat(length / 5)}file.js`;

test('what is written is read again, whatever the length of its names', () => {
  const name = fc.stringMatching(/^[a-z]{1,120}$/);
  const path = fc.array(name, { minLength: 1, maxLength: 4 }).map((parts) => parts.join('/'));
  const content = fc.uint8Array({ maxLength: 1100 }).map((bytes) => Buffer.from(bytes));
  fc.assert(
    fc.property(fc.array(fc.tuple(path, content, path), { maxLength: 5 }), (rows) => {
      const files = new Map(
        rows.map(([path, content, target]): [string, Entry] => [
          path,
          content.length % 7 === 0 ? { path, type: 'symlink', mode: 0o777, target } : { path, type: 'file', mode: 0o755, content },
        ]),
      );
      const entries = [...files.values()].filter(({ path }) => ![...files.keys()].some((other) => other.startsWith(`${path}/`)));
      assert.deepEqual(readTar(tar(entries)), complete(entries));
    }),
  );
});

test('the order in which entries come and the folders between them do not matter', () => {
  const [a, b] = [file('app/a.js', 'a'), file('app/b.js', 'b')];
  assert.deepEqual(tar([a, b]), tar([b, { path: 'app', type: 'folder', mode: 0o755 }, a, a]));
});

test('tar itself unpacks what is written: modes, links, names beyond 100 bytes', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'warren-test-tar-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const deep = long(150);
  const archive = tar([file('bin/run', '#!', 0o755), file(deep, 'deep'), { path: 'sbin', type: 'symlink', mode: 0o777, target: 'bin' }]);
  writeFileSync(join(folder, 'a.tar'), archive);
  execFileSync('tar', ['-x', '-f', 'a.tar'], { cwd: folder });
  assert.equal(statSync(join(folder, 'bin/run')).mode & 0o777, 0o755);
  assert.equal(readFileSync(join(folder, deep), 'utf8'), 'deep');
  assert.equal(readlinkSync(join(folder, 'sbin')), 'bin');
  assert.equal(statSync(join(folder, 'bin/run')).mtimeMs, 0);
});

test('what GNU tar writes is read: long names, hard links as files of their own', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'warren-test-tar-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const deep = long(150);
  execFileSync(
    'sh',
    ['-c', 'mkdir -p "$(dirname "$1")" && echo x > "$1" && ln "$1" hard && tar -c --format=gnu -f a.tar app hard', 'sh', deep],
    { cwd: folder },
  );
  const entries = readTar(readFileSync(join(folder, 'a.tar')));
  for (const path of [deep, 'hard']) assert.equal(entries.find((entry) => entry.path === path)?.content?.toString(), 'x\n', path);
});

test('two different files of one name are an error that names it', () => {
  assert.throws(() => tar([file('app/a.js', 'a'), file('app/a.js', 'b')]), /two different entries for \/app\/a\.js/);
});

test('an archive that ends within an entry is an error, not a shorter file', () => {
  const archive = tar([file('app/a.js', 'a'.repeat(2000))]);
  assert.throws(() => readTar(archive.subarray(0, 1600)), /tar ends within app\/a\.js/);
});
