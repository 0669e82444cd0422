/**
 * A spike: can the streams of a tunnel go on over another connection when theirs is cut? Each side numbers a stream's bytes, keeps what has
 * not been acknowledged, and after a reconnect sends again from where the other side says that it stands. `node
 * bench/programs/tunnel-resumption.ts [STREAMS] [CUTS] [MIB]` prints what came through and what it cost; docs/spikes.md says what follows.
 */
import { createHash } from 'node:crypto';
import net from 'node:net';

const HEAD = 16;
const CHUNK = 16 << 10;
/** Bytes of a stream that may be under way unacknowledged: what is kept for sending again. */
const KEPT = 256 << 10;
const ACK_EVERY = 64 << 10;
const DATA = 0;
const ACK = 1;
const RESUME = 2;

interface Frame {
  readonly kind: number;
  readonly stream: number;
  readonly offset: number;
  readonly bytes: Buffer;
}

function frame(kind: number, stream: number, offset: number, bytes: Buffer = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(HEAD);
  head.writeUInt8(kind, 0);
  head.writeUIntBE(stream, 1, 3);
  head.writeUIntBE(offset, 4, 6);
  head.writeUInt32BE(bytes.length, 12);
  return Buffer.concat([head, bytes]);
}

/** Cuts a connection's bytes into frames. */
function reader(take: (frame: Frame) => void): (chunk: Buffer) => void {
  let kept: Buffer = Buffer.alloc(0);
  return (chunk) => {
    kept = kept.length === 0 ? chunk : Buffer.concat([kept, chunk]);
    while (kept.length >= HEAD && kept.length >= HEAD + kept.readUInt32BE(12)) {
      const end = HEAD + kept.readUInt32BE(12);
      take({ kind: kept.readUInt8(0), stream: kept.readUIntBE(1, 3), offset: kept.readUIntBE(4, 6), bytes: kept.subarray(HEAD, end) });
      kept = kept.subarray(end);
    }
  };
}

/** The sending half of one stream: `sent` runs ahead of `acknowledged` by what is kept. */
class Sender {
  acknowledged = 0;
  sent = 0;
  resent = 0;
  readonly hash = createHash('sha256');
  #kept: Buffer[] = [];
  readonly #total: number;

  constructor(total: number) {
    this.#total = total;
  }

  get done(): boolean {
    return this.acknowledged === this.#total;
  }

  next(): { offset: number; bytes: Buffer } | undefined {
    if (this.sent >= this.#total || this.sent - this.acknowledged >= KEPT) return undefined;
    const bytes = Buffer.alloc(Math.min(CHUNK, this.#total - this.sent), this.sent & 0xff);
    this.hash.update(bytes);
    this.#kept.push(bytes);
    const offset = this.sent;
    this.sent += bytes.length;
    return { offset, bytes };
  }

  acknowledge(offset: number): void {
    while (this.#kept[0] && this.acknowledged + this.#kept[0].length <= offset) this.acknowledged += this.#kept.shift()?.length ?? 0;
  }

  /** What the other side does not have. */
  *from(offset: number): Iterable<{ offset: number; bytes: Buffer }> {
    this.acknowledge(offset);
    let at = this.acknowledged;
    for (const bytes of this.#kept) {
      const skip = Math.max(0, offset - at);
      this.resent += bytes.length - skip;
      yield { offset: at + skip, bytes: bytes.subarray(skip) };
      at += bytes.length;
    }
  }
}

class Receiver {
  received = 0;
  #acknowledged = 0;
  readonly hash = createHash('sha256');

  /** @returns an acknowledgement that is due */
  take({ offset, bytes }: Frame): number | undefined {
    // Bytes that came again are passed over; bytes from beyond would be a hole, which an ordered connection does not make.
    if (offset > this.received) throw new Error(`a hole: ${this.received} to ${offset}`);
    const fresh = bytes.subarray(this.received - offset);
    this.hash.update(fresh);
    this.received += fresh.length;
    if (this.received - this.#acknowledged < ACK_EVERY && bytes.length === CHUNK) return undefined;
    this.#acknowledged = this.received;
    return this.received;
  }
}

const [streams = 50, cuts = 20, mib = 4] = process.argv.slice(2).map(Number);
const total = mib << 20;
const senders = Array.from({ length: streams }, () => new Sender(total));
const receivers = Array.from({ length: streams }, () => new Receiver());

const server = net.createServer((socket) => {
  socket.on('error', () => undefined);
  for (const [stream, { received }] of receivers.entries()) socket.write(frame(RESUME, stream, received));
  socket.on(
    'data',
    reader((one) => {
      const due = receivers[one.stream]?.take(one);
      if (due !== undefined) socket.write(frame(ACK, one.stream, due));
    }),
  );
});

async function oneConnection(port: number, cutAfter: number): Promise<void> {
  const socket = net.connect(port, '127.0.0.1');
  await new Promise<void>((resolve) => {
    let written = 0;
    let resumed = 0;
    const send = (stream: number, { offset, bytes }: { offset: number; bytes: Buffer }): boolean => {
      written += bytes.length;
      return socket.write(frame(DATA, stream, offset, bytes));
    };
    const pump = (): void => {
      if (resumed < streams) return;
      for (const [stream, sender] of senders.entries()) {
        for (let next = sender.next(); next; next = sender.next()) {
          if (!send(stream, next) || written > cutAfter) break;
        }
        if (written > cutAfter) socket.resetAndDestroy();
        if (socket.writableNeedDrain) return;
      }
      if (senders.every(({ done }) => done)) socket.end();
    };
    socket.on('error', () => undefined).on('close', () => resolve());
    socket.on('drain', pump);
    socket.on(
      'data',
      reader(({ kind, stream, offset }) => {
        const sender = senders[stream];
        if (!sender) return;
        if (kind === RESUME) {
          resumed++;
          for (const again of sender.from(offset)) send(stream, again);
        } else sender.acknowledge(offset);
        pump();
      }),
    );
  });
}

await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
const address = server.address();
const port = typeof address === 'object' && address ? address.port : 0;
const startedAt = performance.now();
let connections = 0;
while (!senders.every(({ done }) => done)) {
  await oneConnection(port, connections < cuts ? Math.floor((streams * total) / (cuts + 1)) : Infinity);
  connections++;
}
const seconds = (performance.now() - startedAt) / 1000;
server.close();
const whole = senders.every(({ hash }, i) => hash.digest('hex') === receivers[i]?.hash.digest('hex'));
const resent = senders.reduce((sum, sender) => sum + sender.resent, 0);
console.log(
  JSON.stringify({
    streams,
    cuts: connections - 1,
    whole,
    mibPerSecond: Math.round((streams * mib) / seconds),
    resentShare: resent / (streams * total),
  }),
);
