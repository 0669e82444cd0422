import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DEFAULT_PROBE_SOURCE } from '../../../cni/rules/constants.ts';
import { hostRules, probeSets } from '../../../cni/rules/host-rules.ts';
import { podOptions, rulesFor } from '../../../cni/rules/pod-options.ts';
import { drainingRules, noRules, type PodRulesConfig, podRules } from '../../../cni/rules/pod-rules.ts';

const config: PodRulesConfig = {
  redirectDns: false,
  ingressMode: false,
  virtualInterfaces: [],
  ipv6: true,
  probeSource: DEFAULT_PROBE_SOURCE,
  captureOpenConnections: false,
};

const redirects = (commands: readonly string[]): string[] => commands.filter((command) => command.includes('redirect to'));
const anyConfig = fc.record({
  redirectDns: fc.boolean(),
  ingressMode: fc.boolean(),
  virtualInterfaces: fc.uniqueArray(fc.stringMatching(/^[a-z][a-z0-9]{0,5}$/), { maxLength: 3 }),
  ipv6: fc.boolean(),
  probeSource: fc.constant(DEFAULT_PROBE_SOURCE),
});

test('every redirect of TCP takes connection starts only', () => {
  fc.assert(
    fc.property(anyConfig, (fields) => {
      const commands = redirects(podRules({ ...fields, captureOpenConnections: false }));
      assert.ok(commands.length > 0);
      for (const command of commands) {
        if (!command.includes('udp')) assert.match(command, /tcp flags & \(fin \| syn \| rst \| ack\) == syn counter redirect/);
      }
    }),
  );
});

test("Istio's form is ours without the match on flags", () => {
  fc.assert(
    fc.property(anyConfig, (fields) => {
      const ours = podRules({ ...fields, captureOpenConnections: false }).map((command) => command.replace(/tcp flags .* == syn /, ''));
      assert.deepEqual(ours, podRules({ ...fields, captureOpenConnections: true }));
    }),
  );
});

test("ztunnel's own packets are never redirected, and every rule counts", () => {
  fc.assert(
    fc.property(anyConfig, (fields) => {
      const commands = podRules({ ...fields, captureOpenConnections: false });
      for (const command of redirects(commands)) {
        if (!command.includes('iifname')) assert.match(command, /mark and 0xfff != 0x539/);
      }
      const rules = commands.filter((command) => command.startsWith('add rule') && !command.includes(' jump '));
      assert.ok(rules.every((rule) => / counter /.test(rule)));
    }),
  );
});

test('without IPv6 no rule names it', () => {
  assert.equal(
    podRules({ ...config, ipv6: false, redirectDns: true })
      .join()
      .includes('ip6'),
    false,
  );
  assert.ok(podRules(config).join().includes('ip6'));
});

test('probes are let through before anything is redirected', () => {
  const prerouting = podRules(config).filter((command) => command.includes('istio-prerouting') && command.includes('counter'));
  const lastProbe = prerouting.findLastIndex((command) => command.includes('saddr'));
  const firstRedirect = prerouting.findIndex((command) => command.includes('redirect'));
  assert.ok(lastProbe >= 0 && lastProbe < firstRedirect);
});

test('neutral rules replace the table in one go and hold one redirect that no packet meets', () => {
  assert.deepEqual(drainingRules().slice(0, 2), ['add table inet istio-ambient-nat', 'flush table inet istio-ambient-nat']);
  assert.equal(redirects(drainingRules()).length, 1);
  assert.match(redirects(drainingRules())[0] ?? '', /tcp dport 0 /);
});

test('removing adds each table first, so that it never fails for want of one', () => {
  assert.deepEqual(
    noRules().map((command) => command.split(' ')[0]),
    ['add', 'delete', 'add', 'delete', 'add', 'delete'],
  );
});

test("annotations override the node's settings, in Go's spellings of booleans", () => {
  const annotations = {
    'ambient.istio.io/bypass-inbound-capture': 'T',
    'ambient.istio.io/dns-capture': '0',
    'istio.io/reroute-virtual-interfaces': 'eth1, net1,',
  };
  const options = podOptions({ annotations });
  assert.deepEqual(options, { ingressMode: true, redirectDns: false, virtualInterfaces: ['eth1', 'net1'], problems: [] });
  const rules = rulesFor({ ...config, redirectDns: true }, options);
  assert.deepEqual([rules.ingressMode, rules.redirectDns, rules.virtualInterfaces], [true, false, ['eth1', 'net1']]);
  assert.equal(rulesFor({ ...config, redirectDns: true }, podOptions({})).redirectDns, true);
});

test('an annotation cannot smuggle a rule in, nor bring thousands', () => {
  const options = podOptions({ annotations: { 'istio.io/reroute-virtual-interfaces': 'eth0 accept;flush ruleset' } });
  assert.deepEqual(options.virtualInterfaces, []);
  assert.match(options.problems[0] ?? '', /"eth0 accept;flush ruleset" is no interface name/);
  const many = podOptions({
    annotations: { 'istio.io/reroute-virtual-interfaces': Array.from({ length: 100 }, (_, i) => `e${i}`).join() },
  });
  assert.equal(many.virtualInterfaces.length, 16);
  assert.match(many.problems[0] ?? '', /more than 16/);
});

test("the sets of the node's probes are written whole, each family in its own", () => {
  const commands = probeSets(
    new Map([
      ['10.0.0.1', 'uid-1'],
      ['fd00::1', 'uid-1'],
      ['10.0.0.2', 'uid-2'],
    ]),
  );
  assert.deepEqual(commands.slice(3), [
    'flush set inet istio-ambient-nat istio-inpod-probes-v4',
    'add element inet istio-ambient-nat istio-inpod-probes-v4 { 10.0.0.1 comment "uid-1", 10.0.0.2 comment "uid-2" }',
    'flush set inet istio-ambient-nat istio-inpod-probes-v6',
    'add element inet istio-ambient-nat istio-inpod-probes-v6 { fd00::1 comment "uid-1" }',
  ]);
  assert.equal(probeSets(new Map()).filter((command) => command.startsWith('add element')).length, 0);
});

test("probes are the kubelet's own connections, or any local socket's where no kubelet is seen", () => {
  const rule = (kubeletUid: number | undefined): string =>
    hostRules({ ipv6: false, probeSource: DEFAULT_PROBE_SOURCE, kubeletUid }).at(-1) ?? '';
  assert.match(rule(0), /skuid 0 ip daddr @istio-inpod-probes-v4 counter snat to 169\.254\.7\.127$/);
  assert.match(rule(undefined), /skuid 0-4294967295 /);
});
