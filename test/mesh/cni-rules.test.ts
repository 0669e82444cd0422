import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import dgram from 'node:dgram';
import { once } from 'node:events';
import { type TestContext, test } from 'node:test';
import { IptablesProbeRules, NftProbeRules, type ProbeRules } from '../../cni/host/probe-rules.ts';
import { IptablesBackend } from '../../cni/namespace/iptables-backend.ts';
import { NftBackend, nft } from '../../cni/namespace/nft-backend.ts';
import { PodNetwork } from '../../cni/namespace/pod-network.ts';
import { countRelayed } from '../../cni/namespace/relayed.ts';
import type { PodNamespace, RuleBackend } from '../../cni/namespace/rule-backend.ts';
import type { Inside } from '../../cni/namespace/run-inside.ts';
import { DEFAULT_PROBE_SOURCE } from '../../cni/rules/constants.ts';
import type { PodRulesConfig } from '../../cni/rules/pod-rules.ts';
import { isIpv6 } from '../../common/base/address.ts';
import { udpSocket } from '../../common/linux/sockets.ts';
import { joinNetns, makeNetns, type TestNetns, withoutNamespaces } from '../support/netns.ts';
import { startApp, startToyZtunnel, ToyClient } from '../support/toy-ztunnel.ts';
import { until } from '../support/until.ts';

const options = { skip: withoutNamespaces ?? false, timeout: 90_000 };

const config: PodRulesConfig = {
  redirectDns: false,
  ingressMode: false,
  virtualInterfaces: [],
  ipv6: true,
  probeSource: DEFAULT_PROBE_SOURCE,
  captureOpenConnections: false,
};

const BACKENDS: readonly { readonly name: string; readonly backend: RuleBackend }[] = [
  { name: 'nftables', backend: new NftBackend() },
  ...(['nft', 'legacy'] as const)
    .filter((variant) => has(`iptables-${variant}-restore`))
    .map((variant) => ({ name: `iptables-${variant}`, backend: new IptablesBackend(variant) })),
];

const hostConfig = { ipv6: true, probeSource: DEFAULT_PROBE_SOURCE, kubeletUid: undefined };
const PROBE_RULES: readonly { readonly name: string; readonly probes: (node: Inside) => ProbeRules }[] = [
  { name: 'nftables', probes: (node) => new NftProbeRules(node, hostConfig) },
  ...(has('ipset') && has('iptables-nft-restore')
    ? [{ name: 'iptables', probes: (node: Inside): ProbeRules => new IptablesProbeRules(node, hostConfig, 'nft') }]
    : []),
];

const NFT_BREAKS = [
  ['nft', 'flush chain inet istio-ambient-nat istio-output'],
  ['nft', 'insert rule inet istio-ambient-nat istio-output counter accept'],
  ['nft', 'delete table inet istio-ambient-mangle'],
  ['nft', 'add table inet istio-ambient-raw'],
];

function iptablesBreaks(name: string): string[][] {
  const variant = name.split('-')[1];
  return [
    [`iptables-${variant}`, '-t', 'nat', '-F', 'ISTIO_OUTPUT'],
    [`ip6tables-${variant}`, '-t', 'nat', '-I', 'ISTIO_PRERT', '-j', 'ACCEPT'],
    [`iptables-${variant}`, '-t', 'mangle', '-D', 'PREROUTING', '-j', 'ISTIO_PRERT'],
    [`iptables-${variant}`, '-t', 'nat', '-A', 'OUTPUT', '-j', 'ISTIO_OUTPUT'],
  ];
}

/** Under CI everything is installed (scripts/test), so nothing is left out. */
function has(program: string): boolean {
  const found = spawnSync('sh', ['-c', `command -v ${program}`]).status === 0;
  if (!found && process.env.CI) throw new Error(`CI is set, and ${program} is not installed`);
  return found;
}

