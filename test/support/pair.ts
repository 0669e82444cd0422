/**
 * Two pods, each in a network namespace of its own, joined by a wire, with the node agent's rules in both: what a ztunnel test needs before
 * it starts a ztunnel. Static configuration and certificates are files of the test.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { DEFAULT_PROBE_SOURCE } from '../../cni/rules/constants.ts';
import { type TestAuthority, testAuthority, writeCertificate } from './certificates.ts';
import { joinNetns, makeNetns, type TestNetns } from './netns.ts';
import { applyPodRules } from './pod-rules.ts';

export interface TestPod {
  readonly name: string;
  readonly netns: TestNetns;
  readonly v4: string;
  readonly v6: string;
  readonly identity: string;
}

export interface Pair {
  readonly folder: string;
  readonly authority: TestAuthority;
  readonly client: TestPod;
  readonly server: TestPod;
  /** Path of the static configuration. */
  readonly config: string;
  /** CERT_DIR for shared mode; `certificates/NAMESPACE/NAME` for dedicated mode. */
  readonly certificates: string;
  /** Name of the wire's end in both namespaces. */
  readonly device: string;
  /** Adds a workload to the configuration, as YAML; before a ztunnel has read it. */
  addWorkload(yaml: string): void;
}

export const NAMESPACE = 'shop';
let subnets = 0;

export interface PairOptions {
  /** YAML of policies, indented for the top level. */
  readonly policies?: string;
  readonly serverPolicies?: readonly string[];
  readonly serverProtocol?: 'HBONE' | 'TCP';
  readonly capture?: readonly ('client' | 'server')[];
  readonly redirectDns?: boolean;
  /** One more line of the server's workload. */
  readonly serverExtra?: string;
}

export async function makePair(t: TestContext, options: PairOptions = {}): Promise<Pair> {
  const folder = await mkdtemp(join(tmpdir(), 'warren-pair-'));
  t.after(() => rm(folder, { recursive: true }));
  const a = makeNetns(t);
  const b = makeNetns(t);
  const subnet = 100 + (process.pid % 50) + subnets++;
  const ends = joinNetns(a, b, subnet);
  const authority = testAuthority();
  const pod = (name: string, netns: TestNetns, { v4, v6 }: { v4: string; v6: string }): TestPod => ({
    name,
    netns,
    v4,
    v6,
    identity: `spiffe://cluster.local/ns/${NAMESPACE}/sa/${name}`,
  });
  // Virtual addresses are nowhere; without a route the kernel would refuse them before redirection sees them.
  for (const [netns, peer] of [
    [a, ends.b],
    [b, ends.a],
  ] as const) {
    netns.exec('ip', 'route', 'add', 'default', 'via', peer.v4);
  }
  const client = pod('client', a, ends.a);
  const server = pod('server', b, ends.b);
  const certificates = join(folder, 'certificates');
  for (const { name, identity } of [client, server]) writeCertificate(join(certificates, NAMESPACE, name), authority.issue(identity));
  mkdirSync(certificates, { recursive: true });
  const config = join(folder, 'mesh.yaml');
  writeFileSync(config, meshYaml(client, server, options));
  const captured = options.capture ?? ['client', 'server'];
  for (const { name, netns } of [client, server]) {
    if (!captured.some((one) => one === name)) continue;
    await applyPodRules(
      { netns: netns.netns, about: name },
      {
        redirectDns: options.redirectDns ?? false,
        ingressMode: false,
        virtualInterfaces: [],
        ipv6: true,
        probeSource: DEFAULT_PROBE_SOURCE,
        captureOpenConnections: false,
      },
    );
  }
  const addWorkload = (yaml: string): void => {
    writeFileSync(config, readFileSync(config, 'utf8').replace(/^workloads:/, `workloads:${yaml}`));
  };
  return { folder, authority, client, server, config, certificates, device: `v${subnet}`, addWorkload };
}

export const SERVICE_VIP = '10.96.0.10';

/** The static configuration of a pair's mesh; also what a control plane of a test serves. */
export function meshYaml(
  client: TestPod,
  server: TestPod,
  { policies = '[]', serverPolicies = [], serverProtocol = 'HBONE', serverExtra, capture }: PairOptions,
): string {
  const captured = capture ?? ['client', 'server'];
  const protocolOf = (name: 'client' | 'server', wanted: string): string => (captured.includes(name) ? wanted : 'TCP');
  const workload = (pod: TestPod, protocol: string, services: string, selected: readonly string[]): string => `
- uid: cluster1//Pod/${NAMESPACE}/${pod.name}
  name: ${pod.name}
  namespace: ${NAMESPACE}
  serviceAccount: ${pod.name}
  workloadIps: ["${pod.v4}", "${pod.v6}"]
  protocol: ${protocol}
  workloadName: ${pod.name}-deployment
  workloadType: deployment
  canonicalName: ${pod.name}
  canonicalRevision: v1
  authorizationPolicies: ${JSON.stringify(selected)}
  services: ${services}`;
  return `workloads:${workload(client, protocolOf('client', 'HBONE'), '{}', [])}${workload(
    server,
    protocolOf('server', serverProtocol),
    `{"${NAMESPACE}/server.${NAMESPACE}.svc.cluster.local": {80: 8080}}`,
    serverPolicies,
  )}${serverExtra === undefined ? '' : `\n  ${serverExtra}`}
services:
- name: server
  namespace: ${NAMESPACE}
  hostname: server.${NAMESPACE}.svc.cluster.local
  vips: ["/${SERVICE_VIP}"]
  ports: {80: 8080}
policies: ${policies}
`;
}

/** Environment of a ztunnel that serves one of the pods, without a control plane. */
export const dedicatedEnv = (pair: Pair, pod: TestPod): Record<string, string> => ({
  PROXY_MODE: 'dedicated',
  PROXY_WORKLOAD_INFO: `${NAMESPACE}/${pod.name}/${pod.name}`,
  LOCAL_XDS_PATH: pair.config,
  CERT_DIR: join(pair.certificates, NAMESPACE, pod.name),
  PACKET_MARK: '1337',
  XDS_ADDRESS: '',
  CA_ADDRESS: '',
});
