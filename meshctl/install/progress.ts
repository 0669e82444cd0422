/** What a long command shows: on a terminal a block of lines that is painted anew, elsewhere a line whenever one has changed. */
export interface Progress {
  /** The state of everything that is waited for. */
  show(lines: readonly string[]): void;
  /** Something that stays. */
  note(line: string): void;
}

export interface Output {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string): unknown;
}

export function createProgress(out: Output): Progress {
  return out.isTTY ? painted(out) : plain(out);
}

function plain(out: Output): Progress {
  let shown = new Set<string>();
  return {
    show(lines) {
      for (const line of lines) if (!shown.has(line)) out.write(`${line}\n`);
      shown = new Set(lines);
    },
    note: (line) => void out.write(`${line}\n`),
  };
}

function painted(out: Output): Progress {
  let block: readonly string[] = [];
  const clear = (): void => void (block.length > 0 && out.write(`\x1b[${block.length}A\x1b[J`));
  const paint = (): void => {
    // A line that wraps would take two rows, and the next clearing would leave one behind.
    for (const line of block) out.write(`${line.slice(0, (out.columns ?? 80) - 1)}\n`);
  };
  return {
    show(lines) {
      clear();
      block = lines;
      paint();
    },
    note(line) {
      clear();
      out.write(`${line}\n`);
      paint();
    },
  };
}
