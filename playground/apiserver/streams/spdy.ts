/**
 * SPDY/3.1, the server's side, as far as kubectl's exec and port-forward speak it: streams that the client opens, data, FIN, RST, ping.
 * kubectl sends it after an HTTP upgrade, and newer ones inside a WebSocket. There is no flow control in it on either side; a stream that
 * nobody reads stops the whole connection, so memory stays bounded.
 */
import { Duplex } from 'node:stream';
import { createInflate, type Inflate, constants as zlib } from 'node:zlib';

const SYN_STREAM = 1;
const SYN_REPLY = 2;
const RST_STREAM = 3;
const PING = 6;
const GO_AWAY = 7;
const FIN = 1;
const CONTROL = 0x80;
const VERSION = 3;
const CANCEL = 5;
const REFUSED = 3;
const MAX_CONTROL_BYTES = 64 << 10;
const MAX_DATA_BYTES = 1 << 20;
const MAX_STREAMS = 1000;
const SENT_DATA_BYTES = 32 << 10;

const WORDS = `options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow authorization
cache-control connection content-base content-encoding content-language content-length content-location content-md5 content-range content-type
date etag expect expires from host if-match if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards
pragma proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade user-agent vary via warning
www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie keep-alive origin`;
const TAIL =
  '100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritative Information204 No Content' +
  '301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable' +
  'Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,' +
  'application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.';

/** The dictionary of SPDY/3's header compression: words with their lengths, then common values. */
export const SPDY_DICTIONARY = Buffer.concat([
  ...WORDS.split(/\s+/).flatMap((word) => [uint32(word.length), Buffer.from(word.replace('_', ' '))]),
  Buffer.from(TAIL),
]);

export class SpdyStream extends Duplex {
  readonly id: number;
  readonly headers: ReadonlyMap<string, string>;
  readonly #connection: SpdyConnection;

  constructor(id: number, headers: ReadonlyMap<string, string>, connection: SpdyConnection) {
    super({ allowHalfOpen: true });
    this.id = id;
    this.headers = headers;
    this.#connection = connection;
  }

  override _read(): void {
    this.#connection.resume();
  }

  override _write(chunk: Buffer, _encoding: string, callback: (error?: Error | null) => void): void {
    this.#connection.sendData(this.id, chunk, false, callback);
  }

  override _final(callback: (error?: Error | null) => void): void {
    this.#connection.sendData(this.id, Buffer.alloc(0), true, callback);
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#connection.forget(this.id, !(this.readableEnded && this.writableFinished));
    callback(error);
  }
}

export class SpdyConnection {
  readonly #carrier: Duplex;
  readonly #onStream: (stream: SpdyStream) => void;
  readonly #streams = new Map<number, SpdyStream>();
  readonly #inflate: Inflate;
  #received: Buffer = Buffer.alloc(0);
  #inflated: Buffer[] = [];
  #busy = false;
  #sentHeaders = false;

