import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { VERSION } from '../../../common/base/version.ts';
import type { KubeObject } from '../../../common/client/kube-api.ts';
import { render } from '../../../meshctl/commands/status.ts';
import { makeReport, type Observations } from '../../../meshctl/status/report.ts';

const ready = [{ type: 'Ready', status: 'True' }];

const pod = (
  namespace: string,
  name: string,
  more: { labels?: Record<string, string>; annotations?: Record<string, string>; spec?: object; status?: object } = {},
): KubeObject => ({
  kind: 'Pod',
  metadata: { namespace, name, labels: more.labels ?? {}, annotations: more.annotations ?? {} },
  spec: { nodeName: 'node1', ...more.spec },
  status: { phase: 'Running', conditions: ready, ...more.status },
});

const namespace = (name: string, mode?: string): KubeObject => ({
  kind: 'Namespace',
  metadata: { name, labels: mode ? { 'istio.io/dataplane-mode': mode } : {} },
});

const TYPE = 'type.googleapis.com/istio.workload.Address';

const healthyMesh = (): Observations => ({
  systemNamespace: 'istio-system',
  namespaces: [namespace('istio-system'), namespace('shop', 'ambient'), namespace('legacy')],
  pods: [
    pod('istio-system', 'ztunnel-a', { labels: { app: 'ztunnel' } }),
    pod('istio-system', 'agent-a', { labels: { app: 'istio-cni-node' }, spec: { hostNetwork: true } }),
    pod('shop', 'web', { labels: { app: 'web' }, annotations: { 'ambient.istio.io/redirection': 'enabled' } }),
    pod('legacy', 'client'),
  ],
  services: [{ kind: 'Service', metadata: { namespace: 'shop', name: 'web' }, spec: { selector: { app: 'web' } } }],
  nodes: [{ kind: 'Node', metadata: { name: 'node1' } }],
  deployments: [
    { kind: 'Deployment', metadata: { name: 'istiod', namespace: 'istio-system' }, spec: { replicas: 1 }, status: { readyReplicas: 1 } },
  ],
  daemonSets: [
    { kind: 'DaemonSet', metadata: { name: 'ztunnel' } },
    { kind: 'DaemonSet', metadata: { name: 'istio-cni-node' } },
  ],
  gateways: [],
  policies: [],
  syncz: [{ proxy: 'ztunnel-a.istio-system', istio_version: VERSION, resources: { [TYPE]: { sent: 'n1', acked: 'n1' } } }],
  untranslated: [],
  proxies: [
    {
      name: 'ztunnel-a',
      namespace: 'istio-system',
      kind: 'ztunnel',
      certificates: 1,
      soonestExpiry: Date.UTC(2026, 0, 2) / 1000,
      problems: [],
      refusals: [],
    },
  ],
  failures: [],
  nowMs: Date.UTC(2026, 0, 1),
});

const messages = (seen: Observations): string[] =>
  makeReport(seen).problems.map(({ severity, object, message }) => `${severity}: ${object} ${message}`);

test('a healthy mesh has no problems and says what it carries', () => {
  const report = makeReport(healthyMesh());
  assert.deepEqual(report.problems, []);
  assert.equal(report.healthy, true);
  assert.deepEqual(report.namespaces, [{ namespace: 'shop', podsEnrolled: 1, pods: 1 }]);
  assert.deepEqual(report.nodes, [
    { node: 'node1', ztunnel: 'ztunnel-a', version: VERSION, synced: true, agent: 'agent-a', podsEnrolled: 1 },
  ]);
  assert.equal(report.certificates.soonestExpiry, '2026-01-02T00:00:00.000Z');
});

test('a pod that should be in the mesh and is not makes it degraded', () => {
  const seen = healthyMesh();
  const report = makeReport({
    ...seen,
    pods: [...seen.pods, pod('shop', 'late'), pod('shop', 'stuck', { annotations: { 'ambient.istio.io/redirection': 'pending' } })],
  });
  assert.equal(report.healthy, false);
  assert.match(
    report.problems.map(({ object, message }) => `${object} ${message}`).join('\n'),
    /Pod shop\/late should be in the mesh.*\n.*Pod shop\/stuck is redirected but no ztunnel/,
  );
});

