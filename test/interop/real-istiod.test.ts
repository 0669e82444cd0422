/**
 * Istio's own control plane and ours before one API server (the playground's): as the CA that signs for a mesh that ours serves, and as the other
 * control plane of a cluster of which ours has a part. Runs where ISTIOD_BIN names a build of pilot-discovery (`ISTIOD_BIN=… scripts/test interop`).
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createPublicKey, generateKeyPairSync, X509Certificate } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { hours, systemClock } from '../../common/base/clock.ts';
import { silentLog } from '../../common/base/log.ts';
import { readSettings, type Settings } from '../../common/base/settings.ts';
import { CaClient } from '../../common/client/ca-client.ts';
import { KubeApi, type KubeObject } from '../../common/client/kube-api.ts';
import { XdsClient } from '../../common/client/xds-client.ts';
import { issueCertificate, readIssuer } from '../../common/codec/x509/certificate.ts';
import { createCsr } from '../../common/codec/x509/csr.ts';
import { readCertificate } from '../../common/codec/x509/read-certificate.ts';
import { startIstiod } from '../../istiod-lite/istiod.ts';
import { settingsTable } from '../../istiod-lite/settings.ts';
import { ApiServer } from '../../playground/apiserver/apiserver.ts';
import { ADDRESS, AUTHORIZATION, grpcClient, sign, ztunnelNode } from '../support/istiod.ts';
import { follow } from '../support/programs.ts';
import { recordingLog } from '../support/recording-log.ts';

const program = process.env.ISTIOD_BIN ?? '';
const skip =
  program === '' ? "ISTIOD_BIN does not name a build of Istio's pilot-discovery" : existsSync(program) ? false : `there is no ${program}`;
const SYSTEM = 'istio-system';
const OURS = 'warren-system';
const PATIENCE_MS = 60_000;
const MESH = `trustDomain: cluster.local
rootNamespace: ${SYSTEM}
discoverySelectors: [{ matchExpressions: [{ key: mesh, operator: NotIn, values: [warren] }] }]
`;

test("Istio's istiod and ours before one API server", { skip, timeout: 280_000 }, async (t) => {
  const world = await startWorld(t);
  const pilot = await startPilot(t, world);

  await t.test('our istiod serves a mesh whose certificates the other one signs, asked by our own clients', async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'warren-external-ca-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const root = join(folder, 'root-cert.pem');
    writeFileSync(root, pilot.rootPem);
    // What cert-manager would bring as Secret istiod-tls: a certificate for istiod of the same root.
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const certificate = issueCertificate({
      issuer: readIssuer({ certificatePem: pilot.rootPem, keyPem: pilot.rootKeyPem }),
      publicKeySpkiDer: createPublicKey(privateKey).export({ type: 'spki', format: 'der' }),
      dnsNames: [`istiod.${SYSTEM}.svc`],
      notBefore: Date.now() - 60_000,
      notAfter: Date.now() + hours(1),
    });
    writeFileSync(join(folder, 'tls.crt'), certificate);
    writeFileSync(join(folder, 'tls.key'), privateKey.export({ type: 'pkcs8', format: 'pem' }));
    const ours = await startOurs(t, world, { caServer: false, servingDirectory: folder, servingRootsFile: root });

    const token = () => world.token;
    const endpoint = { tls: true, root, alternativeName: `istiod.${SYSTEM}.svc`, headers: {} };
    const held = new Map<string, string>();
    const xds = new XdsClient({
      endpoint: { ...endpoint, target: `localhost:${ours.grpcPort}` },
      token,
      clusterId: 'Kubernetes',
      node: ztunnelNode('ztunnel-1'),
      typeUrls: [AUTHORIZATION, ADDRESS],
      clock: systemClock,
      log: silentLog,
      versions: () => held,
      apply({ resources }) {
        for (const { name, version } of resources) held.set(name, version);
        return { rejected: [] };
      },
    });
    t.after(() => xds.stop());
    xds.start();
    await until('our istiod has told the mesh', () => xds.status.synced);
    assert.ok(held.has('Kubernetes//Pod/shop/orders-1'));

    const ca = new CaClient({ endpoint: { ...endpoint, target: `localhost:${pilot.grpcPort}` }, token, clusterId: 'Kubernetes' });
    t.after(() => ca.close());
    const ask = (account: string) => {
      const uri = `spiffe://cluster.local/ns/shop/sa/${account}`;
      const key = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
      return ca.sign({ csr: createCsr({ uri, key }), validitySeconds: 3600, impersonate: uri });
    };
    // Its own watch of pods may be a moment behind.
    const chain = await eventually('the other one signs', () => ask('orders'));
    assert.deepEqual(readCertificate(chain[0] ?? '').uris, ['spiffe://cluster.local/ns/shop/sa/orders']);
    assert.ok(new X509Certificate(chain[0] ?? '').verify(new X509Certificate(pilot.rootPem).publicKey));
    await assert.rejects(ask('elsewhere'), /UNAUTHENTICATED/, 'it checks for whom a node may ask');
    const client = grpcClient(`localhost:${ours.grpcPort}`, pilot.rootPem);
    t.after(() => client.close());
    await assert.rejects(sign(client, world.token, { csr: '' }), /signs nothing/);
    assert.equal((await world.find(`/api/v1/namespaces/${OURS}/secrets/istio-ca-secret`))?.metadata.name, undefined, 'ours made no root');
  });

  await t.test('of one cluster each looks after its own namespaces', async (t) => {
    const ours = await startOurs(t, world, { revision: 'warren', discoverySelectors: [{ matchLabels: { mesh: 'warren' } }] });
    const dataOf = async (path: string): Promise<string> =>
      ((await world.find(path)) as { data?: Record<string, string> } | undefined)?.data?.['root-cert.pem'] ?? '';
    const rootOf = (namespace: string) => dataOf(`/api/v1/namespaces/${namespace}/configmaps/istio-ca-root-cert`);
    const secret = async () =>
      (await world.find(`/api/v1/namespaces/${OURS}/secrets/istio-ca-secret`)) as { data?: Record<string, string> } | undefined;
    const ourRoot = await eventually('ours has a root', async () => decoded((await secret())?.data?.['ca-cert.pem']));
    assert.notEqual(ourRoot, pilot.rootPem);
    await eventually('roots are there', async () => {
      assert.equal(await rootOf('mine'), ourRoot, 'ours in what is ours');
      assert.equal(await rootOf('shop'), pilot.rootPem, 'the other one’s in the rest');
    });
    const conditionOf = async (namespace: string): Promise<string[]> => {
      const policy = await world.find(`/apis/security.istio.io/v1/namespaces/${namespace}/authorizationpolicies/get`);
      const managers = (policy?.metadata.managedFields ?? []) as { manager?: string; subresource?: string }[];
      return managers.filter(({ subresource }) => subresource === 'status').map(({ manager = '' }) => manager);
    };
    await eventually('each judges its own policy', async () => {
      assert.deepEqual((await conditionOf('mine')).length > 0, true, 'ours');
      assert.deepEqual((await conditionOf('shop')).length > 0, true, 'theirs');
    });
    const held = async (port: number, roots: string): Promise<string[]> => {
      const names = new Set<string>();
      const file = join(world.folder, `roots-${port}.pem`);
      writeFileSync(file, roots);
      const xds = new XdsClient({
        endpoint: {
          tls: true,
          root: file,
          alternativeName: `istiod.${port === pilot.grpcPort ? SYSTEM : OURS}.svc`,
          headers: {},
          target: `localhost:${port}`,
        },
        token: () => world.token,
        clusterId: 'Kubernetes',
        node: ztunnelNode('ztunnel-1'),
        typeUrls: [AUTHORIZATION, ADDRESS],
        clock: systemClock,
        log: silentLog,
        versions: () => new Map(),
        apply({ resources }) {
          for (const { name } of resources) names.add(name);
          return { rejected: [] };
        },
      });
      xds.start();
      await until(`${port} has told its mesh`, () => xds.status.synced);
      xds.stop();
      return [...names].filter((name) => name.includes('//Pod/') && !name.includes('/ztunnel-1')).sort();
    };
    assert.deepEqual(await held(ours.grpcPort, ourRoot), ['Kubernetes//Pod/mine/web-1']);
    const theirs = await held(pilot.grpcPort, pilot.rootPem);
    assert.ok(theirs.includes('Kubernetes//Pod/shop/orders-1') && !theirs.includes('Kubernetes//Pod/mine/web-1'), theirs.join());
  });
});

/** The cluster: a node with a ztunnel and a pod of each control plane, a policy for each to judge. */
async function startWorld(t: TestContext) {
  const server = new ApiServer({ clock: systemClock, log: silentLog, kubelets: () => undefined });
  const { port } = await server.listen({});
  const folder = mkdtempSync(join(tmpdir(), 'warren-real-istiod-'));
  const kubeconfig = join(folder, 'kubeconfig');
  writeFileSync(kubeconfig, server.kubeconfig(`https://localhost:${port}`), { mode: 0o600 });
  const api = KubeApi.load({ kubeconfig, env: {} });
  t.after(async () => {
    api.close();
    await server.close();
    rmSync(folder, { recursive: true });
  });
  const create = (path: string, object: object) => api.create<KubeObject>(path, object);
  for (const [name, labels] of Object.entries({ [SYSTEM]: {}, [OURS]: {}, shop: {}, mine: { mesh: 'warren' } }))
    await create('/api/v1/namespaces', { metadata: { name, labels } });
  for (const name of ['node1', 'node2']) await create('/api/v1/nodes', { metadata: { name } });
  for (const [namespace, name] of [
    [SYSTEM, 'ztunnel'],
    ['shop', 'orders'],
    ['shop', 'elsewhere'],
    ['mine', 'web'],
  ] as const)
    await create(`/api/v1/namespaces/${namespace}/serviceaccounts`, { metadata: { name } });
  let last = 1;
  const run = async (namespace: string, name: string, account: string, node: string): Promise<KubeObject> => {
    const path = `/api/v1/namespaces/${namespace}/pods`;
    const annotations = { 'ambient.istio.io/redirection': 'enabled' };
    const spec = { nodeName: node, serviceAccountName: account, containers: [{ name: 'c', image: 'x' }] };
    const pod = await create(path, { metadata: { name, labels: { app: account }, annotations }, spec });
    const ip = `10.1.0.${++last}`;
    const status = { phase: 'Running', podIP: ip, podIPs: [{ ip }], conditions: [{ type: 'Ready', status: 'True' }] };
    await api.patch(`${path}/${name}/status`, { status }, { type: 'merge' });
    return pod;
  };
  const ztunnel = await run(SYSTEM, 'ztunnel-1', 'ztunnel', 'node1');
  await run('shop', 'orders-1', 'orders', 'node1');
  await run('shop', 'elsewhere-1', 'elsewhere', 'node2');
  await run('mine', 'web-1', 'web', 'node1');
  for (const namespace of ['shop', 'mine'])
    await create(`/apis/security.istio.io/v1/namespaces/${namespace}/authorizationpolicies`, {
      apiVersion: 'security.istio.io/v1',
      kind: 'AuthorizationPolicy',
      metadata: { name: 'get' },
      spec: { rules: [{ from: [{ source: { namespaces: ['bank'] } }] }] },
    });
  const token = server.issueToken({
    namespace: SYSTEM,
    serviceAccount: 'ztunnel',
    audiences: ['istio-ca'],
    boundPod: { name: 'ztunnel-1', uid: ztunnel.metadata.uid ?? '', nodeName: 'node1' },
  });
  const find = (path: string): Promise<KubeObject | undefined> => api.get<KubeObject>(path).catch(() => undefined);
  return { folder, kubeconfig, api, token, find };
}

