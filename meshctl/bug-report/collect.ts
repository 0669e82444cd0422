/**
 * Everything that a bundle holds, piece by piece, each under a limit of its own and all under one of size and time. A piece that cannot be had
 * is a line of the bundle's summary instead, so that a broken mesh can be reported too.
 */
import { errorMessage } from '../../common/base/errors.ts';
import { type KubeApi, KubeApiError, type KubeObject } from '../../common/client/kube-api.ts';
import { Istiod, idOf } from '../istiod.ts';
import { redactObject, redactText } from './redact.ts';
import type { TarFile } from './tar.ts';

export interface CollectOptions {
  readonly api: KubeApi;
  readonly systemNamespace: string;
  /** Of applications, besides: their pods and objects. */
  readonly namespaces: readonly string[] | undefined;
  /** Of each container. */
  readonly logLines: number;
  readonly maxBytes: number;
  /** The end of the time. */
  readonly signal: AbortSignal;
  progress(what: string): void;
}

export interface Collected {
  readonly files: readonly TarFile[];
  /** What is missing, and why. */
  readonly missing: readonly string[];
}

const MAX_LOG_BYTES = 4 << 20;
const AT_ONCE = 4;

/** Kinds that decide what the mesh does. Secrets are not among them. */
const CLUSTER_KINDS = [
  '/api/v1/nodes',
  '/api/v1/namespaces',
  '/apis/apiextensions.k8s.io/v1/customresourcedefinitions',
  '/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations',
  '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations',
];
const NAMESPACED_KINDS = [
  ['/api/v1', 'pods'],
  ['/api/v1', 'services'],
  ['/api/v1', 'events'],
  ['/api/v1', 'serviceaccounts'],
  ['/apis/apps/v1', 'deployments'],
  ['/apis/apps/v1', 'daemonsets'],
  ['/apis/discovery.k8s.io/v1', 'endpointslices'],
  ['/apis/networking.k8s.io/v1', 'networkpolicies'],
  ['/apis/gateway.networking.k8s.io/v1', 'gateways'],
  ['/apis/gateway.networking.k8s.io/v1', 'httproutes'],
  ['/apis/gateway.networking.k8s.io/v1', 'grpcroutes'],
  ['/apis/gateway.networking.k8s.io/v1alpha2', 'tcproutes'],
  ['/apis/gateway.networking.k8s.io/v1alpha2', 'tlsroutes'],
  ['/apis/security.istio.io/v1', 'authorizationpolicies'],
  ['/apis/security.istio.io/v1', 'peerauthentications'],
  ['/apis/security.istio.io/v1', 'requestauthentications'],
  ['/apis/networking.istio.io/v1', 'virtualservices'],
  ['/apis/networking.istio.io/v1', 'destinationrules'],
  ['/apis/networking.istio.io/v1', 'serviceentries'],
  ['/apis/networking.istio.io/v1', 'workloadentries'],
  ['/apis/telemetry.istio.io/v1', 'telemetries'],
  ['/apis/warren.dev/v1alpha1', 'ratelimitpolicies'],
] as const;
/** Of the mesh's own namespace only: what applications keep in theirs is none of ours. */
const SYSTEM_KINDS = [
  ['/api/v1', 'configmaps'],
  ['/apis/coordination.k8s.io/v1', 'leases'],
] as const;
const ISTIOD_PAGES = ['/version', '/debug/syncz', '/debug/proxies', '/debug/problems', '/debug/ambientz', '/debug/ca', '/debug/mesh'];

