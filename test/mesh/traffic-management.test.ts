/**
 * Istio's traffic APIs from `kubectl apply` to what a client sees: subsets by a header, faults and rewrites of a VirtualService, a DestinationRule's
 * ejection of a failing pod, tokens of end users, addresses of ServiceEntries; and the status of each of these objects.
 */
import assert from 'node:assert/strict';
import { generateKeyPairSync, sign } from 'node:crypto';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { scaleWaypoint, startKeptLoad, waypointAddresses } from '../support/kept-load.ts';
import { startPlayground, withoutPlayground } from '../support/playground.ts';

const pod = (name: string, app: string, version: string): string => `
---
apiVersion: v1
kind: Pod
metadata: { name: ${name}, namespace: shop, labels: { app: ${app}, version: ${version} } }
spec:
  terminationGracePeriodSeconds: 1
  containers: [{ name: echo, image: warren/echo, args: ["--port=8080", "--tcp=9090"] }]
`;

const WORLD = `
apiVersion: v1
kind: Namespace
metadata: { name: shop, labels: { istio.io/dataplane-mode: ambient, istio.io/use-waypoint: waypoint } }
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: waypoint, namespace: shop }
spec: { gatewayClassName: istio-waypoint, listeners: [{ name: mesh, port: 15008, protocol: HBONE }] }
---
apiVersion: v1
kind: Service
metadata: { name: web, namespace: shop }
spec: { selector: { app: web }, ports: [{ name: http, port: 80, targetPort: 8080 }, { name: tcp, port: 90, targetPort: 9090 }] }
${pod('client', 'client', 'v1')}${pod('web-1', 'web', 'v1')}${pod('web-2', 'web', 'v2')}
`;

const TRAFFIC = `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: { name: web, namespace: shop }
spec:
  host: web
  subsets: [{ name: v1, labels: { version: v1 } }, { name: v2, labels: { version: v2 } }]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: { name: web, namespace: shop }
spec:
  hosts: [web]
  http:
  - { match: [{ uri: { prefix: /tea } }], directResponse: { status: 418, body: { string: short and stout } } }
  - { match: [{ uri: { prefix: /broken } }], fault: { abort: { httpStatus: 599, percentage: { value: 100 } } }, route: [{ destination: { host: web } }] }
  - match: [{ headers: { x-canary: { exact: "yes" } }, sourceLabels: { app: client } }]
    rewrite: { uri: /rewritten }
    headers: { request: { set: { x-by: canary } } }
    route: [{ destination: { host: web, subset: v2 } }]
  - route: [{ destination: { host: web, subset: v1 } }]
  tcp:
  - route: [{ destination: { host: web, subset: v2, port: { number: 90 } } }]
`;

const TELEMETRY = `
apiVersion: v1
kind: ConfigMap
metadata: { name: istio, namespace: istio-system }
data:
  mesh: |
    extensionProviders:
      - { name: zipkin, zipkin: { service: collector.shop.svc.cluster.local, port: 9411 } }
      - name: lines
        envoyFileAccessLog: { path: /dev/stdout, logFormat: { labels: { code: "%RESPONSE_CODE%", path: "%REQ(:PATH)%", team: "%REQ(X-TEAM)%" } } }
---
apiVersion: v1
kind: Service
metadata: { name: collector, namespace: shop }
spec: { selector: { app: collector }, ports: [{ name: http, port: 9411 }] }
---
apiVersion: v1
kind: Pod
metadata: { name: collector, namespace: shop, labels: { app: collector } }
spec:
  terminationGracePeriodSeconds: 1
  containers: [{ name: collector, image: warren/collector }]
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: { name: traces, namespace: shop }
spec:
  tracing: [{ providers: [{ name: zipkin }], customTags: { team: { header: { name: x-team, defaultValue: nobody } } } }]
---
apiVersion: telemetry.istio.io/v1alpha1
kind: Telemetry
metadata: { name: web, namespace: shop }
spec:
  targetRefs: [{ group: "", kind: Service, name: web }]
  metrics: [{ overrides: [{ match: { metric: REQUEST_COUNT, mode: SERVER }, tagOverrides: { team: { value: "request.headers['x-team']" } } }] }]
  accessLogging: [{ providers: [{ name: lines }], filter: { expression: "response.code >= 400" } }]
`;

