/**
 * One pod on its way into the mesh, in it, or out of it. Level-based: whatever happened, `#step` looks at what is wanted and what is there,
 * and does what is missing, in an order that loses no connection:
 *   in:  ztunnel listens in the pod, then the rules send traffic there, then the annotation tells everybody else;
 *   out: annotation, then rules that capture nothing new, then, once nothing is relayed any more, ztunnel and the last rules.
 * A failure is tried again with a growing wait; one run at a time. One cohesive state machine: every step decides by all of the state.
 */
import type { IpAddress } from '../../common/base/address.ts';
import { Backoff } from '../../common/base/backoff.ts';
import { type Clock, seconds, sleep, type Timer } from '../../common/base/clock.ts';
import { errorMessage } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';
import { BYPASSED, type BypassScope } from '../bypass/bypass.ts';
import { isOlder } from '../kube/resource-version.ts';
import type { PodNamespace, RuleState } from '../namespace/rule-backend.ts';
import type { PodNetns } from '../namespace/run-inside.ts';
import { podOptions, rulesFor } from '../rules/pod-options.ts';
import type { PodRulesConfig } from '../rules/pod-rules.ts';
import type { ZdsPod } from '../zds/messages.ts';
import type { SnapshotPod } from '../zds/server.ts';
import { type EnrolmentDecision, isFinished, type Pod, podIps } from './decision.ts';
import { Leftovers, type LeftoversParts, type LeftoversReport } from './leftovers.ts';
import { openConnectionsWish } from './open-connections-wish.ts';
import { type AnnotationChanges, type EventType, OUTSIDE, PodVoice, PROBLEM, REDIRECTION } from './pod-voice.ts';

export interface EnrolmentParts {
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
  readonly nodeRules: PodRulesConfig;
  readonly drainDeadlineMs: number;
  decide(pod: Pod): EnrolmentDecision;
  /** undefined where the pod has no namespace that this node can see. */
  findNetns(uid: string): PodNetns | undefined;
  /** The namespace that a CNI call named. @throws where it is none */
  openNetns(path: string): PodNetns;
  readonly network: {
    apply(pod: PodNamespace, config: PodRulesConfig): Promise<void>;
    /** As `apply`, for rules that somebody else may have written or changed. @returns what was there */
    mend(pod: PodNamespace, config: PodRulesConfig): Promise<RuleState>;
    drain(pod: PodNamespace): Promise<void>;
    remove(pod: PodNamespace): Promise<void>;
    countRelayed(netns: PodNetns): number;
  };
  readonly ztunnel: { add(pod: ZdsPod, netnsFd: () => number | undefined): Promise<void>; remove(uid: string): Promise<void> };
  /** Addresses whose probes pass; an empty list takes the pod out. */
  setProbed(uid: string, ips: readonly IpAddress[]): Promise<void>;
  /** @throws what the API server answered, except where the pod is gone */
  annotate(pod: Pod, changes: AnnotationChanges): Promise<void>;
  /** A Kubernetes event on the pod. Never throws. */
  event(pod: Pod, type: EventType, message: string): void;
  /** Of the pod's namespace. */
  namespaceAnnotations(pod: Pod): Readonly<Record<string, string>> | undefined;
  /** Sentences about NetworkPolicies that the mesh changes for this pod. */
  networkFindings(pod: Pod): readonly string[];
  readonly leftovers: LeftoversParts;
  /** Rules that somebody had changed were put right. */
  onMended(): void;
  /** At most so many pods are worked on at a time. */
  gate<T>(run: () => Promise<T>): Promise<T>;
  /** Nothing of the pod is left with us. */
  onForgotten(uid: string): void;
}

const RETRY = { firstMs: 5, maxMs: seconds(5), jitter: 0.2 };
// istiod tells the other nodes that the pod's tunnel port is about to close; until they know, it stays open.
const LEAVE_GRACE_MS = seconds(2);
const DRAIN_POLL_MS = seconds(5);
// A bypass takes the mesh out of the path within ten seconds, relayed connections included.
const BYPASS_DRAIN_MS = seconds(4);
// Within the agent's own grace period: an agent that is killed takes no rules out.
const UNINSTALL_DRAIN_MS = seconds(10);
const UNINSTALL_POLL_MS = 500;

type Step = { readonly done: true } | { readonly againMs: number };
const DONE: Step = { done: true };
const FOREIGN_RULES = 'written by an earlier agent';
const UNVERIFIED_RULES = 'somebody may have changed them';

