/** A pod's own kernel parameters: those of its network namespace (`net.ipv4.ip_unprivileged_port_start: 0` lets a gateway listen on port 80). */
import { writeFileSync } from 'node:fs';
import { Netns } from '../../common/linux/netns.ts';

export interface Sysctl {
  readonly name: string;
  readonly value: string;
}

const NETWORK = /^net([./][\w-]+)+$/;

/** @param netnsPath of the pod. @throws {Error} naming a parameter that is not the network's, or that the kernel refuses */
export function writeSysctls(netnsPath: string, sysctls: readonly Sysctl[]): void {
  if (sysctls.length === 0) return;
  const netns = Netns.open(netnsPath);
  try {
    for (const { name, value } of sysctls) {
      if (!NETWORK.test(name))
        throw new Error(`forbidden sysctl: ${JSON.stringify(name)}, only those of the pod's network (net.*) are the pod's own`);
      // These files show the network namespace of the thread that opens them.
      netns.run(() => writeFileSync(`/proc/sys/${name.replaceAll('.', '/')}`, value));
    }
  } finally {
    netns.close();
  }
}
