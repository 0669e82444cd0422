/**
 * A generated cluster behind the playground's API server, in a process of its own: `cluster-server.ts FOLDER SERVICES PODS NODES`. Writes a
 * kubeconfig into the folder; then changes pods at the rate that its parent asks for, and says when each was created.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { systemClock } from '../../common/base/clock.ts';
import { silentLog } from '../../common/base/log.ts';
import { ApiServer } from '../../playground/apiserver/apiserver.ts';

const [folder = '', services = '0', pods = '0', nodes = '0'] = process.argv.slice(2);
const NAMESPACES = 10;
const api = new ApiServer({ clock: systemClock, log: silentLog, kubelets: () => undefined });
const { store } = api;
let address = 0;
const podIp = (): string => `10.${64 + (++address >> 16)}.${(address >> 8) & 255}.${address & 255}`;

const namespaceOf = (n: number): string => `ns${n % NAMESPACES}`;
const v1 = (kind: string, metadata: object, more: object = {}) => ({ apiVersion: 'v1', kind, metadata, ...more });

/** Created, then made ready, as a kubelet would. */
function startPod(name: string, n: number): void {
  const created = store.create(
    v1(
      'Pod',
      {
        name,
        namespace: namespaceOf(n),
        labels: { app: `svc${n % Number(services)}` },
        annotations: { 'ambient.istio.io/redirection': 'enabled' },
      },
      {
        spec: {
          nodeName: `node${n % Number(nodes)}`,
          containers: [{ name: 'app', image: 'app', ports: [{ name: 'http', containerPort: 8080 }] }],
        },
      },
    ) as never,
  );
  process.send?.({ created: name, at: Number(process.hrtime.bigint()) / 1e6 });
  const ip = podIp();
  store.updateStatus({
    ...(structuredClone(created) as object),
    status: {
      phase: 'Running',
      podIP: ip,
      podIPs: [{ ip }],
      conditions: [{ type: 'Ready', status: 'True' }],
    },
  } as never);
}

function fill(): void {
  for (const name of ['istio-system', ...Array.from({ length: NAMESPACES }, (_, n) => namespaceOf(n))])
    store.create(v1('Namespace', { name }) as never);
  for (const name of ['istiod', 'ztunnel']) store.create(v1('ServiceAccount', { name, namespace: 'istio-system' }) as never);
  for (let n = 0; n < NAMESPACES; n++) {
    const present = store.get('ServiceAccount', 'default', namespaceOf(n));
    if (!present) store.create(v1('ServiceAccount', { name: 'default', namespace: namespaceOf(n) }) as never);
  }
  for (let n = 0; n < Number(nodes); n++)
    store.create(
      v1('Node', {
        name: `node${n}`,
        labels: { 'topology.kubernetes.io/region': 'r', 'topology.kubernetes.io/zone': `z${n % 3}` },
      }) as never,
    );
  for (let n = 0; n < Number(services); n++)
    store.create(
      v1(
        'Service',
        { name: `svc${n}`, namespace: namespaceOf(n) },
        { spec: { selector: { app: `svc${n}` }, ports: [{ name: 'http', port: 80, targetPort: 'http' }] } },
      ) as never,
    );
  for (let n = 0; n < Number(pods); n++) startPod(`pod${n}`, n);
}

/** Evenly spread, caught up with where the process was late. */
function change(perSecond: number, seconds: number, prefix: string): void {
  const started = performance.now();
  let done = 0;
  const step = (): void => {
    const due = Math.min(perSecond * seconds, Math.floor(((performance.now() - started) / 1000) * perSecond));
    for (; done < due; done++) startPod(`${prefix}-${done}`, done);
    if (done < perSecond * seconds) setTimeout(step, 1000 / perSecond / 2);
    else process.send?.({ changed: prefix });
  };
  step();
}

process.on('message', ({ perSecond, seconds, prefix }: { perSecond: number; seconds: number; prefix: string }) =>
  change(perSecond, seconds, prefix),
);
// The parent is gone, and with it the bench.
process.on('disconnect', () => process.exit(0));

fill();
const { port } = await api.listen({});
writeFileSync(join(folder, 'kubeconfig'), api.kubeconfig(`https://localhost:${port}`), { mode: 0o600 });
process.send?.({ token: api.issueToken({ namespace: 'istio-system', serviceAccount: 'ztunnel', audiences: ['istio-ca'] }) });
