/** DNS over TCP: each message behind its length (RFC 1035, section 4.2.2). */

/** Cuts a stream into messages. Keeps at most one message's bytes, which its length field limits to 65,535. */
export class DnsFramer {
  readonly #message: (message: Buffer) => void;
  #kept: Buffer = Buffer.alloc(0);

  constructor(message: (message: Buffer) => void) {
    this.#message = message;
  }

  push(chunk: Buffer): void {
    let bytes = this.#kept.length === 0 ? chunk : Buffer.concat([this.#kept, chunk]);
    while (bytes.length >= 2) {
      const end = 2 + bytes.readUInt16BE(0);
      if (bytes.length < end) break;
      this.#message(bytes.subarray(2, end));
      bytes = bytes.subarray(end);
    }
    this.#kept = bytes.length === 0 ? bytes : Buffer.from(bytes);
  }

  /** Bytes of a message that has not come as a whole. */
  get pending(): number {
    return this.#kept.length;
  }
}

/** @throws {RangeError} for a message beyond 65,535 bytes */
export function framed(message: Buffer): Buffer {
  if (message.length > 0xffff) throw new RangeError('a DNS message has at most 65535 bytes');
  const head = Buffer.alloc(2);
  head.writeUInt16BE(message.length);
  return Buffer.concat([head, message]);
}
