/** Waiting in tests for what another task, thread or process brings about. */

const DEADLINE_MS = 60_000;
const LONGEST_PAUSE_MS = 20;

/**
 * Asks until it holds, with pauses: what is waited for needs the processor too, and in a loop without timers no time limit of a test can fire.
 * @throws after a minute, with what was waited for
 */
export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  const startedMs = performance.now();
  for (let pauseMs = 1; ; pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS)) {
    const askedMs = performance.now();
    if (await condition()) return;
    const now = performance.now();
    if (now - startedMs > DEADLINE_MS) throw new Error(`it did not happen within ${DEADLINE_MS / 1000} s: ${condition}`);
    // What is costly to ask is asked less often.
    await new Promise((resolve) => setTimeout(resolve, Math.max(pauseMs, now - askedMs)));
  }
}
