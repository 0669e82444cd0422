import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KubeObject } from '../../../common/client/kube-api.ts';
import { readParameters } from '../../../istiod-lite/gateway/parameters.ts';
import { isDeployed, renderWaypoint } from '../../../istiod-lite/gateway/render.ts';

const options = {
  image: 'warren/waypoint:1',
  discoveryAddress: 'istiod.istio-system.svc:15012',
  clusterId: 'Kubernetes',
  trustDomain: 'cluster.local',
  revision: 'default',
  network: '',
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
      spec: {
        serviceAccountName: string;
        automountServiceAccountToken?: boolean;
        containers: { image: string; securityContext: object }[];
      };
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
  assert.equal(spec.template.spec.automountServiceAccountToken, false, "the API server's token is not for it");
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

test('the pods of a waypoint fit PodSecurity restricted, field by field', () => {
  const { spec } = render(gateway(), 'Deployment').spec.template as { spec: Record<string, unknown> };
  for (const host of ['hostNetwork', 'hostPID', 'hostIPC']) assert.ok(!spec[host], host);
  const podLevel = spec.securityContext as { seccompProfile?: { type: string }; sysctls?: unknown };
  assert.equal(podLevel.seccompProfile?.type, 'RuntimeDefault');
  assert.equal(podLevel.sysctls, undefined);
  // https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
  const allowed = ['configMap', 'csi', 'downwardAPI', 'emptyDir', 'ephemeral', 'persistentVolumeClaim', 'projected', 'secret'];
  for (const { name, ...volume } of spec.volumes as Record<string, unknown>[])
    assert.ok(
      Object.keys(volume).every((kind) => allowed.includes(kind)),
      `volume ${String(name)}`,
    );
  const containers = [...(spec.containers as unknown[]), ...((spec.initContainers ?? []) as unknown[])];
  for (const each of containers as { ports?: Record<string, unknown>[]; securityContext: Record<string, unknown> }[]) {
    const { capabilities, runAsUser, ...rights } = each.securityContext;
    assert.deepEqual(capabilities, { drop: ['ALL'] });
    assert.notEqual(runAsUser, 0);
    assert.deepEqual([rights.allowPrivilegeEscalation, rights.privileged, rights.runAsNonRoot], [false, false, true]);
    assert.equal(rights.procMount, undefined);
    assert.ok((each.ports ?? []).every(({ hostPort }) => hostPort === undefined));
  }
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

const withParameters = gateway({}, { infrastructure: { parametersRef: { group: '', kind: 'ConfigMap', name: 'opts' } } });

/** @param data of the ConfigMap that the Gateway refers to */
function renderWith(data: Record<string, string>): Map<string | undefined, Rendered> | string {
  const configMap = { metadata: { namespace: 'shop', name: 'opts' }, data };
  const parameters = readParameters(withParameters, [], (key) => (key === 'shop/opts' ? configMap : undefined));
  if ('problem' in parameters) return parameters.problem.message;
  return new Map(
    renderWaypoint(withParameters, options, parameters.overlays).map((object) => [object.kind, object as unknown as Rendered]),
  );
}

test('a ConfigMap changes number, size, place and labels of what is made, and takes nothing else away', () => {
  const rendered = renderWith({
    deployment: `
metadata: { labels: { tier: edge, gateway.istio.io/managed: somebody } }
spec:
  replicas: 3
  template:
    metadata: { annotations: { team: web }, labels: { gateway.networking.k8s.io/gateway-name: other } }
    spec:
      nodeSelector: { disk: ssd }
      containers: [{ name: istio-proxy, resources: { limits: { cpu: null, memory: 2Gi } } }]
`,
    service: 'spec: { sessionAffinity: ClientIP }',
    podDisruptionBudget: 'spec: { maxUnavailable: 1 }',
  });
  assert.ok(typeof rendered !== 'string', String(rendered));
  const { metadata, spec } = rendered.get('Deployment') as Rendered;
  assert.equal(metadata.labels.tier, 'edge');
  assert.equal(metadata.labels['gateway.istio.io/managed'], 'istio.io-mesh-controller');
  assert.equal(spec.replicas, 3);
  assert.equal(spec.template.metadata.labels['gateway.networking.k8s.io/gateway-name'], 'wp');
  const pod = spec.template.spec as unknown as { nodeSelector: object; containers: { image: string; resources: object }[] };
  assert.deepEqual(pod.nodeSelector, { disk: 'ssd' });
  assert.equal(pod.containers.length, 1);
  assert.equal(pod.containers[0]?.image, options.image);
  assert.deepEqual(pod.containers[0]?.resources, { requests: { cpu: '100m', memory: '128Mi' }, limits: { memory: '2Gi' } });
  assert.match(JSON.stringify(rendered.get('Service')?.spec), /"sessionAffinity":"ClientIP"/);
  assert.deepEqual(Object.keys(rendered.get('PodDisruptionBudget')?.spec ?? {}).sort(), ['maxUnavailable', 'selector']);
  assert.equal(rendered.has('HorizontalPodAutoscaler'), false);
});

test('with an autoscaler the number of replicas is its own, unless the overlay says where to start', () => {
  const scaled = renderWith({ horizontalPodAutoscaler: 'spec: { minReplicas: 2, maxReplicas: 5 }' });
  assert.ok(typeof scaled !== 'string');
  assert.equal(scaled.get('Deployment')?.spec.replicas, undefined);
  const target = { apiVersion: 'apps/v1', kind: 'Deployment', name: 'wp' };
  assert.deepEqual(scaled.get('HorizontalPodAutoscaler')?.spec, { scaleTargetRef: target, minReplicas: 2, maxReplicas: 5 });
  const started = renderWith({ horizontalPodAutoscaler: 'spec: { maxReplicas: 5 }', deployment: 'spec: { replicas: 4 }' });
  assert.ok(typeof started !== 'string');
  assert.equal(started.get('Deployment')?.spec.replicas, 4);
});

for (const [what, data, message] of [
  [
    'an image',
    { deployment: 'spec: { template: { spec: { containers: [{ name: istio-proxy, image: evil }] } } }' },
    /deployment: spec.template.spec.containers.image may not be changed/,
  ],
  [
    'a container of its own',
    { deployment: 'spec: { template: { spec: { containers: [{ name: more }] } } }' },
    /containers\[more\] may not be changed/,
  ],
  [
    'a command',
    { deployment: 'spec: { template: { spec: { containers: [{ name: istio-proxy, command: [sh] }] } } }' },
    /containers.command may not be changed/,
  ],
  [
    'arguments',
    { deployment: 'spec: { template: { spec: { containers: [{ name: istio-proxy, args: [-x] }] } } }' },
    /containers.args may not be changed/,
  ],
  [
    'an environment',
    { deployment: 'spec: { template: { spec: { containers: [{ name: istio-proxy, env: [{ name: A, value: b }] }] } } }' },
    /containers.env may not be changed/,
  ],
  [
    'volumes',
    { deployment: 'spec: { template: { spec: { volumes: [{ name: root, hostPath: { path: / } }] } } }' },
    /spec.template.spec.volumes may not be changed/,
  ],
  [
    "a container's security context",
    { deployment: 'spec: { template: { spec: { containers: [{ name: istio-proxy, securityContext: { privileged: true } }] } } }' },
    /containers.securityContext may not be changed/,
  ],
  [
    'a security context',
    { deployment: 'spec: { template: { spec: { securityContext: { runAsUser: 0 } } } }' },
    /spec.template.spec.securityContext may not/,
  ],
  ['volumes taken away', { deployment: 'spec: { template: { spec: null } }' }, /spec.template.spec may not/],
  ['a service account', { deployment: 'spec: { template: { spec: { serviceAccountName: admin } } }' }, /serviceAccountName may not/],
  ['another name', { service: 'metadata: { name: other }' }, /service: metadata.name may not/],
  ['another target of the autoscaler', { horizontalPodAutoscaler: 'spec: { scaleTargetRef: { name: x } }' }, /scaleTargetRef may not/],
  ['a key that is no kind', { configMap: '{}' }, /has a key configMap; known are deployment, service/],
  ['no YAML', { deployment: 'a: [' }, /ConfigMap shop\/opts, deployment: no YAML/],
  ['a list', { deployment: '[1]' }, /expected fields of the object, got a list/],
  ['an endless document', { deployment: ' '.repeat(70_000) }, /longer than 65536/],
] as const) {
  test(`an overlay with ${what} is refused by name`, () => {
    const rendered = renderWith(data);
    assert.ok(typeof rendered === 'string');
    assert.match(rendered, message);
  });
}

test('a reference that leads nowhere is a problem that names it', () => {
  const missing = readParameters(withParameters, [], () => undefined);
  assert.deepEqual(missing, {
    problem: { reason: 'InvalidParameters', message: 'infrastructure.parametersRef: there is no ConfigMap shop/opts' },
  });
  const secret = gateway({}, { infrastructure: { parametersRef: { group: '', kind: 'Secret', name: 'opts' } } });
  const wrong = readParameters(secret, [], () => undefined);
  assert.match('problem' in wrong ? wrong.problem.message : '', /names a Secret; it must be a ConfigMap/);
});

test("the class's defaults come first, and the oldest of several counts", () => {
  const defaults = (name: string, creationTimestamp: string, replicas: number): KubeObject => ({
    metadata: { namespace: 'istio-system', name, creationTimestamp: creationTimestamp as never },
    data: { deployment: `spec: { replicas: ${replicas} }` },
  });
  const read = readParameters(
    gateway(),
    [defaults('b', '2026-01-02T00:00:00Z', 7), defaults('a', '2026-01-01T00:00:00Z', 5)],
    () => undefined,
  );
  assert.ok('overlays' in read);
  const [deployment] = renderWaypoint(gateway(), options, read.overlays).filter(({ kind }) => kind === 'Deployment');
  assert.match(JSON.stringify(deployment?.spec), /^{"replicas":5,/);
});
