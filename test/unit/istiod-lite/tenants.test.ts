/**
 * Two tenants of one mesh: `bank`, and `mallory`, who may write every object of namespace `mallory` and nothing else. Each test is something that
 * mallory tries; what counts is where a client of the bank is sent then, decided with the functions that ztunnels decide with.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chooseServiceByAddress, chooseServiceByHostname } from '../../../common/decision/choose-service.ts';
import { decodeAddress } from '../../../common/state/decode.ts';
import type { MeshModelConfig } from '../../../istiod-lite/model/config.ts';
import { MeshIndex } from '../../../istiod-lite/model/index.ts';
import type { WatchedKindName } from '../../../istiod-lite/model/watched-kinds.ts';
import * as make from '../../support/kube-objects.ts';
import { PlainMesh } from '../../support/plain-mesh.ts';

type Json = Record<string, unknown>;

class Tenants {
  readonly index: MeshIndex;
  readonly #conditions = new Map<string, string>();

  /** The bank has a Service with a pod behind it and calls a partner outside; the API server is a Service of namespace default. */
  constructor(grantedHosts: readonly string[] = []) {
    const config: MeshModelConfig = {
      clusterId: 'Kubernetes',
      domain: 'cluster.local',
      rootNamespace: 'istio-system',
      trustDomain: 'cluster.local',
      network: '',
      guardClaims: true,
      grantedHosts,
    };
    this.index = new MeshIndex(config);
    this.apply('Service', make.service({ name: 'kubernetes', namespace: 'default', vip: '10.96.0.1' }));
    this.apply('Service', make.service({ name: 'accounts', namespace: 'bank', vip: '10.96.0.9', selector: { app: 'accounts' } }));
    this.apply('Pod', make.pod({ name: 'accounts-1', namespace: 'bank', ip: '10.1.1.1', labels: { app: 'accounts' } }));
    this.apply(
      'ServiceEntry',
      make.serviceEntry({ name: 'partner', namespace: 'bank', spec: entrySpec('partner.example', ['192.0.2.10']) }),
    );
  }

  apply(kind: WatchedKindName, object: unknown): this {
    this.index.apply({ type: 'added', kind, object });
    return this;
  }

  /** What mallory writes. */
  mallory(spec: Json, name = 'evil'): this {
    return this.apply('ServiceEntry', make.serviceEntry({ name, namespace: 'mallory', spec }));
  }

  #view(): PlainMesh {
    for (const { kind, namespace, name, conditions } of this.index.flush().statuses)
      this.#conditions.set(`${kind} ${namespace}/${name}`, conditions.map(({ type, message }) => `${type}: ${message}`).join('\n'));
    const view = new PlainMesh();
    for (const { bytes } of this.index.addresses()) view.put(decodeAddress(bytes));
    return view;
  }

  /** Whose service a client of a namespace reaches, by name or by address: `namespace/hostname`. */
  reaches(client: string, destination: string): string | undefined {
    const view = this.#view();
    const isAddress = /^[\d.]+$/.test(destination);
    const service = isAddress ? chooseServiceByAddress(view, '', destination, client) : chooseServiceByHostname(view, destination, client);
    return service && `${service.namespace}/${service.hostname}`;
  }

  /** Who answers at an address that no service has. */
  workload(address: string): string | undefined {
    const workload = this.#view().workloadByAddress('', address);
    return workload && `${workload.namespace}/${workload.name}`;
  }

  conditions(object: string): string {
    this.#view();
    return this.#conditions.get(object) ?? '';
  }
}

const entrySpec = (host: string, addresses: readonly string[] = [], more: Json = {}): Json => ({
  hosts: [host],
  addresses,
  ports: [{ number: 443, name: 'https', protocol: 'TLS' }],
  resolution: 'STATIC',
  endpoints: [{ address: '203.0.113.66' }],
  ...more,
});

const BANKS_PARTNER = 'bank/partner.example';
const ACCOUNTS = 'accounts.bank.svc.cluster.local';

