/**
 * The calls that were made through Istio's own ztunnel, made again through ours in a playground of one node: the same lines in the access
 * log, field by field, and the same series in the metrics. What cannot be the same is made equal first: addresses and generated names become
 * words, sizes become "some" or "none", times go, and errors of the operating system, whose words are the runtime's, become one word.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { startPlayground, type TestPlayground, withoutPlayground } from '../../support/playground.ts';
import { type CaseResult, type Cases, compare, type Suite } from '../suite.ts';

const FOLDER = 'recorded/data-plane';

const MANIFEST = `
apiVersion: v1
kind: Namespace
metadata: { name: shop, labels: { istio.io/dataplane-mode: ambient } }
---
apiVersion: v1
kind: Namespace
metadata: { name: legacy }
---
apiVersion: v1
kind: Pod
metadata: { name: client, namespace: shop, labels: { app: client } }
spec: { containers: [{ name: echo, image: warren/echo, args: ["--port=9000"] }] }
---
apiVersion: v1
kind: Pod
metadata: { name: outsider, namespace: legacy, labels: { app: outsider } }
spec: { containers: [{ name: echo, image: warren/echo, args: ["--port=9000"] }] }
---
apiVersion: apps/v1
kind: Deployment
metadata: { name: server, namespace: shop, labels: { app: server } }
spec:
  selector: { matchLabels: { app: server } }
  template:
    metadata: { labels: { app: server } }
    spec: { containers: [{ name: echo, image: warren/echo, args: ["--port=8080"] }] }
---
apiVersion: v1
kind: Service
metadata: { name: server, namespace: shop }
spec: { selector: { app: server }, ports: [{ port: 80, targetPort: 8080 }] }
`;

const DENY = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: nobody, namespace: shop }
spec: { action: DENY, rules: [{}] }
`;

const STRICT = `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: default, namespace: shop }
spec: { mtls: { mode: STRICT } }
`;

/** Words for what differs from run to run, by address or name. */
type Places = ReadonlyMap<string, string>;

