/** A container's environment: literal values, `$(NAME)` references, and what comes from the pod, ConfigMaps and Secrets. Pure. */
import { API_SERVICE_IP } from '../network/plan.ts';
import type { ConfigMap, Container, EnvVar, IntOrString, Pod, ResourceFieldRef, Secret } from '../objects.ts';

export interface EnvironmentSources {
  configMap(name: string): ConfigMap | undefined;
  secret(name: string): Secret | undefined;
}

/** Something that the pod refers to is not there (yet): the container waits with this reason. */
export class ConfigError extends Error {}

export function containerEnvironment(pod: Pod, container: Container, sources: EnvironmentSources): Record<string, string> {
  const service: Record<string, string> = {
    PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    HOSTNAME: pod.spec.hostname ?? pod.metadata.name,
    HOME: '/root',
    KUBERNETES_SERVICE_HOST: API_SERVICE_IP,
    KUBERNETES_SERVICE_PORT: '443',
    KUBERNETES_SERVICE_PORT_HTTPS: '443',
    KUBERNETES_PORT: `tcp://${API_SERVICE_IP}:443`,
  };
  const env: Record<string, string> = { ...service };
  for (const from of container.envFrom ?? []) {
    const prefix = from.prefix ?? '';
    if (from.configMapRef) {
      const found = sources.configMap(from.configMapRef.name);
      if (!found && !from.configMapRef.optional) throw new ConfigError(`configmap "${from.configMapRef.name}" not found`);
      for (const [key, value] of Object.entries(found?.data ?? {})) env[prefix + key] = value;
    }
    if (from.secretRef) {
      const found = sources.secret(from.secretRef.name);
      if (!found && !from.secretRef.optional) throw new ConfigError(`secret "${from.secretRef.name}" not found`);
      for (const [key, value] of Object.entries(found?.data ?? {})) env[prefix + key] = Buffer.from(value, 'base64').toString('utf8');
    }
  }
  for (const variable of container.env ?? []) {
    const value = variableValue(variable, pod, container, sources, env);
    if (value !== undefined) env[variable.name] = value;
  }
  return env;
}

/** Replaces `$(NAME)` where NAME is known; `$$(NAME)` is a literal `$(NAME)`. */
export function expand(text: string, env: Readonly<Record<string, string>>): string {
  return text.replace(/\$\$|\$\(([^()$\s]+)\)/g, (whole, name: string | undefined) => {
    if (name === undefined) return '$';
    return env[name] ?? whole;
  });
}

/** `metadata.labels['x']`, `status.podIP` and their siblings. @throws {ConfigError} for a path that does not exist */
export function podField(pod: Pod, path: string): string {
  const keyed = /^metadata\.(labels|annotations)\['([^']+)'\]$/.exec(path);
  if (keyed) return (keyed[1] === 'labels' ? pod.metadata.labels : pod.metadata.annotations)?.[keyed[2] ?? ''] ?? '';
  switch (path) {
    case 'metadata.name':
      return pod.metadata.name;
    case 'metadata.namespace':
      return pod.metadata.namespace ?? '';
    case 'metadata.uid':
      return pod.metadata.uid ?? '';
    case 'metadata.labels':
      return pairs(pod.metadata.labels);
    case 'metadata.annotations':
      return pairs(pod.metadata.annotations);
    case 'spec.nodeName':
      return pod.spec.nodeName ?? '';
    case 'spec.serviceAccountName':
      return pod.spec.serviceAccountName ?? 'default';
    case 'status.hostIP':
      return pod.status?.hostIP ?? '';
    case 'status.hostIPs':
      return (pod.status?.hostIPs ?? []).map(({ ip }) => ip).join(',');
    case 'status.podIP':
      return pod.status?.podIP ?? '';
    case 'status.podIPs':
      return (pod.status?.podIPs ?? []).map(({ ip }) => ip).join(',');
    default:
      throw new ConfigError(`field label not supported: ${path}`);
  }
}

/** Limits and requests in units of the divisor, rounded up; without a limit, what the node has. */
export function resourceField(pod: Pod, container: Container, ref: ResourceFieldRef): string {
  const owner = [...pod.spec.containers, ...(pod.spec.initContainers ?? [])].find(({ name }) => name === ref.containerName) ?? container;
  const [kind, resource = ''] = ref.resource.split('.');
  const own = kind === 'limits' ? owner.resources?.limits : owner.resources?.requests;
  const amount = own?.[resource] ?? (kind === 'limits' ? NODE_CAPACITY[resource] : 0);
  if (amount === undefined) throw new ConfigError(`unknown resource ${ref.resource}`);
  const divisor = quantity(ref.divisor === undefined || ref.divisor === '0' || ref.divisor === 0 ? 1 : ref.divisor);
  return String(Math.ceil(quantity(amount) / divisor));
}

/** What a node claims to have; nothing is enforced. */
export const NODE_CAPACITY: Readonly<Record<string, string>> = { cpu: '8', memory: '16Gi', 'ephemeral-storage': '64Gi', pods: '253' };

const SUFFIXES: Readonly<Record<string, number>> = {
  m: 1e-3,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
};

function quantity(value: IntOrString): number {
  const match = /^([\d.]+)([a-zA-Z]*)$/.exec(String(value));
  const scale = match?.[2] === '' ? 1 : SUFFIXES[match?.[2] ?? ''];
  if (!match || scale === undefined) throw new ConfigError(`${JSON.stringify(value)} is no quantity`);
  return Number(match[1]) * scale;
}

function variableValue(
  { name, value, valueFrom }: EnvVar,
  pod: Pod,
  container: Container,
  sources: EnvironmentSources,
  env: Readonly<Record<string, string>>,
): string | undefined {
  if (!valueFrom) return expand(value ?? '', env);
  if (valueFrom.fieldRef) return podField(pod, valueFrom.fieldRef.fieldPath);
  if (valueFrom.resourceFieldRef) return resourceField(pod, container, valueFrom.resourceFieldRef);
  if (valueFrom.configMapKeyRef) {
    const { name: from, key, optional } = valueFrom.configMapKeyRef;
    const found = sources.configMap(from)?.data?.[key];
    if (found === undefined && !optional)
      throw new ConfigError(`${name}: couldn't find key ${key} in ConfigMap ${pod.metadata.namespace}/${from}`);
    return found;
  }
  if (valueFrom.secretKeyRef) {
    const { name: from, key, optional } = valueFrom.secretKeyRef;
    const found = sources.secret(from)?.data?.[key];
    if (found === undefined && !optional)
      throw new ConfigError(`${name}: couldn't find key ${key} in Secret ${pod.metadata.namespace}/${from}`);
    return found === undefined ? undefined : Buffer.from(found, 'base64').toString('utf8');
  }
  return undefined;
}

const pairs = (map: Readonly<Record<string, string>> | undefined): string =>
  Object.entries(map ?? {})
    .map(([key, value]) => `${key}=${JSON.stringify(value)}`)
    .sort()
    .join('\n');
