/** What istiod-lite says about users' objects in their status: Istio's condition types and reasons, our words (control-plane facts §3.4). */

import { at, records, text, whole } from './objects.ts';
import type { WatchedKindName } from './watched-kinds.ts';

export interface Condition {
  readonly type: string;
  readonly status: 'True' | 'False';
  readonly reason: string;
  readonly message: string;
  /** metadata.generation that this is about; only where the type's status has the field. */
  readonly observedGeneration?: number;
  /** When the status last flipped, where it is known and has not flipped now; the writer fills in the present otherwise. */
  readonly lastTransitionTime?: string;
}

/** One object's conditions of one writer. Nothing in the list removes what that writer wrote before. */
export interface StatusWrite {
  readonly kind: WatchedKindName;
  readonly apiVersion: string;
  /** The status subresource. */
  readonly path: string;
  readonly namespace: string;
  readonly name: string;
  readonly fieldManager: string;
  readonly conditions: readonly Condition[];
}

export const WAYPOINT_BOUND = 'istio.io/WaypointBound';
export const WAYPOINT_MISSING = 'istio.io/WaypointMissing';
export const ZTUNNEL_ACCEPTED = 'ZtunnelAccepted';

/** Field managers of Istio's writers, so that either control plane replaces what the other one wrote. */
export const fieldManagers = {
  Service: 'istio-ambient-service',
  ServiceEntry: 'istio-ambient-service',
  WorkloadEntry: 'istio-ambient-workloadentry',
  AuthorizationPolicy: 'istio-ambient-ztunnel-policy',
} as const satisfies Partial<Record<WatchedKindName, string>>;

export type ReportedKind = keyof typeof fieldManagers;

/** Conditions that each kind gets from the translation; all others are somebody else's. */
export const ownedConditions: Readonly<Record<ReportedKind, readonly string[]>> = {
  Service: [WAYPOINT_BOUND],
  ServiceEntry: [WAYPOINT_BOUND, WAYPOINT_MISSING],
  WorkloadEntry: [WAYPOINT_BOUND],
  AuthorizationPolicy: [ZTUNNEL_ACCEPTED],
};

/** Those of our conditions that an object shows now. */
export function readConditions(kind: ReportedKind, object: unknown): Condition[] {
  return records(at(object, 'status', 'conditions')).flatMap((condition) => {
    const type = text(condition.type);
    if (!ownedConditions[kind].includes(type)) return [];
    const generation = observedGeneration(condition.observedGeneration);
    const since = text(condition.lastTransitionTime);
    return [
      {
        type,
        status: condition.status === 'True' ? 'True' : 'False',
        reason: text(condition.reason),
        message: text(condition.message),
        ...(generation === undefined ? {} : { observedGeneration: generation }),
        ...(since === '' ? {} : { lastTransitionTime: since }),
      },
    ];
  });
}

/** The conditions to write, or undefined where the object shows them already. */
export function conditionsToWrite(shown: readonly Condition[], wanted: readonly Condition[]): Condition[] | undefined {
  const same = shown.length === wanted.length && wanted.every((condition) => shown.some((other) => sameCondition(condition, other)));
  if (same) return undefined;
  return wanted.map((condition) => {
    const before = shown.find(({ type, status }) => type === condition.type && status === condition.status);
    return before?.lastTransitionTime === undefined ? condition : { ...condition, lastTransitionTime: before.lastTransitionTime };
  });
}

export const sameCondition = (a: Condition, b: Condition): boolean =>
  a.type === b.type &&
  a.status === b.status &&
  a.reason === b.reason &&
  a.message === b.message &&
  (a.observedGeneration ?? 0) === (b.observedGeneration ?? 0);

/** Istio's types print 64-bit numbers as text, Kubernetes' as numbers. */
function observedGeneration(value: unknown): number | undefined {
  if (typeof value === 'string' && /^\d{1,15}$/.test(value)) return Number(value);
  return whole(value);
}
