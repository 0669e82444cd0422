// For programs in pods (pod-program.ts): a limit that is counted in steps: while the machine stood still nobody could have answered, and that is
// one step, however long.
const STEP_MS = 100;

/** Destroys a request, or a stream, that is not closed after so much time in which this process ran. */
export function limitRun(one, limitMs) {
  let left = limitMs / STEP_MS;
  const timer = setInterval(() => { if (--left <= 0) one.destroy(new Error('no answer')); }, STEP_MS);
  one.once('close', () => clearInterval(timer));
}
