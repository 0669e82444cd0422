/**
 * The same generated cluster behind a server that only lists and watches, for sizes that the playground's does not take: `plain-server.ts FOLDER
 * SERVICES PODS NODES`. Nothing is validated, so that 100,000 pods are there in a second.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { kubeconfig } from '../../test/cluster/credentials.ts';
import { FakeKubeApi, type Manifest } from '../../test/support/fake-kube-api.ts';
import { type ClusterWriter, fill, obey } from './generated-cluster.ts';

const [folder = '', ...numbers] = process.argv.slice(2);
const [services = 0, pods = 0, nodes = 0] = numbers.map(Number);
const sizes = { services, pods, nodes };
const TOKEN = 'bench';
const api = await FakeKubeApi.start({ after: () => undefined });
api.tokens.set(TOKEN, { username: 'system:serviceaccount:istio-system:ztunnel' });

const collectionOf = (object: object): string => `/api/v1/${(object as { kind: string }).kind.toLowerCase()}s`;

const writer: ClusterWriter = {
  create: (object) => void api.put(collectionOf(object), object as Manifest),
  startPod(pod, status, created) {
    const made = api.put('/api/v1/pods', pod as Manifest);
    created(Number(process.hrtime.bigint()) / 1e6);
    api.put('/api/v1/pods', { ...made, status });
  },
  removePod: (namespace, name) => void api.remove('/api/v1/pods', `${namespace}/${name}`),
};

obey(writer, sizes);
// The parent is gone, and with it the bench.
process.on('disconnect', () => process.exit(0));

await fill(writer, sizes);
writeFileSync(join(folder, 'kubeconfig'), kubeconfig(api.url, api.ca, 'admin'), { mode: 0o600 });
process.send?.({ token: TOKEN });