const API = `
apiVersion: v1
kind: Service
metadata: { name: api, namespace: shop }
spec: { selector: { app: api }, ports: [{ name: http, port: 80, targetPort: 8080 }] }
---
apiVersion: apps/v1
kind: Deployment
metadata: { name: api, namespace: shop }
spec:
  replicas: 2
  selector: { matchLabels: { app: api } }
  template:
    metadata: { labels: { app: api } }
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - { name: echo, image: warren/echo, args: ["--port=8080"], readinessProbe: { tcpSocket: { port: 8080 }, periodSeconds: 1 } }
`;

const route = (version: number): string => `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: api, namespace: shop }
spec:
  parentRefs: [{ group: "", kind: Service, name: api, port: 80 }]
  rules:
  - matches: [{ headers: [{ name: x-version, value: "${version}" }] }]
    backendRefs: [{ name: api, port: 80 }]
  - filters: [{ type: RequestHeaderModifier, requestHeaderModifier: { set: [{ name: x-route, value: "${version}" }] } }]
    backendRefs: [{ name: api, port: 80, weight: ${version + 1} }${version % 2 === 0 ? '' : ', { name: api, port: 80, weight: 3 }'}]
`;

const ENTRY = `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: { name: outside, namespace: shop }
spec: { hosts: [outside.example], ports: [{ number: 80, name: http, protocol: HTTP }], resolution: DNS }
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: { name: thief, namespace: shop }
spec: { hosts: [istiod.istio-system.svc.cluster.local], ports: [{ number: 80, name: http, protocol: HTTP }], resolution: DNS }
`;

