import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Authorization } from '../../../common/codec/gen/authorization.ts';
import {
  Address,
  LoadBalancing_Mode,
  type Service,
  TunnelProtocol,
  type Workload,
  WorkloadStatus,
} from '../../../common/codec/gen/workload.ts';
import { outboundPolicyOf } from '../../../common/state/outbound-policy.ts';
import { requiredWaypointOf } from '../../../common/state/required-waypoint.ts';
import { MeshIndex } from '../../../istiod-lite/model/index.ts';
import type { WatchedKindName } from '../../../istiod-lite/model/watched-kinds.ts';
import * as make from '../../support/kube-objects.ts';

const config = {
  clusterId: 'Kubernetes',
  domain: 'cluster.local',
  rootNamespace: 'istio-system',
  trustDomain: 'cluster.local',
  network: '',
};

class Mesh {
  readonly index = new MeshIndex(config);

  set(kind: WatchedKindName, object: unknown): this {
    this.index.apply({ type: 'modified', kind, object });
    return this;
  }

  remove(kind: WatchedKindName, object: unknown): this {
    this.index.apply({ type: 'deleted', kind, object });
    return this;
  }

  /** Names that changed and were removed by the changes so far. */
  flush(): { changed: string[]; removed: string[] } {
    const { address, authorization } = this.index.flush();
    return {
      changed: [...address.changed, ...authorization.changed].map(({ name }) => name).sort(),
      removed: [...address.removed, ...authorization.removed].sort(),
    };
  }

  workload(uid: string): Workload {
    const { type } = Address.decode(this.index.address(uid)?.bytes ?? new Uint8Array());
    assert.equal(type?.$case, 'workload', `${uid} is published`);
    return type.value;
  }

  pod(name: string): Workload {
    return this.workload(`Kubernetes//Pod/shop/${name}`);
  }

  service(name: string): Service {
    const { type } = Address.decode(this.index.address(`shop/${name}.shop.svc.cluster.local`)?.bytes ?? new Uint8Array());
    assert.equal(type?.$case, 'service', `${name} is published`);
    return type.value;
  }

  policy(name: string): Authorization {
    const bytes = this.index.authorization(name)?.bytes;
    assert.ok(bytes, `${name} is published`);
    return Authorization.decode(bytes);
  }
}

const WEB = 'shop/web.shop.svc.cluster.local';

test('a pod is an endpoint of the services that select it, on the ports that its containers name', () => {
  const mesh = new Mesh().set('Pod', make.pod({ name: 'web-1', labels: { app: 'web' }, ports: { named: 9090 } })).set(
    'Service',
    make.service({
      name: 'web',
      selector: { app: 'web' },
      ports: [
        { name: 'http', port: 80, targetPort: 'named' },
        { name: 'x', port: 81, targetPort: 'nobody' },
      ],
    }),
  );
  assert.deepEqual(mesh.flush(), { changed: ['Kubernetes//Pod/shop/web-1', WEB].sort(), removed: [] });
  assert.deepEqual(mesh.pod('web-1').services[WEB]?.ports, [{ servicePort: 80, targetPort: 9090, appProtocol: 0 }]);
});

test('a change of a pod that means nothing to the mesh sends nothing', () => {
  const mesh = new Mesh().set('Pod', make.pod({ name: 'web-1' }));
  mesh.flush();
  const touched = { ...make.pod({ name: 'web-1' }), status: { ...(make.pod({ name: 'web-1' }).status as object), startTime: 'now' } };
  assert.deepEqual(mesh.set('Pod', touched).flush(), { changed: [], removed: [] });
});

test('a pod that goes away and comes back between two pushes was never away', () => {
  const mesh = new Mesh().set('Pod', make.pod({ name: 'web-1' }));
  mesh.flush();
  mesh.remove('Pod', make.pod({ name: 'web-1' })).set('Pod', make.pod({ name: 'web-1' }));
  assert.deepEqual(mesh.flush(), { changed: [], removed: [] });
});

