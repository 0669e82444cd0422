import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { systemClock } from '../../../common/base/clock.ts';
import { silentLog } from '../../../common/base/log.ts';
import { readSettings } from '../../../common/base/settings.ts';
import { KubeApi, type KubeObject } from '../../../common/client/kube-api.ts';
import { createCsr } from '../../../common/codec/x509/csr.ts';
import { readCertificate } from '../../../common/codec/x509/read-certificate.ts';
import { startIstiod } from '../../../istiod-lite/istiod.ts';
import { settingsTable } from '../../../istiod-lite/settings.ts';
import { ApiServer } from '../../../playground/apiserver/apiserver.ts';
import { ADDRESS, AUTHORIZATION, grpcClient, sign, TestStream, ztunnelNode } from '../../support/istiod.ts';
import { recordingLog } from '../../support/recording-log.ts';
import { until } from '../../support/until.ts';

type After = { after(run: () => Promise<void> | void): void };

/** istiod-lite in front of the playground's API server, as it runs in a pod: its own service account, real tokens. */
async function startBoth(t: After) {
  const server = new ApiServer({ clock: systemClock, log: silentLog, kubelets: () => undefined });
  const { port } = await server.listen({});
  const dir = mkdtempSync(join(tmpdir(), 'istiod-'));
  writeFileSync(join(dir, 'kubeconfig'), server.kubeconfig(`https://localhost:${port}`));
  const admin = KubeApi.load({ kubeconfig: join(dir, 'kubeconfig'), env: {} });
  const create = (path: string, object: object) => admin.create<KubeObject>(path, object);
  await create('/api/v1/namespaces', { metadata: { name: 'istio-system' } });
  await create('/api/v1/namespaces', { metadata: { name: 'shop' } });
  for (const name of ['istiod', 'ztunnel']) await create('/api/v1/namespaces/istio-system/serviceaccounts', { metadata: { name } });
  await create('/api/v1/namespaces/shop/serviceaccounts', { metadata: { name: 'orders' } });
  await create('/api/v1/nodes', { metadata: { name: 'node1' } });
  const token = await admin.create<{ status: { token: string } }>('/api/v1/namespaces/istio-system/serviceaccounts/istiod/token', {
    apiVersion: 'authentication.k8s.io/v1',
    kind: 'TokenRequest',
    spec: {},
  });
  writeFileSync(join(dir, 'token'), token.status.token);
  writeFileSync(join(dir, 'ca.crt'), server.caPem);
  const log = recordingLog();
  const istiod = await startIstiod({
    settings: {
      ...readSettings(settingsTable, {}),
      grpcPort: 0,
      monitoringPort: 0,
      httpsPort: 0,
      httpPort: 0,
      rootCaDirectory: '/nonexistent',
      drainMs: 200,
    },
    api: KubeApi.load({ env: { KUBERNETES_SERVICE_HOST: 'localhost', KUBERNETES_SERVICE_PORT: String(port) }, serviceAccountDir: dir }),
    clock: systemClock,
    random: Math.random,
    log,
  });
  t.after(async () => {
    await istiod.close();
    admin.close();
    await server.close();
    rmSync(dir, { recursive: true });
  });
  await until(() => istiod.ready);
  return { admin, create, istiod, log };
}

async function runPod(
  create: (path: string, object: object) => Promise<KubeObject>,
  admin: KubeApi,
  o: { name: string; namespace: string; account: string; ip: string },
) {
  const path = `/api/v1/namespaces/${o.namespace}/pods`;
  const pod = await create(path, {
    metadata: { name: o.name, labels: { app: o.account }, annotations: { 'ambient.istio.io/redirection': 'enabled' } },
    spec: { nodeName: 'node1', serviceAccountName: o.account, containers: [{ name: 'c', image: 'x' }] },
  });
  const status = { phase: 'Running', podIP: o.ip, podIPs: [{ ip: o.ip }], conditions: [{ type: 'Ready', status: 'True' }] };
  await admin.patch(`${path}/${o.name}/status`, { status }, { type: 'merge' });
  return pod;
}

