import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  count,
  duration,
  flag,
  list,
  oneOf,
  portNumber,
  readSettings,
  SettingsError,
  setting,
  text,
} from '../../../common/base/settings.ts';

const table = {
  name: setting('NAME', text, 'nobody', 'who'),
  wait: setting('WAIT', duration, 5000, 'how long'),
  on: setting('ON', flag, true, 'whether'),
  mode: setting('MODE', oneOf('shared', 'dedicated'), 'shared', 'which'),
  port: setting('PORT', portNumber, 15001, 'where'),
  workers: setting('WORKERS', count, 2, 'how many'),
  namespaces: setting('NAMESPACES', list, ['kube-system'], 'which'),
};

test('what is not set has its default', () => {
  const settings = readSettings(table, {});
  assert.deepEqual(settings, {
    name: 'nobody',
    wait: 5000,
    on: true,
    mode: 'shared',
    port: 15001,
    workers: 2,
    namespaces: ['kube-system'],
  });
});

test('values are read by their form', () => {
  const settings = readSettings(table, { WAIT: '1m30s', ON: 'false', MODE: 'dedicated', PORT: '0', NAMESPACES: 'a, b,,c' });
  assert.deepEqual(
    [settings.wait, settings.on, settings.mode, settings.port, settings.namespaces],
    [90_000, false, 'dedicated', 0, ['a', 'b', 'c']],
  );
  assert.equal(duration.parse('300ms'), 300);
  assert.equal(duration.parse('24h'), 86_400_000);
});

test('all bad values are reported at once, each by name', () => {
  assert.throws(
    () => readSettings(table, { WAIT: 'soon', ON: 'yes', MODE: 'both', PORT: '65536', WORKERS: '-1' }),
    (error: unknown) => {
      assert.ok(error instanceof SettingsError);
      assert.equal(error.problems.length, 5);
      for (const name of ['WAIT', 'ON', 'MODE', 'PORT', 'WORKERS']) assert.ok(error.message.includes(`${name}=`), name);
      return true;
    },
  );
});
