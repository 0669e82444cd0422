/** The node agent's metrics, under Istio's names. */

import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client';
import type { InstallResult } from './plugin/installation.ts';

export interface CniMetrics {
  readonly registry: Registry;
  /** By the answer's HTTP status. */
  pluginRequest(status: number): void;
  ztunnelConnected(count: number): void;
  reconcileEvent(type: 'add' | 'update' | 'delete'): void;
  installed(result: InstallResult): void;
  /** Connections that were open before their pod joined were cut. */
  cut(count: number, code: string, reason: string): void;
  /** A pod's rules, which somebody had changed, were put right. */
  mended(): void;
}

/** Asked for at each scrape. */
export interface CniCounts {
  readonly enrolled: () => number;
  readonly outside: () => number;
}

export function cniMetrics({ enrolled, outside }: CniCounts): CniMetrics {
  const registry = new Registry();
  const registers = [registry];
  collectDefaultMetrics({ register: registry });
  const requests = new Counter({
    name: 'istio_cni_plugin_requests_total',
    help: 'Requests of the CNI plugin, by the HTTP status of the answer.',
    labelNames: ['code'] as const,
    registers,
  });
  const connected = new Gauge({ name: 'ztunnel_connected', help: 'Number of ztunnels connected to this agent.', registers });
  const events = new Counter({
    name: 'nodeagent_reconcile_events_total',
    help: 'Changes of pods and namespaces that were looked at.',
    labelNames: ['type'] as const,
    registers,
  });
  const installs = new Counter({
    name: 'istio_cni_installs_total',
    help: 'Outcomes of installing the CNI plugin on the node, one for each change.',
    labelNames: ['result'] as const,
    registers,
  });
  const ready = new Gauge({ name: 'istio_cni_install_ready', help: 'Whether the CNI plugin is installed.', registers });
  new Gauge({
    name: 'warren_cni_enrolled_pods',
    help: 'Pods of this node that are in the mesh.',
    registers,
    collect() {
      this.set(enrolled());
    },
  });
  new Gauge({
    name: 'warren_cni_connections_outside',
    help: 'Connections that were open before their pod joined the mesh and are not in it yet.',
    registers,
    collect() {
      this.set(outside());
    },
  });
  const cut = new Counter({
    name: 'warren_cni_connections_cut_total',
    help: 'Connections that were open before their pod joined the mesh and were cut; reason is strict, policy or annotation.',
    labelNames: ['code', 'reason'] as const,
    registers,
  });
  const mended = new Counter({
    name: 'warren_cni_rules_mended_total',
    help: 'Times that redirection rules which somebody else had changed or removed were put right.',
    registers,
  });
  return {
    registry,
    cut: (count, code, reason) => cut.inc({ code, reason }, count),
    mended: () => mended.inc(),
    pluginRequest: (status) => requests.inc({ code: String(status) }),
    ztunnelConnected: (count) => connected.set(count),
    reconcileEvent: (type) => events.inc({ type }),
    installed(result) {
      installs.inc({ result });
      ready.set(result === 'SUCCESS' ? 1 : 0);
    },
  };
}
