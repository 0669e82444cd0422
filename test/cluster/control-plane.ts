/** etcd, the API server, its controllers, the scheduler and the cluster's DNS, in the cluster's own network namespace, where the nodes' bridge is. */
import { mkdirSync, writeFileSync } from 'node:fs';
import https from 'node:https';
import { join } from 'node:path';
import { API_PORT, CLUSTER_DOMAIN, DNS_PORT, DNS_SERVICE_IP, FABRIC, SERVICE_CIDRS } from '../../playground/network/plan.ts';
import { runCommand } from '../../playground/node/command.ts';
import type { Parts } from './build.ts';
import { API_URL, type Credentials } from './credentials.ts';
import type { Daemons } from './daemons.ts';

const ETCD = 'http://127.0.0.1:2379';

/** Resolves when the API server is ready. */
export async function startApiServer(parts: Parts, state: string, { files, ...who }: Credentials, daemons: Daemons): Promise<void> {
  const etcd = join(state, 'etcd');
  mkdirSync(etcd, { mode: 0o700 });
  daemons.start('etcd', [
    join(parts.debian, 'usr/bin/etcd'),
    ...['--data-dir', etcd, '--unsafe-no-fsync', '--logger', 'zap', '--log-level', 'warn'],
    ...['--listen-client-urls', ETCD, '--advertise-client-urls', ETCD, '--listen-peer-urls', 'http://127.0.0.1:2380'],
  ]);
  daemons.start('kube-apiserver', [
    ...[parts.kubernetes, 'kube-apiserver', `--etcd-servers=${ETCD}`],
    ...[`--advertise-address=${FABRIC.v4}`, `--secure-port=${API_PORT}`, `--service-cluster-ip-range=${SERVICE_CIDRS.v4}`],
    ...[`--tls-cert-file=${files.certificate}`, `--tls-private-key-file=${files.key}`],
    ...[`--token-auth-file=${files.tokens}`, '--authorization-mode=Node,RBAC', '--enable-admission-plugins=NodeRestriction'],
    `--service-account-issuer=https://kubernetes.default.svc.${CLUSTER_DOMAIN}`,
    ...[`--service-account-key-file=${files.accountKey}`, `--service-account-signing-key-file=${files.accountKey}`],
    ...[`--kubelet-client-certificate=${files.kubeletCertificate}`, `--kubelet-client-key=${files.kubeletKey}`],
    ...['--kubelet-preferred-address-types=InternalIP', '--allow-privileged=true', `--cert-dir=${join(state, 'apiserver')}`],
    // There is no kube-proxy here, so webhooks are called at their endpoints' addresses.
    '--enable-aggregator-routing=true',
  ]);
  await daemons.until('the API server is not ready', async () => (await apiGet('/readyz', who)) === 'ok');
}

/** What needs the API server. Kubernetes' own roles know these users; CoreDNS gets one here. */
export async function startControllers(parts: Parts, state: string, { files, kubeconfigOf }: Credentials, daemons: Daemons): Promise<void> {
  daemons.start('kube-controller-manager', [
    ...[parts.kubernetes, 'kube-controller-manager', `--kubeconfig=${kubeconfigOf('kube-controller-manager')}`, '--leader-elect=false'],
    ...[
      `--service-account-private-key-file=${files.accountKey}`,
      `--root-ca-file=${files.ca}`,
      '--bind-address=127.0.0.1',
      '--use-service-account-credentials=true',
    ],
  ]);
  daemons.start('kube-scheduler', [
    ...[parts.kubernetes, 'kube-scheduler', `--kubeconfig=${kubeconfigOf('kube-scheduler')}`, '--leader-elect=false'],
    '--bind-address=127.0.0.1',
  ]);
  await runCommand(['kubectl', `--kubeconfig=${kubeconfigOf('admin')}`, 'apply', '-f', '-'], { input: JSON.stringify(dnsObjects()) });
  const corefile = join(state, 'Corefile');
  writeFileSync(
    corefile,
    `.:${DNS_PORT} {
  bind ${FABRIC.v4}
  errors
  kubernetes ${CLUSTER_DOMAIN} in-addr.arpa ip6.arpa {
    kubeconfig ${kubeconfigOf('coredns')}
    pods insecure
    ttl 5
  }
}
`,
  );
  daemons.start('coredns', [parts.coredns, '-conf', corefile]);
}

/** @throws {Error} unless it answers 200 */
export function apiGet(path: string, { caPem, adminToken }: Pick<Credentials, 'caPem' | 'adminToken'>): Promise<string> {
  return new Promise((resolve, reject) => {
    const request = https.get(
      API_URL + path,
      { ca: caPem, headers: { authorization: `Bearer ${adminToken}` }, agent: false },
      (response) => {
        let body = '';
        response.setEncoding('utf8').on('data', (text: string) => {
          body += text;
        });
        response.once('end', () =>
          response.statusCode === 200 ? resolve(body) : reject(new Error(`${path}: ${response.statusCode} ${body}`)),
        );
      },
    );
    request.once('error', reject).setTimeout(5000, () => request.destroy(new Error(`${path}: no answer`)));
  });
}

/** The DNS server is a process beside the API server, not a pod: a Service with an endpoint written by hand leads to it. */
function dnsObjects(): object {
  const labels = { 'k8s-app': 'kube-dns' };
  const ports = [
    { name: 'dns', protocol: 'UDP', port: DNS_PORT },
    { name: 'dns-tcp', protocol: 'TCP', port: DNS_PORT },
  ];
  const role = { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'system:coredns' };
  return {
    apiVersion: 'v1',
    kind: 'List',
    items: [
      {
        apiVersion: 'v1',
        kind: 'Service',
        metadata: { name: 'kube-dns', namespace: 'kube-system', labels },
        spec: { clusterIP: DNS_SERVICE_IP, ports },
      },
      {
        apiVersion: 'discovery.k8s.io/v1',
        kind: 'EndpointSlice',
        metadata: { name: 'kube-dns', namespace: 'kube-system', labels: { ...labels, 'kubernetes.io/service-name': 'kube-dns' } },
        addressType: 'IPv4',
        endpoints: [{ addresses: [FABRIC.v4], conditions: { ready: true } }],
        ports,
      },
      {
        apiVersion: 'rbac.authorization.k8s.io/v1',
        kind: 'ClusterRole',
        metadata: { name: role.name },
        rules: [
          { apiGroups: [''], resources: ['services', 'pods', 'namespaces', 'endpoints'], verbs: ['list', 'watch'] },
          { apiGroups: ['discovery.k8s.io'], resources: ['endpointslices'], verbs: ['list', 'watch'] },
        ],
      },
      {
        apiVersion: 'rbac.authorization.k8s.io/v1',
        kind: 'ClusterRoleBinding',
        metadata: { name: role.name },
        roleRef: role,
        subjects: [{ apiGroup: 'rbac.authorization.k8s.io', kind: 'User', name: role.name }],
      },
    ],
  };
}
