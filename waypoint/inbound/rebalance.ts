/**
 * What happens to open connections when replicas of this waypoint are added: the old ones ask a fair part of their clients to connect again,
 * and those who choose anew find the new ones idle. Nothing is cut: HTTP/1.1 is told by `connection: close` with the next answer, HTTP/2 and
 * tunnels by GOAWAY, and what is under way ends where it is. Which replicas there are a waypoint sees in its picture of the mesh, as the
 * endpoints of its own service, so it needs no word of its own from the control plane.
 */
import type { Clock } from '../../common/base/clock.ts';
import { type MeshView, serviceKey, type Workload } from '../../common/decision/mesh-view.ts';

/** Something that can be asked to end when its work is done. */
export interface Drainable {
  drain(): void;
}

/** Over so long connections are asked to go, each at a time of its own: clients that all came back at once would fall on one endpoint each. */
const SPREAD_MS = 3000;

/** Asks parts of a set of connections to go. */
export class Shedder<T extends Drainable> {
  readonly #open: () => Iterable<T>;
  readonly #clock: Clock;
  readonly #random: () => number;
  /** Asked, or about to be: they are gone already as far as the next part is concerned. */
  readonly #asked = new WeakSet<T>();

  constructor(open: () => Iterable<T>, { clock, random }: { readonly clock: Clock; readonly random: () => number }) {
    this.#open = open;
    this.#clock = clock;
    this.#random = random;
  }

  /** @param part of those that stay so far, 0 to 1 @returns how many are asked */
  shed(part: number): number {
    const staying = [...this.#open()].filter((connection) => !this.#asked.has(connection));
    // Rounded by chance: of one connection in each of many workers the part must go as well, and no more.
    const count = Math.min(staying.length, Math.floor(staying.length * part + this.#random()));
    for (let i = 0; i < count; i++) {
      const at = i + Math.floor(this.#random() * (staying.length - i));
      const [one, other] = [staying[at], staying[i]];
      if (!one || !other) break;
      staying[at] = other;
      this.#asked.add(one);
      this.#clock.after(this.#random() * SPREAD_MS, () => one.drain());
    }
    return count;
  }
}

/** Remembers which replicas there were. */
export class Replicas {
  #known: Set<string> | undefined;

  /**
   * @param ready of the waypoint's own service; undefined where that is not known
   * @param exists whether a replica that is not ready is still there
   * @returns the part of the connections that belongs to replicas that are new; 0 where there are none
   */
  update(self: Workload, ready: readonly Workload[] | undefined, exists: (uid: string) => boolean): number {
    if (!ready || ready.length === 0) return 0;
    const known = this.#known;
    const now = ready.map(({ uid }) => uid);
    // One that was not ready for a while kept its connections; and what we have ourselves came to us when we were new.
    const fresh = known ? now.filter((uid) => !known.has(uid) && uid !== self.uid) : [];
    this.#known = new Set([...now, ...[...(known ?? [])].filter(exists)]);
    return fresh.length / now.length;
  }
}

/** The ready replicas of the waypoint that this is one of. @returns undefined where the mesh does not know its service */
export function replicasOf(view: MeshView, self: Workload, { namespace, host }: OwnName): readonly Workload[] | undefined {
  const prefix = `${namespace}/${host}`;
  const key = [...self.services.keys()].find((name) => name === prefix || name.startsWith(`${prefix}.`));
  const service = key === undefined ? undefined : view.serviceByKey(namespace, key.slice(namespace.length + 1));
  return service && serviceKey(service) === key ? view.endpoints(service).map(({ workload }) => workload) : undefined;
}

interface OwnName {
  readonly namespace: string;
  /** Of its Service, without the cluster's domain: `waypoint.shop.svc`. */
  readonly host: string;
}
