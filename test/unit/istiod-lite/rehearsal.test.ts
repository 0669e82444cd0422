/**
 * What a rehearsal says is what comes of it: random meshes and changes through the real translation, random calls judged by the code of the data
 * path before and after, and the rehearsal's verdicts from the record in between. And policies that are suggested allow what was seen, and nothing else.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseSpiffeId } from '../../../common/base/spiffe.ts';
import { type Asked, askedBy } from '../../../common/decision/asked.ts';
import { decideHttp } from '../../../common/decision/http-authorization.ts';
import { compileAuthorization, compileRoutes } from '../../../common/decision/http-model.ts';
import { matchRoute, type RoutedRequest } from '../../../common/decision/http-route.ts';
import type { Decision, JournalRow } from '../../../common/decision/journal.ts';
import { decidePolicy } from '../../../common/decision/policy.ts';
import { NO_SOURCE } from '../../../common/decision/route-source.ts';
import { ADDRESS_TYPE, AUTHORIZATION_TYPE, MeshStateWriter } from '../../../common/state/writer.ts';
import type { WatchedKindName } from '../../../istiod-lite/model/watched-kinds.ts';
import { BadCandidate, readCandidate } from '../../../istiod-lite/rehearsal/candidate.ts';
import { MeshPicture } from '../../../istiod-lite/rehearsal/picture.ts';
import { judgeBoth } from '../../../istiod-lite/rehearsal/rehearse.ts';
import { suggest } from '../../../meshctl/suggest/suggest.ts';
import * as make from '../../support/kube-objects.ts';
import { TranslatedMesh } from '../../support/translated-mesh.ts';

type Object = Record<string, unknown> & { metadata: { name: string; namespace?: string } };
interface Made {
  readonly kind: WatchedKindName;
  readonly object: Object;
}

const SERVICE = 'shop/web.shop.svc.cluster.local';
const GATEWAY = 'shop/wp';
const PODS = ['web', 'db'];
const IDENTITIES = [
  '',
  'spiffe://cluster.local/ns/shop/sa/web',
  'spiffe://cluster.local/ns/edge/sa/gate',
  'spiffe://cluster.local/ns/shop/sa/wp',
];

/** Namespace shop with the waypoint wp for Service web, pods web and db, and what is added. */
function meshOf(objects: Iterable<Made>): TranslatedMesh {
  const mesh = TranslatedMesh.shop();
  for (const [i, app] of PODS.entries()) mesh.set('Pod', make.pod({ name: app, labels: { app }, ip: `10.0.0.${i + 1}` }));
  for (const { kind, object } of objects) mesh.set(kind, object);
  return mesh.flush();
}

const L4_RULES = fc.record(
  {
    from: fc.constantFrom(
      { principals: ['cluster.local/ns/shop/sa/web'] },
      { notPrincipals: ['cluster.local/ns/shop/sa/web'] },
      { namespaces: ['edge'] },
      { ipBlocks: ['10.9.0.0/16'] },
      { notIpBlocks: ['10.9.0.0/16'] },
    ),
    to: fc.constantFrom({ ports: ['8080'] }, { notPorts: ['8080'] }, { methods: ['GET'] }),
  },
  { requiredKeys: [] },
);
const L7_RULES = fc.record(
  {
    from: fc.constantFrom({ principals: ['cluster.local/ns/shop/sa/web'] }, { namespaces: ['edge'] }, { notNamespaces: ['edge'] }),
    to: fc.constantFrom(
      { methods: ['GET'] },
      { paths: ['/a/*'] },
      { notPaths: ['/a', '/b'] },
      { methods: ['POST'], paths: ['/b'] },
      { hosts: ['web'] },
    ),
    when: fc.constantFrom(
      { key: 'request.headers[x-tier]', values: ['gold'] },
      { key: 'request.headers[x-tier]', notValues: ['gold'] },
      { key: 'request.headers[x-other]', values: ['yes'] },
      { key: 'source.namespace', values: ['edge'] },
    ),
  },
  { requiredKeys: [] },
);
const ruleOf = ({ from, to, when }: { from?: object; to?: object; when?: object }) => ({
  ...(from && { from: [{ source: from }] }),
  ...(to && { to: [{ operation: to }] }),
  ...(when && { when: [when] }),
});

