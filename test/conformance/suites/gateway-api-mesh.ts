/**
 * The Gateway API's mesh cases through a real waypoint: its manifests and requests, in a playground with the mesh or on real Kubernetes, driven by
 * `kubectl exec` as the upstream suite drives them. Redirects' Location is checked as well, which upstream declares and does not compare. In the
 * playground the cases for gateways follow that a waypoint can show (gateway-cases.ts).
 */
import { gatewayCases, skippedGatewayCases } from '../gateway-cases.ts';
import { type MeshCluster, startMesh, withoutMesh } from '../mesh-cluster.ts';
import type { CaseResult, Cases, Suite } from '../suite.ts';

const FOLDER = 'gateway-api';
const NAMESPACES = ['gateway-conformance-mesh', 'gateway-conformance-mesh-consumer'];
/** What a waypoint does not claim, with the reason. */
const NOT_CLAIMED: Readonly<Record<string, string>> = {
  MeshConsumerRoute:
    'routes of the consumer act at its own proxy; a waypoint belongs to the producer (Istio in ambient mode does not claim it either)',
};
const TIMEOUT_MS = 30_000;
const READY_MS = 120_000;

interface MeshTest {
  readonly shortName: string;
  readonly manifests: readonly string[];
  readonly cases: readonly MeshCase[];
}

interface MeshCase {
  readonly seq: number;
  readonly kind: string;
  readonly description: string;
  readonly from: { readonly namespace: string; readonly labels: Readonly<Record<string, string>>; readonly container: string };
  readonly request: { readonly clientArgs: readonly string[] };
  readonly to: string | { readonly podIPOf: { readonly namespace: string; readonly labels: Readonly<Record<string, string>> } };
  readonly expect: Expectation;
}

interface Expectation {
  readonly statusCodes?: readonly number[];
  readonly backend?: string;
  readonly backendRequest?: { readonly headersPresent?: Readonly<Record<string, string>>; readonly headersAbsent?: readonly string[] };
  readonly headersPresent?: Readonly<Record<string, string>>;
  readonly headersAbsent?: readonly string[];
  readonly weights?: Readonly<Record<string, number>>;
  readonly sampling?: { readonly requests: number; readonly toleranceAbs: number; readonly maxAttempts: number };
  readonly declaredNotAsserted?: { readonly redirect?: { readonly path?: string | null; readonly host?: string | null } };
}

export const suite: Suite = { suite: FOLDER, run };

async function* run(cases: Cases): AsyncIterable<CaseResult> {
  if (!cases.has(`${FOLDER}/mesh-cases.json`)) return;
  const tests = JSON.parse(cases.read(`${FOLDER}/mesh-cases.json`)) as readonly MeshTest[];
  const name = (mesh: MeshTest): string => `mesh-cases/${mesh.shortName}`;
  const why = withoutMesh(cases.kubernetes);
  if (why !== undefined) {
    for (const mesh of tests) yield { case: name(mesh), verdict: 'skip', reason: why };
    yield* skippedGatewayCases(cases, why);
    return;
  }
  const endings: (() => Promise<void> | void)[] = [];
  try {
    const cluster = await startMesh({ cases, onEnd: (ending) => endings.push(ending) });
    await prepare(cluster, cases);
    for (const mesh of tests) {
      const reason = NOT_CLAIMED[mesh.shortName];
      if (reason !== undefined) yield { case: name(mesh), verdict: 'skip', reason };
      else yield { case: name(mesh), ...(await verdictOf(cluster, cases, mesh)) };
    }
    if (cases.kubernetes) yield* skippedGatewayCases(cases, 'on real Kubernetes the mesh cases alone are run');
    else if (cases.brief) yield* skippedGatewayCases(cases, 'left out (--brief)');
    else yield* gatewayCases(cluster, cases);
  } finally {
    for (const ending of endings.reverse()) await ending();
  }
}

async function prepare(cluster: MeshCluster, cases: Cases): Promise<void> {
  await cluster.apply(cluster.manifest(cases.fixture(`${FOLDER}/conformance/mesh/manifests.yaml`)));
  for (const namespace of NAMESPACES) {
    await cluster.apply(waypointIn(namespace));
    await cluster.kubectl('label', 'namespace', namespace, 'istio.io/dataplane-mode=ambient');
  }
  for (const namespace of NAMESPACES) {
    await cluster.kubectl('wait', '-n', namespace, 'gateway/waypoint', '--for=condition=Programmed', '--timeout=60s');
    await cluster.kubectl('label', 'namespace', namespace, 'istio.io/use-waypoint=waypoint');
    await cluster.podsReady(namespace, READY_MS);
  }
}

const waypointIn = (namespace: string): string => `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: waypoint, namespace: ${namespace} }
spec: { gatewayClassName: istio-waypoint, listeners: [{ name: mesh, port: 15008, protocol: HBONE }] }
`;

async function verdictOf(cluster: MeshCluster, cases: Cases, mesh: MeshTest): Promise<{ verdict: 'pass' | 'fail'; reason: string }> {
  const manifests = mesh.manifests.map((path) => cases.fixture(`${FOLDER}/conformance/${path}`));
  try {
    for (const path of manifests) await cluster.apply(cluster.manifest(path));
    for (const one of [...mesh.cases].sort((a, b) => a.seq - b.seq)) {
      const problem = await check(cluster, one);
      if (problem !== undefined) return { verdict: 'fail', reason: `${one.seq}: ${one.description}: ${problem}` };
    }
    return { verdict: 'pass', reason: '' };
  } catch (error) {
    return { verdict: 'fail', reason: error instanceof Error ? error.message : String(error) };
  } finally {
    for (const path of manifests) await cluster.tryKubectl('delete', '-f', path, '--wait=false');
  }
}

