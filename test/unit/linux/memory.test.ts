import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { programMappings, releaseProgramPages, returnFreeMemory } from '../../../common/linux/memory.ts';

const mapping = (range: string, rights: string, path: string, anonymous: number): string =>
  `${range} ${rights} 00001000 08:01 1234                      ${path}\nSize:                  4 kB\nRss:                   4 kB\nAnonymous:             ${anonymous} kB\nVmFlags: rd mr mw me\n`;

test('of a program only mappings are let go that nobody has written into', () => {
  const smaps = [
    mapping('00400000-00500000', 'r--p', '/usr/local/bin/node', 0),
    mapping('00500000-00700000', 'r-xp', '/usr/local/bin/node', 0),
    mapping('00700000-00701000', 'r--p', '/usr/local/bin/node', 4),
    mapping('00701000-00702000', 'rw-p', '/usr/local/bin/node', 0),
    mapping('7f0000000000-7f0000001000', 'r-xp', '/lib/libc.so.6', 0),
    mapping('7f0000002000-7f0000003000', 'rw-p', '', 4),
  ].join('');
  assert.deepEqual(programMappings(smaps, '/usr/local/bin/node'), [
    { address: 0x400000, bytes: 0x100000 },
    { address: 0x500000, bytes: 0x200000 },
  ]);
});

test('a process goes on without the pages that it let go, and is smaller', () => {
  const residentFile = (): number => Number(/RssFile:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'latin1'))?.[1]);
  const before = residentFile();
  returnFreeMemory();
  releaseProgramPages();
  assert.ok(residentFile() < before, 'nothing was let go');
});