for (const { name, backend } of BACKENDS) {
  const network = new PodNetwork(backend);

  test(`${name}: new connections of the pod go to 15001 with their destination known, on both families`, options, async (t) => {
    const { pod, peer, at, inside } = world(t);
    startApp(t, peer.netns, 8080);
    const ztunnel = startToyZtunnel(t, pod.netns);
    await network.apply(inside, config);
    for (const host of [at.peer.v4, at.peer.v6]) await ToyClient.open(t, pod.netns, host, 8080);
    assert.deepEqual(ztunnel.seen, [`out ${at.peer.v4}:8080`, `out [${at.peer.v6}]:8080`]);
  });

  test(`${name}: connections to the pod go to 15006, and the application sees the caller's own address`, options, async (t) => {
    const { pod, peer, at, inside } = world(t);
    const app = startApp(t, pod.netns, 8080);
    const ztunnel = startToyZtunnel(t, pod.netns);
    await network.apply(inside, config);
    for (const host of [at.pod.v4, at.pod.v6]) await (await ToyClient.open(t, peer.netns, host, 8080)).say('hello');
    assert.deepEqual(ztunnel.seen, [`in ${at.pod.v4}:8080 from ${at.peer.v4}`, `in [${at.pod.v6}]:8080 from ${at.peer.v6}`]);
    assert.deepEqual(app.callers, [at.peer.v4, at.peer.v6]);
  });

  test(`${name}: tunnels on 15008, the pod talking to itself, and probes of the node are not taken`, options, async (t) => {
    const { pod, peer, at, inside } = world(t);
    for (const port of [8080, 15008]) startApp(t, pod.netns, port);
    const ztunnel = startToyZtunnel(t, pod.netns);
    await network.apply(inside, config);
    for (const host of [at.pod.v4, at.pod.v6]) await ToyClient.open(t, peer.netns, host, 15008);
    for (const host of [at.pod.v4, at.pod.v6, '127.0.0.1', '::1']) await ToyClient.open(t, pod.netns, host, 8080);
    for (const [ip, from] of [
      ['-4', DEFAULT_PROBE_SOURCE.v4],
      ['-6', DEFAULT_PROBE_SOURCE.v6],
    ] as const) {
      peer.exec('ip', ip, 'address', 'add', from, 'dev', 'lo', ...(ip === '-6' ? ['nodad'] : []));
      pod.exec('ip', ip, 'route', 'add', 'default', 'via', ip === '-4' ? at.peer.v4 : at.peer.v6);
    }
    await (await ToyClient.open(t, peer.netns, at.pod.v4, 8080, DEFAULT_PROBE_SOURCE.v4)).say('probe');
    await (await ToyClient.open(t, peer.netns, at.pod.v6, 8080, DEFAULT_PROBE_SOURCE.v6)).say('probe');
    assert.deepEqual(ztunnel.seen, []);
  });

  test(`${name}: connections that are open survive enrolment, in both directions, and new ones are taken`, options, async (t) => {
    const { pod, peer, at, inside } = world(t);
    startApp(t, peer.netns, 8080);
    startApp(t, pod.netns, 8080);
    const before = [];
    for (const end of ['v4', 'v6'] as const) {
      before.push(await ToyClient.open(t, pod.netns, at.peer[end], 8080));
      before.push(await ToyClient.open(t, peer.netns, at.pod[end], 8080));
    }
    const ztunnel = startToyZtunnel(t, pod.netns);
    await network.apply(inside, config);
    for (const client of before) await client.say('still here');
    assert.deepEqual(ztunnel.seen, []);
    await ToyClient.open(t, pod.netns, at.peer.v4, 8080);
    assert.deepEqual(ztunnel.seen, [`out ${at.peer.v4}:8080`]);
  });

  test(`${name}: with Istio's rules to the letter, enrolment cuts what was open`, options, async (t) => {
    const { pod, peer, at, inside } = world(t);
    startApp(t, peer.netns, 8080);
    const before = await ToyClient.open(t, pod.netns, at.peer.v4, 8080);
    startToyZtunnel(t, pod.netns);
    await network.apply(inside, { ...config, captureOpenConnections: true });
    await assert.rejects(before.say('gone'), /cut|within 4 s/);
  });

  test(
    `${name}: relayed connections survive un-enrolment, new ones go direct, and the count says when the rules can go`,
    options,
    async (t) => {
      const { pod, peer, at, inside } = world(t);
      startApp(t, peer.netns, 8080);
      const app = startApp(t, pod.netns, 8080);
      const ztunnel = startToyZtunnel(t, pod.netns);
      await network.apply(inside, config);
      const relayed = [];
      for (const end of ['v4', 'v6'] as const) {
        relayed.push(await ToyClient.open(t, pod.netns, at.peer[end], 8080));
        relayed.push(await ToyClient.open(t, peer.netns, at.pod[end], 8080));
      }
      const taken = ztunnel.seen.length;
      assert.ok(countRelayed(pod.netns) >= 4);

      await network.drain(inside);
      for (const client of relayed) await client.say('still here');
      const direct = [await ToyClient.open(t, pod.netns, at.peer.v4, 8080), await ToyClient.open(t, peer.netns, at.pod.v6, 8080)];
      assert.equal(ztunnel.seen.length, taken, 'new connections are not taken');
      assert.equal(app.callers.length, 3);

      for (const client of relayed) client.end();
      await until(() => countRelayed(pod.netns) === 0);
      await network.remove(inside);
      for (const client of direct) await client.say('still here too');
      assert.doesNotMatch(networkOf(pod), /istio/i);
    },
  );

  test(`${name}: applying twice changes nothing, removing twice leaves nothing`, options, async (t) => {
    const { pod, inside } = world(t);
    const untouched = networkOf(pod);
    await network.apply(inside, { ...config, redirectDns: true });
    const applied = networkOf(pod);
    assert.match(applied, /redirect to :15053|redir ports 15053|--to-ports 15053/);
    assert.match(applied, /fwmark 0x111\/0xfff lookup 100/);
    await network.apply(inside, { ...config, redirectDns: true });
    assert.equal(ownOf(networkOf(pod)), ownOf(applied));
    await network.remove(inside);
    assert.equal(ownOf(networkOf(pod)), ownOf(untouched));
    await network.remove(inside);
    assert.equal(ownOf(networkOf(pod)), ownOf(untouched));
  });

  test(
    `${name}: with DNS capture queries go to 15053, over UDP and TCP, and other datagrams go where they were sent`,
    options,
    async (t) => {
      const { pod, peer, at, inside } = world(t);
      const answers = { captured: udpEcho(t, pod, 15053), server: udpEcho(t, peer, 53), other: udpEcho(t, peer, 5300) };
      startApp(t, pod.netns, 15053);
      await network.apply(inside, { ...config, redirectDns: true });
      for (const host of [at.peer.v4, at.peer.v6]) {
        assert.equal(await query(t, pod, host, 53), 'query');
        assert.equal(await query(t, pod, host, 5300), 'query');
      }
      assert.deepEqual([answers.captured.count, answers.server.count, answers.other.count], [2, 0, 2]);
      await ToyClient.open(t, pod.netns, at.peer.v4, 53);
    },
  );

  test(`${name}: ingress mode takes what goes out and leaves what comes in`, options, async (t) => {
    const { pod, peer, at, inside } = world(t);
    startApp(t, peer.netns, 8080);
    startApp(t, pod.netns, 8080);
    const ztunnel = startToyZtunnel(t, pod.netns);
    await network.apply(inside, { ...config, ingressMode: true });
    await ToyClient.open(t, peer.netns, at.pod.v4, 8080);
    await ToyClient.open(t, pod.netns, at.peer.v4, 8080);
    assert.deepEqual(ztunnel.seen, [`out ${at.peer.v4}:8080`]);
  });

  test(`${name}: what comes in by a virtual interface counts as outbound`, options, async (t) => {
    const { pod, peer, at, inside } = world(t);
    startApp(t, pod.netns, 8080);
    const ztunnel = startToyZtunnel(t, pod.netns);
    await network.apply(inside, { ...config, virtualInterfaces: ['v1'] });
    await ToyClient.open(t, peer.netns, at.pod.v4, 8080);
    assert.deepEqual(ztunnel.seen, [`out ${at.pod.v4}:8080`]);
  });

  test(`${name}: a pod without IPv6 gets the rules all the same`, options, async (t) => {
    const { pod, peer, at, inside } = world(t);
    pod.exec('sysctl', '-qw', 'net.ipv6.conf.all.disable_ipv6=1', 'net.ipv6.conf.lo.disable_ipv6=1');
    startApp(t, peer.netns, 8080);
    const ztunnel = startToyZtunnel(t, pod.netns);
    await network.apply(inside, config);
    await ToyClient.open(t, pod.netns, at.peer.v4, 8080);
    assert.equal(ztunnel.seen.length, 1);
    await network.remove(inside);
  });

  test(
    `${name}: what another program changed, removed or added is found and mended, and open connections do not notice`,
    options,
    async (t) => {
      const { pod, peer, at, inside } = world(t);
      startApp(t, peer.netns, 8080);
      const ztunnel = startToyZtunnel(t, pod.netns);
      assert.equal(await network.mend(inside, config), 'absent');
      assert.equal(await network.mend(inside, config), 'wanted');
      const relayed = await ToyClient.open(t, pod.netns, at.peer.v4, 8080);
      for (const break_ of backend.name === 'nftables' ? NFT_BREAKS : iptablesBreaks(name)) {
        pod.exec(...break_);
        assert.equal(await network.mend(inside, config), 'different', break_.join(' '));
        assert.equal(await network.mend(inside, config), 'wanted', `after ${break_.join(' ')}: ${networkOf(pod)}`);
        await relayed.say('still here');
      }
      pod.exec('ip', 'rule', 'del', 'priority', '32764');
      await network.mend(inside, config);
      assert.match(pod.exec('ip', 'rule'), /fwmark 0x111\/0xfff lookup 100/);
      const taken = ztunnel.seen.length;
      await ToyClient.open(t, pod.netns, at.peer.v4, 8080);
      assert.equal(ztunnel.seen.length, taken + 1);
      assert.equal(await network.mend(inside, config), 'wanted', 'after traffic, which the rules count');
    },
  );

  test(`${name}: the pod's own rules stay as they are, through enrolment, mending and leaving`, options, async (t) => {
    const { pod, peer, at, inside } = world(t);
    startApp(t, peer.netns, 8080);
    startApp(t, peer.netns, 9090);
    pod.exec(
      'nft',
      'add table inet own; add chain inet own out { type filter hook output priority 0 ; }; add rule inet own out tcp dport 9090 drop',
    );
    if (backend.name === 'iptables')
      pod.exec(`iptables-${name.split('-')[1]}`, '-t', 'nat', '-A', 'OUTPUT', '-p', 'tcp', '--dport', '7070', '-j', 'ACCEPT');
    const own = (): string => pod.exec('nft', 'list', 'table', 'inet', 'own');
    const before = own();
    await network.apply(inside, config);
    await network.mend(inside, config);
    assert.equal(own(), before);
    await network.remove(inside);
    assert.equal(own(), before);
    if (backend.name === 'iptables') assert.match(pod.exec(`iptables-${name.split('-')[1]}-save`, '-t', 'nat'), /--dport 7070 -j ACCEPT/);
    await ToyClient.open(t, pod.netns, at.peer.v4, 8080);
  });
}

