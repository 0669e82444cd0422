import assert from 'node:assert/strict';
import { isIPv4 } from 'node:net';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  cidrContains,
  formatCidr,
  formatSocketAddress,
  ipBytes,
  ipFromBytes,
  isIpv4Text,
  parseCidr,
  parseIp,
  parseSocketAddress,
} from '../../../common/base/address.ts';

test('an address has one spelling', () => {
  assert.equal(parseIp('10.0.0.1'), '10.0.0.1');
  assert.equal(parseIp('FD00:0:0:0:0:0:0:1'), 'fd00::1');
  assert.equal(parseIp('::ffff:10.0.0.1'), '10.0.0.1');
  assert.equal(parseIp('2001:db8:0:0:1:0:0:0'), '2001:db8:0:0:1::');
  assert.equal(parseIp('::'), '::');
  assert.equal(parseIp('1:0:2:0:3:0:4:0'), '1:0:2:0:3:0:4:0');
  for (const bad of ['', '10.0.0', '10.0.0.256', 'fe80::1%eth0', 'x', '1::2::3']) assert.equal(parseIp(bad), undefined, bad);
});

test('bytes and text are two forms of the same address', () => {
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array({ minLength: 4, maxLength: 4 }), fc.uint8Array({ minLength: 16, maxLength: 16 })), (bytes) => {
      const text = ipFromBytes(bytes);
      assert.ok(text !== undefined);
      const again = ipBytes(text);
      assert.ok(again !== undefined);
      assert.equal(ipFromBytes(again), text);
      if (again.length === bytes.length) assert.deepEqual([...again], [...bytes]);
    }),
  );
  assert.equal(ipFromBytes(new Uint8Array(5)), undefined);
});

test('a socket address needs brackets around IPv6 and a port in range', () => {
  assert.deepEqual(parseSocketAddress('10.0.0.1:80'), { ip: '10.0.0.1', port: 80 });
  assert.deepEqual(parseSocketAddress('[fd00::1]:443'), { ip: 'fd00::1', port: 443 });
  for (const bad of ['10.0.0.1', '10.0.0.1:', '10.0.0.1:65536', 'fd00::1:80', '[fd00::1]', 'host:80', ':80', '10.0.0.1:+1']) {
    assert.equal(parseSocketAddress(bad), undefined, bad);
  }
  assert.equal(formatSocketAddress({ ip: 'fd00::1', port: 443 }), '[fd00::1]:443');
});

test('a range contains what its prefix says, and nothing of the other family', () => {
  const contains = (range: string, ip: string): boolean => {
    const cidr = parseCidr(range);
    const bytes = ipBytes(ip);
    assert.ok(cidr && bytes);
    return cidrContains(cidr, bytes);
  };
  assert.ok(contains('10.0.0.0/9', '10.127.255.255'));
  assert.ok(!contains('10.0.0.0/9', '10.128.0.0'));
  assert.ok(contains('0.0.0.0/0', '1.2.3.4'));
  assert.ok(!contains('0.0.0.0/0', 'fd00::1'));
  assert.ok(contains('fd00::/7', 'fc00::1'));
  assert.ok(contains('10.0.0.1', '10.0.0.1'));
  assert.equal(formatCidr(parseCidr('10.1.2.3/8') ?? assert.fail()), '10.0.0.0/8');
  for (const bad of ['10.0.0.0/33', 'fd00::/129', '10.0.0.0/', '10.0.0.0/a', '/8']) assert.equal(parseCidr(bad), undefined, bad);
});

test('a dotted quad is what node:net says it is', () => {
  const texts = [
    '1.2.3.4',
    '0.0.0.0',
    '255.255.255.255',
    '256.1.1.1',
    '01.2.3.4',
    '1.2.3',
    '1.2.3.4.5',
    '1..2.3',
    '.1.2.3',
    '1.2.3.',
    '',
    '1.2.3.4 ',
    'a.b.c.d',
    '1.2.3.-4',
    '1.2.3.0004',
  ];
  for (const text of texts) assert.equal(isIpv4Text(text), isIPv4(text), text);
  fc.assert(fc.property(fc.stringMatching(/^[0-9.]{5,16}$/), (text) => isIpv4Text(text) === isIPv4(text)));
  fc.assert(fc.property(fc.ipV4(), (text) => isIpv4Text(text) && ipBytes(text)?.join('.') === text));
});
