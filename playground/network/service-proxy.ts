/** Keeps the service rules of every node, and of the playground's own namespace (webhooks are called from there), at the cluster's state. */
import type { Clock } from '../../common/base/clock.ts';
import { errorMessage } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';
import type { Cluster } from '../cluster/collections.ts';
import { WorkQueue } from '../controllers/work-queue.ts';
import { runCommand } from '../node/command.ts';
import type { ClusterNode } from '../node/node.ts';
import { FABRIC } from './plan.ts';
import { serviceRules, virtualPorts } from './service-rules.ts';

export interface ServiceProxyOptions {
  readonly cluster: Cluster;
  readonly nodes: readonly ClusterNode[];
  readonly ipv6: boolean;
  readonly clock: Clock;
  readonly log: Log;
  readonly random: () => number;
}

const KEY = 'rules';

/** @returns how to stop */
export function startServiceProxy({ cluster, nodes, ipv6, clock, log, random }: ServiceProxyOptions): () => void {
  const places = [
    { enter: [] as readonly string[], name: undefined, own: { v4: FABRIC.v4, v6: ipv6 ? FABRIC.v6 : undefined } },
    ...nodes.map(({ plan, netnsPath }) => ({ enter: ['nsenter', `--net=${netnsPath}`], name: plan.name, own: plan.addresses })),
  ];
  const written = new Map<string, string>();
  const write = async (): Promise<void> => {
    const services = cluster.services.list();
    const slices = cluster.endpointSlices.list();
    const results = await Promise.allSettled(
      places.map(async ({ enter, name, own }) => {
        const rules = serviceRules(virtualPorts(services, slices, name), { own });
        if (written.get(name ?? '') === rules) return;
        await runCommand([...enter, 'nft', '--file', '-'], { input: rules });
        written.set(name ?? '', rules);
      }),
    );
    const failed = results.find((result) => result.status === 'rejected');
    if (!failed) return;
    log.error({ error: errorMessage(failed.reason) }, 'service rules not written');
    throw failed.reason;
  };
  const queue = new WorkQueue({ name: 'service-proxy', clock, log, random, reconcile: write });
  const stops = [cluster.services.watch(() => queue.add(KEY)), cluster.endpointSlices.watch(() => queue.add(KEY))];
  return () => {
    for (const stop of stops) stop();
    queue.close();
  };
}