test('a pod that is being deleted is unhealthy, and is removed once it is gone or has finished', () => {
  const pod = make.pod({ name: 'web-1' });
  const mesh = new Mesh().set('Pod', { ...pod, metadata: { ...(pod.metadata as object), deletionTimestamp: '2026-01-01T00:00:00Z' } });
  mesh.flush();
  assert.equal(mesh.pod('web-1').status, WorkloadStatus.UNHEALTHY);
  assert.deepEqual(mesh.set('Pod', make.pod({ name: 'web-1', phase: 'Succeeded' })).flush().removed, ['Kubernetes//Pod/shop/web-1']);
});

test('an address that moves from one pod to the next is one removal and one addition', () => {
  const mesh = new Mesh().set('Pod', make.pod({ name: 'old', ip: '10.0.0.9' }));
  mesh.flush();
  mesh.remove('Pod', make.pod({ name: 'old', ip: '10.0.0.9' })).set('Pod', make.pod({ name: 'new', ip: '10.0.0.9' }));
  assert.deepEqual(mesh.flush(), { changed: ['Kubernetes//Pod/shop/new'], removed: ['Kubernetes//Pod/shop/old'] });
});

test('a service whose selector changes lets go of the pods that it selected and takes the new ones', () => {
  const mesh = new Mesh()
    .set('Pod', make.pod({ name: 'a', labels: { app: 'a' } }))
    .set('Pod', make.pod({ name: 'b', labels: { app: 'b' } }))
    .set('Service', make.service({ name: 'web', selector: { app: 'a' } }));
  mesh.flush();
  const { changed } = mesh.set('Service', make.service({ name: 'web', selector: { app: 'b' } })).flush();
  assert.deepEqual(changed, ['Kubernetes//Pod/shop/a', 'Kubernetes//Pod/shop/b']);
  assert.deepEqual(Object.keys(mesh.pod('a').services), []);
  assert.deepEqual(Object.keys(mesh.pod('b').services), [WEB]);
});

test('a service without a selector has the pods that its slices name, for as long as they do', () => {
  const slice = make.endpointSlice({
    name: 'web-1',
    service: 'web',
    endpoints: [{ addresses: ['10.0.0.1'], targetRef: { kind: 'Pod', name: 'a', namespace: 'shop', uid: 'uid-of-a' } }],
  });
  const mesh = new Mesh().set('Pod', make.pod({ name: 'a' })).set('EndpointSlice', slice);
  mesh.flush();
  assert.deepEqual(mesh.set('Service', make.service({ name: 'web' })).flush().changed, ['Kubernetes//Pod/shop/a', WEB].sort());
  assert.deepEqual(Object.keys(mesh.pod('a').services), [WEB]);
  assert.deepEqual(mesh.remove('EndpointSlice', slice).flush().changed, ['Kubernetes//Pod/shop/a']);
  assert.deepEqual(Object.keys(mesh.pod('a').services), []);
});

test('a slice that names an earlier pod of the same name does not mean its successor', () => {
  const slice = make.endpointSlice({
    name: 'web-1',
    service: 'web',
    endpoints: [{ addresses: ['10.0.0.1'], targetRef: { kind: 'Pod', name: 'a', namespace: 'shop', uid: 'somebody-else' } }],
  });
  const mesh = new Mesh()
    .set('Service', make.service({ name: 'web' }))
    .set('EndpointSlice', slice)
    .set('Pod', make.pod({ name: 'a' }));
  mesh.flush();
  assert.deepEqual(Object.keys(mesh.pod('a').services), []);
});

