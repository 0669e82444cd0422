/** Whatever the order of changes, the index ends where a fresh one starts: nothing that depends on a change is forgotten, nothing is left. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { MeshIndex, type ObjectChange } from '../../../istiod-lite/model/index.ts';
import { isRecord } from '../../../istiod-lite/model/objects.ts';
import { waypointTableNames, waypointTypes } from '../../../istiod-lite/model/resources.ts';
import type { WatchedKindName } from '../../../istiod-lite/model/watched-kinds.ts';
import * as make from '../../support/kube-objects.ts';

const config = {
  clusterId: 'Kubernetes',
  domain: 'cluster.local',
  rootNamespace: 'istio-system',
  trustDomain: 'cluster.local',
  network: '',
};

type Item = { readonly kind: WatchedKindName; readonly key: string; readonly object: Record<string, unknown> };

const namespaces = fc.constantFrom('shop', 'shop', 'istio-system');
const names = fc.constantFrom('a', 'b');
const apps = fc.constantFrom({}, { app: 'a' }, { app: 'b' }, { app: 'a', tier: 'x' });
const words = fc.constantFrom<Record<string, string>>(
  {},
  {},
  { 'istio.io/use-waypoint': 'a' },
  { 'istio.io/use-waypoint': 'b' },
  { 'istio.io/use-waypoint': 'none' },
);
const podWords = fc.oneof(words, fc.constant<Record<string, string>>({ 'gateway.networking.k8s.io/gateway-name': 'a' }));
const modes = fc.constantFrom('UNSET', 'PERMISSIVE', 'STRICT', 'DISABLE');
const ages = fc.constantFrom('2026-01-01T00:00:00Z', '2026-01-02T00:00:00Z');

const item = (kind: WatchedKindName, object: fc.Arbitrary<Record<string, unknown>>): fc.Arbitrary<Item> =>
  object.map((made) => {
    const { namespace = '', name } = made.metadata as { namespace?: string; name: string };
    return { kind, key: `${kind}/${namespace}/${name}`, object: made };
  });

const policyTargets = fc.constantFrom(
  { group: '', kind: 'Service', name: 'a' },
  { group: 'networking.istio.io', kind: 'ServiceEntry', name: 'a' },
  { group: 'gateway.networking.k8s.io', kind: 'Gateway', name: 'a' },
  { group: 'gateway.networking.k8s.io', kind: 'GatewayClass', name: 'istio-waypoint' },
);
const routeParents = fc.constantFrom(
  { group: '', kind: 'Service', name: 'a' },
  { group: '', kind: 'Service', name: 'a', namespace: 'shop', port: 80 },
  { group: 'networking.istio.io', kind: 'ServiceEntry', name: 'a' },
  { name: 'a' },
);

const items = fc.oneof(
  item(
    'Pod',
    fc
      .record({
        name: names,
        namespace: namespaces,
        app: apps,
        binding: podWords,
        ip: fc.constantFrom('10.0.0.1', '10.0.0.2'),
        node: fc.constantFrom('n1', 'n2'),
        ready: fc.boolean(),
        phase: fc.constantFrom('Running', 'Succeeded'),
      })
      .map(({ app, binding, ...pod }) => make.pod({ ...pod, labels: { ...app, ...binding }, ports: { web: 8080 } })),
  ),
  item(
    'Service',
    fc
      .record({
        name: names,
        namespace: namespaces,
        selector: fc.option(fc.constantFrom({ app: 'a' }, { app: 'b' }), { nil: undefined }),
        binding: words,
        target: fc.constantFrom<string | number>(8080, 'web', 'none'),
      })
      .map(({ selector, binding, target, ...service }) =>
        make.service({
          ...service,
          labels: binding,
          ports: [{ name: 'http', port: 80, targetPort: target }],
          ...(selector ? { selector } : {}),
        }),
      ),
  ),
  item(
    'EndpointSlice',
    fc.record({ name: names, namespace: namespaces, service: names, pod: names }).map(({ pod, ...slice }) =>
      make.endpointSlice({
        ...slice,
        endpoints: [
          { addresses: ['192.0.2.1'] },
          { addresses: ['10.0.0.1'], targetRef: { kind: 'Pod', name: pod, namespace: slice.namespace } },
        ],
      }),
    ),
  ),
  item(
    'Namespace',
    fc
      .record({ name: namespaces, binding: words, near: fc.boolean() })
      .map(({ name, binding, near }) =>
        make.namespace(name, binding, near ? { 'networking.istio.io/traffic-distribution': 'PreferClose' } : {}),
      ),
  ),
  item(
    'Node',
    fc.record({ name: fc.constantFrom('n1', 'n2'), zone: fc.constantFrom('z1', 'z2') }).map(({ name, zone }) => make.node(name, zone)),
  ),
  item(
    'AuthorizationPolicy',
    fc
      .record({
        name: names,
        namespace: namespaces,
        selector: fc.option(fc.constantFrom({ app: 'a' }, { app: 'b' }), { nil: undefined }),
        action: fc.constantFrom('ALLOW', 'DENY', 'AUDIT'),
      })
      .map(({ selector, action, ...policy }) =>
        make.authorizationPolicy({
          ...policy,
          spec: { action, rules: [{}], ...(selector ? { selector: { matchLabels: selector } } : {}) },
        }),
      ),
  ),
  item(
    'AuthorizationPolicy',
    fc
      .record({ name: names, namespace: namespaces, targets: fc.array(policyTargets, { minLength: 1, maxLength: 2 }) })
      .map(({ targets, ...policy }) =>
        make.authorizationPolicy({ ...policy, spec: { targetRefs: targets, rules: [{ to: [{ operation: { methods: ['GET'] } }] }] } }),
      ),
  ),
  item(
    'VirtualService',
    fc
      .record({
        name: names,
        namespace: namespaces,
        createdAt: ages,
        hosts: fc.constantFrom(['a'], ['b.shop.svc.cluster.local'], ['*.shop.svc.cluster.local'], ['a', 'e.example.com'], []),
        to: fc.constantFrom('a', 'b.shop.svc.cluster.local', 'e.example.com'),
        subset: fc.constantFrom('', 'v1'),
        labels: fc.constantFrom({}, { app: 'a' }),
        delegate: fc.option(names, { nil: undefined }),
      })
      .map(({ hosts, to, subset, labels, delegate, ...meta }) =>
        make.virtualService({
          ...meta,
          spec: {
            hosts,
            http: [
              ...(delegate ? [{ match: [{ uri: { prefix: '/d' } }], delegate: { name: delegate } }] : []),
              { match: [{ sourceLabels: labels }], route: [{ destination: { host: to, subset } }] },
            ],
          },
        }),
      ),
  ),
  item(
    'DestinationRule',
    fc
      .record({
        name: names,
        namespace: namespaces,
        createdAt: ages,
        host: fc.constantFrom('a', 'b.shop.svc.cluster.local', '*.shop.svc.cluster.local', 'e.example.com'),
        key: fc.constantFrom('app', 'tier'),
        simple: fc.constantFrom('RANDOM', 'ROUND_ROBIN'),
      })
      .map(({ host, key, simple, ...meta }) =>
        make.destinationRule({
          ...meta,
          spec: { host, trafficPolicy: { loadBalancer: { simple } }, subsets: [{ name: 'v1', labels: { [key]: 'a' } }] },
        }),
      ),
  ),
  item(
    'HTTPRoute',
    fc
      .record({
        name: names,
        namespace: namespaces,
        createdAt: ages,
        parents: fc.array(routeParents, { minLength: 1, maxLength: 2 }),
        backend: fc.constantFrom(
          { name: 'a', port: 80 },
          { name: 'b', namespace: 'shop', port: 80 },
          { group: 'networking.istio.io', kind: 'Hostname', name: 'x.example.com', port: 80 },
          { group: 'networking.istio.io', kind: 'Hostname', name: 'a.shop.svc.cluster.local', port: 80 },
        ),
      })
      .map(({ backend, ...route }) => make.httpRoute({ ...route, rules: [{ backendRefs: [backend] }] })),
  ),
  item(
    'GatewayClass',
    fc
      .record({ controller: fc.constantFrom('istio.io/mesh-controller', 'other') })
      .map(({ controller }) => ({ metadata: { name: 'istio-waypoint', generation: 1 }, spec: { controllerName: controller } })),
  ),
  item(
    'PeerAuthentication',
    fc
      .record({
        name: names,
        namespace: namespaces,
        createdAt: ages,
        mode: modes,
        selector: fc.option(fc.constantFrom({ app: 'a' }, { app: 'b' }), { nil: undefined }),
        port: fc.option(modes, { nil: undefined }),
      })
      .map(({ selector, port, ...peer }) =>
        make.peerAuthentication({ ...peer, ...(selector ? { selector } : {}), ...(port ? { ports: { 8080: port } } : {}) }),
      ),
  ),
  item(
    'Gateway',
    fc
      .record({ name: names, namespace: namespaces, ready: fc.boolean(), type: fc.constantFrom('service', 'workload', 'all') })
      .map(({ type, ...gateway }) => make.gateway({ ...gateway, labels: { 'istio.io/waypoint-for': type } })),
  ),
  item(
    'ServiceEntry',
    fc
      .record({
        name: names,
        namespace: namespaces,
        createdAt: ages,
        binding: words,
        host: fc.constantFrom('x.example.com', 'a.shop.svc.cluster.local'),
        shape: fc.constantFrom<Record<string, unknown>>(
          { resolution: 'DNS' },
          { resolution: 'STATIC', endpoints: [{ address: '192.0.2.9', labels: { 'istio.io/use-waypoint': 'a' } }] },
          { resolution: 'STATIC', workloadSelector: { labels: { app: 'a' } } },
        ),
      })
      .map(({ host, shape, binding, ...entry }) =>
        make.serviceEntry({
          ...entry,
          labels: { app: 'a', ...binding },
          spec: { hosts: [host], ports: [{ name: 'web', number: 80, protocol: 'HTTP' }], ...shape },
        }),
      ),
  ),
  item(
    'WorkloadEntry',
    fc
      .record({ name: names, namespace: namespaces, app: apps, binding: words })
      .map(({ app, binding, ...entry }) =>
        make.workloadEntry({ ...entry, labels: { ...app, ...binding }, spec: { address: '192.0.2.77' } }),
      ),
  ),
);

const steps = fc.array(fc.record({ item: items, remove: fc.boolean(), flush: fc.boolean() }), { minLength: 1, maxLength: 60 });

function published(index: MeshIndex): Record<string, string> {
  const forWaypoints = [...index.waypoints()].flatMap((key) => {
    const [namespace = '', name = ''] = key.split('/');
    return Object.values(index.waypointResources(namespace, name))
      .flat()
      .map((resource) => [`${key} ${resource.typeUrl} ${resource.name}`, resource.version]);
  });
  const forAll = [...index.addresses(), ...index.authorizations()].map(({ name, typeUrl, version }) => [`${typeUrl} ${name}`, version]);
  return Object.fromEntries([...forAll, ...forWaypoints].sort());
}

/** What is to be written to each object, as far as the writes say. */
function remember(statuses: Map<string, string>, index: MeshIndex): void {
  for (const { path, fieldManager, conditions, status } of index.flush().statuses)
    statuses.set(`${path} ${fieldManager}`, JSON.stringify(inAnyOrder(status) ?? conditions));
}

