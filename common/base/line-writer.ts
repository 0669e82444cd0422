/**
 * Writes lines to a descriptor without ever waiting for its reader (decision 15): a full pipe fills a bounded buffer, a full buffer
 * drops the newest lines and counts them, and one line says how many were lost once the reader is back. All of one event-loop turn leaves
 * in one system call.
 */
import { closeSync, constants, openSync, writeSync } from 'node:fs';

export interface LineSink {
  /** Writes what it can and returns how many bytes that was; 0 where the reader is not ready. */
  write(bytes: Buffer): number;
}

export interface LineWriterOptions {
  readonly sink: LineSink;
  /** Bytes kept for a reader that is not ready. */
  readonly maxBufferedBytes?: number;
  /** How soon a full sink is tried again, in milliseconds. */
  readonly retryMs?: number;
  /** Runs `run` after `ms`; the system's timer where it is not given. */
  readonly after?: (ms: number, run: () => void) => void;
}

const MAX_BUFFERED_BYTES = 4 << 20;
const RETRY_MS = 10;

export class LineWriter {
  readonly #sink: LineSink;
  readonly #maxBufferedBytes: number;
  readonly #retryMs: number;
  readonly #after: (ms: number, run: () => void) => void;
  #pending: string[] = [];
  #pendingBytes = 0;
  #rest: Buffer | undefined;
  #scheduled = false;
  #droppedSinceReport = 0;
  /** Lines lost since the start. */
  dropped = 0;

  constructor(options: LineWriterOptions) {
    this.#sink = options.sink;
    this.#maxBufferedBytes = options.maxBufferedBytes ?? MAX_BUFFERED_BYTES;
    this.#retryMs = options.retryMs ?? RETRY_MS;
    this.#after = options.after ?? ((ms, run) => void setTimeout(run, ms).unref());
  }

  /** Takes one line, its newline included. Never blocks and never throws. */
  write(line: string): void {
    if (this.#pendingBytes + (this.#rest?.length ?? 0) + line.length > this.#maxBufferedBytes) {
      this.dropped++;
      this.#droppedSinceReport++;
      return;
    }
    this.#pending.push(line);
    this.#pendingBytes += line.length;
    if (!this.#scheduled) {
      this.#scheduled = true;
      setImmediate(() => this.#flush());
    }
  }

  /** Writes what the sink takes right now: for the last moments of a process. */
  flushNow(): void {
    this.#drain();
  }

  #flush(): void {
    if (this.#drain()) {
      this.#scheduled = false;
      return;
    }
    this.#after(this.#retryMs, () => this.#flush());
  }

  /** @returns whether everything is out */
  #drain(): boolean {
    if (this.#droppedSinceReport > 0) {
      this.#pending.push(
        `${JSON.stringify({ level: 'warn', message: 'log lines dropped: the reader was too slow', dropped: this.#droppedSinceReport })}\n`,
      );
      this.#droppedSinceReport = 0;
    }
    if (this.#pending.length > 0) {
      const fresh = Buffer.from(this.#pending.join(''));
      this.#rest = this.#rest ? Buffer.concat([this.#rest, fresh]) : fresh;
      this.#pending = [];
      this.#pendingBytes = 0;
    }
    while (this.#rest) {
      const written = this.#sink.write(this.#rest);
      if (written === 0) return false;
      this.#rest = written < this.#rest.length ? this.#rest.subarray(written) : undefined;
    }
    return true;
  }
}

/**
 * A sink over a descriptor of this process. The descriptor is opened anew where the kernel allows it (pipes, files, terminals), so that
 * O_NONBLOCK does not leak into whoever shares it; sockets are written as they are.
 */
export function descriptorSink(fd: number): LineSink {
  const own = reopen(fd);
  return {
    write(bytes) {
      try {
        return writeSync(own ?? fd, bytes);
      } catch (error) {
        if (isAgain(error)) return 0;
        // The reader is gone for good: there is nobody left to tell, and the data path must go on.
        return bytes.length;
      }
    },
  };
}

function reopen(fd: number): number | undefined {
  try {
    const own = openSync(`/proc/self/fd/${fd}`, constants.O_WRONLY | constants.O_NONBLOCK | constants.O_APPEND);
    process.once('exit', () => closeSync(own));
    return own;
  } catch {
    // A socket cannot be opened by path.
    return undefined;
  }
}

const isAgain = (error: unknown): boolean => error instanceof Error && 'code' in error && error.code === 'EAGAIN';