test('endpoints that are no pods become workloads on a shared address, and go with their service', () => {
  const mesh = new Mesh().set('Service', make.service({ name: 'db' })).set(
    'EndpointSlice',
    make.endpointSlice({
      name: 'db-1',
      service: 'db',
      port: 5432,
      endpoints: [{ addresses: ['192.0.2.1'], conditions: { ready: false } }],
    }),
  );
  mesh.flush();
  const workload = mesh.workload('Kubernetes/discovery.k8s.io/EndpointSlice/shop/db-1/192.0.2.1');
  assert.equal(workload.networkMode, 1);
  assert.equal(workload.status, WorkloadStatus.UNHEALTHY);
  assert.deepEqual(workload.services['shop/db.shop.svc.cluster.local']?.ports, [{ servicePort: 80, targetPort: 5432, appProtocol: 0 }]);
  assert.deepEqual(mesh.remove('Service', make.service({ name: 'db' })).flush().removed, [
    'Kubernetes/discovery.k8s.io/EndpointSlice/shop/db-1/192.0.2.1',
    'shop/db.shop.svc.cluster.local',
  ]);
});

test("a node's labels are the locality of its pods and of no others", () => {
  const mesh = new Mesh().set('Pod', make.pod({ name: 'a', node: 'n1' })).set('Pod', make.pod({ name: 'b', node: 'n2' }));
  mesh.flush();
  assert.deepEqual(mesh.set('Node', make.node('n1', 'z1')).flush().changed, ['Kubernetes//Pod/shop/a']);
  assert.deepEqual(mesh.pod('a').locality, { region: 'r', zone: 'z1', subzone: '' });
});

test("a namespace's traffic distribution holds for services that have no word of their own", () => {
  const mesh = new Mesh()
    .set('Service', make.service({ name: 'web' }))
    .set('Service', make.service({ name: 'own', annotations: { 'networking.istio.io/traffic-distribution': 'Any' } }))
    .set('Namespace', make.namespace('shop', {}, { 'networking.istio.io/traffic-distribution': 'preferclose' }));
  mesh.flush();
  assert.equal(mesh.service('web').loadBalancing?.mode, LoadBalancing_Mode.FAILOVER);
  assert.equal(mesh.service('own').loadBalancing, undefined);
});

test('a policy with a selector is named by the workloads that it selects; one of the root namespace reaches into all', () => {
  const spec = { selector: { matchLabels: { app: 'a' } }, rules: [{}] };
  const mesh = new Mesh()
    .set('Pod', make.pod({ name: 'a', labels: { app: 'a' } }))
    .set('AuthorizationPolicy', make.authorizationPolicy({ name: 'own', spec }))
    .set('AuthorizationPolicy', make.authorizationPolicy({ name: 'far', namespace: 'legacy', spec }))
    .set('AuthorizationPolicy', make.authorizationPolicy({ name: 'all', namespace: 'istio-system', spec }))
    .set('AuthorizationPolicy', make.authorizationPolicy({ name: 'everybody', spec: { rules: [{}] } }));
  mesh.flush();
  assert.deepEqual(mesh.pod('a').authorizationPolicies, ['istio-system/all', 'shop/own']);
  assert.deepEqual(mesh.remove('AuthorizationPolicy', make.authorizationPolicy({ name: 'own', spec })).flush(), {
    changed: ['Kubernetes//Pod/shop/a'],
    removed: ['shop/own'],
  });
});

test('STRICT for the mesh makes every workload refer to the static policy; a namespace and a workload may say otherwise', () => {
  const mesh = new Mesh()
    .set('Pod', make.pod({ name: 'a', labels: { app: 'a' } }))
    .set('Pod', make.pod({ name: 'b', labels: { app: 'b' } }))
    .set('PeerAuthentication', make.peerAuthentication({ name: 'mesh', namespace: 'istio-system', mode: 'STRICT' }));
  mesh.flush();
  assert.deepEqual(mesh.pod('a').authorizationPolicies, ['istio-system/istio_converted_static_strict']);
  mesh.set('PeerAuthentication', make.peerAuthentication({ name: 'ns', mode: 'PERMISSIVE' })).flush();
  assert.deepEqual(mesh.pod('a').authorizationPolicies, []);
  mesh.set('PeerAuthentication', make.peerAuthentication({ name: 'b', mode: 'STRICT', selector: { app: 'b' } })).flush();
  assert.deepEqual(mesh.pod('a').authorizationPolicies, []);
  assert.deepEqual(mesh.pod('b').authorizationPolicies, ['istio-system/istio_converted_static_strict']);
});