/** A route that names the same parents in another order has the status that it had. */
const inAnyOrder = (status: unknown): unknown =>
  isRecord(status) && Array.isArray(status.parents)
    ? { ...status, parents: status.parents.map((parent) => JSON.stringify(parent)).sort() }
    : status;

test('after any changes in any order the index publishes what a fresh one makes of the objects that are left', () => {
  fc.assert(
    fc.property(steps, (changes) => {
      const index = new MeshIndex(config);
      const statuses = new Map<string, string>();
      const cluster = new Map<string, Item>();
      for (const { item: next, remove, flush } of changes) {
        const before = cluster.get(next.key);
        if (before && remove) cluster.delete(next.key);
        else cluster.set(next.key, next);
        const type: ObjectChange['type'] = before ? (remove ? 'deleted' : 'modified') : 'added';
        index.apply({ type, kind: next.kind, object: type === 'deleted' ? before?.object : next.object });
        if (flush) remember(statuses, index);
      }
      remember(statuses, index);
      const fresh = new MeshIndex(config);
      for (const { kind, object } of cluster.values()) fresh.apply({ type: 'added', kind, object });
      const wanted = new Map<string, string>();
      remember(wanted, fresh);
      assert.deepEqual(published(index), published(fresh));
      for (const [object, status] of wanted) assert.equal(statuses.get(object), status, object);
    }),
    { numRuns: 150 },
  );
});