  /** @param carrier destroyed where the peer breaks the protocol; its end ends all streams */
  constructor(carrier: Duplex, onStream: (stream: SpdyStream) => void) {
    this.#carrier = carrier;
    this.#onStream = onStream;
    this.#inflate = createInflate({ dictionary: SPDY_DICTIONARY, flush: zlib.Z_SYNC_FLUSH });
    this.#inflate.on('data', (chunk: Buffer) => this.#inflated.push(chunk));
    this.#inflate.on('error', () => carrier.destroy());
    carrier.on('data', (chunk: Buffer) => {
      this.#received = this.#received.length > 0 ? Buffer.concat([this.#received, chunk]) : chunk;
      void this.#advance();
    });
    carrier.on('error', () => carrier.destroy());
    carrier.once('end', () => carrier.end());
    carrier.once('close', () => {
      this.#inflate.close();
      for (const stream of this.#streams.values()) stream.destroy();
    });
  }

  close(): void {
    this.#carrier.end();
  }

  resume(): void {
    if (this.#carrier.isPaused()) this.#carrier.resume();
  }

  sendData(id: number, data: Buffer, fin: boolean, callback: (error?: Error | null) => void): void {
    if (this.#carrier.destroyed || this.#carrier.writableEnded) {
      callback();
      return;
    }
    const frames: Buffer[] = [];
    for (let at = 0; at === 0 || at < data.length; at += SENT_DATA_BYTES) {
      const piece = data.subarray(at, at + SENT_DATA_BYTES);
      frames.push(Buffer.concat([uint32(id), flagsAndLength(fin && at + SENT_DATA_BYTES >= data.length ? FIN : 0, piece.length), piece]));
    }
    this.#carrier.write(Buffer.concat(frames), callback);
  }

  /** @param reset whether the peer still believes in it */
  forget(id: number, reset: boolean): void {
    if (this.#streams.delete(id) && reset) this.#control(RST_STREAM, 0, Buffer.concat([uint32(id), uint32(CANCEL)]));
  }

  async #advance(): Promise<void> {
    if (this.#busy) return;
    this.#busy = true;
    for (;;) {
      const buffer = this.#received;
      if (buffer.length < 8) break;
      const length = buffer.readUIntBE(5, 3);
      const isControl = ((buffer[0] ?? 0) & CONTROL) !== 0;
      if (length > (isControl ? MAX_CONTROL_BYTES : MAX_DATA_BYTES)) {
        this.#carrier.destroy(new Error('SPDY frame is too large'));
        return;
      }
      if (buffer.length < 8 + length) break;
      this.#received = buffer.subarray(8 + length);
      const payload = buffer.subarray(8, 8 + length);
      const flags = buffer[4] ?? 0;
      if (isControl) await this.#controlFrame(buffer.readUInt16BE(2), flags, payload);
      else this.#dataFrame(buffer.readUInt32BE(0), flags, payload);
    }
    this.#busy = false;
  }

  #dataFrame(id: number, flags: number, payload: Buffer): void {
    const stream = this.#streams.get(id);
    if (!stream) return;
    if (payload.length > 0 && !stream.push(payload)) this.#carrier.pause();
    if ((flags & FIN) !== 0) stream.push(null);
  }

  async #controlFrame(type: number, flags: number, payload: Buffer): Promise<void> {
    if (type === SYN_STREAM && payload.length >= 10) {
      const id = payload.readUInt32BE(0) & 0x7fffffff;
      // Headers are one compressed stream over the whole connection, so refused ones are read as well.
      const headers = parseHeaders(await this.#decompress(payload.subarray(10)));
      if (this.#streams.size >= MAX_STREAMS) this.#control(RST_STREAM, 0, Buffer.concat([uint32(id), uint32(REFUSED)]));
      else this.#open(id, headers, (flags & FIN) !== 0);
    } else if (type === RST_STREAM && payload.length >= 8) {
      const id = payload.readUInt32BE(0) & 0x7fffffff;
      const stream = this.#streams.get(id);
      this.#streams.delete(id);
      stream?.destroy();
    } else if (type === PING) this.#control(PING, 0, payload);
    else if (type === GO_AWAY) this.#carrier.end();
  }

  #open(id: number, headers: Map<string, string>, fin: boolean): void {
    const stream = new SpdyStream(id, headers, this);
    stream.on('error', () => stream.destroy());
    this.#streams.set(id, stream);
    this.#control(SYN_REPLY, 0, Buffer.concat([uint32(id), this.#emptyHeaders()]));
    if (fin) stream.push(null);
    this.#onStream(stream);
  }

  /** No headers, in a stored deflate block: it needs no compressor, only the zlib head once. */
  #emptyHeaders(): Buffer {
    // Four zero bytes, then the empty block of a sync flush, without which Go's reader takes the frame's end for the stream's.
    const block = Buffer.from([0, 4, 0, 0xfb, 0xff, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
    if (this.#sentHeaders) return block;
    this.#sentHeaders = true;
    return Buffer.concat([Buffer.from([0x78, 0xbb]), uint32(adler32(SPDY_DICTIONARY)), block]);
  }

  #decompress(bytes: Buffer): Promise<Buffer> {
    return new Promise((resolve) => {
      this.#inflated = [];
      this.#inflate.write(bytes, () => setImmediate(() => resolve(Buffer.concat(this.#inflated))));
    });
  }

  #control(type: number, flags: number, payload: Buffer): void {
    if (this.#carrier.destroyed || this.#carrier.writableEnded) return;
    this.#carrier.write(Buffer.concat([Buffer.from([CONTROL, VERSION, 0, type]), flagsAndLength(flags, payload.length), payload]));
  }
}

function parseHeaders(block: Buffer): Map<string, string> {
  const headers = new Map<string, string>();
  let at = 0;
  const number = (): number => {
    const value = at + 4 <= block.length ? block.readUInt32BE(at) : 0;
    at += 4;
    return value;
  };
  const text = (): string => {
    const length = number();
    at += length;
    return block.toString('utf8', at - length, at);
  };
  for (let left = Math.min(number(), 100); left > 0 && at < block.length; left--) {
    const name = text();
    headers.set(name.toLowerCase(), text());
  }
  return headers;
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value >>> 0);
  return bytes;
}

function flagsAndLength(flags: number, length: number): Buffer {
  const bytes = uint32(length);
  bytes[0] = flags;
  return bytes;
}

function adler32(bytes: Buffer): number {
  let a = 1;
  let b = 0;
  for (const byte of bytes) {
    a = (a + byte) % 65521;
    b = (b + a) % 65521;
  }
  return b * 65536 + a;
}
