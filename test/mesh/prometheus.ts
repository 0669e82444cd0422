/** A real Prometheus in the mesh's cluster finds the components by their pods' annotations, as the usual configuration does, and scrapes them; run by capture.test.ts. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import type { TestPlayground } from '../support/playground.ts';

const prometheus = ((): string | undefined => {
  try {
    return execFileSync('sh', ['-c', 'command -v prometheus'], { encoding: 'utf8' }).trim();
  } catch {
    // Not installed; scripts/test fetches it.
    return undefined;
  }
})();
export const withoutPrometheus: string | undefined =
  prometheus === undefined && !process.env.CI ? 'prometheus is not installed (scripts/test fetches it)' : undefined;

/** Debian's Prometheus has no discovery by Kubernetes, so the pods that ask to be scraped by their annotations are listed for it. */
const monitoring = (targets: readonly Target[]): string => `
apiVersion: v1
kind: Namespace
metadata: { name: monitoring }
---
apiVersion: v1
kind: ConfigMap
metadata: { name: prometheus, namespace: monitoring }
data:
  prometheus.yml: |
    global: { scrape_interval: 1s }
    scrape_configs:
      - job_name: pods
        static_configs: ${JSON.stringify(targets.map(({ address, app, pod }) => ({ targets: [address], labels: { app, pod } })))}
---
apiVersion: v1
kind: Pod
metadata: { name: prometheus, namespace: monitoring }
spec:
  containers:
    - name: prometheus
      image: host
      command: [${prometheus}, --config.file=/etc/prometheus/prometheus.yml, --storage.tsdb.path=/data, --web.listen-address=:9090]
      readinessProbe: { httpGet: { path: /-/ready, port: 9090 }, periodSeconds: 1 }
      volumeMounts:
        - { name: config, mountPath: /etc/prometheus }
        - { name: data, mountPath: /data }
  volumes:
    - { name: config, configMap: { name: prometheus } }
    - { name: data, emptyDir: {} }
`;

interface Target {
  readonly address: string;
  readonly app: string;
  readonly pod: string;
}

async function scrapeTargets(cluster: TestPlayground): Promise<Target[]> {
  interface Pod {
    readonly metadata: { readonly name: string; readonly labels?: Record<string, string>; readonly annotations?: Record<string, string> };
    readonly status: { readonly podIP: string };
  }
  const { items } = JSON.parse(await cluster.kubectl('get', 'pods', '-A', '-o', 'json')) as { items: Pod[] };
  return items
    .filter(({ metadata }) => metadata.annotations?.['prometheus.io/scrape'] === 'true')
    .map(({ metadata: { name, labels, annotations }, status }) => ({
      address: `${status.podIP}:${annotations?.['prometheus.io/port']}`,
      app: labels?.app ?? '',
      pod: name,
    }));
}

interface Series {
  readonly metric: Readonly<Record<string, string>>;
  readonly value: readonly [number, string];
}

async function query(cluster: TestPlayground, expression: string): Promise<readonly Series[]> {
  const path = `/api/v1/namespaces/monitoring/pods/prometheus:9090/proxy/api/v1/query?query=${encodeURIComponent(expression)}`;
  return (JSON.parse(await cluster.kubectl('get', '--raw', path)) as { data: { result: Series[] } }).data.result;
}

/** On a playground with a mesh of two nodes and so many pods, where `client` calls the Service `server` of the same namespace. */
export async function prometheusSees(cluster: TestPlayground, namespace: string, pods: number): Promise<void> {
  await cluster.apply(monitoring(await scrapeTargets(cluster)));
  await cluster.podsReady('monitoring');
  await cluster.client(namespace, 'client', 'http://server/');

  await cluster.eventually('not all components are up', async () => {
    const up = await query(cluster, 'up == 1');
    const apps = up.map(({ metric }) => metric.app).sort();
    return JSON.stringify(apps) === JSON.stringify(['istio-cni-node', 'istio-cni-node', 'istiod', 'istiod', 'ztunnel', 'ztunnel']);
  });
  await cluster.eventually('the call is not counted on both sides', async () => {
    const opened = await query(
      cluster,
      'sum by (reporter) (istio_tcp_connections_opened_total{source_workload="client",destination_service_name="server",connection_security_policy="mutual_tls"})',
    );
    return opened.length === 2 && opened.every(({ value }) => Number(value[1]) >= 1);
  });
  const [build] = await query(cluster, 'count by (component) (istio_build{component="ztunnel"})');
  assert.equal(build?.value[1], '2');
  assert.equal(
    (await query(cluster, 'workload_manager_active_proxy_count')).reduce((sum, { value }) => sum + Number(value[1]), 0),
    pods,
  );
  const sum = async (expression: string): Promise<number> => Number((await query(cluster, `sum(${expression})`))[0]?.value[1]);
  assert.equal(await sum('pilot_xds'), 2, 'the replicas of istiod count two connected proxies between them');
  assert.ok((await sum('citadel_server_success_cert_issuance_count')) >= 2);
}
