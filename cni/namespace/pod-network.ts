/**
 * The rules of one pod, applied and taken away. Everything can be repeated: the rules are one transaction that replaces what was there,
 * and the routing commands are content with what they find.
 */
import { readFileSync } from 'node:fs';
import { NAT_TABLE } from '../rules/constants.ts';
import { addRoutes, type IpCommand, removeRoutes } from '../rules/pod-routes.ts';
import { drainingRules, noRules, type PodRulesConfig, podRules } from '../rules/pod-rules.ts';
import { CommandError, type Inside, type PodNetns, runInside } from './run-inside.ts';

export interface PodNamespace extends Inside {
  readonly netns: PodNetns;
}

/** Captures the pod's traffic. @throws {CommandError} naming pod and command */
export async function applyPodRules(pod: PodNamespace, config: PodRulesConfig): Promise<void> {
  await runCommands(pod, addRoutes(config.ipv6 && loopbackHasIpv6(pod.netns)));
  await nft(pod, podRules(config));
}

/** Captures nothing new, and keeps what is being relayed alive. @throws {CommandError} */
export const drainPodRules = (pod: PodNamespace): Promise<void> => nft(pod, drainingRules());

/** Leaves nothing of ours in the pod. @throws {CommandError} */
export async function removePodRules(pod: PodNamespace): Promise<void> {
  await nft(pod, noRules());
  await runCommands(pod, removeRoutes(loopbackHasIpv6(pod.netns)));
}

/** Whether an agent has left rules in the pod, of capture or of a drain that it did not finish. @throws {CommandError} */
export async function hasPodRules(pod: PodNamespace): Promise<boolean> {
  const tables = await runInside(pod, 'nft', ['list', 'tables', 'inet']);
  return tables.split('\n').some((line) => line.trim() === `table inet ${NAT_TABLE}`);
}

/** One transaction. @throws {CommandError} */
export async function nft(inside: Inside, commands: readonly string[]): Promise<void> {
  await runInside(inside, 'nft', ['-f', '-'], `${commands.join('\n')}\n`);
}

async function runCommands(pod: PodNamespace, commands: readonly IpCommand[]): Promise<void> {
  for (const command of commands) {
    try {
      await runInside(pod, 'ip', command.arguments);
    } catch (error) {
      if (!(error instanceof CommandError && command.doneAlready.test(error.stderr))) throw error;
    }
  }
}

function loopbackHasIpv6(netns: PodNetns): boolean {
  try {
    return netns.run(() => readFileSync('/proc/sys/net/ipv6/conf/lo/disable_ipv6', 'utf8')).trim() === '0';
  } catch {
    // A kernel without IPv6 has no such file.
    return false;
  }
}
