/** `pods/NAME/proxy` and `services/NAME/proxy`: an HTTP request handed on to a port of a pod. */
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { http } from '../../../common/base/node-http.ts';
import { ApiError } from '../api-error.ts';
import { arrayOf, at, objectOf, stringOf } from '../json.ts';
import type { KubeObject } from '../object.ts';
import type { Store } from '../store/store.ts';
import { type Kubelets, type PodTarget, podTarget } from '../streams/pod-target.ts';
import type { Exchange } from './exchange.ts';
import type { ResourcePath } from './path.ts';

// Hop by hop, or ours: the credentials for this API are none of the pod's business.
const DROPPED = new Set([
  'authorization',
  'connection',
  'host',
  'keep-alive',
  'proxy-authorization',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]);
const TIMEOUT_MS = 30_000;

export async function servePodProxy(exchange: Exchange, path: ResourcePath, store: Store, kubelets: Kubelets): Promise<void> {
  const { name, port } = splitName(path.name);
  const target = podTarget(store, kubelets, path.namespace, name);
  const first = at(arrayOf(at(target.object, 'spec', 'containers'))[0], 'ports');
  const number = port === '' ? Number(at(arrayOf(first)[0], 'containerPort') ?? 80) : podPort(target.object, port);
  await handOn(exchange, path, target, number);
}

export async function serveServiceProxy(exchange: Exchange, path: ResourcePath, store: Store, kubelets: Kubelets): Promise<void> {
  const { name, port } = splitName(path.name);
  const { target, port: number } = serviceTarget(store, kubelets, path.namespace, name, port);
  await handOn(exchange, path, target, number);
}

/** A connection to a ready pod of a service. @param port number, name, or '' for the only one */
export async function connectService(store: Store, kubelets: Kubelets, namespace: string, name: string, port: string): Promise<Duplex> {
  const { target, port: number } = serviceTarget(store, kubelets, namespace, name, port);
  return target.kubelet.portForward(target.pod, number);
}

function serviceTarget(
  store: Store,
  kubelets: Kubelets,
  namespace: string,
  name: string,
  port: string,
): { target: PodTarget; port: number } {
  const service = store.require(store.typeOf('Service'), namespace, name);
  const ports = arrayOf(at(service, 'spec', 'ports')).map(objectOf);
  const wanted = port === '' ? ports[0] : ports.find((each) => each.name === port || String(each.port) === port);
  if (!wanted) throw ApiError.badRequest(`service ${namespace}/${name} has no port ${port}`);
  for (const slice of store.list('EndpointSlice', { namespace, labelSelector: `kubernetes.io/service-name=${name}` })) {
    const number = at(
      arrayOf(slice.ports).find((each) => stringOf(at(each, 'name')) === stringOf(wanted.name)),
      'port',
    );
    if (typeof number !== 'number') continue;
    for (const endpoint of arrayOf(slice.endpoints)) {
      const pod = stringOf(at(endpoint, 'targetRef', 'name'));
      if (at(endpoint, 'conditions', 'ready') === false || pod === '') continue;
      return { target: podTarget(store, kubelets, namespace, pod), port: number };
    }
  }
  throw new ApiError(503, 'ServiceUnavailable', `no endpoints available for service "${name}"`);
}

async function handOn(exchange: Exchange, path: ResourcePath, { pod, kubelet }: PodTarget, port: number): Promise<void> {
  const socket = await dial(() => kubelet.portForward(pod, port), pod.name, port);
  const headers = Object.fromEntries(Object.entries(exchange.request.headers).filter(([name]) => !DROPPED.has(name)));
  const upstream = http.request({
    createConnection: () => socket,
    method: exchange.method,
    path: `${encodeURI(path.rest)}${exchange.url.search}`,
    headers: { ...headers, host: `${pod.name}:${port}`, connection: 'close' },
    timeout: TIMEOUT_MS,
  });
  upstream.once('timeout', () => upstream.destroy(new Error('the pod did not answer in time')));
  const answered = new Promise<IncomingMessage>((resolve, reject) => upstream.once('response', resolve).on('error', reject));
  exchange.response.once('close', () => socket.destroy());
  exchange.request.pipe(upstream);
  try {
    const answer = await answered;
    const kept = Object.entries(answer.headers).filter(([name]) => !DROPPED.has(name));
    exchange.response.writeHead(answer.statusCode ?? 502, Object.fromEntries(kept));
    await pipeline(answer, exchange.response);
  } catch (error) {
    if (exchange.response.headersSent) return;
    throw unreachable(pod.name, port, error);
  }
}

async function dial(connect: () => Promise<Duplex>, pod: string, port: number): Promise<Duplex> {
  try {
    const socket = await connect();
    socket.on('error', () => socket.destroy());
    return socket;
  } catch (error) {
    throw unreachable(pod, port, error);
  }
}

const unreachable = (pod: string, port: number, error: unknown): ApiError =>
  new ApiError(
    503,
    'ServiceUnavailable',
    `error trying to reach port ${port} of pod ${pod}: ${error instanceof Error ? error.message : String(error)}`,
  );

/** `[scheme:]name[:port]`; everything is spoken in plain HTTP. */
function splitName(text: string): { name: string; port: string } {
  const parts = text.split(':');
  if (parts[0] === 'https') throw ApiError.badRequest('the playground proxies plain HTTP only');
  if (parts[0] === 'http') parts.shift();
  return { name: parts[0] ?? '', port: parts[1] ?? '' };
}

function podPort(pod: KubeObject, port: string): number {
  if (/^\d+$/.test(port)) return Number(port);
  for (const container of arrayOf(at(pod, 'spec', 'containers'))) {
    const found = arrayOf(at(container, 'ports')).find((each) => at(each, 'name') === port);
    if (found) return Number(at(found, 'containerPort'));
  }
  throw ApiError.badRequest(`pod ${pod.metadata.name} has no port ${port}`);
}
