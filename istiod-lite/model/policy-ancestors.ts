/** `status.ancestors`: what became of a policy at each of its targets, in the form of the Gateway API (gateway.networking.k8s.io/v1 PolicyStatus). */
import type { Condition, WantedStatus } from './conditions.ts';
import * as names from './names.ts';

/** One entry. */
export interface PolicyAncestor {
  /** The target as it was written. */
  readonly ancestorRef: Readonly<Record<string, unknown>>;
  readonly controllerName: string;
  readonly conditions: readonly Condition[];
}

// What the Gateway API has room for.
const MOST = 16;

export const isOurAncestor = ({ controllerName }: { readonly controllerName?: unknown }): boolean =>
  controllerName === names.WAYPOINT_CONTROLLER;

/** Ours, beside those of other controllers as they wrote them. */
export function wantedAncestors(ours: readonly PolicyAncestor[]): WantedStatus {
  return ({ ancestors }) => {
    const others = (ancestors ?? []).filter((one) => !isOurAncestor(one));
    return { ancestors: [...others, ...ours].slice(0, MOST) };
  };
}

/** A target's entry. @param target as it was written; only what names it is repeated */
export function ancestor(target: Readonly<Record<string, unknown>>, generation: number, conditions: readonly Condition[]): PolicyAncestor {
  const { group, kind, name, namespace, sectionName } = target;
  return {
    ancestorRef: {
      group: group === 'core' ? '' : (group ?? ''),
      kind,
      name,
      ...(namespace !== undefined && { namespace }),
      ...(sectionName !== undefined && { sectionName }),
    },
    controllerName: names.WAYPOINT_CONTROLLER,
    conditions: conditions.map((condition) => ({ ...condition, observedGeneration: generation })),
  };
}
