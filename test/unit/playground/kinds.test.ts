import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ApiError } from '../../../playground/apiserver/api-error.ts';
import { apiStore, deployment, object, pod } from '../../support/api-store.ts';

interface ServiceSpec {
  clusterIP: string;
  clusterIPs: string[];
  ipFamilies: string[];
  ports: { port: number; targetPort: number; protocol: string; nodePort?: number }[];
}

const service = (name: string, spec: Record<string, unknown>) => object('v1', 'Service', { name, namespace: 'default' }, { spec });
const port80 = [{ port: 80 }];

test('a service gets an address of the cluster, and keeps it when it is applied again without one', () => {
  const { store } = apiStore();
  const spec = store.create(service('s', { selector: { a: 'b' }, ports: port80 })).spec as ServiceSpec;
  assert.match(spec.clusterIP, /^10\.96\./);
  assert.deepEqual(spec.clusterIPs, [spec.clusterIP]);
  assert.deepEqual(spec.ports, [{ port: 80, protocol: 'TCP', targetPort: 80 }]);
  const again = store.update(service('s', { selector: { a: 'c' }, ports: port80 })).spec as ServiceSpec;
  assert.equal(again.clusterIP, spec.clusterIP);
});

test('addresses follow the family policy, asked-for ones are taken, and taken ones are refused', () => {
  const { store } = apiStore();
  const dual = store.create(service('dual', { ipFamilyPolicy: 'PreferDualStack', ports: port80 })).spec as ServiceSpec;
  assert.deepEqual(dual.ipFamilies, ['IPv4', 'IPv6']);
  assert.match(dual.clusterIPs[1] ?? '', /^fd00:10:96::/);
  const six = store.create(service('six', { ipFamilies: ['IPv6'], ports: port80 })).spec as ServiceSpec;
  assert.match(six.clusterIP, /^fd00:10:96::/);
  const dns = store.create(service('dns', { clusterIP: '10.96.0.10', ports: port80 })).spec as ServiceSpec;
  assert.deepEqual(dns.clusterIPs, ['10.96.0.10']);
  assert.throws(
    () => store.create(service('thief', { clusterIP: '10.96.0.10', ports: port80 })),
    /spec.clusterIPs: .*provided IP is already allocated/,
  );
  const headless = store.create(service('headless', { clusterIP: 'None', ports: port80 })).spec as ServiceSpec;
  assert.deepEqual(headless.clusterIPs, ['None']);
});

test('a NodePort service gets a port of its range', () => {
  const { store } = apiStore();
  const { ports } = store.create(service('s', { type: 'NodePort', ports: port80 })).spec as ServiceSpec;
  assert.ok((ports[0]?.nodePort ?? 0) >= 30_000 && (ports[0]?.nodePort ?? 0) <= 32_767);
});

test('a pod gets its service account and the volume with its token, and needs the account to be there', () => {
  const { store } = apiStore();
  const { spec } = store.create(pod('a')) as unknown as {
    spec: { serviceAccountName: string; volumes: { name: string }[]; containers: { volumeMounts: { mountPath: string }[] }[] };
  };
  assert.equal(spec.serviceAccountName, 'default');
  assert.match(spec.volumes[0]?.name ?? '', /^kube-api-access-/);
  assert.equal(spec.containers[0]?.volumeMounts[0]?.mountPath, '/var/run/secrets/kubernetes.io/serviceaccount');
  assert.throws(
    () => store.create(pod('b', {}, { serviceAccountName: 'ghost' })),
    /pods "b" is forbidden: error looking up service account default\/ghost: serviceaccount "ghost" not found/,
  );
  const quiet = store.create(pod('c', {}, { automountServiceAccountToken: false })) as unknown as { spec: { volumes?: unknown[] } };
  assert.equal(quiet.spec.volumes, undefined);
});

