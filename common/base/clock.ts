/** Time as an argument, so that tests turn it by hand. Nothing outside this file calls Date.now or setTimeout for behaviour. */

export interface Timer {
  cancel(): void;
}

export interface Clock {
  /** Wall clock, milliseconds since 1970. May jump. */
  now(): number;
  /** Milliseconds from an arbitrary point; never jumps. */
  monotonic(): number;
  /** Calls `run` once, not before `ms` have passed. Does not keep the process alive. */
  after(ms: number, run: () => void): Timer;
}

// setTimeout beyond 2^31-1 ms fires at once (decision 14), so longer waits are made of pieces.
const LONGEST_TIMEOUT_MS = 2 ** 31 - 1;

// The global is a getter that looks itself up at every call (bench waypoint: kept connections).
const { performance } = globalThis;

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  after(ms, run) {
    let left = ms;
    let handle: NodeJS.Timeout;
    const arm = (): void => {
      const piece = Math.min(left, LONGEST_TIMEOUT_MS);
      left -= piece;
      handle = setTimeout(() => (left > 0 ? arm() : run()), piece);
      handle.unref();
    };
    arm();
    return { cancel: () => clearTimeout(handle) };
  },
};

/** Microseconds of the system's monotonic clock: the same in every thread, which `monotonic` is not. */
export function threadsMicroseconds(): number {
  const [whole, nano] = process.hrtime();
  return whole * 1e6 + nano / 1e3;
}

const STEPS = 5;

/**
 * As `clock.after`, for what somebody else is given time for: while this process stood still it could not see what they did. So time is counted in
 * fifths, and however long it stood still in one, that is one.
 */
export function afterSteps(clock: Clock, ms: number, run: () => void): Timer {
  let timer: Timer;
  let left = STEPS;
  const arm = (): void => {
    left--;
    timer = clock.after(ms / STEPS, left > 0 ? arm : run);
  };
  arm();
  return { cancel: () => timer.cancel() };
}

/** Resolves after `ms`; rejects with the signal's reason as soon as it is aborted. */
export function sleep(clock: Clock, ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const abort = (): void => {
      timer.cancel();
      reject(signal?.reason);
    };
    const timer = clock.after(ms, () => {
      signal?.removeEventListener('abort', abort);
      resolve();
    });
    signal?.addEventListener('abort', abort, { once: true });
  });
}

export const seconds = (n: number): number => n * 1000;
export const minutes = (n: number): number => n * 60_000;
export const hours = (n: number): number => n * 3_600_000;
