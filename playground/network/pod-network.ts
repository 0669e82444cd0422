/**
 * A pod's network namespace: pinned under the node's /run/netns by the pod's UID (where the node agent looks for it), and one cable to the
 * node's namespace. The pod's only neighbour is its node, whatever it wants to reach.
 */
import { runCommand } from '../node/command.ts';
import { type ClusterNode, gatewayAddresses } from '../node/node.ts';
import { type Addresses, POD_GATEWAY } from './plan.ts';

/** Interface names have 15 characters at most; the UID's first eight tell the pods of one node apart. */
const podDevice = (uid: string): string => `pod${uid.replaceAll('-', '').slice(0, 10)}`;

/** Path on the node; what the plugin is told. */
export const podNetnsPath = (uid: string): string => `/var/run/netns/${uid}`;

// $1 uid, $2 device. Standard input: the pod's lines, a line with a dot, the node's lines.
const CREATE = `set -e
ip netns add "$1"
trap 'ip netns del "$1"' EXIT
ip link add "$2" type veth peer name eth0 netns "$1"
inside= outside= dot=
while IFS= read -r line; do
  if [ "$line" = . ]; then dot=1; continue; fi
  if [ -z "$dot" ]; then inside="$inside$line
"; else outside="$outside$line
"; fi
done
printf %s "$inside" | nsenter --net="/run/netns/$1" sh -c '
  if [ -d /proc/sys/net/ipv6 ]; then
    for name in all default eth0; do
      echo 0 > /proc/sys/net/ipv6/conf/$name/disable_ipv6
      echo 0 > /proc/sys/net/ipv6/conf/$name/accept_dad
    done
  fi
  ip -batch -'
printf %s "$outside" | ip -batch -
trap - EXIT
`;

const REMOVE = 'ip netns del "$1" 2>/dev/null; ip link del "$2" 2>/dev/null; true';

/** @throws {CommandError} and leaves nothing */
export async function createPodNetwork(node: ClusterNode, uid: string, addresses: Addresses): Promise<void> {
  const device = podDevice(uid);
  const { v4, v6 } = addresses;
  const inside = [
    'link set lo up',
    `addr add ${v4}/32 dev eth0`,
    ...(v6 ? [`addr add ${v6}/128 dev eth0 nodad`] : []),
    'link set eth0 up',
    `route add ${POD_GATEWAY.v4} dev eth0 scope link`,
    `route add default via ${POD_GATEWAY.v4} dev eth0 src ${v4}`,
    ...(v6 ? [`route add default via ${POD_GATEWAY.v6} dev eth0 src ${v6}`] : []),
  ];
  const outside = [
    `link set ${device} up`,
    ...gatewayAddresses(device, v6 !== undefined),
    `route add ${v4} dev ${device} src ${node.plan.addresses.v4}`,
    ...(v6 && node.plan.addresses.v6 ? [`route add ${v6} dev ${device} src ${node.plan.addresses.v6}`] : []),
  ];
  await runCommand([...node.enter, 'sh', '-c', CREATE, 'pod-network', uid, device], { input: [...inside, '.', ...outside, ''].join('\n') });
}

export async function removePodNetwork(node: ClusterNode, uid: string): Promise<void> {
  await runCommand([...node.enter, 'sh', '-c', REMOVE, 'pod-network', uid, podDevice(uid)]);
}
