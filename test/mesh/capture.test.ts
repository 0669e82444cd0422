/**
 * Who is captured and who is not, over both address families, by service and by pod address: the combinations that Istio's ztunnel is tested
 * with (tests/namespaced.rs), in the whole mesh, with what an operator sees of each. Then, in the same mesh, what takes it away from its pods.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { buildPlugin } from '../support/cni-plugin.ts';
import { startPlayground, withoutPlayground } from '../support/playground.ts';
import { ztunnelLine } from '../support/ztunnel-pods.ts';
import { outOfThePath } from './bypass.ts';
import { dnsCapture } from './dns-capture.ts';
import { maliciousCalls } from './malicious-calls.ts';
import { prometheusSees, withoutPrometheus } from './prometheus.ts';
import { ztunnelRestarts } from './ztunnel-restart.ts';

const pod = (namespace: string, name: string, node: string, app: string): string => `
---
apiVersion: v1
kind: Pod
metadata: { name: ${name}, namespace: ${namespace}, labels: { app: ${app} } }
spec:
  nodeName: ${node}
  terminationGracePeriodSeconds: 1
  containers: [{ name: echo, image: warren/echo, args: ["--port=8080", "--tcp=9091", "--server-first"] }]
`;

const service = (namespace: string, name: string): string => `
---
apiVersion: v1
kind: Service
metadata: { name: ${name}, namespace: ${namespace} }
spec:
  selector: { app: ${name} }
  ipFamilyPolicy: PreferDualStack
  ports: [{ name: http, port: 80, targetPort: 8080 }, { name: tcp, port: 9091 }]
`;

const MANIFEST = `
apiVersion: v1
kind: Namespace
metadata: { name: mesh, labels: { istio.io/dataplane-mode: ambient } }
---
apiVersion: v1
kind: Namespace
metadata: { name: plain }
${pod('mesh', 'client', 'node1', 'client')}
${pod('mesh', 'server-near', 'node1', 'server')}
${pod('mesh', 'server-far', 'node2', 'server')}
${service('mesh', 'server')}
${service('mesh', 'nobody')}
${pod('plain', 'client', 'node1', 'client')}
${pod('plain', 'server', 'node2', 'server')}
${service('plain', 'server')}
`;

interface ServiceAddresses {
  readonly spec: { readonly clusterIPs: readonly string[] };
}

test('who is captured, over both families, and what is seen of it', { skip: withoutPlayground, timeout: 400_000 }, async (t) => {
  buildPlugin();
  const cluster = await startPlayground(t, { mesh: true });
  await cluster.apply(MANIFEST);
  await cluster.podsReady('mesh');
  await cluster.podsReady('plain');
  const json = async <T>(...args: string[]): Promise<T> => JSON.parse(await cluster.kubectl('get', ...args, '-o', 'json')) as T;
  const podIp = (namespace: string, name: string): Promise<string> =>
    cluster.kubectl('get', 'pod', '-n', namespace, name, '-o', 'jsonpath={.status.podIP}');
  const answered = async (namespace: string, url: string): Promise<string> => {
    const reply = await cluster.client(namespace, 'client', url);
    return /Hostname=(\S+)/.exec(reply)?.[1] ?? reply;
  };
  const log = (node: string, ...words: string[]): Promise<string> => ztunnelLine(cluster, node, ...words);

  await t.test('captured to captured goes through a tunnel, on the same node as well', async () => {
    const far = await podIp('mesh', 'server-far');
    const near = await podIp('mesh', 'server-near');
    assert.equal(await answered('mesh', `http://${far}:8080/`), 'server-far');
    assert.match(await log('node2', 'inbound', far, 'server-far'), /src\.identity="spiffe:\/\/cluster\.local\/ns\/mesh\/sa\/default"/);
    assert.equal(await answered('mesh', `http://${near}:8080/`), 'server-near');
    assert.match(await log('node1', 'inbound', 'server-near'), new RegExp(`dst\\.addr=${near}:15008 .*dst\\.hbone_addr=${near}:8080`));
  });

  await t.test('captured to plain, and plain to captured, are plaintext', async () => {
    assert.equal(await answered('mesh', 'http://server.plain/'), 'server');
    assert.doesNotMatch(await log('node1', 'outbound', 'server.plain.svc'), /15008|dst\.identity/);
    const far = await podIp('mesh', 'server-far');
    assert.equal(await answered('plain', `http://${far}:8080/`), 'server-far');
    assert.doesNotMatch(await log('node2', 'inbound', 'src.namespace="plain"'), /src\.identity/);
  });

  await t.test('both families, by service and by pod', async () => {
    const { spec } = await json<ServiceAddresses>('service', 'server', '-n', 'mesh');
    const families = spec.clusterIPs.map((ip) => (ip.includes(':') ? 6 : 4));
    assert.deepEqual(families.sort(), [4, 6]);
    for (const ip of spec.clusterIPs) {
      const host = ip.includes(':') ? `[${ip}]` : ip;
      assert.match(await answered('mesh', `http://${host}/`), /^server-/);
      assert.match(await answered('plain', `http://${host}/`), /^server-/);
    }
    const ips = await json<{ status: { podIPs: { ip: string }[] } }>('pod', 'server-far', '-n', 'mesh');
    const v6 = ips.status.podIPs.map(({ ip }) => ip).find((ip) => ip.includes(':'));
    assert.equal(await answered('mesh', `http://[${v6}]:8080/`), 'server-far');
    assert.match(await log('node2', 'inbound', `[${v6}]:15008`), /src\.identity/);
  });

  await t.test('a service spreads connections over its endpoints', async () => {
    const reply = await cluster.client('mesh', 'client', 'http://server/', '--count=50');
    const counts = new Map<string, number>();
    for (const [, name = ''] of reply.matchAll(/Hostname=(\S+)/g)) counts.set(name, (counts.get(name) ?? 0) + 1);
    assert.deepEqual([...counts.keys()].sort(), ['server-far', 'server-near']);
    assert.equal(
      [...counts.values()].reduce((sum, n) => sum + n, 0),
      50,
    );
  });

  await t.test('a server that speaks first is heard', async () => {
    assert.match(await cluster.client('mesh', 'client', 'tcp://server:9091'), /server-first-protocol/);
    assert.match(await cluster.client('plain', 'client', 'tcp://server.mesh:9091'), /server-first-protocol/);
  });

  await t.test('a Service without pods is refused by name, in the log and in meshctl status', async () => {
    assert.notEqual((await cluster.exec('mesh', 'client', 'client', 'http://nobody/')).code, 0);
    assert.match(await log('node1', 'outbound', 'nobody.mesh.svc'), /NO_HEALTHY_UPSTREAM/);
    assert.match((await cluster.tryMeshctl('status')).stdout, /Service mesh\/nobody: selects no pod/);
  });

  // In the same mesh, since a mesh takes longer to come up than these to run.
  await t.test('calls to ports of ztunnel bring nothing, wherever they come from', () => maliciousCalls(cluster, 'mesh', 'plain'));
  const withoutIt = { skip: withoutPrometheus };
  await t.test('Prometheus scrapes every component, and its answers say who talked to whom', withoutIt, () =>
    prometheusSees(cluster, 'mesh', 3),
  );
  await t.test('the mesh out of the path', (t) => outOfThePath(t, cluster));
  await t.test('with istiod away a ztunnel that is killed, or replaced, goes on serving its pods under the same policies', (t) =>
    ztunnelRestarts(t, cluster),
  );
  await t.test('with DNS capture a pod resolves services by ztunnel, and the rest by the cluster', () => dnsCapture(cluster));
});
