/**
 * A node's CNI configuration as text: the plugin put at the end of the chain, and taken out again (Istio, cni/pkg/install). Pure. What others
 * wrote stays as it is in meaning; keys are sorted and indented by two, as Istio's installer writes them, so that either agent leaves the
 * other's file alone.
 */
import { isDeepStrictEqual } from 'node:util';
import type { EnablementSelector } from '../enrol/decision.ts';

const PLUGIN_TYPE = 'istio-cni';

/** What the plugin is told: Istio's field names and order. */
export interface PluginOptions {
  readonly logLevel: string;
  /** Folder of the agent's socket, as the node sees it. */
  readonly agentRunDir: string;
  readonly ambientEnabled: boolean;
  readonly selectors: readonly EnablementSelector[];
  /** Namespaces that the plugin does not ask about. */
  readonly excludeNamespaces: readonly string[] | undefined;
  /** The mesh's own namespace. */
  readonly podNamespace: string;
  readonly nativeNftables: boolean;
  readonly detectionRetry: boolean;
}

type JsonObject = Readonly<Record<string, unknown>>;

/** A configuration that no runtime would take, or that we cannot chain to; the message says what is wrong with it. */
export class ConflistError extends Error {}

// The version and name that a single plugin's configuration gets when it becomes a list.
const LIST_VERSION = '0.3.1';
const LIST_NAME = 'k8s-pod-network';

/** The plugin's entry in a list. */
function pluginEntry(options: PluginOptions): JsonObject {
  return {
    name: PLUGIN_TYPE,
    type: PLUGIN_TYPE,
    ipam: {},
    dns: {},
    plugin_log_level: options.logLevel,
    cni_agent_run_dir: options.agentRunDir,
    ambient_enabled: options.ambientEnabled,
    enablement_selectors: options.selectors,
    exclude_namespaces: options.excludeNamespaces ?? null,
    pod_namespace: options.podNamespace,
    native_nftables: options.nativeNftables,
    enable_ambient_detection_retry: options.detectionRetry,
  };
}

/** The plugin as a configuration of its own, for a runtime that does the chaining (Multus). */
export const standalone = (options: PluginOptions): string => print({ cniVersion: LIST_VERSION, ...pluginEntry(options) });

/** @returns the list with the plugin last, whatever was there of it before. @throws {ConflistError} */
export function chain(text: string, options: PluginOptions): string {
  const config = parse(text);
  const entry = pluginEntry(options);
  if ('type' in config) {
    if (config.type === PLUGIN_TYPE) throw new ConflistError('is the mesh plugin itself: there is nothing to chain it to');
    const { cniVersion: _, ...plugin } = config;
    return print(sorted({ cniVersion: LIST_VERSION, name: LIST_NAME, plugins: [plugin, entry] }));
  }
  return print(sorted({ ...config, plugins: [...others(config), entry] }));
}

/** @returns the list without the plugin; undefined where nothing else is left. @throws {ConflistError} */
export function unchain(text: string): string | undefined {
  const config = parse(text);
  if ('type' in config) return config.type === PLUGIN_TYPE ? undefined : text;
  if (!isChained(text)) return text;
  const rest = others(config);
  return rest.length === 0 ? undefined : print(sorted({ ...config, plugins: rest }));
}

/** Whether the plugin is in it, in whatever form. Never throws: what cannot be read has no plugin of ours. */
export function isChained(text: string): boolean {
  try {
    const config = parse(text);
    return config.type === PLUGIN_TYPE || (Array.isArray(config.plugins) && config.plugins.some(isOurs));
  } catch {
    return false;
  }
}

/** Equal but for layout and order of keys. */
export function sameConfig(a: string, b: string): boolean {
  try {
    return isDeepStrictEqual(JSON.parse(a), JSON.parse(b));
  } catch {
    return false;
  }
}

/**
 * Why a container runtime would pass this file over when it looks for the node's network; undefined where it would take it. The rules are
 * those of containernetworking's libcni, which all runtimes use.
 */
export function notANetwork(name: string, text: string): string | undefined {
  try {
    const config = parse(text);
    if (!name.endsWith('.conflist')) return textOf(config.type) ? undefined : "has no 'type'; perhaps it is a .conflist?";
    if (!textOf(config.name)) return "has no 'name'";
    if ('cniVersion' in config && typeof config.cniVersion !== 'string') return "has a 'cniVersion' that is no text";
    if (!Array.isArray(config.plugins)) return "has no 'plugins'";
    if (config.plugins.length === 0) return 'has no plugin';
    const index = config.plugins.findIndex((plugin: unknown) => !isObject(plugin) || !textOf(plugin.type));
    return index < 0 ? undefined : `has a plugin without 'type' (number ${index + 1})`;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

function others({ plugins }: JsonObject): unknown[] {
  if (!Array.isArray(plugins)) throw new ConflistError("has no list 'plugins'");
  const strange = plugins.findIndex((plugin) => !isObject(plugin));
  if (strange >= 0) throw new ConflistError(`has something in 'plugins' that is no plugin (number ${strange + 1})`);
  return plugins.filter((plugin) => !isOurs(plugin));
}

function parse(text: string): JsonObject {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new ConflistError(text.trim() === '' ? 'is empty' : 'is no JSON');
  }
  if (!isObject(value)) throw new ConflistError('is no JSON object');
  return value;
}

const isObject = (value: unknown): value is JsonObject => typeof value === 'object' && value !== null && !Array.isArray(value);
const isOurs = (plugin: unknown): boolean => isObject(plugin) && plugin.type === PLUGIN_TYPE;
const textOf = (value: unknown): string => (typeof value === 'string' ? value : '');

const print = (value: unknown): string => `${JSON.stringify(value, null, 2)}\n`;

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (!isObject(value)) return value;
  return Object.fromEntries(
    Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, item]) => [key, sorted(item)]),
  );
}