test('port exceptions follow the mode that they are exceptions from', () => {
  const mesh = new Mesh()
    .set('Pod', make.pod({ name: 'a', labels: { app: 'a' } }))
    .set('PeerAuthentication', make.peerAuthentication({ name: 'a', selector: { app: 'a' }, ports: { 8080: 'PERMISSIVE' } }));
  mesh.flush();
  assert.deepEqual(mesh.pod('a').authorizationPolicies, []);
  const strict = make.peerAuthentication({ name: 'mesh', namespace: 'istio-system', mode: 'STRICT' });
  mesh.set('PeerAuthentication', strict).flush();
  assert.deepEqual(mesh.pod('a').authorizationPolicies, ['shop/converted_peer_authentication_a']);
  assert.deepEqual(mesh.policy('shop/converted_peer_authentication_a').groups.length, 1);
  assert.deepEqual(mesh.remove('PeerAuthentication', strict).flush().removed, ['shop/converted_peer_authentication_a']);
});

test('a service that names a waypoint which is not there is published with its hostname, so that it is refused', () => {
  const mesh = new Mesh().set('Service', make.service({ name: 'web', labels: { 'istio.io/use-waypoint': 'wp' } }));
  mesh.flush();
  const absent = {
    destination: { $case: 'hostname', value: { namespace: 'shop', hostname: 'wp.shop.svc.cluster.local' } },
    hboneMtlsPort: 15008,
  };
  assert.deepEqual(mesh.service('web').waypoint, absent);
  mesh.set('Gateway', make.gateway({ name: 'wp', ready: false })).flush();
  assert.deepEqual(mesh.service('web').waypoint, absent);
});

test("a namespace's waypoint for services leaves pods alone, whether it is there or not", () => {
  const mesh = new Mesh()
    .set('Namespace', make.namespace('shop', { 'istio.io/use-waypoint': 'wp' }))
    .set('Pod', make.pod({ name: 'a' }))
    .set('Service', make.service({ name: 'web' }));
  mesh.flush();
  assert.ok(mesh.service('web').waypoint);
  assert.equal(mesh.pod('a').waypoint, undefined);
  mesh.set('Gateway', make.gateway({ name: 'wp', labels: { 'istio.io/waypoint-for': 'service' } })).flush();
  assert.equal(mesh.pod('a').waypoint, undefined);
  mesh.set('Gateway', make.gateway({ name: 'wp', labels: { 'istio.io/waypoint-for': 'all' } })).flush();
  assert.ok(mesh.pod('a').waypoint);
});

test("a waypoint's own pods never wait for their waypoint", () => {
  const labels = { 'gateway.networking.k8s.io/gateway-name': 'wp' };
  const mesh = new Mesh()
    .set('Namespace', make.namespace('shop', { 'istio.io/use-waypoint': 'wp' }))
    .set('Gateway', make.gateway({ name: 'wp', ready: false, labels: { 'istio.io/waypoint-for': 'all' } }))
    .set('Pod', make.pod({ name: 'wp-1', labels }))
    .set('Pod', make.pod({ name: 'web' }));
  mesh.flush();
  assert.equal(mesh.pod('wp-1').waypoint, undefined);
  assert.ok(mesh.pod('web').waypoint, 'others are refused until it is ready');
});

