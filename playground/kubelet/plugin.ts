/**
 * The CNI step, as a real node's plugin would do it: a node whose /etc/cni/net.d names the mesh's plugin asks the node agent about every
 * new pod before its first container starts, and fails the pod's network when the agent does not agree.
 */
import { readdirSync, readFileSync } from 'node:fs';
import http from 'node:http';
import { join } from 'node:path';
import type { Addresses } from '../network/plan.ts';
import { podNetnsPath } from '../network/pod-network.ts';
import type { ClusterNode } from '../node/node.ts';
import type { Pod } from '../objects.ts';

const CONFIG_FOLDER = '/etc/cni/net.d';
const DEFAULT_SOCKET = '/var/run/istio-cni/pluginevent.sock';
const PLUGIN_TYPE = 'istio-cni';
const TIMEOUT_MS = 30_000;
const EXCLUDED_NAMESPACES: readonly string[] = ['kube-system'];

export interface Plugin {
  /** Path on the node. */
  readonly socket: string;
  readonly path: string;
  readonly excludeNamespaces: readonly string[];
}

/** @throws {Error} with the agent's answer: the pod must not start */
export async function addToMesh(node: ClusterNode, pod: Pod, addresses: Addresses): Promise<void> {
  const namespace = pod.metadata.namespace ?? '';
  if (pod.spec.hostNetwork) return;
  const plugin = meshPlugin(node);
  if (!plugin || plugin.excludeNamespaces.includes(namespace)) return;
  const ips = [addresses.v4, ...(addresses.v6 ? [addresses.v6] : [])].map((ip) => ({
    // Go's net.IPNet as JSON: the mask is bytes in base64.
    Address: { IP: ip, Mask: Buffer.alloc(ip.includes(':') ? 16 : 4, 0xff).toString('base64') },
  }));
  const body = JSON.stringify({
    Netns: podNetnsPath(pod.metadata.uid ?? ''),
    PodName: pod.metadata.name,
    PodNamespace: namespace,
    IPs: ips,
  });
  await post(node.path(plugin.socket), plugin.path, body);
}

/** Of the first configuration that has the mesh's plugin; undefined where none has: the mesh is not installed on this node. */
export function meshPlugin(node: Pick<ClusterNode, 'path'>): Plugin | undefined {
  const folder = node.path(CONFIG_FOLDER);
  for (const name of readdirSync(folder).sort()) {
    if (!/\.(conf|conflist|json)$/.test(name)) continue;
    const found = pluginOf(parse(readFileSync(join(folder, name), 'utf8')));
    if (found) return found;
  }
  return undefined;
}

function pluginOf(config: unknown): Plugin | undefined {
  if (typeof config !== 'object' || config === null) return undefined;
  if ('plugins' in config && Array.isArray(config.plugins)) {
    for (const plugin of config.plugins) {
      const found = pluginOf(plugin);
      if (found) return found;
    }
  }
  if (!('type' in config) || config.type !== PLUGIN_TYPE) return undefined;
  const { socket, path, excludeNamespaces } = config as { socket?: unknown; path?: unknown; excludeNamespaces?: unknown };
  return {
    socket: typeof socket === 'string' && socket.startsWith('/') ? socket : DEFAULT_SOCKET,
    path: typeof path === 'string' ? path : '/cmdadd',
    excludeNamespaces: Array.isArray(excludeNamespaces)
      ? excludeNamespaces.filter((name) => typeof name === 'string')
      : EXCLUDED_NAMESPACES,
  };
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // Half-written, or somebody else's: not the mesh's plugin.
    return undefined;
  }
}

function post(socketPath: string, path: string, body: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const request = http.request(
      {
        socketPath,
        path,
        method: 'POST',
        timeout: TIMEOUT_MS,
        headers: { host: 'istio-cni', 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) },
      },
      (response) => {
        let answer = '';
        response.setEncoding('utf8').on('data', (text: string) => {
          if (answer.length < 4096) answer += text;
        });
        response.on('end', () => {
          if (response.statusCode === 200) resolve();
          else reject(new Error(`node agent answered ${response.statusCode}: ${answer.trim()}`));
        });
      },
    );
    request.on('timeout', () => request.destroy(new Error(`node agent did not answer within ${TIMEOUT_MS / 1000} s`)));
    request.on('error', (error) => reject(new Error(`node agent at ${socketPath.replace(/^\/proc\/\d+\/root/, '')}: ${error.message}`)));
    request.end(body);
  });
}
