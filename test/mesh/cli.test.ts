/**
 * The examples of docs/cli/ are what meshctl says: each `$ meshctl …` of docs/cli/examples/ is run against one playground with the shop in it,
 * and compared, apart from what differs from run to run (names of pods, addresses, times, figures). EXAMPLES_UPDATE=1 writes those that have no answers yet.
 * Besides, in the same playground: istioctl against our ztunnel where ISTIOCTL_BIN names one, and a scenario.
 */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { VERSION } from '../../common/base/version.ts';
import { type Ran, runProgram } from '../support/kube-commands.ts';
import { meshctlSession } from '../support/meshctl-session.ts';
import { nodeInPods, root, startPlayground, type TestPlayground, withoutPlayground } from '../support/playground.ts';

const EXAMPLES = join(root, 'docs/cli/examples');
const SCENARIOS = ['canary', 'deny', 'kill-ztunnel', 'lose-control-plane'];
const UPDATE = process.env.EXAMPLES_UPDATE === '1';
/** What these show depends on what else happened to be counted: the lines of the example are among those that are printed. */
const AMONG = new Set(['top', 'edges', 'tap', 'check', 'status', 'policy', 'rehearse', 'bug-report']);

/** One request in ten goes there: in two seconds there may be none. */
const RARE = /orders-v2/;

const ROUTE_AND_POLICIES = `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: orders, namespace: shop }
spec:
  parentRefs: [{ group: "", kind: Service, name: orders, port: 80 }]
  rules:
    - matches: [{ headers: [{ name: x-version, value: new }] }]
      backendRefs: [{ name: orders-v2, port: 80 }]
    - backendRefs: [{ name: orders-v1, port: 80, weight: 90 }, { name: orders-v2, port: 80, weight: 10 }]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: payments-for-frontend, namespace: shop }
spec:
  selector: { matchLabels: { app: payments } }
  action: ALLOW
  rules: [{ from: [{ source: { principals: [cluster.local/ns/shop/sa/frontend] } }] }]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: no-admin, namespace: shop }
spec:
  targetRefs: [{ group: "", kind: Service, name: orders }]
  action: DENY
  rules: [{ to: [{ operation: { paths: ["/admin*"] } }] }]
`;

