import assert from 'node:assert/strict';
import { test } from 'node:test';
import { minutes } from '../../../common/base/clock.ts';
import { readSettings } from '../../../common/base/settings.ts';
import { settingsTable, withFlags } from '../../../istiod-lite/settings.ts';

const read = (args: string[], env: Record<string, string> = {}) => readSettings(settingsTable, withFlags(env, args));

test("the arguments of Istio's chart are understood", () => {
  const settings = read([
    '--monitoringAddr=:15099',
    '--log_output_level=default:warn,ads:debug',
    '--domain',
    'c.example',
    '--keepaliveMaxServerConnectionAge',
    '30m',
  ]);
  assert.equal(settings.monitoringPort, 15099);
  assert.equal(settings.logLevel, 'warn');
  assert.equal(settings.domain, 'c.example');
  assert.equal(settings.maxConnectionAgeMs, minutes(30));
});

test('flags win over the environment', () => {
  assert.equal(read(['--domain=flag'], { DOMAIN: 'env' }).domain, 'flag');
  assert.equal(read(['--log_as_json'], { LOG_AS_JSON: 'false' }).logAsJson, true);
});

test('an argument that is none, or has no value, is named', () => {
  assert.throws(() => read(['--frobnicate=1']), /unknown argument --frobnicate=1/);
  assert.throws(() => read(['serve']), /unknown argument serve/);
  assert.throws(() => read(['--domain']), /--domain needs a value/);
});

test('all bad values are reported together', () => {
  assert.throws(
    () => read(['--monitoringAddr=:http'], { MAX_WORKLOAD_CERT_TTL: 'long', PILOT_ENABLE_XDS_IDENTITY_CHECK: 'maybe' }),
    (error: Error) =>
      ['MONITORING_PORT', 'MAX_WORKLOAD_CERT_TTL', 'PILOT_ENABLE_XDS_IDENTITY_CHECK'].every((name) => error.message.includes(name)),
  );
});
