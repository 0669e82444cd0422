/**
 * A generated cluster behind the playground's API server, in a process of its own: `cluster-server.ts FOLDER SERVICES PODS NODES`. Writes a
 * kubeconfig into the folder; then changes pods at the rate that its parent asks for, and says when each was created.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { systemClock } from '../../common/base/clock.ts';
import { silentLog } from '../../common/base/log.ts';
import { ApiServer } from '../../playground/apiserver/apiserver.ts';
import { type ClusterWriter, fill, obey } from './generated-cluster.ts';

const [folder = '', ...numbers] = process.argv.slice(2);
const [services = 0, pods = 0, nodes = 0] = numbers.map(Number);
const sizes = { services, pods, nodes };
const api = new ApiServer({ clock: systemClock, log: silentLog, kubelets: () => undefined });
const { store } = api;

const writer: ClusterWriter = {
  create(object) {
    const { kind, metadata } = object as { kind: string; metadata: { name: string; namespace?: string } };
    // The server makes service accounts of its own.
    if (kind === 'ServiceAccount' && store.get(kind, metadata.name, metadata.namespace ?? '')) return;
    store.create(object as never);
  },
  startPod(pod, status, created) {
    const made = store.create(pod as never);
    created(Number(process.hrtime.bigint()) / 1e6);
    store.updateStatus({ ...(structuredClone(made) as object), status } as never);
  },
  removePod(namespace, name) {
    store.delete('Pod', name, namespace, { gracePeriodSeconds: 0 });
  },
};

obey(writer, sizes);
// The parent is gone, and with it the bench.
process.on('disconnect', () => process.exit(0));

await fill(writer, sizes);
const { port } = await api.listen({});
writeFileSync(join(folder, 'kubeconfig'), api.kubeconfig(`https://localhost:${port}`), { mode: 0o600 });
process.send?.({ token: api.issueToken({ namespace: 'istio-system', serviceAccount: 'ztunnel', audiences: ['istio-ca'] }) });
