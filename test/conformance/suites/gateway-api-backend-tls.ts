/**
 * The Gateway API's cases of BackendTLSPolicy. Upstream runs them through an ingress Gateway, which nothing here is; so the same objects stand
 * behind a waypoint, and compared are the policies' conditions, and for each request whether the waypoint is told to begin TLS as the policy
 * says or to refuse. What a handshake decides is listed with where it is tested.
 */
import { readFileSync } from 'node:fs';
import yaml from 'js-yaml';
import { readRootsMap } from '../../../istiod-lite/model/certificate-sources.ts';
import { at, isRecord, records, text } from '../../../istiod-lite/model/objects.ts';
import { testAuthority } from '../../support/certificates.ts';
import * as make from '../../support/kube-objects.ts';
import { TranslatedMesh } from '../../support/translated-mesh.ts';
import { attempt, type CaseResult, type Cases, type Suite } from '../suite.ts';

const FOLDER = 'gateway-api';
const NAMESPACE = 'gateway-conformance-infra';
const HANDSHAKE =
  'the handshake decides: unit/waypoint/originate a server whose certificate is for somebody else, or of a root that is not ours';
const SEQUENCE = 'ConfigMaps that come, change and go: unit/istiod-lite/backend-tls-policy as long as the roots are not there';

interface Test {
  readonly shortName: string;
  readonly manifests: readonly string[];
  readonly cases: readonly {
    readonly description: string;
    readonly request: { readonly path?: string };
    readonly expect: { readonly statusCodes?: readonly number[] };
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
  *run(cases) {
    if (!cases.has(`${FOLDER}/gateway-cases.json`)) return;
    const tests = JSON.parse(cases.read(`${FOLDER}/gateway-cases.json`)) as readonly Test[];
    for (const each of tests) if (each.shortName.startsWith('BackendTLSPolicy')) yield* run(each, cases);
  },
};

function* run({ shortName, manifests, cases: requests, status = [] }: Test, cases: Cases): Generator<CaseResult> {
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
  for (const { description, request, expect } of requests) {
    const title = name(description);
    const codes = expect.statusCodes ?? [];
    const service = serviceOf(objects, request.path);
    if (codes.length === 0 || service === undefined) yield { case: title, verdict: 'skip', reason: HANDSHAKE };
    else
      yield attempt(title, () => {
        const traffic = mesh.traffic(service);
        const isGood = codes.includes(200)
          ? traffic?.tls?.serverName === 'abc.example.com' && traffic.refuse === ''
          : (traffic?.refuse ?? '') !== '';
        return { case: title, verdict: isGood ? 'pass' : 'fail', reason: isGood ? '' : `the waypoint is told ${JSON.stringify(traffic)}` };
      });
  }
}

/** The Service that a route sends requests with this path to. */
function serviceOf(objects: readonly Record<string, unknown>[], path: string | undefined): string | undefined {
  const rules = objects.filter(({ kind }) => kind === 'HTTPRoute').flatMap((route) => records(at(route, 'spec', 'rules')));
  const rule = rules.find((each) => records(each.matches).some((match) => path !== undefined && at(match, 'path', 'value') === path));
  return rule && text(records(rule.backendRefs)[0]?.name);
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
  return written ?? (GENERATED.test(name) ? { data: { 'ca.crt': authority.root } } : undefined);
}

const GENERATED = /^(?:tls-checks|mismatch)-ca-certificate$/;
const authority = testAuthority();

const documents = (content: string): Record<string, unknown>[] => yaml.loadAll(content).filter(isRecord);