interface Waiter {
  resolve(): void;
  reject(error: Error): void;
}

export class PodEnrolment {
  readonly uid: string;
  readonly #parts: EnrolmentParts;
  readonly #backoff: Backoff;
  /** For every log line. A child log for each pod would live as long as the process. */
  readonly #fields: { readonly pod: string | undefined; readonly namespace: string | undefined };
  readonly #waiters = new Set<Waiter>();
  #pod: Pod;
  #deleted = false;
  #stopped = false;
  #given: { readonly path: string; readonly ips: readonly IpAddress[] } | undefined;
  #givenIps: readonly IpAddress[] = [];
  #netns: PodNetns | undefined;
  /** The rules that were written, as text, to see whether they must be written again. */
  #rules: string | undefined;
  #draining: { readonly since: number } | undefined;
  #served = false;
  #probed = '';
  #running: Promise<void> | undefined;
  #dirty = false;
  #timer: Timer | undefined;
  readonly #voice: PodVoice;
  readonly #leftovers: Leftovers;

  constructor(uid: string, pod: Pod, parts: EnrolmentParts) {
    this.uid = uid;
    this.#pod = pod;
    this.#parts = parts;
    this.#backoff = new Backoff({ ...RETRY, random: parts.random });
    this.#fields = { pod: pod.metadata.name, namespace: pod.metadata.namespace };
    this.#voice = new PodVoice(parts, pod, this.#fields);
    this.#leftovers = new Leftovers(parts.leftovers, this.#fields);
  }

  get pod(): Pod {
    return this.#pod;
  }

  /** In the mesh as far as this node is concerned: captured, and ztunnel serves it. */
  get enrolled(): boolean {
    return this.#served && this.#rules !== undefined && !this.#draining;
  }

  /** Connections that were open before the pod joined, and are not in the mesh. */
  get outside(): number {
    return this.#leftovers.report?.count ?? 0;
  }

  /** A pod that an earlier agent enrolled: ztunnel serves it still. Call before the first `poke`. */
  restore(netns: PodNetns | undefined, rulesAreKept: boolean): void {
    this.#netns = netns;
    this.#served = true;
    this.#rules = rulesAreKept ? rulesText(this.#config()) : FOREIGN_RULES;
  }

