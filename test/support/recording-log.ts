/** A log that keeps its lines, for tests of what an operator would see. */
import type { Log } from '../../common/base/log.ts';

export interface LogEntry {
  readonly level: 'trace' | 'debug' | 'info' | 'warn' | 'error';
  readonly message: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

export interface RecordingLog extends Log {
  readonly entries: LogEntry[];
}

/** Children write into the same list, with their fields. */
export function recordingLog(entries: LogEntry[] = [], bound: Record<string, unknown> = {}): RecordingLog {
  const at =
    (level: LogEntry['level']) =>
    (first: string | object, message?: string): void => {
      if (typeof first === 'string') entries.push({ level, message: first, fields: bound });
      else entries.push({ level, message: message ?? '', fields: { ...bound, ...first } });
    };
  return {
    entries,
    trace: at('trace'),
    debug: at('debug'),
    info: at('info'),
    warn: at('warn'),
    error: at('error'),
    child: (fields) => recordingLog(entries, { ...bound, ...fields }),
  };
}
