/**
 * Who owns a hostname (Istio, pilot/pkg/serviceregistry/ambient). Within a namespace one object does: a Service before any ServiceEntry, else the oldest.
 * Over all namespaces one of those owners is canonical, which decides for clients whose own namespace has none.
 */
import { Service_Visibility } from '../../common/codec/gen/workload.ts';
import type { MeshService } from './mesh-service.ts';

export interface HostnameOwners {
  readonly byNamespace: ReadonlyMap<string, MeshService>;
  readonly canonical: MeshService | undefined;
}

/** @param claims every service with one hostname */
export function hostnameOwners(claims: readonly MeshService[]): HostnameOwners {
  const byNamespace = new Map<string, MeshService>();
  for (const claim of claims) {
    const owner = byNamespace.get(claim.namespace);
    if (!owner || precedes(claim, owner)) byNamespace.set(claim.namespace, claim);
  }
  let canonical: MeshService | undefined;
  for (const owner of byNamespace.values()) {
    if (owner.visibility === Service_Visibility.NAMESPACE) continue;
    if (!canonical || precedes(owner, canonical)) canonical = owner;
  }
  return { byNamespace, canonical };
}

function precedes(a: MeshService, b: MeshService): boolean {
  if (a.source !== b.source) return a.source === 'Service';
  if (a.createdAt !== b.createdAt) return a.createdAt < b.createdAt;
  return a.key < b.key;
}
