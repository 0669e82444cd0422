/**
 * The CNI step, as a node's container runtime does it: the first usable configuration in /etc/cni/net.d is a chain of plugins, and each is
 * run with the pod in its environment and the result of those before it. The first in our chain is the playground itself, which has made the
 * pod's network by then; what the mesh appends runs as the executable that it left on the node. Where the checkout has none (a machine
 * without Go), the node agent's socket is asked here, as the plugin would.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { http } from '../../common/base/node-http.ts';
import type { Addresses } from '../network/plan.ts';
import { podNetnsPath } from '../network/pod-network.ts';
import { CommandError, runCommand } from '../node/command.ts';
import type { ClusterNode } from '../node/node.ts';
import type { Pod } from '../objects.ts';

const CONFIG_FOLDER = '/etc/cni/net.d';
const PLUGIN_FOLDER = '/opt/cni/bin';
const MESH_TYPE = 'istio-cni';
// Longer than the plugin's own patience, whose reason is the one to read.
const TIMEOUT_MS = 45_000;
const SOCKET_NAME = 'pluginevent.sock';

export interface PluginConfig {
  readonly type: string;
  readonly [field: string]: unknown;
}

export interface NetworkConfig {
  readonly name: string;
  readonly cniVersion: string;
  readonly plugins: readonly PluginConfig[];
}

/** @throws {Error} with a plugin's answer: the pod must not start */
export async function addToMesh(node: ClusterNode, pod: Pod, addresses: Addresses): Promise<void> {
  if (pod.spec.hostNetwork) return;
  const network = nodeNetwork(node);
  for (const plugin of network?.plugins.slice(1) ?? []) {
    const { name = '', cniVersion = '' } = network ?? {};
    if (existsSync(node.path(join(PLUGIN_FOLDER, plugin.type)))) await runPlugin(node, pod, addresses, { ...plugin, name, cniVersion });
    else if (plugin.type === MESH_TYPE) await askAgent(node, pod, addresses, plugin);
    else throw new Error(`failed to find plugin "${plugin.type}" in path [${PLUGIN_FOLDER}]`);
  }
}

/** The first configuration that can be used; undefined where there is none. */
export function nodeNetwork(node: Pick<ClusterNode, 'path'>): NetworkConfig | undefined {
  const folder = node.path(CONFIG_FOLDER);
  for (const file of readdirSync(folder).sort()) {
    if (!/\.(conf|conflist|json)$/.test(file)) continue;
    const found = networkOf(parse(readFileSync(join(folder, file), 'utf8')));
    if (found) return found;
  }
  return undefined;
}

function networkOf(config: unknown): NetworkConfig | undefined {
  if (typeof config !== 'object' || config === null) return undefined;
  const { name, cniVersion, plugins } = config as { name?: unknown; cniVersion?: unknown; plugins?: unknown };
  if (typeof name !== 'string' || !Array.isArray(plugins) || plugins.length === 0 || !plugins.every(isPlugin)) return undefined;
  return { name, cniVersion: typeof cniVersion === 'string' ? cniVersion : '0.1.0', plugins };
}

const isPlugin = (value: unknown): value is PluginConfig =>
  typeof value === 'object' && value !== null && 'type' in value && typeof value.type === 'string';

async function runPlugin(node: ClusterNode, pod: Pod, addresses: Addresses, config: PluginConfig): Promise<void> {
  const { uid = '', name = '', namespace = '' } = pod.metadata;
  const environment = {
    CNI_COMMAND: 'ADD',
    CNI_CONTAINERID: uid,
    CNI_NETNS: podNetnsPath(uid),
    CNI_IFNAME: 'eth0',
    CNI_ARGS: `IgnoreUnknown=1;K8S_POD_NAMESPACE=${namespace};K8S_POD_NAME=${name};K8S_POD_UID=${uid}`,
    CNI_PATH: PLUGIN_FOLDER,
  };
  const ips = ipsOf(addresses).map((ip) => ({ address: `${ip}/${ip.includes(':') ? 128 : 32}` }));
  const prevResult = { cniVersion: config.cniVersion, interfaces: [{ name: 'eth0', sandbox: environment.CNI_NETNS }], ips };
  const assignments = Object.entries(environment).map(([key, value]) => `${key}=${value}`);
  try {
    await runCommand([...node.enter, 'env', '-i', ...assignments, join(PLUGIN_FOLDER, config.type)], {
      input: JSON.stringify({ ...config, prevResult }),
      timeoutMs: TIMEOUT_MS,
    });
  } catch (error) {
    throw new Error(`plugin type=${JSON.stringify(config.type)} failed (add): ${reasonOf(error)}`);
  }
}

/** A plugin says on standard output what is wrong, as JSON. */
function reasonOf(error: unknown): string {
  if (!(error instanceof CommandError)) return String(error);
  const said = parse(error.stdout);
  if (typeof said !== 'object' || said === null || !('msg' in said)) return error.message;
  return 'details' in said ? `${said.msg}; ${said.details}` : String(said.msg);
}

const ipsOf = ({ v4, v6 }: Addresses): string[] => (v6 ? [v4, v6] : [v4]);

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // Half-written, or somebody else's.
    return undefined;
  }
}

async function askAgent(node: ClusterNode, pod: Pod, addresses: Addresses, plugin: PluginConfig): Promise<void> {
  const { uid = '', name = '', namespace = '' } = pod.metadata;
  const { exclude_namespaces: excluded, cni_agent_run_dir: folder = '/var/run/istio-cni' } = plugin;
  if (Array.isArray(excluded) && excluded.includes(namespace)) return;
  const IPs = ipsOf(addresses).map((ip) => ({
    // Go's net.IPNet as JSON: the mask is bytes in base64.
    Address: { IP: ip, Mask: Buffer.alloc(ip.includes(':') ? 16 : 4, 0xff).toString('base64') },
  }));
  const body = JSON.stringify({ Netns: podNetnsPath(uid), PodName: name, PodNamespace: namespace, IPs });
  await post(node, join(String(folder), SOCKET_NAME), body);
}

function post(node: ClusterNode, socket: string, body: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const request = http.request(
      {
        socketPath: node.path(socket),
        path: '/cmdadd',
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
    request.on('error', (error) => reject(new Error(`node agent at ${socket}: ${error.message}`)));
    request.end(body);
  });
}
