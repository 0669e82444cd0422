/**
 * What the host of a virtual machine takes of its processors for others ("steal" in proc(5)'s /proc/stat). Whatever is measured while it takes much
 * says how busy the host was: threads that sleep and wake pay more for it than threads that run.
 */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

interface Times {
  readonly busy: number;
  readonly stolen: number;
}

/** Of what this machine's programs wanted: 0.05 is one twentieth. On a machine of its own there is nothing to take. */
export const stolenShare = (before: Times, after: Times): number => {
  const stolen = after.stolen - before.stolen;
  return stolen === 0 ? 0 : stolen / (stolen + after.busy - before.busy);
};

/** Of all processors since the machine started, in ticks. @param stat what is in /proc/stat */
export function readTimes(stat: string = readFileSync('/proc/stat', 'utf8')): Times {
  const [user = 0, nice = 0, system = 0, , , interrupts = 0, softInterrupts = 0, stolen = 0] =
    /^cpu +(.*)$/m.exec(stat)?.[1]?.split(' ').map(Number) ?? [];
  return { busy: user + nice + system + interrupts + softInterrupts, stolen };
}

const MOST_STOLEN = 0.03;
const MOST_TRIES = 4;
/** For a whole table, so that a bench ends on a host that is never quiet. */
const MOST_REPEATS = 60;
const PAUSE_MS = 3000;

export interface UndisturbedOptions {
  /** Share of the processors that may be taken during a measurement. */
  readonly most?: number;
  readonly times?: () => Times;
  readonly pause?: () => Promise<unknown>;
}

/** Measures again what the host disturbed, a few times, and takes what it disturbed least. */
export function undisturbed({
  most = MOST_STOLEN,
  times = readTimes,
  pause = () => sleep(PAUSE_MS),
}: UndisturbedOptions = {}): <T>(measure: () => Promise<T>) => Promise<T> {
  let repeats = MOST_REPEATS;
  return async (measure) => {
    for (let tries = 1, best = undefined as { share: number; value: Awaited<ReturnType<typeof measure>> } | undefined; ; tries++) {
      const before = times();
      const value = await measure();
      const share = stolenShare(before, times());
      if (!best || share < best.share) best = { share, value };
      if (best.share <= most || tries === MOST_TRIES || repeats === 0) return best.value;
      repeats--;
      await pause();
    }
  };
}