test('defaults of pods are those of Kubernetes', () => {
  const { store } = apiStore();
  const { spec } = store.create(
    pod('a', {}, { containers: [{ name: 'c', image: 'x:1', ports: [{ containerPort: 80 }], readinessProbe: { httpGet: { port: 80 } } }] }),
  ) as unknown as {
    spec: { restartPolicy: string; containers: { imagePullPolicy: string; ports: object[]; readinessProbe: object }[] };
  };
  assert.equal(spec.restartPolicy, 'Always');
  assert.equal(spec.containers[0]?.imagePullPolicy, 'IfNotPresent');
  assert.deepEqual(spec.containers[0]?.ports, [{ containerPort: 80, protocol: 'TCP' }]);
  assert.deepEqual(spec.containers[0]?.readinessProbe, {
    httpGet: { port: 80, path: '/', scheme: 'HTTP' },
    timeoutSeconds: 1,
    periodSeconds: 10,
    successThreshold: 1,
    failureThreshold: 3,
  });
});

const withContainer = (container: object) => ({ ...pod('a'), spec: { containers: [{ name: 'c', image: 'x', ...container }] } });
const template = (labels: object, container: object = { name: 'c', image: 'x' }) => ({
  metadata: { labels },
  spec: { containers: [container] },
});

for (const [what, manifest, message] of [
  ['a name in capitals', pod('Web'), /metadata.name: Invalid value: "Web"/],
  ['a label with a space', pod('a', { labels: { app: 'a b' } }), /metadata.labels: Invalid value: "a b": a valid label/],
  ['no containers', { ...pod('a'), spec: { containers: [] } }, /spec.containers: Required value/],
  ['a container without an image', { ...pod('a'), spec: { containers: [{ name: 'c' }] } }, /spec.containers\[0\].image: Required value/],
  [
    'a port out of range',
    withContainer({ ports: [{ containerPort: 70_000 }] }),
    /spec.containers\[0\].ports\[0\].containerPort: Invalid value: 70000: must be between 1 and 65535/,
  ],
  [
    'a port that is a string',
    withContainer({ ports: [{ containerPort: '80' }] }),
    /spec.containers\[0\].ports\[0\].containerPort: expected integer, found "80"/,
  ],
  [
    'two containers of a name',
    {
      ...pod('a'),
      spec: {
        containers: [
          { name: 'c', image: 'x' },
          { name: 'c', image: 'y' },
        ],
      },
    },
    /spec.containers\[1\].name: Duplicate value: "c"/,
  ],
  ['a mount of no volume', withContainer({ volumeMounts: [{ name: 'v', mountPath: '/v' }] }), /volumeMounts\[0\].name: Not found: "v"/],
  [
    'a probe without a handler',
    withContainer({ livenessProbe: { periodSeconds: 1 } }),
    /livenessProbe: Required value: must specify a handler type/,
  ],
  [
    'an unknown restart policy',
    pod('a', {}, { restartPolicy: 'Sometimes' }),
    /spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always"/,
  ],
  [
    'a selector that does not match',
    object(
      'apps/v1',
      'Deployment',
      { name: 'd', namespace: 'default' },
      { spec: { selector: { matchLabels: { a: '1' } }, template: template({ a: '2' }) } },
    ),
    /spec.template.metadata.labels: .*`selector` does not match template `labels`/,
  ],
  [
    'no selector',
    object('apps/v1', 'Deployment', { name: 'd', namespace: 'default' }, { spec: { template: template({}) } }),
    /spec.selector: Required value/,
  ],
  ['a service without ports', service('s', { selector: {} }), /spec.ports: Required value/],
  ['a service named by a number', service('1s', { ports: port80 }), /metadata.name: Invalid value: "1s": a DNS-1035 label/],
  ['two service ports without names', service('s', { ports: [{ port: 1 }, { port: 2 }] }), /spec.ports\[0\].name: Required value/],
  [
    'a secret that is not base64',
    object('v1', 'Secret', { name: 's', namespace: 'default' }, { data: { a: '%' } }),
    /data.a: Invalid value: .*base64/,
  ],
  [
    'an endpoint of another family',
    object(
      'discovery.k8s.io/v1',
      'EndpointSlice',
      { name: 'e', namespace: 'default' },
      { addressType: 'IPv4', endpoints: [{ addresses: ['::1'] }] },
    ),
    /endpoints\[0\].addresses\[0\]: Invalid value: "::1"/,
  ],
  [
    'a route to a port that cannot be',
    object(
      'gateway.networking.k8s.io/v1',
      'HTTPRoute',
      { name: 'r', namespace: 'default' },
      { spec: { rules: [{ backendRefs: [{ name: 's', port: 70_000 }] }] } },
    ),
    /spec.rules\[0\].backendRefs\[0\].port: Invalid value: 70000: must be <= 65535/,
  ],
  [
    'a gateway with two listeners of a name',
    object(
      'gateway.networking.k8s.io/v1',
      'Gateway',
      { name: 'g', namespace: 'default' },
      {
        spec: { gatewayClassName: 'x', listeners: [1, 2].map((port) => ({ name: 'l', port, protocol: 'HTTP' })) },
      },
    ),
    /spec.listeners\[1\]: Duplicate value: \{"name":"l"\}/,
  ],
  [
    'an unknown mTLS mode',
    object('security.istio.io/v1', 'PeerAuthentication', { name: 'p', namespace: 'default' }, { spec: { mtls: { mode: 'HARD' } } }),
    /spec.mtls.mode: Unsupported value: "HARD": supported values: .*"STRICT"/,
  ],
] as const) {
  test(`${what} is refused with the field's name`, () => {
    const { store } = apiStore();
    assert.throws(
      () => store.create(manifest),
      (error: unknown) => error instanceof ApiError && error.code < 500 && message.test(error.message),
    );
  });
}

