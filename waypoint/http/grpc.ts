/** What the waypoint knows of gRPC: which requests are such calls, and how many messages a body has. */
import type { Fields } from '../../common/http/types.ts';

export function isGrpc(fields: Fields): boolean {
  for (let i = 0; i < fields.length; i += 2) {
    if (fields[i] === 'content-type') return /^application\/grpc(?:$|[+;])/.test(fields[i + 1] ?? '');
  }
  return false;
}

const PREFIX_BYTES = 5;

/**
 * Counts the messages of a gRPC body as it passes by: each is a byte of flags, four of length, and that many more (gRPC over HTTP/2,
 * "Length-Prefixed-Message"). A message counts when its prefix is whole.
 */
export class GrpcMessages {
  count = 0;
  /** Of the message under way, what is still to come. */
  #rest = 0;
  #prefixBytes = 0;
  #length = 0;

  data(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.length) {
      const skipped = Math.min(this.#rest, chunk.length - at);
      this.#rest -= skipped;
      at += skipped;
      while (this.#rest === 0 && at < chunk.length) {
        const byte = chunk[at++] ?? 0;
        // The first byte holds flags.
        if (this.#prefixBytes > 0) this.#length = this.#length * 256 + byte;
        this.#prefixBytes++;
        if (this.#prefixBytes < PREFIX_BYTES) continue;
        this.count++;
        this.#rest = this.#length;
        this.#prefixBytes = 0;
        this.#length = 0;
      }
    }
  }
}