type World = Awaited<ReturnType<typeof startWorld>>;

async function startPilot(t: TestContext, world: World) {
  const [grpc, monitoring, http] = [await freePort(), await freePort(), await freePort()];
  const cwd = join(world.folder, 'pilot');
  mkdirSync(cwd);
  const mesh = join(cwd, 'mesh.yaml');
  writeFileSync(mesh, MESH);
  const listen = [`--monitoringAddr=:${monitoring}`, `--secureGRPCAddr=:${grpc}`, `--httpAddr=:${http}`, '--grpcAddr=', '--httpsAddr='];
  const env = {
    PATH: process.env.PATH ?? '',
    KUBECONFIG: world.kubeconfig,
    POD_NAME: 'istiod-real',
    POD_NAMESPACE: SYSTEM,
    CLUSTER_ID: 'Kubernetes',
    CA_TRUSTED_NODE_ACCOUNTS: `${SYSTEM}/ztunnel`,
    PILOT_ENABLE_AMBIENT: 'true',
  };
  const args = ['discovery', ...listen, `--meshConfig=${mesh}`, `--kubeconfig=${world.kubeconfig}`];
  follow(t, spawn(program, args, { cwd, env, stdio: ['ignore', 'pipe', 'pipe'] }), 'pilot-discovery');
  await eventually('pilot-discovery is ready', async () => assert.equal((await fetch(`http://127.0.0.1:${http}/ready`)).status, 200));
  const secret = (await world.find(`/api/v1/namespaces/${SYSTEM}/secrets/istio-ca-secret`)) as
    | { data?: Record<string, string> }
    | undefined;
  const rootPem = decoded(secret?.data?.['ca-cert.pem']);
  return { grpcPort: grpc, rootPem, rootKeyPem: decoded(secret?.data?.['ca-key.pem']) };
}

