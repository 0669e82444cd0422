/**
 * istiod-lite as it is installed, with two replicas: one writes, both serve, all of them are replaced while traffic flows, the API server
 * goes away for a while; and the API server asks istiod about objects, also when istiod is away.
 */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { ambientNamespace, echoPod } from '../support/echo-pods.ts';
import { type Ran, runProgram } from '../support/kube-commands.ts';
import { command } from '../support/netns.ts';
import { nodeInPods, startPlayground, type TestPlayground, withoutPlayground } from '../support/playground.ts';
import { podProgram } from '../support/pod-program.ts';

const PODS =
  ambientNamespace('shop') +
  echoPod({ name: 'client', namespace: 'shop', node: 'node1' }) +
  echoPod({ name: 'server', namespace: 'shop', node: 'node2' });

const asking = (seconds: number): string[] => [
  nodeInPods,
  '--input-type=module',
  '-e',
  podProgram('asking-program.mjs'),
  'http://server.shop:80/',
  String(seconds),
];

/** Both ways: what comes in on an open connection would be read even where no answer to it gets out. */
const CUT = `
add table ip cut
add chain ip cut out { type filter hook output priority -200; }
add chain ip cut in { type filter hook input priority -200; }
add rule ip cut out tcp dport { 443, 6443 } drop
add rule ip cut in tcp sport { 443, 6443 } drop
`;

interface Replica {
  readonly name: string;
  readonly ready: boolean;
}

test('istiod of two replicas', { skip: withoutPlayground, timeout: 300_000 }, async (t) => {
  const cluster = await startPlayground(t, { mesh: true });
  await cluster.kubectl('scale', '-n', 'istio-system', 'deploy/istiod', '--replicas=2');
  await cluster.eventually('two replicas are not ready', async () => (await ready(cluster)).length === 2, 90_000);
  await cluster.apply(PODS);
  await cluster.podsReady('shop');

  await t.test('both serve, and the holder of the lease writes', async () => {
    const holder = (): Promise<string> =>
      cluster.kubectl('get', 'lease', '-n', 'istio-system', 'istio-leader', '-o', 'jsonpath={.spec.holderIdentity}');
    const replicas = (await ready(cluster)).map(({ name }) => name);
    assert.ok(replicas.includes(await holder()));
    const writers = await Promise.all(
      replicas.map(async (name) => /^warren_writer (\d)$/m.exec(await page(cluster, name, '/metrics'))?.[1]),
    );
    assert.deepEqual(writers.sort(), ['0', '1']);
  });

  await t.test(
    'all of them replaced under traffic: nothing is lost, new pods get in, policies take effect, proxies are connected',
    async () => {
      const before = (await ready(cluster)).map(({ name }) => name);
      const asked = cluster.exec('shop', 'client', ...asking(40));
      await cluster.kubectl('rollout', 'restart', '-n', 'istio-system', 'deploy/istiod');
      await cluster.apply(echoPod({ name: 'late', namespace: 'shop', node: 'node1' }));
      await cluster.eventually(
        'the old replicas are still there',
        async () => {
          const now = await replicasOf(cluster);
          return now.length === 2 && now.every(({ name, ready: up }) => up && !before.includes(name));
        },
        120_000,
      );
      await cluster.podsReady('shop');
      const { stdout } = await asked;
      assert.match(stdout, /asked \d\d+, lost 0/, stdout);
      await cluster.eventually('the new pod has no way in', async () => (await calls(cluster, 'late')).code === 0);
      const proxies = await Promise.all((await ready(cluster)).map(({ name }) => page(cluster, name, '/debug/syncz')));
      const connected = proxies.flatMap((text) => (JSON.parse(text) as { proxy: string }[]).map(({ proxy }) => proxy));
      assert.equal(new Set(connected).size, 2, 'each ztunnel is connected to one of the new replicas');
      await cluster.apply(`
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: not-late, namespace: shop }
spec:
  action: DENY
  rules: [{ from: [{ source: { principals: ["cluster.local/ns/shop/sa/late"] } }] }]
`);
      await cluster.eventually('the policy does not take effect', async () => (await calls(cluster, 'late')).code !== 0);
      assert.equal((await calls(cluster, 'client')).code, 0);
    },
  );

  await t.test('the API server away from istiod: traffic goes on, and what changed meanwhile takes effect when it is back', async () => {
    const cut = (await ready(cluster)).map(({ name }) => processOf(name));
    for (const pid of cut) inNetwork(pid, CUT);
    const asked = cluster.exec('shop', 'client', ...asking(15));
    await cluster.kubectl('delete', 'authorizationpolicy', '-n', 'shop', 'not-late');
    const { stdout } = await asked;
    assert.match(stdout, /asked \d\d+, lost 0/, stdout);
    assert.equal((await ready(cluster)).length, 2, 'istiod stays ready');
    assert.notEqual((await calls(cluster, 'late')).code, 0, 'nobody has told ztunnel yet');
    for (const pid of cut) inNetwork(pid, 'delete table ip cut');
    await cluster.eventually('the deletion does not take effect', async () => (await calls(cluster, 'late')).code === 0, 120_000);
  });

  await t.test('an object that makes no sense is refused by name, and one that is enforced otherwise is warned about', async () => {
    const refused = await apply(cluster, policy('bad', ranges('10.0.0.0/64')));
    assert.notEqual(refused.code, 0);
    assert.match(
      refused.stderr,
      /admission webhook "validation\.istio\.io" denied the request: \[IST0106\] AuthorizationPolicy shop\/bad: .*10\.0\.0\.0\/64/,
    );
    const warned = await apply(
      cluster,
      policy('http', '{ rules: [{ to: [{ operation: { methods: [GET] } }] }], selector: { matchLabels: { app: none } } }'),
    );
    assert.equal(warned.code, 0, warned.stderr);
    assert.match(warned.stderr, /^Warning: \[WRN0202\] AuthorizationPolicy shop\/http: ztunnel sees no HTTP and cannot match methods/m);
    const label = await cluster.tryKubectl('label', 'service', '-n', 'shop', 'server', 'istio.io/use-waypoint=gone', '--dry-run=server');
    assert.match(label.stderr, /^Warning: \[WRN0101\] Service shop\/server: there is no waypoint shop\/gone/m);
  });

  await t.test(
    'while istiod is away, Ignore takes what it would refuse, Fail refuses whatever is of the mesh, and nothing else waits',
    async () => {
      await cluster.kubectl('scale', '-n', 'istio-system', 'deploy/istiod', '--replicas=0');
      await cluster.eventually('istiod is still there', async () => (await replicasOf(cluster)).length === 0, 60_000);
      const taken = await apply(cluster, policy('bad', ranges('10.0.0.0/64')));
      assert.equal(taken.code, 0, taken.stderr);
      await setFailurePolicy(cluster, 'Fail');
      const good = await apply(cluster, policy('good', ranges('10.0.0.0/8')));
      assert.notEqual(good.code, 0);
      assert.match(good.stderr, /failed calling webhook "validation\.istio\.io"/);
      await cluster.kubectl('label', 'service', '-n', 'shop', 'server', 'istio.io/use-waypoint=none');
      await cluster.kubectl('create', 'configmap', '-n', 'shop', 'other');
      await cluster.kubectl('scale', '-n', 'istio-system', 'deploy/istiod', '--replicas=1');
      await cluster.eventually(
        'istiod does not judge',
        async () => (await apply(cluster, policy('good', ranges('10.0.0.0/8')))).code === 0,
        90_000,
      );
      // What got in meanwhile is told of where it stands, by whoever has the Lease once that of the replicas before has run out.
      await cluster.eventually(
        'the status does not say what is wrong',
        async () => {
          const status = await cluster.kubectl(
            'get',
            'authorizationpolicy',
            '-n',
            'shop',
            'bad',
            '-o',
            'jsonpath={.status.conditions[*].message}',
          );
          return status.includes('"10.0.0.0/64" cannot be read');
        },
        90_000,
      );
      const analyzed = await cluster.tryMeshctl('analyze', '-n', 'shop');
      assert.equal(analyzed.code, 79, analyzed.stderr);
      assert.match(analyzed.stdout, /^Error \[IST0106\] \(AuthorizationPolicy shop\/bad\) .*10\.0\.0\.0\/64/m);
    },
  );
});

