/**
 * Two ztunnels, one for each end of a wire, in dedicated mode with static configuration and every check and counter on: what they cost
 * against a direct connection, and against the program in ZTUNNEL_BIN (a build of Istio's ztunnel with its testing feature, for FAKE_CA).
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { testAuthority, writeCertificate } from '../test/support/certificates.ts';
import { absoluteRow, type Bench, type Row, ratioRow } from './rows.ts';
import { BULK_PORT, HTTP_PORT, Lab, type Place } from './support/lab.ts';
import { loadIdle, type Subject } from './support/load.ts';
import { assertPerf, profile } from './support/profile.ts';
import { ztunnelCommand } from './support/release.ts';
import { OPEN_LOOP, requestMicros, type Targets, tunnelTable } from './support/tunnel-table.ts';
import { unwindable } from './support/unwinding.ts';
import { ownTunnel } from './tunnel.ts';

const NAMESPACE = 'bench';
const MARK = '1337';
const PEER = 'ZTUNNEL_BIN';
/** Ours divided by Istio's. */
const RATIOS: Targets = {
  'keep-alive, 1 connection': { 'CPU per request': 1.3, p50: 1.3 },
  'keep-alive, 64 connections': { 'CPU per request': 0.8 },
  'keep-alive, 512 connections': { 'CPU per request': 0.8 },
  'new connections, 16 at once': { 'CPU per request': 0.8 },
  'bulk, 1 stream': { throughput: 1.05, 'CPU per GiB': 1.25 },
  'bulk, 4 streams': { throughput: 1.05, 'CPU per GiB': 1.25 },
  [OPEN_LOOP]: { p99: 1 },
};
const PROFILE_SECONDS = 5;
const IDLE_CONNECTIONS = 10_000;
const IDLE_CASE = `memory, ${IDLE_CONNECTIONS} idle connections`;
/** Megabytes. */
const OWN: Targets = { memory: { 'RSS idle': 110, 'RSS after load': 200 } };

export const bench: Bench = {
  name: 'ztunnel',
  doc: 'two ztunnels between two namespaces: requests, new connections, bulk, memory; against direct and against ZTUNNEL_BIN',
  selective: true,
  profiled: true,
  async run({ only, profile: wanted = false }) {
    if (wanted) assertPerf();
    await using labs = unwindable();
    const lab = async (): Promise<Lab> => {
      const made = labs.use(new Lab());
      await made.startServers();
      return made;
    };
    const direct = await lab();
    const peers: Subject[] = [{ name: 'direct', lab: direct, proxies: [], ...destinations(direct.far) }];
    const ours = await ztunnelPair('ours', ztunnelCommand(), await lab());
    const { ZTUNNEL_BIN } = process.env;
    if (ZTUNNEL_BIN) peers.push(await ztunnelPair(PEER, [ZTUNNEL_BIN, 'proxy'], await lab()));
    const targets = { peerName: PEER, ratios: RATIOS, own: OWN };
    const table = await tunnelTable({
      bench: 'ztunnel',
      rounds: 5,
      seconds: 2,
      ours,
      peers,
      targets,
      only,
      progress: (text) => console.error(text),
    });
    const peer = peers.find(({ name }) => name === PEER);
    const profiles = wanted && peer ? await profilesOf(table, ours, peer, await ownTunnel(await lab())) : [];
    return [...table, ...(IDLE_CASE.includes(only ?? '') ? [await idleRow(ours)] : []), ...profiles];
  },
};

/**
 * For each case of requests whose processor time misses its target, where that time goes: ours beside Istio's. And what is left of it without all that
 * makes a ztunnel of a tunnel: a thread at each end, no policy, telemetry, limits and redirection.
 */
