/**
 * Real servers behind a waypoint: nginx and haproxy read what it sends on, and what they make of it arrives at an origin of the test. None of
 * them may find another request in it than Node does, and nobody one that hides in another.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { isInstalled } from '../../bench/support/reverse-proxies.ts';
import { makeNetns, type TestNetns, withoutNamespaces } from '../support/netns.ts';
import { startPlainWaypoint } from '../support/plain-waypoint.ts';
import { startCommand, startProgram } from '../support/programs.ts';
import { until } from '../support/until.ts';

interface Way {
  readonly name: string;
  /** Of the waypoint. */
  readonly listen: number;
  /** Of who stands behind it. */
  readonly port: number;
  /** Of the origin. */
  readonly origin: number;
}

const NODE: Way = { name: 'node', listen: 18_100, port: 9100, origin: 9100 };
const NGINX: Way = { name: 'nginx', listen: 18_101, port: 8101, origin: 9101 };
const HAPROXY: Way = { name: 'haproxy', listen: 18_102, port: 8102, origin: 9102 };
const servers = [NGINX, HAPROXY].filter(({ name }) => isInstalled(name));
const skip = withoutNamespaces ?? (servers.length === 0 ? 'needs nginx or haproxy' : false);

test('nginx and haproxy find the same requests as we do in whatever we send on', { skip, timeout: 180_000 }, async (t) => {
  const netns = makeNetns(t);
  for (const server of servers) await startServer(t, netns, server);
  const ways = [NODE, ...servers];
  await startPlainWaypoint(
    t,
    netns,
    ways.map(({ name, listen, port }) => ({ name, listen, port, protocol: 'HTTP11' })),
  );
  const argv = ways.map(({ listen, origin }) => `${listen}=${origin}`);
  const program = startProgram(t, netns, 'test/support/desync-program.ts', argv);
  const [direct = {}, ...behind] = JSON.parse(await program.line(/^\[/, 150_000)) as Record<string, string[]>[];
  const names = Object.keys(direct);
  assert.ok(names.length > 150, `${names.length} messages`);
  for (const [i, { name: server }] of servers.entries()) {
    const read = behind[i] ?? {};
    let same = 0;
    for (const name of names) {
      const [ours, theirs] = [direct[name] ?? [], read[name] ?? []];
      // They may refuse what we let pass, never find more or something else.
      for (const request of theirs) assert.ok(ours.includes(request), `${name}: ${server} has read ${request}, we have sent ${ours}`);
      assert.ok(theirs.length <= ours.length, name);
      if (theirs.length === ours.length) same++;
    }
    assert.ok(same > names.length - 10, `${server} has refused ${names.length - same} of ${names.length}`);
  }
  for (const name of names) {
    for (const found of [direct, ...behind]) assert.ok(!found[name]?.some((request) => request.includes('smuggled')), name);
  }
  assert.deepEqual(direct['HTTP/2: a request with a body'], ['POST /, 5 bytes']);
  assert.deepEqual(direct['a body, and a request behind it'], ['POST /, 5 bytes', 'GET /, 0 bytes']);
});

async function startServer(t: TestContext, netns: TestNetns, { name, port, origin }: Way): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), `warren-${name}-`));
  t.after(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'conf');
  writeFileSync(file, name === 'nginx' ? nginx(folder, port, origin) : haproxy(port, origin));
  startCommand(t, netns, name === 'nginx' ? ['nginx', '-c', file] : ['haproxy', '-db', '-f', file]);
  await until(() => netns.exec('ss', '-Hltn', `sport = :${port}`) !== '');
}

const nginx = (folder: string, port: number, origin: number): string => `
daemon off; master_process off; pid ${folder}/pid; error_log ${folder}/log;
events {}
http {
  access_log off;
  ${['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => `${kind}_temp_path ${folder};`).join(' ')}
  upstream origin { server 127.0.0.1:${origin}; keepalive 4; }
  server {
    listen 127.0.0.1:${port};
    location / {
      proxy_pass http://origin; proxy_http_version 1.1; proxy_request_buffering off;
      proxy_set_header Host $http_host; proxy_set_header Connection "";
    }
  }
}
`;

const haproxy = (port: number, origin: number): string => `
defaults
  mode http
  timeout connect 5s
  timeout client 20s
  timeout server 20s
  http-reuse always
listen proxy
  bind 127.0.0.1:${port}
  server origin 127.0.0.1:${origin}
`;
