import assert from 'node:assert/strict';
import { Duplex } from 'node:stream';
import { test } from 'node:test';
import fc from 'fast-check';
import { ByteQueue, heldPieces } from '../../../common/hbone/byte-queue.ts';
import { FloodGuard } from '../../../common/hbone/flood-guard.ts';
import { Outbox } from '../../../common/hbone/outbox.ts';
import { borrowReadBuffer, lentReadBuffers, returnReadBuffer, sharedReadBuffer } from '../../../common/hbone/read-buffers.ts';
import { handling, holderOf, ReceiveBuffer } from '../../../common/hbone/receive-buffers.ts';
import { parseRefusal, TunnelRefused } from '../../../common/hbone/refusal.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { settle } from '../../support/tunnels.ts';

test('a byte queue gives back what it was given, in order, whatever the pieces', () => {
  const step = fc.oneof(fc.record({ push: fc.integer({ min: 0, max: 5000 }) }), fc.constant('shift' as const));
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const queue = new ByteQueue();
      const pushed: Buffer[] = [];
      const shifted: Buffer[] = [];
      for (const next of steps) {
        if (next === 'shift') queue.shift((bytes) => shifted.push(bytes));
        else {
          const bytes = Buffer.alloc(next.push, pushed.length);
          pushed.push(Buffer.from(bytes));
          queue.push(bytes);
          // What is small is copied: its owner may write to it again.
          if (bytes.length < 2048) bytes.fill(0xee);
        }
      }
      while (queue.shift((bytes) => shifted.push(bytes)));
      assert.ok(Buffer.concat(shifted).equals(Buffer.concat(pushed)));
      assert.equal(queue.length, 0);
    }),
  );
});

test('a byte queue joins small pieces', () => {
  const queue = new ByteQueue();
  for (let i = 0; i < 10_000; i++) queue.push(Buffer.of(i));
  assert.equal(queue.length, 10_000);
  let length = 0;
  while (
    queue.shift((bytes) => {
      length += bytes.length;
      assert.equal(bytes.length, 10_000);
    })
  );
  assert.equal(length, 10_000);
});

test('a byte queue holds large pieces instead of copying them, up to a limit, and lets go when they are taken or dropped', () => {
  const buffer = new ReceiveBuffer();
  const queue = new ByteQueue();
  const before = handling(buffer);
  const piece = buffer.bytes.subarray(0, 16 << 10).fill('a');
  for (let i = 0; i < 600; i++) queue.push(piece);
  handling(before);
  assert.equal(heldPieces(), 512);
  piece.fill('b');
  const seen: string[] = [];
  // Whoever is handed a piece can hold it in turn, be it the buffer's or the queue's own.
  while (queue.shift((bytes) => seen.push(`${bytes[0]} ${bytes.length} ${holderOf(bytes) !== undefined}`)));
  assert.deepEqual(new Set(seen.slice(0, 512)), new Set([`${'b'.charCodeAt(0)} 16384 true`]));
  assert.deepEqual(new Set(seen.slice(512)), new Set([`${'a'.charCodeAt(0)} 16384 true`]));
  assert.equal(heldPieces(), 0);
  assert.ok(buffer.free);
  handling(buffer);
  for (let i = 0; i < 10; i++) queue.push(piece);
  handling(before);
  assert.ok(!buffer.free);
  queue.shift(() => undefined);
  queue.clear();
  assert.ok(buffer.free);
  assert.deepEqual([heldPieces(), queue.length], [0, 0]);
});

test("read buffers are lent up to a limit, and the shared one is nobody's to give back", () => {
  const lent = [];
  for (let buffer = borrowReadBuffer(); buffer; buffer = borrowReadBuffer()) lent.push(buffer);
  assert.equal(lent.length, 512);
  returnReadBuffer(sharedReadBuffer);
  assert.equal(lentReadBuffers(), 512);
  for (const buffer of lent) returnReadBuffer(buffer);
  assert.equal(lentReadBuffers(), 0);
});

test('a read buffer that is held stays on loan after it was given back, until it is released', () => {
  const buffer = borrowReadBuffer();
  assert.ok(buffer);
  buffer.hold();
  buffer.hold();
  buffer.release();
  returnReadBuffer(buffer);
  assert.equal(lentReadBuffers(), 1);
  buffer.release();
  assert.equal(lentReadBuffers(), 0);
  const again = borrowReadBuffer();
  assert.equal(again, buffer);
  again.hold();
  again.release();
  assert.equal(lentReadBuffers(), 1);
  returnReadBuffer(again);
  assert.equal(lentReadBuffers(), 0);
});

test('a receive buffer is used again only when its connection and all holders have let go', () => {
  const buffer = new ReceiveBuffer();
  buffer.hold();
  buffer.hold();
  buffer.release();
  assert.equal(buffer.free, false);
  buffer.giveBack();
  buffer.release();
  assert.equal(buffer.free, true);
});

