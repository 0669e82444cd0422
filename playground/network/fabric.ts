/** The wire between the nodes: a bridge in the playground's own network namespace, one cable to each node, and the routes to their pods. */
import { writeFileSync } from 'node:fs';
import { runCommand } from '../node/command.ts';
import { type ClusterNode, nodeLinkCommands } from '../node/node.ts';
import { FABRIC, SERVICE_CIDRS } from './plan.ts';

const BRIDGE = 'warren0';

/** Must run in a fresh network namespace. Afterwards FABRIC's addresses answer. */
export async function startFabric(ipv6: boolean): Promise<void> {
  if (ipv6) {
    // Before any link is there: an address under duplicate detection cannot be listened on for a second.
    for (const name of ['all', 'default']) writeFileSync(`/proc/sys/net/ipv6/conf/${name}/disable_ipv6`, '0');
    writeFileSync('/proc/sys/net/ipv6/conf/default/accept_dad', '0');
    writeFileSync('/proc/sys/net/ipv6/conf/all/forwarding', '1');
  }
  writeFileSync('/proc/sys/net/ipv4/ip_forward', '1');
  await ipBatch(
    [],
    [
      'link set lo up',
      `link add ${BRIDGE} type bridge`,
      `addr add ${FABRIC.v4}/24 dev ${BRIDGE}`,
      ...(ipv6 ? [`addr add ${FABRIC.v6}/64 dev ${BRIDGE} nodad`] : []),
      `link set ${BRIDGE} up`,
      // Virtual addresses need a route to be dialled at all; the service rules then say where they go.
      `route add ${SERVICE_CIDRS.v4} dev ${BRIDGE} src ${FABRIC.v4}`,
      ...(ipv6 ? [`route add ${SERVICE_CIDRS.v6} dev ${BRIDGE} src ${FABRIC.v6}`] : []),
    ],
  );
}

export async function connectNodes(nodes: readonly Pick<ClusterNode, 'plan' | 'pid' | 'enter'>[]): Promise<void> {
  const plans = nodes.map(({ plan }) => plan);
  await ipBatch(
    [],
    nodes.flatMap(({ plan, pid }) => {
      const cable = plan.name;
      const lines = [
        `link add ${cable} type veth peer name eth0 netns ${pid}`,
        `link set ${cable} master ${BRIDGE} up`,
        `route add ${plan.podCidrs.v4} via ${plan.addresses.v4}`,
      ];
      if (plan.podCidrs.v6 && plan.addresses.v6) lines.push(`route add ${plan.podCidrs.v6} via ${plan.addresses.v6} dev ${BRIDGE}`);
      return lines;
    }),
  );
  await Promise.all(nodes.map((node) => ipBatch(node.enter, nodeLinkCommands(node.plan, plans, FABRIC))));
}

async function ipBatch(enter: readonly string[], lines: readonly string[]): Promise<void> {
  await runCommand([...enter, 'ip', '-batch', '-'], { input: `${lines.join('\n')}\n` });
}