  /** A state that is older than the one that is known (the watch may be behind a CNI call) is ignored. */
  update(pod: Pod): void {
    if (isOlder(pod, this.#pod)) return;
    this.#pod = pod;
    this.#voice.update(pod);
    this.poke();
  }

  /** The pod is gone from the API. */
  delete(): void {
    this.#deleted = true;
    this.poke();
  }

  /** A CNI call named the pod's namespace. Resolves when ztunnel serves the pod there; rejects with the last problem after `timeoutMs`. */
  join(pod: Pod, path: string, ips: readonly IpAddress[], timeoutMs: number): Promise<void> {
    this.#pod = pod;
    this.#voice.update(pod);
    this.#given = { path, ips };
    return new Promise((resolve, reject) => {
      const timer = this.#parts.clock.after(timeoutMs, () =>
        settle(() => reject(new Error(this.#voice.problem ?? `not ready after ${timeoutMs} ms`))),
      );
      const settle = (end: () => void): void => {
        timer.cancel();
        this.#waiters.delete(waiter);
        end();
      };
      const waiter: Waiter = { resolve: () => settle(resolve), reject: (error) => settle(() => reject(error)) };
      this.#waiters.add(waiter);
      this.poke();
    });
  }

  /** Looks whether the pod's rules are still ours. */
  verify(): void {
    if (this.#rules === undefined || this.#draining) return;
    if (this.#rules !== FOREIGN_RULES) this.#rules = UNVERIFIED_RULES;
    this.poke();
  }

  /** ztunnel may not have the pod any more. */
  serveAgain(): void {
    if (!this.#served) return;
    this.#served = false;
    this.poke();
  }

  /** For a ztunnel that has just connected; undefined where it need not know about this pod. */
  snapshot(): SnapshotPod | undefined {
    if (!this.#served && !this.#netns) return undefined;
    return {
      ...zdsPod(this.uid, this.#pod),
      netnsFd: () => this.#netns?.fd,
      settle: (error) => {
        this.#served = error === undefined;
        if (error) this.#parts.log.warn({ ...this.#fields, error: errorMessage(error) }, 'ztunnel did not take a pod of the snapshot');
        this.poke();
      },
    };
  }

  /** Looks again, soon. */
  poke(): void {
    if (this.#stopped) return;
    this.#dirty = true;
    this.#timer?.cancel();
    this.#running ??= this.#run();
  }

  /** Ends all work. With `remove`, takes the pod out of the mesh first, at once. */
  async stop(remove: boolean): Promise<void> {
    this.#stopped = true;
    this.#timer?.cancel();
    for (const waiter of this.#waiters) waiter.reject(new Error('the node agent is stopping'));
    await this.#running;
    if (remove && !this.#deleted && this.#netns) {
      // Requests that are under way would lose their answers with the rules. What fails here, the removal below mends.
      const drained = this.#rules === undefined ? undefined : await this.#openAndDrain(this.#netns).catch(() => undefined);
      // Without the right to say so any more the rules go all the same: they would leave the pod without a network.
      const unsaid = await this.#parts.gate(() =>
        this.#voice.silence().then(
          () => undefined,
          (error: unknown) => errorMessage(error),
        ),
      );
      if (drained !== undefined) await this.#relayedEnd(this.#netns, drained);
      await this.#parts.gate(async () => {
        if (this.#netns) await this.#parts.network.remove({ netns: this.#netns, about: this.#about() });
        await this.#giveUp();
      });
      if (unsaid !== undefined) throw new Error(`${this.#about()} is out of the mesh, and its annotation says otherwise: ${unsaid}`);
    }
    this.#closeNetns();
  }

  async #run(): Promise<void> {
    try {
      while (this.#dirty && !this.#stopped) {
        this.#dirty = false;
        const next = await this.#parts.gate(() => this.#attempt());
        if (next !== undefined && !this.#dirty && !this.#stopped) this.#timer = this.#parts.clock.after(next, () => this.poke());
      }
    } finally {
      this.#running = undefined;
    }
  }

  /** @returns after how many milliseconds to look again without being asked; undefined for never */
  async #attempt(): Promise<number | undefined> {
    try {
      const step = await this.#step();
      this.#backoff.reset();
      this.#voice.solved();
      return 'againMs' in step ? step.againMs : undefined;
    } catch (error) {
      this.#voice.report(errorMessage(error));
      return this.#backoff.next();
    }
  }

  #step(): Promise<Step> {
    if (this.#deleted || isFinished(this.#pod)) return this.#forget();
    const decision = this.#parts.decide(this.#pod);
    if (decision.enrol) return this.#enter();
    for (const waiter of this.#waiters) waiter.resolve();
    if (decision.selected) this.#voice.note(`not enrolled: ${decision.reason}`);
    return this.#leave(decision.bypass);
  }

  async #enter(): Promise<Step> {
    this.#takeGiven();
    if (!this.#netns) {
      this.#netns = this.#findStarted();
      this.#served = false;
    }
    if (!this.#netns) return DONE;
    const pod = { netns: this.#netns, about: this.#about() };
    // A drain that was begun is over; what was never taken from ztunnel need not be given again.
    if (this.#draining) this.#rules = undefined;
    this.#draining = undefined;
    const refusal = this.#served ? undefined : await this.#serve();
    const config = this.#config();
    await this.#redirect(pod, config);
    await this.#probe(this.#ips());
    // Not those who named another namespace while this run was under way.
    if (this.#served && !this.#given) for (const waiter of this.#waiters) waiter.resolve();
    const redirection = this.#served ? 'enabled' : 'pending';
    const joined = this.#voice.redirection !== redirection;
    const around = refusal === undefined ? this.#lookAround(this.#netns, config) : { failure: refusal };
    await this.#voice.annotate({ [REDIRECTION]: redirection, [BYPASSED]: undefined, ...around.annotations });
    if (joined) this.#parts.log.info({ ...this.#fields, served: this.#served }, 'the pod is in the mesh');
    if (around.failure !== undefined) throw around.failure;
    return around.againMs === undefined ? DONE : { againMs: around.againMs };
  }

  /** Writes the rules where they are not known to be there. */
  async #redirect(pod: PodNamespace, config: PodRulesConfig): Promise<void> {
    const { network, log, onMended } = this.#parts;
    const text = rulesText(config);
    if (this.#rules === text) return;
    if (this.#rules === FOREIGN_RULES || this.#rules === UNVERIFIED_RULES) {
      const found = await network.mend(pod, config);
      if (found !== 'wanted' && this.#rules === UNVERIFIED_RULES) {
        onMended();
        log.warn({ ...this.#fields, found }, 'the redirection rules of a pod were not as the agent had written them, and were put right');
        const what = found === 'absent' ? 'had been removed' : 'had been changed';
        this.#voice.note(
          `its redirection rules ${what} by somebody else, and were written again; until then it was not wholly in the mesh`,
        );
      }
    } else await network.apply(pod, config);
    this.#rules = text;
  }

  /** What else is to be done and said about a pod that is in the mesh. That it fails does not change that the pod is. */
  #lookAround(netns: PodNetns, captured: PodRulesConfig): Around {
    const { wish, problems } = openConnectionsWish(this.#pod.metadata.annotations, this.#parts.namespaceAnnotations(this.#pod));
    for (const problem of problems) this.#voice.note(problem);
    let againMs: number | undefined;
    try {
      // What the rules themselves have reset is not outside.
      if (!captured.captureOpenConnections) againMs = this.#leftovers.look(netns, this.#pod, captured, wish);
    } catch (failure) {
      return { failure };
    }
    const findings = [...this.#parts.networkFindings(this.#pod)];
    for (const finding of findings) this.#voice.note(finding);
    const outside = this.#leftovers.report;
    if (outside) {
      this.#voice.note('connections that were open before the pod joined the mesh are not in it until they end', 'Normal');
      findings.push(...outsideProblems(outside));
    }
    const annotations = { [OUTSIDE]: outside && String(outside.count), [PROBLEM]: findings.length > 0 ? findings.join('; ') : undefined };
    return { annotations, ...(againMs !== undefined && { againMs }) };
  }

  /** @returns why ztunnel does not serve the pod: the rules are written all the same, as a pod of the mesh may not talk past it */
  async #serve(): Promise<Error | undefined> {
    const netns = this.#netns;
    try {
      await this.#parts.ztunnel.add(zdsPod(this.uid, this.#pod), () => (this.#netns === netns ? netns?.fd : undefined));
      this.#served = true;
      this.#parts.log.debug(this.#fields, 'ztunnel serves the pod');
      return undefined;
    } catch (error) {
      return error instanceof Error ? error : new Error(String(error));
    }
  }

  async #leave(bypassed: BypassScope | undefined): Promise<Step> {
    this.#given = undefined;
    this.#leftovers.reset();
    if (this.#voice.redirection !== undefined && !this.#netns) {
      this.#netns = this.#parts.findNetns(this.uid);
      this.#rules = FOREIGN_RULES;
    }
    // Whoever bypasses the mesh does not wait for the API server.
    if (bypassed && this.#netns && this.#rules !== undefined) await this.#drain(this.#netns);
    await this.#voice.annotate({ [REDIRECTION]: undefined, [BYPASSED]: bypassed, [OUTSIDE]: undefined, [PROBLEM]: undefined });
    await this.#probe([]);
    const netns = this.#netns;
    if (!netns || this.#rules === undefined) {
      await this.#giveUp();
      return this.#release();
    }
    const pod = { netns, about: this.#about() };
    const { clock, network } = this.#parts;
    const drainDeadlineMs = bypassed ? BYPASS_DRAIN_MS : this.#parts.drainDeadlineMs;
    const passed = clock.monotonic() - (await this.#drain(netns));
    if (passed < LEAVE_GRACE_MS) return { againMs: LEAVE_GRACE_MS - passed };
    const relayed = network.countRelayed(netns);
    if (relayed > 0 && passed < drainDeadlineMs) {
      this.#parts.log.debug({ ...this.#fields, relayed }, 'connections of a pod that left are still relayed');
      return { againMs: Math.min(DRAIN_POLL_MS, drainDeadlineMs - passed) };
    }
    await this.#giveUp();
    await network.remove(pod);
    this.#parts.log.info({ ...this.#fields, cut: relayed }, 'the pod has left the mesh');
    return this.#release();
  }

  /**
   * Every node's agent ends at a moment of its own. So plaintext is let into all pods first, and they are no longer captured a little later:
   * a pod that is let go may call one that another agent still has to let go. @returns since when nothing new is captured
   */
  async #openAndDrain(netns: PodNetns): Promise<number> {
    const { clock, gate, network, nodeRules } = this.#parts;
    if (!this.#draining) {
      const config = { ...rulesFor(nodeRules, podOptions(this.#pod.metadata)), ingressMode: true };
      await gate(() => network.apply({ netns, about: this.#about() }, config));
      await sleep(clock, LEAVE_GRACE_MS);
    }
    return gate(() => this.#drain(netns));
  }

  /** Resolves when ztunnel relays nothing for the pod any more, or it has had its time. */
  async #relayedEnd(netns: PodNetns, since: number): Promise<void> {
    const { clock, network } = this.#parts;
    for (;;) {
      const passed = clock.monotonic() - since;
      if (passed >= UNINSTALL_DRAIN_MS || (passed >= LEAVE_GRACE_MS && network.countRelayed(netns) === 0)) return;
      await sleep(clock, UNINSTALL_POLL_MS);
    }
  }

  /** Captures nothing new. @returns since when */
  async #drain(netns: PodNetns): Promise<number> {
    if (!this.#draining) {
      await this.#parts.network.drain({ netns, about: this.#about() });
      this.#draining = { since: this.#parts.clock.monotonic() };
      this.#parts.log.info(this.#fields, 'the pod leaves the mesh');
    }
    return this.#draining.since;
  }

  /** Finished or deleted: its processes have ended, so there is nothing to be careful about; the rules went with the namespace. */
  async #forget(): Promise<Step> {
    const reason = this.#deleted ? 'the pod was deleted' : 'the pod has finished';
    for (const waiter of this.#waiters) waiter.reject(new Error(reason));
    if (this.#netns || this.#served) this.#parts.log.info({ ...this.#fields, reason }, 'the pod has left the mesh');
    await this.#probe([]);
    await this.#giveUp();
    this.#closeNetns();
    if (!this.#deleted) await this.#voice.silence();
    return this.#release();
  }

  /** ztunnel may have the pod also where it did not acknowledge it: the answer may have been lost. */
  async #giveUp(): Promise<void> {
    if (this.#netns || this.#served) await this.#parts.ztunnel.remove(this.uid);
    this.#served = false;
  }

  #release(): Step {
    this.#closeNetns();
    this.#rules = undefined;
    this.#draining = undefined;
    if (this.#deleted) this.#parts.onForgotten(this.uid);
    return DONE;
  }

  #takeGiven(): void {
    const given = this.#given;
    if (!given) return;
    const netns = this.#parts.openNetns(given.path);
    this.#given = undefined;
    this.#givenIps = given.ips;
    if (this.#netns?.identity() === netns.identity()) {
      netns.close();
      return;
    }
    // The pod has got another sandbox: nothing of what was done for the first one holds.
    this.#closeNetns();
    this.#netns = netns;
    this.#served = false;
    this.#rules = undefined;
    this.#leftovers.reset();
  }

  /** A pod without an address has no network yet; its creator will call. */
  #findStarted(): PodNetns | undefined {
    if (this.#ips().length === 0) return undefined;
    const netns = this.#parts.findNetns(this.uid);
    if (!netns) throw new Error('its network namespace was not found on this node');
    return netns;
  }

  #config(): PodRulesConfig {
    const options = podOptions(this.#pod.metadata);
    for (const problem of options.problems) this.#voice.note(problem);
    return rulesFor(this.#parts.nodeRules, options);
  }

  #ips(): IpAddress[] {
    const ips = podIps(this.#pod);
    return ips.length > 0 ? ips : [...this.#givenIps];
  }

  async #probe(ips: readonly IpAddress[]): Promise<void> {
    const text = ips.join();
    if (text === this.#probed) return;
    await this.#parts.setProbed(this.uid, ips);
    this.#probed = text;
  }

  #closeNetns(): void {
    this.#netns?.close();
    this.#netns = undefined;
  }

  #about = (): string => `pod ${this.#pod.metadata.namespace}/${this.#pod.metadata.name}`;
}

interface Around {
  readonly annotations?: Readonly<Record<string, string | undefined>>;
  /** When to look again. */
  readonly againMs?: number;
  readonly failure?: unknown;
}

function outsideProblems({ past, unknown }: LeftoversReport): string[] {
  return [
    ...(past ? [`${past.kind} ${past.policy} does not reach connections that were open before, which its annotation keeps`] : []),
    ...(unknown ? ['whether a policy applies to connections from before is not known: the agent cannot read the policies'] : []),
  ];
}

/** To see whether rules must be written again. */
const rulesText = (config: PodRulesConfig): string => JSON.stringify(config);

function zdsPod(uid: string, { metadata, spec }: Pod): ZdsPod {
  const { name = '', namespace = '' } = metadata;
  return { uid, name, namespace, serviceAccount: spec?.serviceAccountName || 'default' };
}
