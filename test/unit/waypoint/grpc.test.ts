import assert from 'node:assert/strict';
import { test } from 'node:test';
import { GrpcMessages } from '../../../waypoint/http/grpc.ts';

const message = (bytes: number): Buffer => {
  const prefixed = Buffer.alloc(5 + bytes, 0xff);
  prefixed[0] = 0;
  prefixed.writeUInt32BE(bytes, 1);
  return prefixed;
};

for (const chunkBytes of [1, 2, 3, 4, 5, 6, 7, 64, 1000]) {
  test(`messages are counted in chunks of ${chunkBytes} bytes, empty ones and one that never ends included`, () => {
    const body = Buffer.concat([message(0), message(1), message(300), message(0), message(0), message(70_000).subarray(0, 100)]);
    const messages = new GrpcMessages();
    for (let at = 0; at < body.length; at += chunkBytes) messages.data(body.subarray(at, at + chunkBytes));
    assert.equal(messages.count, 6);
  });
}

test('half a prefix is no message yet', () => {
  const messages = new GrpcMessages();
  messages.data(message(9).subarray(0, 4));
  assert.equal(messages.count, 0);
});
