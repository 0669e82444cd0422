import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LinuxError } from '../../../common/linux/libc.ts';
import { attribute, attributeU32, findAttribute, unless } from '../../../common/linux/netlink.ts';

test('an attribute is length, type and value, padded to four bytes that the length does not count', () => {
  assert.equal(attribute(7, Buffer.from([1, 2, 3, 4, 5])).toString('hex'), '09000700' + '0102030405' + '000000');
  assert.equal(attributeU32(15, 0x539).toString('hex'), '08000f00' + '39050000');
  assert.equal(attribute(1, Buffer.alloc(0)).toString('hex'), '04000100');
});

test('an attribute is found behind others, whatever flags its type carries, and not where there is none', () => {
  const payload = Buffer.concat([Buffer.alloc(12), attribute(1, Buffer.from([9])), attributeU32(0x8000 | 15, 7), attributeU32(15, 8)]);
  assert.equal(findAttribute(payload, 12, 15)?.readUInt32LE(0), 7);
  assert.equal(findAttribute(payload, 12, 16), undefined);
});

test('attributes that are cut off or have no length end the search', () => {
  const whole = attributeU32(15, 7);
  assert.equal(findAttribute(whole.subarray(0, 3), 0, 15), undefined);
  assert.equal(findAttribute(Buffer.alloc(8), 0, 15), undefined);
  assert.equal(findAttribute(whole.subarray(0, 6), 0, 15)?.length, 2);
});

test('an answer that means that nothing was to be done is none; any other is thrown', () => {
  const failing = (errno: number) => () => {
    throw new LinuxError('netlink', errno);
  };
  unless(['EEXIST'], failing(17));
  assert.throws(() => unless(['EEXIST'], failing(1)), /EPERM/);
});
