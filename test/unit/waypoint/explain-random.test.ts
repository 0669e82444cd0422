/**
 * What a waypoint says that it would do with a request is what its own pipeline does with it: configurations made at random (EXPLAIN_SEED,
 * EXPLAIN_CASES), translated as istiod does, each call first explained and then made, with endpoints that answer at once. Exact codes, statuses
 * and endpoints; and where policies refuse, taking away the whole set of those that are named turns the outcome. The network, and ztunnels on the way, are for
 * test/mesh/explain.test.ts.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import yaml from 'js-yaml';
import { silentLog } from '../../../common/base/log.ts';
import { parseSpiffeId } from '../../../common/base/spiffe.ts';
import type { PolicySeen } from '../../../common/decision/explain.ts';
import type { RequestExplanation } from '../../../common/decision/explain-http.ts';
import type { HttpClientConnection } from '../../../common/http/connections.ts';
import { decodeAddress } from '../../../common/state/decode.ts';
import type { KindName } from '../../../istiod-lite/model/watched-kinds.ts';
import { EndpointPicker } from '../../../waypoint/cluster/picker.ts';
import { createBuckets, SharedBuckets } from '../../../waypoint/http/buckets.ts';
import type { RequestContext } from '../../../waypoint/http/context.ts';
import type { Delivered } from '../../../waypoint/http/deliver.ts';
import { pipeline, serveRequest } from '../../../waypoint/http/pipeline.ts';
import { resolveBinding } from '../../../waypoint/inbound/binding.ts';
import { targetOf } from '../../../waypoint/inbound/hbone.ts';
import { explainRequestCall } from '../../../waypoint/supervisor/explain.ts';
import { Configuration, type ConfigurationPush } from '../../../waypoint/worker/configuration.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import * as make from '../../support/kube-objects.ts';
import { PlainMesh } from '../../support/plain-mesh.ts';
import { type RandomCall, randomConfiguration } from '../../support/random-configurations.ts';
import { draws } from '../../support/seeded-random.ts';
import { TranslatedMesh } from '../../support/translated-mesh.ts';
import { FakeExchange } from '../../support/waypoint-fakes.ts';

const CASES = Number(process.env.EXPLAIN_CASES ?? 60);
const SEED = Number(process.env.EXPLAIN_SEED ?? (process.env.CI ? 1 : Date.now() % 1_000_000));
const NAMESPACES = ['r0', 'r1', 'plain'];
const TABLES = [
  ['labels', 'labels'],
  ['traffic', 'traffic'],
  ['jwtAuthentications', 'authentications'],
  ['httpAuthorizations', 'policies'],
  ['rateLimits', 'limits'],
  ['routes', 'routes'],
] as const;

/** Pods a and b of each namespace, and the waypoint wp of r0. @param without policies that are left out, `namespace/name` */
function meshOf(text: string, without: readonly string[] = []): TranslatedMesh {
  const mesh = new TranslatedMesh();
  mesh.set('GatewayClass', { metadata: { name: 'istio-waypoint' }, spec: { controllerName: 'istio.io/mesh-controller' } });
  mesh.set('Gateway', make.gateway({ name: 'wp', namespace: 'r0' }));
  for (const [i, namespace] of NAMESPACES.entries()) {
    mesh.set('Namespace', make.namespace(namespace));
    for (const [j, name] of ['a', 'b'].entries())
      mesh.set('Pod', make.pod({ name, namespace, ip: `10.0.${i}.${j + 1}`, serviceAccount: name, labels: { app: name, pair: 'yes' } }));
  }
  let services = 0;
  for (const document of yaml.loadAll(text) as { kind: KindName; metadata: { namespace: string; name: string }; spec: object }[]) {
    if (!document) continue;
    const { namespace, name } = document.metadata;
    if (document.kind === 'AuthorizationPolicy' && without.includes(`${namespace}/${name}`)) continue;
    const vip = { clusterIPs: [`10.96.0.${++services}`], ipFamilies: ['IPv4'] };
    mesh.set(document.kind as 'Service', document.kind === 'Service' ? { ...document, spec: { ...vip, ...document.spec } } : document);
  }
  return mesh.flush();
}

/** The waypoint's own parts over what it is told. */
class World {
  readonly view = new PlainMesh();
  readonly pushes: readonly ConfigurationPush[];
  readonly clock = new FakeClock();
  readonly buckets = new SharedBuckets(createBuckets(64), () => this.clock.monotonic() * 1000);
  readonly configuration = new Configuration(silentLog);
  readonly #random: () => number;

