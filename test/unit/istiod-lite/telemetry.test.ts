/** Telemetry objects: what waypoints are told of them, level by level, and what their status says of what nobody carries out. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ServiceTelemetry, SpanProtocol } from '../../../common/codec/gen/waypoint.ts';
import { ISTIO_TEXT_FORMAT } from '../../../common/decision/log-format.ts';
import { compileTelemetry } from '../../../common/decision/telemetry-model.ts';
import * as make from '../../support/kube-objects.ts';
import { TranslatedMesh } from '../../support/translated-mesh.ts';

type Json = Record<string, unknown>;

const telemetryObject = (name: string, spec: Json, namespace = 'shop', created = '2026-01-01T00:00:00Z'): Json => ({
  metadata: { name, namespace, generation: 1, creationTimestamp: created },
  spec,
});
const WEB = { group: '', kind: 'Service', name: 'web' };
const WP = { group: 'gateway.networking.k8s.io', kind: 'Gateway', name: 'wp' };
const CLASS = { group: 'gateway.networking.k8s.io', kind: 'GatewayClass', name: 'istio-waypoint' };

const MESH = `
extensionProviders:
- name: otel
  opentelemetry: { service: otel/collector.otel.svc.cluster.local, port: 4317 }
- name: zip
  zipkin: { service: zipkin.otel.svc.cluster.local, port: 9411 }
- name: gone
  zipkin: { service: nobody.otel.svc.cluster.local, port: 9411 }
- name: wrong-port
  zipkin: { service: zipkin.otel.svc.cluster.local, port: 1 }
- name: json
  envoyFileAccessLog: { path: /dev/stdout, logFormat: { labels: { code: "%RESPONSE_CODE%" } } }
- name: bad-format
  envoyFileAccessLog: { path: /dev/stdout, logFormat: { text: "%NOPE%" } }
- name: file
  envoyFileAccessLog: { path: /var/log/a }
- name: dog
  datadog: { service: a.b, port: 1 }
`;

function shop(mesh = MESH): TranslatedMesh {
  const made = TranslatedMesh.shop();
  made.set('ConfigMap', { metadata: { name: 'istio', namespace: 'istio-system' }, data: { mesh } });
  made.set('Service', make.service({ name: 'collector', namespace: 'otel', ports: [{ name: 'grpc', port: 4317 }] }));
  made.set('Service', make.service({ name: 'zipkin', namespace: 'otel', ports: [{ name: 'http', port: 9411 }] }));
  return made;
}

/** What a waypoint is told, by target; each is tried as the waypoint does. */
function told(mesh: TranslatedMesh, waypoint = 'shop/wp'): Record<string, ServiceTelemetry> {
  const [namespace = '', name = ''] = waypoint.split('/');
  mesh.flush();
  const all = mesh.index.waypointResources(namespace, name).telemetry.map(({ bytes }) => ServiceTelemetry.decode(bytes));
  for (const one of all) compileTelemetry(one, () => undefined);
  return Object.fromEntries(all.map((one) => [one.target, one]));
}

const condition = (mesh: TranslatedMesh, name: string, namespace = 'shop'): string => {
  const [shown] = mesh.conditions(`Telemetry ${namespace}/${name}`);
  return `${shown}: ${mesh.message(`Telemetry ${namespace}/${name}`, 'WaypointAccepted')}`;
};
const set = (mesh: TranslatedMesh, ...args: Parameters<typeof telemetryObject>): TranslatedMesh =>
  mesh.set('Telemetry', telemetryObject(...args));

const TRACING = { tracing: [{ providers: [{ name: 'otel' }], randomSamplingPercentage: 12.5 }] };

test('without Telemetry and without words of the mesh a waypoint is told nothing', () => assert.deepEqual(told(shop()), {}));

