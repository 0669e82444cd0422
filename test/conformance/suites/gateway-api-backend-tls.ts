/**
 * The Gateway API's cases of BackendTLSPolicy. Upstream runs them through an ingress Gateway, which nothing here is; so the same objects stand
 * behind a waypoint, and compared are the policies' conditions, and for each request whether the waypoint reaches the backend: told what istiod makes
 * of the policy, it begins TLS, or refuses to, with a server that has the certificate which the suite gives its backends.
 */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { createServer } from 'node:tls';
import yaml from 'js-yaml';
import { systemClock } from '../../../common/base/clock.ts';
import { ProxyError } from '../../../common/base/errors.ts';
import type { UpstreamTls } from '../../../common/codec/gen/waypoint.ts';
import { AppSocket } from '../../../common/hbone/app-socket.ts';
import { duplexOf } from '../../../common/hbone/stream-duplex.ts';
import { readRootsMap } from '../../../istiod-lite/model/certificate-sources.ts';
import { at, isRecord, list, records, text } from '../../../istiod-lite/model/objects.ts';
import { type Origination, originate } from '../../../waypoint/cluster/originate.ts';
import { testAuthority } from '../../support/certificates.ts';
import * as make from '../../support/kube-objects.ts';
import { TranslatedMesh } from '../../support/translated-mesh.ts';
import { attempt, type CaseResult, type Cases, compare, type Suite } from '../suite.ts';

const FOLDER = 'gateway-api';
const NAMESPACE = 'gateway-conformance-infra';
const SEQUENCE = 'ConfigMaps that come, change and go: unit/istiod-lite/backend-tls-policy as long as the roots are not there';

interface Test {
  readonly shortName: string;
  readonly manifests: readonly string[];
  readonly cases: readonly {
    readonly description: string;
    readonly host?: string;
    readonly request: { readonly path?: string; readonly grpcMethod?: string };
    readonly expect: { readonly statusCodes?: readonly number[]; readonly grpcCode?: number };
  }[];
  readonly status?: readonly {
    readonly check: string;
    readonly description?: string;
    readonly policy?: string;
    readonly condition?: { readonly type: string; readonly status: string; readonly reason: string };
  }[];
}

export const suite: Suite = {
  suite: FOLDER,
  async *run(cases) {
    if (!cases.has(`${FOLDER}/gateway-cases.json`)) return;
    const tests = JSON.parse(cases.read(`${FOLDER}/gateway-cases.json`)) as readonly Test[];
    for (const each of tests) if (each.shortName.startsWith('BackendTLSPolicy')) yield* run(each, cases);
  },
};

async function* run({ shortName, manifests, cases: requests, status = [] }: Test, cases: Cases): AsyncGenerator<CaseResult> {
  const objects = manifests.flatMap((file) => documents(readFileSync(cases.fixture(`${FOLDER}/conformance/${file}`), 'utf8')));
  const mesh = translated(objects);
  const conditions = status.filter(({ check }) => check === 'BackendTLSPolicyMustHaveCondition');
  const name = (what: string): string => `gateway-cases/${shortName}/${what}`;
  for (const key of new Set(conditions.map(({ policy = '' }) => policy))) {
    const wanted = new Set(
      conditions
        .filter(({ policy }) => policy === key)
        .map(({ condition }) => `${condition?.type}=${condition?.status} ${condition?.reason}`),
    );
    const title = name(`status of ${key.slice(key.indexOf('/') + 1)}`);
    if (key.endsWith('/reconcile-test')) yield { case: title, verdict: 'skip', reason: SEQUENCE };
    else
      yield attempt(title, () => {
        const said = mesh.conditions(key);
        const missing = [...wanted].filter((one) => !said.includes(one));
        return {
          case: title,
          verdict: missing.length === 0 ? 'pass' : 'fail',
          reason: missing.length === 0 ? '' : `${missing.join(', ')} is not among ${said.join(', ')}`,
        };
      });
  }
  for (const { description, host, request, expect } of requests) {
    const title = name(description);
    const service = serviceOf(objects, host, request);
    const traffic = service === undefined ? undefined : mesh.traffic(service);
    const reached = traffic?.tls !== undefined && traffic.refuse === '' ? await shakesHands(traffic.tls) : 'refused';
    const good = expect.statusCodes?.includes(200) === true || expect.grpcCode === 0;
    // Of the good ones, under the name that the suite's backend reports.
    yield compare(title, reached, good ? 'abc.example.com' : 'refused', `told ${JSON.stringify(traffic?.refuse)}, the backend`);
  }
}