test('rules of one back-end give way to those of the other, and relayed connections go on', options, async (t) => {
  const { pod, peer, at, inside } = world(t);
  const [nftables, iptables] = [new NftBackend(), BACKENDS.find(({ backend }) => backend.name === 'iptables')?.backend];
  if (!iptables) return t.skip('iptables is not installed');
  startApp(t, peer.netns, 8080);
  const ztunnel = startToyZtunnel(t, pod.netns);
  await new PodNetwork(iptables).apply(inside, { ...config, captureOpenConnections: true });
  const relayed = await ToyClient.open(t, pod.netns, at.peer.v4, 8080);
  assert.equal(await new PodNetwork(nftables, [iptables]).mend(inside, config), 'different');
  assert.doesNotMatch(networkOf(pod), /ISTIO_/);
  await relayed.say('still here');
  await ToyClient.open(t, pod.netns, at.peer.v4, 8080);
  assert.equal(await new PodNetwork(iptables, [nftables]).mend(inside, config), 'different');
  assert.doesNotMatch(networkOf(pod), /istio-ambient/);
  await relayed.say('still here');
  await ToyClient.open(t, pod.netns, at.peer.v6, 8080);
  assert.equal(ztunnel.seen.length, 3);
});

test('a table of our name that another program has made differently is replaced', options, async (t) => {
  const { pod, peer, at, inside } = world(t);
  startApp(t, peer.netns, 8080);
  const ztunnel = startToyZtunnel(t, pod.netns);
  pod.exec(
    'nft',
    'add table inet istio-ambient-nat; add chain inet istio-ambient-nat output { type filter hook output priority 7 ; policy drop ; }',
  );
  await new PodNetwork(new NftBackend()).apply(inside, config);
  await ToyClient.open(t, pod.netns, at.peer.v4, 8080);
  assert.equal(ztunnel.seen.length, 1);
});

