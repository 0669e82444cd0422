/** The CNI plugin as it is shipped: the executable, called as a container runtime calls it, and as somebody at the node calls it. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { podRules } from '../../cni/rules/pod-rules.ts';
import { buildPlugin, httpAnswer, type PluginAnswer, PREV_RESULT, type TestPlugin, testPlugin } from '../support/cni-plugin.ts';
import { makeNetns, type TestNetns, withoutNamespaces } from '../support/netns.ts';

const options = { skip: withoutNamespaces ?? false, timeout: 120_000 };

interface CniError {
  readonly cniVersion: string;
  readonly code: number;
  readonly msg: string;
  readonly details?: string;
}

function errorOf(answer: PluginAnswer): CniError {
  assert.equal(answer.status, 1, answer.stdout);
  return answer.output as CniError;
}

test('it needs nothing of the host: one static executable', options, () => {
  const elf = readFileSync(buildPlugin());
  assert.equal(elf.toString('latin1', 1, 4), 'ELF');
  // PT_INTERP (3) would name a loader of the host's C library.
  const [offset, size, count] = [Number(elf.readBigUInt64LE(32)), elf.readUInt16LE(54), elf.readUInt16LE(56)];
  const types = Array.from({ length: count }, (_, i) => elf.readUInt32LE(offset + i * size));
  assert.ok(types.includes(1));
  assert.equal(types.includes(3), false);
});

test('a pod that the agent takes starts, with the result of the plugins before as it was', options, async (t) => {
  const plugin = testPlugin(t);
  const requests = await plugin.agent(() => httpAnswer(200));
  const answer = await plugin.call('ADD');
  assert.equal(answer.status, 0, answer.stdout);
  assert.deepEqual(answer.output, PREV_RESULT);
  assert.match(requests[0] ?? '', /^POST \/cmdadd HTTP\/1\.0\r\n/);
  assert.deepEqual(JSON.parse(requests[0]?.split('\r\n\r\n')[1] ?? ''), {
    Netns: '/var/run/netns/x',
    PodName: 'orders-1',
    PodNamespace: 'shop',
    IPs: [{ Address: { IP: '10.0.1.7', Mask: '////AA==' } }, { Address: { IP: 'fd00::7', Mask: '//////////8AAAAAAAAAAA==' } }],
  });
});

test('a pod that the agent cannot take does not start, and the error says why and what to do', options, async (t) => {
  const plugin = testPlugin(t);
  plugin.leave({ namespaces: { shop: 'out' } });
  await plugin.agent(() => httpAnswer(500, 'pod shop/orders-1: ztunnel refused it\n'));
  const { code, msg, details, cniVersion } = errorOf(await plugin.call('ADD'));
  assert.deepEqual([code, cniVersion], [11, '1.0.0']);
  assert.match(msg, /pod shop\/orders-1 into the mesh: pod shop\/orders-1: ztunnel refused it$/);
  assert.match(details ?? '', /meshctl bypass node.*istio-cni bypass/);
});

test('while the agent is away only pods that may be of the mesh wait, by what it left behind', options, async (t) => {
  const plugin = testPlugin(t);
  plugin.leave({
    excludeNamespaces: ['monitoring'],
    namespaces: { shop: 'in', web: 'out', mixed: 'may' },
    pods: { 'uid-opted-out': 'out', 'uid-opted-in': 'in' },
  });
  const call = (namespace: string, uid = 'uid-1') =>
    plugin.call('ADD', {}, { CNI_ARGS: `K8S_POD_NAMESPACE=${namespace};K8S_POD_NAME=p;K8S_POD_UID=${uid}` });
  // Those that wait do so for a few seconds each: all at once.
  const [shop, web, optedOut, optedIn, mixed, unknown, system, own, excluded, configured] = await Promise.all([
    call('shop'),
    call('web'),
    call('shop', 'uid-opted-out'),
    call('web', 'uid-opted-in'),
    call('mixed'),
    call('made-since'),
    call('kube-system'),
    call('istio-system'),
    call('monitoring'),
    call('legacy'),
  ]);
  for (const answer of [web, optedOut, system, own, excluded, configured]) {
    assert.equal(answer.status, 0, answer.stdout);
    assert.deepEqual(answer.output, PREV_RESULT);
    assert.equal(shop.ms > answer.ms, true, 'nobody outside of the mesh waits for its agent');
  }
  assert.match(
    errorOf(shop).msg,
    /waits for the node agent: nobody answers at .*pluginevent\.sock: no such file.*namespace shop belongs to the mesh/,
  );
  assert.match(errorOf(optedIn).msg, /the pod belongs to the mesh/);
  assert.match(errorOf(mixed).msg, /pods of namespace mixed may belong to the mesh/);
  assert.match(errorOf(unknown).msg, /does not know namespace made-since yet/);
  assert.equal(errorOf(shop).code, 11);
});

test('an agent that does not know, stalls, babbles or dies is as one that is away', options, async (t) => {
  for (const [say, reason] of [
    [() => httpAnswer(503, 'the API server could not be asked'), /the API server could not be asked/],
    [() => undefined, /did not answer within 1s/],
    [() => 'SSH-2.0-OpenSSH\r\n', /something that is no HTTP/],
    [() => '', /ended without an answer/],
  ] as const) {
    const plugin = testPlugin(t);
    plugin.leave({ namespaces: { shop: 'in' }, pods: { 'uid-out': 'out' } });
    await plugin.agent(say);
    const { code, msg } = errorOf(await plugin.call('ADD'));
    assert.equal(code, 11);
    assert.match(msg, reason);
    const outside = await plugin.call('ADD', {}, { CNI_ARGS: 'K8S_POD_NAMESPACE=shop;K8S_POD_NAME=p;K8S_POD_UID=uid-out' });
    assert.deepEqual([outside.status, outside.output], [0, PREV_RESULT]);
  }
});

test('an agent that comes back within seconds is waited for', options, async (t) => {
  const plugin = testPlugin(t);
  plugin.leave({ namespaces: { shop: 'in' } });
  const calling = plugin.call('ADD');
  await new Promise((resolve) => setTimeout(resolve, 300));
  await plugin.agent(() => httpAnswer(200));
  assert.equal((await calling).status, 0);
});

test('a cache that is gone, damaged, of another version or open to others vouches for nobody', options, async (t) => {
  const out = { namespaces: { shop: 'out' } } as const;
  const cases: readonly (readonly [(plugin: TestPlugin, cache: string) => void, RegExp])[] = [
    [() => undefined, /cache\.json is not there/],
    [
      (plugin, cache) => {
        plugin.leave(out);
        writeFileSync(cache, '');
      },
      /cache\.json is damaged/,
    ],
    [(plugin) => plugin.leave({ ...out, version: 2 as 1 }), /has version 2, and this plugin reads 1/],
    [
      (plugin, cache) => {
        plugin.leave(out);
        chmodSync(cache, 0o666);
      },
      /no file that only root can write/,
    ],
  ];
  await Promise.all(
    cases.map(async ([spoil, pattern]) => {
      const plugin = testPlugin(t);
      spoil(plugin, join(plugin.folder, 'bin/istio-cni.d/cache.json'));
      assert.match(errorOf(await plugin.call('ADD')).msg, pattern);
      plugin.leave(out);
      chmodSync(join(plugin.folder, 'bin/istio-cni.d/cache.json'), 0o600);
      assert.equal((await plugin.call('ADD')).status, 0);
    }),
  );
});

test('bad input gets an error of the specification that names what is wrong', options, async (t) => {
  const plugin = testPlugin(t);
  plugin.leave({ namespaces: { shop: 'out' } });
  for (const [config, environment, code, message] of [
    ['not json', {}, 6, /network configuration on stdin is not what it should be/],
    ['', {}, 6, /no network configuration on stdin/],
    ['[]', {}, 6, /cannot unmarshal array/],
    ['{"cniVersion": 7}', {}, 6, /cniVersion/],
    [{ cniVersion: '9.9.9' }, {}, 1, /cniVersion "9\.9\.9" is not supported/],
    [{ cni_agent_run_dir: 'relative' }, {}, 7, /cni_agent_run_dir "relative" is no absolute path/],
    [{ prevResult: 'x' }, {}, 6, /prevResult/],
    [{ prevResult: { ips: [{ address: 'ten' }] } }, {}, 6, /prevResult: invalid CIDR address: ten/],
    [{}, { CNI_NETNS: '', CNI_IFNAME: '' }, 4, /not set: CNI_NETNS, CNI_IFNAME/],
    [{}, { CNI_ARGS: 'nonsense' }, 4, /CNI_ARGS: "nonsense" is no NAME=VALUE/],
    [{}, { CNI_ARGS: 'K8S_POD_NAME=a' }, 4, /must be given together/],
    [{}, { CNI_ARGS: `K8S_POD_NAMESPACE=shop;K8S_POD_NAME=${'x'.repeat(300)}` }, 4, /too long/],
    [{}, { CNI_COMMAND: 'ERASE' }, 4, /CNI_COMMAND=ERASE is none of/],
    [{}, { CNI_COMMAND: '' }, 4, /CNI_COMMAND is not set/],
  ] as const) {
    const error = errorOf(await plugin.call('ADD', config, environment));
    assert.equal(error.code, code, error.msg);
    assert.match(error.msg, message);
  }
  const huge = errorOf(await plugin.call('ADD', `{"x": "${'x'.repeat(5 << 20)}"}`));
  assert.match(huge.msg, /larger than 4194304 bytes/);
});

test('the other commands answer as the specification wants, whether the agent is there or not', options, async (t) => {
  const plugin = testPlugin(t);
  for (const command of ['CHECK', 'DEL', 'STATUS', 'GC']) {
    const answer = await plugin.call(command, { cniVersion: '1.1.0' });
    assert.deepEqual([answer.status, answer.stdout], [0, ''], command);
  }
  const deleted = await plugin.call('DEL', {}, { CNI_NETNS: '' });
  assert.equal(deleted.status, 0, 'the namespace of a pod that is deleted may be gone');
  const { output } = await plugin.call('VERSION', '{"cniVersion": "0.4.0"}');
  assert.deepEqual(output, { cniVersion: '0.4.0', supportedVersions: ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'] });
});

test('what is no pod of Kubernetes, and a plugin that is not chained, are no concern of the mesh', options, async (t) => {
  const plugin = testPlugin(t);
  assert.deepEqual((await plugin.call('ADD', {}, { CNI_ARGS: '' })).output, PREV_RESULT);
  plugin.leave({ namespaces: { shop: 'out' } });
  const { status, output } = await plugin.call('ADD', { prevResult: undefined });
  assert.deepEqual([status, output], [0, { cniVersion: '1.0.0' }]);
  const old = { cniVersion: '0.2.0', ip4: { ip: '10.0.0.4/24' } };
  const requests = await plugin.agent(() => httpAnswer(200));
  assert.deepEqual((await plugin.call('ADD', { cniVersion: '0.2.0', prevResult: old })).output, old);
  assert.match(requests[0] ?? '', /"10\.0\.0\.4"/);
});

test('one command on the node takes the mesh out of every pod, leaves the node itself alone, and is undone', options, async (t) => {
  const plugin = testPlugin(t);
  plugin.leave({ namespaces: { shop: 'in' } });
  const [node, alive, dead, stranger] = [makeNetns(t), makeNetns(t), makeNetns(t), makeNetns(t)];
  for (const ns of [node, alive, dead]) applyRules(ns);
  stranger.exec('nft', 'add table inet somebody-elses');
  await listen(t, alive, 15001);
  const before = node.exec('nft', 'list', 'ruleset');

  const { status, stdout, stderr } = atNode(plugin.executable, node, [alive, dead, stranger], 'bypass');
  assert.equal(status, 0, stderr);
  assert.match(stdout, /the mesh's rules are out of 2 network namespaces; 3 were looked at/);
  assert.equal(node.exec('nft', 'list', 'ruleset'), before);
  assert.equal(dead.exec('nft', 'list', 'ruleset'), '');
  assert.match(stranger.exec('nft', 'list', 'ruleset'), /somebody-elses/);
  // ztunnel still relays there: replies must find their way, and nothing new is captured.
  const left = alive.exec('nft', 'list', 'ruleset');
  assert.doesNotMatch(left, /redirect/);
  assert.match(left, /istio-ambient-mangle/);

  assert.deepEqual((await plugin.call('ADD')).output, PREV_RESULT, 'new pods start, agent or not');
  assert.equal(statSync(join(plugin.folder, 'bin/istio-cni.d/bypass')).mode & 0o777, 0o600);
  assert.match((await plugin.tool('status')).stdout, /bypassed: {3}yes, since .*\n.*1 in the mesh/);
  assert.equal((await plugin.tool('bypass', '--undo')).status, 0);
  assert.equal(existsSync(join(plugin.folder, 'bin/istio-cni.d/bypass')), false);
  assert.equal((await plugin.call('ADD')).status, 1);
  assert.match((await plugin.tool('bypass', '--undo')).stdout, /not bypassed/);
  assert.equal((await plugin.tool('bypass', '--unknown')).status, 2);
});

test('rules that iptables wrote go as well', options, (t) => {
  const plugin = testPlugin(t);
  const [node, pod] = [makeNetns(t), makeNetns(t)];
  if (spawnSync('iptables-nft', ['--version']).status !== 0) return t.skip('no iptables-nft on this machine');
  for (const chain of ['ISTIO_OUTPUT', 'ISTIO_PRERT']) pod.exec('iptables-nft', '-t', 'nat', '-N', chain);
  pod.exec('iptables-nft', '-t', 'nat', '-A', 'OUTPUT', '-j', 'ISTIO_OUTPUT');
  pod.exec('iptables-nft', '-t', 'nat', '-A', 'ISTIO_OUTPUT', '-p', 'tcp', '-j', 'REDIRECT', '--to-ports', '15001');
  const { status, stderr } = atNode(plugin.executable, node, [pod], 'bypass');
  assert.equal(status, 0, stderr);
  assert.doesNotMatch(pod.exec('iptables-nft', '-t', 'nat', '-S'), /REDIRECT/);
});

test('a node whose disk is full or read-only says that new pods would still wait', options, (t) => {
  const plugin = testPlugin(t);
  const node = makeNetns(t);
  rmSync(join(plugin.folder, 'bin/istio-cni.d'), { recursive: true, force: true });
  const { status, stderr } = atNode(
    plugin.executable,
    node,
    [],
    'bypass',
    `mount --bind ${plugin.folder}/bin ${plugin.folder}/bin && mount -o remount,ro,bind ${plugin.folder}/bin`,
  );
  assert.equal(status, 1);
  assert.match(stderr, /new pods would still wait for the node agent: .*read-only file system/);
});

function applyRules(ns: TestNetns): void {
  const config = {
    redirectDns: true,
    ingressMode: false,
    virtualInterfaces: [],
    ipv6: true,
    probeSource: { v4: '169.254.7.127', v6: 'fd16:9254:7127:1337:ffff:ffff:ffff:ffff' },
    captureOpenConnections: false,
  };
  ns.exec('nft', podRules(config).join('\n'));
}

/** ztunnel's place in a pod. */
async function listen(t: TestContext, ns: TestNetns, port: number): Promise<void> {
  const program = `require('node:net').createServer().listen(${port}, '127.0.0.1', () => console.log('listening'))`;
  const child = spawn('nsenter', [`--net=${ns.path}`, process.execPath, '-e', program], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.after(() => void child.kill());
  await once(child.stdout, 'data');
}

/** Runs the tool where it sees the given namespaces only: on this machine there are others, of other tests. */
function atNode(executable: string, node: TestNetns, pods: readonly TestNetns[], command: string, first = 'true') {
  const script = [
    ...pods.map(({ path }) => `nsenter --net=${path} sleep 60 &`),
    // By then each of them is in its namespace; those that are mounted on this machine are not for it to see.
    `sleep 0.2; mount -t tmpfs none /var/run/netns && ${first} && exec ${executable} ${command}`,
  ].join('\n');
  const { status, stdout, stderr } = spawnSync(
    'nsenter',
    [
      `--net=${node.path}`,
      'unshare',
      '--mount',
      '--propagation',
      'private',
      '--pid',
      '--fork',
      '--kill-child',
      '--mount-proc',
      'sh',
      '-c',
      script,
    ],
    { encoding: 'utf8' },
  );
  return { status, stdout, stderr };
}
