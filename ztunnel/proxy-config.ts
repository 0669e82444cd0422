/** What a proxy is told as YAML: PROXY_CONFIG, and the mesh configuration's `defaultConfig` (Istio, mesh.v1alpha1.ProxyConfig). */
import { load } from 'js-yaml';
import { errorMessage } from '../common/base/errors.ts';
import { SettingsError } from '../common/base/settings.ts';

/** Where Istio's charts mount the mesh's configuration, whose `defaultConfig` fills what PROXY_CONFIG leaves out. */
export const MESH_CONFIG_FILE = './etc/istio/config/mesh';

export interface ProxyConfigFile {
  readonly discoveryAddress?: string;
  readonly proxyAdminPort?: number;
  readonly statsPort?: number;
  readonly concurrency?: number;
  readonly proxyMetadata?: Readonly<Record<string, string>>;
}

/** @param yaml text of MESH_CONFIG_FILE @throws {SettingsError} naming everything that is wrong in it */
export function readMeshConfig(yaml: string | undefined): ProxyConfigFile {
  if (yaml === undefined || yaml.trim() === '') return {};
  const read = mappingOf(MESH_CONFIG_FILE, yaml);
  return 'defaultConfig' in read && read.defaultConfig !== null
    ? proxyConfigOf(`${MESH_CONFIG_FILE} defaultConfig`, read.defaultConfig)
    : {};
}

/** @param where what messages call it @throws {SettingsError} naming everything that is wrong in it */
export const readProxyConfig = (where: string, yaml: string | undefined): ProxyConfigFile =>
  yaml === undefined || yaml.trim() === '' ? {} : proxyConfigOf(where, mappingOf(where, yaml));

function mappingOf(where: string, yaml: string): Record<string, unknown> {
  const read = parseYaml(where, yaml);
  if (typeof read !== 'object' || read === null || Array.isArray(read)) throw new SettingsError([`${where}: expected a YAML mapping`]);
  return read as Record<string, unknown>;
}

function proxyConfigOf(where: string, read: unknown): ProxyConfigFile {
  if (typeof read !== 'object' || read === null || Array.isArray(read)) throw new SettingsError([`${where}: expected a mapping`]);
  const found = read as Record<string, unknown>;
  const problems: string[] = [];
  const numberOf = (key: string): number | undefined => {
    const value = found[key];
    if (value === undefined || value === null) return undefined;
    if (typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= 65535) return value;
    problems.push(`${where} ${key}: expected a whole number up to 65535`);
    return undefined;
  };
  const adminPort = numberOf('proxyAdminPort');
  const statsPort = numberOf('statsPort');
  const concurrency = numberOf('concurrency');
  const discoveryAddress = found.discoveryAddress;
  if (discoveryAddress !== undefined && typeof discoveryAddress !== 'string') problems.push(`${where} discoveryAddress: expected text`);
  const proxyMetadata = found.proxyMetadata;
  if (proxyMetadata !== undefined && (typeof proxyMetadata !== 'object' || proxyMetadata === null)) {
    problems.push(`${where} proxyMetadata: expected a mapping`);
  }
  if (problems.length > 0) throw new SettingsError(problems);
  return {
    ...(typeof discoveryAddress === 'string' ? { discoveryAddress } : {}),
    ...(adminPort !== undefined ? { proxyAdminPort: adminPort } : {}),
    ...(statsPort !== undefined ? { statsPort } : {}),
    ...(concurrency !== undefined ? { concurrency } : {}),
    ...(proxyMetadata ? { proxyMetadata: Object.fromEntries(Object.entries(proxyMetadata).map(([k, v]) => [k, String(v)])) } : {}),
  };
}

function parseYaml(where: string, yaml: string): unknown {
  try {
    return load(yaml);
  } catch (error) {
    throw new SettingsError([`${where}: ${errorMessage(error)}`]);
  }
}
