/**
 * The Gateway API's cases for gateways whose behaviour a waypoint can show: routing, filters, timeouts and retries are the same whoever the parent is.
 * Each Gateway of a case becomes a Service of its own without endpoints, each route a route of that Service, and all of them are there at once; a client
 * in a pod then asks what the cases ask. What is about listeners, certificates and addresses of gateways is listed with its reason.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { createInterface } from 'node:readline';
import yaml from 'js-yaml';
import { CHECKOUT } from '../../playground/images.ts';
import type { GatewayAnswer, GatewayAnswers, GatewayRequest } from '../support/gateway-client.ts';
import { nodeInPods } from '../support/playground.ts';
import { backendOf, type GatewayExpectation, problemOf, seenBy } from './gateway-expectations.ts';
import type { MeshCluster } from './mesh-cluster.ts';
import type { CaseResult, Cases } from './suite.ts';

const FOLDER = 'gateway-api';
const INFRA = 'gateway-conformance-infra';
/** A pod of the mesh's cases. */
const CLIENT = { namespace: 'gateway-conformance-mesh', pod: 'deploy/echo-v1' };
const TIMEOUT_MS = 30_000;
const POLL_MS = 200;
const MOST_AT_ONCE = 6;

const LISTENERS = 'about listeners of a gateway: a waypoint has one, and Services are told apart by their addresses';
const CERTIFICATES = 'about TLS at the entrance of a gateway; a waypoint is reached through tunnels of the mesh';
const GRANTS = 'routes of a mesh need no ReferenceGrant: the waypoint and the policies of the other namespace decide (so it is with Istio)';
/** What a waypoint has no part in, with the reason; the first that fits is said. */
const NOT_OURS: readonly (readonly [name: RegExp, reason: string])[] = [
  [/^UDPRoute/, 'UDP passes a mesh untouched'],
  [/^(?:TCPRoute|TLSRoute).*Invalid.*(?:Reference|CrossNamespace)/, GRANTS],
  [/^(?:TCPRoute|TLSRoute).*(?:NonTCPListener|NoMatchingListener|SupportedKinds|NotSupported)/, LISTENERS],
  [
    /^(?:TCPRoute|TLSRoute)/,
    'each of its requests is a case of its own, decided by the bytes of a client’s hello (gateway-api-connections)',
  ],
  [/ClientCertificate|TLSConfiguration|TLSBackendConfiguration|Secret|Misdirected/, CERTIFICATES],
  [/^ListenerSet/, 'a ListenerSet adds listeners to a gateway'],
  [/^Gateway|Listener|InvalidParentRef|InvalidCrossNamespaceParentRef|DisallowedKind/, LISTENERS],
  [/HostnameIntersection|MatchingAcrossRoutes/, "hostnames of a Service's route restrict nothing: a Service has its own names"],
  [/CrossNamespace$/, 'a route in another namespace than its Service is its consumers’, and acts at their own proxies'],
  [/^HTTPRoute.*(?:InvalidReferenceGrant|InvalidCrossNamespaceBackendRef)/, GRANTS],
  [/ObservedGeneration/, 'about status alone; recorded states cover it'],
  [/^BackendTLSPolicy/, 'each of its requests and conditions is a case of its own, with a real handshake (gateway-api-backend-tls)'],
];

interface GatewayTest {
  readonly shortName: string;
  readonly manifests: readonly string[];
  readonly cases?: readonly GatewayCase[];
}

interface GatewayCase {
  readonly seq: number;
  readonly kind: string;
  readonly description: string;
  readonly host?: string;
  readonly to: { readonly gateway: string; readonly port: number; readonly scheme: string };
  readonly request: {
    readonly method?: string;
    readonly path?: string;
    readonly headers?: Readonly<Record<string, string>>;
    readonly metadata?: Readonly<Record<string, string>>;
    readonly grpcMethod?: string;
    readonly addQuery?: Readonly<Record<string, string>>;
    readonly tls?: unknown;
  };
  readonly expect: GatewayExpectation;
}

interface KubeObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string };
  readonly spec?: Readonly<Record<string, unknown>>;
}

export function* skippedGatewayCases(cases: Cases, why: string): Iterable<CaseResult> {
  for (const test of testsOf(cases)) yield { case: name(test), verdict: 'skip', reason: reasonFor(test) ?? why };
}

