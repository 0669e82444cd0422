/** A request's whole way: client, its ztunnel, the waypoint, the server's ztunnel, server; and what each of them says of it. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { goTool } from '../support/go-tools.ts';
import { withoutNamespaces } from '../support/netns.ts';
import { call, get } from '../support/pair-programs.ts';
import { runScript, startCommand } from '../support/programs.ts';
import { until } from '../support/until.ts';
import { ORDERS, startWaypointMesh, type WaypointMesh } from '../support/waypoint-mesh.ts';

const options = { skip: withoutNamespaces ?? false, timeout: 180_000 };
const SERVICE = 'shop/orders.shop.svc.cluster.local';
const TO = '{to: {namespace: shop, hostname: orders.shop.svc.cluster.local, port: 80}}';

const INTEROP = 'google.golang.org/grpc/interop';
const interop =
  withoutNamespaces === undefined
    ? { client: goTool(`${INTEROP}/client@v1.72.0`, 'grpc-interop'), server: goTool(`${INTEROP}/server@v1.72.0`, 'grpc-interop') }
    : {};
const noInterop = interop.client && interop.server ? false : "needs Go, to build gRPC's interop client and server";
/** All that need neither TLS nor accounts. Unary and streams of every kind, big messages, status, metadata, deadlines, cancelling. */
const INTEROP_CASES = [
  'empty_unary',
  'large_unary',
  'client_streaming',
  'server_streaming',
  'ping_pong',
  'empty_stream',
  'timeout_on_sleeping_server',
  'cancel_after_begin',
  'cancel_after_first_response',
  'status_code_and_message',
  'special_status_message',
  'custom_metadata',
  'unimplemented_method',
  'unimplemented_service',
];

const ROUTES = `
routes:
- namespace: shop
  hostname: orders.shop.svc.cluster.local
  ports:
  - port: 80
    table:
    - {match: {path: {prefix: /flaky}}, rule: 0}
    - {match: {path: {prefix: /never}}, rule: 1}
    - {match: {path: {prefix: /orders}}, rule: 2}
    rules:
    - {name: flaky, retry: {attempts: 2, statusCodes: [503], backoffMs: 10}, backends: [${TO}]}
    - {name: never, requestTimeoutMs: 300, backends: [${TO}]}
    - {name: orders, requestHeaders: {set: [{name: x-by, value: route}]}, backends: [${TO}]}
policies:
- namespace: shop
  name: clients-read
  action: ALLOW
  targets: [{service: ${SERVICE}}]
  rules:
  - {from: [{principals: [{exact: cluster.local/ns/shop/sa/client}]}], to: [{ports: [80], methods: [{exact: GET}]}]}
  - {to: [{ports: [90, 91, 92]}]}
`;

interface Seen {
  readonly status: number;
  readonly headers: Record<string, string>;
  readonly body: string;
}

const fetched = async ({ client }: WaypointMesh, path: string, method = 'GET'): Promise<Seen> =>
  JSON.parse(
    await runScript(
      client,
      `const answer = await fetch('http://${ORDERS}${path}', { method: '${method}', headers: {
        'x-forwarded-client-cert': 'URI=spiffe://cluster.local/ns/shop/sa/admin', traceparent: '${TRACE}' } });
      console.log(JSON.stringify({ status: answer.status, headers: Object.fromEntries(answer.headers), body: await answer.text() }));`,
    ),
  );

const TRACE_ID = '0af7651916cd43dd8448eb211c80319c';
const TRACE = `00-${TRACE_ID}-b7ad6b7169203331-01`;

