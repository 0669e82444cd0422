/** A node's kubelet: a worker for each pod assigned to it, the node's object and heartbeat, and what `kubectl logs`, `exec` and `port-forward` need. */
import type { ChildProcess } from 'node:child_process';
import type { Socket } from 'node:net';
import { release } from 'node:os';
import { type Clock, minutes, seconds, type Timer } from '../../common/base/clock.ts';
import type { Log } from '../../common/base/log.ts';
import type { Cluster } from '../cluster/collections.ts';
import { PodAddresses } from '../network/plan.ts';
import type { ClusterNode, StateFolders } from '../node/node.ts';
import type { Condition, Node, Pod } from '../objects.ts';
import { connectInside, connectLoopback } from './connect.ts';
import { NODE_CAPACITY } from './environment.ts';
import type { LogBuffer } from './log-buffer.ts';
import { PodWorker } from './pod-worker.ts';
import { endGroup, resizeTerminal, runInContainer, spawnInContainer } from './run-in-container.ts';

export interface KubeletOptions {
  readonly node: ClusterNode;
  readonly cluster: Cluster;
  readonly folders: StateFolders;
  readonly checkout: string;
  readonly nodeExecutable: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly random: () => number;
}

/** A question about a container that cannot be answered; the message is for kubectl's user. */
export class StreamError extends Error {
  readonly status: number;
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

const LEASE_NAMESPACE = 'kube-node-lease';
const HEARTBEAT_MS = seconds(10);
const REFRESH_MS = minutes(1);
const FORWARD_TIMEOUT_MS = seconds(10);

export class Kubelet {
  readonly #options: KubeletOptions;
  readonly #addresses: PodAddresses;
  readonly #workers = new Map<string, PodWorker>();
  readonly #stops: (() => void)[] = [];
  readonly #timers: Timer[] = [];

  constructor(options: KubeletOptions) {
    this.#options = options;
    this.#addresses = new PodAddresses(options.node.plan);
  }