test('a status that names several services names them in one order, whatever the order in which they came', () => {
  const said = (...services: readonly string[]): string => {
    const index = new MeshIndex(config);
    const rule = make.destinationRule({ name: 'all', namespace: 'shop', spec: { host: '*.shop.svc.cluster.local', subsets: [] } });
    index.apply({ type: 'added', kind: 'DestinationRule', object: rule });
    for (const name of services)
      index.apply({
        type: 'added',
        kind: 'Service',
        object: make.service({ name, namespace: 'shop' }),
      });
    const statuses = new Map<string, string>();
    remember(statuses, index);
    return [...statuses.values()].join();
  };
  assert.match(said('a', 'b'), /shop\/a\.shop.*shop\/b\.shop/);
  assert.equal(said('b', 'a'), said('a', 'b'));
});

test('what flush reports as changed and removed adds up to what is published', () => {
  fc.assert(
    fc.property(steps, (changes) => {
      const index = new MeshIndex(config);
      const seen = new Map<string, string>();
      const present = new Set<string>();
      for (const { item: next, remove, flush } of changes) {
        index.apply({ type: present.has(next.key) && remove ? 'deleted' : 'modified', kind: next.kind, object: next.object });
        if (remove) present.delete(next.key);
        else present.add(next.key);
        if (!flush) continue;
        const { address, authorization, waypoints } = index.flush();
        for (const { waypoint, ...tables } of waypoints) {
          for (const [typeUrl, { changed, removed }] of waypointTableNames.map((table) => [waypointTypes[table], tables[table]] as const)) {
            for (const { name, version } of changed) seen.set(`${waypoint} ${typeUrl} ${name}`, version);
            for (const name of removed) assert.ok(seen.delete(`${waypoint} ${typeUrl} ${name}`), `${name} was never sent to ${waypoint}`);
          }
        }
        for (const { name, typeUrl, version } of [...address.changed, ...authorization.changed]) seen.set(`${typeUrl} ${name}`, version);
        for (const name of address.removed)
          assert.ok(seen.delete(`type.googleapis.com/istio.workload.Address ${name}`), `${name} was never sent`);
        for (const name of authorization.removed)
          assert.ok(seen.delete(`type.googleapis.com/istio.security.Authorization ${name}`), `${name} was never sent`);
        assert.deepEqual(Object.fromEntries([...seen].sort()), published(index));
      }
    }),
    { numRuns: 60 },
  );
});