class Recorder extends Duplex {
  readonly writes: string[] = [];
  override _read(): void {}
  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.writes.push(chunk.toString('latin1'));
    done();
  }
}

test('frames of one turn leave in one write; with a single stream those of one call do', async () => {
  const socket = new Recorder();
  const outbox = new Outbox(socket);
  outbox.eager = false;
  for (const text of ['a', 'b', 'c']) outbox.frame(Buffer.from(text));
  assert.deepEqual(socket.writes, []);
  await settle(1);
  outbox.eager = true;
  for (const text of ['d', 'e']) outbox.frame(Buffer.from(text));
  await undefined;
  outbox.frame(Buffer.from('f'));
  await undefined;
  assert.deepEqual(socket.writes, ['abc', 'de', 'f']);
});

test('connections that write in the same turn do not mix their frames, and order is kept around large ones', async () => {
  const sockets = [new Recorder(), new Recorder()];
  const outboxes = sockets.map((socket) => new Outbox(socket));
  for (const outbox of outboxes) outbox.eager = false;
  for (let i = 0; i < 3; i++) for (const [j, outbox] of outboxes.entries()) outbox.frame(Buffer.from(`${j}${i}`));
  outboxes[0]?.data(1, Buffer.alloc(5000, 'x'), 0);
  outboxes[0]?.frame(Buffer.from('end'));
  await settle(1);
  assert.equal(sockets[1]?.writes.join(''), '101112');
  assert.equal(sockets[0]?.writes.join(''), `000102\0\x13\x88\0\0\0\0\0\x01${'x'.repeat(5000)}end`);
});

test('a frame larger than a slab leaves whole', async () => {
  const socket = new Recorder();
  new Outbox(socket).frame(Buffer.alloc(300_000, 'y'));
  await undefined;
  assert.equal(socket.writes.join('').length, 300_000);
});

test('memory of frames that have not left is not used again, however late they leave', async () => {
  const written: { readonly to: number; readonly bytes: Buffer; readonly done: () => void }[] = [];
  const slow = (to: number): Duplex =>
    new Duplex({
      writableHighWaterMark: 1 << 30,
      read() {},
      write: (bytes: Buffer, _encoding, done) => void written.push({ to, bytes, done }),
    });
  const outboxes = Array.from({ length: 7 }, (_, i) => new Outbox(slow(i)));
  const wanted = outboxes.map(() => '');
  const got = outboxes.map(() => '');
  const settleOne = (): void => {
    // The last one first, so that older ones wait longest.
    const one = written.pop();
    if (!one) return;
    got[one.to] += one.bytes.toString('latin1');
    one.done();
  };
  for (const outbox of outboxes) outbox.eager = false;
  for (let i = 0; i < 2000; i++) {
    const to = i % outboxes.length;
    const text = `${i};`.repeat(1 + ((i * 37) % 60));
    outboxes[to]?.frame(Buffer.from(text));
    wanted[to] += text;
    if (i % 40 === 0) outboxes[to]?.flush();
    if (i % 50 === 0) settleOne();
    if (i % 500 === 0) await settle(1);
  }
  for (const outbox of outboxes) outbox.flush();
  for (let i = 0; i < 20_000; i++) {
    if (written.length === 0) await settle(1);
    if (written.length === 0) break;
    settleOne();
  }
  assert.deepEqual(got, wanted);
});

test('a flood is counted by kind, and forgotten after ten seconds', async () => {
  const clock = new FakeClock();
  const guard = new FloodGuard(clock);
  for (let i = 0; i < 100; i++) guard.count('settings');
  guard.count('ping');
  await clock.advance(10_000);
  for (let i = 0; i < 100; i++) guard.count('settings');
  assert.throws(() => guard.count('settings'), { code: 11, message: 'more than 100 SETTINGS frames in 10 s' });
});

test("a refusal's reason is read generously, and only what is fit for a log line", () => {
  assert.deepEqual(parseRefusal('POLICY_DENIED; shop/payments; 0af7'), { code: 'POLICY_DENIED', policy: 'shop/payments', id: '0af7' });
  assert.deepEqual(parseRefusal('POLICY_DENIED;;0af7'), { code: 'POLICY_DENIED', policy: undefined, id: '0af7' });
  assert.deepEqual(parseRefusal('id=0af7; code = POLICY_DENIED ;more'), { code: 'POLICY_DENIED', policy: undefined, id: '0af7' });
  assert.deepEqual(parseRefusal('a b; \x1b[31m; é'), { code: undefined, policy: undefined, id: undefined });
  assert.equal(new TunnelRefused(401, [['x-warren-refusal', '']]).message, 'http status: 401 Unauthorized');
  assert.equal(new TunnelRefused(599, []).message, 'http status: 599');
});