test('what holds for the mesh, the namespace, the waypoint and the service adds up, the more specific one last', () => {
  const mesh = shop();
  set(
    mesh,
    'mesh',
    { ...TRACING, metrics: [{ overrides: [{ tagOverrides: { a: { value: '"mesh"' }, b: { value: '"mesh"' } } }] }] },
    'istio-system',
  );
  set(mesh, 'all', { targetRefs: [CLASS], tracing: [{ randomSamplingPercentage: 25 }] }, 'istio-system');
  set(mesh, 'ns', { metrics: [{ overrides: [{ match: { metric: 'REQUEST_COUNT' }, tagOverrides: { b: { value: '"ns"' } } }] }] });
  set(mesh, 'wp', { targetRefs: [WP], tracing: [{ randomSamplingPercentage: 50 }] });
  set(mesh, 'web', {
    targetRefs: [WEB],
    tracing: [{ disableSpanReporting: true }],
    metrics: [{ overrides: [{ tagOverrides: { a: { operation: 'REMOVE' } } }] }],
  });
  const { '*': everything, 'shop/web.shop.svc.cluster.local': web, ...others } = told(mesh);
  assert.deepEqual(others, {});
  assert.equal(everything?.tracing?.samplingPerMillion, 500_000);
  const tags = (of: ServiceTelemetry | undefined, family: string): unknown[] =>
    (of?.metrics.find((each) => each.family === family)?.tags ?? []).map(({ name, expression }) => [name, expression]);
  assert.deepEqual(tags(everything, 'istio_requests_total'), [
    ['a', '"mesh"'],
    ['b', '"ns"'],
  ]);
  assert.deepEqual(tags(everything, 'istio_tcp_sent_bytes_total'), [
    ['a', '"mesh"'],
    ['b', '"mesh"'],
  ]);
  assert.equal(web?.tracing, undefined);
  assert.deepEqual(tags(web, 'istio_requests_total'), [
    ['a', ''],
    ['b', '"ns"'],
  ]);
  for (const [name, namespace] of [['mesh', 'istio-system'], ['all', 'istio-system'], ['ns'], ['wp'], ['web']] as const)
    assert.match(condition(mesh, name, namespace), /^WaypointAccepted=True Accepted: /, name);
});

test('a service of another namespace brings what holds for its own namespace to the waypoint that serves it', () => {
  const mesh = shop();
  mesh.set('Gateway', make.gateway({ name: 'wp', from: 'All' }));
  mesh.set('Namespace', make.namespace('far', { 'istio.io/use-waypoint': 'wp', 'istio.io/use-waypoint-namespace': 'shop' }));
  mesh.set('Service', make.service({ name: 'api', namespace: 'far' }));
  set(mesh, 'far', { accessLogging: [{ providers: [{ name: 'json' }] }] }, 'far');
  assert.deepEqual(Object.keys(told(mesh)), ['far/api.far.svc.cluster.local']);
  assert.equal(condition(mesh, 'far', 'far'), 'WaypointAccepted=True Accepted: bound to shop/wp');
});

test('spans go to the service of the provider, which the waypoint may then see', () => {
  const mesh = set(shop(), 'ns', {
    tracing: [{ providers: [{ name: 'zip' }], customTags: { tier: { literal: { value: 'gold' } } }, enableIstioTags: false }],
  });
  const tracing = told(mesh)['*']?.tracing;
  assert.deepEqual(tracing?.receiver?.to, { namespace: 'otel', hostname: 'zipkin.otel.svc.cluster.local', port: 9411, subset: '' });
  assert.deepEqual(
    [tracing?.receiver?.protocol, tracing?.receiver?.b3, tracing?.istioTags, tracing?.samplingPerMillion],
    [SpanProtocol.ZIPKIN_JSON, true, false, 10_000],
  );
  assert.deepEqual(
    tracing?.tags.map(({ name }) => name),
    ['tier'],
  );
});

test('when the service of a provider goes, spans end and the status says so; when it is back they begin again', () => {
  const mesh = set(shop(), 'ns', TRACING);
  assert.ok(told(mesh)['*']?.tracing);
  const collector = make.service({ name: 'collector', namespace: 'otel', ports: [{ name: 'grpc', port: 4317 }] });
  mesh.remove('Service', collector);
  assert.equal(told(mesh)['*'], undefined);
  assert.equal(
    condition(mesh, 'ns'),
    'WaypointAccepted=True UnsupportedValue: provider otel: there is no service otel/collector.otel.svc.cluster.local',
  );
  mesh.set('Service', collector);
  assert.ok(told(mesh)['*']?.tracing);
  assert.match(condition(mesh, 'ns'), /Accepted: bound to shop\/wp/);
});

test('when the Telemetry goes, so does what was told of it', () => {
  const mesh = set(shop(), 'ns', TRACING);
  set(mesh, 'web', { targetRefs: [WEB], accessLogging: [{ disabled: true }] });
  assert.equal(Object.keys(told(mesh)).length, 2);
  mesh.remove('Telemetry', telemetryObject('ns', TRACING));
  mesh.remove('Telemetry', telemetryObject('web', {}));
  assert.deepEqual(told(mesh), {});
});

const loggers = (mesh: TranslatedMesh, target = '*'): string[] | undefined =>
  told(mesh)[target]?.accessLogs?.loggers.map(({ provider, format, filter }) => `${provider} ${format?.$case} ${filter}`.trim());

