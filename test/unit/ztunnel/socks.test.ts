/** SOCKS 5 as bytes, and the authority that proves nothing. */
import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { test } from 'node:test';
import { hours } from '../../../common/base/clock.ts';
import { fakeCaSource } from '../../../common/certificates/fake-ca.ts';
import { readGreeting, readRequest, socksAnswer, socksReplies } from '../../../ztunnel/outbound/socks-messages.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(' ', ''), 'hex');

test('a greeting is read at every cut, and its bytes are counted', () => {
  const greeting = hex('05 02 02 00');
  for (let cut = 0; cut < greeting.length; cut++) assert.deepEqual(readGreeting(greeting.subarray(0, cut)), { next: 'more' });
  assert.deepEqual(readGreeting(Buffer.concat([greeting, hex('05 01')])), { next: 'request', used: 4 });
});

test('a client that wants another version, or to prove who it is, is told so', () => {
  for (const [bytes, reason] of [
    ['04 01', /version 4/],
    ['05 01 02', /authentication/],
    ['05 00', /authentication/],
  ] as const) {
    const step = readGreeting(hex(bytes));
    assert.ok(step.next === 'refuse');
    assert.match(step.reason, reason);
    assert.deepEqual(step.answer, hex('05 ff'));
  }
});

test('requests name an address of either family or a hostname, at every cut', () => {
  for (const [bytes, host] of [
    ['05 01 00 01 0a 00 00 01 1f 90', { ip: '10.0.0.1' }],
    ['05 01 00 04 fd00 0000 0000 0000 0000 0000 0000 0001 1f 90', { ip: 'fd00::1' }],
    [`05 01 00 03 06 ${Buffer.from('orders').toString('hex')} 1f 90`, { name: 'orders' }],
  ] as const) {
    const request = hex(bytes);
    for (let cut = 0; cut < request.length; cut++) assert.deepEqual(readRequest(request.subarray(0, cut)), { next: 'more' }, bytes);
    const expected = { next: 'connect', used: request.length, target: { host, port: 8080 } };
    assert.deepEqual(readRequest(Buffer.concat([request, Buffer.from('early')])), expected);
  }
});

test('what is no CONNECT is answered with the code that says why', () => {
  for (const [bytes, reply] of [
    ['04 01 00 01', 'FAILED'],
    ['05 02 00 01', 'COMMAND_NOT_SUPPORTED'],
    ['05 01 00 09', 'ADDRESS_NOT_SUPPORTED'],
    ['05 01 00 03 01 20 00 50', 'FAILED'],
    ['05 01 00 03 00 00 50', 'FAILED'],
  ] as const) {
    const step = readRequest(hex(bytes));
    assert.ok(step.next === 'refuse', bytes);
    assert.deepEqual(step.answer, socksAnswer(socksReplies[reply]), bytes);
  }
});

test('proxies with FAKE_CA trust what any of them has issued', async () => {
  const clock = new FakeClock();
  const [one, other] = [fakeCaSource(clock, hours(24)), fakeCaSource(clock, hours(24))];
  const id = 'spiffe://cluster.local/ns/shop/sa/a';
  const [a, b] = await Promise.all([one.fetch(id), other.fetch(id)]);
  assert.equal(a.identity, id);
  assert.equal(a.notAfter - clock.now(), hours(24));
  const root = new X509Certificate(b.roots);
  const leaf = new X509Certificate(a.chain);
  assert.ok(leaf.verify(root.publicKey) && leaf.checkIssued(root));
  assert.equal(leaf.subjectAltName, `URI:${id}`);
});