test('one hostname has one owner in each namespace, and a Service goes before a ServiceEntry', () => {
  const entry = make.serviceEntry({
    name: 'squatter',
    createdAt: '2020-01-01T00:00:00Z',
    spec: { hosts: ['web.shop.svc.cluster.local'], addresses: ['240.0.0.1'], resolution: 'STATIC', ports: [{ name: 'http', number: 80 }] },
  });
  const mesh = new Mesh().set('ServiceEntry', entry).set('Service', make.service({ name: 'web' }));
  mesh.flush();
  assert.equal(mesh.service('web').name, 'web');
  mesh.remove('Service', make.service({ name: 'web' })).flush();
  assert.equal(mesh.service('web').name, 'squatter');
});

test('what is wrong with an object is told once and kept until the object is better', () => {
  const bad = make.authorizationPolicy({
    name: 'typo',
    spec: { rules: [{ from: [{ source: { ipBlocks: ['10.0.0.0/8', '10.0.0.0/33'] } }] }] },
  });
  const mesh = new Mesh().set('AuthorizationPolicy', bad);
  assert.deepEqual(mesh.index.flush().problems, [
    { object: 'AuthorizationPolicy shop/typo', message: 'ipBlocks: "10.0.0.0/33" cannot be read' },
  ]);
  assert.deepEqual(mesh.set('AuthorizationPolicy', bad).index.flush().problems, []);
  assert.equal([...mesh.index.problems()].length, 1);
  mesh.set('AuthorizationPolicy', make.authorizationPolicy({ name: 'typo', spec: { rules: [{}] } })).flush();
  assert.equal([...mesh.index.problems()].length, 0);
});

test('resources carry the addresses by which they may be asked for', () => {
  const mesh = new Mesh()
    .set('Pod', make.pod({ name: 'a', ip: 'fd00::1' }))
    .set(
      'ServiceEntry',
      make.serviceEntry({ name: 'e', spec: { hosts: ['e.example.com'], addresses: ['240.1.0.0/30'], resolution: 'NONE' } }),
    );
  mesh.flush();
  assert.deepEqual(mesh.index.address('Kubernetes//Pod/shop/a')?.aliases, ['/fd00::1']);
  assert.deepEqual(mesh.index.address('shop/e.example.com')?.aliases, ['/240.1.0.0/30']);
});

test('a flush with a limit translates as many workloads and says that there are more; policies never wait', () => {
  const mesh = new Mesh();
  for (const name of ['a', 'b', 'c']) mesh.set('Pod', make.pod({ name }));
  mesh.set('PeerAuthentication', make.peerAuthentication({ name: 'mesh', namespace: 'istio-system', mode: 'STRICT' }));
  const first = mesh.index.flush(2);
  assert.equal(first.address.changed.length, 2);
  assert.equal(first.authorization.changed.length, 1);
  assert.equal(first.more, true);
  const second = mesh.index.flush(2);
  assert.equal(second.address.changed.length, 1);
  assert.equal(second.more, false);
});

test('only a pod that the node agent has enrolled is reached through a tunnel', () => {
  const mesh = new Mesh().set('Pod', make.pod({ name: 'in' })).set('Pod', make.pod({ name: 'out', enrolled: false }));
  mesh.set('Pod', make.pod({ name: 'pending', enrolled: false, annotations: { 'ambient.istio.io/redirection': 'pending' } }));
  mesh.set('Pod', make.pod({ name: 'own', enrolled: false, labels: { 'networking.istio.io/tunnel': 'http' } }));
  mesh.flush();
  assert.deepEqual(
    ['in', 'out', 'pending', 'own'].map((name) => mesh.pod(name).tunnelProtocol),
    [TunnelProtocol.HBONE, TunnelProtocol.NONE, TunnelProtocol.NONE, TunnelProtocol.HBONE],
  );
  assert.equal(mesh.pod('own').nativeTunnel, true);
});