const policies: fc.Arbitrary<Made> = fc
  .record({
    name: fc.constantFrom('p', 'q', 'r'),
    action: fc.constantFrom('ALLOW', 'DENY'),
    where: fc.constantFrom('namespace', 'selector', 'service', 'gateway', 'mesh'),
    l4: fc.array(L4_RULES, { minLength: 1, maxLength: 2 }),
    l7: fc.array(L7_RULES, { minLength: 1, maxLength: 2 }),
  })
  .map(({ name, action, where, l4, l7 }): Made => {
    const targets =
      where === 'service'
        ? [{ kind: 'Service', group: '', name: 'web' }]
        : [{ kind: 'Gateway', group: 'gateway.networking.k8s.io', name: 'wp' }];
    const spec =
      where === 'service' || where === 'gateway'
        ? { targetRefs: targets, action, rules: l7.map(ruleOf) }
        : { ...(where === 'selector' && { selector: { matchLabels: { app: 'web' } } }), action, rules: l4.map(ruleOf) };
    return {
      kind: 'AuthorizationPolicy',
      object: make.authorizationPolicy({ name, namespace: where === 'mesh' ? 'istio-system' : 'shop', spec }) as Object,
    };
  });
const routes: fc.Arbitrary<Made> = fc
  .record({
    name: fc.constantFrom('r1', 'r2'),
    path: fc.constantFrom('/', '/a', '/b/c'),
    header: fc.constantFrom(undefined, 'x-tier', 'x-new'),
    method: fc.constantFrom(undefined, 'GET'),
  })
  .map(({ name, path, header, method }): Made => {
    const match = {
      path: { type: 'PathPrefix', value: path },
      ...(header && { headers: [{ name: header, value: 'gold' }] }),
      ...(method && { method }),
    };
    return {
      kind: 'HTTPRoute',
      object: make.httpRoute({ name, rules: [{ matches: [match], backendRefs: [{ name: 'web', port: 80 }] }] }) as Object,
    };
  });
const strict: fc.Arbitrary<Made> = fc
  .constantFrom('STRICT', 'PERMISSIVE')
  .map((mode): Made => ({ kind: 'PeerAuthentication', object: make.peerAuthentication({ name: 'default', mode }) as Object }));
const objects = fc.array(fc.oneof({ weight: 4, arbitrary: policies }, { weight: 2, arbitrary: routes }, { weight: 1, arbitrary: strict }), {
  maxLength: 4,
});

const connections = fc.record({
  app: fc.constantFrom(...PODS),
  identity: fc.constantFrom(...IDENTITIES),
  sourceIp: fc.constantFrom('10.9.0.1', '10.8.0.1'),
  port: fc.constantFrom(8080, 9090),
});
const requests = fc.record({
  identity: fc.constantFrom(...IDENTITIES.slice(1)),
  method: fc.constantFrom('GET', 'POST'),
  path: fc.constantFrom('/', '/a', '/a/b', '/b', '/b/c'),
  query: fc.constantFrom('', '?x=1'),
  tier: fc.constantFrom(undefined, 'gold', 'tin'),
  other: fc.constantFrom(undefined, 'yes'),
});
type Connection = typeof connections extends fc.Arbitrary<infer T> ? T : never;
type Request = typeof requests extends fc.Arbitrary<infer T> ? T : never;

const keyOf = ({ kind, object: { metadata } }: Made): string => `${kind} ${metadata.namespace}/${metadata.name}`;
const byKey = (made: readonly Made[]): Map<string, Made> => new Map(made.map((each) => [keyOf(each), each]));

const plain = (more: Partial<Decision>): Decision => ({
  at: 'inbound',
  source: '',
  sourceIp: '',
  identity: '',
  service: '',
  pod: '',
  uid: '',
  ip: '',
  port: 0,
  mutualTls: true,
  verdict: 'allowed',
  code: '',
  policy: '',
  route: '',
  ...more,
});
const connectionRow = ({ app, identity, sourceIp, port }: Connection): Decision =>
  plain({ sourceIp, identity, pod: `shop/${app}`, uid: `Kubernetes//Pod/shop/${app}`, ip: `10.0.0.${PODS.indexOf(app) + 1}`, port });

