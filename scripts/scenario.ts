/** What `meshctl playground scenario` starts: acts scenarios out, on a playground of their own or on one that runs. */
import { parseArgs } from 'node:util';
import { listInstances } from '../playground/instance.ts';
import { act } from './story/act.ts';
import { Narrator } from './story/narrator.ts';
import { openShop, scenarios } from './story/scenarios.ts';
import { Shop } from './story/shop.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { name: { type: 'string' }, keep: { type: 'boolean', default: false } },
});

async function main(): Promise<number> {
  if (positionals.length === 0) {
    for (const [name, { about }] of Object.entries(scenarios)) console.log(`${name.padEnd(20)}${about}`);
    return 0;
  }
  const wanted = positionals.includes('all') ? Object.keys(scenarios) : positionals;
  const unknown = wanted.find((name) => !Object.hasOwn(scenarios, name));
  if (unknown !== undefined) {
    console.error(`there is no scenario ${unknown}: ${Object.keys(scenarios).join(', ')}, or all`);
    return 2;
  }
  const running = values.name === undefined ? undefined : (await listInstances()).find(({ name }) => name === values.name);
  if (values.name !== undefined && !running) {
    console.error(`no playground named ${values.name} is running (meshctl playground list)`);
    return 2;
  }
  const narrator = new Narrator(process.stdout);
  const started = performance.now();
  const shop = running ? Shop.attach(running.kubeconfig) : await Shop.start(`scenario-${process.pid}`, narrator);
  return await act(narrator, {
    shop,
    async run() {
      await openShop(shop, narrator);
      for (const name of wanted) await scenarios[name]?.run(shop, narrator);
      narrator.ok(`everything was as it was said (${((performance.now() - started) / 1000).toFixed(0)} s)`);
    },
    handOver: values.keep && !running,
  });
}

process.exitCode = await main();
