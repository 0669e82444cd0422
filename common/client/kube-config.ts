/**
 * Where the API server is and what to show it: a pod's service account, or a kubeconfig file. Plain credentials (certificate, token, basic)
 * are read here; users that need a program or a provider to log in, and clusters behind a proxy, go through @kubernetes/client-node, which is
 * loaded at the first request that needs it: importing it costs 0.7 s and 75 MB, and neither a pod nor the playground needs it.
 */
import { readFileSync } from 'node:fs';
import type { RequestOptions } from 'node:https';
import { isIPv6 } from 'node:net';
import { dirname, join, resolve } from 'node:path';
import { load as loadYaml } from 'js-yaml';

/** How requests reach and convince one API server. */
export interface KubeCredentials {
  /** `https://host:port`, without a slash at the end; may have a path. */
  readonly server: string;
  /** What the context, or the pod's service account, says is meant where nobody names a namespace; absent where it says nothing. */
  readonly namespace?: string;
  /** TLS material; constant, so that connections can be kept. `headers` and `agent` may come back from `apply` too. */
  readonly tls: Pick<RequestOptions, 'ca' | 'cert' | 'key' | 'rejectUnauthorized' | 'servername'>;
  /** What this request adds: the token is read anew each time, since kubelet replaces it. @throws Error naming the file or program that failed */
  apply(): Promise<RequestOptions>;
}

export interface KubeConfigOptions {
  /** Path of a kubeconfig file; wins over everything else. */
  readonly kubeconfig?: string;
  /** A context of that file; its current one where absent. */
  readonly context?: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Where the service account is mounted; the kubelet's place where absent. */
  readonly serviceAccountDir?: string;
}

/**
 * Given file, else $KUBECONFIG, else the pod's service account, else ~/.kube/config.
 * @throws Error saying which file, context, cluster or user is missing or unreadable
 */
export function loadKubeCredentials(options: KubeConfigOptions): KubeCredentials {
  const { env } = options;
  const files = options.kubeconfig ?? env.KUBECONFIG;
  if (files) return fromFiles(files.split(':').filter(Boolean), options.context);
  if (env.KUBERNETES_SERVICE_HOST && env.KUBERNETES_SERVICE_PORT) return inCluster(options);
  if (env.HOME) return fromFiles([join(env.HOME, '.kube', 'config')], options.context);
  throw new Error('no Kubernetes configuration: give --kubeconfig, set KUBECONFIG, or run in a pod');
}

const SERVICE_ACCOUNT_DIR = '/var/run/secrets/kubernetes.io/serviceaccount';

function inCluster({ env, serviceAccountDir = SERVICE_ACCOUNT_DIR }: KubeConfigOptions): KubeCredentials {
  const host = env.KUBERNETES_SERVICE_HOST ?? '';
  const tokenFile = join(serviceAccountDir, 'token');
  return {
    server: `https://${isIPv6(host) ? `[${host}]` : host}:${env.KUBERNETES_SERVICE_PORT}`,
    ...namespaceIn(serviceAccountDir),
    tls: { ca: readFileSync(join(serviceAccountDir, 'ca.crt')) },
    apply: async () => bearer(readFileSync(tokenFile, 'utf8')),
  };
}

/** The kubelet writes it beside the token; without it there is no default, and that is no failure. */
function namespaceIn(serviceAccountDir: string): { namespace?: string } {
  try {
    return { namespace: readFileSync(join(serviceAccountDir, 'namespace'), 'utf8').trim() };
  } catch {
    return {};
  }
}

const bearer = (token: string): RequestOptions => ({ headers: { authorization: `Bearer ${token.trim()}` } });

interface Named<T> {
  readonly name: string;
  readonly value: T;
}
type Fields = Readonly<Record<string, unknown>>;

interface KubeconfigFile {
  readonly path: string;
  readonly currentContext: string | undefined;
  readonly contexts: readonly Named<Fields>[];
  readonly clusters: readonly Named<Fields>[];
  readonly users: readonly Named<Fields>[];
}

/** Of contexts, in an error. */
const MOST_NAMED = 10;

