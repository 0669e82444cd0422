/** What a container wrote, in memory and bounded: the newest lines stay. */

export interface LogLine {
  readonly atMs: number;
  readonly text: string;
}

export interface LogQuery {
  readonly tailLines?: number | undefined;
  readonly sinceMs?: number | undefined;
}

const MOST_BYTES = 4 << 20;
const LONGEST_LINE = 256 << 10;
/** Bookkeeping of one line, so that a flood of empty lines is bounded too. */
const LINE_OVERHEAD = 64;

export class LogBuffer {
  readonly #now: () => number;
  readonly #mostBytes: number;
  #lines: LogLine[] = [];
  #first = 0;
  #bytes = 0;
  #partial: Record<string, string> = {};
  readonly #followers = new Set<{ line(line: LogLine): void; end(): void }>();
  #ended = false;

  constructor(now: () => number, mostBytes = MOST_BYTES) {
    this.#now = now;
    this.#mostBytes = mostBytes;
  }

  /** @param stream lines of different streams are not mixed within a line */
  push(stream: string, text: string): void {
    const pieces = ((this.#partial[stream] ?? '') + text).split('\n');
    let rest = pieces.pop() ?? '';
    for (const piece of pieces) this.#add(piece);
    if (rest.length > LONGEST_LINE) {
      this.#add(rest);
      rest = '';
    }
    this.#partial[stream] = rest;
  }

  /** No more will come; an unfinished line counts as one. */
  end(): void {
    if (this.#ended) return;
    for (const rest of Object.values(this.#partial)) if (rest !== '') this.#add(rest);
    this.#partial = {};
    this.#ended = true;
    for (const follower of this.#followers) follower.end();
    this.#followers.clear();
  }

  get ended(): boolean {
    return this.#ended;
  }

  read({ tailLines, sinceMs }: LogQuery = {}): LogLine[] {
    let lines = this.#lines.slice(this.#first);
    if (sinceMs !== undefined) lines = lines.filter(({ atMs }) => atMs >= sinceMs);
    return tailLines === undefined ? lines : lines.slice(Math.max(0, lines.length - tailLines));
  }

  /** Lines from now on. @returns how to stop; `end` is called at once where nothing more will come */
  follow(follower: { line(line: LogLine): void; end(): void }): () => void {
    if (this.#ended) follower.end();
    else this.#followers.add(follower);
    return () => this.#followers.delete(follower);
  }

  #add(text: string): void {
    const line = { atMs: this.#now(), text };
    this.#lines.push(line);
    this.#bytes += text.length + LINE_OVERHEAD;
    while (this.#bytes > this.#mostBytes && this.#first < this.#lines.length - 1) {
      this.#bytes -= (this.#lines[this.#first]?.text.length ?? 0) + LINE_OVERHEAD;
      this.#first++;
    }
    // Moved in bulk: shifting line by line would cost more than the lines.
    if (this.#first > 1000 && this.#first > this.#lines.length / 2) {
      this.#lines = this.#lines.slice(this.#first);
      this.#first = 0;
    }
    for (const follower of this.#followers) follower.line(line);
  }
}
