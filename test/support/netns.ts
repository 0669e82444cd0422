/**
 * Network namespaces for mesh tests: named after the process and the test, so that two runs side by side do not meet, and removed when the
 * test ends, passed or not.
 */
import { execFileSync } from 'node:child_process';
import type { TestContext } from 'node:test';
import { Netns } from '../../common/linux/netns.ts';

let counter = 0;

/** undefined where namespaces can be made; the reason to skip otherwise. Under CI the absence is a failure, not a reason to skip. */
export const withoutNamespaces: string | undefined = reasonToSkip();

export interface TestNetns {
  readonly name: string;
  readonly path: string;
  readonly netns: Netns;
  /** Runs a command inside and returns its standard output; throws with its standard error. */
  exec(...command: readonly string[]): string;
}

/** A namespace of its own for one test, with loopback up. */
export function makeNetns(t: TestContext): TestNetns {
  const name = `warren-test-${process.pid}-${counter++}`;
  command('ip', 'netns', 'add', name);
  const path = `/var/run/netns/${name}`;
  let netns: Netns | undefined;
  t.after(() => {
    netns?.close();
    command('ip', 'netns', 'del', name);
  });
  netns = Netns.open(path);
  const exec = (...argv: readonly string[]): string => command('nsenter', `--net=${path}`, '--', ...argv);
  exec('ip', 'link', 'set', 'lo', 'up');
  return { name, path, netns, exec };
}

/** Joins two namespaces by a veth pair, with an IPv4 and an IPv6 address on each side. */
export function joinNetns(a: TestNetns, b: TestNetns, subnet: number): { a: { v4: string; v6: string }; b: { v4: string; v6: string } } {
  const ends = {
    a: { v4: `10.251.${subnet}.1`, v6: `fd00:251:${subnet}::1` },
    b: { v4: `10.251.${subnet}.2`, v6: `fd00:251:${subnet}::2` },
  };
  const device = `v${subnet}`;
  // Duplicate detection of the link-local addresses would delay the first IPv6 packet by a second.
  for (const ns of [a, b]) ns.exec('sysctl', '-qw', 'net.ipv6.conf.all.accept_dad=0', 'net.ipv6.conf.default.accept_dad=0');
  a.exec('ip', 'link', 'add', device, 'type', 'veth', 'peer', 'name', device, 'netns', b.name);
  // The end that comes up first has no carrier then, and IPv6 would not notice it for a second: so that end comes up once more.
  b.exec('ip', 'link', 'set', device, 'up');
  a.exec('ip', 'link', 'set', device, 'up');
  b.exec('ip', 'link', 'set', device, 'down');
  b.exec('ip', 'link', 'set', device, 'up');
  for (const [ns, end] of [
    [a, ends.a],
    [b, ends.b],
  ] as const) {
    ns.exec('ip', 'address', 'add', `${end.v4}/24`, 'dev', device);
    ns.exec('ip', 'address', 'add', `${end.v6}/64`, 'dev', device, 'nodad');
  }
  return ends;
}

export function command(file: string, ...argv: readonly string[]): string {
  return execFileSync(file, argv, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

function reasonToSkip(): string | undefined {
  const reason = process.getuid?.() === 0 ? whyNoNetns() : 'needs root for network namespaces';
  if (reason !== undefined && process.env.CI) throw new Error(`CI is set, so this may not be skipped: ${reason}`);
  return reason;
}

function whyNoNetns(): string | undefined {
  try {
    command('unshare', '--net', 'true');
    command('nft', '--version');
    return undefined;
  } catch (error) {
    return `needs network namespaces and nft: ${error instanceof Error ? error.message.split('\n')[0] : String(error)}`;
  }
}