  constructor(mesh: TranslatedMesh, random: () => number) {
    this.#random = random;
    const told = mesh.index.waypointResources('r0', 'wp');
    for (const { bytes } of mesh.index.addresses()) this.view.put(decodeAddress(bytes));
    this.pushes = TABLES.map(([table, kind]) => ({ kind, resources: told[table], removed: [] }));
    for (const push of this.pushes) this.configuration.apply(push);
  }

  /** Of a service that is bound to the waypoint, and whose port carries requests. */
  bindingOf({ caller, target }: RandomCall) {
    const [host = '', port] = target.split(':');
    const service = this.view.servicesByHostname(`${host}.svc.cluster.local`)[0];
    const authority = `${service?.addresses[0]?.ip}:${port}`;
    const waypoint = { namespace: 'r0', host: 'wp.r0.svc', self: undefined };
    const binding = resolveBinding(this.view, { waypoint, network: '', authority, callerNamespace: caller.split('/')[0] });
    if ('refuse' in binding || !('service' in binding) || binding.service.appProtocols.get(binding.port) === 'TCP') return undefined;
    return { binding, authority };
  }

  explain({ caller, target, method, path, headers }: RandomCall, authority: string) {
    const [namespace, name] = caller.split('/');
    const explained = explainRequestCall(
      {
        view: this.view,
        configuration: this.pushes,
        buckets: this.buckets,
        clock: this.clock,
        settings: { network: '', podName: 'wp-1', podNamespace: 'r0', serviceAccount: 'wp', instanceIp: '10.9.9.9', host: 'wp.r0.svc' },
      },
      {
        authority,
        source: `${this.ipOf(caller)}:40000`,
        identity: `spiffe://cluster.local/ns/${namespace}/sa/${name}`,
        method,
        path,
        host: target,
        headers: Object.entries(headers).map(([field, value]) => ({ name: field, value })),
      },
    );
    assert.equal(explained.unknown, undefined);
    return { refusing: refusing(explained.policies), ends: endsOf(explained) };
  }

  async make({ caller, target, method, path, headers }: RandomCall, to: NonNullable<ReturnType<World['bindingOf']>>): Promise<string> {
    const { view, configuration, clock, buckets } = this;
    const random = this.#random;
    const [namespace, name] = caller.split('/');
    const principal = `spiffe://cluster.local/ns/${namespace}/sa/${name}`;
    const workload = view.workloadByAddress('', this.ipOf(caller));
    assert.ok(workload);
    const picker = new EndpointPicker({
      view,
      self: () => workload,
      balancing: 'round_robin',
      configuration,
      random,
      clock,
      workers: 1,
      events: { ejected: () => undefined },
    });
    const upstreams = { ready: () => undefined, open: () => Promise.resolve(answering()) };
    const unused = (): never => assert.fail('nothing is mirrored and nobody asked');
    const parts = { identity: principal, view, configuration, picker, upstreams, clock, random, log: silentLog, buckets };
    const handler = pipeline({
      ...parts,
      randomHex: (digits) => '01'.repeat(digits / 2),
      mirror: unused,
      hasOthers: () => false,
    });
    const fields = Object.entries(headers).flat();
    const exchange = new FakeExchange({ method, path, authority: target, fields });
    const { promise, resolve } = Promise.withResolvers<{ request: RequestContext; delivered: Delivered }>();
    const telemetry = {
      requestStarted: () => undefined,
      requestOver: (request: RequestContext, delivered: Delivered) => resolve({ request, delivered }),
    };
    const address = { ip: this.ipOf(caller), port: 40_000 };
    const connection = {
      caller: { address, identity: parseSpiffeId(principal), principal, workload, baggage: undefined },
      target: targetOf(to.binding),
      local: { ip: '10.9.9.9', port: 15_008 },
    };
    serveRequest({ handler, clock, telemetry, log: silentLog }, connection, exchange);
    const { request, delivered } = await promise;
    const { error, endpoint } = request;
    if (error && error.code !== 'FAULT_INJECTED') return `refused ${error.code}`;
    if (error || !endpoint) return `answered ${delivered.status}`;
    return `sent to ${endpoint.workload.namespace}/${endpoint.workload.name} port ${endpoint.port}`;
  }

  ipOf(caller: string): string {
    const [namespace = '', name] = caller.split('/');
    return `10.0.${NAMESPACES.indexOf(namespace)}.${name === 'a' ? 1 : 2}`;
  }
}

