/** All pods of the node, each with its own way in and out (pod-enrolment.ts), and what concerns several of them. */
import type { IpAddress } from '../../common/base/address.ts';
import type { PodNetns } from '../namespace/run-inside.ts';
import type { SnapshotPod } from '../zds/server.ts';
import type { Pod } from './decision.ts';
import { type EnrolmentParts, PodEnrolment } from './pod-enrolment.ts';

export type { EnrolmentParts } from './pod-enrolment.ts';

const CONCURRENT_PODS = 8;

export class Enrolment {
  readonly #parts: EnrolmentParts;
  readonly #pods = new Map<string, PodEnrolment>();
  #missing: ReadonlySet<string> = new Set();

  constructor(parts: Omit<EnrolmentParts, 'gate' | 'onForgotten'>) {
    this.#parts = { ...parts, gate: makeGate(CONCURRENT_PODS), onForgotten: (uid) => void this.#pods.delete(uid) };
  }

  /** Pods that are captured and served. */
  get enrolled(): number {
    let count = 0;
    for (const { enrolled } of this.#pods.values()) if (enrolled) count++;
    return count;
  }

  /** Connections of pods of the mesh that were open before, and are not in it. */
  get outside(): number {
    let count = 0;
    for (const entry of this.#pods.values()) count += entry.outside;
    return count;
  }

  /** A pod that an earlier agent had enrolled. Before ztunnels are let in, as it belongs to their snapshot. */
  restore(pod: Pod, netns: PodNetns | undefined, rulesAreKept: boolean): void {
    this.#entry(pod)?.restore(netns, rulesAreKept);
  }

  /** A pod as it is now. */
  upsert(pod: Pod): void {
    this.#entry(pod)?.update(pod);
  }

  delete(pod: Pod): void {
    this.#pods.get(pod.metadata.uid ?? '')?.delete();
  }

  /** The labels of a namespace have changed. */
  pokeNamespace(namespace: string): void {
    for (const entry of this.#pods.values()) if (entry.pod.metadata.namespace === namespace) entry.poke();
  }

  /** Something that concerns all pods has changed. */
  pokeAll(): void {
    for (const entry of this.#pods.values()) entry.poke();
  }

  /** A CNI call for a new pod. @throws the last problem, where ztunnel did not take the pod within `timeoutMs` */
  async join(pod: Pod, netnsPath: string, ips: readonly IpAddress[], timeoutMs: number): Promise<void> {
    const entry = this.#entry(pod);
    if (!entry) throw new Error('the pod has no UID');
    await entry.join(pod, netnsPath, ips, timeoutMs);
  }

  /** The ztunnel that is left may not know all pods: each is given to it again, which means nothing to those that it has. */
  serveAgain(): void {
    for (const entry of this.#pods.values()) entry.serveAgain();
  }

  /** Looks at every pod's rules: somebody else may have changed them. */
  verify(): void {
    for (const entry of this.#pods.values()) entry.verify();
  }

  snapshot(): SnapshotPod[] {
    return [...this.#pods.values()].flatMap((entry) => entry.snapshot() ?? []);
  }

  /** Forgets pods that a CNI call brought and that were deleted before their watch saw them: those that two sweeps in a row did not find. */
  sweep(exists: (pod: Pod) => boolean): void {
    const missing = new Set<string>();
    for (const entry of this.#pods.values()) {
      if (exists(entry.pod)) continue;
      if (this.#missing.has(entry.uid)) entry.delete();
      else missing.add(entry.uid);
    }
    this.#missing = missing;
  }

  /** @returns the problems of pods that could not be taken out; none where `remove` is false */
  async stop(remove: boolean): Promise<string[]> {
    const results = await Promise.allSettled([...this.#pods.values()].map((entry) => entry.stop(remove)));
    return results.flatMap((result) => (result.status === 'rejected' ? String(result.reason) : []));
  }

  #entry(pod: Pod): PodEnrolment | undefined {
    const { uid } = pod.metadata;
    if (uid === undefined || uid === '') return undefined;
    let entry = this.#pods.get(uid);
    if (!entry) {
      entry = new PodEnrolment(uid, pod, this.#parts);
      this.#pods.set(uid, entry);
    }
    return entry;
  }
}

/** Lets `limit` runs go at a time; the others wait in order. */
function makeGate(limit: number): EnrolmentParts['gate'] {
  let free = limit;
  const waiting: (() => void)[] = [];
  return async (run) => {
    if (free > 0) free--;
    else await new Promise<void>((resolve) => waiting.push(resolve));
    try {
      return await run();
    } finally {
      const next = waiting.shift();
      if (next) next();
      else free++;
    }
  };
}
