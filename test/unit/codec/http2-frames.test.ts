import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ErrorCode } from '../../../common/codec/http2/errors.ts';
import {
  CONNECTION_PREFACE,
  Flag,
  FrameType,
  frame,
  goawayFrame,
  headerFrames,
  pingFrame,
  rstStreamFrame,
  settingsAckFrame,
  settingsFrame,
  windowUpdateFrame,
} from '../../../common/codec/http2/frames.ts';
import { applySettings, defaultPeerSettings } from '../../../common/codec/http2/settings.ts';
import { ReceiveWindow, SendWindow } from '../../../common/codec/http2/windows.ts';
import { decodeFrames } from '../../support/frame-recorder.ts';

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(/\s/g, ''), 'hex');
const SETTINGS = hex('000000 04 00 00000000');

/** The events after the SETTINGS that every connection begins with, the same at every chunk size. */
function events(bytes: Buffer, options = {}): string[] {
  const all = Buffer.concat([SETTINGS, bytes]);
  const whole = decodeFrames(all, all.length, options);
  for (let size = 1; size < Math.min(all.length, 70); size++)
    assert.deepEqual(decodeFrames(all, size, options), whole, `chunks of ${size}`);
  return whole.slice(1);
}

const VECTORS: [name: string, bytes: string, events: string[]][] = [
  ['DATA', '000003 00 00 00000001 616263', ['data 1 of 3: 616263 padding 0']],
  ['DATA with END_STREAM', '000001 00 01 00000003 ff', ['data 3 of 1: ff padding 0 end']],
  ['empty DATA', '000000 00 01 00000003', ['data 3 of 0:  padding 0 end']],
  ['padded DATA', '000006 00 09 00000001 02 616263 0000', ['data 1 of 6: 616263 padding 3 end']],
  ['DATA that is all padding', '000003 00 08 00000001 02 0000', ['data 1 of 3:  padding 3']],
  ['DATA with a padding of no bytes', '000002 00 08 00000001 00 61', ['data 1 of 2: 61 padding 1']],
  ['HEADERS', '000001 01 04 00000001 82', ['headers 1: 82']],
  ['HEADERS with a reserved bit set', '000001 01 05 80000001 82', ['headers 1: 82 end']],
  ['HEADERS with padding and priority', '000009 01 2d 00000005 02 80000003 10 82 0000', ['headers 5: 82 end']],
  ['HEADERS and CONTINUATION', '000001 01 01 00000001 82 000001 09 00 00000001 86 000000 09 04 00000001', ['headers 1: 8286 end']],
  ['an empty header block', '000000 01 04 00000001', ['headers 1: ']],
  ['PRIORITY', '000005 02 00 00000007 0000000110', ['ignored 2']],
  ['RST_STREAM', '000004 03 00 00000001 00000008', ['rst 1 8']],
  ['SETTINGS', '00000c 04 00 00000000 000300000064 000400400000', ['settings 3=100 4=4194304']],
  ['SETTINGS with ACK', '000000 04 01 00000000', ['settings ack']],
  ['PING', '000008 06 00 00000000 0102030405060708', ['ping 0102030405060708']],
  ['PING with ACK', '000008 06 01 00000000 0102030405060708', ['ping 0102030405060708 ack']],
  ['GOAWAY', '00000b 07 00 00000000 7fffffff 00000002 627567', ['goaway 2147483647 2 bug']],
  ['WINDOW_UPDATE', '000004 08 00 00000000 80000400', ['window 0 1024']],
  ['a frame of an unknown type', '000003 fe ff 00000000 010203 000004 08 00 00000001 00000001', ['ignored 254', 'window 1 1']],
  ['WINDOW_UPDATE by 0 on a stream', '000004 08 00 00000003 00000000', ['stream error 3 1 WINDOW_UPDATE by 0']],
  ['PRIORITY of a wrong size', '000004 02 00 00000003 00000000', ['ignored 2', 'stream error 3 6 PRIORITY of 4 bytes']],
];
for (const [name, bytes, expected] of VECTORS) {
  test(`the frame decoder reads ${name} at every chunk size`, () => assert.deepEqual(events(hex(bytes)), expected));
}

