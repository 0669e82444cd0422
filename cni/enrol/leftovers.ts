/**
 * Connections of one pod that were open before it joined the mesh: counted until they have ended, and cut when they may not stay. The set
 * is what the first look after the rules finds outside the mesh; from then on it only shrinks. Sockets are not read at one instant, so a
 * connection that was being made may look as if it were outside: nothing is said or cut before a second look has found it again.
 */
import type { Clock } from '../../common/base/clock.ts';
import { seconds } from '../../common/base/clock.ts';
import type { OutcomeCode } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';
import type { TcpSocket } from '../../common/linux/tcp-diag.ts';
import type { CapturedTraffic } from '../namespace/open-connections.ts';
import type { PodNetns } from '../namespace/run-inside.ts';
import type { Pod } from './decision.ts';
import type { OpenConnectionsWish } from './open-connections-wish.ts';
import type { AppliedPolicy } from './policies.ts';

export const CUT_CODE: OutcomeCode = 'PREDATES_MESH';
/** Why connections were cut, for the metric. */
export type CutReason = 'strict' | 'policy' | 'annotation';

export interface LeftoversParts {
  readonly clock: Clock;
  readonly log: Log;
  /** Time that they have once STRICT or a policy applies. */
  readonly deadlineMs: number;
  /** @throws {LinuxError} */
  outside(netns: PodNetns, captured: CapturedTraffic): TcpSocket[];
  /** @returns how many were still there. @throws {LinuxError} where the kernel cannot */
  cut(netns: PodNetns, connections: readonly TcpSocket[]): number;
  policyFor(pod: Pod): AppliedPolicy | undefined;
  /** Whether `policyFor` knows them all. */
  policiesKnown(): boolean;
  onCut(count: number, reason: CutReason): void;
}

/** For status and events; undefined where nothing is outside. */
export interface LeftoversReport {
  readonly count: number;
  /** Something applies to the pod that these connections go past, and nothing will cut them. */
  readonly past: AppliedPolicy | undefined;
  /** Whether anything applies is not known: the API server does not let the agent read policies, or has not answered yet. */
  readonly unknown: boolean;
}

const SECOND_LOOK_MS = seconds(1);
const LOOK_MS = seconds(5);
const MAX_NAMED = 10;

export class Leftovers {
  readonly #parts: LeftoversParts;
  readonly #fields: Readonly<Record<string, unknown>>;
  #known: ReadonlySet<string> | undefined;
  #firstLook = 0;
  #policySince: number | undefined;
  #count = 0;
  #past: AppliedPolicy | undefined;

  /** @param fields for every log line */
  constructor(parts: LeftoversParts, fields: Readonly<Record<string, unknown>>) {
    this.#parts = parts;
    this.#fields = fields;
  }

  get report(): LeftoversReport | undefined {
    if (this.#count === 0) return undefined;
    return { count: this.#count, past: this.#past, unknown: !this.#parts.policiesKnown() };
  }

  /** The pod leaves, or has got another network namespace. */
  reset(): void {
    this.#known = undefined;
    this.#policySince = undefined;
    this.#count = 0;
    this.#past = undefined;
  }

  /**
   * Call when the rules are in place. Cuts what is due.
   * @returns after how many milliseconds to call again; undefined: never, nothing is left
   * @throws {LinuxError} where sockets cannot be read or ended
   */
  look(netns: PodNetns, pod: Pod, captured: CapturedTraffic, wish: OpenConnectionsWish): number | undefined {
    if (this.#known?.size === 0) return undefined;
    const now = this.#parts.clock.monotonic();
    const sockets = this.#shrink(this.#parts.outside(netns, captured), now);
    if (sockets.length === 0) return undefined;
    const second = this.#firstLook + SECOND_LOOK_MS;
    if (now < second) return second - now;
    const due = this.#due(pod, wish, now);
    if (due && due.at <= now) {
      this.#cut(netns, sockets, due);
      this.#shrink(this.#parts.outside(netns, captured), now);
    }
    const left = this.#known?.size ?? 0;
    this.#count = left;
    if (left === 0) return undefined;
    return due && due.at > now ? Math.min(LOOK_MS, due.at - now) : LOOK_MS;
  }

  #shrink(outside: readonly TcpSocket[], now: number): readonly TcpSocket[] {
    const known = this.#known;
    if (!known) this.#firstLook = now;
    const left = known ? outside.filter(({ cookie }) => known.has(cookie)) : outside;
    this.#known = new Set(left.map(({ cookie }) => cookie));
    if (left.length === 0) this.#count = 0;
    return left;
  }

  #due(pod: Pod, wish: OpenConnectionsWish, now: number): Due | undefined {
    const policy = this.#parts.policyFor(pod);
    if (!policy) this.#policySince = undefined;
    else this.#policySince ??= now;
    this.#past = wish === 'keep' ? policy : undefined;
    if (wish === 'keep') return undefined;
    if (wish !== 'default') return { at: this.#firstLook + wish, reason: 'annotation', policy };
    if (!policy || this.#policySince === undefined) return undefined;
    const reason = policy.kind === 'PeerAuthentication' ? 'strict' : 'policy';
    return { at: this.#policySince + this.#parts.deadlineMs, reason, policy };
  }

  #cut(netns: PodNetns, sockets: readonly TcpSocket[], { reason, policy }: Due): void {
    const { log, cut, onCut } = this.#parts;
    const count = cut(netns, sockets);
    if (count === 0) return;
    onCut(count, reason);
    const named = sockets.slice(0, MAX_NAMED).map(({ local, remote }) => `${local.ip}:${local.port} - ${remote.ip}:${remote.port}`);
    log.warn(
      { ...this.#fields, code: CUT_CODE, reason, ...(policy && { policy: policy.policy }), count, connections: named },
      'connections that were open before the pod joined the mesh were cut',
    );
  }
}

interface Due {
  readonly at: number;
  readonly reason: CutReason;
  readonly policy: AppliedPolicy | undefined;
}