const routed = ({ method, path, query, tier, other }: Request): RoutedRequest => ({
  method,
  scheme: 'http',
  authority: 'web',
  path: path + query,
  fields: [...(tier === undefined ? [] : ['x-tier', tier]), ...(other === undefined ? [] : ['x-other', other])],
});
const requestRow = (request: Request, asked: Asked): Decision => {
  const values: Record<string, string | null> = { 'x-tier': request.tier ?? null, 'x-other': request.other ?? null };
  const headers = Object.fromEntries(asked.headers.map((name) => [name, values[name] ?? null]));
  const { method, path } = request;
  return plain({
    at: 'request',
    identity: request.identity,
    sourceIp: '10.9.0.1',
    service: SERVICE,
    ip: '10.96.0.1',
    port: 80,
    request: { method, host: 'web', path, headers, query: {} },
  });
};

/** What proxies have, out of what the translation says. */
function proxiesOf(mesh: TranslatedMesh) {
  const writer = new MeshStateWriter();
  for (const [typeUrl, resources] of [
    [AUTHORIZATION_TYPE, mesh.index.authorizations()],
    [ADDRESS_TYPE, mesh.index.addresses()],
  ] as const)
    writer.apply({
      typeUrl,
      resources: [...resources].map(({ name, version, bytes }) => ({ name, version, bytes: Buffer.from(bytes) })),
      removed: [],
    });
  const view = writer.view();
  const authorizations = mesh.policies().map(compileAuthorization);
  const tables = mesh.routes().map(compileRoutes);
  const held = authorizations.filter(({ services }) => services === undefined || services.has(SERVICE));
  const table = tables.find(({ service }) => service === SERVICE);
  return {
    asked: askedBy(held, table),
    connection({ app, identity, sourceIp, port }: Connection): string {
      const local = view.workloadByUid(`Kubernetes//Pod/shop/${app}`);
      assert.ok(local);
      const destination = { ip: `10.0.0.${PODS.indexOf(app) + 1}`, port };
      const { allowed, code } = decidePolicy(view, local, {
        source: { ip: sourceIp, port: 1 },
        identity: parseSpiffeId(identity),
        destination,
      });
      return allowed ? 'allowed' : `refused ${code}`;
    },
    request(request: Request): string {
      const identity = parseSpiffeId(request.identity);
      const verdict = decideHttp(held, routed(request), { identity, ip: '10.9.0.1' }, { service: SERVICE, ip: '10.96.0.1', port: 80 });
      if (!verdict.allowed) return 'refused POLICY_DENIED';
      const found = matchRoute(table, 80, routed(request), NO_SOURCE);
      if (found === 'no-match') return 'refused ROUTE_UNMATCHED';
      return found === 'no-routes' ? 'allowed' : `allowed ${found.entry.rule.name}`;
    },
  };
}

const said = ({ outcome, code, route }: { outcome: string; code: string; route: string }): string =>
  [outcome, code, route].filter((text) => text !== '').join(' ');

test('what a rehearsal says of recorded decisions is what comes of them after applying, or that the record lacks what a rule asks for', () => {
  let judged = 0;
  let unknown = 0;
  let refused = 0;
  fc.assert(
    fc.property(
      objects,
      objects,
      fc.array(connections, { minLength: 4 }),
      fc.array(requests, { minLength: 4 }),
      fc.boolean(),
      (was, added, tcp, http, removes) => {
        const before = byKey(was);
        const removed = removes ? [...before.values()].slice(0, 1) : [];
        const wanted = new Map([...before, ...byKey(added)]);
        for (const gone of removed) wanted.delete(keyOf(gone));

        const shadow = meshOf(before.values());
        const recorded = proxiesOf(shadow);
        const now = new MeshPicture(shadow.index);
        for (const { kind, object } of added) shadow.set(kind, object);
        for (const { kind, object } of removed) shadow.remove(kind, object);
        shadow.flush();
        const after = new MeshPicture(shadow.index);
        const real = proxiesOf(meshOf(wanted.values()));

        const compare = (decision: Decision, gateway: string, today: string, outcome: string, lacks: boolean): void => {
          const verdicts = judgeBoth(decision, gateway, now, after);
          assert.ok(verdicts);
          assert.equal(said(verdicts.now), today, `now: ${JSON.stringify(decision)}`);
          judged++;
          if (verdicts.after.outcome === 'refused') refused++;
          if (verdicts.after.outcome !== 'unknown')
            assert.equal(said(verdicts.after), outcome, `after: ${JSON.stringify({ decision, verdicts })}`);
          else {
            unknown++;
            assert.ok(lacks, `what was recorded is enough: ${JSON.stringify({ decision, verdicts, outcome })}`);
          }
        };
        for (const call of tcp) compare(connectionRow(call), '', recorded.connection(call), real.connection(call), false);
        const lacks = real.asked.headers.some((name) => !recorded.asked.headers.includes(name));
        for (const call of http) compare(requestRow(call, recorded.asked), GATEWAY, recorded.request(call), real.request(call), lacks);
      },
    ),
    { numRuns: 300 },
  );
  assert.ok(unknown > 20 && unknown < judged / 5 && refused > 100, `${judged} judged, ${unknown} unknown, ${refused} refused`);
});

