/** Services: addresses from the cluster's ranges by IP family policy, node ports, and the rules for ports and types. */
import { ipBytes, ipFromBytes, isIpv6, parseIp } from '../../../common/base/address.ts';
import { ApiError, type FieldCause } from '../api-error.ts';
import { arrayOf, at, isObject, type JsonObject, objectOf, stringOf } from '../json.ts';
import type { KubeObject } from '../object.ts';
import { type Behaviour, duplicate, invalid, type KindContext, required, unsupported } from './behaviour.ts';
import { checkLabel, isLabel, isPort, isPortName } from './names.ts';

const RANGES: Readonly<Record<string, { network: string; prefix: number }>> = {
  IPv4: { network: '10.96.0.0', prefix: 16 },
  IPv6: { network: 'fd00:10:96::', prefix: 112 },
};
// The first addresses are for those who ask for one by name: the API server (…1) and the DNS (…10).
const FIRST_FREE = 256;
const LAST_FREE = 65_534;
const NODE_PORTS = { first: 30_000, last: 32_767 };
const TYPES = ['ClusterIP', 'ExternalName', 'LoadBalancer', 'NodePort'];
const POLICIES = ['SingleStack', 'PreferDualStack', 'RequireDualStack'];

export const serviceBehaviour: Behaviour = {
  create(service, context) {
    service.status = { loadBalancer: {} };
    complete(service, undefined, context);
  },
  update(service, old, context) {
    const spec = objectOf(service.spec);
    const before = objectOf(old.spec);
    if (spec.type !== 'ExternalName' && before.type !== 'ExternalName') {
      for (const field of ['clusterIP', 'clusterIPs', 'ipFamilies', 'ipFamilyPolicy', 'internalTrafficPolicy'])
        spec[field] ??= before[field];
    }
    complete(service, before, context);
  },
  check(service, old) {
    return checkService(objectOf(service.spec), old && objectOf(old.spec));
  },
};

function complete(service: KubeObject, before: JsonObject | undefined, context: KindContext): void {
  const spec = objectOf(service.spec);
  for (const port of arrayOf(spec.ports)) if (isObject(port)) port.targetPort ??= port.port;
  const type = spec.type;
  if (type === 'ExternalName') {
    for (const field of ['clusterIP', 'clusterIPs', 'ipFamilies', 'ipFamilyPolicy']) delete spec[field];
    return;
  }
  spec.internalTrafficPolicy ??= 'Cluster';
  const dual = arrayOf(spec.ipFamilies).length > 1 || arrayOf(spec.clusterIPs).length > 1;
  spec.ipFamilyPolicy ??= dual ? 'RequireDualStack' : 'SingleStack';
  const policy = spec.ipFamilyPolicy;
  const asked =
    spec.clusterIP === 'None'
      ? ['None']
      : [...new Set([stringOf(spec.clusterIP), ...arrayOf(spec.clusterIPs).map(stringOf)])].filter((ip) => ip !== '');
  const families = arrayOf(spec.ipFamilies).map(stringOf);
  for (const ip of asked) if (ip !== 'None' && families.length < asked.length) families.push(isIpv6(ip) ? 'IPv6' : 'IPv4');
  if (families.length === 0) families.push('IPv4');
  if (policy !== 'SingleStack' && families.length === 1) families.push(families[0] === 'IPv4' ? 'IPv6' : 'IPv4');
  if (policy === 'SingleStack') families.splice(1);
  spec.ipFamilies = [...new Set(families)];
  if (asked[0] === 'None') {
    spec.clusterIP = 'None';
    spec.clusterIPs = ['None'];
  } else {
    const used = usedAddresses(service, context);
    const addresses = [...new Set(families)].map((family) => {
      const own = asked.find((ip) => isIpv6(ip) === (family === 'IPv6'));
      if (own === undefined) return allocate(family, used, context.random);
      const kept = arrayOf(before?.clusterIPs).includes(own);
      if (!kept && used.has(parseIp(own) ?? own)) {
        throw ApiError.invalid(SERVICE, service.metadata.name, [
          invalid(['spec', 'clusterIPs'], own, 'failed to allocate IP: provided IP is already allocated'),
        ]);
      }
      return own;
    });
    spec.clusterIP = addresses[0];
    spec.clusterIPs = addresses;
  }
  const nodePorts = type === 'NodePort' || type === 'LoadBalancer';
  if (nodePorts || arrayOf(spec.externalIPs).length > 0) spec.externalTrafficPolicy ??= 'Cluster';
  if (nodePorts) {
    if (type === 'LoadBalancer') spec.allocateLoadBalancerNodePorts ??= true;
    allocateNodePorts(spec, before, context);
  }
}

const SERVICE = { group: '', plural: 'services', kind: 'Service' };

function usedAddresses(service: KubeObject, context: KindContext): Set<string> {
  const used = new Set<string>();
  for (const other of context.each('Service')) {
    if (other.metadata.name === service.metadata.name && other.metadata.namespace === service.metadata.namespace) continue;
    for (const ip of arrayOf(at(other, 'spec', 'clusterIPs'))) used.add(stringOf(ip));
  }
  return used;
}