export async function* gatewayCases(cluster: MeshCluster, cases: Cases): AsyncIterable<CaseResult> {
  const all = testsOf(cases);
  for (const test of all) {
    const reason = reasonFor(test);
    if (reason !== undefined) yield { case: name(test), verdict: 'skip', reason };
  }
  const ours = all.filter((test) => reasonFor(test) === undefined);
  await prepare(cluster, cases, ours);
  const client = new Client(cluster);
  try {
    const waiting = [...ours.entries()];
    const results: CaseResult[] = [];
    const worker = async (): Promise<void> => {
      for (let next = waiting.shift(); next; next = waiting.shift()) {
        const [index, test] = next;
        const problem = await run({ cluster, client, index }, test).catch((error: unknown) => String(error));
        results.push({ case: name(test), verdict: problem === undefined ? 'pass' : 'fail', reason: problem ?? '' });
      }
    };
    await Promise.all(Array.from({ length: MOST_AT_ONCE }, worker));
    yield* results.sort((a, b) => a.case.localeCompare(b.case));
  } finally {
    client.end();
  }
}

const testsOf = (cases: Cases): readonly GatewayTest[] =>
  cases.has(`${FOLDER}/gateway-cases.json`) ? (JSON.parse(cases.read(`${FOLDER}/gateway-cases.json`)) as readonly GatewayTest[]) : [];

const name = ({ shortName }: GatewayTest): string => `gateway-cases/${shortName}`;

function reasonFor({ shortName, cases = [] }: GatewayTest): string | undefined {
  const reason = NOT_OURS.find(([pattern]) => pattern.test(shortName))?.[1];
  return reason ?? (cases.length === 0 ? 'about status alone; recorded states cover it' : undefined);
}

/** Of a case's Gateway, for one test. */
const serviceName = (gateway: string, index: number): string => `${gateway.split('/').at(-1)}-${index}`;

async function prepare(cluster: MeshCluster, cases: Cases, tests: readonly GatewayTest[]): Promise<void> {
  const read = (path: string): KubeObject[] =>
    (yaml.loadAll(cluster.manifest(cases.fixture(`${FOLDER}/conformance/${path}`))) as (KubeObject | null)[]).filter((one) => one !== null);
  const base = read('base/manifests.yaml').filter(({ kind, metadata }) => kind === 'Namespace' || BACKENDS.test(metadata.name));
  await cluster.apply(documents(base.map(withoutTls)));
  for (const namespace of [INFRA, 'gateway-conformance-web-backend'])
    await cluster.kubectl('label', 'namespace', namespace, 'istio.io/dataplane-mode=ambient');
  await cluster.apply(WAYPOINT);
  await cluster.podsReady(INFRA, 120_000);
  await cluster.kubectl('wait', '-n', INFRA, 'gateway/waypoint', '--for=condition=Programmed', '--timeout=60s');
  const pods = JSON.parse(await cluster.kubectl('get', 'pods', '-n', INFRA, '-l', 'app=infra-backend-v1', '-o', 'json')) as RawPods;
  const objects = tests.flatMap((test, index) => [
    ...services(test, index),
    ...test.manifests.flatMap(read).flatMap((object) => adapted(object, index, pods)),
  ]);
  await cluster.apply(documents(objects));
}

const BACKENDS = /^(?:grpc-)?infra-backend-v\d$|^web-backend$/;
const documents = (objects: readonly unknown[]): string => objects.map((object) => `---\n${JSON.stringify(object)}\n`).join('');

