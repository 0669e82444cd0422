import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import {
  formatBaggage,
  formatForwarded,
  formatTraceparent,
  parseBaggage,
  parseForwardedHost,
  traceIdOf,
} from '../../../common/decision/headers.ts';
import { workload } from '../../support/builders.ts';

describe('baggage', () => {
  test('says in order what is known, and nothing of what is not', () => {
    const own = workload({
      name: 'p',
      clusterId: 'c1',
      workloadName: 'api',
      workloadType: 'deployment',
      canonicalName: 'api',
      canonicalRevision: 'v2',
      locality: { region: 'r', zone: 'z', subzone: 's' },
    });
    const expected =
      'k8s.cluster.name=c1,k8s.namespace.name=shop,k8s.deployment.name=api,service.name=api,service.version=v2,cloud.region=r,cloud.availability_zone=z';
    assert.equal(formatBaggage(own), expected);
    assert.equal(formatBaggage(workload({ name: 'p', clusterId: '' })), 'k8s.namespace.name=shop');
  });

  test('never carries a value that would break out of its field', () => {
    const evil = workload({
      name: 'p',
      clusterId: 'a,service.name=admin',
      canonicalName: 'x\r\nauthorization: y',
      canonicalRevision: 'v1',
    });
    assert.equal(formatBaggage(evil), 'k8s.namespace.name=shop,service.version=v1');
  });

  test('is read whatever it is: unknown keys, no value, no equals sign, names of object properties', () => {
    assert.deepEqual(
      parseBaggage(['x', '=', 'a=b', 'service.name', 'service.name=', '__proto__=1,constructor=2', ' service.name = api ']),
      {
        canonicalName: 'api',
      },
    );
    fc.assert(fc.property(fc.array(fc.string()), (headers) => typeof parseBaggage(headers) === 'object'));
  });

  test('comes back as it was said', () => {
    const text = fc.stringMatching(/^[A-Za-z0-9._-]{0,12}$/);
    fc.assert(
      fc.property(
        text,
        text,
        text,
        fc.constantFrom('deployment' as const, 'cronjob' as const, 'pod' as const, 'job' as const),
        (clusterId, name, version, type) => {
          const parsed = parseBaggage([
            formatBaggage(workload({ name: 'p', clusterId, workloadName: name, workloadType: type, canonicalRevision: version })),
          ]);
          assert.equal(parsed.clusterId ?? '', clusterId);
          assert.equal(parsed.workloadName ?? '', name);
          assert.equal(parsed.canonicalRevision ?? '', version);
          if (name !== '') assert.equal(parsed.workloadType, type);
        },
      ),
    );
  });
});

describe('forwarded', () => {
  test('quotes the client and names the service', () => {
    assert.equal(formatForwarded({ ip: '10.0.0.1', port: 80 }), 'for="10.0.0.1:80"');
    assert.equal(formatForwarded({ ip: '::1', port: 80 }, 'a.b'), 'for="[::1]:80";host=a.b');
  });

  test('is read for its host alone, quoted or not, wherever it stands', () => {
    const cases: readonly (readonly [string[], string | undefined])[] = [
      [['for="10.0.0.1:80";host=a.b'], 'a.b'],
      [['HOST="a.b";for=x'], 'a.b'],
      [['for=x, for=y;host=second'], 'second'],
      [['for="x;host=no"'], undefined],
      [['for="x,host=no', 'host=yes'], 'yes'],
      [['host='], undefined],
      [['host="a\\"b"'], 'a"b'],
      [[], undefined],
    ];
    for (const [headers, expected] of cases) assert.equal(parseForwardedHost(headers), expected, headers.join(' | '));
  });
});

describe('traceparent', () => {
  test('is made of two ids and read back', () => {
    const made = formatTraceparent('000102030405060708090a0b0c0d0e0f', '1011121314151617');
    assert.equal(made, '00-000102030405060708090a0b0c0d0e0f-1011121314151617-00');
    assert.equal(traceIdOf(made), '000102030405060708090a0b0c0d0e0f');
    for (const bad of ['', made.slice(1), `${made}0`, made.toUpperCase(), made.replace('00-', '01-')])
      assert.equal(traceIdOf(bad), undefined);
  });
});

test('however much peers make up, little of it is remembered, and each is read right', () => {
  for (let index = 0; index < 3000; index++)
    assert.equal(parseBaggage([`service.name=made-up-${index}`]).canonicalName, `made-up-${index}`);
  assert.equal(parseBaggage(['service.name=made-up-7']).canonicalName, 'made-up-7');
  assert.deepEqual(parseBaggage(['service.name=one', 'service.version=v2']), { canonicalName: 'one', canonicalRevision: 'v2' });
});
