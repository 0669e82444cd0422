/** What every controller is given, and what it gives back. */
import type { Clock } from '../../common/base/clock.ts';
import type { Log } from '../../common/base/log.ts';
import type { Cluster } from '../cluster/collections.ts';

export interface ControllerOptions {
  readonly cluster: Cluster;
  readonly clock: Clock;
  readonly log: Log;
  readonly random: () => number;
}

/** Watches from the start until it is called to stop. */
export type Controller = (options: ControllerOptions) => () => void;

export const timeText = (clock: Clock): string => new Date(clock.now()).toISOString().replace(/\.\d+Z$/, 'Z');

/** `namespace/name` in two pieces; the namespace may be empty. */
export function splitKey(key: string): [string, string] {
  const slash = key.indexOf('/');
  return [key.slice(0, slash), key.slice(slash + 1)];
}

/** Objects whose fields say the same, however they were made. */
export const sameContent = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b);