const WAYPOINT = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: waypoint, namespace: ${INFRA} }
spec: { gatewayClassName: istio-waypoint, listeners: [{ name: mesh, port: 15008, protocol: HBONE }] }
`;

interface RawPods {
  readonly items: readonly {
    readonly metadata: { readonly name: string };
    readonly spec: { readonly nodeName: string };
    readonly status: { readonly podIP: string };
  }[];
}

interface Container {
  readonly env: readonly { readonly name: string }[];
}

/** One pod of each backend, without the certificates that the suite makes for cases that are none of ours. */
function withoutTls(object: KubeObject): KubeObject {
  if (object.kind !== 'Deployment') return object;
  const { template, ...spec } = object.spec as { readonly template: { readonly spec: { readonly containers: readonly Container[] } } };
  const containers = template.spec.containers.map((container) => ({
    ...container,
    env: container.env.filter(({ name: variable }) => !variable.startsWith('TLS_')),
    volumeMounts: [],
  }));
  return { ...object, spec: { ...spec, replicas: 1, template: { ...template, spec: { ...template.spec, containers, volumes: [] } } } };
}

/** One for each Gateway that the test's cases ask. */
function services({ cases = [] }: GatewayTest, index: number): KubeObject[] {
  const ports = new Map<string, GatewayCase['to']>(cases.filter(isAsked).map(({ to }) => [to.gateway, to]));
  return [...ports.values()].map(({ gateway, port, scheme }) => ({
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: serviceName(gateway, index), namespace: INFRA, labels: { 'istio.io/use-waypoint': 'waypoint' } },
    spec: { ports: [{ name: scheme === 'h2c' ? 'grpc' : 'http', port }] },
  }));
}

/** Of a test that is ours, the parts about TLS are not. */
const isAsked = ({ request, to }: GatewayCase): boolean => request.tls === undefined && to.scheme !== 'https';

interface ParentRef {
  readonly name: string;
  readonly kind?: string;
}

function adapted(object: KubeObject, index: number, pods: RawPods): KubeObject[] {
  if (object.kind === 'Gateway') return [];
  if (object.kind === 'EndpointSlice') return slice(object, pods);
  if (object.kind !== 'HTTPRoute' && object.kind !== 'GRPCRoute') return [object];
  const { parentRefs, ...spec } = object.spec as { readonly parentRefs: readonly ParentRef[] };
  const parents = parentRefs.map(({ name: gateway }) => ({ group: '', kind: 'Service', name: serviceName(gateway, index) }));
  return [
    { ...object, metadata: { ...object.metadata, name: `${object.metadata.name}-${index}` }, spec: { ...spec, parentRefs: parents } },
  ];
}

/** The suite fills those of IPv4 with the pods of a backend; those of IPv6 stay empty where there is none. */
function slice(object: KubeObject & { readonly addressType?: string }, { items }: RawPods): KubeObject[] {
  const endpoints = items.map(({ metadata, spec, status }) => ({
    addresses: [status.podIP],
    conditions: { ready: true, serving: true, terminating: false },
    nodeName: spec.nodeName,
    targetRef: { kind: 'Pod', name: metadata.name, namespace: INFRA },
  }));
  return object.addressType === 'IPv4' ? [{ ...object, endpoints } as KubeObject] : [];
}

interface Asked {
  readonly cluster: MeshCluster;
  readonly client: Client;
  readonly index: number;
}

/** @returns what is wrong, or undefined */
async function run(asked: Asked, { cases = [] }: GatewayTest): Promise<string | undefined> {
  for (const one of cases.filter(isAsked).sort((a, b) => a.seq - b.seq)) {
    const deadline = performance.now() + TIMEOUT_MS;
    for (;;) {
      const problem = await attempt(asked, one);
      if (problem === undefined) break;
      if (performance.now() > deadline) return `${one.seq}: ${one.description}: ${problem}`;
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }
  return undefined;
}

async function attempt({ cluster, client, index }: Asked, one: GatewayCase): Promise<string | undefined> {
  const { expect, request, to } = one;
  const { sampling, weights, repeat, mirroredTo, mirrorSampling } = expect;
  const id = randomUUID();
  const query = Object.keys(request.addQuery ?? {}).map((key) => `${key}=${id}`);
  const written = request.grpcMethod ?? request.path ?? '/';
  const path = query.length === 0 ? written : `${written}${written.includes('?') ? '&' : '?'}${query.join('&')}`;
  const answers = await client.ask({
    kind: one.kind === 'websocket' ? 'websocket' : one.kind.includes('grpc') ? 'grpc' : 'http',
    to: `${serviceName(to.gateway, index)}.${INFRA}.svc.cluster.local:${to.port}`,
    authority: one.host ?? '',
    method: request.method ?? 'GET',
    path,
    headers: lowerCased({ ...request.headers, ...request.metadata }),
    count: sampling?.requests ?? repeat ?? mirrorSampling?.requests ?? 1,
  });
  for (const answer of answers) {
    const problem = problemOf(answer, expect, path) ?? headerOfBackend(answer, expect);
    if (problem !== undefined) return problem;
  }
  if (weights && sampling) return unevenness(answers, weights, sampling.toleranceAbs);
  for (const mirror of mirroredTo ?? []) {
    const problem = await mirrorProblem(cluster, mirror, id, mirrorSampling);
    if (problem !== undefined) return problem;
  }
  return undefined;
}

const lowerCased = (headers: Readonly<Record<string, string>>): Record<string, string> =>
  Object.fromEntries(Object.entries(headers).map(([key, value]) => [key.toLowerCase(), value]));

function headerOfBackend(answer: GatewayAnswer, { backendEqualsRequestHeader: header }: GatewayExpectation): string | undefined {
  if (header === undefined) return undefined;
  const seen = seenBy(answer);
  const value = seen?.headers.get(header.toLowerCase()) ?? '';
  return value !== '' && !value.includes(',') && seen?.pod.startsWith(value) ? undefined : `${seen?.pod} was told ${header}: ${value}`;
}

function unevenness(answers: readonly GatewayAnswer[], weights: Readonly<Record<string, number>>, tolerance: number): string | undefined {
  const counts = new Map<string, number>();
  for (const answer of answers) {
    const backend = backendOf(seenBy(answer)?.pod ?? '');
    counts.set(backend, (counts.get(backend) ?? 0) + 1);
  }
  for (const backend of counts.keys()) if (!weights[backend]) return `answered by ${backend}`;
  for (const [backend, weight] of Object.entries(weights)) {
    const share = (counts.get(backend) ?? 0) / answers.length;
    if (Math.abs(share - weight) > tolerance) return `${backend} has ${share}, expected ${weight} ± ${tolerance}`;
  }
  return undefined;
}

/** Backends write a line for each request that they echo. */
async function mirrorProblem(
  cluster: MeshCluster,
  { backend, namespace, percent }: NonNullable<GatewayExpectation['mirroredTo']>[number],
  id: string,
  sampling: GatewayExpectation['mirrorSampling'],
): Promise<string | undefined> {
  const [least, most] = percent === undefined || !sampling ? [1, 1] : range(sampling.requests, percent / 100, sampling.toleranceStdDevs);
  let lines = 0;
  // The copy of the last request may be under way still.
  for (let tries = 0; tries < 10; tries++) {
    const log = await cluster.kubectl('logs', '-n', namespace, '-l', `app=${backend}`, '--tail=-1');
    lines = log.split('\n').filter((line) => line.startsWith('Echoing back') && line.includes(id)).length;
    if (lines >= least && lines <= most) return undefined;
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  return `${backend} has seen ${lines} copies, expected ${least} to ${most}`;
}

function range(requests: number, share: number, deviations: number): [number, number] {
  const spread = deviations * Math.sqrt(requests * share * (1 - share));
  return [Math.ceil(requests * share - spread), Math.floor(requests * share + spread)];
}

/** gateway-client.ts in a pod. */
class Client {
  readonly #child: ChildProcess;
  readonly #waiting = new Map<number, (answers: readonly GatewayAnswer[]) => void>();
  #last = 0;
  #gone: string | undefined;

  constructor({ kubeconfig }: MeshCluster) {
    const program = [nodeInPods, `${CHECKOUT}/test/support/gateway-client.ts`];
    const args = ['--kubeconfig', kubeconfig, 'exec', '-i', '-n', CLIENT.namespace, CLIENT.pod, '--', ...program];
    this.#child = spawn('kubectl', args, { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#child.stdin?.on('error', () => undefined);
    if (this.#child.stdout) {
      createInterface({ input: this.#child.stdout }).on('line', (line) => {
        const { id, answers } = JSON.parse(line) as GatewayAnswers;
        this.#waiting.get(id)?.(answers);
        this.#waiting.delete(id);
      });
    }
    this.#child.once('close', (code) => {
      this.#gone = `the client in ${CLIENT.pod} ended with ${code}`;
      for (const resolve of this.#waiting.values()) resolve([{ ...NONE, error: this.#gone }]);
    });
  }

  ask(request: Omit<GatewayRequest, 'id'>): Promise<readonly GatewayAnswer[]> {
    if (this.#gone !== undefined) return Promise.resolve([{ ...NONE, error: this.#gone }]);
    const id = ++this.#last;
    return new Promise((resolve) => {
      this.#waiting.set(id, resolve);
      this.#child.stdin?.write(`${JSON.stringify({ id, ...request })}\n`);
    });
  }

  end(): void {
    this.#child.stdin?.end();
    this.#child.kill();
  }
}

const NONE: GatewayAnswer = { status: 0, grpcCode: -1, headers: {}, body: '', error: '' };
