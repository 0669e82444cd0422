/**
 * The Gateway API's cases of TCPRoute and TLSRoute that a waypoint can show. Upstream runs them through the listeners of a Gateway, which nothing here
 * is; so each Gateway of a case is a Service with that listener's ports behind a waypoint, its routes are routes of that Service, and compared is where
 * the waypoint leads a connection, by the bytes of a real client's hello: with the rules that istiod makes and the functions that decide in the waypoint.
 * What only the listener's own hostname or certificate decides is listed so.
 */
import { readFileSync } from 'node:fs';
import yaml from 'js-yaml';
import { readClientHello } from '../../../common/codec/client-hello.ts';
import { compileConnectionRule, matchConnection } from '../../../common/decision/connection-route.ts';
import { NO_SOURCE } from '../../../common/decision/route-source.ts';
import { isRecord, records, text } from '../../../istiod-lite/model/objects.ts';
import { helloOf } from '../../support/client-hello.ts';
import * as make from '../../support/kube-objects.ts';
import { TranslatedMesh } from '../../support/translated-mesh.ts';
import { type CaseResult, type Cases, compare, type Suite } from '../suite.ts';

const FOLDER = 'gateway-api';
const NAMESPACE = 'gateway-conformance-infra';
const ROUTES = ['TCPRoute', 'TLSRoute'] as const;
const REFUSED = 'refused';

interface Test {
  readonly shortName: string;
  readonly manifests: readonly string[];
  readonly cases?: readonly {
    readonly description: string;
    readonly to: { readonly gateway: string; readonly port: number };
    readonly request: { readonly tls?: { readonly serverName?: string } };
    readonly expect: { readonly backend?: string; readonly connectionRejected?: boolean };
  }[];
  readonly status?: readonly {
    readonly check: string;
    readonly description?: string;
    readonly route?: string;
    readonly gateway?: string;
    readonly condition?: { readonly type: string; readonly status: string; readonly reason: string };
  }[];
}

type KubeObject = Record<string, unknown> & { readonly metadata: { readonly name: string } };

/** What another part of a Gateway decides than its routes. */
const LISTENER_DECIDES: readonly (readonly [name: RegExp, reason: string])[] = [
  [
    /more specific wildcard listener hostname > TLS request not matching/,
    "the listener's hostname refuses what the route's own would take; a Service has no listeners",
  ],
  [/^TLSRouteTerminate/, 'the listener ends TLS with a certificate of its own; a waypoint passes it on, or begins it'],
];

export const suite: Suite = {
  suite: FOLDER,
  async *run(cases) {
    if (!cases.has(`${FOLDER}/gateway-cases.json`)) return;
    const tests = JSON.parse(cases.read(`${FOLDER}/gateway-cases.json`)) as readonly Test[];
    for (const each of tests) if (ROUTES.some((kind) => each.shortName.startsWith(kind))) yield* run(each, cases);
  },
};

async function* run({ shortName, manifests, cases: requests = [], status = [] }: Test, cases: Cases): AsyncGenerator<CaseResult> {
  const missing = status.filter(({ condition }) => condition?.reason === 'BackendNotFound');
  if (requests.length === 0 && missing.length === 0) return;
  const read = (file: string): KubeObject[] =>
    (yaml.loadAll(readFileSync(cases.fixture(`${FOLDER}/conformance/${file}`), 'utf8')) as unknown[]).filter(isKubeObject);
  const asked = [...requests.map(({ to }) => to), ...missing.map(({ gateway = '' }) => ({ gateway, port: 80 }))];
  const mesh = translated([...read('base/manifests.yaml'), ...manifests.flatMap(read)], asked);
  for (const { description = '', route = '', condition } of missing)
    yield compare(
      `gateway-cases/${shortName}/${description}`,
      mesh.conditions(`${shortName.slice(0, 'TCPRoute'.length)} ${route}`).find((one) => one.startsWith(`${condition?.type}=`)),
      `${condition?.type}=${condition?.status} ${condition?.reason}`,
      'condition',
    );
  for (const { description, to, request, expect } of requests) {
    const title = `gateway-cases/${shortName}/${description}`;
    const listener = LISTENER_DECIDES.find(([pattern]) => pattern.test(`${shortName}/${description}`))?.[1];
    if (listener !== undefined) yield { case: title, verdict: 'skip', reason: listener };
    else
      yield compare(title, await mesh.leads(to, request.tls?.serverName), expect.connectionRejected ? REFUSED : expect.backend, 'backend');
  }
}

function translated(objects: readonly KubeObject[], asked: readonly { readonly gateway: string; readonly port: number }[]) {
  const mesh = new TranslatedMesh();
  mesh.set('Namespace', make.namespace(NAMESPACE, { 'istio.io/use-waypoint': 'waypoint' }));
  mesh.set('GatewayClass', { metadata: { name: 'istio-waypoint' }, spec: { controllerName: 'istio.io/mesh-controller' } });
  mesh.set('Gateway', make.gateway({ name: 'waypoint', namespace: NAMESPACE }));
  for (const object of objects) if (object.kind === 'Service') mesh.set('Service', object);
  for (const gateway of new Set(asked.map((one) => one.gateway))) {
    const ports = new Set(asked.flatMap((one) => (one.gateway === gateway ? [one.port] : [])));
    const metadata = { name: nameOf(gateway), namespace: NAMESPACE };
    mesh.set('Service', { metadata, spec: { ports: [...ports].map((port) => ({ name: `tcp-${port}`, port })) } });
  }
  for (const kind of ROUTES) for (const object of objects) if (object.kind === kind) mesh.set(kind, attached(object));
  const routes = mesh.routes(`${NAMESPACE}/waypoint`);
  return {
    conditions: (route: string): string[] =>
      records(mesh.status(route)?.status?.parents)
        .flatMap(({ conditions }) => records(conditions))
        .map(({ type, status, reason }) => `${type}=${status} ${reason}`),
    /** To which Service the waypoint leads a connection; to the one that was asked where no rule is for it. */
    async leads({ gateway, port }: { gateway: string; port: number }, sni: string | undefined): Promise<string> {
      const host = `${nameOf(gateway)}.${NAMESPACE}.svc.cluster.local`;
      const ports = routes.find(({ hostname }) => hostname === host)?.ports ?? [];
      const rules = (ports.find((one) => one.port === port) ?? ports.find((one) => one.port === 0))?.connections ?? [];
      if (rules.length === 0) return nameOf(gateway);
      const hello = sni === undefined ? 'none' : readClientHello(await helloOf(sni));
      const serverName = typeof hello === 'object' ? hello.serverName : undefined;
      const rule = matchConnection(rules.map(compileConnectionRule), { serverName, ip: undefined, source: NO_SOURCE });
      return rule?.backends[0]?.to?.hostname.split('.')[0] ?? REFUSED;
    },
  };
}

/** To Services instead of Gateways; a parent without a port stays one of all ports. */
function attached(route: KubeObject): object {
  const spec = isRecord(route.spec) ? route.spec : {};
  const parentRefs = records(spec.parentRefs).map(({ name }) => ({ group: '', kind: 'Service', name: text(name) }));
  return { ...route, spec: { ...spec, parentRefs } };
}

const isKubeObject = (object: unknown): object is KubeObject => isRecord(object) && isRecord(object.metadata);
const nameOf = (gateway: string): string => gateway.slice(gateway.indexOf('/') + 1);
