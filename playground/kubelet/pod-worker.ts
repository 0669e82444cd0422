/**
 * One pod on its node, from "assigned" to "gone": volumes, network, init containers, containers with their restarts and probes, graceful
 * end. It is the single writer of the pod's status. One cohesive machine, so it stays in one file.
 */
import { randomBytes } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { Backoff } from '../../common/base/backoff.ts';
import { type Clock, minutes, seconds, sleep } from '../../common/base/clock.ts';
import { errorMessage } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';
import type { Cluster } from '../cluster/collections.ts';
import { resolveImage } from '../images.ts';
import type { Addresses, PodAddresses } from '../network/plan.ts';
import { createPodNetwork, removePodNetwork } from '../network/pod-network.ts';
import { writeSysctls } from '../network/sysctls.ts';
import type { ClusterNode, StateFolders } from '../node/node.ts';
import { resolveInRoot } from '../node/resolve-path.ts';
import type { Container, Handler, Pod, Probe } from '../objects.ts';
import { ContainerProcess, isFileOnNode, type Mount, removeFolder } from './container-process.ts';
import { ConfigError, containerEnvironment, expand } from './environment.ts';
import { LogBuffer } from './log-buffer.ts';
import { addToMesh } from './plugin.ts';
import { etcFiles, podHostname } from './pod-files.ts';
import { attempt, type ProbeTarget, startProbe } from './probe.ts';
import { type ContainerRecord, newRecord, podStatus } from './status.ts';
import { PodVolumes, VolumeError } from './volumes.ts';

export interface PodWorkerOptions {
  readonly pod: Pod;
  readonly node: ClusterNode;
  readonly addresses: PodAddresses;
  readonly folders: StateFolders;
  readonly checkout: string;
  readonly nodeExecutable: string;
  readonly cluster: Cluster;
  readonly clock: Clock;
  readonly log: Log;
  readonly random: () => number;
  /** Reaches pods from the node's network; see ProbeTarget. */
  readonly connect: ProbeTarget['connect'];
  /** Runs a command in a container. */
  readonly exec: (process: ContainerProcess, command: readonly string[], timeoutMs: number) => Promise<{ status: number; output: string }>;
  /** The pod is off the node; its object may still be there, where it only completed. */
  readonly onGone: () => void;
}

interface Running extends ContainerRecord {
  process?: ContainerProcess | undefined;
  log: LogBuffer;
  previousLog?: LogBuffer | undefined;
  stopProbes: (() => void)[];
  stopping?: { process: ContainerProcess; ended: Promise<void> } | undefined;
  /** Counts runs, for folders. */
  runs: number;
}

const RETRY = { firstMs: seconds(1), maxMs: seconds(15), jitter: 0.1 };
const RESTART = { firstMs: seconds(10), maxMs: minutes(5), jitter: 0 };
/** After so long a run a crash counts as the first again. */
const RESTART_RESET_MS = minutes(10);
const DEFAULT_GRACE_S = 30;

export class PodWorker {
  readonly #options: PodWorkerOptions;
  #pod: Pod;
  readonly #containers: Running[];
  readonly #volumes: PodVolumes;
  readonly #folder: string;
  readonly #startTime: string;
  readonly #stop = new AbortController();
  #network: Addresses | undefined;
  #ownsNetwork = false;
  #initialized = false;
  #failure: { reason: string; message: string } | undefined;
  #publishing: Promise<void> | undefined;
  #publishAgain = false;
  #wake: () => void = () => undefined;
  readonly #finished: Promise<void>;
  #ended: Promise<void> | undefined;

