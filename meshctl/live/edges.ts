/** Who talks to whom, by what proxies have counted: identities, and whether by mutual TLS, or why not. Pure. */
import type { ProxyDelta, Series } from './counters.ts';
import { destinationOf, sourceOf } from './figures.ts';

export interface Edge {
  readonly source: string;
  readonly destination: string;
  /** SPIFFE URIs; empty where nobody proved one. */
  readonly client: string;
  readonly server: string;
  readonly mtls: boolean;
  /** Empty where it is. */
  readonly why: string;
  readonly connections: number;
}

export function edges(counted: readonly ProxyDelta[], namespace?: string): Edge[] {
  const found = new Map<string, Edge & { reporter: string }>();
  for (const { series } of counted) {
    for (const { family, labels, value } of series) {
      if (family !== 'istio_tcp_connections_opened_total' && family !== 'istio_requests_total') continue;
      const mtls = labels.connection_security_policy === 'mutual_tls';
      const edge = {
        source: sourceOf(labels),
        destination: destinationOf(labels),
        client: mtls ? identityOf(labels.source_principal) : '',
        server: mtls ? identityOf(labels.destination_principal) : '',
        mtls,
        why: mtls ? '' : whyNot(labels),
        connections: value,
        reporter: labels.reporter ?? '',
      };
      if (namespace !== undefined && ![edge.source, edge.destination].some((end) => end.startsWith(`${namespace}/`))) continue;
      const key = [edge.source, edge.destination, edge.mtls].join(' ');
      const known = found.get(key);
      if (!known) found.set(key, edge);
      // Both ends count the same connections, and the caller's ztunnel knows which identity it asked for.
      else if (known.reporter === edge.reporter) found.set(key, { ...known, connections: known.connections + value });
      else if (edge.reporter === 'source') found.set(key, edge);
    }
  }
  return [...found.values()]
    .map(({ reporter: _, ...edge }) => ({ ...edge, connections: Math.round(edge.connections) }))
    .sort((a, b) => (a.source + a.destination < b.source + b.destination ? -1 : 1));
}

const identityOf = (principal: string | undefined): string => (principal?.startsWith('spiffe://') ? principal : '');

function whyNot({ reporter, source_workload: source, destination_workload: destination }: Series['labels']): string {
  const isKnown = (name: string | undefined): boolean => name !== undefined && name !== '' && name !== 'unknown';
  // The caller's ztunnel makes a tunnel to whoever can take one.
  if (reporter === 'source') return isKnown(destination) ? 'called pod not in the mesh' : 'leaves the mesh';
  return isKnown(source) ? 'caller not in the mesh' : 'from outside, or its node';
}
