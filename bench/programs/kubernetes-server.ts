/**
 * The same generated cluster behind a real API server and etcd, on ports of loopback: `kubernetes-server.ts FOLDER SERVICES PODS NODES`. There are no
 * controllers and no kubelets: nobody but us writes. Both programs end with this one.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { mkdirSync, openSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { KubeApi, type KubeObject } from '../../common/client/kube-api.ts';
import { createServingCertificate } from '../../playground/apiserver/identity/certificates.ts';
import { build } from '../../test/cluster/build.ts';
import { kubeconfig } from '../../test/cluster/credentials.ts';
import { type ClusterWriter, fill, obey } from './generated-cluster.ts';

const [folder = '', ...numbers] = process.argv.slice(2);
const [services = 0, pods = 0, nodes = 0] = numbers.map(Number);
const sizes = { services, pods, nodes };
const PATIENCE_MS = 60_000;
const COLLECTIONS: Readonly<Record<string, string>> = {
  Namespace: 'namespaces',
  Node: 'nodes',
  ServiceAccount: 'serviceaccounts',
  Service: 'services',
  Pod: 'pods',
};
const children: ChildProcess[] = [];

const parts = await build((text) => console.error(text));
const [client, peer, secure] = [await freePort(), await freePort(), await freePort()];
start('etcd', join(parts.debian, 'usr/bin/etcd'), [
  ...['--data-dir', join(folder, 'etcd'), '--unsafe-no-fsync', '--logger', 'zap', '--log-level', 'warn'],
  ...['--listen-client-urls', `http://127.0.0.1:${client}`, '--advertise-client-urls', `http://127.0.0.1:${client}`],
  ...['--listen-peer-urls', `http://127.0.0.1:${peer}`],
]);
const credentials = writeCredentials();
start('kube-apiserver', parts.kubernetes, [
  'kube-apiserver',
  ...[`--etcd-servers=http://127.0.0.1:${client}`, '--bind-address=127.0.0.1', `--secure-port=${secure}`],
  ...['--advertise-address=127.0.0.1', '--endpoint-reconciler-type=none', '--service-cluster-ip-range=10.96.0.0/16'],
  ...[`--tls-cert-file=${credentials.certificate}`, `--tls-private-key-file=${credentials.key}`],
  ...[`--token-auth-file=${credentials.tokens}`, '--authorization-mode=RBAC'],
  '--service-account-issuer=https://kubernetes.default.svc.cluster.local',
  ...[`--service-account-key-file=${credentials.accountKey}`, `--service-account-signing-key-file=${credentials.accountKey}`],
  `--cert-dir=${join(folder, 'apiserver')}`,
]);
const file = join(folder, 'kubeconfig');
writeFileSync(file, kubeconfig(`https://127.0.0.1:${secure}`, credentials.ca, credentials.token), { mode: 0o600 });
const api = KubeApi.load({ kubeconfig: file, env: {} });
await untilReady();

const writer: ClusterWriter = {
  async create(object) {
    await api.create(collectionOf(object as KubeObject), object).catch(unlessThere);
  },
  async startPod(pod, status, created) {
    const path = collectionOf(pod as KubeObject);
    const { metadata } = await api.create<KubeObject>(path, pod);
    created(Number(process.hrtime.bigint()) / 1e6);
    await api.patch(`${path}/${metadata.name}/status`, { status }, { type: 'merge' });
  },
  removePod: (namespace, name) => api.delete(`/api/v1/namespaces/${namespace}/pods/${name}`, { gracePeriodSeconds: 0 }),
};

obey(writer, sizes);
for (const signal of ['SIGTERM', 'disconnect'] as const)
  process.on(signal, () => {
    for (const each of children) each.kill('SIGKILL');
    process.exit(0);
  });

await fill(writer, sizes);
const { status } = await api.create<{ status: { token: string } }>('/api/v1/namespaces/istio-system/serviceaccounts/ztunnel/token', {
  apiVersion: 'authentication.k8s.io/v1',
  kind: 'TokenRequest',
  spec: { audiences: ['istio-ca'], expirationSeconds: 3600 },
});
process.send?.({ token: status.token });

function start(name: string, program: string, args: readonly string[]): void {
  const log = openSync(join(folder, `${name}.log`), 'w');
  const child = spawn(program, args, { stdio: ['ignore', log, log], env: { PATH: process.env.PATH ?? '' } });
  child.once('exit', (code) => {
    console.error(`${name} ended with ${code}; its log is ${folder}/${name}.log`);
    process.exit(1);
  });
  children.push(child);
}

function writeCredentials(): Readonly<Record<'ca' | 'certificate' | 'key' | 'accountKey' | 'tokens' | 'token', string>> {
  const keys = join(folder, 'keys');
  mkdirSync(keys, { mode: 0o700 });
  const write = (name: string, text: string): string => {
    writeFileSync(join(keys, name), text, { mode: 0o600 });
    return join(keys, name);
  };
  const { caPem, certificatePem, keyPem } = createServingCertificate(['localhost', '127.0.0.1'], Date.now());
  const token = randomBytes(24).toString('hex');
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return {
    ca: caPem,
    certificate: write('apiserver.crt', certificatePem),
    key: write('apiserver.key', keyPem),
    accountKey: write('accounts.key', privateKey.export({ type: 'sec1', format: 'pem' }).toString()),
    tokens: write('tokens.csv', `${token},admin,admin,"system:masters"\n`),
    token,
  };
}

async function untilReady(): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS;
  for (;;) {
    const answer = await api.getText('/readyz').catch((error: unknown) => String(error));
    if (answer === 'ok') return;
    if (performance.now() > deadline) throw new Error(`the API server is not ready: ${answer}`);
    await sleep(100);
  }
}

function collectionOf({ kind = '', metadata }: KubeObject): string {
  const collection = COLLECTIONS[kind] ?? '';
  return metadata.namespace === undefined ? `/api/v1/${collection}` : `/api/v1/namespaces/${metadata.namespace}/${collection}`;
}

/** Namespaces and accounts may be the server's own already. */
function unlessThere(error: unknown): void {
  if ((error as { status?: number }).status !== 409) throw error;
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const bound = server.address();
      server.close(() => (typeof bound === 'object' && bound ? resolve(bound.port) : reject(new Error('no port'))));
    });
  });
}
