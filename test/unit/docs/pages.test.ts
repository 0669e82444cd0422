/** The pages that people wrote name things that exist: files, headings, settings, metrics; and the list of pages has them all. */
import assert from 'node:assert/strict';
import { existsSync, globSync, readFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { test } from 'node:test';
import { root } from '../../support/manifests.ts';

const PAGES = globSync('{*.md,{docs,playground,bench,manifests}/**/*.md}', { cwd: root }).sort();
const read = (path: string): string => readFileSync(join(root, path), 'utf8');
const FOLDERS = [
  'bench',
  'common',
  'docs',
  'images',
  'manifests',
  'meshctl',
  'playground',
  'proto',
  'scripts',
  'test',
  'waypoint',
  'ztunnel',
];
const PATH = new RegExp(`^(?:\\./)?((?:${[...FOLDERS, 'cni', 'istiod-lite'].join('|')})(?:/[\\w.-]+)+)/?$`);

test('every link leads to a file that is there, and to a heading that it has', () => {
  let links = 0;
  for (const page of PAGES)
    for (const [, to = ''] of withoutBlocks(read(page)).matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^https?:/.test(to)) continue;
      links++;
      const [path = '', heading] = to.split('#');
      const target = path === '' ? page : join(dirname(page), path);
      assert.ok(existsSync(join(root, target)), `${page}: ${to}`);
      if (heading !== undefined) assert.ok(headingsOf(read(target)).has(heading), `${page}: ${to}`);
    }
  assert.ok(links > 50, `${links} links`);
});

test('every path of the checkout that a page or a comment names is there', () => {
  let paths = 0;
  for (const page of PAGES)
    for (const [, code = ''] of read(page).matchAll(/`([^`\n]+)`/g))
      for (const word of code.split(/[\s,]+/)) {
        const path = PATH.exec(word.replace(/[:.;]$/, ''))?.[1];
        if (path === undefined) continue;
        paths++;
        assert.ok(
          ['', '.ts', '.test.ts'].some((ending) => existsSync(join(root, path + ending))),
          `${page}: ${word}`,
        );
      }
  assert.ok(paths > 50, `${paths} paths`);
  for (const source of globSync('{bench,cni,common,images,istiod-lite,meshctl,playground,scripts,test,waypoint,ztunnel}/**/*.ts', {
    cwd: root,
  }))
    for (const [page] of read(source).matchAll(/\bdocs\/[\w/-]+\.md\b/g)) assert.ok(existsSync(join(root, page)), `${source}: ${page}`);
});

test('every setting and metric of ours that a page names is one', () => {
  const known = { WARREN: read('docs/config.md'), warren: read('docs/metrics.md') };
  const sources = globSync('{scripts,bench,test,playground,images}/**/*', { cwd: root, withFileTypes: true })
    .filter((entry) => entry.isFile() && !entry.name.endsWith('.jsonl'))
    .map((entry) => readFileSync(join(entry.parentPath, entry.name), 'utf8'))
    .join('\n');
  const unknown = PAGES.flatMap((page) =>
    [...read(page).matchAll(/\b(WARREN|warren)_[A-Za-z_]*[A-Za-z]\b(?![*_{])/g)]
      .filter(([name, kind]) => !known[kind as 'WARREN'].includes(name) && !sources.includes(name))
      .map(([name]) => `${page}: ${name}`),
  );
  assert.deepEqual(unknown, []);
});

test('the list of reference pages has each of them once', () => {
  const listed = [...read('docs/README.md').matchAll(/^\| \[([\w-]+\.md)\]/gm)].map(([, page = '']) => page).sort();
  const pages = globSync('docs/*.md', { cwd: root }).map((path) => basename(path));
  assert.deepEqual(listed, pages.filter((page) => page !== 'README.md').sort());
});

const withoutBlocks = (text: string): string => text.replace(/```[\s\S]*?```/g, '');

/** As GitHub makes them. */
const headingsOf = (text: string): Set<string> =>
  new Set(
    [...withoutBlocks(text).matchAll(/^#+ (.*)$/gm)].map(([, heading = '']) =>
      heading
        .replace(/\[([^\]]*)\]\([^)]*\)/g, '$1')
        .replace(/[^\p{L}\p{N}\s_-]/gu, '')
        .trim()
        .toLowerCase()
        .replaceAll(' ', '-'),
    ),
  );