test('what the node agent says about a pod is part of the problem, and is one where the pod is in the mesh', () => {
  const seen = healthyMesh();
  const said = (state: string | undefined, problem: string): Record<string, string> => ({
    ...(state !== undefined && { 'ambient.istio.io/redirection': state }),
    'warren.dev/enrolment-problem': problem,
  });
  const report = makeReport({
    ...seen,
    pods: [
      ...seen.pods,
      pod('shop', 'late', { annotations: said(undefined, 'its network namespace was not found on this node') }),
      pod('shop', 'stuck', { annotations: said('pending', 'port 15008 is taken') }),
      pod('shop', 'policed', { annotations: said('enabled', 'NetworkPolicy shop/web shuts callers out; add port 15008') }),
    ],
  });
  const lines = report.problems.map(({ severity, object, message }) => `${severity} ${object} ${message}`);
  assert.match(lines[0] ?? '', /^error Pod shop\/late should be in the mesh.*: its network namespace was not found/);
  assert.match(lines[1] ?? '', /^error Pod shop\/stuck is redirected.*: port 15008 is taken/);
  assert.match(lines[2] ?? '', /^warning Pod shop\/policed is in the mesh, and something is not right: NetworkPolicy shop\/web/);
});

test('connections from before the mesh are counted, and make nothing degraded', () => {
  const seen = healthyMesh();
  const annotations = { 'ambient.istio.io/redirection': 'enabled', 'warren.dev/connections-outside': '2' };
  const report = makeReport({ ...seen, pods: [...seen.pods, pod('shop', 'old', { annotations })] });
  assert.equal(report.healthy, true);
  assert.match(report.problems.map(({ message }) => message).join(), /^has 2 connections from before it joined the mesh/);
});

test('node agents of several versions are named with their nodes', () => {
  const seen = healthyMesh();
  const agent = (name: string, nodeName: string, image: string): KubeObject =>
    pod('istio-system', name, { labels: { app: 'istio-cni-node' }, spec: { hostNetwork: true, nodeName, containers: [{ image }] } });
  const pods = seen.pods.filter(({ metadata }) => metadata.name !== 'agent-a');
  const same = [agent('agent-a', 'node1', 'warren/cni:0.1.0'), agent('agent-b', 'node2', 'warren/cni:0.1.0')];
  assert.deepEqual(messages({ ...seen, pods: [...pods, ...same] }), []);
  const mixed = [agent('agent-a', 'node1', 'warren/cni:0.1.0'), agent('agent-b', 'node2', 'warren/cni:0.2.0')];
  assert.match(
    messages({ ...seen, pods: [...pods, ...mixed] }).join(),
    /several versions: warren\/cni:0\.1\.0 on node1; warren\/cni:0\.2\.0 on node2/,
  );
});

test("a pod's own label wins over its namespace's, and pods of the host network never count", () => {
  const seen = healthyMesh();
  const out = pod('shop', 'out', { labels: { 'istio.io/dataplane-mode': 'none' } });
  const host = pod('shop', 'host', { spec: { hostNetwork: true } });
  assert.deepEqual(messages({ ...seen, pods: [...seen.pods, out, host] }), []);
});

test('an unknown label value is named with what it takes', () => {
  const seen = healthyMesh();
  assert.deepEqual(messages({ ...seen, namespaces: [...seen.namespaces, namespace('typo', 'ambiant')] }), [
    'warning: Namespace typo label istio.io/dataplane-mode=ambiant means nothing; it takes ambient or none',
  ]);
});

test('a ztunnel that istiod does not see, or that rejected something, is a problem', () => {
  const seen = healthyMesh();
  assert.match(
    messages({ ...seen, syncz: [{ proxy: 'other.istio-system', resources: {} }] })[0] ?? '',
    /ztunnel-a \(node node1\) is not connected/,
  );
  const rejected = {
    proxy: 'ztunnel-a.istio-system',
    resources: { [TYPE]: { sent: 'n2', acked: 'n1', lastError: 'shop/x: bad address' } },
  };
  const report = makeReport({ ...seen, syncz: [rejected] });
  assert.equal(report.nodes[0]?.synced, false);
  assert.match(report.problems[0]?.message ?? '', /rejected Address: shop\/x: bad address/);
});

