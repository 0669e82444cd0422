/**
 * Objects as Go tests spell them (`derived/ambient-*.json`): struct fields by their Go names, told apart from maps by `_t`. They become
 * Kubernetes objects as JSON has them; what a test made by calling a function is looked up by the function's name.
 */

export type Json = Record<string, unknown>;

export const isJson = (value: unknown): value is Json => value !== null && typeof value === 'object' && !Array.isArray(value);

export const typeOf = (value: unknown): string => (isJson(value) && typeof value._t === 'string' ? value._t : '');

const SPECIAL: Readonly<Record<string, string>> = { ObjectMeta: 'metadata', APIVersion: 'apiVersion' };

/** @throws for a call that nobody has supplied */
export function kubernetesObject(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(kubernetesObject);
  if (!isJson(value)) return value;
  const type = typeOf(value);
  if (type.startsWith('call:')) return called(type.slice(5), value);
  if (type === '' || type === 'labels.Set') return mapOf(value);
  const fields = Object.entries(value).filter(([key]) => key !== '_t' && key !== 'TypeMeta');
  const object: Json = Object.fromEntries(fields.map(([key, inner]) => [SPECIAL[key] ?? lowerFirst(key), kubernetesObject(inner)]));
  // Go's zero value of a port that may be a number or a name is the number 0, where JSON would leave it out.
  return type === 'v1.ServicePort' ? { targetPort: 0, ...object } : object;
}

const mapOf = (value: Json): Json =>
  Object.fromEntries(Object.entries(value).flatMap(([key, inner]) => (key === '_t' ? [] : [[key, kubernetesObject(inner)]])));

/** `PodIP` → `podIP`, `ClusterIP` → `clusterIP`. */
const lowerFirst = (key: string): string => `${key.charAt(0).toLowerCase()}${key.slice(1)}`;

function called(name: string, { arg0, arg1 }: Json): unknown {
  switch (name) {
    case 'v1.Now':
      return '2026-01-01T00:00:00Z';
    case 'time.Unix':
      return new Date(Number(arg0) * 1000 + Number(arg1) / 1e6).toISOString();
    case 'v1.ProtocolType':
      return arg0;
    case 'model.NewSelector':
      return arg0;
    case 'labels.ValidatedSetSelector':
    case 'labels.SelectorFromSet':
      return { matchLabels: kubernetesObject(arg0) };
    case 'kubernetesAPIServerService':
      return apiServerService(String(arg0));
    case 'kubernetesAPIServerEndpoint':
      return apiServerSlice(String(arg0));
    default:
      throw new Error(`the case calls ${name}, which is not supplied`);
  }
}

const metadata = { name: 'kubernetes', namespace: 'default', labels: { 'kubernetes.io/service-name': 'kubernetes' } };

const apiServerService = (ip: string): Json => ({
  kind: 'Service',
  metadata,
  spec: { clusterIPs: [ip], ports: [{ name: 'https', port: 443, targetPort: 6443, protocol: 'TCP' }] },
});

const apiServerSlice = (ip: string): Json => ({
  kind: 'EndpointSlice',
  metadata,
  addressType: 'IPv4',
  endpoints: [{ addresses: [ip], conditions: { ready: true } }],
  ports: [{ name: 'https', port: 6443, protocol: 'TCP' }],
});