test('unknown fields are refused, warned about or dropped, as the client asks', () => {
  const { store } = apiStore();
  const odd = { ...pod('a', {}, { nodeSelektor: {} }), surplus: 1 };
  assert.throws(
    () => store.create(odd, { fieldValidation: 'Strict' }),
    /strict decoding error: unknown field "spec.nodeSelektor", unknown field "surplus"/,
  );
  const warnings: string[] = [];
  const created = store.create(odd, { fieldValidation: 'Warn', onWarning: (text) => warnings.push(text) });
  assert.deepEqual(warnings, ['unknown field "spec.nodeSelektor"', 'unknown field "surplus"']);
  assert.equal('surplus' in created, false);
});

test('a selector cannot be changed, and neither can most of a pod', () => {
  const { store } = apiStore();
  store.create(deployment('web'));
  assert.throws(
    () =>
      store.patch('Deployment', 'web', 'default', {
        type: 'merge',
        body: { spec: { selector: { matchLabels: { x: 'y' } }, template: { metadata: { labels: { x: 'y' } } } } },
      }),
    /spec.selector: .*field is immutable/,
  );
  store.create(pod('a'));
  assert.throws(
    () => store.patch('Pod', 'a', 'default', { type: 'strategic', body: { spec: { hostNetwork: true } } }),
    /spec: Forbidden: pod updates may not change/,
  );
  store.patch('Pod', 'a', 'default', { type: 'strategic', body: { spec: { containers: [{ name: 'app', image: 'echo:2' }] } } });
});

test('stringData of a secret becomes data', () => {
  const { store } = apiStore();
  const secret = store.create(object('v1', 'Secret', { name: 's', namespace: 'default' }, { data: { a: 'eA==' }, stringData: { b: 'y' } }));
  assert.deepEqual(secret.data, { a: 'eA==', b: 'eQ==' });
  assert.equal('stringData' in secret, false);
});

test('routes get the defaults of the Gateway API, and gateways wait for a controller', () => {
  const { store } = apiStore();
  const route = store.create(
    object(
      'gateway.networking.k8s.io/v1',
      'HTTPRoute',
      { name: 'r', namespace: 'default' },
      { spec: { parentRefs: [{ name: 'g' }], rules: [{ backendRefs: [{ name: 's', port: 80 }] }] } },
    ),
  );
  assert.deepEqual(route.spec, {
    parentRefs: [{ name: 'g', group: 'gateway.networking.k8s.io', kind: 'Gateway' }],
    rules: [
      {
        backendRefs: [{ name: 's', port: 80, group: '', kind: 'Service', weight: 1 }],
        matches: [{ path: { type: 'PathPrefix', value: '/' } }],
      },
    ],
  });
  const gateway = store.create(
    object(
      'gateway.networking.k8s.io/v1',
      'Gateway',
      { name: 'g', namespace: 'default' },
      { spec: { gatewayClassName: 'x', listeners: [{ name: 'l', port: 80, protocol: 'HTTP' }] } },
    ),
  ) as unknown as { status: { conditions: { type: string; reason: string }[] } };
  assert.deepEqual(
    gateway.status.conditions.map(({ type, reason }) => `${type} ${reason}`),
    ['Accepted Pending', 'Programmed Pending'],
  );
});

