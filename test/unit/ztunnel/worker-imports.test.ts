import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';

const ROOT = join(import.meta.dirname, '../../..');
/** What a thread of ztunnel pays for in megabytes, three times over, and needs nothing of. */
const HEAVY = ['node:http', 'node:http2', 'node:https', 'js-yaml', '@grpc/grpc-js', 'node-forge', 'prom-client', '@kubernetes/client-node'];

test('a data worker loads none of the heavy modules that only the supervisor needs', () => {
  const importers = new Map<string, string>();
  const waiting = [join(ROOT, 'ztunnel/worker/main.ts')];
  const seen = new Set(waiting);
  for (let file = waiting.pop(); file !== undefined; file = waiting.pop()) {
    for (const [, what = ''] of readFileSync(file, 'utf8').matchAll(/^(?:import|export)(?! type)[^;]*? from '([^']+)';$/gm)) {
      const target = what.startsWith('.') ? join(dirname(file), what) : what;
      if (!what.startsWith('.')) importers.set(what, file);
      else if (!seen.has(target)) {
        seen.add(target);
        waiting.push(target);
      }
    }
  }
  assert.ok(importers.has('node:tls') && seen.size > 50, 'the imports were not followed');
  for (const name of HEAVY) assert.equal(importers.get(name), undefined, `${name} is loaded by every data worker`);
});