test('every example of docs/cli is what meshctl says', { skip: withoutPlayground, timeout: 900_000 }, async (t) => {
  const cluster = await startPlayground(t, { mesh: true });
  await openShop(cluster);
  const folder = mkdtempSync(join(tmpdir(), 'warren-cli-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const meshctl = meshctlSession(t, cluster.kubeconfig);
  const over = await callsUntilEnd(t, cluster);
  for (const file of inOrder(readdirSync(EXAMPLES))) {
    const name = file.replace('.txt', '');
    await t.test(name, async () => {
      const text = readFileSync(join(EXAMPLES, file), 'utf8');
      if (UPDATE && text.split('\n').some((line) => line !== '' && !line.startsWith('$ '))) return;
      const actual: string[] = [];
      for (const command of text.split('\n').filter((line) => line.startsWith('$ '))) {
        actual.push(command, ...(await said(cluster, meshctl, command, folder)));
      }
      if (UPDATE) {
        writeFileSync(join(EXAMPLES, file), `${actual.join('\n').trimEnd()}\n`);
        return;
      }
      const [wanted, found] = [comparable(text.split('\n')), comparable(actual)];
      if (AMONG.has(name))
        for (const line of wanted)
          assert.ok(found.includes(line) || (name === 'top' && RARE.test(line)), `${line}\nis not in\n${actual.join('\n')}`);
      else assert.deepEqual(found, wanted, actual.join('\n'));
    });
    if (name === 'coverage' && !UPDATE) await t.test('coverage names who passes a waypoint by', () => passedBy(cluster));
  }
  await t.test('istioctl prints of our ztunnel what meshctl prints', { skip: istioctl === undefined && 'ISTIOCTL_BIN is not set' }, () =>
    sameAsIstioctl(cluster),
  );
  over();
  await cluster.kubectl('delete', 'authorizationpolicy,httproute', '--all', '-n', 'shop');
  await cluster.kubectl('label', 'namespace', 'shop', 'istio.io/use-waypoint-');
  // The fifth, which replaces the root, is test/mesh/ca-rotation.test.ts.
  await t.test('scenarios act on a playground that runs, check themselves, and take away what they made', async () => {
    const { code, stdout, stderr } = await cluster.tryMeshctl('playground', 'scenario', ...SCENARIOS, '--name', cluster.name);
    assert.equal(code, 0, stdout + stderr);
    assert.match(stdout, /v2 answered 200 of 200[\s\S]*log and explain name the policy[\s\S]*the new one tunnels[\s\S]*istiod is back/);
    const left = await cluster.kubectl('get', 'gateways,httproutes,authorizationpolicies', '-n', 'shop', '-o', 'name');
    assert.doesNotMatch(left, /canary|deny-orders/);
  });
});

/** What puts pods out of the mesh for a while comes last: others would see it. */
const inOrder = (files: readonly string[]): string[] =>
  files
    .filter((file) => file.endsWith('.txt'))
    .sort((a, b) => Number(a.startsWith('bypass')) - Number(b.startsWith('bypass')) || (a < b ? -1 : 1));

async function openShop(cluster: TestPlayground): Promise<void> {
  await cluster.kubectl('apply', '-f', join(root, 'playground/scenarios/shop.yaml'));
  await cluster.kubectl('label', 'namespace', 'shop', 'istio.io/dataplane-mode=ambient');
  await cluster.podsReady('shop');
  await cluster.podsReady('legacy');
  const applied = await cluster.tryMeshctl('waypoint', 'apply', '-n', 'shop', '--enroll-namespace', '--wait');
  assert.equal(applied.code, 0, applied.stderr);
  await cluster.apply(ROUTE_AND_POLICIES);
  await cluster.eventually(
    'requests do not pass the waypoint',
    async () => (await cluster.exec('shop', 'deploy/frontend', 'client', 'http://orders/admin')).stdout.includes('StatusCode=403'),
    60_000,
  );
  await cluster.eventually('the mesh is not healthy', async () => (await cluster.tryMeshctl('status')).code === 0, 60_000);
}

/** A caller outside of the mesh goes to the pods themselves: what the waypoint would have refused is let in, and coverage says so. */
async function passedBy(cluster: TestPlayground): Promise<void> {
  const { stdout } = await cluster.exec('legacy', 'deploy/client', 'client', 'http://orders.shop/admin');
  assert.ok(stdout.includes('StatusCode=200'), stdout);
  await cluster.eventually(
    'coverage does not say that the waypoint is passed by',
    async () => {
      const { code, stdout: text } = await cluster.tryMeshctl('coverage', '-n', 'shop', '-o', 'json');
      const rules = JSON.parse(text) as { name: string; enforced: string; because: string }[];
      const policy = rules.find(({ name }) => name === 'no-admin');
      return code === 1 && policy?.enforced === 'in part' && /passed by: \S+ dialled pods of orders\.shop/.test(policy.because);
    },
    60_000,
  );
}

/** Ten calls a second, for as long as its standard input is open. */
const CALLING = `
const http = require('node:http');
setInterval(() => http.get('http://orders/', { agent: false }, (answer) => answer.resume()).on('error', () => undefined), 100);
process.stdin.on('close', () => process.exit(0)).resume();
`;

/** Somebody always calls: what is live has something to show. @returns what ends it */
async function callsUntilEnd(t: TestContext, cluster: TestPlayground): Promise<() => void> {
  const calling = await cluster.companion('shop', 'deploy/frontend', nodeInPods, '-e', CALLING);
  t.after(() => calling.end());
  return () => calling.end();
}

type Meshctl = (...args: readonly string[]) => Promise<Ran>;

/** Runs a line of an example; what it prints, diagnostics last. */
async function said(cluster: TestPlayground, meshctl: Meshctl, line: string, folder: string): Promise<string[]> {
  const words = await Promise.all(
    line
      .slice('$ meshctl '.length)
      .split(' ')
      .map((word) => presentPod(cluster, word)),
  );
  const [, lines] = / \| head -(\d+)$/.exec(line) ?? [];
  const args = lines === undefined ? words : words.slice(0, words.indexOf('|'));
  // What acts on playgrounds starts and ends processes: it has one to itself.
  const run = args[0] === 'playground' ? cluster.tryMeshctl : meshctl;
  const { stdout, stderr } = await run(...args.map((word) => word.replace('/tmp/', `${folder}/`)));
  return (stdout || stderr)
    .replaceAll(`${folder}/`, '/tmp/')
    .trimEnd()
    .split('\n')
    .slice(0, lines === undefined ? undefined : Number(lines));
}

const POD = /^((?:[a-z0-9-]+\/)?[a-z0-9-]+-)[a-z0-9]{10}-[a-z0-9]{5}$/;

/** The pod that is there now, for one that was there when the example was written. */
async function presentPod(cluster: TestPlayground, word: string): Promise<string> {
  const [, prefix] = POD.exec(word) ?? [];
  if (prefix === undefined) return word;
  const [namespace = '', start = ''] = prefix.includes('/') ? prefix.split('/') : ['default', prefix];
  const names = (await cluster.kubectl('get', 'pods', '-n', namespace, '-o', 'name')).split('\n');
  return `${namespace}/${names.find((name) => name.startsWith(`pod/${start}`))?.slice(4) ?? start}`;
}

/** Without what differs from run to run, and in an order that does not hang on names made at random. */
function comparable(lines: readonly string[]): string[] {
  return lines
    .map((line) =>
      line
        .replaceAll(/\d{4}-\d\d-\d\dT[\d:.]+Z|\d{4}-\d\d-\d\d \d\d:\d\d UTC|\b\d\d:\d\d:\d\d(?:\.\d+)?/g, 'TIME')
        .replaceAll(/\S*…\S*/g, 'CUT')
        .replaceAll(/\b(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?\b|\[?fd00[0-9a-f:]+\]?/g, 'ADDRESS')
        .replaceAll(/-[a-z0-9]{10}-[a-z0-9]{5}\b/g, '-POD')
        .replaceAll(/\b(ztunnel|istio-cni-node)-[a-z0-9]{5}\b/g, '$1-POD')
        .replaceAll(/\b[0-9a-f]{20,}\b/g, 'HEX')
        .replaceAll(/\b\d+(?:\.\d+)?(?:ms|s|%|B|kB|MB|B\/s|kB\/s|MB\/s| s| rps| cps| KiB)(?=\b|\s|$|\/|,|;)/g, 'N')
        .replaceAll(/\b\d+ (files|calls|decisions|proxies|times|would)\b/g, 'N $1')
        .replaceAll(/\bcertificates(:?) +\d+/g, 'certificates$1 N')
        .replaceAll(/ +/g, ' ')
        .trim(),
    )
    .filter((line) => line !== '')
    .sort();
}

const istioctl = process.env.ISTIOCTL_BIN && existsSync(process.env.ISTIOCTL_BIN) ? process.env.ISTIOCTL_BIN : undefined;

/** Istio's own program reaches our ztunnel's admin port by port-forward, and reads our dump. */
async function sameAsIstioctl(cluster: TestPlayground): Promise<void> {
  const names = (await cluster.kubectl('get', 'pods', '-n', 'istio-system', '-l', 'app=ztunnel', '-o', 'name')).trim().split('\n');
  const pod = `${names[0]?.slice(4)}.istio-system`;
  const rows = (text: string): string[] =>
    text
      .trim()
      .split('\n')
      .map((line) => line.replaceAll(/\s+/g, ' ').trim());
  const version = await runProgram(istioctl ?? '', ['--kubeconfig', cluster.kubeconfig, 'version']);
  assert.match(version.stdout, new RegExp(`^control plane version: ${VERSION}$`, 'm'), version.stderr);
  for (const table of ['workload', 'service', 'policy', 'certificate'] as const) {
    const theirs = await runProgram(istioctl ?? '', ['--kubeconfig', cluster.kubeconfig, 'ztunnel-config', table, pod]);
    assert.equal(theirs.code, 0, theirs.stderr);
    const ours = await cluster.tryMeshctl('ztunnel-config', table, pod, '-o', 'wide');
    assert.deepEqual(rows(theirs.stdout).sort(), rows(ours.stdout).sort(), table);
  }
  const all = await runProgram(istioctl ?? '', ['--kubeconfig', cluster.kubeconfig, 'ztunnel-config', 'all', pod]);
  assert.equal(all.code, 0, all.stderr);
  for (const head of [/^NAMESPACE +POD NAME/m, /^NAMESPACE +SERVICE NAME/m, /^NAMESPACE +POLICY NAME/m, /^CERTIFICATE NAME/m])
    assert.match(all.stdout, head);
  const log = await runProgram(istioctl ?? '', ['--kubeconfig', cluster.kubeconfig, 'ztunnel-config', 'log', pod, '--level', 'info']);
  assert.equal(log.code, 0, log.stderr);
  assert.match(log.stdout, /current log level is info/);
}