export const suite: Suite = {
  suite: FOLDER,
  async *run(cases: Cases): AsyncIterable<CaseResult> {
    const names = [...cases.read(`${FOLDER}/calls.txt`).matchAll(/## (.+)/g)].map(([, name = '']) => name.trim());
    if (withoutPlayground !== undefined) {
      for (const name of [...names, 'metrics']) yield { case: name, verdict: 'skip', reason: withoutPlayground };
      return;
    }
    const ends: (() => unknown)[] = [];
    // As much of a test's context as a playground uses.
    const context = { after: (end: () => unknown) => void ends.push(end) } as unknown as Parameters<typeof startPlayground>[0];
    try {
      yield* inPlayground(cases, names, await startPlayground(context, { mesh: true, nodes: 1 }));
    } finally {
      for (const end of ends.reverse()) await end();
    }
  },
};

async function* inPlayground(cases: Cases, names: readonly string[], cluster: TestPlayground): AsyncIterable<CaseResult> {
  const { kubectl } = cluster;
  await cluster.apply(MANIFEST);
  for (const namespace of ['shop', 'legacy']) await cluster.podsReady(namespace);
  const ip = async (namespace: string, selector: string): Promise<string> =>
    kubectl('get', 'pods', '-n', namespace, '-l', selector, '-o', 'jsonpath={.items[0].status.podIP}');
  const [client, server, outsider, serverName, vip, apiServer] = await Promise.all([
    ip('shop', 'app=client'),
    ip('shop', 'app=server'),
    ip('legacy', 'app=outsider'),
    kubectl('get', 'pods', '-n', 'shop', '-l', 'app=server', '-o', 'jsonpath={.items[0].metadata.name}'),
    kubectl('get', 'service', '-n', 'shop', 'server', '-o', 'jsonpath={.spec.clusterIP}'),
    kubectl('get', 'endpointslices', '-n', 'default', '-o', 'jsonpath={.items[0].endpoints[0].addresses[0]}:{.items[0].ports[0].port}'),
  ]);
  const unknown = client.replace(/\d+$/, '250');
  const ztunnel = await kubectl('get', 'pods', '-n', 'istio-system', '-l', 'app=ztunnel', '-o', 'jsonpath={.items[0].metadata.name}');
  const own: Places = new Map([
    [client, 'CLIENT'],
    [server, 'SERVER'],
    [outsider, 'OUTSIDER'],
    [vip, 'VIP'],
    [apiServer, 'API-SERVER'],
    [unknown, 'UNKNOWN'],
    [serverName, 'SERVER-POD'],
  ]);
  const recorded: Places = new Map([
    ['10.244.0.73', 'CLIENT'],
    ['10.244.0.74', 'SERVER'],
    ['10.244.0.75', 'OUTSIDER'],
    ['10.96.117.246', 'VIP'],
    ['10.88.0.1:6443', 'API-SERVER'],
    ['10.244.0.250', 'UNKNOWN'],
    ['server-748db9c994-xfnng', 'SERVER-POD'],
  ]);
  const curl = async (namespace: string, pod: string, ...argv: string[]): Promise<void> =>
    void (await cluster.exec(namespace, pod, 'curl', '-sk', '-m', '10', ...argv));
  const fromClient = (url: string): Promise<void> => curl('shop', 'client', url);
  const inForce = async (policy: string): Promise<void> =>
    cluster.eventually(
      `${policy} is not in force`,
      async () =>
        (await kubectl('get', '--raw', `/api/v1/namespaces/istio-system/pods/${ztunnel}:15020/proxy/metrics`)) !== '' && settled(policy),
    );
  const settled = async (policy: string): Promise<boolean> => {
    const dump = await cluster.exec('istio-system', ztunnel, 'curl', '-s', 'http://127.0.0.1:15000/config_dump');
    return dump.stdout.includes(policy);
  };
  const service = `http://${vip}`;
  const calls: readonly (() => Promise<void>)[] = [
    () => fromClient(`${service}/`),
    () => fromClient(`http://${server}:8080/`),
    () => curl('legacy', 'outsider', `http://${server}:8080/`),
    () => fromClient(`http://${outsider}:8080/`),
    () => fromClient(`http://${server}:9999/`),
    () => fromClient(`${service}:81/`),
    () => fromClient('https://kubernetes.default.svc.cluster.local/version'),
    () => fromClient(`http://${unknown}/`),
    () => fromClient(`${service}/`),
    async () => {
      await cluster.apply(DENY);
      await inForce('"nobody"');
      await fromClient(`${service}/`);
      await kubectl('delete', 'authorizationpolicy', '-n', 'shop', 'nobody');
    },
    async () => {
      await cluster.apply(STRICT);
      await inForce('istio_converted_static_strict');
      await curl('legacy', 'outsider', `http://${server}:8080/`);
      await kubectl('delete', 'peerauthentication', '-n', 'shop', 'default');
    },
    async () => {
      await kubectl('scale', '-n', 'shop', 'deploy/server', '--replicas=0');
      await cluster.eventually('the server is still there', async () => !(await settled(serverName)));
      await fromClient(`${service}/`);
    },
  ];

  const expected = groupLines(cases.read(`${FOLDER}/ztunnel-access.log`), recorded);
  for (const [i, name] of names.entries()) {
    const call = calls[i];
    if (!call) {
      yield { case: name, verdict: 'fail', reason: 'nobody knows how to make this call' };
      continue;
    }
    const wanted = expected[i] ?? [];
    const before = await lines(cluster, ztunnel);
    await call();
    let found: readonly string[] = [];
    for (let waited = 0; waited < 10_000; waited += 200) {
      found = (await lines(cluster, ztunnel)).slice(before.length).map((line) => normal(line, own));
      if (found.length >= wanted.length) break;
      await sleep(200);
    }
    yield compare(name, [...found].sort(), [...wanted].sort(), 'access log');
  }
  const metrics = (await cluster.exec('istio-system', ztunnel, 'curl', '-s', 'http://127.0.0.1:15020/metrics')).stdout;
  const [want, got] = [series(cases.read(`${FOLDER}/ztunnel-metrics.txt`)), new Set(series(metrics))];
  const missing = want.filter((one) => !got.has(one));
  yield { case: 'metrics', verdict: missing.length === 0 ? 'pass' : 'fail', reason: missing.slice(0, 3).join('\n') };
}

/** Lines of connections that the calls made; what a node's probes and the mesh's own programs did is left out. */
async function lines(cluster: TestPlayground, ztunnel: string): Promise<string[]> {
  const log = await cluster.kubectl('logs', '-n', 'istio-system', ztunnel);
  return log.split('\n').filter((line) => line.includes('\taccess\t'));
}

/** How many lines each of the recorded calls left, in their order. */
const LINES_OF_CALLS = [2, 2, 1, 1, 2, 1, 1, 1, 2, 2, 1, 1];

/** The unknown address answered after the large download had begun: its line is the one after. */
function groupLines(text: string, places: Places): string[][] {
  const all = text.trim().split('\n');
  const late = all.findIndex((line) => line.includes('10.244.0.250'));
  const first = all.findIndex((line) => line.includes('10.88.0.1:6443')) + 1;
  const [moved] = late < 0 ? [] : all.splice(late, 1);
  if (moved !== undefined) all.splice(first, 0, moved);
  return LINES_OF_CALLS.map((count) => all.splice(0, count).map((line) => normal(line, places)));
}

/** Level, message and fields, without what no two runs have in common, and without our own fields behind Istio's. */
function normal(line: string, places: Places): string {
  const [, level = '', , message = '', ...rest] = line.split('\t');
  const fields = [...rest.join('\t').matchAll(/([\w.]+)=("(?:[^"\\]|\\.)*"|\S+)/g)]
    .filter(([, name = '']) => name !== 'id' && !name.startsWith('warren.'))
    .map(([, name = '', value = '']) => `${name}=${normalValue(name, value, places)}`);
  return [level, message, ...fields].join(' ');
}

function normalValue(name: string, value: string, places: Places): string {
  if (name === 'duration') return 'TIME';
  if (name.startsWith('bytes_')) return value === '0' ? 'none' : 'some';
  let text = value;
  for (const [place, word] of places) text = text.replace(new RegExp(`${place.replaceAll('.', '\\.')}(?![\\d.])`, 'g'), word);
  // Behind the status stands what the peer's refusal said of its reason, as our fields stand behind Istio's.
  if (name === 'error') text = text.replace(/^("http status: \d+ [A-Za-z ]+?) \(.*"$/, '$1"');
  if (name === 'src.addr') return text.replace(/:\d+$/, ':PORT');
  return name === 'error' && /io error|connection failed|connection to|ECONN|EHOST|timed out|took longer/.test(text) ? 'SYSTEM' : text;
}

/** Names and labels; of names with labels of a moment (how often something was lost, DNS that is not captured here) the name alone. */
function series(text: string): string[] {
  const found = text
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    // A playground's nodes are somewhere; the recorded one was nowhere.
    .map((line) => line.slice(0, line.lastIndexOf(' ')).replace(/_(region|zone)="[^"]*"/g, '_$1="unknown"'))
    .filter((one) => !one.startsWith('istio_dns_'))
    .map((one) => (/^(istio_tcp|workload_manager|process_)/.test(one) ? one : one.replace(/\{.*/, '')));
  return [...new Set(found)].filter((one) => one !== 'istio_xds_connection_terminations_total');
}
