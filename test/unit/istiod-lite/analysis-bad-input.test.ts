/**
 * Objects that Kubernetes' schema lets through and that make no sense, or that are made to hurt: each is named, by status, by analysis and by
 * admission, and the mesh beside it is what it was.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ServiceRoutes } from '../../../common/codec/gen/waypoint.ts';
import { compileRoutes } from '../../../common/decision/http-model.ts';
import { decodeAddress } from '../../../common/state/decode.ts';
import { admit } from '../../../istiod-lite/analysis/admit.ts';
import { analyze } from '../../../istiod-lite/analysis/analyze.ts';
import { friendlyName } from '../../../istiod-lite/analysis/messages.ts';
import { ObjectSet } from '../../../istiod-lite/analysis/object-set.ts';
import { createMetrics, setProblems } from '../../../istiod-lite/metrics.ts';
import { MeshIndex } from '../../../istiod-lite/model/index.ts';
import { type WatchedKindName, watchedKinds } from '../../../istiod-lite/model/watched-kinds.ts';
import * as make from '../../support/kube-objects.ts';

const config = {
  clusterId: 'Kubernetes',
  domain: 'cluster.local',
  rootNamespace: 'istio-system',
  trustDomain: 'cluster.local',
  network: '',
};

type Json = Record<string, unknown>;
type Given = readonly [kind: WatchedKindName, object: Json];

/** A shop whose service is behind a waypoint, with a route and a policy that are as they should be. */
const SHOP: readonly Given[] = [
  ['GatewayClass', { metadata: { name: 'istio-waypoint' }, spec: { controllerName: 'istio.io/mesh-controller' } }],
  ['Namespace', make.namespace('shop', { 'istio.io/dataplane-mode': 'ambient', 'istio.io/use-waypoint': 'wp' })],
  ['Pod', make.pod({ name: 'web', labels: { app: 'web' } })],
  ['Service', make.service({ name: 'web', selector: { app: 'web' }, ports: [{ name: 'http', port: 80, targetPort: 8080 }] })],
  ['Gateway', make.gateway({ name: 'wp', ready: true })],
  [
    'HTTPRoute',
    make.httpRoute({ name: 'good', rules: [{ matches: [{ path: { value: '/good' } }], backendRefs: [{ name: 'web', port: 80 }] }] }),
  ],
  [
    'AuthorizationPolicy',
    make.authorizationPolicy({
      name: 'good',
      spec: { selector: { matchLabels: { app: 'web' } }, rules: [{ from: [{ source: { namespaces: ['shop'] } }] }] },
    }),
  ],
];

interface Outcome {
  /** `CODE Kind namespace/name` of analysis, of what is new beside the shop. */
  readonly analysis: readonly string[];
  /** Whether admission refuses it, with its words. */
  readonly refused: readonly string[];
  readonly warned: readonly string[];
  /** Conditions of it that say something is wrong, by their words. */
  readonly status: readonly string[];
  readonly problems: readonly string[];
  readonly index: MeshIndex;
}

function outcome(...bad: readonly Given[]): Outcome {
  const index = new MeshIndex(config);
  for (const [kind, object] of SHOP) index.apply({ type: 'added', kind, object });
  index.flush();
  const before = snapshot(index);
  const subject = bad.at(-1);
  assert.ok(subject);
  for (const [kind, object] of bad.slice(0, -1)) index.apply({ type: 'added', kind, object });
  index.flush();
  const [kind, object] = subject;
  const verdict = admit({ apiVersion: watchedKinds[kind].apiVersion, kind, ...object }, undefined, index, { config, strict: false });
  index.apply({ type: 'added', kind, object });
  const { statuses } = index.flush();
  const set = new ObjectSet();
  for (const [each, given] of [...SHOP, ...bad])
    set.add({ apiVersion: watchedKinds[each].apiVersion, kind: each, ...given }, { defaultNamespace: 'shop' });
  const known = [...SHOP.map(([each, given]) => `${each} shop/${(given.metadata as { name: string }).name}`)];
  const name = `${(object.metadata as { name: string }).name}`;
  // Whoever is not concerned is told what it was told before.
  const after = snapshot(index);
  for (const [resource, bytes] of before) assert.equal(after.get(resource), bytes, `${resource} is disturbed`);
  return {
    analysis: analyze(set, { config })
      .map(({ type, origin }) => `${type.code} ${friendlyName(origin)}`)
      .filter((line) => !known.some((one) => line.endsWith(one))),
    refused: verdict.refused.map(({ text }) => text),
    warned: verdict.warnings.map(({ text }) => text),
    status: statuses
      .filter((write) => write.name === name)
      .flatMap(({ conditions }) => conditions.filter(isBad).map(({ message }) => message)),
    problems: [...index.problems()].filter(({ object: about }) => about.endsWith(`shop/${name}`)).map(({ message }) => message),
    index,
  };
}