/** The Service that a route sends such requests to. */
function serviceOf(
  objects: readonly Record<string, unknown>[],
  host: string | undefined,
  { path, grpcMethod }: Test['cases'][number]['request'],
): string | undefined {
  const routes = objects.filter(({ kind, spec }) => {
    const hostnames = list(at(spec, 'hostnames'));
    return kind === (grpcMethod === undefined ? 'HTTPRoute' : 'GRPCRoute') && (hostnames.length === 0 || hostnames.includes(host));
  });
  const rule = routes
    .flatMap((route) => records(at(route, 'spec', 'rules')))
    .find((each) =>
      records(each.matches).some((match) =>
        grpcMethod === undefined
          ? path !== undefined && at(match, 'path', 'value') === path
          : grpcMethod === `/${text(at(match, 'method', 'service'))}/${text(at(match, 'method', 'method'))}`,
      ),
    );
  return rule && text(records(rule.backendRefs)[0]?.name);
}

/** @returns the name that the backend was asked for; `refused` where the waypoint does not take its certificate */
async function shakesHands(tls: UpstreamTls): Promise<string> {
  const { key, chain } = authority.issueServer('abc.example.com', {
    dnsNames: ['other.example.com'],
    uris: ['spiffe://abc.example.com/test-identity'],
  });
  const listening = createServer({ key, cert: chain }, (socket) => {
    const { servername } = socket;
    socket.on('error', () => undefined).end(servername || '');
  }).on('tlsClientError', () => undefined);
  listening.listen(0, '127.0.0.1');
  await once(listening, 'listening');
  try {
    const to = { ip: '127.0.0.1', port: (listening.address() as AddressInfo).port };
    const pipe = await AppSocket.connect(undefined, to, { timeoutMs: 10_000, clock: systemClock });
    const about: Origination = { tls, proxyProtocol: 0, alpn: undefined, from: undefined, to, clock: systemClock };
    const stream = duplexOf(await originate(pipe, about, new AbortController().signal));
    const [name] = (await once(stream, 'data')) as [Buffer];
    stream.destroy();
    return name.toString();
  } catch (error) {
    if (error instanceof ProxyError && error.code === 'TLS_FAILURE') return 'refused';
    throw error;
  } finally {
    listening.close();
  }
}

function translated(objects: readonly Record<string, unknown>[]) {
  const mesh = new TranslatedMesh();
  mesh.set('Namespace', { metadata: { name: NAMESPACE, labels: { 'istio.io/use-waypoint': 'waypoint' } } });
  mesh.set('GatewayClass', { metadata: { name: 'istio-waypoint' }, spec: { controllerName: 'istio.io/mesh-controller' } });
  mesh.set('Gateway', make.gateway({ name: 'waypoint', namespace: NAMESPACE }));
  for (const object of objects) {
    const kind = text(object.kind);
    if (kind === 'Service' || kind === 'BackendTLSPolicy') mesh.set(kind, object);
  }
  mesh.flush();
  for (const source of mesh.index.certificateSources())
    mesh.index.setCertificates(source, readRootsMap(source, configMap(objects, source)));
  return {
    conditions: (key: string): string[] =>
      records(mesh.status(`BackendTLSPolicy ${key}`)?.status?.ancestors)
        .flatMap(({ conditions }) => records(conditions))
        .map(({ type, status, reason }) => `${type}=${status} ${reason}`),
    traffic(service: string) {
      const found = mesh.traffic(`${NAMESPACE}/waypoint`).find(({ hostname }) => hostname === `${service}.${NAMESPACE}.svc.cluster.local`);
      return found?.policy ?? found?.ports[0]?.policy;
    },
  };
}

/** The suite makes roots when it runs. */
function configMap(objects: readonly Record<string, unknown>[], source: string): unknown {
  const name = source.slice(source.indexOf('/') + 1);
  const written = objects.find((object) => object.kind === 'ConfigMap' && at(object, 'metadata', 'name') === name);
  const made = Object.hasOwn(GENERATED, name) ? GENERATED[name] : undefined;
  return written ?? (made && { data: { 'ca.crt': made.root } });
}

const authority = testAuthority();
const GENERATED: Readonly<Record<string, typeof authority>> = {
  'tls-checks-ca-certificate': authority,
  'mismatch-ca-certificate': testAuthority(),
};

const documents = (content: string): Record<string, unknown>[] => yaml.loadAll(content).filter(isRecord);
