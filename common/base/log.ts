/**
 * The process's log: pino's interface, Istio's fields (`level`, `time`, `scope`, `message`), written through a LineWriter so that a slow
 * reader never delays data. Text is for people, JSON for machines; both carry the same fields.
 */
import { type Level, pino } from 'pino';
import { descriptorSink, type LineSink, LineWriter } from './line-writer.ts';

export type LogLevel = Level | 'silent';
export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const satisfies readonly LogLevel[];

type LogMethod = {
  (message: string): void;
  (fields: object, message: string): void;
};

export interface Log {
  readonly trace: LogMethod;
  readonly debug: LogMethod;
  readonly info: LogMethod;
  readonly warn: LogMethod;
  readonly error: LogMethod;
  child(fields: Record<string, unknown>): Log;
}

export interface LogOptions {
  readonly level: LogLevel;
  readonly format: 'json' | 'text';
  readonly scope: string;
  /** Where lines go; the process's standard output where it is not given. */
  readonly sink?: LineSink;
}

export interface LogRoot {
  readonly log: Log;
  readonly writer: LineWriter;
  readonly level: LogLevel;
  /** Takes effect at once for this log and all its children. */
  setLevel(level: LogLevel): void;
}

export function createLog({ level, format, scope, sink = descriptorSink(1) }: LogOptions): LogRoot {
  const writer = new LineWriter({ sink });
  const destination = { write: (line: string) => writer.write(format === 'json' ? line : textLine(line)) };
  // Children keep a level of their own in pino, so each is told of a change. They are few: one for each part of a process, none for a connection.
  const children = new Set<{ level: string }>();
  const root = pino(
    {
      level,
      base: { scope },
      messageKey: 'message',
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { err: pino.stdSerializers.err, error: errorText },
      onChild: (child) => void children.add(child),
    },
    destination,
  );
  return {
    log: root as Log,
    writer,
    get level() {
      return root.level as LogLevel;
    },
    setLevel(next) {
      root.level = next;
      for (const child of children) child.level = next;
    },
  };
}

/** A log that keeps nothing, for code that runs without one. */
export const silentLog: Log = pino({ level: 'silent' }) as Log;

const errorText = (value: unknown): unknown => (value instanceof Error ? value.message : value);

/** `TIME<tab>level<tab>scope<tab>message<tab>key=value …`, as ztunnel writes it. */
export function textLine(json: string): string {
  const { time, level, scope, message, ...fields } = JSON.parse(json) as Record<string, unknown>;
  const pairs = Object.entries(fields).map(([key, value]) => `${key}=${JSON.stringify(value)}`);
  return `${[time, level, scope, message, ...(pairs.length > 0 ? [pairs.join(' ')] : [])].join('\t')}\n`;
}
