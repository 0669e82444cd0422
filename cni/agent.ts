/**
 * The node agent, as a table of contents: the node's pods and all namespaces are watched; what an earlier agent enrolled is taken over; then
 * ztunnels are let in, the CNI plugin is answered, and every pod goes where its labels say. Last the CNI plugin is installed.
 */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { type Clock, minutes, seconds, type Timer } from '../common/base/clock.ts';
import { errorMessage } from '../common/base/errors.ts';
import type { Log } from '../common/base/log.ts';
import { type KubeApi, KubeApiError, type KubeObject } from '../common/client/kube-api.ts';
import { type ObjectChange, type ObjectStore, objectKey, watchObjects } from '../common/client/kube-watch.ts';
import type { Labels } from '../common/decision/label-selector.ts';
import type { Netns } from '../common/linux/netns.ts';
import { SeqpacketServer } from '../common/linux/seqpacket.ts';
import { type HttpEndpoint, notFound, serveHttp } from '../common/server/http-endpoint.ts';
import { Bypass } from './bypass/bypass.ts';
import type { Form } from './conflist/install.ts';
import { decideEnrolment, type EnrolmentDecision, isFinished, type Pod, podIps } from './enrol/decision.ts';
import { Enrolment } from './enrol/enrolment.ts';
import { CUT_CODE } from './enrol/leftovers.ts';
import { REDIRECTION } from './enrol/pod-voice.ts';
import { ownSocketFolder } from './host/host-file.ts';
import { findKubeletUid } from './host/kubelet-user.ts';
import { ProbeSets } from './host/probe-sets.ts';
import { NamespaceLabels } from './kube/namespace-labels.ts';
import { annotatePod, writePodEvent } from './kube/pod-status.ts';
import { PolicyWatches } from './kube/policy-watches.ts';
import { type CniMetrics, cniMetrics } from './metrics.ts';
import { chooseBackend, type Redirection } from './namespace/choose-backend.ts';
import { NetnsFinder, ownIdentity } from './namespace/find-netns.ts';
import { cutConnections, findOutside } from './namespace/open-connections.ts';
import { countRelayed } from './namespace/relayed.ts';
import { describeNode } from './plugin/cache.ts';
import type { CmdAdd } from './plugin/cmdadd.ts';
import { type EventServer, serveEvents, Undecided } from './plugin/event-server.ts';
import { bypassFile, Installation } from './plugin/installation.ts';
import type { PodRulesConfig } from './rules/pod-rules.ts';
import type { CniSettings } from './settings.ts';
import { ZdsServer } from './zds/server.ts';

/** What the agent asks of the API server. */
export type AgentApi = Pick<KubeApi, 'get' | 'create' | 'patch' | 'listPage' | 'watch'>;

export interface AgentParts {
  readonly settings: CniSettings;
  readonly api: AgentApi;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
  /** The node's network namespace; the process's own where it is not given. */
  readonly nodeNetns?: Netns;
}

const SWEEP_MS = minutes(1);
// Looking at a pod starts two programs, and not a function of a library.
const IPTABLES_PATIENCE = 5;
// The plugin waits longer for us than we for ztunnel, or our reason would never be read.
const ANSWER_MARGIN_MS = seconds(5);

export class NodeAgent {
  readonly #parts: AgentParts;
  readonly #ending = new AbortController();
  readonly #metrics: CniMetrics;
  readonly #pods: ObjectStore<Pod>;
  readonly #namespaces: NamespaceLabels;
  readonly #finder: NetnsFinder;
  readonly #policies: PolicyWatches;
  readonly #enrolment: Enrolment;
  readonly #bypass: Bypass;
  readonly #installation: Installation;
  readonly #synced: Promise<unknown>;
  #redirection: Redirection | undefined;
  #probes: ProbeSets | undefined;
  #zds: ZdsServer | undefined;
  #events: EventServer | undefined;
  readonly #endpoints: HttpEndpoint[] = [];
  #sweeping: Timer | undefined;
  #verifying: Timer | undefined;
  #working = false;
  #ready = false;

