/**
 * The playground's API server on loopback and a client of it, without nodes: real server-side apply, conflicts, garbage collection. The test
 * plays the rest of the cluster: workloads become ready when it says so. A small server in between sees every request and may refuse it.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { Agent, request as forward } from 'node:https';
import type { AddressInfo } from 'node:net';
import yaml from 'js-yaml';
import { type Clock, systemClock } from '../../common/base/clock.ts';
import { silentLog } from '../../common/base/log.ts';
import { KubeApi } from '../../common/client/kube-api.ts';
import { ApiServer } from '../../playground/apiserver/apiserver.ts';
import { objectOf } from '../../playground/apiserver/json.ts';
import type { KubeObject } from '../../playground/apiserver/object.ts';
import type { Store } from '../../playground/apiserver/store/store.ts';

export interface SeenRequest {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly authorization: string;
  readonly body: unknown;
}

/** An answer instead of the server's. */
export type Refusal = { readonly status: number; readonly body: unknown } | undefined;

export interface ClusterApi {
  readonly server: ApiServer;
  readonly store: Store;
  /** An administrator's client, through the server in between. */
  readonly api: KubeApi;
  /** `http://localhost:PORT`, of the server in between. */
  readonly url: string;
  readonly requests: SeenRequest[];
  /** Asked for every request. */
  refuse: (request: SeenRequest) => Refusal;
}

type After = { after(run: () => Promise<void> | void): void };

export async function startClusterApi(t: After): Promise<ClusterApi> {
  const server = new ApiServer({ clock: systemClock, log: silentLog, kubelets: () => undefined });
  const { port } = await server.listen({});
  const kubeconfig = yaml.load(server.kubeconfig(`https://localhost:${port}`)) as { users: { user: { token: string } }[] };
  const token = kubeconfig.users[0]?.user.token ?? '';
  const requests: SeenRequest[] = [];
  const between: Server = createServer((request, response) => {
    void pass(request, response, (seen) => {
      requests.push(seen);
      return cluster.refuse(seen);
    });
  });
  // A handshake for each request would be most of a test's time.
  const agent = new Agent({ ca: server.caPem, keepAlive: true });
  const pass = passOn(port, agent);
  await new Promise<void>((resolve) => between.listen(0, '127.0.0.1', resolve));
  const url = `http://localhost:${(between.address() as AddressInfo).port}`;
  const api = new KubeApi({ server: url, tls: {}, apply: async () => ({ headers: { authorization: `Bearer ${token}` } }) });
  t.after(async () => {
    api.close();
    agent.destroy();
    between.close();
    between.closeAllConnections();
    await server.close();
  });
  const cluster: ClusterApi = { server, store: server.store, api, url, requests, refuse: () => undefined };
  return cluster;
}

/** From now on Deployments and DaemonSets are ready as soon as they are written. */
export function workloadsComeUp(store: Store): void {
  store.observe((type, { type: change, object }) => {
    if (change === 'DELETED' || (type.kind !== 'Deployment' && type.kind !== 'DaemonSet')) return;
    if (objectOf(object.status).observedGeneration === object.metadata.generation) return;
    setImmediate(() => markReady(store, object));
  });
}

function markReady(store: Store, { kind, metadata, spec }: KubeObject): void {
  const count = kind === 'Deployment' ? Number(objectOf(spec).replicas ?? 1) : 2;
  const status =
    kind === 'Deployment'
      ? { replicas: count, updatedReplicas: count, availableReplicas: count, readyReplicas: count }
      : {
          desiredNumberScheduled: count,
          currentNumberScheduled: count,
          numberMisscheduled: 0,
          updatedNumberScheduled: count,
          numberAvailable: count,
          numberReady: count,
        };
  const body = { status: { ...status, observedGeneration: metadata.generation } };
  if (!store.get(kind, metadata.name, metadata.namespace)) return;
  store.patch(kind, metadata.name, metadata.namespace ?? '', { type: 'merge', body }, { subresource: 'status' });
}

/** Everything that is there, as `Kind/namespace/name resourceVersion`; without versions what two states of a cluster have in common. */
export function everything(store: Store, versions = true): string[] {
  return [...store.registry.types]
    .filter(({ virtual }) => !virtual)
    .flatMap((type) => [...store.collection(type).values()])
    .map(
      ({ kind, metadata: { namespace, name, resourceVersion } }) =>
        `${[kind, namespace, name].filter(Boolean).join('/')}${versions ? ` ${resourceVersion}` : ''}`,
    )
    .sort();
}

/** Time goes by as soon as somebody waits for it. */
export function hastyClock(): Clock {
  let passed = 0;
  return {
    now: () => Date.now() + passed,
    monotonic: () => passed,
    after(ms, run) {
      const handle = setImmediate(() => {
        passed += ms;
        run();
      });
      return { cancel: () => clearImmediate(handle) };
    },
  };
}

function passOn(port: number, agent: Agent) {
  return async (request: IncomingMessage, response: ServerResponse, look: (seen: SeenRequest) => Refusal): Promise<void> => {
    const chunks: Buffer[] = [];
    for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk);
    const content = Buffer.concat(chunks);
    const url = new URL(request.url ?? '/', 'http://localhost');
    const refusal = look({
      method: request.method ?? 'GET',
      path: url.pathname,
      query: url.searchParams,
      authorization: request.headers.authorization ?? '',
      body: content.length > 0 ? JSON.parse(content.toString('utf8')) : undefined,
    });
    if (refusal) {
      response.writeHead(refusal.status, { 'content-type': 'application/json' });
      response.end(JSON.stringify(refusal.body));
      return;
    }
    const { method = 'GET', headers } = request;
    const outgoing = forward(`https://localhost:${port}${request.url}`, { method, headers, agent }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(response);
      answer.on('error', () => response.destroy());
    });
    outgoing.on('error', () => response.destroy());
    response.on('close', () => outgoing.destroy());
    outgoing.end(content);
  };
}
