/** What commands print with: tables that fit a terminal, colour only where somebody looks, and the error that ends a command in one line. */
import { stripVTControlCharacters } from 'node:util';
import { KubeApi, KubeApiError } from '../common/client/kube-api.ts';
import { CommandError } from './command-error.ts';

// For those that print as well.
export { CommandError };

export interface Connection {
  readonly kubeconfig?: string;
  readonly context?: string;
  readonly systemNamespace: string;
  readonly env: Readonly<Record<string, string | undefined>>;
}

/** @throws {CommandError} where there is no usable configuration */
export function connect({ kubeconfig, context, env }: Connection): KubeApi {
  try {
    return KubeApi.load({ ...(kubeconfig && { kubeconfig }), ...(context && { context }), env });
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    // Others say what they want.
    throw new CommandError(/no context|--kubeconfig|--context/.test(message) ? message : `${message} (--kubeconfig FILE names another)`);
  }
}

/** What went wrong with the cluster, as one line. */
export function clusterError(error: unknown): CommandError {
  if (error instanceof KubeApiError) {
    const mend = error.status === 401 ? ' (log in again, or --context names other credentials)' : '';
    return new CommandError(`the API server answered ${error.status} ${error.reason}: ${error.message}${mend}`);
  }
  // What was asked first says less than what came of it.
  const reason = (error instanceof Error ? error.message : String(error)).replaceAll(/\s+/g, ' ').replace(/^[A-Z]+ https?:\/\/\S+: /, '');
  return new CommandError(`the API server could not be asked: ${reason} (is it up? --context or --kubeconfig names another)`);
}

/** What a terminal has at least, and what a table takes unless somebody asked for all of it (`-o wide`). */
export const TABLE_WIDTH = 100;

export interface TableOptions {
  /** Between columns. */
  readonly gap?: string;
  /** Characters of the longest line; Infinity to cut nothing. */
  readonly width?: number;
  /** Columns that are not cut, as long as others can be: times, states. */
  readonly whole?: readonly number[];
  /** Of a row's lines, once they have their width. */
  readonly paint?: (row: number, line: string) => string;
}

/**
 * Columns padded to their widest cell, kubectl's way. Where that is wider than `width`, words of the last column go on in the next line, and
 * the widest names lose their middle: ends tell names of pods and identities apart.
 */
export function table(head: readonly string[], rows: readonly (readonly string[])[], options: TableOptions = {}): string {
  const { gap = '   ', width = TABLE_WIDTH, whole = [], paint = (_row, line) => line } = options;
  const widths = columnWidths(head, rows, width - gap.length * (head.length - 1), whole);
  const lines = (cells: readonly string[]): string[] => {
    const last = cells.length - 1;
    const wrapped = wrap(cells[last] ?? '', widths[last] ?? 0);
    return wrapped.map((part, line) =>
      cells
        .map((cell, column) => {
          const room = widths[column] ?? 0;
          return (column === last ? part : line === 0 ? shortened(cell, room) : '').padEnd(room);
        })
        .join(gap)
        .trimEnd(),
    );
  };
  return [...lines(head), ...rows.flatMap((row, i) => lines(row).map((line) => paint(i, line)))].join('\n');
}

/** Narrower than this no name says anything. */
const MIN_COLUMN = 8;
const MIN_TEXT = 24;

function columnWidths(head: readonly string[], rows: readonly (readonly string[])[], room: number, whole: readonly number[]): number[] {
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column]?.length ?? 0)));
  const last = head.length - 1;
  let excess = widths.reduce((sum, each) => sum + each, 0) - room;
  if (excess <= 0) return widths;
  // Text can go on in the next line.
  if (rows.some((row) => row[last]?.includes(' '))) {
    const text = widths[last] ?? 0;
    const narrowed = Math.max(Math.min(text, MIN_TEXT), text - excess);
    widths[last] = narrowed;
    excess -= text - narrowed;
  }
  // Others are cut to where they still tell things apart; then those that should be whole; then all, since a line must end somewhere.
  const all = widths.map((_, column) => column);
  const others = all.filter((column) => !whole.includes(column));
  for (const [columns, least] of [
    [others, MIN_COLUMN],
    [all, MIN_COLUMN],
    [all, 1],
  ] as const) {
    const floors = head.map((title) => (least === 1 ? 1 : Math.max(least, title.length)));
    while (excess > 0) {
      const spare = (column: number): number => (widths[column] ?? 0) - (floors[column] ?? 0);
      const widest = columns.reduce(
        (best, column) => (spare(column) > 0 && (widths[column] ?? 0) > (widths[best] ?? 0) ? column : best),
        columns.find((column) => spare(column) > 0) ?? -1,
      );
      if (widest < 0) break;
      widths[widest] = (widths[widest] ?? 0) - 1;
      excess--;
    }
  }
  return widths;
}

