/**
 * Who is who in a cluster: the API server's certificate, its own one towards kubelets, the key of service account tokens, and a static token
 * with a kubeconfig for each program. All new with every start, in the cluster's tmpfs.
 */
import { execFileSync } from 'node:child_process';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createServingCertificate } from '../../playground/apiserver/identity/certificates.ts';
import { API_PORT, API_SERVICE_IP, FABRIC } from '../../playground/network/plan.ts';

export const API_URL = `https://${FABRIC.v4}:${API_PORT}`;

export interface Credentials {
  readonly caPem: string;
  readonly adminToken: string;
  /** Files, by what the API server's flags call them. */
  readonly files: Readonly<Record<'ca' | 'certificate' | 'key' | 'kubeletCertificate' | 'kubeletKey' | 'accountKey' | 'tokens', string>>;
  /** The kubeconfig file of a program; made by name at the start. */
  kubeconfigOf(program: string): string;
}

interface Account {
  readonly user: string;
  readonly group?: string;
}

const NAMES = [
  'localhost',
  '127.0.0.1',
  FABRIC.v4,
  API_SERVICE_IP,
  'kubernetes',
  'kubernetes.default',
  'kubernetes.default.svc',
  'kubernetes.default.svc.cluster.local',
];

export function createCredentials(folder: string, nodes: readonly string[]): Credentials {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const write = (name: string, text: string): string => {
    writeFileSync(join(folder, name), text, { mode: 0o600 });
    return join(folder, name);
  };
  const { caPem, certificatePem, keyPem } = createServingCertificate(NAMES, Date.now());
  const accounts = new Map<string, Account>([
    ['admin', { user: 'admin', group: 'system:masters' }],
    ['kube-controller-manager', { user: 'system:kube-controller-manager' }],
    ['kube-scheduler', { user: 'system:kube-scheduler' }],
    ['kube-proxy', { user: 'system:kube-proxy' }],
    ['coredns', { user: 'system:coredns' }],
    ...nodes.map((name): [string, Account] => [name, { user: `system:node:${name}`, group: 'system:nodes' }]),
  ]);
  const tokens = new Map([...accounts.keys()].map((name) => [name, randomBytes(24).toString('hex')]));
  const tokenOf = (name: string): string => tokens.get(name) ?? '';
  const rows = [...accounts].map(([name, { user, group }]) => [tokenOf(name), user, user, ...(group ? [`"${group}"`] : [])].join(','));
  for (const name of accounts.keys()) write(`${name}.kubeconfig`, kubeconfig(API_URL, caPem, tokenOf(name)));
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return {
    caPem,
    adminToken: tokenOf('admin'),
    files: {
      ca: write('ca.crt', caPem),
      certificate: write('apiserver.crt', certificatePem),
      key: write('apiserver.key', keyPem),
      ...clientCertificate(folder),
      accountKey: write('accounts.key', privateKey.export({ type: 'sec1', format: 'pem' }).toString()),
      tokens: write('tokens.csv', `${rows.join('\n')}\n`),
    },
    kubeconfigOf: (program) => join(folder, `${program}.kubeconfig`),
  };
}

export const kubeconfig = (server: string, caPem: string, token: string): string =>
  JSON.stringify({
    apiVersion: 'v1',
    kind: 'Config',
    'current-context': 'cluster',
    clusters: [{ name: 'cluster', cluster: { server, 'certificate-authority-data': Buffer.from(caPem).toString('base64') } }],
    contexts: [{ name: 'cluster', context: { cluster: 'cluster', user: 'user' } }],
    users: [{ name: 'user', user: { token } }],
  });

/** Kubelets take the API server by a certificate only. It is its own authority, known to kubelets alone. */
function clientCertificate(folder: string): { kubeletCertificate: string; kubeletKey: string } {
  const kubeletCertificate = join(folder, 'kubelet-client.crt');
  const kubeletKey = join(folder, 'kubelet-client.key');
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', kubeletKey];
  const subject = ['-subj', '/O=system:masters/CN=kube-apiserver-kubelet-client', '-addext', 'extendedKeyUsage=clientAuth'];
  execFileSync('openssl', ['req', '-x509', ...key, '-out', kubeletCertificate, '-days', '365', ...subject], { stdio: 'pipe' });
  return { kubeletCertificate, kubeletKey };
}