const isBad = ({ type, status, reason }: { type: string; status: string; reason: string }): boolean =>
  status === 'False' || type === 'warren.dev/Unreadable' || reason === 'UnsupportedValue';

/** What the good route, the good policy and the pod are for the proxies. */
function snapshot(index: MeshIndex): Map<string, string> {
  const found = new Map<string, string>();
  const good = index.authorization('shop/good');
  found.set('policy', good?.version ?? '');
  const routes = index.waypointResources('shop', 'wp').routes.map(({ bytes }) => ServiceRoutes.decode(bytes));
  const rules = routes.flatMap(({ ports }) => ports.flatMap((port) => port.rules.filter(({ name }) => name.includes('shop/good'))));
  found.set('route', JSON.stringify(rules));
  const pod = index.address('Kubernetes//Pod/shop/web');
  const decoded = pod && decodeAddress(pod.bytes);
  found.set('pod', decoded && 'workload' in decoded ? [...decoded.workload.services.keys()].join() : '');
  return found;
}

const deny = (name: string, source: Json): Given => [
  'AuthorizationPolicy',
  make.authorizationPolicy({ name, spec: { action: 'DENY', selector: { matchLabels: { app: 'web' } }, rules: [{ from: [{ source }] }] } }),
];

test('an address range with the length of the other family is named everywhere', () => {
  for (const range of ['10.0.0.0/64', 'fd00::/129', '10.0.0.0.0/8', '::ffff:10.0.0.0/200', '10.0.0.0/-1']) {
    const { analysis, refused, status, problems } = outcome(deny('bad', { ipBlocks: [range] }));
    assert.deepEqual(analysis, ['IST0106 AuthorizationPolicy shop/bad'], range);
    for (const words of [refused, status, problems])
      assert.ok(
        words.some((message) => message.includes(range)),
        `${range}: ${words}`,
      );
  }
});

test('ranges of a family that no workload has match nothing, and analysis says so', () => {
  const { analysis, refused } = outcome(deny('six', { ipBlocks: ['fd00::/8'] }));
  assert.deepEqual(analysis, ['WRN0210 AuthorizationPolicy shop/six']);
  assert.deepEqual(refused, []);
});

test('an expression that explodes is compiled into one that does not, and one that cannot be is named; other rules of the table stay', () => {
  const route = (value: string): Given => [
    'HTTPRoute',
    make.httpRoute({
      name: 'bad',
      rules: [{ matches: [{ path: { type: 'RegularExpression', value } }], backendRefs: [{ name: 'web', port: 80 }] }],
    }),
  ];
  assert.deepEqual(outcome(route('/(a+)+$')).refused, []);
  for (const value of ['/(a', '/(?=a)', '/(a)\\1', `/${'a?'.repeat(600)}`, '/[z-a]']) {
    const { analysis, refused, status, index } = outcome(route(value));
    assert.deepEqual(analysis, ['IST0106 HTTPRoute shop/bad'], value);
    assert.equal(refused.length, 1, value);
    assert.ok(
      status.some((message) => message.includes('cannot be read')),
      value,
    );
    for (const { bytes } of index.waypointResources('shop', 'wp').routes) compileRoutes(ServiceRoutes.decode(bytes));
  }
});