/** `orders-v1-…-fndl2` */
export function shortened(text: string, room: number): string {
  if (text.length <= room) return text;
  const end = Math.ceil((room - 1) * 0.6);
  return `${text.slice(0, room - 1 - end)}…${text.slice(text.length - end)}`;
}

/** At spaces, where there are some. */
export function wrap(text: string, room: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > room) {
      lines.push(line);
      line = '';
    }
    line = line === '' ? shortened(word, room) : `${line} ${word}`;
  }
  return [...lines, line];
}

/** Text in lines of `width`, each after the margin. */
export const hanging = (margin: string, text: string, width: number): string[] =>
  wrap(text, width - margin.length).map((line) => margin + line);

/** Lines that are longer than `width` go on in the next one, under their own beginning and a little further in. Colours take no room. */
export function folded(text: string, width: number): string {
  return text
    .split('\n')
    .flatMap((line) => {
      const plain = stripVTControlCharacters(line);
      if (plain.length <= width) return [line];
      const indent = ' '.repeat((/^ */.exec(plain)?.[0].length ?? 0) + 2);
      const lines: string[] = [];
      let room = 0;
      for (const word of line.trimStart().split(' ')) {
        const length = stripVTControlCharacters(word).length;
        const last = lines.length - 1;
        if (last >= 0 && length + 1 <= room) {
          lines[last] += ` ${word}`;
          room -= length + 1;
        } else {
          const margin = last < 0 ? indent.slice(2) : indent;
          lines.push(`${margin}${word}`);
          room = width - margin.length - length;
        }
      }
      return lines;
    })
    .join('\n');
}

/** What a command's `-o` may be, beside the text that it prints without one. */
export const FORMATS = ['text', 'wide', 'json', 'yaml'] as const;

/** @throws {CommandError} naming what is allowed */
export function checkFormat(output: string, allowed: readonly string[] = FORMATS): void {
  if (!allowed.includes(output)) throw new CommandError(`-o ${output}: expected ${allowed.slice(0, -1).join(', ')} or ${allowed.at(-1)}`);
}

/** Whether somebody looks, on a terminal that shows colours, and has not asked for none (NO_COLOR, TERM=dumb). */
export const inColour = (out: NodeJS.WriteStream = process.stdout): boolean => out.isTTY === true && out.hasColors();

/** Of tables with this `-o`. */
export const widthFor = (output: string): number =>
  output === 'wide' ? Infinity : Math.max(TABLE_WIDTH, process.stdout.isTTY ? (process.stdout.columns ?? 0) : 0);

/** Prints data as it was asked for. */
export async function print(value: unknown, output: string, text: (width: number) => string): Promise<void> {
  if (output === 'json') console.log(JSON.stringify(value, undefined, 2));
  else if (output === 'yaml') {
    const { dump } = await import('js-yaml');
    console.log(dump(JSON.parse(JSON.stringify(value))).trimEnd());
  } else console.log(text(widthFor(output)));
}

/** `2`, `2s`, `1m`. @throws {CommandError} naming the flag */
export function secondsOf(text: string, flag: string, { least, most }: { least: number; most: number }): number {
  const [, digits, unit = 's'] = /^(\d+(?:\.\d+)?)(s|m|h)?$/.exec(text) ?? [];
  const seconds = Number(digits) * { s: 1, m: 60, h: 3600 }[unit as 's' | 'm' | 'h'];
  if (!(seconds >= least && seconds <= most)) throw new CommandError(`${flag} ${text}: expected seconds, ${least} to ${most}, or 1m`);
  return seconds;
}

/** `1 pod`, `2 pods`. */
export const plural = (n: number, noun: string, several: string = `${noun}s`): string => `${n} ${n === 1 ? noun : several}`;
