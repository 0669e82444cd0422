/**
 * Which address belongs to what. Everything lies in the playground's own network namespace, so two playgrounds use the same addresses and
 * never meet. Pods have /32 and /128 addresses and reach everything through their node, so that connection tracking sees both directions.
 */
import type { IpAddress } from '../../common/base/address.ts';

export const CLUSTER_DOMAIN = 'cluster.local';

/** The playground's own end of the bridge: API server and DNS listen here. */
export const FABRIC = { v4: '172.30.0.1', v6: 'fd00:172:30::1' } as const;
export const API_PORT = 6443;
export const DNS_PORT = 53;
export const SERVICE_CIDRS = { v4: '10.96.0.0/16', v6: 'fd00:10:96::/112' } as const;
export const API_SERVICE_IP = '10.96.0.1';
export const DNS_SERVICE_IP = '10.96.0.10';
export const POD_CIDRS = { v4: '10.244.0.0/16', v6: 'fd00:10:244::/48' } as const;

/** What pods take for their router: these addresses are on the node's end of every pod's link. */
export const POD_GATEWAY = { v4: '169.254.1.1', v6: 'fe80::1' } as const;

export const MAX_NODES = 32;
const FIRST_POD = 2;
const LAST_POD = 254;

export interface Addresses {
  readonly v4: IpAddress;
  /** undefined where the machine has no IPv6. */
  readonly v6: IpAddress | undefined;
}

export interface NodePlan {
  /** Counted from 1. */
  readonly index: number;
  readonly name: string;
  readonly addresses: Addresses;
  readonly podCidrs: { readonly v4: string; readonly v6: string | undefined };
  readonly labels: Readonly<Record<string, string>>;
}

export function planNode(index: number, ipv6: boolean): NodePlan {
  const name = `node${index}`;
  return {
    index,
    name,
    addresses: { v4: `172.30.0.${10 + index}`, v6: ipv6 ? `fd00:172:30::${(10 + index).toString(16)}` : undefined },
    podCidrs: { v4: `10.244.${index}.0/24`, v6: ipv6 ? `fd00:10:244:${index.toString(16)}::/64` : undefined },
    labels: {
      'kubernetes.io/hostname': name,
      'kubernetes.io/os': 'linux',
      'kubernetes.io/arch': process.arch === 'arm64' ? 'arm64' : 'amd64',
      'topology.kubernetes.io/region': 'warren',
      'topology.kubernetes.io/zone': `zone${index}`,
    },
  };
}

/** Hands out a node's pod addresses in turn, so that one that was just given back rests as long as possible. */
export class PodAddresses {
  readonly #plan: NodePlan;
  readonly #used = new Set<number>();
  #last = FIRST_POD - 1;

  constructor(plan: NodePlan) {
    this.#plan = plan;
  }

  /** @throws {Error} when the node is full */
  take(): Addresses {
    for (let tried = FIRST_POD; tried <= LAST_POD; tried++) {
      this.#last = this.#last >= LAST_POD ? FIRST_POD : this.#last + 1;
      if (this.#used.has(this.#last)) continue;
      this.#used.add(this.#last);
      const { index, podCidrs } = this.#plan;
      const v6 = podCidrs.v6 === undefined ? undefined : `fd00:10:244:${index.toString(16)}::${this.#last.toString(16)}`;
      return { v4: `10.244.${index}.${this.#last}`, v6 };
    }
    throw new Error(`${this.#plan.name} has no free pod address: ${LAST_POD - FIRST_POD + 1} are in use`);
  }

  release(addresses: Addresses): void {
    this.#used.delete(Number(addresses.v4.split('.')[3]));
  }
}