test('policies that are suggested allow what was seen, and refuse what was not', () => {
  fc.assert(
    fc.property(
      fc.array(connections, { minLength: 1, maxLength: 8 }),
      fc.array(requests, { maxLength: 8 }),
      fc.array(connections),
      fc.array(requests),
      (tcp, http, others, more) => {
        const asked = askedBy([], undefined);
        const rows = [...tcp.map((call) => connectionRow(call)), ...http.map((call) => requestRow(call, asked))].map(
          (decision): JournalRow => ({ decision, count: 1, firstMs: 1, lastMs: 1, id: '', endpoint: '' }),
        );
        const pods = PODS.map((app) => make.pod({ name: app, labels: { app, 'pod-template-hash': 'x' } }));
        const services = [make.service({ name: 'web', selector: { app: 'web' } })];
        const { policies: made, notes } = suggest({
          namespace: 'shop',
          rows,
          pods: pods as never,
          services: services as never,
          open: false,
        });
        assert.deepEqual(notes, []);
        const proxies = proxiesOf(meshOf(made.map(({ policy }) => ({ kind: 'AuthorizationPolicy', object: policy as unknown as Object }))));
        for (const call of tcp) assert.equal(proxies.connection(call), 'allowed', JSON.stringify({ call, made }));
        for (const call of http) assert.equal(proxies.request(call), 'allowed', JSON.stringify({ call, made }));
        const who = ({ identity, sourceIp }: Connection): string => identity || sourceIp;
        for (const call of others) {
          const seen = tcp.some((one) => one.app === call.app && one.port === call.port && who(one) === who(call));
          if (!seen) assert.notEqual(proxies.connection(call), 'allowed', JSON.stringify({ call, made }));
        }
        if (http.length === 0) return;
        for (const call of more) {
          const seen = http.some((one) => one.identity === call.identity && one.method === call.method && one.path === call.path);
          assert.equal(proxies.request(call), seen ? 'allowed' : 'refused POLICY_DENIED', JSON.stringify({ call, made }));
        }
      },
    ),
    { numRuns: 200 },
  );
});

test('a candidate says what is wrong with it, and may be about one namespace only where its sender sees one', () => {
  const object = { kind: 'AuthorizationPolicy', metadata: { name: 'p', namespace: 'shop' } };
  assert.equal(readCandidate({ apply: [object], sinceMs: 5 }, undefined).sinceMs, 5);
  assert.equal(readCandidate({ remove: [{ kind: 'HTTPRoute', namespace: 'shop', name: 'r' }] }, 'shop').remove.length, 1);
  const wrong = (body: unknown, words: RegExp, sight?: string): void =>
    assert.throws(
      () => readCandidate(body, sight),
      (error) => error instanceof BadCandidate && words.test(error.message),
    );
  wrong([], /JSON object/);
  wrong({}, /nothing to apply/);
  wrong({ apply: {} }, /apply: expected a list/);
  wrong({ apply: [object, { kind: 'Pod' }] }, /object 2 has no metadata\.name/);
  wrong({ apply: [{ ...object, kind: 'CronJob' }] }, /nothing of kind CronJob/);
  wrong({ apply: [{ ...object, metadata: { name: 'p' } }] }, /no metadata\.namespace/);
  wrong({ apply: [object] }, /not of namespace other/, 'other');
  wrong({ apply: Array.from({ length: 1001 }, () => object) }, /more than 1000/);
});