  /** The node's object is there and ready when this resolves. */
  async start(): Promise<void> {
    const { cluster } = this.#options;
    await this.#register();
    this.#stops.push(
      cluster.pods.watch(({ type, object }) => this.#podChanged(type, object)),
      cluster.configMaps.watch(({ object }) => this.#sourceChanged('ConfigMap', object.metadata.namespace, object.metadata.name)),
      cluster.secrets.watch(({ object }) => this.#sourceChanged('Secret', object.metadata.namespace, object.metadata.name)),
    );
    this.#every(HEARTBEAT_MS, () => void this.#heartbeat());
    this.#every(REFRESH_MS, () => {
      for (const worker of this.#workers.values()) worker.refreshVolumes();
    });
  }

  stop(): void {
    for (const stop of this.#stops.splice(0)) stop();
    for (const timer of this.#timers.splice(0)) timer.cancel();
  }

  // ---- streams -------------------------------------------------------------------------------------------------------------------------

  /** @throws {StreamError} */
  log(podUid: string, container: string | undefined, previous: boolean): LogBuffer {
    const found = this.#worker(podUid).container(container);
    if (!found) throw new StreamError(400, `container ${container} is not valid for its pod`);
    if (!previous) return found.log;
    if (!found.previousLog) throw new StreamError(400, `previous terminated container ${JSON.stringify(container ?? '')} not found`);
    return found.previousLog;
  }

  /** @throws {StreamError} */
  exec(
    podUid: string,
    container: string | undefined,
    command: readonly string[],
    options: { tty: boolean; stdin: boolean },
  ): { child: ChildProcess; resize(columns: number, rows: number): void; end(): void } {
    const process = this.#worker(podUid).container(container)?.process;
    const child = process && spawnInContainer(process, command, options);
    if (!child) throw new StreamError(400, `container ${container ?? ''} is not running`);
    return { child, resize: (columns, rows) => void resizeTerminal(child, columns, rows, this.#options.clock), end: () => endGroup(child) };
  }

  /** A connection to a port of the pod's own loopback. @throws {Error} where nothing listens */
  async portForward(podUid: string, port: number): Promise<Socket> {
    return connectLoopback(this.#worker(podUid).netnsPath, port, FORWARD_TIMEOUT_MS, this.#options.clock);
  }

  #worker(uid: string): PodWorker {
    const worker = this.#workers.get(uid);
    if (!worker) throw new StreamError(404, `pod ${uid} is not on node ${this.#options.node.plan.name}`);
    return worker;
  }

  // ---- pods ----------------------------------------------------------------------------------------------------------------------------

  #podChanged(type: 'added' | 'modified' | 'deleted', pod: Pod): void {
    const { node, clock } = this.#options;
    const uid = pod.metadata.uid ?? '';
    const worker = this.#workers.get(uid);
    if (type === 'deleted') {
      if (!worker) return;
      // Deleted by force, or by ourselves: then there is nothing left to end.
      this.#workers.delete(uid);
      void worker.destroy();
    } else if (worker) worker.update(pod);
    else if (pod.spec.nodeName === node.plan.name && !isOver(pod)) {
      this.#workers.set(
        uid,
        new PodWorker({
          ...this.#options,
          pod,
          addresses: this.#addresses,
          connect: (ip, port, timeoutMs) => connectInside(node.netns, ip, port, timeoutMs, clock),
          exec: runInContainer,
          onGone: () => this.#workers.delete(uid),
        }),
      );
    }
  }

  #sourceChanged(kind: 'ConfigMap' | 'Secret', namespace: string | undefined, name: string): void {
    for (const worker of this.#workers.values()) {
      if (worker.pod.metadata.namespace === namespace && worker.usesVolumeOf(kind, name)) worker.refreshVolumes();
    }
  }

  // ---- the node's object ---------------------------------------------------------------------------------------------------------------

  async #register(): Promise<void> {
    const { cluster, node } = this.#options;
    const { name, labels, podCidrs } = node.plan;
    const cidrs = [podCidrs.v4, ...(podCidrs.v6 ? [podCidrs.v6] : [])];
    const object: Node = {
      apiVersion: 'v1',
      kind: 'Node',
      metadata: { name, labels: { ...labels } },
      spec: { podCIDR: podCidrs.v4, podCIDRs: cidrs },
    };
    await cluster.nodes.create(object);
    await this.#heartbeat();
  }

  async #heartbeat(): Promise<void> {
    const { cluster, node, clock, log } = this.#options;
    const now = new Date(clock.now()).toISOString().replace(/\.\d+Z$/, 'Z');
    try {
      await cluster.nodes.modifyStatus('', node.plan.name, (draft) => {
        const before = draft.status?.conditions?.find(({ type }) => type === 'Ready');
        const ready: Condition = {
          type: 'Ready',
          status: 'True',
          reason: 'KubeletReady',
          message: 'kubelet is posting ready status',
          lastHeartbeatTime: now,
          lastTransitionTime: before?.lastTransitionTime ?? now,
        };
        draft.status = { ...draft.status, ...this.#nodeStatus(), conditions: [ready] };
        return true;
      });
      await this.#renewLease();
    } catch (error) {
      log.warn({ node: node.plan.name, error: String(error) }, 'heartbeat not written');
    }
  }

  /** What `kubectl describe node` and real node controllers look at. */
  async #renewLease(): Promise<void> {
    const { cluster, node, clock } = this.#options;
    const { name } = node.plan;
    const renewTime = new Date(clock.now()).toISOString().replace('Z', '000Z');
    const renewed = await cluster.leases.modify(LEASE_NAMESPACE, name, (draft) => {
      draft.spec = { ...draft.spec, renewTime };
      return true;
    });
    if (renewed) return;
    const spec = { holderIdentity: name, leaseDurationSeconds: 40, renewTime };
    await cluster.leases.create({
      apiVersion: 'coordination.k8s.io/v1',
      kind: 'Lease',
      metadata: { name, namespace: LEASE_NAMESPACE },
      spec,
    });
  }

  #nodeStatus(): Record<string, unknown> {
    const { v4, v6 } = this.#options.node.plan.addresses;
    return {
      capacity: NODE_CAPACITY,
      allocatable: NODE_CAPACITY,
      addresses: [
        { type: 'InternalIP', address: v4 },
        ...(v6 ? [{ type: 'InternalIP', address: v6 }] : []),
        { type: 'Hostname', address: this.#options.node.plan.name },
      ],
      nodeInfo: {
        kubeletVersion: 'v1.32.0-warren',
        kubeProxyVersion: '',
        containerRuntimeVersion: 'warren://1',
        osImage: 'Warren playground',
        operatingSystem: 'linux',
        architecture: process.arch === 'arm64' ? 'arm64' : 'amd64',
        kernelVersion: release(),
        machineID: '',
        systemUUID: '',
        bootID: '',
      },
    };
  }

  #every(ms: number, run: () => void): void {
    const slot = this.#timers.length;
    const arm = (): void => {
      this.#timers[slot] = this.#options.clock.after(ms, () => {
        run();
        arm();
      });
    };
    arm();
  }
}

const isOver = (pod: Pod): boolean => pod.status?.phase === 'Succeeded' || pod.status?.phase === 'Failed';
