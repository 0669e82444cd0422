/** What istiod-lite says about users' objects in their status: Istio's condition types and reasons, our words (Istio, pilot/pkg/config/kube/gateway). */

import { at, isRecord, records, text, whole } from './objects.ts';
import type { KindName } from './watched-kinds.ts';

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
  readonly kind: KindName;
  readonly apiVersion: string;
  /** The status subresource. */
  readonly path: string;
  readonly namespace: string;
  readonly name: string;
  readonly fieldManager: string;
  readonly conditions: readonly Condition[];
  /** Where the status is more than conditions: all of it that this writer owns, and then `conditions` is for the log. See statusBody. */
  readonly status?: StatusBody;
  /** The object as it was when parts that others wrote were copied from it; the write must fail where it has changed since. */
  readonly resourceVersion?: string;
}

/** Which part of which object a write is of: an object may have conditions of two of our writers, and neither replaces the other. */
export type StatusSlot = Pick<StatusWrite, 'path' | 'fieldManager'>;

/** The parts of a status that are written as a whole, in the form of the Gateway API. Conditions within may lack their time. */
export interface StatusBody {
  readonly conditions?: readonly object[];
  readonly parents?: readonly RouteParent[];
  readonly addresses?: readonly object[];
  readonly listeners?: readonly object[];
  readonly ancestors?: readonly PolicyAncestorShown[];
}

interface PolicyAncestorShown {
  readonly ancestorRef?: unknown;
  readonly controllerName?: unknown;
  readonly conditions?: unknown;
}

/** What an object should show, given what it shows: others may have written part of it. undefined leaves the object alone. */
export type WantedStatus = (shown: StatusBody) => StatusBody | undefined;

interface RouteParent {
  readonly parentRef?: unknown;
  readonly controllerName?: unknown;
  readonly conditions?: unknown;
}

/** `status` as it is sent: conditions that have just flipped get the present as their time. */
export function statusBody({ conditions, status }: Pick<StatusWrite, 'conditions' | 'status'>, now: string): Record<string, unknown> {
  if (!status) return { conditions: conditions.map((condition) => ({ lastTransitionTime: now, ...condition })) };
  return Object.fromEntries(Object.entries(status).map(([name, value]) => [name, stamped(value, now)]));
}

function stamped(value: unknown, now: string): unknown {
  if (Array.isArray(value)) return value.map((item) => stamped(item, now));
  if (!isRecord(value)) return value;
  const copy = Object.fromEntries(Object.entries(value).map(([name, field]) => [name, stamped(field, now)]));
  return 'type' in copy && 'status' in copy && 'reason' in copy ? { lastTransitionTime: now, ...copy } : copy;
}

export const WAYPOINT_BOUND = 'istio.io/WaypointBound';
export const WAYPOINT_MISSING = 'istio.io/WaypointMissing';
/** Our own: something that the object claims is another namespace's, or nobody's to claim. */
export const CLAIM_REFUSED = 'warren.dev/ClaimRefused';
/** Our own: of kinds of Istio's that nothing here carries out. */
export const ENFORCED = 'warren.dev/Enforced';
/** Our own: values in it make no sense, and were read in the stricter way or count for nothing. */
export const UNREADABLE = 'warren.dev/Unreadable';
export const ZTUNNEL_ACCEPTED = 'ZtunnelAccepted';
export const WAYPOINT_ACCEPTED = 'WaypointAccepted';

interface Reporter {
  readonly kind: KindName;
  readonly fieldManager: string;
  /** The conditions that are its own; all others of the object are somebody else's. */
  readonly types: readonly string[];
}

const PROBLEMS = 'warren-unreadable';