test('an endpoint of which nobody says whether it is ready is ready', () => {
  const slice = make.endpointSlice({
    name: 'db-1',
    service: 'db',
    endpoints: [{ addresses: ['192.0.2.1'] }, { addresses: ['192.0.2.2'], conditions: { ready: null } }],
  });
  const mesh = new Mesh().set('Service', make.service({ name: 'db' })).set('EndpointSlice', slice);
  mesh.flush();
  const status = (ip: string) => mesh.workload(`Kubernetes/discovery.k8s.io/EndpointSlice/shop/db-1/${ip}`).status;
  assert.deepEqual([status('192.0.2.1'), status('192.0.2.2')], [WorkloadStatus.HEALTHY, WorkloadStatus.HEALTHY]);
});

test('a label that means nothing is a problem of its object', () => {
  const mesh = new Mesh()
    .set('Namespace', make.namespace('shop', { 'istio.io/dataplane-mode': 'Ambient' }))
    .set('Pod', make.pod({ name: 'a', labels: { 'istio.io/dataplane-mode': 'no' } }))
    .set('Gateway', make.gateway({ name: 'wp', labels: { 'istio.io/waypoint-for': 'everything' } }));
  assert.deepEqual(
    mesh.index.flush().problems.map(({ object }) => object),
    ['Namespace shop', 'Pod shop/a', 'Gateway shop/wp'],
  );
});

test("a namespace's outboundTrafficPolicy is on its pods, and a word that is none of Istio's means the stricter one", () => {
  const policyOf = (annotations: Record<string, string>) => {
    const mesh = new Mesh();
    mesh.set('Namespace', make.namespace('shop', {}, annotations)).set('Pod', make.pod({ name: 'client' }));
    mesh.flush();
    return outboundPolicyOf(mesh.pod('client').extensions);
  };
  const name = 'warren.dev/outbound-traffic-policy';
  assert.equal(policyOf({}), undefined);
  assert.equal(policyOf({ [name]: 'ALLOW_ANY' }), 'ALLOW_ANY');
  assert.equal(policyOf({ [name]: 'REGISTRY_ONLY' }), 'REGISTRY_ONLY');
  assert.equal(policyOf({ [name]: 'registry-only' }), 'REGISTRY_ONLY');
});

test("who requires a waypoint: the pod's word before its namespace's, ports of both left out, what cannot be read the stricter way", () => {
  const name = 'warren.dev/require-waypoint';
  const ports = `${name}-except-ports`;
  const requiredBy = (ofPod: Record<string, string>, ofNamespace: Record<string, string> = {}, labels: Record<string, string> = {}) => {
    const mesh = new Mesh();
    mesh.set('Namespace', make.namespace('shop', {}, ofNamespace));
    mesh.set('Pod', make.pod({ name: 'server', annotations: ofPod, labels }));
    const { problems } = mesh.index.flush();
    mesh.flush();
    return { required: requiredWaypointOf(mesh.pod('server').extensions), problems: problems.map(({ message }) => message) };
  };
  assert.equal(requiredBy({}).required, undefined);
  assert.deepEqual(requiredBy({ [name]: 'true', [ports]: '9090, 15020' }).required, { always: true, exceptPorts: [9090, 15020] });
  assert.deepEqual(requiredBy({ [ports]: '9090' }, { [name]: 'true', [ports]: '80' }).required, { always: false, exceptPorts: [80, 9090] });
  assert.equal(requiredBy({ [name]: 'false' }, { [name]: 'true' }).required, undefined);
  const typo = requiredBy({ [name]: 'yes', [ports]: 'metrics' });
  assert.deepEqual(typo.required, { always: true, exceptPorts: [] });
  assert.equal(typo.problems.length, 2);
  const waypoint = requiredBy({}, { [name]: 'true' }, { 'gateway.networking.k8s.io/gateway-name': 'waypoint' });
  assert.equal(waypoint.required, undefined, 'waypoints are dialled by everybody');
});
