/** Which back-end the agent writes rules with, what it does about rules of others, and pods whose network is not as it should be. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { PODS, startAgentWorld } from '../support/agent-world.ts';
import { command, makeNetns, type TestNetns, withoutNamespaces } from '../support/netns.ts';
import { startProgram } from '../support/programs.ts';
import { until } from '../support/until.ts';

const options = { skip: withoutNamespaces ?? withoutPrograms() ?? false, timeout: 120_000 };
const DAEMON_SETS = '/apis/apps/v1/daemonsets';

test('with iptables a pod is enrolled, its probes pass by an ipset, and nothing is left when it leaves', options, async (t) => {
  const world = await startAgentWorld(t, { NATIVE_NFTABLES: 'false' });
  const pod = world.pod('shop', 'orders');
  await world.start();
  world.ztunnel();
  world.label('shop', 'ambient');
  await until(() => world.annotation('shop/orders') === 'enabled');
  assert.match(saved(pod.ns), /-A ISTIO_OUTPUT .*--to-ports 15001/);
  assert.doesNotMatch(pod.ns.exec('nft', 'list', 'tables'), /istio/);
  assert.match(saved(world.node), /--match-set istio-inpod-probes-v4 dst -j SNAT --to-source 169\.254\.7\.127/);
  assert.match(world.node.exec('ipset', 'list', 'istio-inpod-probes-v4'), new RegExp(`10\\.0\\.0\\.1 comment "${pod.uid}"`));
  world.label('shop', undefined);
  await until(() => !/ISTIO/.test(saved(pod.ns)));
  await until(() => !/10\.0\.0\.1/.test(world.node.exec('ipset', 'list', 'istio-inpod-probes-v4')));
  await until(() => !pod.ns.exec('ip', 'rule').includes('0x111'));
});

test('an agent that is told to use the other back-end takes over the pods and the node, both ways', options, async (t) => {
  const world = await startAgentWorld(t, { NATIVE_NFTABLES: 'false' });
  world.kube.put(DAEMON_SETS, { metadata: { namespace: 'istio-system', name: 'istio-cni-node' } });
  const pod = world.pod('shop', 'orders');
  world.label('shop', 'ambient');
  await world.start();
  world.ztunnel();
  await until(() => world.annotation('shop/orders') === 'enabled');
  await world.stop();

  const nodeAlone = await world.start({ NATIVE_NFTABLES: 'auto' }).then(() => saved(world.node));
  assert.match(nodeAlone, /istio-inpod-probes-v4/, 'left to itself, a node with rules of iptables stays with them');
  await world.stop();

  await world.start({ NATIVE_NFTABLES: 'true' });
  world.ztunnel();
  await until(() => /istio-ambient-nat/.test(pod.ns.exec('nft', 'list', 'tables')) && !/ISTIO/.test(saved(pod.ns)));
  assert.match(world.nodeRules(), /istio-inpod-probes-v4/);
  assert.doesNotMatch(saved(world.node), /ISTIO/);
  await world.stop();

  await world.start({ NATIVE_NFTABLES: 'false' });
  await until(() => /ISTIO_OUTPUT/.test(saved(pod.ns)) && !/istio-ambient/.test(pod.ns.exec('nft', 'list', 'tables')));
  assert.doesNotMatch(world.node.exec('nft', 'list', 'tables'), /istio-ambient/);
});

test('rules that another program removes come back by themselves, and the pod and the metric say that it happened', options, async (t) => {
  const world = await startAgentWorld(t, { WARREN_RULES_CHECK_INTERVAL: '200ms', NATIVE_NFTABLES: 'true' });
  const [pod, other] = [world.pod('shop', 'orders'), world.pod('shop', 'carts')];
  world.label('shop', 'ambient');
  await world.start();
  world.ztunnel();
  await until(() => ['orders', 'carts'].every((name) => world.annotation(`shop/${name}`) === 'enabled'));
  const untouched = other.ns.exec('nft', 'list', 'ruleset');
  for (const ns of [pod.ns, world.node]) ns.exec('nft', 'flush', 'ruleset');
  await until(() => /10\.0\.0\.2 comment/.test(world.nodeRules()) && /snat/.test(world.nodeRules()));
  await until(() => /redirect to :15001/.test(pod.ns.exec('nft', 'list', 'ruleset')));
  await until(() => world.events().some((message) => message.includes('redirection rules had been removed by somebody else')));
  assert.match((await world.fetch('monitoring', '/metrics')).body, /^warren_cni_rules_mended_total [1-9]/m);
  assert.equal(other.ns.exec('nft', 'list', 'ruleset'), untouched);
});

test('a pod whose namespace is missing or goes away in between is named, and the pod beside it does not notice', options, async (t) => {
  const world = await startAgentWorld(t, { CNI_ADD_TIMEOUT: '300ms' });
  await world.start();
  const ztunnel = world.ztunnel();
  const gone = world.pod('shop', 'gone');
  rmSync(join(world.folder, 'netns', gone.uid));
  world.label('shop', 'ambient');
  world.pod('shop', 'orders');
  await until(() => world.annotation('shop/orders') === 'enabled');
  const problem = (): string | undefined => world.kube.get(PODS, 'shop/gone')?.metadata.annotations?.['warren.dev/enrolment-problem'];
  await until(() => problem() === 'its network namespace was not found on this node');
  assert.ok(world.events().includes('its network namespace was not found on this node'));

  const late = world.pod('shop', 'late', { phase: 'Pending', ip: false });
  const answer = await world.cmdAdd({ ...late, ns: { ...late.ns, path: '/var/run/netns/warren-test-never-was' } });
  assert.equal(answer.status, 500);
  assert.match(answer.body, /pod shop\/late: .*warren-test-never-was: ENOENT/);
  assert.ok(!ztunnel.seen.includes('add shop/late +1'));

  symlinkSync(gone.ns.path, join(world.folder, 'netns', gone.uid));
  await until(() => world.annotation('shop/gone') === 'enabled' && problem() === undefined);
});

test('a pod that is deleted while ztunnel is being asked leaves nothing behind', options, async (t) => {
  const world = await startAgentWorld(t);
  await world.start();
  const ztunnel = world.ztunnel();
  ztunnel.answer = () => undefined;
  world.pod('shop', 'orders');
  world.label('shop', 'ambient');
  await until(() => ztunnel.seen.includes('add shop/orders +1'));
  world.kube.remove(PODS, 'shop/orders');
  await until(() => ztunnel.closed);
  const next = world.ztunnel();
  await until(() => next.seen.includes('snapshot sent'));
  assert.deepEqual(next.seen, ['snapshot sent']);
  assert.doesNotMatch(world.nodeRules(), /10\.0\.0\.1/);
});

test(
  'a NetworkPolicy that shuts the mesh out is named at the pod with its mend, right after the label, until it is mended',
  options,
  async (t) => {
    const world = await startAgentWorld(t);
    const policy = (...ports: number[]): void =>
      void world.kube.put('/apis/networking.k8s.io/v1/networkpolicies', {
        metadata: { namespace: 'shop', name: 'web' },
        spec: { podSelector: {}, ingress: [{ from: [{ podSelector: {} }], ports: ports.map((port) => ({ port })) }] },
      });
    policy(8080);
    world.pod('shop', 'orders');
    await world.start();
    world.ztunnel();
    world.label('shop', 'ambient');
    const problem = (): string => world.kube.get(PODS, 'shop/orders')?.metadata.annotations?.['warren.dev/enrolment-problem'] ?? '';
    await until(() =>
      /NetworkPolicy shop\/web lets pods \(all\) in on port 8080 only; .*add \{protocol: TCP, port: 15008\}/.test(problem()),
    );
    assert.equal(world.annotation('shop/orders'), 'enabled');
    await until(() => world.events().some((message) => message.startsWith('NetworkPolicy shop/web')));
    policy(8080, 15_008);
    await until(() => /filters no ports; say it in an AuthorizationPolicy: .*"8080"/.test(problem()));
    world.kube.remove('/apis/networking.k8s.io/v1/networkpolicies', 'shop/web');
    await until(() => problem() === '');
  },
);

test('without nft the agent says so and uses iptables; without both it does not start, and says why', options, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'warren-cni-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = (...programs: string[]): string => {
    const bin = join(folder, programs.length > 0 ? 'some' : 'none');
    mkdirSync(bin);
    for (const program of programs) symlinkSync(command('sh', '-c', `command -v ${program}`).trim(), join(bin, program));
    return bin;
  };
  const choose = async (PATH: string, nativeNftables: string): Promise<string> => {
    const program = startProgram(t, makeNetns(t), '-e', [CHOOSE, nativeNftables], { CHOOSE_PATH: PATH });
    await program.ended;
    return program.output();
  };
  const iptables = path('iptables-nft-save', 'iptables-nft-restore', 'ip6tables-nft-save', 'ip6tables-nft-restore', 'ipset');
  assert.match(await choose(iptables, 'auto'), /nftables cannot be used here.*backend iptables/s);
  assert.match(await choose(iptables, 'true'), /NATIVE_NFTABLES is true, and nftables cannot be used: .*nft.*ENOENT/);
  const none = path();
  assert.match(await choose(none, 'auto'), /neither nftables \(.*\) nor iptables \(.*\) can be used on this node/);
  assert.match(await choose(none, 'false'), /NATIVE_NFTABLES is false, and iptables cannot be used: /);
});

const CHOOSE = `
  process.env.PATH = process.env.CHOOSE_PATH;
  const { chooseBackend } = await import(process.cwd() + '/cni/namespace/choose-backend.ts');
  const probeSource = { v4: '169.254.7.127', v6: 'fd16:9254:7127:1337:ffff:ffff:ffff:ffff' };
  const log = { warn: (fields, message) => console.log(message, JSON.stringify(fields)) };
  const podRules = { redirectDns: false, ingressMode: false, virtualInterfaces: [], ipv6: true, probeSource, captureOpenConnections: false };
  const parts = { nativeNftables: process.argv.at(-1), iptables: 'auto', node: { about: 'the node' }, podRules, hostRules: { ipv6: true, probeSource }, log };
  await chooseBackend(parts).then(({ backend }) => console.log('backend', backend), (error) => console.log(error.message));
`;

const saved = (ns: TestNetns): string =>
  ['iptables-nft-save', 'iptables-legacy-save', 'ip6tables-nft-save'].map((program) => ns.exec(program)).join('');

function withoutPrograms(): string | undefined {
  try {
    command('sh', '-c', 'command -v ipset && command -v iptables-nft-save && command -v iptables-legacy-save');
    return undefined;
  } catch {
    if (process.env.CI) throw new Error('CI is set, so this may not be skipped: needs iptables and ipset');
    return 'needs iptables and ipset';
  }
}