for (const { name, probes } of PROBE_RULES) {
  test(`${name}: the node's own connections to enrolled pods come from the probe address, forwarded ones do not`, options, async (t) => {
    const [node, pod, other] = [makeNetns(t), makeNetns(t), makeNetns(t)];
    const [toPod, toOther] = [joinNetns(node, pod, 1), joinNetns(node, other, 2)];
    node.exec('sysctl', '-qw', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1');
    for (const [end, gateway] of [
      [pod, toPod.a],
      [other, toOther.a],
    ] as const) {
      end.exec('ip', '-4', 'route', 'add', 'default', 'via', gateway.v4);
      end.exec('ip', '-6', 'route', 'add', 'default', 'via', gateway.v6);
    }
    const app = startApp(t, pod.netns, 8080);
    const probed = new Map([
      [toPod.b.v4, 'uid-1'],
      [toPod.b.v6, 'uid-1'],
    ]);
    const rules = probes({ netns: node.netns, about: 'the node' });
    await rules.install(probed);
    await rules.install(probed);
    for (const host of [toPod.b.v4, toPod.b.v6]) {
      await ToyClient.open(t, node.netns, host, 8080);
      await ToyClient.open(t, other.netns, host, 8080);
    }
    assert.deepEqual(app.callers, [DEFAULT_PROBE_SOURCE.v4, toOther.b.v4, DEFAULT_PROBE_SOURCE.v6, toOther.b.v6]);
    await rules.write(new Map());
    await ToyClient.open(t, node.netns, toPod.b.v4, 8080);
    assert.equal(app.callers.at(-1), toPod.a.v4);
    await rules.remove();
    await rules.remove();
    assert.doesNotMatch(node.exec('nft', 'list', 'ruleset'), /istio/i);
  });
}

test('an error names the pod and the command', options, async (t) => {
  const { inside } = world(t);
  await assert.rejects(nft(inside, ['add rule inet nowhere here accept']), /pod shop\/orders-1: nft -f -: exit status 1: .*No such file/);
  const bad = new PodNetwork(new NftBackend()).apply(inside, { ...config, virtualInterfaces: ['bad name'] });
  await assert.rejects(bad, /pod shop\/orders-1: nft -f -: exit status 1/);
});

function world(t: TestContext) {
  const [pod, peer] = [makeNetns(t), makeNetns(t)];
  const { a, b } = joinNetns(pod, peer, 1);
  const inside: PodNamespace = { netns: pod.netns, about: 'pod shop/orders-1' };
  return { pod, peer, at: { pod: a, peer: b }, inside };
}

/** Ours alone, in no order: iptables leaves empty tables behind, and prints chains in the order of their making. */
const ownOf = (network: string): string =>
  network
    .split('\n')
    .filter((line) => /istio|redir|fwmark|table 100/i.test(line))
    .sort()
    .join('\n');

const networkOf = (ns: TestNetns): string =>
  [
    ns.exec('nft', 'list', 'ruleset').replace(/packets \d+ bytes \d+/g, ''),
    ...['iptables-legacy-save', 'ip6tables-legacy-save'].filter(has).map((save) => ns.exec(save).replace(/^#.*$|\[\d+:\d+\]/gm, '')),
    ...['-4', '-6'].map(
      (family) => ns.exec('ip', family, 'rule') + ns.exec('ip', family, 'route', 'show', 'table', 'all', 'type', 'local'),
    ),
  ].join('');

function udpEcho(t: TestContext, ns: TestNetns, port: number): { count: number } {
  const seen = { count: 0 };
  const socket = dgram.createSocket('udp6');
  t.after(() => socket.close());
  socket.on('message', (data, from) => {
    seen.count++;
    socket.send(data, from.port, from.address);
  });
  socket.bind({ fd: udpSocket({ netns: ns.netns, address: '::', port }) });
  return seen;
}

/** Sends a datagram from inside, and returns what comes back. */
async function query(t: TestContext, ns: TestNetns, host: string, port: number): Promise<string> {
  const v6 = isIpv6(host);
  const socket = dgram.createSocket(v6 ? 'udp6' : 'udp4');
  t.after(() => socket.close());
  socket.bind({ fd: udpSocket({ netns: ns.netns, address: v6 ? '::' : '0.0.0.0', port: 0 }) });
  const answer = once(socket, 'message', { signal: AbortSignal.timeout(20_000) });
  socket.send('query', port, host);
  const [data] = await answer;
  return String(data);
}