test("a mesh's accessLogFile is Istio's form for everybody, in its encoding and format", () => {
  assert.deepEqual(loggers(shop('accessLogFile: /dev/stdout')), ['accessLogFile text']);
  assert.equal(told(shop('accessLogFile: /dev/stdout'))['*']?.accessLogs?.loggers[0]?.format?.value, ISTIO_TEXT_FORMAT);
  assert.deepEqual(loggers(shop('{accessLogFile: /dev/stdout, accessLogEncoding: JSON}')), ['accessLogFile json']);
  const own = shop('{accessLogFile: /dev/stdout, accessLogFormat: "%PROTOCOL%"}');
  assert.equal(told(own)['*']?.accessLogs?.loggers[0]?.format?.value, '%PROTOCOL%');
  const bad = shop('{accessLogFile: /dev/stdout, accessLogFormat: "%NOPE%"}');
  assert.equal(told(bad)['*'], undefined);
  assert.deepEqual(
    [...bad.index.problems()].map(({ message }) => message),
    ['provider accessLogFile: at character 1: %NOPE% is not known'],
  );
});

test('logs: providers of the more specific level, filters, and switching off', () => {
  assert.deepEqual(
    loggers(set(shop(), 'a', { accessLogging: [{ providers: [{ name: 'envoy' }], filter: { expression: 'response.code >= 400' } }] })),
    ['envoy text response.code >= 400'],
  );
  assert.deepEqual(loggers(set(shop('accessLogFile: /dev/stdout'), 'a', { accessLogging: [{ disabled: true }] })), []);
  assert.deepEqual(loggers(set(shop(), 'a', { accessLogging: [{ providers: [{ name: 'envoy' }, { name: 'json' }] }] })), [
    'envoy text',
    'json json',
  ]);
  const both = set(shop(), 'a', { accessLogging: [{ providers: [{ name: 'envoy' }] }] }, 'istio-system');
  set(both, 'b', { accessLogging: [{ providers: [{ name: 'json' }] }] });
  assert.deepEqual(loggers(both), ['json json']);
  const off = set(shop(`${MESH}\ndefaultProviders: { accessLogging: [json] }`), 'b', {
    targetRefs: [WEB],
    accessLogging: [{ disabled: true }],
  });
  assert.deepEqual([loggers(off), loggers(off, 'shop/web.shop.svc.cluster.local')], [['json json'], []]);
});

test('a provider of logs that cannot be used leaves the lines that there were, and the status names it', () => {
  for (const [name, message] of [
    ['bad-format', 'provider bad-format: at character 1: %NOPE% is not known'],
    ['file', 'provider file: /var/log/a is neither /dev/stdout nor /dev/stderr, and a waypoint has no other files'],
    ['otel', 'provider otel is opentelemetry, which takes no access logs'],
    ['nope', 'there is no provider nope'],
    ['dog', 'provider dog: the kind datadog is not implemented'],
  ] as const) {
    const mesh = set(shop(), 'a', { accessLogging: [{ providers: [{ name }] }] });
    assert.equal(told(mesh)['*']?.accessLogs, undefined, name);
    assert.equal(condition(mesh, 'a'), `WaypointAccepted=True UnsupportedValue: ${message}`);
  }
});

test('metrics are switched off one by one, or all but some', () => {
  const disabled = (overrides: Json[]): string[] =>
    (told(set(shop(), 'a', { metrics: [{ providers: [{ name: 'prometheus' }], overrides }] }))['*']?.metrics ?? [])
      .filter((each) => each.disabled)
      .map(({ family }) => family);
  assert.deepEqual(disabled([{ match: { metric: 'REQUEST_COUNT', mode: 'SERVER' }, disabled: true }]), ['istio_requests_total']);
  assert.equal(disabled([{ disabled: true }]).length, 10);
  assert.equal(disabled([{ disabled: true }, { match: { metric: 'REQUEST_COUNT' }, disabled: false }]).length, 9);
  assert.deepEqual(disabled([{ match: { mode: 'CLIENT' }, disabled: true }]), []);
});