async function profilesOf(table: readonly Row[], ours: Subject, peer: Subject, tunnels: Subject): Promise<Row[]> {
  const rows: Row[] = [];
  for (const { case: name, metric, met } of table) {
    if (metric !== 'CPU per request' || met !== false) continue;
    const micros = async (subject: Subject): Promise<number> => (await requestMicros(subject, name, PROFILE_SECONDS)) ?? Number.NaN;
    const of = (subject: Subject) => profile(subject, () => micros(subject));
    const own = await of(ours);
    const theirs = await of(peer);
    await micros(tunnels);
    const all = { ours: await micros(tunnels), peer: await micros(peer), peerName: PEER };
    rows.push(ratioRow({ bench: 'ztunnel', case: `profile: ${name}`, metric: 'all, tunnels alone', unit: 'us', better: 'less', ...all }));
    const parts = [...new Set([...own.keys(), ...theirs.keys()])].sort((a, b) => (own.get(b) ?? 0) - (own.get(a) ?? 0));
    for (const part of parts) {
      const both = { ours: own.get(part) ?? 0, peer: theirs.get(part) ?? 0, peerName: PEER };
      rows.push(ratioRow({ bench: 'ztunnel', case: `profile: ${name}`, metric: part, unit: 'us', better: 'less', ...both }));
    }
  }
  return rows;
}

/** What is open after all of the load, and then so many connections more that do nothing. */
async function idleRow(ours: Subject): Promise<Row> {
  const before = ours.lab.usage(ours.proxies).rssMegabytes;
  const more = (await loadIdle(ours, IDLE_CONNECTIONS, '/')) - before;
  return absoluteRow({ bench: 'ztunnel', case: IDLE_CASE, metric: 'RSS more', unit: 'MB', ours: more, better: 'less', target: 100 });
}

/** A ztunnel in each namespace of the lab, and the near application's connections redirected into it. */
export async function ztunnelPair(name: string, argv: readonly string[], lab: Lab): Promise<Subject> {
  const authority = testAuthority();
  const config = join(lab.folder, 'mesh.yaml');
  writeFileSync(config, meshYaml(lab));
  const start = async (place: Place, pod: string) => {
    const certificates = join(lab.folder, pod);
    writeCertificate(certificates, authority.issue(`spiffe://cluster.local/ns/${NAMESPACE}/sa/${pod}`));
    const program = lab.start(place, `${name}-${pod}`, argv, {
      PROXY_MODE: 'dedicated',
      PROXY_WORKLOAD_INFO: `${NAMESPACE}/${pod}/${pod}`,
      LOCAL_XDS_PATH: config,
      XDS_ADDRESS: '',
      CA_ADDRESS: '',
      PACKET_MARK: MARK,
      // With it the answers to spoofed sources would need a pod's return rules.
      ENABLE_ORIG_SRC: 'false',
      ZTUNNEL_WORKER_THREADS: '2',
      // No access log: what it costs is for a bench of its own.
      RUST_LOG: 'warn',
      ISTIO_META_DNS_CAPTURE: 'false',
      ...(name === 'ours' ? { CERT_DIR: certificates } : { FAKE_CA: 'true' }),
    });
    for (const port of [15001, 15008]) await lab.waitForPort(place, port);
    return program;
  };
  const proxies = [await start(lab.far, 'server'), await start(lab.near, 'client')];
  lab.exec(lab.near, 'nft', 'add table ip bench; add chain ip bench output { type nat hook output priority -100; }');
  lab.exec(lab.near, 'nft', `add rule ip bench output ip daddr ${lab.far.ip} tcp dport != 15008 meta mark != ${MARK} redirect to :15001`);
  return { name, lab, proxies, ...destinations(lab.far) };
}

const destinations = ({ ip }: Place): Pick<Subject, 'http' | 'bulk'> => ({ http: { ip, port: HTTP_PORT }, bulk: { ip, port: BULK_PORT } });

function meshYaml({ near, far }: Lab): string {
  const workload = (pod: string, { ip }: Place): string => `
- uid: bench//Pod/${NAMESPACE}/${pod}
  name: ${pod}
  namespace: ${NAMESPACE}
  trustDomain: cluster.local
  serviceAccount: ${pod}
  workloadIps: ["${ip}"]
  protocol: HBONE
  node: ${pod}
  workloadName: ${pod}
  workloadType: deployment
  canonicalName: ${pod}
  canonicalRevision: v1
  services: {}`;
  // Something to match, so that the inbound side decides and does not only find nothing.
  return `workloads:${workload('client', near)}${workload('server', far)}
services: []
policies:
- name: allow-client
  namespace: ${NAMESPACE}
  scope: Namespace
  action: Allow
  dryRun: false
  rules: [[[{principals: [!Exact "cluster.local/ns/${NAMESPACE}/sa/client"]}]]]
`;
}