function allocate(family: string, used: Set<string>, random: () => number): string {
  const network = ipBytes(RANGES[family]?.network ?? '');
  if (!network) throw ApiError.badRequest(`"${family}" is no IP family`);
  const span = LAST_FREE - FIRST_FREE;
  const start = Math.floor(random() * span);
  for (let i = 0; i < span; i++) {
    const offset = FIRST_FREE + ((start + i) % span);
    const bytes = Uint8Array.from(network);
    bytes[bytes.length - 2] = offset >> 8;
    bytes[bytes.length - 1] = offset & 255;
    const ip = ipFromBytes(bytes);
    if (ip === undefined || used.has(ip)) continue;
    used.add(ip);
    return ip;
  }
  throw new ApiError(500, 'InternalError', `no free address in the ${family} service range`);
}

function allocateNodePorts(spec: JsonObject, before: JsonObject | undefined, context: KindContext): void {
  const used = new Set<unknown>();
  for (const service of context.each('Service')) for (const port of arrayOf(at(service, 'spec', 'ports'))) used.add(at(port, 'nodePort'));
  for (const port of arrayOf(spec.ports)) {
    if (!isObject(port) || port.nodePort !== undefined) continue;
    const same = arrayOf(before?.ports).find((old) => at(old, 'port') === port.port && at(old, 'protocol') === port.protocol);
    let candidate = at(same, 'nodePort');
    for (let i = 0; candidate === undefined && i <= NODE_PORTS.last - NODE_PORTS.first; i++) {
      const next = NODE_PORTS.first + ((Math.floor(context.random() * 2768) + i) % 2768);
      if (!used.has(next)) candidate = next;
    }
    used.add(candidate);
    port.nodePort = candidate;
  }
}

function checkService(spec: JsonObject, old: JsonObject | undefined): FieldCause[] {
  const causes: FieldCause[] = [];
  const type = stringOf(spec.type);
  if (!TYPES.includes(type)) causes.push(unsupported(['spec', 'type'], type, TYPES));
  if (spec.ipFamilyPolicy !== undefined && !POLICIES.includes(stringOf(spec.ipFamilyPolicy))) {
    causes.push(unsupported(['spec', 'ipFamilyPolicy'], spec.ipFamilyPolicy, POLICIES));
  }
  const ports = arrayOf(spec.ports);
  const headless = spec.clusterIP === 'None';
  if (ports.length === 0 && !headless && type !== 'ExternalName') causes.push(required('spec', 'ports'));
  if (type === 'ExternalName' && !spec.externalName) causes.push(required('spec', 'externalName'));
  for (const [key, value] of Object.entries(objectOf(spec.selector))) causes.push(...checkLabel(['spec', 'selector'], key, value));
  const names = new Set<string>();
  const numbers = new Set<string>();
  ports.forEach((item, i) => {
    const { name, port, targetPort, protocol, nodePort } = objectOf(item);
    const path = ['spec', 'ports', i];
    if (ports.length > 1 && !name) causes.push(required(...path, 'name'));
    if (typeof name === 'string' && name !== '') {
      if (!isLabel(name))
        causes.push(
          invalid([...path, 'name'], name, "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-'"),
        );
      if (names.has(name)) causes.push(duplicate([...path, 'name'], name));
      names.add(name);
    }
    if (!isPort(port)) causes.push(invalid([...path, 'port'], port, 'must be between 1 and 65535, inclusive'));
    if (!['TCP', 'UDP', 'SCTP'].includes(stringOf(protocol)))
      causes.push(unsupported([...path, 'protocol'], protocol, ['SCTP', 'TCP', 'UDP']));
    if (typeof targetPort === 'number' && !isPort(targetPort))
      causes.push(invalid([...path, 'targetPort'], targetPort, 'must be between 1 and 65535, inclusive'));
    if (typeof targetPort === 'string' && !isPortName(targetPort))
      causes.push(invalid([...path, 'targetPort'], targetPort, 'must be the name of a port'));
    if (typeof nodePort === 'number' && nodePort !== 0 && (nodePort < NODE_PORTS.first || nodePort > NODE_PORTS.last)) {
      causes.push(
        invalid(
          [...path, 'nodePort'],
          nodePort,
          `provided port is not in the valid range. The range of valid ports is ${NODE_PORTS.first}-${NODE_PORTS.last}`,
        ),
      );
    }
    const key = `${String(port)}/${stringOf(protocol)}`;
    if (numbers.has(key)) causes.push(duplicate(path, key));
    numbers.add(key);
  });
  arrayOf(spec.clusterIPs).forEach((ip, i) => {
    if (ip !== 'None' && parseIp(stringOf(ip)) === undefined)
      causes.push(invalid(['spec', 'clusterIPs', i], ip, 'must be a valid IP address'));
  });
  arrayOf(spec.ipFamilies).forEach((family, i) => {
    if (RANGES[stringOf(family)] === undefined) causes.push(unsupported(['spec', 'ipFamilies', i], family, Object.keys(RANGES)));
  });
  if (old && old.clusterIP !== undefined && spec.clusterIP !== undefined && old.clusterIP !== spec.clusterIP) {
    causes.push(invalid(['spec', 'clusterIPs', 0], spec.clusterIP, 'may not change once set'));
  }
  return causes;
}
