/** The mesh's own configuration: what is read, what is refused by name, and that a change reaches what depends on it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Address } from '../../../common/codec/gen/workload.ts';
import { outboundPolicyOf } from '../../../common/state/outbound-policy.ts';
import { readObjects } from '../../../istiod-lite/files/read-objects.ts';
import { MeshIndex } from '../../../istiod-lite/model/index.ts';
import { DEFAULT_MESH_CONFIG, readMeshConfig } from '../../../istiod-lite/model/mesh-config.ts';
import * as make from '../../support/kube-objects.ts';

const started = { trustDomain: 'cluster.local', rootNamespace: 'istio-system' };
const configMap = (mesh: string) => ({ metadata: { name: 'istio', namespace: 'istio-system' }, data: { mesh } });

function read(mesh: string) {
  const reports: string[] = [];
  const config = readMeshConfig(configMap(mesh), started, (message) => reports.push(message));
  return { config, reports, provider: (name: string) => config?.extensionProviders.get(name) };
}

test("Istio's own example of each provider is read with its fields, and nothing is said about it", () => {
  const { provider, reports } = read(`
extensionProviders:
- name: otel
  opentelemetry: { service: otel/collector.otel.svc.cluster.local, port: 4317, resourceDetectors: { environment: {} } }
- name: otel-http
  opentelemetry:
    service: collector.otel.svc.cluster.local
    port: 4318
    http: { path: /v1/traces, timeout: 10s, headers: [{ name: Authorization, envName: TOKEN }, { name: x-a, value: b }] }
- name: zip
  zipkin: { service: zipkin.zipkin.svc.cluster.local, port: 9411, traceContextOption: USE_B3_WITH_W3C_PROPAGATION }
- name: file
  envoyFileAccessLog: { path: /dev/stdout, logFormat: { labels: { status: "%RESPONSE_CODE%" } }, omitEmptyValues: true }
- name: metrics
  prometheus: {}
- name: opa
  envoyExtAuthzGrpc: { service: opa.opa.svc.cluster.local, port: 9191, timeout: 0.5s, failOpen: true, statusOnError: "503" }
- name: oauth
  envoyExtAuthzHttp:
    service: oauth2-proxy.foo.svc.cluster.local
    port: 4180
    pathPrefix: /auth
    includeRequestHeadersInCheck: [cookie]
    includeAdditionalHeadersInCheck: { X-Auth: a }
    includeRequestBodyInCheck: { maxRequestBytes: 1024, allowPartialMessage: true }
    headersToUpstreamOnAllow: [authorization]
    headersToDownstreamOnDeny: [content-type, set-cookie]
    headersToDownstreamOnAllow: [set-cookie]
`);
  assert.deepEqual(reports, []);
  assert.deepEqual(provider('otel'), {
    kind: 'opentelemetry',
    service: { namespace: 'otel', host: 'collector.otel.svc.cluster.local', port: 4317 },
    maxTagLength: 256,
    protocol: 'grpc',
    path: '',
    timeoutMs: 5000,
    headers: [],
    environmentResource: true,
    serviceAttributes: 'ISTIO_CANONICAL',
  });
  const http = provider('otel-http');
  assert.ok(http?.kind === 'opentelemetry');
  assert.deepEqual([http.protocol, http.path, http.timeoutMs], ['http', '/v1/traces', 10_000]);
  assert.deepEqual(http.headers, [
    { name: 'authorization', envName: 'TOKEN' },
    { name: 'x-a', value: 'b' },
  ]);
  const zipkin = provider('zip');
  assert.ok(zipkin?.kind === 'zipkin');
  assert.deepEqual([zipkin.path, zipkin.w3c], ['/api/v2/spans', true]);
  const file = provider('file');
  assert.ok(file?.kind === 'envoyFileAccessLog');
  assert.deepEqual(file.format, { labels: { status: '%RESPONSE_CODE%' } });
  const opa = provider('opa');
  assert.ok(opa?.kind === 'envoyExtAuthzGrpc');
  assert.deepEqual([opa.timeoutMs, opa.failOpen, opa.statusOnError, opa.service.namespace], [500, true, 503, '']);
  const oauth = provider('oauth');
  assert.ok(oauth?.kind === 'envoyExtAuthzHttp');
  assert.deepEqual(oauth.includeRequestBodyInCheck, { maxRequestBytes: 1024, allowPartialMessage: true, packAsBytes: false });
  assert.deepEqual(oauth.includeAdditionalHeadersInCheck, { 'X-Auth': 'a' });
  assert.deepEqual(
    [provider('metrics')?.kind, provider('prometheus')?.kind, provider('envoy')?.kind],
    ['prometheus', 'prometheus', 'envoyFileAccessLog'],
  );
});

test('a provider that cannot be used stays under its name, with the reason', () => {
  const { provider, reports } = read(`
extensionProviders:
- { name: dog, datadog: { service: a.b, port: 8126 } }
- { name: what, jeager: {} }
- { name: two, prometheus: {}, zipkin: {} }
- { name: none }
- { name: where, zipkin: { service: "a b", port: 0 } }
- { name: split, opentelemetry: { service: a.b, port: 1, http: { path: /, headers: [{ name: x, value: "a\\r\\nb: c" }] } } }
- { name: extra, zipkin: { service: a.b, port: 1, colour: red } }
- { name: extra, prometheus: {} }
- { prometheus: {} }
`);
  const problem = (name: string) => {
    const found = provider(name);
    return found?.kind === 'unusable' ? found.problem : found?.kind;
  };
  assert.equal(problem('dog'), 'provider dog: the kind datadog is not implemented');
  assert.equal(problem('what'), 'provider what: there is no kind "jeager"');
  assert.equal(problem('two'), 'provider two: says several kinds: prometheus, zipkin');
  assert.equal(problem('none'), 'provider none: says no kind');
  assert.equal(problem('where'), 'provider where: zipkin.service: "a b" is no [namespace/]host; zipkin.port is missing');
  assert.equal(problem('split'), 'provider split: opentelemetry.headers[0]: "x" is no header with a value or envName');
  assert.equal(problem('extra'), 'zipkin');
  assert.ok(reports.includes('provider extra: zipkin.colour is not known and has no effect'));
  assert.ok(reports.includes('extensionProviders[7]: there is another one named extra, which counts'));
  assert.ok(reports.includes('extensionProviders[8] has no name'));
  assert.ok(reports.includes('provider dog: the kind datadog is not implemented'));
});

test('fields without effect are named, and so is a trust domain that istiod was not started with', () => {
  const { config, reports } = read(`
accessLogFile: /dev/stdout
accessLogEncoding: XML
trustDomain: td.example
enablePrometheusMerge: true
defaultConfig: { discoveryAddress: a, tracing: { sampling: 50, zipkin: { address: b } } }
defaultProviders: { tracing: [otel], billing: [a] }
outboundTrafficPolicy: { mode: SOMETIMES }
`);
  assert.deepEqual(reports, [
    'fields without effect here: enablePrometheusMerge',
    'trustDomain: "td.example" has no effect, istiod was started with cluster.local',
    'defaultProviders.billing is not known and has no effect',
    'accessLogEncoding: "XML" is none of TEXT, JSON',
    'defaultConfig: fields without effect here: discoveryAddress, tracing.zipkin',
    'outboundTrafficPolicy.mode: there is no "SOMETIMES"; REGISTRY_ONLY holds',
  ]);
  assert.deepEqual(
    [
      config?.accessLogFile,
      config?.accessLogEncoding,
      config?.tracingSampling,
      config?.outboundTrafficPolicy,
      config?.defaultProviders.tracing,
    ],
    ['/dev/stdout', 'TEXT', 50, 'REGISTRY_ONLY', ['otel']],
  );
});

test('text that is no YAML leaves the configuration as it was, and an empty one is the default', () => {
  assert.equal(read('a: [').config, undefined);
  assert.equal(read('just words').config, undefined);
  assert.match(read('a: [').reports[0] ?? '', /what it said before stays/);
  assert.deepEqual(read('').config, DEFAULT_MESH_CONFIG);
  assert.deepEqual(read('{}').config, DEFAULT_MESH_CONFIG);
});

test('labels of a log format that aliases blow up are refused', () => {
  const lines = [
    'a: &a [x, x, x, x, x, x, x, x, x]',
    ...'bcdefgh'.split('').map((c, i) => `${c}: &${c} [${Array(9).fill(`*${'abcdefgh'[i]}`)}]`),
  ];
  const indented = lines.map((line) => `        ${line}`).join('\n');
  const { provider } = read(`extensionProviders:\n- name: f\n  envoyFileAccessLog:\n    logFormat:\n      labels:\n${indented}`);
  assert.equal(provider('f')?.kind, 'unusable');
});

test('where pods may go follows the configuration as it changes, and a namespace that says its own wins', () => {
  const index = new MeshIndex({ ...started, clusterId: 'c', domain: 'cluster.local', network: '' });
  const policyOf = (name: string) => {
    const { type } = Address.decode(index.address(`c//Pod/${name}`)?.bytes ?? new Uint8Array());
    return type?.$case === 'workload' ? outboundPolicyOf(type.value.extensions) : 'unpublished';
  };
  const set = (mesh: string) => {
    index.apply({ type: 'modified', kind: 'ConfigMap', object: configMap(mesh) });
    index.flush();
  };
  index.apply({ type: 'added', kind: 'Pod', object: make.pod({ name: 'a', labels: {} }) });
  index.flush();
  assert.equal(policyOf('shop/a'), undefined);
  set('outboundTrafficPolicy: { mode: REGISTRY_ONLY }');
  assert.equal(policyOf('shop/a'), 'REGISTRY_ONLY');
  const open = make.namespace('shop', {}, { 'warren.dev/outbound-traffic-policy': 'ALLOW_ANY' });
  index.apply({ type: 'modified', kind: 'Namespace', object: open });
  set('outboundTrafficPolicy: { mode: REGISTRY_ONLY }');
  assert.equal(policyOf('shop/a'), 'ALLOW_ANY');
  index.apply({ type: 'deleted', kind: 'Namespace', object: open });
  set('{}');
  assert.equal(policyOf('shop/a'), undefined);
});

test('a ConfigMap of the same name in another namespace is not the mesh’s', () => {
  const index = new MeshIndex({ ...started, systemNamespace: 'warren', clusterId: 'c', domain: 'cluster.local', network: '' });
  index.apply({ type: 'added', kind: 'ConfigMap', object: configMap('nonsense: true') });
  assert.deepEqual([...index.problems()], []);
  index.apply({
    type: 'added',
    kind: 'ConfigMap',
    object: { ...configMap('nonsense: true'), metadata: { name: 'istio', namespace: 'warren' } },
  });
  assert.deepEqual([...index.problems()], [{ object: 'ConfigMap warren/istio', message: 'fields without effect here: nonsense' }]);
});

test('without Kubernetes the file says it too, and another ConfigMap is refused by name', () => {
  const file = (name: string) =>
    `apiVersion: v1\nkind: ConfigMap\nmetadata: { name: ${name}, namespace: istio-system }\ndata: { mesh: "{}" }\n`;
  assert.deepEqual(
    readObjects('mesh.yaml', file('istio')).objects.map(({ collection }) => collection),
    ['/api/v1/configmaps'],
  );
  assert.deepEqual(readObjects('mesh.yaml', file('other')).problems, ['mesh.yaml, document 1: ConfigMap other: only istio is read']);
});

test('whatever the text holds, reading it does not throw, and every provider is one that can be used or says why not', () => {
  const kind = fc.constantFrom(
    'opentelemetry',
    'zipkin',
    'envoyFileAccessLog',
    'envoyExtAuthzHttp',
    'envoyExtAuthzGrpc',
    'prometheus',
    'x',
  );
  const field = fc.constantFrom(
    'service',
    'port',
    'http',
    'headers',
    'logFormat',
    'timeout',
    'includeRequestBodyInCheck',
    'path',
    'grpc',
    'y',
  );
  const provider = fc.record({ name: fc.string({ maxLength: 3 }), kind, fields: fc.dictionary(field, fc.jsonValue()) });
  fc.assert(
    fc.property(fc.array(provider, { maxLength: 4 }), fc.jsonValue(), (providers, other) => {
      const mesh = {
        extensionProviders: providers.map(({ name, kind, fields }) => ({ name, [kind]: fields })),
        defaultProviders: other,
        outboundTrafficPolicy: other,
      };
      const { config } = read(JSON.stringify(mesh));
      for (const found of config?.extensionProviders.values() ?? []) assert.ok(found.kind !== 'unusable' || found.problem !== '');
      read(JSON.stringify(other));
    }),
    { numRuns: 200 },
  );
});