  constructor(parts: AgentParts) {
    const { settings, api, clock, random, log, nodeNetns } = parts;
    this.#parts = parts;
    this.#bypass = new Bypass({
      clock,
      systemNamespace: settings.podNamespace,
      file: bypassFile(settings.cniBinDir),
      onChange: (namespace) => this.#onBypass(namespace),
    });
    this.#installation = this.#makeInstallation();
    this.#metrics = cniMetrics({ enrolled: () => this.#enrolment.enrolled, outside: () => this.#enrolment.outside });
    const procRoot = existsSync(settings.hostProc) ? settings.hostProc : '/proc';
    this.#finder = new NetnsFinder({ folder: settings.podNetnsDir, procRoot, nodeIdentity: nodeNetns?.identity() ?? ownIdentity() });
    this.#enrolment = new Enrolment({
      clock,
      random,
      log,
      drainDeadlineMs: settings.drainDeadlineMs,
      nodeRules: nodeRules(settings),
      decide: (pod) => this.#decide(pod, this.#namespaces.get(pod.metadata.namespace ?? '')),
      findNetns: (uid) => this.#finder.find(uid),
      openNetns: (path) => this.#finder.open(path),
      network: {
        apply: (pod, config) => this.#started().network.apply(pod, config),
        mend: (pod, config) => this.#started().network.mend(pod, config),
        drain: (pod) => this.#started().network.drain(pod),
        remove: (pod) => this.#started().network.remove(pod),
        countRelayed,
      },
      ztunnel: {
        add: (pod, netnsFd) => this.#zdsServer().add(pod, netnsFd),
        remove: (uid) => this.#zdsServer().remove(uid),
      },
      setProbed: async (uid, ips) => this.#probes?.set(uid, ips),
      annotate: (pod, changes) => annotatePod(api, pod, changes),
      event: (pod, type, message) => writePodEvent({ api, log, nodeName: settings.nodeName, now: () => clock.now() }, pod, type, message),
      namespaceAnnotations: (pod) => this.#namespaces.annotations(pod.metadata.namespace ?? ''),
      networkFindings: (pod) => this.#policies.networkFindings(pod),
      onMended: () => this.#metrics.mended(),
      leftovers: {
        clock,
        log,
        deadlineMs: settings.openConnectionsDeadlineMs,
        outside: findOutside,
        cut: cutConnections,
        policyFor: (pod) => this.#policies.appliedTo(pod),
        policiesKnown: () => this.#policies.known,
        onCut: (count, reason) => this.#metrics.cut(count, CUT_CODE, reason),
      },
    });

    const watch = { clock, random, log, signal: this.#ending.signal };
    this.#policies = new PolicyWatches(api, {
      ...watch,
      rootNamespace: settings.rootNamespace,
      probeSources: [settings.probeSourceV4, ...(settings.ipv6 ? [settings.probeSourceV6] : [])],
      onNetworkPolicy: (namespace) => {
        if (this.#working) this.#enrolment.pokeNamespace(namespace);
      },
    });
    const synced = [Promise.withResolvers<void>(), Promise.withResolvers<void>(), Promise.withResolvers<void>()] as const;
    this.#synced = Promise.all(synced.map(({ promise }) => promise));
    const namespaces = watchObjects<KubeObject>(api, {
      ...watch,
      path: '/api/v1/namespaces',
      onSynced: synced[0].resolve,
      onChange: (change) => this.#onNamespace(change),
    });
    this.#namespaces = new NamespaceLabels(namespaces);
    watchObjects<KubeObject>(api, {
      ...watch,
      path: '/api/v1/nodes',
      fieldSelector: `metadata.name=${settings.nodeName}`,
      onSynced: synced[2].resolve,
      onChange: ({ type, object }) => this.#bypass.seeNode(type === 'deleted' ? undefined : object),
    });
    this.#pods = watchObjects<Pod>(api, {
      ...watch,
      path: '/api/v1/pods',
      fieldSelector: `spec.nodeName=${settings.nodeName}`,
      onSynced: synced[1].resolve,
      onChange: (change) => this.#onPod(change),
    });
  }

  /** Resolves when pods are looked after. @throws where a socket, a port, a folder or nft cannot be used, naming it */
  async start(): Promise<void> {
    const { settings, log } = this.#parts;
    await this.#serveHealthAndMetrics();
    await this.#synced;
    if (this.#ending.signal.aborted) return;
    await this.#chooseBackend();
    const restored = this.#restore();
    await this.#takeOverLeavers();
    await this.#probes?.start(new Map(restored.map((pod) => [pod.metadata.uid ?? '', podIps(pod)])));
    this.#zds = this.#listenForZtunnel();
    this.#events = await serveEvents({
      path: join(settings.runDir, 'pluginevent.sock'),
      log,
      clock: this.#parts.clock,
      onAdd: (event) => this.#onAdd(event),
      onAnswer: (status) => this.#metrics.pluginRequest(status),
    });
    this.#working = true;
    this.#bypass.start();
    for (const pod of this.#pods.values()) this.#enrolment.upsert(pod);
    this.#sweep();
    this.#verify();
    this.#installation.start();
    this.#ready = true;
    log.info({ node: settings.nodeName, restored: restored.length }, 'the node agent is ready');
  }

  /** Leaves everything as it is where another agent will follow; takes every pod out of the mesh where the agent was uninstalled. */
  async stop(): Promise<void> {
    const { log } = this.#parts;
    const uninstalled = this.#working && (await this.#isUninstalled());
    this.#ready = false;
    this.#working = false;
    this.#ending.abort();
    this.#sweeping?.cancel();
    this.#verifying?.cancel();
    this.#bypass.stop();
    this.#installation.stop(uninstalled);
    const problems = await this.#enrolment.stop(uninstalled);
    for (const error of problems) log.error({ error }, 'a pod could not be taken out of the mesh');
    if (uninstalled) {
      await this.#probes
        ?.remove()
        .catch((error: unknown) => log.error({ error: errorMessage(error) }, "the node's rules could not be removed"));
    }
    this.#zds?.close();
    await Promise.all([this.#events?.close(), ...this.#endpoints.map((endpoint) => endpoint.close())]);
    log.info({ uninstalled }, 'the node agent has stopped');
  }

  #decide(pod: Pod, labels: Labels | undefined): EnrolmentDecision {
    const { ambient, selectors, excludeNamespaces } = this.#parts.settings;
    if (!ambient) return { enrol: false, selected: false, reason: 'AMBIENT_ENABLED is false' };
    const decision = decideEnrolment({ selectors, excludedNamespaces: excludeNamespaces }, pod, labels);
    const bypass = decision.enrol ? this.#bypass.scope(pod.metadata.namespace ?? '') : undefined;
    return bypass ? { enrol: false, selected: true, bypass, reason: `the mesh is bypassed (${bypass}; meshctl bypass --help)` } : decision;
  }

  /** Pods that an earlier agent enrolled stay enrolled, whatever happens in between: ztunnel serves them still. */
  #restore(): Pod[] {
    const enrolled = [...this.#pods.values()].filter((pod) => pod.metadata.annotations?.[REDIRECTION] === 'enabled' && !isFinished(pod));
    const found = this.#finder.findAll(enrolled.flatMap(({ metadata }) => metadata.uid ?? []));
    for (const pod of enrolled) this.#enrolment.restore(pod, found.get(pod.metadata.uid ?? ''), !this.#parts.settings.reconcileRules);
    return enrolled;
  }

  /** Pods that were on their way out when an earlier agent ended: ztunnel may relay for them still, and their last rules must go. */
  async #takeOverLeavers(): Promise<void> {
    const outside = [...this.#pods.values()].filter(
      (pod) =>
        pod.metadata.annotations?.[REDIRECTION] === undefined &&
        podIps(pod).length > 0 &&
        !isFinished(pod) &&
        !this.#decide(pod, this.#namespaces.get(pod.metadata.namespace ?? '')).enrol,
    );
    const found = this.#finder.findAll(outside.flatMap(({ metadata }) => metadata.uid ?? []));
    await Promise.all(
      outside.map(async (pod) => {
        const netns = found.get(pod.metadata.uid ?? '');
        if (!netns) return;
        const about = `pod ${objectKey(pod)}`;
        const left = await this.#started()
          .network.present({ netns, about })
          .catch((error: unknown) => {
            this.#parts.log.warn({ error: errorMessage(error) }, 'whether an earlier agent left rules in a pod is not known');
            return false;
          });
        if (left) this.#enrolment.restore(pod, netns, false);
        else netns.close();
      }),
    );
  }

  async #chooseBackend(): Promise<void> {
    const { settings, log, nodeNetns } = this.#parts;
    const procRoot = existsSync(settings.hostProc) ? settings.hostProc : '/proc';
    const { probeSource } = nodeRules(settings);
    this.#redirection = await chooseBackend({
      nativeNftables: settings.nativeNftables,
      iptables: settings.iptablesVariant,
      node: { about: 'the node', ...(nodeNetns && { netns: nodeNetns }) },
      podRules: nodeRules(settings),
      hostRules: { ipv6: settings.ipv6, probeSource, kubeletUid: findKubeletUid(procRoot) },
      log,
    });
    this.#probes = new ProbeSets(this.#redirection.probes);
    log.info({ backend: this.#redirection.backend }, 'how redirection rules are written is decided');
  }

  #started(): Redirection {
    if (!this.#redirection) throw new Error('the agent has not decided how to write rules yet');
    return this.#redirection;
  }

  #listenForZtunnel(): ZdsServer {
    const { settings, clock, log } = this.#parts;
    ownSocketFolder(dirname(settings.ztunnelSocket));
    return new ZdsServer({
      listener: SeqpacketServer.listen(settings.ztunnelSocket, 0o600),
      clock,
      log,
      snapshot: () => this.#enrolment.snapshot(),
      onConnected: (count) => this.#metrics.ztunnelConnected(count),
      onFailover: () => this.#enrolment.serveAgain(),
    });
  }

  #zdsServer(): ZdsServer {
    if (!this.#zds) throw new Error('the agent is not listening for ztunnel yet');
    return this.#zds;
  }

  async #onAdd(event: CmdAdd): Promise<void> {
    const { settings, api } = this.#parts;
    const { podName, podNamespace } = event;
    if (settings.excludeNamespaces.includes(podNamespace)) return;
    if (podName === settings.podName && podNamespace === settings.podNamespace) return;
    const path = `/api/v1/namespaces/${encodeURIComponent(podNamespace)}`;
    const [namespace, pod] = await Promise.all([
      api.get<KubeObject>(path),
      api.get<Pod>(`${path}/pods/${encodeURIComponent(podName)}`),
    ]).catch((error: unknown) => {
      if (error instanceof KubeApiError && error.status === 404) throw error;
      throw new Undecided(`the API server could not be asked: ${errorMessage(error)}`);
    });
    this.#namespaces.learn(namespace);
    this.#bypass.seeNamespace(namespace);
    this.#installation.enrolmentChanged();
    if (!this.#decide(pod, namespace.metadata.labels ?? {}).enrol) return;
    await this.#enrolment.join(pod, event.netns, event.ips, settings.cmdAddTimeoutMs);
  }

  #onPod({ type, object }: ObjectChange<Pod>): void {
    if (!this.#working) return;
    this.#metrics.reconcileEvent(type === 'added' ? 'add' : type === 'modified' ? 'update' : 'delete');
    if (type === 'deleted') this.#enrolment.delete(object);
    else this.#enrolment.upsert(object);
    this.#installation.enrolmentChanged();
  }

  #onNamespace({ type, object, previous }: ObjectChange<KubeObject>): void {
    const { name = '', labels } = object.metadata;
    this.#namespaces.watched(object);
    this.#bypass.seeNamespace(object, type === 'deleted');
    this.#installation.enrolmentChanged();
    if (this.#working && JSON.stringify(labels) !== JSON.stringify(previous?.metadata.labels)) this.#enrolment.pokeNamespace(name);
  }

  #sweep(): void {
    this.#sweeping = this.#parts.clock.after(SWEEP_MS, () => {
      this.#enrolment.sweep((pod) => this.#pods.get(objectKey(pod))?.metadata.uid === pod.metadata.uid);
      this.#sweep();
    });
  }

  /** Rules that another program changed are put right, at the latest after this long. */
  #verify(): void {
    const { clock, settings } = this.#parts;
    if (settings.rulesCheckMs === 0) return;
    const everyMs = settings.rulesCheckMs * (this.#started().backend === 'iptables' ? IPTABLES_PATIENCE : 1);
    this.#verifying = clock.after(everyMs, () => {
      this.#enrolment.verify();
      this.#probes?.refresh().catch((error: unknown) => {
        this.#parts.log.warn({ error: errorMessage(error) }, "the node's rules for probes could not be written again");
      });
      this.#verify();
    });
  }

  #onBypass(namespace: string | undefined): void {
    if (!this.#working) return;
    this.#installation.enrolmentChanged();
    if (namespace === undefined) this.#enrolment.pokeAll();
    else this.#enrolment.pokeNamespace(namespace);
  }

  #makeInstallation(): Installation {
    const { settings, clock, log } = this.#parts;
    const { excludeNamespaces } = settings;
    const askTimeoutMs = settings.cmdAddTimeoutMs + ANSWER_MARGIN_MS;
    return new Installation({
      clock,
      log,
      executable: settings.pluginExecutable,
      binFolder: settings.cniBinDir,
      configFolder: settings.cniNetDir,
      form: pluginForm(settings),
      options: {
        logLevel: settings.logLevel,
        agentRunDir: settings.runDir,
        ambientEnabled: settings.ambient,
        selectors: settings.selectors,
        excludeNamespaces,
        podNamespace: settings.podNamespace,
        nativeNftables: settings.nativeNftables !== 'false',
        detectionRetry: false,
      },
      describe: () =>
        describeNode({
          askTimeoutMs,
          excludeNamespaces,
          namespaces: this.#namespaces.entries(),
          pods: this.#pods.values(),
          enrols: (pod) => this.#decide(pod, this.#namespaces.get(pod.metadata.namespace ?? '')).enrol,
        }),
      onResult: (result) => this.#metrics.installed(result),
    });
  }

  async #isUninstalled(): Promise<boolean> {
    const { api, settings, log } = this.#parts;
    try {
      const path = `/apis/apps/v1/namespaces/${settings.podNamespace}/daemonsets/${settings.daemonSet}`;
      const daemonSet = await api.get<KubeObject>(path);
      return daemonSet.metadata.deletionTimestamp !== undefined;
    } catch (error) {
      if (error instanceof KubeApiError && error.status === 404) return true;
      // Its account or its role is gone: `helm uninstall` deletes them while the agent's pods are still ending.
      if (error instanceof KubeApiError && (error.status === 401 || error.status === 403)) return true;
      // Not knowing, the rules stay: pods of the mesh that suddenly talk in the clear are worse than leftovers.
      log.warn({ error: errorMessage(error) }, 'whether the agent is uninstalled is not known, so everything stays in place');
      return false;
    }
  }

  #readiness(): { status: number; body: string } {
    if (!this.#ready) return { status: 503, body: 'not ready: pods and namespaces are not known yet\n' };
    const { problem } = this.#installation;
    return problem === undefined
      ? { status: 200, body: 'ok\n' }
      : { status: 503, body: `not ready: the CNI plugin is not installed: ${problem}\n` };
  }

  async #serveHealthAndMetrics(): Promise<void> {
    const { settings, log } = this.#parts;
    const shared = { addresses: ['::'], log };
    // One after the other: what has begun is closed by `stop` also where the next port is taken.
    this.#endpoints.push(
      await serveHttp({
        ...shared,
        name: 'health',
        port: settings.healthPort,
        answer: ({ path }) => {
          if (path === '/healthz') return { status: 200, body: 'ok\n' };
          if (path === '/readyz') return this.#readiness();
          return notFound();
        },
      }),
    );
    this.#endpoints.push(
      await serveHttp({
        ...shared,
        name: 'metrics',
        port: settings.monitoringPort,
        answer: async ({ path }) => {
          if (path !== '/metrics' && path !== '/stats/prometheus') return notFound();
          const { registry } = this.#metrics;
          return { status: 200, body: await registry.metrics(), contentType: registry.contentType };
        },
      }),
    );
  }
}

function nodeRules(settings: CniSettings): PodRulesConfig {
  return {
    redirectDns: settings.dnsCapture,
    ingressMode: false,
    virtualInterfaces: [],
    ipv6: settings.ipv6,
    probeSource: { v4: settings.probeSourceV4, v6: settings.probeSourceV6 },
    captureOpenConnections: settings.captureOpenConnections,
  };
}

function pluginForm({ chained, cniConfName, ownedConfig, ownedConfigName }: CniSettings): Form {
  if (!chained) return { form: 'standalone', file: cniConfName ?? 'YYY-istio-cni.conf' };
  return ownedConfig ? { form: 'owned', file: ownedConfigName } : { form: 'chained', file: cniConfName ?? '' };
}