const crd = (schema: object) =>
  object(
    'apiextensions.k8s.io/v1',
    'CustomResourceDefinition',
    { name: 'widgets.example.com' },
    {
      spec: {
        group: 'example.com',
        scope: 'Namespaced',
        names: { plural: 'widgets', kind: 'Widget' },
        versions: ['v1', 'v2'].map((name) => ({
          name,
          served: true,
          storage: name === 'v1',
          subresources: { status: {} },
          schema: { openAPIV3Schema: schema },
        })),
      },
    },
  );

const widgetSchema = {
  type: 'object',
  required: ['spec'],
  properties: {
    spec: {
      type: 'object',
      required: ['size'],
      properties: {
        size: { type: 'integer', minimum: 1 },
        color: { type: 'string', default: 'red', pattern: '^[a-z]+$' },
        port: { 'x-kubernetes-int-or-string': true },
        free: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true },
        parts: {
          type: 'array',
          'x-kubernetes-list-type': 'map',
          'x-kubernetes-list-map-keys': ['id'],
          items: { type: 'object', properties: { id: { type: 'string' }, n: { type: 'integer' } } },
        },
      },
    },
    status: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true },
  },
};

const widget = (spec: object, version = 'v1') => object(`example.com/${version}`, 'Widget', { name: 'w', namespace: 'default' }, { spec });

test('a CustomResourceDefinition is served at once, in all its versions, with defaults and pruning', () => {
  const { store } = apiStore();
  assert.throws(() => store.create(widget({ size: 1 })), /no matches for kind "Widget"/);
  store.create(crd(widgetSchema));
  const made = store.create(widget({ size: 1, port: 'http', free: { a: { b: [1] } }, other: 1 }, 'v2'));
  assert.deepEqual(made.spec, { size: 1, port: 'http', free: { a: { b: [1] } }, color: 'red' });
  assert.equal(made.apiVersion, 'example.com/v1', 'in the version that is stored');
  store.delete('CustomResourceDefinition', 'widgets.example.com');
  assert.throws(() => store.create(widget({ size: 1 })), /no matches for kind "Widget"/);
});

test('custom resources are checked against their schema, keys of lists included', () => {
  const { store } = apiStore();
  store.create(crd(widgetSchema));
  assert.throws(() => store.create(widget({})), /spec.size: Required value/);
  assert.throws(
    () => store.create(widget({ size: 0, color: 'RED' })),
    /spec.size: Invalid value: 0: must be >= 1.*spec.color: Invalid value: "RED"/,
  );
  assert.throws(() => store.create(widget({ size: 'x' })), /spec.size: expected integer, found "x"/);
  assert.throws(
    () => store.create(widget({ size: 1, parts: [{ id: 'a' }, { id: 'a', n: 2 }] })),
    /spec.parts\[1\]: Duplicate value: \{"id":"a"\}/,
  );
});

test('a CustomResourceDefinition that cannot be served is refused', () => {
  const { store } = apiStore();
  const misnamed = crd(widgetSchema);
  misnamed.metadata.name = 'gadgets.example.com';
  assert.throws(() => store.create(misnamed), /metadata.name: .*must be spec.names.plural\+"\."\+spec.group/);
  assert.throws(
    () => store.create(crd({ type: 'object', properties: { a: { type: 'strin' } } })),
    /openAPIV3Schema: .*properties.a.type: "strin" is no type/,
  );
  assert.throws(
    () => store.create(crd({ type: 'object', properties: { a: { type: 'string', pattern: '(' } } })),
    /properties.a.pattern: "\(" is no regular expression/,
  );
});