  constructor(options: PodWorkerOptions) {
    this.#options = options;
    this.#pod = options.pod;
    this.#folder = join(options.folders.state, 'pods', options.pod.metadata.uid ?? options.pod.metadata.name);
    this.#startTime = this.#nowText();
    const running = (spec: Container, init: boolean): Running => ({
      ...newRecord(spec, init),
      log: new LogBuffer(options.clock.now),
      stopProbes: [],
      runs: 0,
    });
    this.#containers = [
      ...(options.pod.spec.initContainers ?? []).map((spec) => running(spec, true)),
      ...options.pod.spec.containers.map((spec) => running(spec, false)),
    ];
    if (!options.pod.spec.initContainers?.length) for (const { state } of this.#containers) state.waiting = { reason: 'ContainerCreating' };
    this.#volumes = new PodVolumes({ ...options, folder: join(this.#folder, 'volumes'), pod: () => this.#podWithAddresses() });
    this.#stop.signal.addEventListener('abort', () => {
      this.#ended = this.#stopAll();
    });
    this.#finished = this.#live();
  }

  get pod(): Pod {
    return this.#pod;
  }

  /** The object changed: labels for downward files, or it is being deleted. */
  update(pod: Pod): void {
    const before = this.#pod;
    this.#pod = pod;
    if (pod.metadata.deletionTimestamp) this.stop();
    else if (this.#initialized && !sameMetadata(before, pod)) this.refreshVolumes();
  }

  /** Begins the graceful end; does nothing the second time. */
  stop(): void {
    this.#stop.abort(new Error('pod is terminating'));
  }

  /** Ends it at once: the object is gone already. */
  async destroy(): Promise<void> {
    for (const { process } of this.#containers) process?.kill('SIGKILL');
    this.stop();
    await this.#finished;
  }

  /** Rewrites what changed in ConfigMaps, Secrets, tokens and labels. */
  refreshVolumes(): void {
    // What it waits for may have come.
    this.#wake();
    if (!this.#network) return;
    try {
      this.#volumes.prepare();
    } catch (error) {
      // The old content stays, as on a real node.
      this.#options.log.warn({ pod: this.#pod.metadata.name, error: errorMessage(error) }, 'volumes not refreshed');
    }
  }

  usesVolumeOf(kind: 'ConfigMap' | 'Secret', name: string): boolean {
    return this.#volumes.uses(kind, name);
  }

  container(
    name: string | undefined,
  ): { process: ContainerProcess | undefined; log: LogBuffer; previousLog: LogBuffer | undefined } | undefined {
    const found =
      name === undefined || name === ''
        ? this.#containers.find(({ kind }) => kind === 'main')
        : this.#containers.find(({ spec }) => spec.name === name);
    return found && { process: found.process, log: found.log, previousLog: found.previousLog };
  }

  /** Where its network namespace is, as this process sees it. */
  get netnsPath(): string {
    const { node } = this.#options;
    return this.#pod.spec.hostNetwork ? node.netnsPath : `/proc/${node.pid}/root/run/netns/${this.#pod.metadata.uid}`;
  }

  // ---- life ----------------------------------------------------------------------------------------------------------------------------

  async #live(): Promise<void> {
    try {
      this.#publish();
      await this.#setUp();
      await this.#runContainers();
    } catch (error) {
      if (!this.#stop.signal.aborted) {
        this.#failure = { reason: 'Error', message: errorMessage(error) };
        this.#options.log.error({ pod: this.#pod.metadata.name, error: errorMessage(error) }, 'pod failed');
      }
    }
    await this.#end();
  }

  async #setUp(): Promise<void> {
    const { random, node } = this.#options;
    const backoff = new Backoff({ ...RETRY, random });
    for (;;) {
      this.#stop.signal.throwIfAborted();
      try {
        mkdirSync(join(this.#folder, 'volumes'), { recursive: true });
        // Waits for what the volumes refer to before it takes an address.
        this.#volumes.prepare();
        await this.#createNetwork();
        return;
      } catch (error) {
        const mount = error instanceof VolumeError;
        this.#event(
          'Warning',
          mount ? 'FailedMount' : 'FailedCreatePodSandBox',
          mount ? error.message : `Failed to create pod sandbox: ${errorMessage(error)}`,
        );
        this.#options.log.warn({ pod: this.#pod.metadata.name, node: node.plan.name, error: errorMessage(error) }, 'pod waits');
        await this.#wokenOr(backoff.next());
      }
    }
  }

  async #writeSysctls(): Promise<void> {
    try {
      writeSysctls(this.netnsPath, this.#pod.spec.securityContext?.sysctls ?? []);
    } catch (error) {
      await removePodNetwork(this.#options.node, this.#pod.metadata.uid ?? '');
      throw error;
    }
  }

  #wokenOr(ms: number): Promise<void> {
    const woken = new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
    return Promise.race([woken, sleep(this.#options.clock, ms, this.#stop.signal)]);
  }

  async #createNetwork(): Promise<void> {
    const { node, addresses } = this.#options;
    if (this.#pod.spec.hostNetwork) {
      this.#network = node.plan.addresses;
      return;
    }
    if (!this.#network) {
      const taken = addresses.take();
      try {
        await createPodNetwork(node, this.#pod.metadata.uid ?? '', taken);
        await this.#writeSysctls();
      } catch (error) {
        addresses.release(taken);
        throw error;
      }
      this.#network = taken;
      this.#ownsNetwork = true;
      // The node agent looks the pod up by its address.
      await this.#publish();
    }
    await addToMesh(node, this.#pod, this.#network);
    this.#volumes.prepare();
  }

  async #runContainers(): Promise<void> {
    const sidecars: Promise<void>[] = [];
    for (const container of this.#containers) {
      if (container.kind === 'init') {
        await this.#supervise(container);
        if (container.state.terminated?.exitCode !== 0) return;
      } else if (container.kind === 'sidecar') {
        sidecars.push(this.#supervise(container));
        await this.#untilStarted(container);
      }
    }
    this.#initialized = true;
    for (const { kind, state } of this.#containers) if (kind === 'main' && state.waiting) state.waiting = { reason: 'ContainerCreating' };
    this.#publish();
    await Promise.all(this.#containers.filter(({ kind }) => kind === 'main').map((container) => this.#supervise(container)));
    if (!this.#stop.signal.aborted) await this.#stopContainers('sidecar');
    await Promise.all(sidecars);
  }

  async #untilStarted(container: Running): Promise<void> {
    while (!container.started) await sleep(this.#options.clock, 50, this.#stop.signal);
  }

  /** Runs one container until it will not run again. */
  async #supervise(container: Running): Promise<void> {
    const { clock, random } = this.#options;
    const restartBackoff = new Backoff({ ...RESTART, random });
    const startBackoff = new Backoff({ ...RETRY, random });
    for (;;) {
      if (this.#stop.signal.aborted || container.finished) return;
      const process = await this.#start(container);
      if (!process) {
        await sleep(clock, startBackoff.next(), this.#stop.signal).catch(() => undefined);
        continue;
      }
      const startedMs = clock.monotonic();
      const exitCode = await this.#waitForExit(container, process);
      if (this.#stop.signal.aborted || !this.#restarts(container, exitCode)) {
        container.finished = true;
        this.#publish();
        return;
      }
      if (clock.monotonic() - startedMs >= RESTART_RESET_MS) restartBackoff.reset();
      // The first restart comes at once; from the second on, it waits.
      const waitMs = container.restartCount === 0 ? 0 : restartBackoff.next();
      container.lastState = container.state;
      if (waitMs > 0) {
        const message = `back-off ${waitMs / 1000}s restarting failed container=${container.spec.name} pod=${this.#pod.metadata.name}_${this.#pod.metadata.namespace}`;
        container.state = { waiting: { reason: 'CrashLoopBackOff', message } };
        this.#event('Warning', 'BackOff', `Back-off restarting failed container ${container.spec.name} in pod ${this.#pod.metadata.name}`);
        this.#publish();
        await sleep(clock, waitMs, this.#stop.signal).catch(() => undefined);
        if (this.#stop.signal.aborted) {
          container.state = container.lastState;
          return;
        }
      }
      container.restartCount++;
    }
  }

  #restarts(container: Running, exitCode: number): boolean {
    const policy = this.#pod.spec.restartPolicy ?? 'Always';
    if (container.kind === 'sidecar') return true;
    if (container.kind === 'init') return exitCode !== 0 && policy !== 'Never';
    return policy === 'Always' || (policy === 'OnFailure' && exitCode !== 0);
  }

  // ---- one run of a container ----------------------------------------------------------------------------------------------------------

  async #start(container: Running): Promise<ContainerProcess | undefined> {
    const wait = (reason: string, message: string): undefined => {
      container.state = { waiting: { reason, message } };
      this.#event('Warning', 'Failed', `Error: ${message}`);
      this.#publish();
    };
    let spec: Parameters<typeof ContainerProcess.start>[0];
    try {
      spec = this.#containerSpec(container);
    } catch (error) {
      if (error instanceof ConfigError) return wait('CreateContainerConfigError', error.message);
      return wait(error instanceof VolumeError ? 'CreateContainerError' : 'ErrImagePull', errorMessage(error));
    }
    let process: ContainerProcess;
    try {
      process = await ContainerProcess.start(spec);
    } catch (error) {
      return wait('RunContainerError', errorMessage(error));
    }
    container.process = process;
    container.containerId = `warren://${randomBytes(32).toString('hex')}`;
    container.state = { running: { startedAt: this.#nowText() } };
    this.#event('Normal', 'Started', `Started container ${container.spec.name}`);
    const { postStart } = container.spec.lifecycle ?? {};
    if (postStart) {
      const { success, detail } = await this.#runHandler(container, postStart, minutes(1));
      if (!success) {
        this.#event('Warning', 'FailedPostStartHook', detail);
        process.kill('SIGKILL');
      }
    }
    this.#startProbes(container);
    this.#publish();
    if (this.#stop.signal.aborted) void this.#stopOne(container, this.#graceMs());
    return process;
  }

  async #waitForExit(container: Running, process: ContainerProcess): Promise<number> {
    const { code, signal } = await process.exited;
    for (const stop of container.stopProbes.splice(0)) stop();
    container.process = undefined;
    container.ready = false;
    container.started = false;
    container.state = {
      terminated: {
        exitCode: code,
        ...(signal > 0 ? { signal } : {}),
        reason: code === 0 ? 'Completed' : 'Error',
        startedAt: container.state.running?.startedAt ?? this.#nowText(),
        finishedAt: this.#nowText(),
        containerID: container.containerId ?? '',
      },
    };
    process.cleanUp();
    this.#publish();
    return code;
  }

  #containerSpec(container: Running): Parameters<typeof ContainerProcess.start>[0] {
    const { cluster, node, folders, checkout, nodeExecutable } = this.#options;
    const pod = this.#podWithAddresses();
    const namespace = pod.metadata.namespace ?? '';
    const { spec } = container;
    const image = resolveImage(spec, nodeExecutable, checkout);
    const env = containerEnvironment(pod, spec, {
      configMap: (name) => cluster.configMaps.get(namespace, name),
      secret: (name) => cluster.secrets.get(namespace, name),
    });
    if (container.runs > 0) {
      container.previousLog = container.log;
      container.log = new LogBuffer(this.#options.clock.now);
    }
    const security = { ...pod.spec.securityContext, ...spec.securityContext };
    if (security.runAsNonRoot && (security.runAsUser ?? 0) === 0) {
      throw new ConfigError('container has runAsNonRoot and image will run as root');
    }
    return {
      folder: join(this.#folder, 'containers', spec.name, String(container.runs++)),
      folders,
      checkout,
      node,
      netnsPath: this.netnsPath,
      hostname: podHostname(pod, node.plan.name),
      hostPid: pod.spec.hostPID === true,
      image: { ...image, argv: image.argv.map((word) => expand(word, env)) },
      env: { ...image.env, ...env },
      workingDir: spec.workingDir ?? '/',
      mounts: this.#mounts(spec, env),
      files: etcFiles(pod, node.plan.name, this.#ips()),
      security,
      log: container.log,
    };
  }

  #mounts(spec: Container, env: Readonly<Record<string, string>>): Mount[] {
    const { node } = this.#options;
    return (spec.volumeMounts ?? []).map((mount): Mount => {
      const whole = this.#volumes.source(mount.name);
      const subPath = mount.subPathExpr === undefined ? mount.subPath : expand(mount.subPathExpr, env);
      const source = resolveInRoot(node.path('/'), subPath ? join(whole, subPath) : whole);
      if (subPath && !source.startsWith(`${resolveInRoot(node.path('/'), whole)}/`))
        throw new VolumeError(`subPath ${subPath} leaves volume ${mount.name}`);
      if (subPath && !isFileOnNode(node, source)) mkdirSync(node.path(source), { recursive: true });
      return {
        source,
        target: mount.mountPath,
        isFile: isFileOnNode(node, source),
        readOnly: mount.readOnly === true,
        propagation: mount.mountPropagation === 'HostToContainer' || mount.mountPropagation === 'Bidirectional' ? 'rslave' : 'rprivate',
      };
    });
  }

  // ---- probes --------------------------------------------------------------------------------------------------------------------------

  #startProbes(container: Running): void {
    const { startupProbe, readinessProbe, livenessProbe } = container.spec;
    const afterStartup = (): void => {
      container.started = true;
      if (readinessProbe) {
        const verdict = (success: boolean): void => this.#setReady(container, success);
        container.stopProbes.push(this.#probe(container, 'Readiness', readinessProbe, true, verdict));
      } else this.#setReady(container, true);
      if (livenessProbe)
        container.stopProbes.push(
          this.#probe(container, 'Liveness', livenessProbe, false, (alive) => alive || this.#restartUnhealthy(container, 'liveness')),
        );
      this.#publish();
    };
    if (!startupProbe) {
      afterStartup();
      return;
    }
    let over = false;
    const stop = this.#probe(container, 'Startup', startupProbe, false, (success) => {
      if (over) return;
      over = true;
      stop();
      if (success) afterStartup();
      else this.#restartUnhealthy(container, 'startup');
    });
    container.stopProbes.push(stop);
  }

  #probe(container: Running, kind: string, probe: Probe, eager: boolean, onVerdict: (success: boolean) => void): () => void {
    const timeoutMs = (probe.timeoutSeconds ?? 1) * 1000;
    return startProbe({
      probe,
      eager,
      clock: this.#options.clock,
      attempt: () => attempt(probe, container.spec, this.#target(container), timeoutMs),
      onVerdict,
      onFailure: (detail) => this.#event('Warning', 'Unhealthy', `${kind} probe failed: ${detail}`),
    });
  }

  #restartUnhealthy(container: Running, kind: string): void {
    if (this.#stop.signal.aborted) return;
    this.#event('Normal', 'Killing', `Container ${container.spec.name} failed ${kind} probe, will be restarted`);
    for (const stop of container.stopProbes.splice(0)) stop();
    void this.#stopOne(container, this.#graceMs());
  }

  #setReady(container: Running, ready: boolean): void {
    if (container.ready === ready) return;
    container.ready = ready;
    this.#publish();
  }

  #target(container: Running): ProbeTarget {
    return {
      ip: this.#network?.v4 ?? '127.0.0.1',
      connect: this.#options.connect,
      exec: (command, timeoutMs) => {
        if (!container.process) return Promise.resolve({ status: 1, output: 'container is not running' });
        return this.#options.exec(container.process, command, timeoutMs);
      },
    };
  }

  #runHandler(container: Running, handler: Handler, timeoutMs: number): Promise<{ success: boolean; detail: string }> {
    if (handler.sleep) return sleep(this.#options.clock, handler.sleep.seconds * 1000).then(() => ({ success: true, detail: '' }));
    return attempt(handler, container.spec, this.#target(container), timeoutMs);
  }

  // ---- end -----------------------------------------------------------------------------------------------------------------------------

  async #end(): Promise<void> {
    const { clock } = this.#options;
    await (this.#ended ?? this.#stopAll());
    for (const container of this.#containers) container.finished ||= container.state.terminated !== undefined;
    await this.#removeNetwork();
    await this.#publish();
    removeFolder(this.#folder);
    // A pod that completed stays as an object until somebody deletes it.
    if (!this.#stop.signal.aborted)
      await new Promise<void>((resolve) => this.#stop.signal.addEventListener('abort', () => resolve(), { once: true }));
    const { metadata } = this.#pod;
    for (const retry = new Backoff({ ...RETRY, random: this.#options.random }); ; ) {
      try {
        await this.#options.cluster.pods.delete(metadata.namespace ?? '', metadata.name, { uid: metadata.uid, graceSeconds: 0 });
        break;
      } catch (error) {
        this.#options.log.warn({ pod: metadata.name, error: errorMessage(error) }, 'pod object not deleted yet');
        await sleep(clock, retry.next());
      }
    }
    this.#options.onGone();
  }

  /** Sidecars serve the others, so they go last. */
  async #stopAll(): Promise<void> {
    await this.#stopContainers('main');
    await this.#stopContainers('init');
    await this.#stopContainers('sidecar');
  }

  async #stopContainers(kind: ContainerRecord['kind']): Promise<void> {
    const graceMs = this.#graceMs();
    await Promise.all(
      this.#containers.filter((container) => container.kind === kind).map((container) => this.#stopOne(container, graceMs)),
    );
  }

  /** preStop and SIGTERM, then SIGKILL when the time is over. */
  #stopOne(container: Running, graceMs: number): Promise<void> {
    const { process } = container;
    if (!process) return Promise.resolve();
    if (container.stopping?.process !== process) container.stopping = { process, ended: this.#endProcess(container, process, graceMs) };
    return container.stopping.ended;
  }

  async #endProcess(container: Running, process: ContainerProcess, graceMs: number): Promise<void> {
    const { clock } = this.#options;
    const deadline = clock.monotonic() + graceMs;
    const killer = clock.after(graceMs, () => process.kill('SIGKILL'));
    this.#event('Normal', 'Killing', `Stopping container ${container.spec.name}`);
    const { preStop } = container.spec.lifecycle ?? {};
    if (preStop && graceMs > 0) {
      const { success, detail } = await Promise.race([
        this.#runHandler(container, preStop, graceMs),
        process.exited.then(() => ({ success: true, detail: '' })),
      ]);
      if (!success) this.#event('Warning', 'FailedPreStopHook', detail);
    }
    process.kill(clock.monotonic() >= deadline && graceMs === 0 ? 'SIGKILL' : 'SIGTERM');
    await process.exited;
    killer.cancel();
  }

  #graceMs(): number {
    const { metadata, spec } = this.#pod;
    return (metadata.deletionGracePeriodSeconds ?? spec.terminationGracePeriodSeconds ?? DEFAULT_GRACE_S) * 1000;
  }

  async #removeNetwork(): Promise<void> {
    if (!this.#network || !this.#ownsNetwork) return;
    this.#ownsNetwork = false;
    try {
      await removePodNetwork(this.#options.node, this.#pod.metadata.uid ?? '');
      this.#options.addresses.release(this.#network);
    } catch (error) {
      this.#options.log.error(
        { pod: this.#pod.metadata.name, error: errorMessage(error) },
        'pod network not removed, its address stays taken',
      );
    }
  }

  // ---- status --------------------------------------------------------------------------------------------------------------------------

  /** Writes the status, once for changes that come close together. */
  #publish(): Promise<void> {
    this.#publishAgain = true;
    this.#publishing ??= this.#writeStatus().finally(() => {
      this.#publishing = undefined;
    });
    return this.#publishing;
  }

  async #writeStatus(): Promise<void> {
    const { cluster, node, log } = this.#options;
    while (this.#publishAgain) {
      await new Promise(setImmediate);
      this.#publishAgain = false;
      const { name, namespace = '', uid } = this.#pod.metadata;
      try {
        await cluster.pods.modifyStatus(namespace, name, (draft) => {
          if (draft.metadata.uid !== uid) return false;
          const status = podStatus(draft, {
            records: this.#containers,
            addresses: this.#network,
            hostAddresses: node.plan.addresses,
            initialized: this.#initialized,
            startTime: this.#startTime,
            failure: this.#failure,
            nowText: this.#nowText(),
          });
          if (JSON.stringify(status) === JSON.stringify(draft.status)) return false;
          draft.status = status;
          return true;
        });
      } catch (error) {
        log.warn({ pod: name, error: errorMessage(error) }, 'pod status not written');
      }
    }
  }

  #podWithAddresses(): Pod {
    const ips = this.#ips();
    if (ips[0] === undefined) return this.#pod;
    const { v4, v6 } = this.#options.node.plan.addresses;
    const hostIPs = [v4, ...(v6 ? [v6] : [])].map((ip) => ({ ip }));
    return { ...this.#pod, status: { ...this.#pod.status, podIP: ips[0], podIPs: ips.map((ip) => ({ ip })), hostIP: v4, hostIPs } };
  }

  #ips(): string[] {
    return this.#network ? [this.#network.v4, ...(this.#network.v6 ? [this.#network.v6] : [])] : [];
  }

  #event(type: 'Normal' | 'Warning', reason: string, message: string): void {
    const node = this.#options.node.plan.name;
    this.#options.cluster.record({ about: this.#pod, type, reason, message, source: 'kubelet', node });
  }

  #nowText(): string {
    return new Date(this.#options.clock.now()).toISOString().replace(/\.\d+Z$/, 'Z');
  }
}

/** Of what downward files can show: every status write changes the rest. */
const sameMetadata = ({ metadata: a }: Pod, { metadata: b }: Pod): boolean =>
  JSON.stringify([a.labels, a.annotations]) === JSON.stringify([b.labels, b.annotations]);
