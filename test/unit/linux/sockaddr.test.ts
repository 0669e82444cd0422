import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ipFromBytes } from '../../../common/base/address.ts';
import { decodeSocketAddress, encodeSocketAddress, encodeUnixAddress } from '../../../common/linux/sockaddr.ts';

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

test('an IPv4 address has family, port in network order, and 8 bytes of zero', () => {
  assert.equal(hex(encodeSocketAddress('10.1.2.3', 15008, 4)), '02003aa00a0102030000000000000000');
});

test('an IPv6 address has flow label, address and scope', () => {
  assert.equal(hex(encodeSocketAddress('fd00::1', 80, 6)), '0a00005000000000fd00000000000000000000000000000100000000');
});

test('an IPv4 address for an IPv6 socket is mapped', () => {
  assert.equal(hex(encodeSocketAddress('10.1.2.3', 80, 6)), '0a0000500000000000000000000000000000ffff0a01020300000000');
});

test('a mapped address is read as IPv4', () => {
  const sockaddr = Buffer.from('0a0000500000000000000000000000000000ffff0a01020300000000', 'hex');
  assert.deepEqual(decodeSocketAddress(sockaddr), { ip: '10.1.2.3', port: 80 });
});

test('an IPv6 address for an IPv4 socket, and text that is no address, are refused by name', () => {
  assert.throws(() => encodeSocketAddress('fd00::1', 80, 4), /fd00::1 is IPv6/);
  assert.throws(() => encodeSocketAddress('example.com', 80, 4), /not an IP address: "example.com"/);
});

test('every address and port comes back', () => {
  const address = fc.oneof(fc.uint8Array({ minLength: 4, maxLength: 4 }), fc.uint8Array({ minLength: 16, maxLength: 16 }));
  fc.assert(
    fc.property(address, fc.integer({ min: 0, max: 65535 }), (bytes, port) => {
      const ip = ipFromBytes(bytes);
      assert.ok(ip);
      assert.deepEqual(decodeSocketAddress(encodeSocketAddress(ip, port, ip.includes(':') ? 6 : 4)), { ip, port });
    }),
  );
});

test('bytes that are no internet address decode to nothing, at any length', () => {
  assert.equal(decodeSocketAddress(Buffer.from('01002f746d7000000000000000000000', 'hex')), undefined);
  for (let length = 0; length < 16; length++) assert.equal(decodeSocketAddress(Buffer.from('0200', 'hex').subarray(0, length)), undefined);
});

test('a unix path that the kernel would cut off is refused', () => {
  assert.equal(encodeUnixAddress('/a').subarray(0, 5).toString('hex'), '01002f6100');
  assert.throws(() => encodeUnixAddress(`/${'x'.repeat(107)}`), /107 bytes, this one 108/);
  assert.throws(() => encodeUnixAddress(''), /this one 0/);
  assert.throws(() => encodeUnixAddress('/a\0b'), RangeError);
});