const policy = (name: string, spec: string): string => `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: ${name}, namespace: shop }
spec: ${spec}
`;

const ranges = (range: string): string => `{ action: DENY, rules: [{ from: [{ source: { ipBlocks: ["${range}"] } }] }] }`;

const apply = (cluster: TestPlayground, text: string): Promise<Ran> =>
  runProgram('kubectl', ['--kubeconfig', cluster.kubeconfig, 'apply', '-f', '-'], text);

const CONFIGURATION = ['validatingwebhookconfiguration', 'istio-validator-istio-system'];

async function setFailurePolicy(cluster: TestPlayground, failurePolicy: string): Promise<void> {
  const webhooks = ['rev.validation.istio.io', 'validation.istio.io'].map((name) => ({ name, failurePolicy }));
  await cluster.kubectl('patch', ...CONFIGURATION, '--type=strategic', '-p', JSON.stringify({ webhooks }));
}

const calls = (cluster: TestPlayground, from: string) => cluster.exec('shop', from, 'client', 'http://server.shop:80/');

const page = (cluster: TestPlayground, replica: string, path: string): Promise<string> =>
  cluster.kubectl('get', '--raw', `/api/v1/namespaces/istio-system/pods/${replica}:15014/proxy${path}`);

const ready = async (cluster: TestPlayground): Promise<Replica[]> => (await replicasOf(cluster)).filter((replica) => replica.ready);

async function replicasOf(cluster: TestPlayground): Promise<Replica[]> {
  const list = JSON.parse(await cluster.kubectl('get', 'pods', '-n', 'istio-system', '-l', 'app=istiod', '-o', 'json')) as {
    items: { metadata: { name: string; deletionTimestamp?: string }; status: { conditions?: { type: string; status: string }[] } }[];
  };
  return list.items.map(({ metadata, status }) => ({
    name: metadata.name,
    ready:
      metadata.deletionTimestamp === undefined &&
      (status.conditions ?? []).some((condition) => condition.type === 'Ready' && condition.status === 'True'),
  }));
}

/** The replica's process, as the machine numbers it. */
function processOf(podName: string): number {
  const found = readdirSync('/proc').find((pid) => {
    try {
      const [command, environment] = ['cmdline', 'environ'].map((file) => readFileSync(`/proc/${pid}/${file}`, 'utf8'));
      return /^[^\0]*\bnode\0.*istiod-lite\/main/.test(command ?? '') && environment?.split('\0').includes(`POD_NAME=${podName}`);
    } catch {
      // Not a process, or one that has just ended.
      return false;
    }
  });
  assert.ok(found, `the process of ${podName}`);
  return Number(found);
}

function inNetwork(pid: number, rules: string): void {
  command('nsenter', `--target=${pid}`, '--net', 'nft', rules);
}