for (const [what, spec, destination, expected] of [
  ["the name of the bank's Service", entrySpec(ACCOUNTS), ACCOUNTS, `bank/${ACCOUNTS}`],
  ['all names of the cluster', entrySpec('*.cluster.local'), ACCOUNTS, `bank/${ACCOUNTS}`],
  ["the address of the bank's Service", entrySpec('evil.example', ['10.96.0.9']), '10.96.0.9', `bank/${ACCOUNTS}`],
  ['a range around it', entrySpec('evil.example', ['10.96.0.0/16']), '10.96.0.9', `bank/${ACCOUNTS}`],
  ["the API server's name", entrySpec('kubernetes.default.svc.cluster.local'), '10.96.0.1', 'default/kubernetes.default.svc.cluster.local'],
  ["the API server's address", entrySpec('evil.example', ['10.96.0.1']), '10.96.0.1', 'default/kubernetes.default.svc.cluster.local'],
  ["the machine's metadata server", entrySpec('evil.example', ['169.254.169.254']), '169.254.169.254', undefined],
  ['a host that the bank has an entry for', entrySpec('partner.example'), 'partner.example', BANKS_PARTNER],
  ["the address of the bank's entry", entrySpec('evil.example', ['192.0.2.10']), '192.0.2.10', BANKS_PARTNER],
  ['a host outside that nobody has an entry for', entrySpec('www.example'), 'www.example', undefined],
  ['addresses outside', entrySpec('evil.example', ['198.51.100.0/24']), '198.51.100.7', undefined],
  ["the address of the bank's pod", entrySpec('evil.example', ['10.1.1.1']), '10.1.1.1', undefined],
] as const) {
  test(`a tenant who claims ${what} changes nothing for clients of the other one`, () => {
    const tenants = new Tenants();
    assert.equal(tenants.reaches('bank', destination), expected, 'before');
    tenants.mallory(spec);
    assert.equal(tenants.reaches('bank', destination), expected);
  });
}

test("a tenant's entry for a host outside holds for its own clients, and says so where it asks for more", () => {
  const tenants = new Tenants().mallory(entrySpec('www.example', ['198.51.100.7']));
  assert.equal(tenants.reaches('mallory', 'www.example'), 'mallory/www.example');
  assert.equal(tenants.reaches('mallory', '198.51.100.7'), 'mallory/www.example');
  assert.doesNotMatch(tenants.conditions('ServiceEntry mallory/evil'), /ClaimRefused/);
  tenants.mallory(entrySpec('other.example', [], { exportTo: ['*'] }), 'wide');
  assert.match(tenants.conditions('ServiceEntry mallory/wide'), /ClaimRefused: .*exportTo \*/);
});

test('what the administrator grants holds for everybody; what the root namespace writes does too', () => {
  const granted = new Tenants(['mallory=www.example']).mallory(entrySpec('www.example'));
  assert.equal(granted.reaches('bank', 'www.example'), 'mallory/www.example');
  const all = new Tenants(['mallory=*']).mallory(entrySpec('www.example')).mallory(entrySpec('*.cluster.local'), 'cluster');
  assert.equal(all.reaches('bank', 'www.example'), 'mallory/www.example');
  assert.match(all.conditions('ServiceEntry mallory/cluster'), /ClaimRefused/, 'every host is every host outside');
  const root = new Tenants().apply(
    'ServiceEntry',
    make.serviceEntry({ name: 'e', namespace: 'istio-system', spec: entrySpec('www.example') }),
  );
  assert.equal(root.reaches('bank', 'www.example'), 'istio-system/www.example');
});

test("a tenant's entry or host with the address of the other one's pod does not take its place", () => {
  const tenants = new Tenants().mallory(entrySpec('evil.example', [], { endpoints: [{ address: '10.1.1.1' }] }));
  assert.equal(tenants.workload('10.1.1.1'), 'bank/accounts-1');
  tenants.apply('WorkloadEntry', make.workloadEntry({ name: 'evil', namespace: 'mallory', spec: { address: '10.1.1.1' } }));
  assert.equal(tenants.workload('10.1.1.1'), 'bank/accounts-1');
});

test("a tenant's VirtualService, DestinationRule or route for the other one's Service is told to no waypoint of the other one", () => {
  const tenants = new Tenants();
  tenants.apply('GatewayClass', {
    metadata: { name: 'istio-waypoint', generation: 1 },
    spec: { controllerName: 'istio.io/mesh-controller' },
  });
  tenants.apply('Namespace', make.namespace('bank', { 'istio.io/use-waypoint': 'wp' }));
  tenants.apply('Gateway', make.gateway({ name: 'wp', namespace: 'bank' }));
  const http = [{ route: [{ destination: { host: 'evil.mallory.svc.cluster.local' } }] }];
  tenants.apply('VirtualService', make.virtualService({ name: 'v', namespace: 'mallory', spec: { hosts: [ACCOUNTS], http } }));
  const trafficPolicy = { connectionPool: { tcp: { maxConnections: 1 } } };
  tenants.apply('DestinationRule', make.destinationRule({ name: 'd', namespace: 'mallory', spec: { host: ACCOUNTS, trafficPolicy } }));
  const parents = [{ group: '', kind: 'Service', namespace: 'bank', name: 'accounts' }];
  tenants.apply(
    'HTTPRoute',
    make.httpRoute({ name: 'r', namespace: 'mallory', parents, rules: [{ backendRefs: [{ name: 'evil', port: 80 }] }] }),
  );
  const verdict = tenants.conditions('VirtualService mallory/v');
  const { routes, traffic } = tenants.index.waypointResources('bank', 'wp');
  assert.deepEqual([...routes, ...traffic], []);
  assert.match(verdict, /waypoints read objects of the namespace of .* and of their own only/);
});
