/** The outputs that must be made anew, named by their source, `Kind/namespace/name`. */
import type { MeshService } from './mesh-service.ts';

export class Stale {
  readonly workloads = new Set<string>();
  /** Sources of services, for their binding and status. */
  readonly services = new Set<string>();
  /** Hostnames, each with the namespaces in which somebody claimed it or no longer does. */
  readonly hostnames = new Map<string, Set<string>>();
  /** Services, `namespace/hostname`, whose traffic settings may be others now, or others' at whose waypoints. */
  readonly traffic = new Set<string>();
  /** Sources of workloads whose labels some waypoint may have to be told. */
  readonly labels = new Set<string>();

  hostname({ hostname, namespace }: MeshService): void {
    const namespaces = this.hostnames.get(hostname);
    if (namespaces) namespaces.add(namespace);
    else this.hostnames.set(hostname, new Set([namespace]));
  }
}
