import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KubeObject } from '../../../common/client/kube-api.ts';
import { isDeployed, problemOf, renderWaypoint } from '../../../istiod-lite/gateway/render.ts';

const options = {
  image: 'warren/waypoint:1',
  discoveryAddress: 'istiod.istio-system.svc:15012',
  clusterId: 'Kubernetes',
  trustDomain: 'cluster.local',
};

const gateway = (metadata: Partial<KubeObject['metadata']> = {}, spec: object = {}): KubeObject => ({
  apiVersion: 'gateway.networking.k8s.io/v1',
  kind: 'Gateway',
  metadata: { name: 'wp', namespace: 'shop', uid: 'u1', ...metadata },
  spec: { gatewayClassName: 'istio-waypoint', listeners: [{ name: 'mesh', port: 15008, protocol: 'HBONE' }], ...spec },
});

interface Rendered {
  metadata: { name: string; labels: Record<string, string>; annotations: Record<string, string> };
  spec: {
    replicas: number;
    type: string;
    ports: { name: string; port: number; appProtocol: string }[];
    template: {
      metadata: { labels: Record<string, string> };
      spec: { serviceAccountName: string; containers: { image: string; securityContext: object }[] };
    };
  };
}
const render = (of: KubeObject, kind: string): Rendered =>
  renderWaypoint(of, options).find((object) => object.kind === kind) as unknown as Rendered;

test('everything that is made carries the Gateway as its owner and the labels that waypoints are found by', () => {
  const objects = renderWaypoint(gateway({ labels: { team: 'a', 'gateway.networking.k8s.io/x': 'y' } }), options);
  assert.deepEqual(
    objects.map(({ kind }) => kind),
    ['ServiceAccount', 'Deployment', 'Service', 'PodDisruptionBudget'],
  );
  for (const { metadata } of objects) {
    assert.equal(metadata.ownerReferences?.[0]?.uid, 'u1');
    assert.deepEqual(metadata.labels, {
      team: 'a',
      'gateway.networking.k8s.io/gateway-name': 'wp',
      'gateway.networking.k8s.io/gateway-class-name': 'istio-waypoint',
      'gateway.istio.io/managed': 'istio.io-mesh-controller',
    });
  }
});

test('a waypoint has two replicas, is not captured itself, and runs without rights', () => {
  const { spec } = render(gateway(), 'Deployment');
  assert.equal(spec.replicas, 2);
  assert.equal(spec.template.metadata.labels['istio.io/dataplane-mode'], 'none');
  assert.deepEqual(spec.template.spec.containers[0]?.securityContext, {
    allowPrivilegeEscalation: false,
    privileged: false,
    readOnlyRootFilesystem: true,
    runAsNonRoot: true,
    runAsUser: 1337,
    runAsGroup: 1337,
    capabilities: { drop: ['ALL'] },
  });
});

test('the Service has the status port and one port for each listener', () => {
  const { spec, metadata } = render(gateway(), 'Service');
  assert.deepEqual(
    spec.ports.map(({ name, port, appProtocol }) => [name, port, appProtocol]),
    [
      ['status-port', 15021, 'tcp'],
      ['mesh', 15008, 'hbone'],
    ],
  );
  assert.equal(spec.type, 'ClusterIP');
  assert.equal(metadata.annotations['networking.istio.io/traffic-distribution'], 'PreferClose');
});

test('names, account, service type and infrastructure metadata can be overridden, identity cannot', () => {
  const annotations = {
    'gateway.istio.io/name-override': 'other',
    'gateway.istio.io/service-account': 'sa',
    'networking.istio.io/service-type': 'NodePort',
  };
  const of = gateway(
    { annotations, labels: { team: 'a' } },
    { infrastructure: { labels: { team: 'b', 'gateway.istio.io/managed': 'me' } } },
  );
  assert.equal(render(of, 'Deployment').metadata.name, 'other');
  assert.equal(render(of, 'Deployment').spec.template.spec.serviceAccountName, 'sa');
  assert.equal(render(of, 'ServiceAccount').metadata.name, 'sa');
  assert.equal(render(of, 'Service').spec.type, 'NodePort');
  assert.equal(render(of, 'Service').metadata.labels.team, 'b');
  assert.equal(render(of, 'Service').metadata.labels['gateway.istio.io/managed'], 'istio.io-mesh-controller');
});

test('only Gateways of our class and revision without addresses of their own are deployed', () => {
  assert.equal(isDeployed(gateway(), 'default'), true);
  assert.equal(isDeployed(gateway({ labels: { 'istio.io/rev': 'default' } }), 'default'), true);
  assert.equal(isDeployed(gateway({ labels: { 'istio.io/rev': 'other' } }), 'default'), false);
  assert.equal(isDeployed(gateway({}, { gatewayClassName: 'istio' }), 'default'), false);
  assert.equal(isDeployed(gateway({}, { addresses: [{ type: 'Hostname', value: 'x' }] }), 'default'), false);
  assert.equal(isDeployed(gateway({ deletionTimestamp: '2026-01-01T00:00:00Z' }), 'default'), false);
});

test('parameters that are not read are a problem, not nothing', () => {
  assert.equal(problemOf(gateway()), undefined);
  const problem = problemOf(gateway({}, { infrastructure: { parametersRef: { group: '', kind: 'ConfigMap', name: 'more' } } }));
  assert.deepEqual(problem, { reason: 'InvalidParameters', message: 'infrastructure.parametersRef (ConfigMap more) is not supported' });
});
