/**
 * A whole istiod before objects that make no sense, each kind of nonsense at once: what is wrong stands in the object's status, in the log and in the
 * metrics, by its name, and a proxy that is connected goes on being told what is new.
 */
import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { networkInterfaces } from 'node:os';
import { type TestContext, test } from 'node:test';
import { ADDRESS, runPod, startTestIstiod } from '../../support/istiod.ts';
import * as make from '../../support/kube-objects.ts';
import { until } from '../../support/until.ts';

type Json = Record<string, unknown>;

const GATEWAYS = '/apis/gateway.networking.k8s.io/v1/gateways';
const POLICIES = '/apis/security.istio.io/v1/authorizationpolicies';
const TOKENS = '/apis/security.istio.io/v1/requestauthentications';
const VIRTUALS = '/apis/networking.istio.io/v1/virtualservices';
const ENTRIES = '/apis/networking.istio.io/v1/serviceentries';
const PEERS = '/apis/security.istio.io/v1/peerauthentications';
const CONFIG_MAPS = '/api/v1/configmaps';

const WEB = { group: '', kind: 'Service', name: 'web' };
const MEGABYTE = 'x'.repeat(1 << 20);

const deny = (name: string, spec: Json): Json => make.authorizationPolicy({ name, spec: { action: 'DENY', ...spec } });
const virtual = (name: string, spec: Json): Json => make.virtualService({ name, spec });
const matching = (regex: string): Json => ({
  hosts: ['api'],
  http: [{ match: [{ uri: { regex } }], route: [{ destination: { host: 'api' } }] }],
});
const gateway = (name: string, spec: Json = {}): Json => ({
  metadata: { name, namespace: 'shop', generation: 1 },
  spec: { gatewayClassName: 'istio-waypoint', listeners: [{ name: 'mesh', port: 15008, protocol: 'HBONE' }], ...spec },
});

interface Row {
  readonly what: string;
  readonly put: readonly (readonly [collection: string, object: Json])[];
  /** `Kind namespace/name`, as log and metrics have it. */
  readonly object: string;
  /** What its status says, where the kind has one. */
  readonly status?: RegExp;
}

function rows(keysAt: string): Row[] {
  const parameters = { infrastructure: { parametersRef: { group: '', kind: 'ConfigMap', name: 'huge' } } };
  const delegating = (to: string): Json => ({ http: [{ delegate: { name: to } }] });
  return [
    {
      what: 'a range that is none',
      put: [[POLICIES, deny('range', { rules: [{ from: [{ source: { ipBlocks: ['10.0.0.0/33'] } }] }] })]],
      object: 'AuthorizationPolicy shop/range',
      status: /10\.0\.0\.0\/33/,
    },
    {
      what: 'a range with the length of the other family',
      put: [
        [ENTRIES, make.serviceEntry({ name: 'family', spec: { hosts: ['a.example'], addresses: ['10.0.0.0/64'], resolution: 'NONE' } })],
      ],
      object: 'ServiceEntry shop/family',
      status: /10\.0\.0\.0\/64/,
    },
    {
      what: 'a mode that is none',
      put: [[PEERS, { metadata: { name: 'mode', namespace: 'shop' }, spec: { mtls: { mode: 'SOMETIMES' } } }]],
      object: 'PeerAuthentication shop/mode',
      status: /SOMETIMES/,
    },
    {
      what: 'an expression that cannot be matched in a bounded time',
      put: [[VIRTUALS, virtual('expression', matching('(a+)+\\1$'))]],
      object: 'VirtualService shop/expression',
      status: /expression|regex/i,
    },
    {
      what: 'a circle of delegation',
      put: [
        [VIRTUALS, virtual('circle', { hosts: ['web'], http: [{ match: [{ uri: { prefix: '/a' } }], delegate: { name: 'one' } }] })],
        [VIRTUALS, virtual('one', delegating('two'))],
        [VIRTUALS, virtual('two', delegating('one'))],
      ],
      object: 'VirtualService shop/circle',
      status: /delegates again/,
    },
    {
      what: 'many policies of one workload, and one of them wrong',
      put: Array.from({ length: 40 }, (_, i) => [
        POLICIES,
        deny(`many-${i}`, {
          selector: { matchLabels: { app: 'web' } },
          rules: [{ to: [{ operation: { ports: [i === 20 ? 'eighty' : String(1000 + i)] } }] }],
        }),
      ]),
      object: 'AuthorizationPolicy shop/many-20',
      status: /eighty/,
    },
    {
      what: 'keys at a server that hangs',
      put: [
        [
          TOKENS,
          { metadata: { name: 'hangs', namespace: 'shop' }, spec: { targetRefs: [WEB], jwtRules: [{ issuer: 'a', jwksUri: keysAt }] } },
        ],
      ],
      object: 'RequestAuthentication shop/hangs',
      status: /cannot be fetched/,
    },
    {
      what: 'a megabyte of parameters for a waypoint',
      put: [
        [
          CONFIG_MAPS,
          { metadata: { name: 'huge', namespace: 'shop' }, data: { deployment: `metadata: { annotations: { a: ${MEGABYTE} } }` } },
        ],
        [GATEWAYS, gateway('odd', parameters)],
      ],
      object: 'Gateway shop/odd',
      status: /longer than/,
    },
    {
      what: 'a megabyte of configuration for the mesh',
      put: [[CONFIG_MAPS, { metadata: { name: 'istio', namespace: 'istio-system' }, data: { mesh: `noSuchField: ${MEGABYTE}\n` } }]],
      object: 'ConfigMap istio-system/istio',
    },
  ];
}

