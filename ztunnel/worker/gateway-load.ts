/**
 * How many connections this worker carries through each pod of a gateway (a waypoint, another network's entrance), which is what the next
 * one's choice among those pods goes by. A worker knows its own ones only: that is enough where every worker does the same.
 */
import type { Workload } from '../../common/decision/mesh-view.ts';
import type { OutboundRoute } from '../../common/decision/outbound.ts';

export class GatewayLoad {
  /** By the workload's uid; without those that have none. */
  readonly #open = new Map<string, number>();

  of(gateway: Workload): number {
    return this.#open.get(gateway.uid) ?? 0;
  }

  /** A connection goes this way. @returns what takes it off again, once */
  add(gateway: Workload): () => void {
    const { uid } = gateway;
    this.#open.set(uid, (this.#open.get(uid) ?? 0) + 1);
    return () => {
      const left = (this.#open.get(uid) ?? 0) - 1;
      if (left > 0) this.#open.set(uid, left);
      else this.#open.delete(uid);
    };
  }

  /** Pods that carry anything. */
  get size(): number {
    return this.#open.size;
  }
}

/** The pod of a gateway that a route leads to; undefined where it leads past all of them. */
export function gatewayOf(route: OutboundRoute): Workload | undefined {
  if (!('via' in route)) return undefined;
  if (route.via === 'double-hbone') return route.gateway;
  return route.via === 'hbone' && route.waypoint ? route.workload : undefined;
}