const VIOLATIONS: [name: string, bytes: string, code: keyof typeof ErrorCode][] = [
  ['DATA on stream 0', '000000 00 00 00000000', 'PROTOCOL_ERROR'],
  ['padding as long as the DATA frame', '000003 00 08 00000001 03 0000', 'PROTOCOL_ERROR'],
  ['padded DATA without a length of padding', '000000 00 08 00000001', 'FRAME_SIZE_ERROR'],
  ['HEADERS on stream 0', '000001 01 04 00000000 82', 'PROTOCOL_ERROR'],
  ['padding longer than the HEADERS frame', '000002 01 0c 00000001 05 82', 'PROTOCOL_ERROR'],
  ['padded HEADERS without a length of padding', '000000 01 0c 00000001', 'FRAME_SIZE_ERROR'],
  ['HEADERS too short for their priority', '000004 01 24 00000001 00000000', 'FRAME_SIZE_ERROR'],
  ['HEADERS whose stream depends on itself', '000006 01 24 00000001 00000001 10 82', 'PROTOCOL_ERROR'],
  ['PRIORITY of a stream that depends on itself', '000005 02 00 00000003 8000000310', 'PROTOCOL_ERROR'],
  ['PRIORITY on stream 0', '000005 02 00 00000000 0000000110', 'PROTOCOL_ERROR'],
  ['RST_STREAM on stream 0', '000004 03 00 00000000 00000008', 'PROTOCOL_ERROR'],
  ['RST_STREAM of a wrong size', '000003 03 00 00000001 000008', 'FRAME_SIZE_ERROR'],
  ['SETTINGS on a stream', '000000 04 00 00000001', 'PROTOCOL_ERROR'],
  ['SETTINGS of a wrong size', '000005 04 00 00000000 0003000000', 'FRAME_SIZE_ERROR'],
  ['SETTINGS with ACK and a payload', '000006 04 01 00000000 000300000064', 'FRAME_SIZE_ERROR'],
  ['PUSH_PROMISE', '000005 05 04 00000001 00000002 82', 'PROTOCOL_ERROR'],
  ['PING on a stream', '000008 06 00 00000001 0102030405060708', 'PROTOCOL_ERROR'],
  ['PING of a wrong size', '000007 06 00 00000000 01020304050607', 'FRAME_SIZE_ERROR'],
  ['GOAWAY on a stream', '000008 07 00 00000001 0000000000000000', 'PROTOCOL_ERROR'],
  ['GOAWAY of a wrong size', '000007 07 00 00000000 00000000000000', 'FRAME_SIZE_ERROR'],
  ['WINDOW_UPDATE of a wrong size', '000003 08 00 00000000 000001', 'FRAME_SIZE_ERROR'],
  ['WINDOW_UPDATE by 0 on the connection', '000004 08 00 00000000 00000000', 'PROTOCOL_ERROR'],
  ['CONTINUATION without HEADERS', '000001 09 04 00000001 82', 'PROTOCOL_ERROR'],
  ['another frame inside a header block', '000001 01 00 00000001 82 000000 00 00 00000001', 'PROTOCOL_ERROR'],
  ['an unknown frame inside a header block', '000001 01 00 00000001 82 000000 fe 00 00000001', 'PROTOCOL_ERROR'],
  ["another stream's CONTINUATION", '000001 01 00 00000001 82 000001 09 04 00000003 82', 'PROTOCOL_ERROR'],
  ['a frame larger than we accept', '100001 00 00 00000001', 'FRAME_SIZE_ERROR'],
];
for (const [name, bytes, code] of VIOLATIONS) {
  test(`the frame decoder ends the connection with ${code} for ${name}`, () => {
    assert.equal(events(hex(bytes)).at(-1), `error ${ErrorCode[code]}`);
  });
}

test('the frame decoder takes a connection preface that comes byte by byte, and nothing else in its place', () => {
  const good = Buffer.concat([CONNECTION_PREFACE, SETTINGS]);
  for (const size of [1, 2, 23, 24, 25]) assert.deepEqual(decodeFrames(good, size, { expectPreface: true }), ['settings ']);
  for (let i = 0; i < CONNECTION_PREFACE.length; i++) {
    const bad = Buffer.from(good);
    bad[i] = (bad[i] ?? 0) ^ 1;
    assert.deepEqual(decodeFrames(bad, 1, { expectPreface: true }), ['error 1']);
  }
  assert.deepEqual(decodeFrames(Buffer.from('GET / HTTP/1.1\r\n\r\n'), 5, { expectPreface: true }), ['error 1']);
});

test('the frame decoder wants SETTINGS first, and not their acknowledgement', () => {
  assert.deepEqual(decodeFrames(hex('000008 06 00 00000000 0102030405060708'), 64), ['error 1']);
  assert.deepEqual(decodeFrames(hex('000000 04 01 00000000'), 64), ['error 1']);
});

test('the frame decoder limits a header block by bytes and by CONTINUATION frames', () => {
  const block = Buffer.alloc(300, 0x82);
  const limits = { maxHeaderBlock: 300, maxContinuations: 2 };
  assert.equal(events(headerFrames(1, block, false, 100), limits).length, 1);
  assert.deepEqual(events(headerFrames(1, Buffer.alloc(301, 0x82), false, 16384), limits), ['error 11']);
  assert.deepEqual(events(headerFrames(1, Buffer.alloc(301, 0x82), false, 151), limits), ['error 11']);
  assert.deepEqual(events(headerFrames(1, block, false, 99), limits), ['error 11']);
  const empty = Buffer.concat([frame(FrameType.HEADERS, 0, 1), ...Array.from({ length: 3 }, () => frame(FrameType.CONTINUATION, 0, 1))]);
  assert.deepEqual(events(empty, limits), ['error 11']);
});

