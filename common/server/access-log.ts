/**
 * One line for each connection, whatever its outcome: fields, their order and their levels are those of Istio's ztunnel
 * (Istio's ztunnel, src/proxy/metrics.rs). Behind them come our own: the connection's id, and for what was refused the code and the policy.
 */
import type { LogLevel } from '../base/log.ts';

export interface LineOutput {
  write(line: string): void;
}

/** What happened, always the same words: `connection complete`. */
export type AccessMessage = string;

/** Values in the order of the line; undefined ones are left out. A `bare` value is an address or a number, which text lines do not quote. */
export type AccessField = readonly [name: string, value: string | number | undefined, bare?: 'bare'];

export interface AccessLogOptions {
  readonly output: LineOutput;
  readonly format: 'text' | 'json';
  readonly level: LogLevel;
  readonly now: () => number;
}

const RANK: Readonly<Record<LogLevel, number>> = { trace: 10, debug: 20, info: 30, warn: 40, error: 50, fatal: 60, silent: Infinity };

export class AccessLog {
  readonly #options: AccessLogOptions;
  level: LogLevel;

  constructor(options: AccessLogOptions) {
    this.#options = options;
    this.level = options.level;
  }

  isOn(level: 'debug' | 'info' | 'warn' | 'error'): boolean {
    return RANK[level] >= RANK[this.level];
  }

  /** Builds and writes a line; costs nothing where the level is off. */
  write(level: 'debug' | 'info' | 'warn' | 'error', message: AccessMessage, fields: () => readonly AccessField[]): void {
    if (!this.isOn(level)) return;
    const time = new Date(this.#options.now()).toISOString();
    const line = this.#options.format === 'json' ? jsonLine : textLine;
    this.#options.output.write(line(time, level, message, fields()));
  }
}

function textLine(time: string, level: string, message: string, fields: readonly AccessField[]): string {
  let line = `${time}\t${level}\taccess\t${message}\t`;
  let separator = '';
  for (const [name, value, bare] of fields) {
    if (value === undefined) continue;
    line += `${separator}${name}=${bare || typeof value === 'number' ? value : JSON.stringify(value)}`;
    separator = ' ';
  }
  return `${line}\n`;
}

function jsonLine(time: string, level: string, message: string, fields: readonly AccessField[]): string {
  let line = `{"level":"${level}","time":"${time}","scope":"access","message":"${message}"`;
  for (const [name, value] of fields) if (value !== undefined) line += `,"${name}":${JSON.stringify(value)}`;
  return `${line}}\n`;
}
