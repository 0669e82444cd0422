/** The node agent's metrics, under Istio's names. */
import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client';

export interface CniMetrics {
  readonly registry: Registry;
  /** By the answer's HTTP status. */
  pluginRequest(status: number): void;
  ztunnelConnected(count: number): void;
  reconcileEvent(type: 'add' | 'update' | 'delete'): void;
  installed(): void;
}

/** @param enrolled asked for at each scrape */
export function cniMetrics(enrolled: () => number): CniMetrics {
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
    help: 'Times that the CNI configuration was installed.',
    labelNames: ['result'] as const,
    registers,
  });
  const ready = new Gauge({ name: 'istio_cni_install_ready', help: 'Whether the CNI configuration is installed.', registers });
  new Gauge({
    name: 'warren_cni_enrolled_pods',
    help: 'Pods of this node that are in the mesh.',
    registers,
    collect() {
      this.set(enrolled());
    },
  });
  return {
    registry,
    pluginRequest: (status) => requests.inc({ code: String(status) }),
    ztunnelConnected: (count) => connected.set(count),
    reconcileEvent: (type) => events.inc({ type }),
    installed() {
      installs.inc({ result: 'SUCCESS' });
      ready.set(1);
    },
  };
}