test('the frame decoder keeps no more than the beginning of a long GOAWAY', () => {
  const long = frame(FrameType.GOAWAY, 0, 0, Buffer.concat([Buffer.alloc(8), Buffer.alloc(100_000, 'x')]));
  for (const size of [1000, 200_000]) {
    const [event] = decodeFrames(Buffer.concat([SETTINGS, long]), size).slice(1);
    assert.equal(event, `goaway 0 0 ${'x'.repeat(256)}`);
  }
});

test('the frame decoder hands DATA on as it arrives', () => {
  const seen = decodeFrames(Buffer.concat([SETTINGS, frame(FrameType.DATA, 0, 1, Buffer.alloc(10)).subarray(0, 14)]), 64);
  assert.deepEqual(seen, ['settings '], 'a frame that is not complete is no frame yet');
});

test('what the writers write is what the decoder reads', () => {
  const all = Buffer.concat([
    settingsFrame([[4, 4 << 20]]),
    settingsAckFrame(),
    pingFrame(Buffer.from('12345678'), true),
    goawayFrame(5, ErrorCode.ENHANCE_YOUR_CALM, 'too much'),
    rstStreamFrame(7, ErrorCode.CANCEL),
    windowUpdateFrame(9, 0x7fffffff),
    headerFrames(11, Buffer.from('8286', 'hex'), true, 1),
  ]);
  assert.deepEqual(decodeFrames(all, 7), [
    'settings 4=4194304',
    'settings ack',
    'ping 3132333435363738 ack',
    'goaway 5 11 too much',
    'rst 7 8',
    'window 9 2147483647',
    'headers 11: 8286 end',
  ]);
});

test('any sequence of frames means the same however it is cut', () => {
  const anyFrame = fc.record({
    type: fc.constantFrom(FrameType.DATA, FrameType.HEADERS, FrameType.PING, FrameType.WINDOW_UPDATE, FrameType.RST_STREAM, 0x20),
    stream: fc.integer({ min: 0, max: 9 }),
    flags: fc.constantFrom(0, Flag.END_STREAM, Flag.PADDED, Flag.END_HEADERS | Flag.PRIORITY, Flag.END_HEADERS),
    payload: fc.uint8Array({ maxLength: 40 }),
  });
  fc.assert(
    fc.property(fc.array(anyFrame, { maxLength: 6 }), fc.integer({ min: 1, max: 60 }), (frames, size) => {
      const bytes = Buffer.concat([SETTINGS, ...frames.map(({ type, flags, stream, payload }) => frame(type, flags, stream, payload))]);
      assert.deepEqual(decodeFrames(bytes, size), decodeFrames(bytes, bytes.length));
    }),
  );
});

test('settings are applied in order, unknown ones are ignored, and values out of range are refused with their code', () => {
  const after = applySettings(defaultPeerSettings, [
    [1, 0],
    [3, 7],
    [4, 1],
    [4, 2],
    [5, 1 << 20],
    [6, 9],
    [0x99, 1],
  ]);
  assert.deepEqual(after, {
    headerTableSize: 0,
    enablePush: true,
    maxConcurrentStreams: 7,
    initialWindowSize: 2,
    maxFrameSize: 1 << 20,
    maxHeaderListSize: 9,
  });
  const code = (id: number, value: number) => {
    try {
      applySettings(defaultPeerSettings, [[id, value]]);
    } catch (error) {
      return error instanceof Error && 'code' in error ? error.code : undefined;
    }
    return undefined;
  };
  assert.equal(code(2, 2), ErrorCode.PROTOCOL_ERROR);
  assert.equal(code(4, 0x80000000), ErrorCode.FLOW_CONTROL_ERROR);
  assert.equal(code(5, 16383), ErrorCode.PROTOCOL_ERROR);
  assert.equal(code(5, 1 << 24), ErrorCode.PROTOCOL_ERROR);
});

test('a receive window announces half of itself at a time and notices what is too much', () => {
  const window = new ReceiveWindow(100);
  assert.equal(window.receive(100), true);
  assert.equal(window.release(49), 0);
  assert.equal(window.release(1), 50);
  assert.equal(window.receive(50), true);
  assert.equal(window.receive(1), false);
});

test('a send window may shrink below zero but not grow beyond 2^31-1', () => {
  const window = new SendWindow(10);
  assert.equal(window.grow(-20), true);
  assert.equal(window.available, -10);
  assert.equal(window.grow(0x7fffffff), true);
  assert.equal(window.grow(11), false);
});
