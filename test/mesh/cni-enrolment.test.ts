/** The node agent and our ztunnel together, under load: what an application notices of coming into the mesh and leaving it. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { startAgentWorld } from '../support/agent-world.ts';
import { makeNetns, type TestNetns, withoutNamespaces } from '../support/netns.ts';
import { makePair, NAMESPACE, type Pair } from '../support/pair.ts';
import { holdOpen, startEcho } from '../support/pair-programs.ts';
import { type Program, startProgram } from '../support/programs.ts';
import { until } from '../support/until.ts';

const options = { skip: withoutNamespaces ?? false, timeout: 180_000 };

test(
  'label on and off under load: no request fails, no open connection is cut, and traffic goes through ztunnel only in between',
  options,
  async (t) => {
    const { world, pair, ztunnel } = await startWorld(t);
    const before = [await holdOpen(t, pair.client.netns, pair.server.v4, 8080), await holdOpen(t, pair.client.netns, pair.server.v6, 8080)];
    const load = startLoad(t, pair.client.netns, pair.server.v4);
    await load.line(/^started/);
    assert.doesNotMatch(ztunnel.output(), /connection complete/);

    world.label(NAMESPACE, 'ambient');
    await until(() => ['client', 'server'].every((name) => world.annotation(`${NAMESPACE}/${name}`) === 'enabled'));
    await ztunnel.line(/connection complete.*direction="outbound"/);
    const during = await holdOpen(t, pair.client.netns, pair.server.v4, 8080);

    world.label(NAMESPACE, undefined);
    await until(() => ['client', 'server'].every((name) => world.annotation(`${NAMESPACE}/${name}`) === undefined));
    // Longer than the grace after which a pod without relayed connections is given up.
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    for (const held of [...before, during]) assert.doesNotMatch(held.output(), /over/);
    const relayed = completed(ztunnel);
    await new Promise((resolve) => setTimeout(resolve, 500));
    assert.equal(completed(ztunnel), relayed, 'new connections go past ztunnel');
    during.kill();
    await until(() => world.gone(pair.client.netns) && world.gone(pair.server.netns));
    for (const held of before) assert.doesNotMatch(held.output(), /over/);

    load.kill();
    await load.ended;
    const { ok, failed } = JSON.parse(load.output().trim().split('\n').at(-1) ?? '') as { ok: number; failed: string[] };
    assert.deepEqual(failed, []);
    assert.ok(ok > 50, `${ok} requests`);
  },
);

test('an agent that is killed and replaced disturbs nobody', options, async (t) => {
  const { world, pair, ztunnel } = await startWorld(t);
  world.label(NAMESPACE, 'ambient');
  await until(() => ['client', 'server'].every((name) => world.annotation(`${NAMESPACE}/${name}`) === 'enabled'));
  const held = await holdOpen(t, pair.client.netns, pair.server.v4, 8080);
  const load = startLoad(t, pair.client.netns, pair.server.v6);
  await load.line(/^started/);
  world.kube.put('/apis/apps/v1/daemonsets', { metadata: { namespace: 'istio-system', name: 'istio-cni-node' } });
  await world.stop();
  await world.start();
  await ztunnel.line(/connected to the node agent/);
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  load.kill();
  await load.ended;
  const { ok, failed } = JSON.parse(load.output().trim().split('\n').at(-1) ?? '') as { ok: number; failed: string[] };
  assert.deepEqual(failed, []);
  assert.ok(ok > 20, `${ok} requests`);
  assert.doesNotMatch(held.output(), /over/);
});

async function startWorld(t: TestContext) {
  const world = await startAgentWorld(t);
  const pair = await makePair(t, { capture: [] });
  for (const { name, netns, v4 } of [pair.client, pair.server]) world.pod(NAMESPACE, name, { ns: netns, address: v4 });
  await startEcho(t, pair.server.netns);
  await world.start();
  const ztunnel = startZtunnel(t, pair, world.zdsPath);
  await ztunnel.line(/connected to the node agent/);
  const gone = (ns: TestNetns): boolean => ns.exec('nft', 'list', 'ruleset') === '';
  return { world: Object.assign(world, { gone }), pair, ztunnel };
}

function startZtunnel(t: TestContext, pair: Pair, socket: string): Program {
  return startProgram(t, makeNetns(t), 'ztunnel/main.ts', ['proxy', 'ztunnel'], {
    LOCAL_XDS_PATH: pair.config,
    CERT_DIR: pair.certificates,
    INPOD_UDS: socket,
    XDS_ADDRESS: '',
    CA_ADDRESS: '',
  });
}

const completed = (ztunnel: Program): number => ztunnel.output().split('connection complete').length;

/** A new connection each few milliseconds, each with one request; prints what came of them when it is ended. */
function startLoad(t: TestContext, netns: TestNetns, ip: string): Program {
  const script = `const net = require('node:net');
    let ok = 0; let open = 0; let ending = false; const failed = [];
    const one = () => {
      open++;
      let text = '';
      const socket = net.connect(8080, ${JSON.stringify(ip)}, () => socket.end('hi'));
      socket.setTimeout(5000, () => socket.destroy(new Error('timeout')));
      socket.on('data', (data) => { text += data; });
      socket.on('error', (e) => failed.push(e.code ?? e.message));
      socket.on('close', (broken) => { if (text === 'hihi') ok++; else if (!broken) failed.push('answer ' + text); open--; finish(); });
    };
    const finish = () => { if (ending && open === 0) { console.log(JSON.stringify({ ok, failed })); process.exit(); } };
    const timer = setInterval(one, 8);
    setTimeout(() => console.log('started'), 300);
    process.on('SIGTERM', () => { ending = true; clearInterval(timer); finish(); });`;
  return startProgram(t, netns, '-e', [script]);
}
