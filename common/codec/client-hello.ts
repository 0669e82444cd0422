/** The server name that a TLS client asks for, from the first bytes it sends (RFC 8446, section 4.1.2; RFC 6066, section 3). Nothing is taken. */

export interface ClientHello {
  /** In lower case; undefined where the client names none. */
  readonly serverName: string | undefined;
}

/** Longest hello that is waited for: a record's length; with post-quantum keys they are about 2 kB. */
const MAX_HELLO = 16 << 10;
const HANDSHAKE = 22;
const CLIENT_HELLO = 1;
const SERVER_NAME = 0;
const HOST_NAME = 0;

/** @returns undefined where more bytes are needed to tell, 'none' for what is no client hello */
export function readClientHello(bytes: Buffer): ClientHello | 'none' | undefined {
  const message = handshakeBytes(bytes);
  if (message === undefined || message === 'none') return message;
  if (message.length < 4) return undefined;
  if (message[0] !== CLIENT_HELLO) return 'none';
  const length = message.readUIntBE(1, 3);
  if (length > MAX_HELLO) return 'none';
  if (message.length < 4 + length) return undefined;
  return { serverName: serverNameOf(new Reader(message.subarray(4, 4 + length))) };
}

/** The handshake's bytes out of the records that carry them: a hello may be in several. */
function handshakeBytes(bytes: Buffer): Buffer | 'none' | undefined {
  const pieces: Buffer[] = [];
  let at = 0;
  while (at < bytes.length) {
    if (bytes[at] !== HANDSHAKE) return at === 0 ? 'none' : Buffer.concat(pieces);
    if (at + 5 > bytes.length) break;
    if (bytes[at + 1] !== 3) return 'none';
    const length = bytes.readUInt16BE(at + 3);
    if (length === 0 || length > MAX_HELLO + 256) return 'none';
    pieces.push(bytes.subarray(at + 5, at + 5 + length));
    at += 5 + length;
  }
  return pieces.length === 0 ? undefined : Buffer.concat(pieces);
}

function serverNameOf(hello: Reader): string | undefined {
  // Version and random; session id, cipher suites, compression methods.
  hello.skip(34);
  hello.vector(1);
  hello.vector(2);
  hello.vector(1);
  const extensions = hello.vector(2);
  while (extensions && extensions.left > 0) {
    const type = extensions.number(2);
    const content = extensions.vector(2);
    if (type === undefined || !content) return undefined;
    if (type !== SERVER_NAME) continue;
    const list = content.vector(2);
    const kind = list?.number(1);
    const name = list?.vector(2)?.text();
    return kind === HOST_NAME && name !== undefined && /^[A-Za-z0-9._-]{1,255}$/.test(name)
      ? name.toLowerCase().replace(/\.$/, '')
      : undefined;
  }
  return undefined;
}

/** Reads within its bytes; beyond them everything is undefined. */
class Reader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get left(): number {
    return this.#bytes.length - this.#at;
  }

  skip(length: number): void {
    this.#at = Math.min(this.#bytes.length, this.#at + length);
  }

  number(length: 1 | 2): number | undefined {
    if (this.left < length) return undefined;
    const value = this.#bytes.readUIntBE(this.#at, length);
    this.#at += length;
    return value;
  }

  /** What a length of so many bytes goes before. */
  vector(lengthBytes: 1 | 2): Reader | undefined {
    const length = this.number(lengthBytes);
    if (length === undefined || length > this.left) {
      this.#at = this.#bytes.length;
      return undefined;
    }
    const content = new Reader(this.#bytes.subarray(this.#at, this.#at + length));
    this.#at += length;
    return content;
  }

  text(): string {
    return this.#bytes.toString('latin1', this.#at);
  }
}
