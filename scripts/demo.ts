/**
 * The story of the mesh, told on the playground and checked at every step: plaintext, label, mutual TLS, identity, STRICT, a policy that names
 * itself, and back. `--once` ends with an exit status; without it the playground stays up for the reader's own hands.
 */
import { parseArgs } from 'node:util';
import { Narrator, StepFailed } from './story/narrator.ts';
import { Shop } from './story/shop.ts';
import { story } from './story/story.ts';

const { values } = parseArgs({ options: { once: { type: 'boolean', default: false }, name: { type: 'string', default: 'demo' } } });
const narrator = new Narrator(process.stdout);

async function main(): Promise<number> {
  const started = performance.now();
  const shop = await Shop.start(values.name, narrator);
  // Ctrl-C reaches the playground too, which ends with everything in it; we only wait for it.
  const interrupted = new Promise<'interrupted'>((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve('interrupted'));
  });
  try {
    const told = story(shop, narrator);
    told.catch(() => undefined);
    if ((await Promise.race([told, interrupted])) === 'interrupted') return 130;
    narrator.end(performance.now() - started);
    if (!values.once) {
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

process.exitCode = await main();