test('a service that was given a label and is deleted then is gone', () => {
  const index = new MeshIndex(config);
  index.apply({ type: 'added', kind: 'Service', object: make.service({ name: 'web' }) });
  const labelled = make.service({ name: 'web', labels: { 'istio.io/use-waypoint': 'wp' } });
  index.apply({ type: 'modified', kind: 'Service', object: labelled });
  index.flush();
  index.apply({ type: 'deleted', kind: 'Service', object: labelled });
  assert.deepEqual(index.flush().address.removed, ['shop/web.shop.svc.cluster.local']);
});

test('an entry that loses its name to a Service has no routes at its waypoint any more', () => {
  const index = new MeshIndex(config);
  const spec = { hosts: ['a.shop.svc.cluster.local'], ports: [{ name: 'web', number: 80, protocol: 'HTTP' }], resolution: 'DNS' };
  const entry = make.serviceEntry({ name: 'a', namespace: 'shop', labels: { 'istio.io/use-waypoint': 'wp' }, spec });
  const virtual = make.virtualService({
    name: 'a',
    namespace: 'shop',
    spec: { hosts: ['a'], http: [{ route: [{ destination: { host: 'a' } }] }] },
  });
  index.apply({ type: 'added', kind: 'ServiceEntry', object: entry });
  index.apply({ type: 'added', kind: 'VirtualService', object: virtual });
  index.flush();
  assert.equal(index.waypointResources('shop', 'wp').routes.length, 1);
  index.apply({ type: 'added', kind: 'Service', object: make.service({ name: 'a', namespace: 'shop' }) });
  index.flush();
  assert.deepEqual(index.waypointResources('shop', 'wp').routes, []);
});

test('a VirtualService says so when a route of the Gateway API takes its service from it', () => {
  const index = new MeshIndex(config);
  index.apply({ type: 'added', kind: 'Service', object: make.service({ name: 'a', labels: { 'istio.io/use-waypoint': 'wp' } }) });
  const http = [{ route: [{ destination: { host: 'a' } }] }];
  index.apply({ type: 'added', kind: 'VirtualService', object: make.virtualService({ name: 'a', spec: { hosts: ['a'], http } }) });
  index.flush();
  const route = make.httpRoute({ name: 'a', service: 'a', rules: [{ backendRefs: [{ name: 'a', port: 80 }] }] });
  index.apply({ type: 'added', kind: 'HTTPRoute', object: route });
  const written = index.flush().statuses.find(({ path }) => path.endsWith('/virtualservices/a/status'));
  assert.equal(written?.conditions[0]?.reason, 'Conflicted');
});
