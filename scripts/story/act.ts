/** What the story and the scenarios have in common: a shop that ends with them, Ctrl-C, evidence of what failed, an exit status. */
import { type Narrator, StepFailed } from './narrator.ts';
import type { Shop } from './shop.ts';

export interface Piece {
  readonly shop: Shop;
  /** All of it. @throws {StepFailed} */
  run(): Promise<void>;
  /** The playground stays up afterwards for the reader's own hands. */
  readonly handOver: boolean;
}

/** @returns the exit status */
export async function act(narrator: Narrator, { shop, run, handOver }: Piece): Promise<number> {
  // Ctrl-C reaches the playground too, which ends with everything in it; we only wait for it.
  const interrupted = new Promise<'interrupted'>((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve('interrupted'));
  });
  try {
    const acted = run();
    acted.catch(() => undefined);
    if ((await Promise.race([acted, interrupted])) === 'interrupted') return 130;
    if (handOver) {
      narrator.handOver(shop.kubeconfig);
      await Promise.race([interrupted, shop.ended]);
    }
    return 0;
  } catch (error) {
    if (!(error instanceof StepFailed)) throw error;
    narrator.failed(error, await shop.evidence());
    return 1;
  } finally {
    await shop.stop();
  }
}