export async function collect(options: CollectOptions): Promise<Collected> {
  const { api, systemNamespace, namespaces, maxBytes, signal, progress } = options;
  const files: TarFile[] = [];
  const missing: string[] = [];
  let bytes = 0;
  const add = (name: string, text: string): void => {
    const content = Buffer.from(text);
    if (bytes + content.length > maxBytes) {
      missing.push(`${name}: the bundle has ${maxBytes} bytes already`);
      return;
    }
    bytes += content.length;
    files.push({ name, content });
  };
  const piece = async (name: string, make: () => Promise<string | undefined>): Promise<void> => {
    if (signal.aborted) {
      missing.push(`${name}: the time was over`);
      return;
    }
    try {
      const text = await Promise.race([make(), whenOver(signal)]);
      if (text !== undefined) add(name, text);
    } catch (error) {
      missing.push(`${name}: ${redactText(errorMessage(error))}`);
    }
  };
  const json = (value: unknown): string => `${JSON.stringify(redactObject(value), undefined, 1)}\n`;
  const objects = (path: string) => async (): Promise<string | undefined> => {
    try {
      const items = await api.list<KubeObject>(path);
      return items.length === 0 ? undefined : json(items);
    } catch (error) {
      // A kind that the cluster does not know is nothing to report.
      if (error instanceof KubeApiError && error.status === 404) return undefined;
      throw error;
    }
  };

  progress('objects');
  const work: (() => Promise<void>)[] = [
    () => piece('cluster/version.json', async () => json(await api.get('/version'))),
    ...CLUSTER_KINDS.map((path) => () => piece(`cluster/${path.slice(path.lastIndexOf('/') + 1)}.json`, objects(path))),
    ...SYSTEM_KINDS.map(
      ([group, kind]) =>
        () =>
          piece(`namespaces/${systemNamespace}/${kind}.json`, objects(`${group}/namespaces/${systemNamespace}/${kind}`)),
    ),
    ...NAMESPACED_KINDS.flatMap(([group, kind]) =>
      namespaces === undefined
        ? [() => piece(`namespaces/all/${kind}.json`, objects(`${group}/${kind}`))]
        : [...new Set([systemNamespace, ...namespaces])].map(
            (namespace) => () => piece(`namespaces/${namespace}/${kind}.json`, objects(`${group}/namespaces/${namespace}/${kind}`)),
          ),
    ),
  ];
  await inTurns(work);

  progress('logs');
  const pods = await listPods(options, missing);
  await inTurns(pods.flatMap((pod) => logPieces(options, pod, piece)));

  progress('state of the proxies');
  await piece('istiod.txt', async () => {
    const istiod = await Istiod.open(api, systemNamespace);
    try {
      await inTurns(
        istiod.pods.flatMap((pod) =>
          ISTIOD_PAGES.map(
            (page) => () =>
              piece(`istiod/${pod.metadata.name}/${page.slice(page.lastIndexOf('/') + 1)}.json`, async () =>
                json(await istiod.get(pod, page)),
              ),
          ),
        ),
      );
      const proxies = await istiod.proxies();
      await inTurns(
        proxies.map(
          (proxy) => () => piece(`proxies/${idOf(proxy)}/config_dump.json`, async () => json(await istiod.at(proxy, '/debug/proxy'))),
        ),
      );
      return `${istiod.pods.length} replicas, ${proxies.length} proxies report\n`;
    } finally {
      istiod.close();
    }
  });
  return { files, missing };
}

async function listPods({ api, systemNamespace }: CollectOptions, missing: string[]): Promise<KubeObject[]> {
  try {
    const all = await api.list<KubeObject>('/api/v1/pods');
    return all.filter(
      ({ metadata: { namespace, labels = {} } }) =>
        namespace === systemNamespace || labels['gateway.networking.k8s.io/gateway-name'] !== undefined,
    );
  } catch (error) {
    missing.push(`pods: ${errorMessage(error)}`);
    return [];
  }
}

type Piece = (name: string, make: () => Promise<string | undefined>) => Promise<void>;

/** Of the mesh's own pods: what an application logs is not ours to take. */
function logPieces({ api, logLines }: CollectOptions, { metadata, spec, status }: KubeObject, piece: Piece): (() => Promise<void>)[] {
  const containers = ((spec as { containers?: readonly { name: string }[] } | undefined)?.containers ?? []).map(({ name }) => name);
  const restarted = new Set(
    ((status as { containerStatuses?: readonly { name: string; restartCount: number }[] } | undefined)?.containerStatuses ?? [])
      .filter(({ restartCount }) => restartCount > 0)
      .map(({ name }) => name),
  );
  const path = `/api/v1/namespaces/${metadata.namespace}/pods/${metadata.name}/log`;
  const log = (container: string, previous: boolean) => async (): Promise<string> =>
    redactText(
      await api.getText(path, {
        container,
        tailLines: logLines,
        limitBytes: MAX_LOG_BYTES,
        timestamps: true,
        ...(previous && { previous }),
      }),
    );
  return containers.flatMap((container) => [
    () => piece(`logs/${metadata.namespace}/${metadata.name}/${container}.log`, log(container, false)),
    ...(restarted.has(container)
      ? [() => piece(`logs/${metadata.namespace}/${metadata.name}/${container}.previous.log`, log(container, true))]
      : []),
  ]);
}

async function inTurns(work: readonly (() => Promise<void>)[]): Promise<void> {
  let next = 0;
  const run = async (): Promise<void> => {
    for (let task = work[next++]; task; task = work[next++]) await task();
  };
  await Promise.all(Array.from({ length: AT_ONCE }, run));
}

const whenOver = (signal: AbortSignal): Promise<never> =>
  new Promise((_, reject) => signal.addEventListener('abort', () => reject(new Error('the time was over')), { once: true }));