/** Who writes which conditions: under Istio's field managers, so that either control plane replaces what the other one wrote. */
export const reporters = {
  Service: { kind: 'Service', fieldManager: 'istio-ambient-service', types: [WAYPOINT_BOUND] },
  ServiceEntry: { kind: 'ServiceEntry', fieldManager: 'istio-ambient-service', types: [WAYPOINT_BOUND, WAYPOINT_MISSING, CLAIM_REFUSED] },
  WorkloadEntry: { kind: 'WorkloadEntry', fieldManager: 'istio-ambient-workloadentry', types: [WAYPOINT_BOUND] },
  ZtunnelPolicy: { kind: 'AuthorizationPolicy', fieldManager: 'istio-ambient-ztunnel-policy', types: [ZTUNNEL_ACCEPTED] },
  GatewayClass: { kind: 'GatewayClass', fieldManager: 'istio.io/mesh-controller', types: ['Accepted'] },
  VirtualService: { kind: 'VirtualService', fieldManager: 'istio-ambient-waypoint-policy', types: [WAYPOINT_ACCEPTED] },
  DestinationRule: { kind: 'DestinationRule', fieldManager: 'istio-ambient-waypoint-policy', types: [WAYPOINT_ACCEPTED] },
  RequestAuthentication: { kind: 'RequestAuthentication', fieldManager: 'istio-ambient-waypoint-policy', types: [WAYPOINT_ACCEPTED] },
  Telemetry: { kind: 'Telemetry', fieldManager: 'istio-ambient-waypoint-policy', types: [WAYPOINT_ACCEPTED] },
  EnvoyFilter: { kind: 'EnvoyFilter', fieldManager: 'warren-unenforced', types: [ENFORCED] },
  Sidecar: { kind: 'Sidecar', fieldManager: 'warren-unenforced', types: [ENFORCED] },
  WasmPlugin: { kind: 'WasmPlugin', fieldManager: 'warren-unenforced', types: [ENFORCED] },
  TrafficExtension: { kind: 'TrafficExtension', fieldManager: 'warren-unenforced', types: [ENFORCED] },
  WaypointPolicy: { kind: 'AuthorizationPolicy', fieldManager: 'istio-ambient-waypoint-policy', types: [WAYPOINT_ACCEPTED] },
  // What cannot be read of kinds whose other conditions are about something else, or that have none.
  UnreadablePolicy: { kind: 'AuthorizationPolicy', fieldManager: PROBLEMS, types: [UNREADABLE] },
  UnreadablePeer: { kind: 'PeerAuthentication', fieldManager: PROBLEMS, types: [UNREADABLE] },
  UnreadableToken: { kind: 'RequestAuthentication', fieldManager: PROBLEMS, types: [UNREADABLE] },
  UnreadableEntry: { kind: 'ServiceEntry', fieldManager: PROBLEMS, types: [UNREADABLE] },
  UnreadableWorkload: { kind: 'WorkloadEntry', fieldManager: PROBLEMS, types: [UNREADABLE] },
  UnreadableVirtual: { kind: 'VirtualService', fieldManager: PROBLEMS, types: [UNREADABLE] },
} as const satisfies Record<string, Reporter>;

export type ReporterName = keyof typeof reporters;

/** Who tells what of an object cannot be read, where nobody else does. */
export const problemReporters: Readonly<Partial<Record<KindName, ReporterName>>> = {
  AuthorizationPolicy: 'UnreadablePolicy',
  PeerAuthentication: 'UnreadablePeer',
  RequestAuthentication: 'UnreadableToken',
  ServiceEntry: 'UnreadableEntry',
  WorkloadEntry: 'UnreadableWorkload',
  VirtualService: 'UnreadableVirtual',
};

/** The condition of an object of which something cannot be read; none where all can. */
export function unreadableConditions(messages: readonly string[], generation: number): Condition[] {
  if (messages.length === 0) return [];
  const named = messages.slice(0, MOST_NAMED).join('; ');
  const message = messages.length > MOST_NAMED ? `${named}; and ${messages.length - MOST_NAMED} more` : named;
  return [{ type: UNREADABLE, status: 'True', reason: 'InvalidValue', message: message.slice(0, LONGEST), observedGeneration: generation }];
}

const MOST_NAMED = 10;
// The API server takes 32 KiB of a message.
const LONGEST = 2000;

/** Those of a reporter's conditions that an object shows now. */
export function readConditions(reporter: ReporterName, object: unknown): Condition[] {
  const types: readonly string[] = reporters[reporter].types;
  return records(at(object, 'status', 'conditions')).flatMap((condition) => {
    const type = text(condition.type);
    if (!types.includes(type)) return [];
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