test("istiod-lite works with the playground's API server: tokens, watches, roots, statuses", async (t) => {
  const { admin, create, istiod, log } = await startBoth(t);
  const ztunnel = await runPod(create, admin, { name: 'ztunnel-x', namespace: 'istio-system', account: 'ztunnel', ip: '10.0.0.2' });
  await runPod(create, admin, { name: 'orders-1', namespace: 'shop', account: 'orders', ip: '10.1.0.1' });

  const rootPath = '/api/v1/namespaces/shop/configmaps/istio-ca-root-cert';
  let roots = '';
  while (roots === '') {
    const found = await admin.get<{ data: Record<string, string> }>(rootPath).catch(() => undefined);
    roots = found?.data['root-cert.pem'] ?? '';
  }
  const requestToken = async (audience: string): Promise<string> => {
    const answer = await admin.create<{ status: { token: string } }>('/api/v1/namespaces/istio-system/serviceaccounts/ztunnel/token', {
      apiVersion: 'authentication.k8s.io/v1',
      kind: 'TokenRequest',
      spec: { audiences: [audience], boundObjectRef: { kind: 'Pod', apiVersion: 'v1', name: 'ztunnel-x', uid: ztunnel.metadata.uid } },
    });
    return answer.status.token;
  };
  const token = await requestToken('istio-ca');
  const client = grpcClient(`localhost:${istiod.grpcPort}`, roots);
  t.after(() => client.close());

  const wrong = new TestStream(client, await requestToken('somebody-else'));
  wrong.subscribe(ADDRESS);
  assert.equal((await wrong.failure()).code, 16);

  const stream = new TestStream(client, token);
  stream.subscribe(ADDRESS, { node: ztunnelNode('ztunnel-x') });
  const first = await stream.next();
  const seen = new Set(first.resources.map(({ name }) => name));
  while (!seen.has('Kubernetes//Pod/shop/orders-1')) for (const { name } of (await stream.next()).resources) seen.add(name);

  const identity = 'spiffe://cluster.local/ns/shop/sa/orders';
  const csr = createCsr({ uri: identity, key: generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey });
  const { certChain } = await sign(client, token, { csr, metadata: { ImpersonatedIdentity: identity } });
  assert.deepEqual(readCertificate(certChain[0] ?? '').uris, [identity]);

  stream.subscribe(AUTHORIZATION);
  await create('/apis/security.istio.io/v1/namespaces/shop/authorizationpolicies', {
    apiVersion: 'security.istio.io/v1',
    kind: 'AuthorizationPolicy',
    metadata: { name: 'p', namespace: 'shop' },
    spec: { rules: [{ to: [{ operation: { ports: ['80'] } }] }] },
  });
  for (let policies: string[] = []; !policies.includes('shop/p'); ) {
    const response = await stream.next();
    if (response.typeUrl === AUTHORIZATION) policies = response.resources.map(({ name }) => name);
  }
  let accepted: { type: string; status: string } | undefined;
  while (!accepted) {
    const policy = await admin.get<{ status?: { conditions?: { type: string; status: string }[] } }>(
      '/apis/security.istio.io/v1/namespaces/shop/authorizationpolicies/p',
    );
    accepted = policy.status?.conditions?.find(({ type }) => type === 'ZtunnelAccepted');
  }
  assert.equal(accepted.status, 'True');

  await admin.delete('/api/v1/namespaces/shop/pods/orders-1', { gracePeriodSeconds: 0 });
  for (let removed: string[] = []; !removed.includes('Kubernetes//Pod/shop/orders-1'); ) removed = (await stream.next()).removedResources;
  assert.deepEqual(
    log.entries.filter(({ level }) => level === 'error'),
    [],
  );
});