/** Upstream asks for three successes in a row within 30 s; one is enough for a cluster that nothing else changes. @returns what is wrong, or undefined */
async function check(cluster: MeshCluster, one: MeshCase): Promise<string | undefined> {
  const pod = await podField(cluster, one.from, 'metadata.name');
  const podIp = typeof one.to === 'string' ? '' : await podField(cluster, one.to.podIPOf, 'status.podIP');
  const { sampling } = one.expect;
  const argv = [
    ...one.request.clientArgs.map((arg) => arg.replace('{podIP}', podIp)),
    // The time is for all of them.
    ...(sampling ? [`--count=${sampling.requests}`, '--timeout=60s'] : []),
  ];
  const deadline = performance.now() + TIMEOUT_MS;
  for (;;) {
    const { code, stdout, stderr } = await cluster.exec(one.from.namespace, pod, ...argv);
    const problem = code === 0 ? mismatch(stdout, one.expect) : `exit status ${code}: ${stderr.trim().slice(0, 300)}`;
    if (problem === undefined || performance.now() > deadline) return problem;
  }
}

async function podField(
  cluster: MeshCluster,
  { namespace, labels }: { readonly namespace: string; readonly labels: Readonly<Record<string, string>> },
  field: string,
): Promise<string> {
  const selector = Object.entries(labels)
    .map((pair) => pair.join('='))
    .join(',');
  return (await cluster.kubectl('get', 'pods', '-n', namespace, '-l', selector, '-o', `jsonpath={.items[0].${field}}`)).trim();
}

function mismatch(output: string, expect: Expectation): string | undefined {
  const { weights, sampling } = expect;
  if (weights && sampling) return unevenness(output, weights, sampling);
  const status = Number(/StatusCode=(\d+)/.exec(output)?.[1]);
  const wanted = expect.statusCodes ?? [200];
  const timeouts = [408, 504];
  const accepted = wanted.some((code) => timeouts.includes(code)) ? [...wanted, ...timeouts] : wanted;
  if (!accepted.includes(status)) return `status ${status}, expected ${wanted.join(' or ')}`;
  const hostname = /Hostname=(\S+)/.exec(output)?.[1] ?? '';
  if (expect.backend !== undefined && !hostname.startsWith(expect.backend))
    return `answered by ${hostname || 'nobody'}, expected ${expect.backend}`;
  const received = lines(output, 'RequestHeader');
  const answered = lines(output, 'ResponseHeader');
  const location = expect.declaredNotAsserted?.redirect;
  return (
    headerProblem('request', received, expect.backendRequest?.headersPresent, expect.backendRequest?.headersAbsent) ??
    headerProblem('response', answered, expect.headersPresent, expect.headersAbsent) ??
    (location ? locationProblem(answered.get('location') ?? '', location) : undefined)
  );
}

/** Names in lower case; several values of one name joined with a comma. */
function lines(output: string, key: string): Map<string, string> {
  const found = new Map<string, string>();
  for (const [, name = '', value = ''] of output.matchAll(new RegExp(`${key}=([^:\\n]+):(.*)`, 'g'))) {
    const known = found.get(name.toLowerCase());
    found.set(name.toLowerCase(), known === undefined ? value : `${known},${value}`);
  }
  return found;
}

function headerProblem(
  where: string,
  headers: ReadonlyMap<string, string>,
  present: Readonly<Record<string, string>> = {},
  absent: readonly string[] = [],
): string | undefined {
  for (const [name, value] of Object.entries(present)) {
    const got = headers.get(name.toLowerCase());
    if (got !== value) return `${where} header ${name} is ${got ?? 'absent'}, expected ${value}`;
  }
  const unwanted = absent.find((name) => headers.has(name.toLowerCase()));
  return unwanted === undefined ? undefined : `${where} header ${unwanted} is there`;
}

function locationProblem(location: string, { path, host }: { path?: string | null; host?: string | null }): string | undefined {
  const url = URL.parse(location);
  if (!url) return `Location ${JSON.stringify(location)} is no URL`;
  if (path && url.pathname !== path) return `Location has path ${url.pathname}, expected ${path}`;
  return host && url.hostname !== host ? `Location has host ${url.hostname}, expected ${host}` : undefined;
}

function unevenness(
  output: string,
  weights: Readonly<Record<string, number>>,
  { requests, toleranceAbs }: { requests: number; toleranceAbs: number },
): string | undefined {
  const counts = new Map<string, number>();
  for (const [, hostname = ''] of output.matchAll(/Hostname=(\S+)/g)) {
    const backend = hostname.split('-').slice(0, -2).join('-');
    counts.set(backend, (counts.get(backend) ?? 0) + 1);
  }
  const total = [...counts.values()].reduce((sum, n) => sum + n, 0);
  if (total !== requests) return `${total} answers, expected ${requests}`;
  for (const [backend, weight] of Object.entries(weights)) {
    const share = (counts.get(backend) ?? 0) / total;
    if (Math.abs(share - weight) > toleranceAbs) return `${backend} has ${share}, expected ${weight} ± ${toleranceAbs}`;
  }
  return undefined;
}