function endsOf({ allowed, code, routes }: RequestExplanation): Set<string> {
  if (!allowed) return new Set([`refused ${code}`]);
  return new Set(
    routes.map((route) => {
      const { via, pod } = route;
      if (via === 'refuse') return `refused ${route.code}`;
      if (via === 'answer') return `answered ${route.status}`;
      const dialled = via === 'hbone' ? route.authority : route.to;
      return `sent to ${pod?.namespace}/${pod?.name} port ${dialled?.split(':')[1]}`;
    }),
  );
}

/** Each DENY that matches, and where no ALLOW does all of those. */
function refusing(policies: readonly PolicySeen[]): string[] {
  const allows = policies.filter(({ action }) => action === 'ALLOW');
  const denies = policies.filter(({ action, matched }) => action === 'DENY' && matched);
  return [...denies, ...(allows.some(({ matched }) => matched) ? [] : allows)].map(({ policy }) => policy);
}

const answering = (): HttpClientConnection => ({
  request(_head, _source, listener) {
    const body = {
      into: (sink: { end(trailers: undefined): void }) => sink.end(undefined),
      resume: () => undefined,
      cancel: () => undefined,
    };
    queueMicrotask(() => listener.response({ status: 200, fields: [], bodyBytes: 0 }, body));
    return { body: { data: () => true, end: () => undefined, abort: () => undefined }, abort: () => undefined };
  },
  drain: () => undefined,
  destroy: () => undefined,
  openExchanges: 0,
  usable: true,
});

const limitOf = (service: string): string => `
---
apiVersion: warren.dev/v1alpha1
kind: RateLimitPolicy
metadata: { name: few, namespace: r0 }
spec: { targetRefs: [{ kind: Service, group: "", name: ${service} }], limits: [{ name: one, requests: 1, per: 1h, by: [source.namespace] }] }
`;

/** @returns what came of it, which is what was said; undefined where it is none of the waypoint's */
async function compared(world: World, call: RandomCall, about: string, text: string): Promise<{ happened?: string; refusing: string[] }> {
  const to = world.bindingOf(call);
  if (!to) return { refusing: [] };
  const { ends, refusing: named } = world.explain(call, to.authority);
  const happened = await world.make(call, to);
  assert.ok(ends.has(happened), `${about}: ${JSON.stringify(call)}: ${happened}, and explain said ${[...ends].join(' or ')}\n${text}`);
  return { happened, refusing: named };
}

test(`what a waypoint explains is what its pipeline does, in ${CASES} configurations of seed ${SEED}`, async (t) => {
  const random = draws(SEED);
  const seen = new Map<string, number>();
  const count = (kind: string): void => void seen.set(kind, (seen.get(kind) ?? 0) + 1);
  let turned = -1;
  for (let i = 0; i < CASES; i++) {
    const made = randomConfiguration(random, 'r0', 'r1', true);
    // Limits are counted across calls, so only here, where calls are made one after the other, is it known what is left of them.
    const configuration = { ...made, yaml: random() < 0.5 ? made.yaml + limitOf(random() < 0.5 ? 'a' : 'both') : made.yaml };
    const world = new World(meshOf(configuration.yaml), random);
    for (const call of configuration.calls.filter(({ caller }) => !caller.startsWith('plain/'))) {
      const { happened, refusing: named } = await compared(world, call, `configuration ${i + 1} of seed ${SEED}`, configuration.yaml);
      if (happened === undefined) continue;
      count(happened.replace(/ to .*/, ''));
      // The first of each configuration: each needs a translation of its own.
      if (happened !== 'refused POLICY_DENIED' || turned === i) continue;
      turned = i;
      assert.ok(named.length > 0);
      const without = new World(meshOf(configuration.yaml, named), random);
      const after = await compared(
        without,
        call,
        `configuration ${i + 1} of seed ${SEED}, without ${named.join(', ')}`,
        configuration.yaml,
      );
      assert.notEqual(
        after.happened,
        happened,
        `taking ${named.join(', ')} away changed nothing: ${JSON.stringify(call)}\n${configuration.yaml}`,
      );
      count('turned');
    }
  }
  t.diagnostic([...seen].map(([kind, count]) => `${count} ${kind}`).join(', '));
  // Of few there need not be one of each.
  if (CASES < 50) return;
  for (const kind of [
    'refused POLICY_DENIED',
    'refused TOKEN_INVALID',
    'refused NO_HEALTHY_UPSTREAM',
    'sent',
    'turned',
    'refused RATE_LIMITED',
  ])
    assert.ok((seen.get(kind) ?? 0) > 0, `none was ${kind}`);
});