// Several files are merged as kubectl does: the first that names a thing wins.
function fromFiles(paths: readonly string[], wanted: string | undefined): KubeCredentials {
  const files = paths.map(readKubeconfig);
  const where = paths.join(':');
  const contextName = wanted ?? files.find((file) => file.currentContext)?.currentContext;
  if (!contextName) throw new Error(`${where}: no current-context; give --context`);
  const context = find(files, 'contexts', contextName)?.value;
  if (!context) {
    const known = files.flatMap(({ contexts }) => contexts.map(({ name }) => name));
    throw new Error(`${where}: no context "${contextName}"${known.length > 0 ? `, but ${known.slice(0, MOST_NAMED).join(', ')}` : ''}`);
  }
  const clusterName = String(context.cluster);
  const cluster = find(files, 'clusters', clusterName);
  const server = cluster && string(cluster.value, 'server');
  if (!cluster || !server) throw new Error(`${where}: context "${contextName}" names cluster "${clusterName}", which has no server`);
  const user = find(files, 'users', String(context.user));
  const namespace = string(context, 'namespace');
  if (user?.value.exec || user?.value['auth-provider'] || cluster.value['proxy-url'])
    return { ...throughClientNode(paths, contextName, server), ...(namespace && { namespace }) };
  const token = user && (string(user.value, 'tokenFile') ?? string(user.value, 'token'));
  const tokenFile = user && string(user.value, 'tokenFile') && resolve(dirname(user.path), token ?? '');
  const username = user && string(user.value, 'username');
  const password = (user && string(user.value, 'password')) ?? '';
  const servername = string(cluster.value, 'tls-server-name');
  const ca = pem(cluster, 'certificate-authority');
  const cert = user && pem(user, 'client-certificate');
  const key = user && pem(user, 'client-key');
  return {
    server: server.replace(/\/+$/, ''),
    ...(namespace && { namespace }),
    tls: {
      ...(ca && { ca }),
      ...(cert && { cert }),
      ...(key && { key }),
      ...(servername && { servername }),
      ...(cluster.value['insecure-skip-tls-verify'] === true && { rejectUnauthorized: false }),
    },
    async apply() {
      if (tokenFile) return bearer(readFileSync(tokenFile, 'utf8'));
      if (token) return bearer(token);
      return username ? { auth: `${username}:${password}` } : {};
    },
  };
}

function throughClientNode(paths: readonly string[], context: string, server: string): KubeCredentials {
  const config = async () => {
    const { KubeConfig } = await import('@kubernetes/client-node');
    const merged = new KubeConfig();
    for (const [index, path] of paths.entries()) {
      const file = new KubeConfig();
      file.loadFromFile(path);
      if (index === 0) merged.loadFromFile(path);
      else merged.mergeConfig(file, true);
    }
    merged.setCurrentContext(context);
    return merged;
  };
  let loaded: ReturnType<typeof config> | undefined;
  return {
    server: server.replace(/\/+$/, ''),
    tls: {},
    async apply() {
      loaded ??= config();
      const options: RequestOptions = {};
      await (await loaded).applyToHTTPSOptions(options);
      return options;
    },
  };
}

function readKubeconfig(path: string): KubeconfigFile {
  let parsed: unknown;
  try {
    parsed = loadYaml(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new Error(`cannot read kubeconfig ${path}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  }
  if (typeof parsed !== 'object' || parsed === null) throw new Error(`${path} is no kubeconfig`);
  const file = parsed as Fields;
  return {
    path,
    currentContext: string(file, 'current-context'),
    contexts: named(file.contexts, 'context'),
    clusters: named(file.clusters, 'cluster'),
    users: named(file.users, 'user'),
  };
}

function named(entries: unknown, field: string): Named<Fields>[] {
  if (!Array.isArray(entries)) return [];
  return entries.flatMap((entry: Fields) => {
    const value = entry?.[field];
    return typeof entry?.name === 'string' && typeof value === 'object' && value !== null
      ? [{ name: entry.name, value: value as Fields }]
      : [];
  });
}

function find(files: readonly KubeconfigFile[], list: 'contexts' | 'clusters' | 'users', name: string) {
  for (const file of files) {
    const entry = file[list].find((candidate) => candidate.name === name);
    if (entry) return { path: file.path, value: entry.value };
  }
  return undefined;
}

const string = (fields: Fields, name: string): string | undefined => {
  const value = fields[name];
  return typeof value === 'string' && value !== '' ? value : undefined;
};

// kubectl's rule: the inline form wins over the file, and a file is relative to the kubeconfig.
function pem(entry: { path: string; value: Fields }, field: string): Buffer | undefined {
  const inline = string(entry.value, `${field}-data`);
  if (inline) return Buffer.from(inline, 'base64');
  const file = string(entry.value, field);
  return file ? readFileSync(resolve(dirname(entry.path), file)) : undefined;
}