test("Istio's traffic APIs, from the object to what a client sees and what its status says", {
  skip: withoutPlayground,
  timeout: 600_000,
}, async (t) => {
  const cluster = await startPlayground(t, { mesh: true });
  await cluster.apply(WORLD);
  await cluster.podsReady('shop', 120_000);
  await cluster.kubectl('wait', '-n', 'shop', 'gateway/waypoint', '--for=condition=Programmed', '--timeout=120s');
  const ask = async (path: string, ...more: string[]): Promise<string> =>
    (await cluster.exec('shop', 'client', 'client', `http://web.shop${path}`, ...more)).stdout;
  const settles = (what: string, path: string, expected: RegExp, ...more: string[]): Promise<void> =>
    cluster.eventually(what, async () => expected.test(await ask(path, ...more)), 120_000);
  const condition = async (object: string, type: string): Promise<string> =>
    cluster.kubectl('get', '-n', 'shop', object, '-o', `jsonpath={.status.conditions[?(@.type=="${type}")].reason}`);

  await t.test('a VirtualService routes by header and caller to subsets, answers, disturbs and rewrites', async () => {
    await settles('the waypoint serves', '/', /StatusCode=200/);
    await cluster.apply(TRAFFIC);
    await settles('the direct answer', '/tea', /StatusCode=418/);
    await settles('the canary', '/x', /Hostname=web-2/, '-H', 'x-canary:yes');
    const canary = await ask('/x', '-H', 'x-canary:yes');
    assert.match(canary, /URL=\/rewritten/);
    assert.match(canary, /RequestHeader=X-By:canary/);
    for (let i = 0; i < 4; i++) assert.match(await ask('/x'), /Hostname=web-1/);
    assert.match(await ask('/broken'), /StatusCode=599/);
    assert.equal(await condition('virtualservice/web', 'WaypointAccepted'), 'Accepted');
    assert.equal(await condition('destinationrule/web', 'WaypointAccepted'), 'Accepted');
  });

  await t.test('bytes take the rule for connections', async () => {
    const answers = await Promise.all(
      [1, 2, 3].map(async () => (await cluster.exec('shop', 'client', 'client', 'tcp://web.shop:90')).stdout),
    );
    for (const answer of answers) assert.match(answer, /Hostname=web-2/, answer);
  });

  await t.test('a token that is good opens what a policy keeps for its claims, and a bad one is 401', async () => {
    const key = generateKeyPairSync('ed25519');
    const keys = JSON.stringify({ keys: [key.publicKey.export({ format: 'jwk' })] });
    const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');
    const token = (claims: object): string => {
      const signed = `${part({ alg: 'EdDSA' })}.${part({ iss: 'me', ...claims })}`;
      return `${signed}.${sign(null, Buffer.from(signed), key.privateKey).toString('base64url')}`;
    };
    await cluster.apply(`
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: { name: web, namespace: shop }
spec:
  targetRefs: [{ group: "", kind: Service, name: web }]
  jwtRules: [{ issuer: me, jwks: '${keys}', outputClaimToHeaders: [{ header: x-user, claim: sub }] }]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: web, namespace: shop }
spec:
  targetRefs: [{ group: "", kind: Service, name: web }]
  rules: [{ from: [{ source: { requestPrincipals: ["me/*"] } }], when: [{ key: "request.auth.claims[role]", values: [admin] }] }]
`);
    await settles('no token', '/', /StatusCode=403/);
    const good = ['-H', `Authorization:Bearer ${token({ sub: 'ada', role: 'admin' })}`];
    await settles('a good token', '/', /StatusCode=200/, ...good);
    assert.match(await ask('/', ...good), /RequestHeader=X-User:ada/);
    assert.match(await ask('/', '-H', `Authorization:Bearer ${token({ sub: 'eve', role: 'user' })}`), /StatusCode=403/);
    assert.match(await ask('/', '-H', `Authorization:Bearer ${token({ sub: 'ada', role: 'admin' })}x`), /StatusCode=401/);
    assert.equal(await condition('requestauthentication/web', 'WaypointAccepted'), 'Accepted');
    await cluster.kubectl('delete', '-n', 'shop', 'requestauthentication/web', 'authorizationpolicy/web');
    await settles('no policy', '/', /StatusCode=200/);
  });

  await t.test(
    'Telemetry: spans below the caller’s own, lines in a form of its own, tags by expression, each as its object says',
    async () => {
      const [trace, parent] = ['4bf92f3577b34da6a3ce929d0e0e4736', '00f067aa0ba902b7'];
      await cluster.apply(TELEMETRY);
      await cluster.kubectl('wait', '-n', 'shop', '--for=condition=Ready', 'pod/collector', '--timeout=120s');
      const spans = async (): Promise<Record<string, unknown>[]> =>
        (await cluster.kubectl('logs', '-n', 'shop', 'collector'))
          .split('\n')
          .flatMap((line) => (line.startsWith('{') ? [JSON.parse(line) as Record<string, unknown>] : []));
      await cluster.eventually(
        'a span is at the collector',
        async () => {
          await ask('/traced', '-H', `b3:${trace}-${parent}-1`, '-H', 'x-team:blue');
          return (await spans()).some(({ traceId }) => traceId === trace);
        },
        120_000,
      );
      const span = (await spans()).find(({ traceId }) => traceId === trace);
      const tags = span?.tags as Record<string, string>;
      assert.deepEqual(
        [span?.protocol, span?.parentId, span?.name, tags.team, tags['istio.source_namespace'], tags['http.status_code']],
        ['zipkin', parent, 'web.shop.svc.cluster.local:80/*', 'blue', 'shop', '200'],
      );
      const passed = await ask('/traced', '-H', `b3:${trace}-${parent}-1`);
      assert.match(passed, new RegExp(`RequestHeader=B3:${trace}-(?!${parent})[0-9a-f]{16}-1-${parent}`), passed);
      assert.match(passed, new RegExp(`RequestHeader=X-B3-Traceid:${trace}`, 'i'));
      assert.match(await ask('/broken'), /StatusCode=599/);
      const pods = (
        await cluster.kubectl('get', 'pods', '-n', 'shop', '-l', 'gateway.networking.k8s.io/gateway-name=waypoint', '-o', 'name')
      ).split('\n');
      const each = async (read: (pod: string) => Promise<string>): Promise<string> =>
        (await Promise.all(pods.filter(Boolean).map(read))).join('');
      const lines = await each((pod) => cluster.kubectl('logs', '-n', 'shop', pod));
      assert.match(lines, /^\{"code":599,"path":"\/broken","team":null\}$/m);
      assert.doesNotMatch(lines, /"code":200/, 'the filter takes failures only');
      const metrics = await each((pod) =>
        cluster.kubectl('get', '--raw', `/api/v1/namespaces/shop/pods/${pod.replace('pod/', '')}:15020/proxy/stats/prometheus`),
      );
      assert.match(metrics, /istio_requests_total\{[^}]*team="blue"[^}]*\} [1-9]/);
      assert.match(metrics, /warren_spans_exported_total\{provider="zipkin"\} [1-9]/);
      for (const name of ['traces', 'web']) assert.equal(await condition(`telemetry/${name}`, 'WaypointAccepted'), 'Accepted', name);
      await cluster.apply(TELEMETRY.replace('response.code >= 400', "response.code == 'x'"));
      await cluster.eventually(
        'the status',
        async () => (await condition('telemetry/web', 'WaypointAccepted')) === 'UnsupportedValue',
        60_000,
      );
    },
  );

  await t.test('a service follows its label: ztunnels alone, refused where the waypoint is not there, and as before', async () => {
    const bound = async (reason: string): Promise<void> =>
      cluster.eventually(reason, async () => (await condition('service/web', 'istio.io/WaypointBound')) === reason, 60_000);
    const label = (value: string): Promise<string> =>
      cluster.kubectl('label', '-n', 'shop', 'service/web', `istio.io/use-waypoint${value}`, '--overwrite');
    await label('=none');
    await settles('no waypoint', '/tea', /StatusCode=200/);
    await label('=gone');
    await settles('a waypoint that is not there', '/tea', /^(?![\s\S]*StatusCode=)/);
    await bound('WaypointIsNotReady');
    await label('-');
    await settles('the waypoint of the namespace', '/tea', /StatusCode=418/);
    await bound('WaypointAccepted');
  });

  await t.test('a ServiceEntry is given addresses, and one that claims a name of another namespace is told', async () => {
    await cluster.apply(ENTRY);
    const addresses = (): Promise<string> =>
      cluster.kubectl('get', '-n', 'shop', 'serviceentry/outside', '-o', 'jsonpath={.status.addresses[*].value}');
    await cluster.eventually('addresses', async () => /^240\.240\.0\.\d+ 2001:2::/.test(await addresses()), 60_000);
    await cluster.eventually(
      'the refused claim',
      async () => (await condition('serviceentry/thief', 'warren.dev/ClaimRefused')) === 'ForeignClaim',
      60_000,
    );
  });

  await t.test('clients that keep their connections lose no request to changes, and find the replicas that are added', async (t2) => {
    await cluster.apply(API);
    await scaleWaypoint(cluster, 'shop', 1);
    await cluster.podsReady('shop', 120_000);
    // A waypoint's clients keep to their zone, and each node is one: here they are all in the same.
    await cluster.kubectl('label', 'nodes', '--all', 'topology.kubernetes.io/zone=one', '--overwrite');
    const load = await startKeptLoad(cluster, { namespace: 'shop', url: 'http://api.shop', kept: 100, everyMs: 1000 });
    const replaced = async (name: string): Promise<void> => {
      await cluster.kubectl('rollout', 'restart', '-n', 'shop', `deployment/${name}`);
      await cluster.kubectl('rollout', 'status', '-n', 'shop', `deployment/${name}`, '--timeout=50s');
      await sleep(4000);
    };

    await t2.test('to routes that change', () =>
      load.during('routes', async () => {
        for (let version = 0; version < 8; version++) await cluster.apply(route(version));
      }),
    );
    await t2.test('to a rolling restart of the backends', () => load.during('backends', () => replaced('api')));
    await t2.test('to a rolling restart of the waypoint', () => load.during('waypoint', () => replaced('waypoint')));
    await t2.test('to four replicas beside the first; ten seconds later the busiest has at most 1.3 times the mean', () =>
      load.during('scaling', async () => {
        await scaleWaypoint(cluster, 'shop', 5);
        await sleep(10_000);
        const busiest = await load.busiestOfMean(5, await waypointAddresses(cluster, 'shop'));
        t2.diagnostic(`busiest of mean ${busiest.toFixed(2)}`);
        assert.ok(busiest <= 1.3, `the busiest of five has ${busiest} times the mean`);
      }),
    );
  });
});