test('a Service without pods and a policy that is enforced in part are warnings, a refused policy an error', () => {
  const seen = healthyMesh();
  const condition = (status: string, reason: string): object => ({
    conditions: [{ type: 'ZtunnelAccepted', status, reason, message: 'methods' }],
  });
  const policy = (name: string, status: object): KubeObject => ({
    kind: 'AuthorizationPolicy',
    metadata: { namespace: 'shop', name },
    status,
  });
  const report = makeReport({
    ...seen,
    services: [
      ...seen.services,
      { kind: 'Service', metadata: { namespace: 'shop', name: 'empty' }, spec: { selector: { app: 'nobody' } } },
    ],
    policies: [
      policy('fine', condition('True', 'Accepted')),
      policy('part', condition('True', 'UnsupportedValue')),
      policy('not', condition('False', 'UnsupportedValue')),
    ],
  });
  assert.deepEqual(
    report.problems.map(({ severity, object }) => `${severity} ${object}`),
    ['warning Service shop/empty', 'warning AuthorizationPolicy shop/part', 'error AuthorizationPolicy shop/not'],
  );
});

test('no control plane, no agent and a certificate past its time are errors', () => {
  const seen = healthyMesh();
  const report = makeReport({ ...seen, deployments: [], daemonSets: seen.daemonSets.slice(0, 1), nowMs: Date.UTC(2026, 0, 3) });
  assert.equal(report.healthy, false);
  assert.deepEqual(report.problems.map(({ object }) => object).sort(), [
    'DaemonSet istio-system/istio-cni-node',
    'Deployment istio-system/istiod',
    'certificates',
  ]);
});

test('refusals of the last minutes are shown once, counted over proxies; a proxy that has a problem says it', () => {
  const seen = healthyMesh();
  const [proxy] = seen.proxies;
  assert.ok(proxy);
  const refusal = {
    timeMs: seen.nowMs - 1000,
    code: 'POLICY_DENIED',
    policy: 'shop/p',
    source: 'shop/a',
    destination: 'orders',
    message: 'm',
    count: 2,
  };
  const old = { ...refusal, timeMs: seen.nowMs - 3_600_000, policy: 'shop/old' };
  const report = makeReport({
    ...seen,
    proxies: [
      { ...proxy, refusals: [refusal, old] },
      { ...proxy, problems: ['not ready: proxy'], refusals: [refusal] },
    ],
  });
  assert.deepEqual(
    report.refusals.map(({ policy, count }) => [policy, count]),
    [['shop/p', 4]],
  );
  assert.match(render(report, false), /4 × POLICY_DENIED by shop\/p: shop\/a → orders/);
  assert.equal(report.healthy, false);
});

test('text fits 100 columns and ends with the verdict; JSON and YAML carry the same report', () => {
  const report = makeReport(healthyMesh());
  const text = render(report, false);
  for (const line of text.split('\n')) assert.ok(line.length <= 100, line);
  assert.match(text, /healthy: no problems found$/);
});

test('the version that components report is the one of package.json', () => {
  const { version } = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8')) as { version: string };
  assert.equal(VERSION, version);
});

test("a pod that says no by its own label, as a waypoint's does, is not missing from its namespace", () => {
  const seen = healthyMesh();
  const waypoint = pod('shop', 'waypoint-1', { labels: { 'istio.io/dataplane-mode': 'none' } });
  assert.deepEqual(makeReport({ ...seen, pods: [...seen.pods, waypoint] }).namespaces, [{ namespace: 'shop', podsEnrolled: 1, pods: 1 }]);
});

test('who passes a waypoint by is a warning that names the service and the callers, and no refusal', () => {
  const seen = healthyMesh();
  const passed = { code: 'WAYPOINT_BYPASSED', policy: '', destination: 'orders.shop.svc.cluster.local', message: 'm', timeMs: seen.nowMs };
  const refusals = ['b', 'a'].map((source) => ({ ...passed, source, count: 2, letThrough: true }));
  const report = makeReport({ ...seen, proxies: seen.proxies.map((proxy) => ({ ...proxy, refusals })) });
  assert.deepEqual(report.refusals, []);
  const [problem] = report.problems;
  assert.deepEqual([problem?.severity, problem?.object], ['warning', 'Service orders.shop.svc.cluster.local']);
  assert.match(problem?.message ?? '', /^4 connections passed its waypoint by, from a, b:/);
  assert.equal(report.healthy, true);
});