test('what cannot be carried out is named with its place, and the rest holds', () => {
  const mesh = set(shop(), 'a', {
    colour: 'red',
    metrics: [
      {
        reportingInterval: '10s',
        overrides: [
          {
            match: { metric: 'REQUEST_COUNT' },
            tagOverrides: { good: { value: 'request.host' }, bad: { value: 'request.colour' }, 'no-label': { value: '1' } },
          },
          { match: { metric: 'NOPE' }, disabled: true },
          { match: { mode: 'CLIENT' }, disabled: true },
        ],
      },
    ],
    accessLogging: [{ providers: [{ name: 'json' }], filter: { expression: "response.code == '200'" } }],
    tracing: [
      {
        providers: [{ name: 'otel' }, { name: 'zip' }],
        randomSamplingPercentage: 250,
        customTags: { a: { literal: {} }, b: { formatter: { value: '%X%' } } },
      },
    ],
  });
  const shown = condition(mesh, 'a');
  for (const problem of [
    'spec.colour is not known and has no effect',
    'metrics[0].reportingInterval has no effect',
    'metrics[0].overrides[0].tagOverrides[bad].value: at character 9: there is no attribute request.colour',
    'metrics[0].overrides[0].tagOverrides[no-label]: this is no name of a label',
    'metrics[0].overrides[1].match: there is no metric "NOPE"',
    'metrics[0].overrides[2].match.mode CLIENT has no effect: a waypoint reports as a server',
    'accessLogging[0].filter.expression: at character 15: == does not go with int and string',
    'tracing[0].randomSamplingPercentage: 250 is no percentage',
    'tracing[0].customTags[a]: {"literal":{}} is no literal, header, environment or formatter with a value',
    'tracing[0].customTags[b]: at character 1: %X% is not known',
    'of several providers of spans the first one counts: otel',
  ])
    assert.ok(shown.includes(problem), `${problem}\nin ${shown}`);
  assert.match(shown, /^WaypointAccepted=True UnsupportedValue/);
  const everything = told(mesh)['*'];
  assert.deepEqual(everything?.metrics, [
    { family: 'istio_requests_total', disabled: false, tags: [{ name: 'good', expression: 'request.host' }] },
  ]);
  assert.equal(everything?.tracing?.provider, 'otel');
});

test('what nobody carries out says so: no waypoint, a selector, an older one, targets that are not there', () => {
  const mesh = shop();
  mesh.set('Namespace', make.namespace('plain', { 'istio.io/dataplane-mode': 'ambient' }));
  set(mesh, 'nobody', TRACING, 'plain');
  set(mesh, 'selects', { selector: { matchLabels: { app: 'web' } }, ...TRACING });
  set(mesh, 'first', TRACING, 'shop', '2026-01-01T00:00:00Z');
  set(mesh, 'second', { accessLogging: [{ disabled: true }] }, 'shop', '2026-02-01T00:00:00Z');
  set(mesh, 'target', { targetRefs: [{ group: '', kind: 'Service', name: 'gone' }], ...TRACING });
  set(mesh, 'class', { targetRefs: [CLASS], ...TRACING });
  set(mesh, 'half', { targetRefs: [WEB, { group: '', kind: 'Service', name: 'gone' }], ...TRACING });
  assert.equal(
    condition(mesh, 'nobody', 'plain'),
    'WaypointAccepted=False AncestorNotBound: no waypoint serves namespace plain, and ztunnels take nothing from Telemetry',
  );
  assert.match(condition(mesh, 'selects'), /^WaypointAccepted=False UnsupportedValue: spec.selector selects pods/);
  assert.match(condition(mesh, 'first'), /^WaypointAccepted=True Accepted: bound to shop\/wp/);
  assert.equal(
    condition(mesh, 'second'),
    'WaypointAccepted=False Conflicted: shop/first is older and holds for the namespace; one object alone can',
  );
  assert.equal(condition(mesh, 'target'), 'WaypointAccepted=False TargetNotFound: there is no Service shop/gone');
  assert.match(condition(mesh, 'class'), /^WaypointAccepted=False Invalid: only policies of the root namespace/);
  assert.equal(condition(mesh, 'half'), 'WaypointAccepted=True PartiallyInvalid: there is no Service shop/gone');
  assert.equal(told(mesh)['*']?.accessLogs, undefined);
});

test('a service that comes later gets what was said about it before', () => {
  const mesh = set(shop(), 'late', { targetRefs: [{ group: '', kind: 'Service', name: 'late' }], accessLogging: [{ disabled: true }] });
  assert.deepEqual(told(mesh), {});
  mesh.set('Service', make.service({ name: 'late' }));
  assert.deepEqual(Object.keys(told(mesh)), ['shop/late.shop.svc.cluster.local']);
  assert.match(condition(mesh, 'late'), /Accepted: bound to shop\/wp/);
  mesh.remove('Service', make.service({ name: 'late' }));
  assert.deepEqual(told(mesh), {});
});

test('a provider whose defaults or kind do not fit is named for the mesh as a whole', () => {
  const mesh = shop(`${MESH}\ndefaultProviders: { tracing: [gone], metrics: [otel], accessLogging: [file] }`);
  mesh.flush();
  assert.deepEqual(
    [...mesh.index.problems()].map(({ message }) => message).filter((message) => !message.includes('datadog')),
    [
      'provider gone: there is no service nobody.otel.svc.cluster.local',
      'provider otel is opentelemetry, which takes no metrics',
      'provider file: /var/log/a is neither /dev/stdout nor /dev/stderr, and a waypoint has no other files',
    ],
  );
});
