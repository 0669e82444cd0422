/**
 * Istio's own sample of an authorization server, asked by our waypoint over HTTP and over gRPC. Runs where EXT_AUTHZ_BIN names a build of it
 * (istio: samples/extauthz).
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createServer as createTcpServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { follow, startProgram } from '../support/programs.ts';

const BIN = process.env.EXT_AUTHZ_BIN ?? '';
const skip = BIN === '' && 'EXT_AUTHZ_BIN names no build of Istio’s sample server';

interface Answer {
  readonly status: number | undefined;
  readonly headers: NodeJS.Dict<string | string[]>;
  readonly body: string;
}

const freePort = (): Promise<number> =>
  new Promise((resolve) => {
    const server = createTcpServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as AddressInfo;
      server.close(() => resolve(port));
    });
  });

const ask = (port: number, path: string, headers: Record<string, string>, body = ''): Promise<Answer> =>
  new Promise((resolve, reject) => {
    const sent = request({ host: '127.0.0.1', port, path, method: body === '' ? 'GET' : 'POST', headers }, (response) => {
      let text = '';
      response.on('data', (chunk) => {
        text += chunk;
      });
      response.on('end', () => resolve({ status: response.statusCode, headers: response.headers, body: text }));
    });
    sent.on('error', reject).end(body);
  });

/** An application, Istio's server, and a waypoint before the application that asks the server. @returns ports that ask over HTTP and over gRPC */
async function start(t: TestContext): Promise<{ http: number; grpc: number }> {
  const [http, grpc, viaHttp, viaGrpc, admin, stats, ready] = await Promise.all(Array.from({ length: 7 }, freePort));
  const app = createServer((incoming, response) => {
    let body = '';
    incoming.on('data', (chunk) => {
      body += chunk;
    });
    incoming.on('end', () => response.end(JSON.stringify({ headers: incoming.headers, body })));
  });
  await new Promise<void>((resolve) => app.listen(0, '127.0.0.1', resolve));
  t.after(() => app.close());
  const { port } = app.address() as AddressInfo;
  const server = follow(t, spawn(BIN, ['-http', String(http), '-grpc', String(grpc)], { stdio: ['ignore', 'pipe', 'pipe'] }), 'extauthz');
  await Promise.all([server.line(/Starting HTTP server/), server.line(/Starting gRPC server/)]);
  const folder = await mkdtemp(join(tmpdir(), 'warren-ext-authz-'));
  t.after(() => rm(folder, { recursive: true }));
  const mesh = join(folder, 'mesh.yaml');
  const workload = (name: string, services: string): string =>
    `- {uid: c1//Pod/shop/${name}, name: ${name}, namespace: shop, serviceAccount: ${name}, workloadIps: ["127.0.0.1"], protocol: TCP, services: {${services}}}`;
  const service = (name: string, ports: string, vip: string): string =>
    `- {name: ${name}, namespace: shop, hostname: ${name}.example, vips: ["/${vip}"], ports: {${ports}}}`;
  await writeFile(
    mesh,
    [
      'workloads:',
      workload('app', `"shop/by-http.example": {80: ${port}}, "shop/by-grpc.example": {80: ${port}}`),
      workload('server', `"shop/server.example": {8000: ${http}, 9000: ${grpc}}`),
      'services:',
      service('by-http', `80: ${port}`, '10.96.0.1'),
      service('by-grpc', `80: ${port}`, '10.96.0.3'),
      service('server', `8000: ${http}, 9000: ${grpc}`, '10.96.0.2'),
    ].join('\n'),
  );
  const routes = join(folder, 'routes.yaml');
  const custom = (name: string, provider: string): string =>
    `- {namespace: shop, name: ${name}, action: CUSTOM, targets: [{service: shop/${name}.example}], rules: [{to: [{notPaths: [{prefix: /free}]}]}], authorizer: {name: sample, ${provider}}}`;
  await writeFile(
    routes,
    [
      'policies:',
      custom(
        'by-http',
        `to: {namespace: shop, hostname: server.example, port: 8000}, includeHeaders: [{exact: x-ext-authz}], additionalHeaders: [{name: x-ext-authz-additional-header-override, value: ours}], toUpstreamOnAllow: [{prefix: x-ext-authz-}], toDownstreamOnDeny: [{prefix: x-ext-authz-}], body: {maxBytes: 100, allowPartial: true}`,
      ),
      custom(
        'by-grpc',
        'grpc: true, to: {namespace: shop, hostname: server.example, port: 9000}, body: {maxBytes: 100, allowPartial: true}',
      ),
    ].join('\n'),
  );
  const waypoint = startProgram(t, undefined, 'waypoint/main.ts', ['proxy', 'waypoint'], {
    LOCAL_XDS_PATH: mesh,
    LOCAL_ROUTES_PATH: routes,
    PLAINTEXT_LISTEN: `${viaHttp}=shop/by-http.example:80,${viaGrpc}=shop/by-grpc.example:80`,
    WARREN_HBONE_PORT: '0',
    WARREN_ADMIN_PORT: String(admin),
    WARREN_STATS_PORT: String(stats),
    WARREN_READINESS_PORT: String(ready),
    WARREN_WORKER_THREADS: '1',
    POD_NAME: 'waypoint-1',
    POD_NAMESPACE: 'shop',
    GATEWAY_NAME: 'waypoint',
    XDS_ADDRESS: '',
    CA_ADDRESS: '',
  });
  await waypoint.line(/waypoint serves/, 60_000);
  return { http: viaHttp ?? 0, grpc: viaGrpc ?? 0 };
}

test('Istio’s sample server allows and denies through our waypoint, over HTTP and over gRPC', { skip }, async (t) => {
  const ports = await start(t);
  for (const [form, port] of Object.entries(ports)) {
    const allowed = await ask(port, '/a?b=1', { 'x-ext-authz': 'allow' }, 'a body');
    assert.equal(allowed.status, 200, form);
    const seen = JSON.parse(allowed.body) as { headers: Record<string, string>; body: string };
    assert.equal(seen.headers['x-ext-authz-check-result'], 'allowed', form);
    assert.equal(
      seen.headers['x-ext-authz-additional-header-override'],
      form === 'http' ? 'ours' : 'grpc-additional-header-override-value',
    );
    // The server repeats what it was told, the body too.
    assert.match(seen.headers['x-ext-authz-check-received'] ?? '', /a body/, form);
    assert.match(seen.headers['x-ext-authz-check-received'] ?? '', form === 'http' ? /\/a\?b=1/ : /path:\s*"\/a\?b=1"/);
    assert.equal(seen.body, 'a body');
    const denied = await ask(port, '/a', { 'x-ext-authz': 'deny' });
    assert.deepEqual([denied.status, denied.headers['x-ext-authz-check-result']], [403, 'denied'], form);
    assert.match(denied.body, /denied by ext_authz for not found header/);
    assert.match(String(denied.headers['x-warren-refusal']), /code=AUTHORIZER_DENIED/);
    assert.equal((await ask(port, '/free', {})).status, 200, form);
  }
});
