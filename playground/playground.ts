/**
 * The playground from inside its namespaces, in start order: state, wire, nodes, API server, DNS, service rules, controllers, kubelets,
 * and the mesh's manifests where they are wanted.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '../common/base/clock.ts';
import type { Log } from '../common/base/log.ts';
import { ApiServer } from './apiserver/apiserver.ts';
import { createSystemObjects } from './cluster/bootstrap.ts';
import type { Cluster } from './cluster/collections.ts';
import { clusterFromServer } from './cluster/from-store.ts';
import { kubeletStreams } from './cluster/streams.ts';
import { daemonSetController } from './controllers/daemon-set.ts';
import { deploymentController } from './controllers/deployment.ts';
import { endpointSliceController } from './controllers/endpoint-slice.ts';
import { jobController } from './controllers/job.ts';
import { replicaSetController } from './controllers/replica-set.ts';
import { scheduler } from './controllers/scheduler.ts';
import { statefulSetController } from './controllers/stateful-set.ts';
import { startDns } from './dns/server.ts';
import { dnsView } from './dns/view.ts';
import { CHECKOUT, COMPILED } from './images.ts';
import { Kubelet } from './kubelet/kubelet.ts';
import { connectNodes, startFabric } from './network/fabric.ts';
import { API_PORT, DNS_PORT, FABRIC, MAX_NODES, planNode } from './network/plan.ts';
import { startServiceProxy } from './network/service-proxy.ts';
import { type ClusterNode, hasIpv6, type StateFolders, startNode } from './node/node.ts';

export interface PlaygroundOptions {
  readonly nodes: number;
  /** Empty folder for the playground's state; a tmpfs is mounted there. */
  readonly state: string;
  /** Real path of the checkout. */
  readonly checkout: string;
  /** Listening socket of the machine's loopback. */
  readonly listener: number;
  readonly clock: Clock;
  readonly log: Log;
  readonly random: () => number;
}

export interface Playground {
  readonly server: ApiServer;
  readonly cluster: Cluster;
  readonly nodes: readonly ClusterNode[];
  readonly kubeconfig: string;
}

const controllers = [
  scheduler,
  replicaSetController,
  deploymentController,
  daemonSetController,
  statefulSetController,
  jobController,
  endpointSliceController,
] as const;

/** There is no stop: with the process that calls this its PID namespace ends, and with that everything. */
export async function startPlayground(options: PlaygroundOptions): Promise<Playground> {
  const { clock, log, random } = options;
  if (options.nodes < 1 || options.nodes > MAX_NODES) throw new Error(`between 1 and ${MAX_NODES} nodes, not ${options.nodes}`);
  const folders = mountState(options.state, options.checkout);
  const ipv6 = hasIpv6();

  await startFabric(ipv6);
  const nodes = await Promise.all(Array.from({ length: options.nodes }, (_, i) => startNode(planNode(i + 1, ipv6), folders)));
  await connectNodes(nodes);

  const kubelets = new Map<string, Kubelet>();
  const server = new ApiServer({
    clock,
    random,
    serverNames: [FABRIC.v4],
    log: log.child({ scope: 'apiserver' }),
    kubelets: kubeletStreams(kubelets),
  });
  const { port } = await server.listen({ fd: options.listener });
  await server.listen({ host: FABRIC.v4, port: API_PORT });
  const cluster = clusterFromServer(server, clock, log.child({ scope: 'cluster' }));
  await createSystemObjects(cluster, ipv6);

  const dnsAddresses = [FABRIC.v4, ...(ipv6 ? [FABRIC.v6] : [])];
  await startDns({ addresses: dnsAddresses, port: DNS_PORT, view: dnsView(cluster), log: log.child({ scope: 'dns' }) });
  startServiceProxy({ cluster, nodes, ipv6, clock, random, log: log.child({ scope: 'service-proxy' }) });
  for (const start of controllers) start({ cluster, clock, random, log: log.child({ scope: 'controllers' }) });

  const nodeExecutable = process.execPath.startsWith(`${options.checkout}/`)
    ? CHECKOUT + process.execPath.slice(options.checkout.length)
    : process.execPath;
  for (const node of nodes) {
    const kubelet = new Kubelet({
      node,
      cluster,
      folders,
      checkout: folders.checkout,
      nodeExecutable,
      clock,
      random,
      log: log.child({ scope: 'kubelet' }),
    });
    kubelets.set(node.plan.name, kubelet);
    await kubelet.start();
  }
  return { server, cluster, nodes, kubeconfig: server.kubeconfig(`https://127.0.0.1:${port}`) };
}

/** A tmpfs, and in it the machine's own root and the checkout, where every node's and pod's mounts find them. */
function mountState(state: string, checkout: string): StateFolders & { readonly checkout: string } {
  const mount = (...args: string[]): void => {
    execFileSync('mount', args, { stdio: ['ignore', 'ignore', 'inherit'] });
  };
  mkdirSync(join(checkout, COMPILED), { recursive: true });
  mount('-t', 'tmpfs', '-o', 'mode=755', 'warren', state);
  const folders = { state, host: join(state, 'host'), checkout: join(state, 'checkout') };
  mkdirSync(folders.host);
  mkdirSync(folders.checkout);
  mount('--bind', '/', folders.host);
  mount('--rbind', checkout, folders.checkout);
  return folders;
}
