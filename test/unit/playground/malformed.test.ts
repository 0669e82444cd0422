/** Whatever a client sends, it gets an object or a status that says what is wrong: nothing ends as an internal error. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ApiError } from '../../../playground/apiserver/api-error.ts';
import { isObject } from '../../../playground/apiserver/json.ts';
import type { KubeObject } from '../../../playground/apiserver/object.ts';
import { apiStore, deployment, object, pod } from '../../support/api-store.ts';

const inDefault = { name: 'x', namespace: 'default' };

const MANIFESTS: readonly KubeObject[] = [
  {
    ...pod('x'),
    spec: {
      containers: [
        {
          name: 'c',
          image: 'i',
          ports: [{ containerPort: 1 }],
          env: [{ name: 'A', value: 'b' }],
          livenessProbe: { httpGet: { port: 1 } },
          resources: { limits: { cpu: 1 } },
        },
      ],
      volumes: [{ name: 'v', emptyDir: {} }],
    },
  },
  deployment('x'),
  object('v1', 'Service', inDefault, {
    spec: {
      ports: [{ port: 1, nodePort: 30_000 }],
      type: 'NodePort',
      ipFamilies: ['IPv4'],
      clusterIPs: ['10.96.3.3'],
      ipFamilyPolicy: 'SingleStack',
      selector: { a: 'b' },
    },
  }),
  object('v1', 'Secret', inDefault, { data: { a: 'eA==' }, stringData: { b: 'c' } }),
  object(
    'v1',
    'ConfigMap',
    {
      ...inDefault,
      labels: { a: 'b' },
      annotations: { a: 'b' },
      finalizers: ['a/b'],
      ownerReferences: [{ apiVersion: 'v1', kind: 'Pod', name: 'x', uid: 'y' }],
    },
    { data: { a: 'b' } },
  ),
  object('v1', 'Namespace', { name: 'x' }),
  object('discovery.k8s.io/v1', 'EndpointSlice', inDefault, {
    addressType: 'IPv4',
    endpoints: [{ addresses: ['1.2.3.4'] }],
    ports: [{ port: 1 }],
  }),
  object('coordination.k8s.io/v1', 'Lease', inDefault, { spec: { leaseDurationSeconds: 1 } }),
  object('gateway.networking.k8s.io/v1', 'Gateway', inDefault, {
    spec: { gatewayClassName: 'x', addresses: [{ value: '1.2.3.4' }], listeners: [{ name: 'l', port: 1, protocol: 'HTTP' }] },
  }),
  object('gateway.networking.k8s.io/v1', 'HTTPRoute', inDefault, {
    spec: { rules: [{ matches: [{ headers: [{ name: 'a', value: 'b' }] }], backendRefs: [{ name: 's', port: 1 }] }] },
  }),
  object('security.istio.io/v1', 'AuthorizationPolicy', inDefault, {
    spec: { rules: [{ from: [{ source: { principals: ['a'] } }], to: [{ operation: { ports: ['1'] } }] }] },
  }),
  object(
    'admissionregistration.k8s.io/v1',
    'ValidatingWebhookConfiguration',
    { name: 'x' },
    {
      webhooks: [
        {
          name: 'a.b.c',
          clientConfig: { url: 'https://x' },
          sideEffects: 'None',
          admissionReviewVersions: ['v1'],
          rules: [{ operations: ['*'] }],
        },
      ],
    },
  ),
  object(
    'apiextensions.k8s.io/v1',
    'CustomResourceDefinition',
    { name: 'as.b.c' },
    {
      spec: {
        group: 'b.c',
        scope: 'Cluster',
        names: { plural: 'as', kind: 'A' },
        versions: [
          {
            name: 'v1',
            served: true,
            storage: true,
            schema: { openAPIV3Schema: { type: 'object', properties: { a: { type: 'string' } } } },
          },
        ],
      },
    },
  ),
];

/** Every place of a value, as paths. */
function places(value: unknown, path: readonly string[] = []): string[][] {
  const inner = Array.isArray(value)
    ? value.map((item, i): [string, unknown] => [String(i), item])
    : isObject(value)
      ? Object.entries(value)
      : [];
  return [[...path], ...inner.flatMap(([name, item]) => places(item, [...path, name]))];
}

function replaced(value: unknown, [name, ...rest]: readonly string[], by: unknown): unknown {
  if (name === undefined) return by;
  if (Array.isArray(value)) return value.map((item, i) => (String(i) === name ? replaced(item, rest, by) : item));
  return isObject(value) ? { ...value, [name]: replaced(value[name], rest, by) } : value;
}

const junk = fc.oneof(
  fc.constantFrom<unknown>(
    null,
    '',
    0,
    -1,
    65_536,
    1.5,
    true,
    'x',
    [],
    {},
    [null],
    [{}],
    [[]],
    { a: null },
    'None',
    '10.96.0.300',
    '::',
    '%',
    '__proto__',
    { __proto__: 1 },
  ),
  fc.jsonValue({ maxDepth: 2 }),
);
const damaged = fc
  .constantFrom(...MANIFESTS)
  .chain((manifest) =>
    fc
      .constantFrom(...places(manifest).slice(1))
      .chain((path) => junk.map((by) => ({ manifest, path, changed: replaced(manifest, path, by) as KubeObject }))),
  );

function answered(attempt: () => unknown, what: string): void {
  try {
    attempt();
  } catch (error) {
    assert.ok(error instanceof ApiError && error.code < 500, `${what}: ${error instanceof Error ? error.stack : String(error)}`);
  }
}

test('manifests with anything anywhere are created or refused with a status', () => {
  const { store } = apiStore();
  fc.assert(
    fc.property(damaged, fc.constantFrom('Strict', 'Warn', 'Ignore'), ({ changed, path }, fieldValidation) => {
      const what = `${path.join('.')} in ${JSON.stringify(changed)}`;
      answered(() => {
        const { type, version } = store.resolve(changed.apiVersion, changed.kind);
        store.commit(store.prepareCreate(type, version, changed, { dryRun: true, fieldValidation: fieldValidation as 'Strict' }));
      }, what);
    }),
    { numRuns: 400 },
  );
});

test('patches with anything in them change an object or are refused with a status', () => {
  const { store } = apiStore();
  for (const manifest of MANIFESTS) answered(() => store.create(manifest), manifest.kind);
  fc.assert(
    fc.property(
      damaged,
      fc.constantFrom('merge', 'strategic', 'apply', 'json'),
      fc.boolean(),
      ({ manifest, changed, path }, type, force) => {
        const { name, namespace = '' } = manifest.metadata;
        const { type: resource } = store.resolve(manifest.apiVersion, manifest.kind);
        const body = type === 'json' ? [{ op: 'replace', path: `/${path.join('/')}`, value: 1 }] : changed;
        const patch = type === 'apply' ? { type, body, force } : { type: type as 'merge', body };
        answered(
          () => store.patch(`${resource.kind}.${resource.group}`, name, namespace, patch, { dryRun: true, fieldManager: 'fuzz' }),
          JSON.stringify(patch),
        );
      },
    ),
    { numRuns: 400 },
  );
});
