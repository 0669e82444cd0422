/** Telemetry of a waypoint that has no control plane, from its file. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ServiceTelemetry, SpanProtocol } from '../../../common/codec/gen/waypoint.ts';
import { TELEMETRY_TYPE, WaypointResources } from '../../../waypoint/supervisor/resources.ts';
import { staticRoutes } from '../../../waypoint/supervisor/static-routes.ts';
import { Configuration, type ConfigurationPush } from '../../../waypoint/worker/configuration.ts';
import { recordingLog } from '../../support/recording-log.ts';

const FILE = `
telemetry:
- target: "*"
  metrics: [{ family: istio_requests_total, tags: [{ name: host, expression: request.host }] }]
  accessLogs: { loggers: [{ provider: p, text: "%PROTOCOL%", filter: response.code > 399 }] }
  tracing:
    provider: otel
    samplingPerMillion: 1000
    istioTags: true
    receiver:
      to: { namespace: shop, hostname: collector, port: 4318 }
      protocol: OTLP_HTTP
      path: /v1/traces
      w3c: true
      headers: [{ name: x-key, value: secret }]
    tags: [{ name: tier, literal: gold }]
- target: shop/quiet
  accessLogs: {}
`;

function apply(file: string) {
  const pushes: ConfigurationPush[] = [];
  const resources = new WaypointResources((push) => pushes.push(push));
  const configuration = new Configuration(recordingLog());
  const rejected = staticRoutes(file).flatMap((push) => resources.apply(push).rejected);
  for (const push of pushes) configuration.apply(push);
  return { resources, configuration, rejected };
}

test('the file says what an object would, and a service of its own has nothing of everything else', () => {
  const { configuration, rejected } = apply(FILE);
  assert.deepEqual(rejected, []);
  const everything = configuration.telemetryOf('shop/web');
  assert.deepEqual(
    [everything?.target, everything?.tracing?.receiver.protocol, everything?.loggers?.length],
    ['*', SpanProtocol.OTLP_HTTP, 1],
  );
  const quiet = configuration.telemetryOf('shop/quiet');
  assert.deepEqual([quiet?.target, quiet?.tracing, quiet?.loggers], ['shop/quiet', undefined, []]);
  assert.equal(configuration.telemetryOf(undefined)?.target, '*');
});

test('headers of a receiver may be keys, and are not in the dump', () => {
  const text = JSON.stringify(apply(FILE).resources.dump().telemetry);
  assert.match(text, /x-key/);
  assert.doesNotMatch(text, /secret/);
});

test('what cannot be compiled is rejected by name, and what was in force stays', () => {
  const { resources, configuration } = apply(FILE);
  const bytes = ServiceTelemetry.encode({
    target: '*',
    metrics: [{ family: 'istio_requests_total', disabled: false, tags: [{ name: 'x', expression: 'request.colour' }] }],
    accessLogs: undefined,
    tracing: undefined,
  }).finish();
  const { rejected } = resources.apply({ typeUrl: TELEMETRY_TYPE, resources: [{ name: '*', version: '2', bytes }], removed: [] });
  assert.deepEqual(rejected, [{ name: '*', reason: 'at character 9: there is no attribute request.colour' }]);
  assert.equal(configuration.telemetryOf('shop/web')?.tracing?.provider, 'otel');
});

test('a mistake in the file is named with its place', () => {
  assert.throws(
    () => staticRoutes('telemetry: [{ target: a, tracing: { receiver: { protocol: CARRIER_PIGEON } } }]'),
    /telemetry\[0\]\.tracing\.receiver\.protocol/,
  );
  assert.throws(() => staticRoutes('telemetry: [{ target: a, colour: red }]'), /colour/);
});