async function startOurs(t: TestContext, world: World, settings: Partial<Settings<typeof settingsTable>>) {
  const istiod = await startIstiod({
    settings: {
      ...readSettings(settingsTable, {}),
      systemNamespace: OURS,
      trustedNodeAccounts: [`${SYSTEM}/ztunnel`],
      grpcPort: 0,
      monitoringPort: 0,
      httpsPort: 0,
      httpPort: 0,
      rootCaDirectory: '/nonexistent',
      drainMs: 200,
      ...settings,
    },
    api: KubeApi.load({ kubeconfig: world.kubeconfig, env: {} }),
    clock: systemClock,
    random: Math.random,
    log: recordingLog(),
  });
  t.after(() => istiod.close());
  await until('ours is ready', () => istiod.ready);
  return istiod;
}

/** The first result that is neither an error nor empty. */
async function eventually<T>(what: string, run: () => Promise<T>): Promise<T> {
  const deadline = performance.now() + PATIENCE_MS;
  for (let last: unknown; ; ) {
    try {
      const result = await run();
      if (result !== '') return result;
    } catch (error) {
      last = error;
    }
    if (performance.now() > deadline) throw new Error(`never: ${what}`, { cause: last });
    await sleep(50);
  }
}

const until = (what: string, holds: () => boolean): Promise<unknown> => eventually(what, async () => assert.ok(holds()));

const decoded = (base64: string | undefined): string => Buffer.from(base64 ?? '', 'base64').toString('utf8');

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, () => {
      const address = server.address();
      server.close(() => (typeof address === 'object' && address ? resolve(address.port) : reject(new Error('no port'))));
    });
  });
}
