/** The numbers of HTTP/2 frames, and the writing of them. Frames are written in place: whoever owns the output buffer makes the room. */

/** Bytes in front of every payload (RFC 9113, section 4.1). */
export const FRAME_HEADER_BYTES = 9;
/** What a client sends first (RFC 9113, section 3.4). */
export const CONNECTION_PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1');
/** Flow-control window and frame size before SETTINGS say otherwise, and the largest window there can be (sections 6.5.2, 6.9.1). */
export const DEFAULT_WINDOW = 65_535;
export const DEFAULT_FRAME_SIZE = 16_384;
export const LARGEST_WINDOW = 0x7fffffff;
export const LARGEST_FRAME_SIZE = 0xffffff;
export const LARGEST_STREAM_ID = 0x7fffffff;

export const FrameType = {
  DATA: 0x0,
  HEADERS: 0x1,
  PRIORITY: 0x2,
  RST_STREAM: 0x3,
  SETTINGS: 0x4,
  PUSH_PROMISE: 0x5,
  PING: 0x6,
  GOAWAY: 0x7,
  WINDOW_UPDATE: 0x8,
  CONTINUATION: 0x9,
} as const;

export const Flag = { END_STREAM: 0x1, ACK: 0x1, END_HEADERS: 0x4, PADDED: 0x8, PRIORITY: 0x20 } as const;

export const Setting = {
  HEADER_TABLE_SIZE: 0x1,
  ENABLE_PUSH: 0x2,
  MAX_CONCURRENT_STREAMS: 0x3,
  INITIAL_WINDOW_SIZE: 0x4,
  MAX_FRAME_SIZE: 0x5,
  MAX_HEADER_LIST_SIZE: 0x6,
} as const;

/** Identifier and value, in the order of the frame; identifiers that the RFC does not name are among them. */
export type SettingEntries = readonly (readonly [id: number, value: number])[];

/** Writes the nine bytes at `at`. */
export function writeFrameHeader(out: Buffer, at: number, length: number, type: number, flags: number, streamId: number): void {
  out[at] = length >>> 16;
  out[at + 1] = length >>> 8;
  out[at + 2] = length;
  out[at + 3] = type;
  out[at + 4] = flags;
  writeUint32(out, at + 5, streamId);
}

export function writeUint32(out: Buffer, at: number, value: number): void {
  out[at] = value >>> 24;
  out[at + 1] = value >>> 16;
  out[at + 2] = value >>> 8;
  out[at + 3] = value;
}

/** A frame of its own buffer: for the rare ones (SETTINGS, PING, GOAWAY) and for tests. */
export function frame(type: number, flags: number, streamId: number, payload: Uint8Array = new Uint8Array(0)): Buffer {
  const out = Buffer.allocUnsafe(FRAME_HEADER_BYTES + payload.length);
  writeFrameHeader(out, 0, payload.length, type, flags, streamId);
  out.set(payload, FRAME_HEADER_BYTES);
  return out;
}

export function settingsFrame(entries: SettingEntries): Buffer {
  const payload = Buffer.allocUnsafe(entries.length * 6);
  entries.forEach(([id, value], i) => {
    payload.writeUInt16BE(id, i * 6);
    writeUint32(payload, i * 6 + 2, value);
  });
  return frame(FrameType.SETTINGS, 0, 0, payload);
}

export const settingsAckFrame = (): Buffer => frame(FrameType.SETTINGS, Flag.ACK, 0);

/** @param opaque exactly eight bytes */
export const pingFrame = (opaque: Uint8Array, ack: boolean): Buffer => frame(FrameType.PING, ack ? Flag.ACK : 0, 0, opaque);

/** @param debug text for whoever reads the peer's log; cut at 256 bytes */
export function goawayFrame(lastStreamId: number, code: number, debug = ''): Buffer {
  const text = Buffer.from(debug, 'utf8').subarray(0, 256);
  const payload = Buffer.allocUnsafe(8 + text.length);
  writeUint32(payload, 0, lastStreamId);
  writeUint32(payload, 4, code);
  payload.set(text, 8);
  return frame(FrameType.GOAWAY, 0, 0, payload);
}

export const rstStreamFrame = (streamId: number, code: number): Buffer => frame(FrameType.RST_STREAM, 0, streamId, uint32(code));

export const windowUpdateFrame = (streamId: number, increment: number): Buffer =>
  frame(FrameType.WINDOW_UPDATE, 0, streamId, uint32(increment));

/** HEADERS, and as many CONTINUATION frames as the peer's frame size makes necessary. */
export function headerFrames(streamId: number, block: Buffer, endStream: boolean, maxFrameSize: number): Buffer {
  const pieces = Math.max(1, Math.ceil(block.length / maxFrameSize));
  const out = Buffer.allocUnsafe(block.length + pieces * FRAME_HEADER_BYTES);
  let at = 0;
  for (let i = 0; i < pieces; i++) {
    const piece = block.subarray(i * maxFrameSize, (i + 1) * maxFrameSize);
    const flags = (i === pieces - 1 ? Flag.END_HEADERS : 0) | (i === 0 && endStream ? Flag.END_STREAM : 0);
    writeFrameHeader(out, at, piece.length, i === 0 ? FrameType.HEADERS : FrameType.CONTINUATION, flags, streamId);
    out.set(piece, at + FRAME_HEADER_BYTES);
    at += FRAME_HEADER_BYTES + piece.length;
  }
  return out;
}

function uint32(value: number): Buffer {
  const out = Buffer.allocUnsafe(4);
  writeUint32(out, 0, value);
  return out;
}
