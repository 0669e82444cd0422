/**
 * Part of capture.test.ts: a ztunnel that ends while the control plane is away: killed and started again by the kubelet, or replaced by another pod. What it knew and
 * the certificates that it had go on, so that the pods of its node notice nothing but the connections that the process took with it.
 */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import type { TestContext } from 'node:test';
import type { TestPlayground } from '../support/playground.ts';

const pod = (name: string, node: string): string => `
---
apiVersion: v1
kind: ServiceAccount
metadata: { name: ${name}, namespace: kept }
---
apiVersion: v1
kind: Pod
metadata: { name: ${name}, namespace: kept, labels: { app: ${name} } }
spec:
  nodeName: ${node}
  terminationGracePeriodSeconds: 1
  serviceAccountName: ${name}
  containers: [{ name: echo, image: warren/echo, args: ["--port=8080", "--port=8081"] }]
`;

const MANIFEST = `
apiVersion: v1
kind: Namespace
metadata: { name: kept, labels: { istio.io/dataplane-mode: ambient } }
${pod('client', 'node1')}
${pod('server', 'node2')}
---
apiVersion: v1
kind: Service
metadata: { name: server, namespace: kept }
spec:
  selector: { app: server }
  ports: [{ name: http, port: 80, targetPort: 8080 }, { name: closed, port: 90, targetPort: 8081 }]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: no-8081, namespace: kept }
spec:
  action: DENY
  rules: [{ to: [{ operation: { ports: ["8081"] } }] }]
`;

/** With istiod away a ztunnel that is killed, or replaced, goes on serving its pods under the same policies. */
export async function ztunnelRestarts(t: TestContext, cluster: TestPlayground): Promise<void> {
  await cluster.apply(MANIFEST);
  await cluster.podsReady('kept');
  const calls = async (port: number): Promise<boolean> =>
    (await cluster.exec('kept', 'client', 'client', `http://server.kept:${port}/`)).stdout.includes('Hostname=server');
  await cluster.eventually('the policy is not in force', async () => (await calls(80)) && !(await calls(90)));

  await cluster.kubectl('scale', '-n', 'istio-system', 'deploy/istiod', '--replicas=0');
  await cluster.eventually(
    'istiod is still there',
    async () => (await cluster.kubectl('get', 'pods', '-n', 'istio-system', '-l', 'app=istiod', '-o', 'name')) === '',
  );

  await t.test('killed: the kubelet starts the container again, and it serves from what was kept', async () => {
    const killed = await ztunnels(cluster);
    // A fault in native code ends a process in the same way: at once, and with nothing said.
    for (const { name } of killed) process.kill(processOf(name), 'SIGKILL');
    await cluster.eventually('no ztunnel was started again', async () =>
      (await ztunnels(cluster)).every(({ restarts, ready }) => restarts > 0 && ready),
    );
    await cluster.eventually('no traffic after the restart', () => calls(80));
    assert.equal(await calls(90), false, 'the policy holds');
    for (const { name } of killed) {
      const log = await cluster.kubectl('logs', '-n', 'istio-system', name);
      assert.match(log, /serving from kept state/);
      assert.match(log, /connection complete.*spiffe:\/\/cluster\.local\/ns\/kept\/sa\/client/, 'through a tunnel');
    }
  });

  await t.test('replaced: another pod of the node serves from what the one before it kept', async () => {
    const before = await ztunnels(cluster);
    await cluster.kubectl('delete', 'pod', '-n', 'istio-system', '-l', 'app=ztunnel', '--grace-period=1');
    await cluster.eventually('no new ztunnel is ready', async () => {
      const now = await ztunnels(cluster);
      return now.length === before.length && now.every(({ name, ready }) => ready && before.every((old) => old.name !== name));
    });
    await cluster.eventually('no traffic after the replacement', () => calls(80));
    assert.equal(await calls(90), false, 'the policy holds');
    for (const { name } of await ztunnels(cluster)) {
      const metrics = await cluster.exec('istio-system', name, 'sh', '-c', 'curl -s http://127.0.0.1:15020/metrics');
      assert.match(metrics.stdout, /^warren_kept_state 1$/m);
    }
  });

  await t.test('keys lie in memory, for root alone; what lies on the disk has no key in it', async () => {
    const node = cluster.node('node1');
    assert.equal(node.run('stat', '-f', '-c', '%T', '/var/run/ztunnel/keys').trim(), 'tmpfs');
    assert.match(node.run('stat', '-c', '%a %u', '/var/run/ztunnel/keys'), /^700 0/);
    assert.doesNotMatch(node.run('sh', '-c', 'cat /var/run/ztunnel/state/*'), /PRIVATE KEY/);
  });

  await t.test('a control plane that comes back is believed again', async () => {
    await cluster.kubectl('delete', 'authorizationpolicy', '-n', 'kept', 'no-8081');
    assert.equal(await calls(90), false, 'nobody has told ztunnel yet');
    await cluster.kubectl('scale', '-n', 'istio-system', 'deploy/istiod', '--replicas=1');
    await cluster.eventually('the policy is still in force', () => calls(90), 60_000);
  });
}

/** The ztunnel's process, as the machine numbers it: from within its own PID namespace it is the first one, which nobody can kill there. */
function processOf(podName: string): number {
  const found = readdirSync('/proc').find((pid) => {
    try {
      const [command, environment] = ['cmdline', 'environ'].map((file) => readFileSync(`/proc/${pid}/${file}`, 'utf8'));
      return /^[^\0]*\bnode\0.*ztunnel\/main/.test(command ?? '') && environment?.split('\0').includes(`POD_NAME=${podName}`);
    } catch {
      // Not a process, or one that has just ended.
      return false;
    }
  });
  assert.ok(found, `the process of ${podName}`);
  return Number(found);
}

interface Ztunnel {
  readonly name: string;
  readonly ready: boolean;
  readonly restarts: number;
}

async function ztunnels(cluster: TestPlayground): Promise<Ztunnel[]> {
  const list = JSON.parse(await cluster.kubectl('get', 'pods', '-n', 'istio-system', '-l', 'app=ztunnel', '-o', 'json')) as {
    items: { metadata: { name: string }; status: { containerStatuses?: { ready: boolean; restartCount: number }[] } }[];
  };
  return list.items.map(({ metadata, status }) => {
    const [container] = status.containerStatuses ?? [];
    return { name: metadata.name, ready: container?.ready ?? false, restarts: container?.restartCount ?? 0 };
  });
}
