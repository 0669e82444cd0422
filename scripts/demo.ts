/**
 * The story of the mesh, told on the playground and checked at every step: plaintext, label, mutual TLS, identity, STRICT, a policy that names
 * itself, and back. `--once` ends with an exit status; without it the playground stays up for the reader's own hands.
 */
import { parseArgs } from 'node:util';
import { act } from './story/act.ts';
import { Narrator } from './story/narrator.ts';
import { Shop } from './story/shop.ts';
import { story } from './story/story.ts';

const { values } = parseArgs({ options: { once: { type: 'boolean', default: false }, name: { type: 'string', default: 'demo' } } });
const narrator = new Narrator(process.stdout);
const started = performance.now();
const shop = await Shop.start(values.name, narrator);
process.exitCode = await act(narrator, {
  shop,
  async run() {
    await story(shop, narrator);
    narrator.end(performance.now() - started);
  },
  handOver: !values.once,
});
