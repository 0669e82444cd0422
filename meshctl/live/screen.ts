/**
 * A screen that is painted again and again, and leaves the terminal as it was: the shell's lines come back when it ends, however it ends, and
 * under them what was painted last. Lines are cut at the terminal's edge, since one that wraps would push the others out.
 */

/** The part of a terminal's stream that is needed. */
export interface Terminal {
  readonly columns?: number;
  readonly rows?: number;
  write(text: string): unknown;
  on(event: 'resize', listener: () => void): unknown;
  off(event: 'resize', listener: () => void): unknown;
}

/** Of the process: signals that stop it and let it go on, and its end. */
export interface Life {
  on(event: 'exit' | 'SIGTSTP' | 'SIGCONT', listener: () => void): unknown;
  off(event: 'exit' | 'SIGTSTP' | 'SIGCONT', listener: () => void): unknown;
  readonly pid: number;
  kill(pid: number, signal: 'SIGSTOP'): unknown;
}

export interface Screen {
  /** Instead of what is there. */
  show(text: string): void;
  /** Gives the terminal back; a second time does nothing. */
  close(): void;
}

// The alternate screen, without a cursor, and back.
const ENTER = '\u001b[?1049h\u001b[?25l';
const LEAVE = '\u001b[?25h\u001b[?1049l';

export function openScreen(out: Terminal, life: Life): Screen {
  let last = '';
  const paint = (): void => void out.write(`\u001b[H${fitting(last, out).join('\u001b[K\r\n')}\u001b[K\u001b[J`);
  const enter = (): void => {
    out.write(ENTER);
    paint();
  };
  // Ctrl-Z: the shell gets its lines back until we go on.
  const stop = (): void => {
    out.write(LEAVE);
    life.kill(life.pid, 'SIGSTOP');
  };
  const close = (): void => {
    out.off('resize', paint);
    life.off('exit', close);
    life.off('SIGTSTP', stop);
    life.off('SIGCONT', enter);
    out.write(`${LEAVE}${last === '' ? '' : `${last}\n`}`);
    last = '';
  };
  out.on('resize', paint);
  life.on('exit', close);
  life.on('SIGTSTP', stop);
  life.on('SIGCONT', enter);
  enter();
  let open = true;
  return {
    show(text) {
      last = text;
      paint();
    },
    close() {
      if (open) close();
      open = false;
    },
  };
}

/** No more than the terminal holds, and it says so. */
function fitting(text: string, { rows = 24, columns = 80 }: Terminal): string[] {
  const lines = text.split('\n');
  const more = `… ${lines.length - rows + 1} more lines: make the window larger, or -n NAMESPACE`;
  return (lines.length <= rows ? lines : [...lines.slice(0, rows - 1), more]).map((line) => line.slice(0, columns));
}