/** An address of this machine, as those of loopback are never asked, whose server says nothing. */
async function hangingServer(t: TestContext): Promise<string> {
  const address = Object.values(networkInterfaces()).flatMap((all = []) =>
    all.flatMap((one) => (one.internal || one.family !== 'IPv4' ? [] : one.address)),
  )[0];
  const server = createServer((socket) => void socket.on('error', () => undefined));
  t.after(() => server.close());
  await new Promise<void>((resolve) => server.listen(0, resolve));
  const bound = server.address();
  return `http://${address ?? '192.0.2.1'}:${typeof bound === 'object' ? bound?.port : 0}/keys`;
}

test('whatever makes no sense is named in status, log and metrics, and proxies go on being told what is new', async (t) => {
  const all = rows(await hangingServer(t));
  const mesh = await startTestIstiod(t, {
    settings: { keyTimeoutMs: 200 },
    prepare(kube) {
      kube.put('/apis/gateway.networking.k8s.io/v1/gatewayclasses', {
        metadata: { name: 'istio-waypoint' },
        spec: { controllerName: 'istio.io/mesh-controller' },
      });
      kube.put(GATEWAYS, make.gateway({ name: 'wp' }) as never);
      kube.put('/api/v1/services', {
        metadata: { name: 'web', namespace: 'shop', labels: { 'istio.io/use-waypoint': 'wp' } },
        spec: { clusterIP: '10.2.0.1', clusterIPs: ['10.2.0.1'], selector: { app: 'web' }, ports: [{ name: 'http', port: 80 }] },
      });
      kube.put('/api/v1/services', {
        metadata: { name: 'wp', namespace: 'shop' },
        spec: { clusterIP: '10.2.0.2', clusterIPs: ['10.2.0.2'], ports: [{ port: 15008 }] },
      });
      kube.put('/api/v1/services', {
        metadata: { name: 'api', namespace: 'shop', labels: { 'istio.io/use-waypoint': 'wp' } },
        spec: { clusterIP: '10.2.0.3', clusterIPs: ['10.2.0.3'], ports: [{ name: 'http', port: 80 }] },
      });
      runPod(kube, { name: 'web-1', ip: '10.1.0.1' });
    },
  });
  const ztunnel = mesh.stream('ztunnel-node1');
  ztunnel.subscribe(ADDRESS);
  ztunnel.ack(await ztunnel.next());
  for (const { put } of all) for (const [collection, object] of put) mesh.kube.put(collection, object as never);
  for (const { what, put, object, status } of all) {
    const [collection = ''] = put.find(([, { metadata }]) => object.endsWith(`/${(metadata as { name: string }).name}`)) ?? [];
    const logged = (): boolean => mesh.log.entries.some((line) => line.message === 'object has a problem' && line.fields.object === object);
    await until(logged).catch(() => assert.fail(`${what}: no line names ${object}`));
    assert.ok((await mesh.http('/metrics')).includes(`warren_object_problems{object="${object}"} `), `${what}: no series names ${object}`);
    const said = (): string => JSON.stringify(mesh.kube.get(collection, object.slice(object.indexOf(' ') + 1))?.status);
    if (status) await until(() => status.test(said())).catch(() => assert.fail(`${what}: the status of ${object} is ${said()}`));
  }
  runPod(mesh.kube, { name: 'web-2', ip: '10.1.0.2' });
  for (let told: string[] = []; !told.includes('Kubernetes//Pod/shop/web-2'); ) {
    const next = await ztunnel.next();
    ztunnel.ack(next);
    told = next.resources.map(({ name }) => name);
  }
  assert.deepEqual(
    mesh.log.entries.filter(({ level }) => level === 'error'),
    [],
  );
});