test(
  'requests go through the waypoint: routed, judged, retried and counted under the identity that the tunnel proved',
  options,
  async (t) => {
    const mesh = await startWaypointMesh(t, ROUTES);

    await t.test(
      'a request that is allowed arrives, with what its route and the waypoint add and without what the client claims',
      async () => {
        const { status, body } = await fetched(mesh, '/orders/1?q=2');
        assert.equal(status, 200, body);
        const seen = JSON.parse(body) as { url: string; headers: Record<string, string> };
        assert.equal(seen.url, '/orders/1?q=2');
        assert.equal(seen.headers['x-by'], 'route');
        assert.equal(
          seen.headers['x-forwarded-client-cert'],
          'By=spiffe://cluster.local/ns/shop/sa/waypoint;URI=spiffe://cluster.local/ns/shop/sa/client',
        );
        assert.equal(seen.headers['x-forwarded-for'], mesh.clientIp);
        assert.equal(seen.headers.traceparent, TRACE, 'nothing is traced, so the context goes on as it came');
        assert.match(seen.headers['x-request-id'] ?? '', /^[0-9a-f-]{36}$/);
        const line = JSON.parse(await mesh.waypoint.line(/"path":"\/orders\/1/)) as Record<string, unknown>;
        assert.deepEqual(
          [line.method, line.response_code, line.route_name, line['src.identity'], line['dst.workload'], line.id],
          ['GET', 200, 'orders', 'spiffe://cluster.local/ns/shop/sa/client', 'server', TRACE_ID],
        );
        const inbound = await mesh.ztunnels.server.line(/direction="inbound".*bytes_sent|connection opened/, 1).catch(() => '');
        assert.doesNotMatch(inbound, /sa\/client/, 'the server is reached by the waypoint and by nobody else');
      },
    );

    await t.test('what no ALLOW allows is 403 with a reason that the log explains', async () => {
      const { status, headers, body } = await fetched(mesh, '/orders', 'POST');
      assert.deepEqual([status, body], [403, 'RBAC: access denied']);
      assert.equal(headers['x-warren-refusal'], `code=POLICY_DENIED; policy=shop/clients-read; id=${TRACE_ID}`);
      const line = JSON.parse(await mesh.waypoint.line(/"method":"POST"/)) as Record<string, unknown>;
      assert.equal(line['warren.policy'], 'shop/clients-read');
    });

    await t.test('no matching route is 404, a backend that fails twice is retried, and time is limited', async () => {
      assert.equal((await fetched(mesh, '/nothing')).status, 404);
      const flaky = await fetched(mesh, '/flaky');
      assert.deepEqual([flaky.status, JSON.parse(flaky.body).flaky], [200, 3]);
      const late = await fetched(mesh, '/never');
      assert.equal(late.status, 504);
      assert.match(late.headers['x-warren-refusal'] ?? '', /code=REQUEST_TIMEOUT/);
    });

    await t.test('a protocol in which the server speaks first passes, declared and undeclared', async () => {
      assert.deepEqual(await call(mesh.client, ORDERS, 90, 'hello'), { received: '220 ready\nyou said hello' });
      const quiet = await runScript(
        mesh.client,
        `import net from 'node:net';
      const socket = net.connect(91, '${ORDERS}');
      let received = '';
      socket.on('data', (data) => { received += data; if (received.length === 10) socket.write('late'); });
      socket.on('end', () => { console.log(received); socket.destroy(); });`,
      );
      assert.equal(quiet.trim(), '220 ready\nyou said late');
    });

    await t.test(
      "who dials the pod past its service's waypoint is refused where the pod asks for it, and counted where it does not",
      async () => {
        // From beside the waypoint and in the clear: its address without its identity.
        assert.equal((await call(mesh.waypointNetns, mesh.serverIp, 8080, 'GET / HTTP/1.0\r\n\r\n')).received, '');
        const line = await mesh.ztunnels.server.line(/warren.code="WAYPOINT_BYPASSED"/);
        assert.match(line, /the pod takes connections from its waypoint shop\/waypoint\.shop\.svc\.cluster\.local only/);
        assert.deepEqual(await call(mesh.waypointNetns, mesh.serverIp, 9090, 'hello'), { received: '220 ready\nyou said hello' });
        const { body } = await get(mesh.server, 'http://127.0.0.1:15020/metrics');
        assert.match(body, /^warren_waypoint_passed_by_total\{namespace="shop",service="orders"\} 1$/m);
      },
    );

    await t.test('what is not bound to the waypoint is refused with 404 and a reason', async () => {
      const pem = (name: string): string => JSON.stringify(readFileSync(join(mesh.certificate('client'), name), 'utf8'));
      // From where nothing captures it: a ztunnel would not let its pod speak to a tunnel's port itself.
      const output = await runScript(
        mesh.waypointNetns,
        `import http2 from 'node:http2'; import net from 'node:net'; import tls from 'node:tls'; import fs from 'node:fs';
      const session = http2.connect('https://${mesh.waypointIp}:15008', { cert: ${pem('cert-chain.pem')}, key: ${pem('key.pem')},
        ca: ${pem('root-cert.pem')}, checkServerIdentity: () => undefined });
      session.on('error', (error) => { console.log(String(error)); process.exit(0); });
      const ask = (authority) => new Promise((resolve) => {
        const stream = session.request({ ':method': 'CONNECT', ':authority': authority });
        stream.on('response', (headers) => { resolve([headers[':status'], headers['x-warren-refusal'] ?? '']); stream.close(); });
        stream.on('error', () => undefined);
      });
      console.log(JSON.stringify([await ask('10.96.0.30:80'), await ask('${mesh.serverIp}:8080'), await ask('10.9.9.9:1')]));
      process.exit(0);`,
      );
      const answers = JSON.parse(output) as [number, string][];
      for (const [status, reason] of answers) {
        assert.equal(status, 404);
        assert.match(reason, /^code=WAYPOINT_NOT_BOUND; id=[0-9a-f]{32}$/);
      }
    });

    await t.test("the interop cases of gRPC's Go module pass between its client and its server", { skip: noInterop }, async (st) => {
      const { client = '', server = '' } = interop;
      const served = startCommand(st, mesh.server, [server, '--port=10000']);
      await until(() => mesh.server.exec('ss', '-Hltn', 'sport = :10000') !== '');
      const failed: string[] = [];
      for (const name of INTEROP_CASES) {
        const argv = [client, `--server_host=${ORDERS}`, '--server_port=92', `--test_case=${name}`];
        const run = startCommand(st, mesh.client, argv);
        if ((await run.ended) !== 0) failed.push(`${name}: ${run.output().slice(-500)}`);
      }
      assert.deepEqual(failed, [], served.output().slice(-2000));
      const line = JSON.parse(await mesh.waypoint.line(/StreamingOutputCall/)) as Record<string, unknown>;
      assert.deepEqual([line.protocol, line.response_code], ['HTTP/2', 200]);
    });

    await t.test('metrics are those of Istio at reporter waypoint', async () => {
      const { body } = await get(mesh.waypointNetns, 'http://127.0.0.1:15020/stats/prometheus');
      const requests = body.split('\n').filter((line) => line.startsWith('istio_requests_total{'));
      const ok = requests.find((line) => line.includes('response_code="200"') && line.includes('destination_workload="orders-v1"'));
      for (const label of [
        'reporter="waypoint"',
        'source_workload="web"',
        'source_principal="spiffe://cluster.local/ns/shop/sa/client"',
        'destination_service="orders.shop.svc.cluster.local"',
        'destination_service_name="orders"',
        'destination_principal="spiffe://cluster.local/ns/shop/sa/server"',
        'connection_security_policy="mutual_tls"',
        'request_protocol="http"',
        'response_flags="-"',
      ]) {
        assert.ok(ok?.includes(label), `${label} in ${ok}`);
      }
      assert.ok(
        requests.some((line) => line.includes('response_code="404"') && line.includes('response_flags="NR"')),
        requests.join('\n'),
      );
      assert.match(body, /istio_request_duration_milliseconds_bucket\{[^}]*le="\+Inf"\} [1-9]/);
      assert.match(body, /istio_tcp_connections_opened_total\{[^}]*request_protocol="tcp"[^}]*\} [1-9]/);
      assert.match(body, /warren_refusals_total\{code="POLICY_DENIED",policy="shop\/clients-read"\} 1/);
    });

    await t.test('it ends in order', async () => {
      mesh.waypoint.kill('SIGTERM');
      assert.equal(await mesh.waypoint.ended, 0, mesh.waypoint.output().slice(-2000));
    });
  },
);