test('VirtualServices that delegate in a circle, to themselves or to nobody are named, and take nobody with them', () => {
  const root = (delegate: string): Json =>
    make.virtualService({
      name: 'root',
      spec: { hosts: ['web'], http: [{ match: [{ uri: { prefix: '/a' } }], delegate: { name: delegate } }] },
    });
  const link = (name: string, to: string): Given => [
    'VirtualService',
    make.virtualService({ name, spec: { http: [{ delegate: { name: to } }] } }),
  ];
  const circle = outcome(link('one', 'two'), link('two', 'one'), ['VirtualService', root('one')]);
  assert.deepEqual(
    circle.analysis.filter((line) => line.endsWith('/root')),
    ['WRN0206 VirtualService shop/root', 'WRN0208 VirtualService shop/root'],
  );
  assert.ok(
    circle.warned.some((message) => message.includes('delegate shop/one delegates again')),
    circle.warned.join(),
  );
  assert.ok(outcome(['VirtualService', root('root')]).warned.some((message) => message.includes('delegate')));
  const missing = outcome(['VirtualService', root('nobody')]);
  assert.ok(missing.analysis.includes('IST0101 VirtualService shop/root'));
  assert.deepEqual(missing.refused, []);
});

test('a thousand policies on one workload are all there, and one bad one among them is found', () => {
  const many = Array.from({ length: 1000 }, (_, i) => deny(`p${i}`, { namespaces: [`n${i}`] }));
  const { analysis, index } = outcome(...many, deny('bad', { ipBlocks: ['nowhere'] }));
  const pod = index.address('Kubernetes//Pod/shop/web');
  const decoded = pod && decodeAddress(pod.bytes);
  assert.equal(decoded && 'workload' in decoded ? decoded.workload.authorizationPolicies.length : 0, 1002);
  assert.deepEqual(
    analysis.filter((line) => line.startsWith('IST0106')),
    ['IST0106 AuthorizationPolicy shop/bad'],
  );
});

test('a mode, a port or a selector that means nothing is read in the stricter way, and named', () => {
  const peer = make.peerAuthentication({ name: 'bad', mode: 'STRIKT', selector: { app: 'web' } });
  const strict = outcome(['PeerAuthentication', peer]);
  assert.ok(strict.refused.some((message) => message.includes('STRIKT')));
  assert.ok(strict.status.some((message) => message.includes('STRIKT')));
  const selector = outcome([
    'AuthorizationPolicy',
    make.authorizationPolicy({ name: 'bad', spec: { selector: { matchLabels: { app: 5 } }, rules: [{}] } }),
  ]);
  assert.ok(selector.status.some((message) => message.includes('no map of labels')));
  const entry = make.serviceEntry({
    name: 'bad',
    spec: { hosts: ['e.example.com'], addresses: ['10.0.0.0/77'], ports: [{ number: 99999, name: 'http' }], resolution: 'STATIC' },
  });
  const { status, refused } = outcome(['ServiceEntry', entry]);
  for (const words of [status, refused]) assert.match(words.join(), /10\.0\.0\.0\/77.*99999/s);
});

test('a policy with every limit strained is judged in a moment, and told of in few words', () => {
  const rule = { from: [{ source: { ipBlocks: Array.from({ length: 20_000 }, (_, i) => `x${i}`) } }] };
  const huge: Given = ['AuthorizationPolicy', make.authorizationPolicy({ name: 'huge', spec: { action: 'DENY', rules: [rule] } })];
  const { refused, status, problems } = outcome(huge);
  assert.ok(refused.length <= 20 && status.join().length < 3000 && problems.length <= 20);
  const matches = Array.from({ length: 3000 }, (_, i) => ({ uri: { prefix: `/${i}/` } }));
  const wide = make.virtualService({
    name: 'wide',
    spec: { hosts: ['web'], http: [{ match: matches, route: [{ destination: { host: 'web' } }] }] },
  });
  assert.deepEqual(outcome(['VirtualService', wide]).refused, []);
});

test('what is wrong is counted by object, and many objects do not make many series', async () => {
  const metrics = createMetrics({ processMetrics: false });
  setProblems(metrics, [{ object: 'ServiceEntry shop/a' }, { object: 'ServiceEntry shop/a' }]);
  assert.match(await metrics.registry.metrics(), /warren_object_problems\{object="ServiceEntry shop\/a"\} 2/);
  setProblems(
    metrics,
    Array.from({ length: 5000 }, (_, i) => ({ object: `ServiceEntry shop/${i}` })),
  );
  const text = await metrics.registry.metrics();
  assert.equal(text.match(/^warren_object_problems\{/gm)?.length, 1001);
  assert.match(text, /warren_object_problems\{object="other"\} 4000/);
});
