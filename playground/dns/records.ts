/**
 * The cluster's names, by the Kubernetes DNS specification: services, headless ones with their endpoints, SRV for named ports, pods by
 * address. Pure: a question and a view of the cluster give an answer. Other names do not exist: nothing leads out of the playground.
 */
import { type IpAddress, isIpv6, parseIp } from '../../common/base/address.ts';
import { CLUSTER_DOMAIN } from '../network/plan.ts';
import type { EndpointSlice, Service, SliceEndpoint } from '../objects.ts';

export interface DnsView {
  service(namespace: string, name: string): Service | undefined;
  /** Slices of the service. */
  slices(namespace: string, name: string): readonly EndpointSlice[];
  namespaceExists(name: string): boolean;
}

export type Answer =
  | { readonly name: string; readonly type: 'A' | 'AAAA'; readonly data: IpAddress }
  | { readonly name: string; readonly type: 'CNAME'; readonly data: string }
  | {
      readonly name: string;
      readonly type: 'SRV';
      readonly data: { readonly port: number; readonly target: string; readonly priority: number; readonly weight: number };
    };

export interface Reply {
  /** With NOERROR and no answers, the name exists but not with this type. */
  readonly code: 'NOERROR' | 'NXDOMAIN';
  readonly authoritative: boolean;
  readonly answers: readonly Answer[];
  readonly additionals: readonly Answer[];
}

const ZONE = CLUSTER_DOMAIN.split('.');
const MOST_ALIASES = 8;

export const resolve = (question: { name: string; type: string }, view: DnsView): Reply => resolveName(question, view, MOST_ALIASES);

function resolveName(question: { name: string; type: string }, view: DnsView, aliasesLeft: number): Reply {
  const labels = question.name.toLowerCase().replace(/\.$/, '').split('.');
  const inZone = labels.length >= ZONE.length && ZONE.every((label, i) => labels[labels.length - ZONE.length + i] === label);
  if (!inZone) return { code: 'NXDOMAIN', authoritative: false, answers: [], additionals: [] };
  const found = lookUp(labels.slice(0, -ZONE.length), view);
  if (!found) return { code: 'NXDOMAIN', authoritative: true, answers: [], additionals: [] };
  const { name } = question;
  if (found.alias !== undefined) {
    // An alias inside the cluster is followed, as a client would otherwise ask again.
    const next = aliasesLeft > 0 ? resolveName({ name: found.alias, type: question.type }, view, aliasesLeft - 1).answers : [];
    return { code: 'NOERROR', authoritative: true, answers: [{ name, type: 'CNAME', data: found.alias }, ...next], additionals: [] };
  }
  const wantsV4 = question.type === 'A' || question.type === 'ANY';
  const wantsV6 = question.type === 'AAAA' || question.type === 'ANY';
  const answers: Answer[] = found.ips.flatMap((ip) => address(name, ip, wantsV4, wantsV6));
  const services = question.type === 'SRV' ? (found.srv ?? []) : [];
  answers.push(...services.map(({ port, target }): Answer => ({ name, type: 'SRV', data: { port, target, priority: 0, weight: 100 } })));
  const additionals = services.flatMap(({ target, ips }) => ips.flatMap((ip) => address(target, ip, true, true)));
  return { code: 'NOERROR', authoritative: true, answers, additionals };
}

interface Found {
  readonly ips: readonly IpAddress[];
  readonly alias?: string;
  readonly srv?: readonly { readonly port: number; readonly target: string; readonly ips: readonly IpAddress[] }[];
}

/** @param labels without the cluster's domain; undefined where no such name exists */
function lookUp(labels: readonly string[], view: DnsView): Found | undefined {
  const kind = labels.at(-1);
  if (labels.length === 0) return { ips: [] };
  if (kind === 'pod') return podByAddress(labels, view);
  if (kind !== 'svc') return undefined;
  const namespace = labels.at(-2);
  const serviceName = labels.at(-3);
  if (namespace === undefined) return { ips: [] };
  if (serviceName === undefined) return view.namespaceExists(namespace) ? { ips: [] } : undefined;
  const service = view.service(namespace, serviceName);
  if (!service) return undefined;
  const rest = labels.slice(0, -3);
  if (service.spec.type === 'ExternalName') return rest.length === 0 ? { ips: [], alias: service.spec.externalName ?? '' } : undefined;
  const domain = `${serviceName}.${namespace}.svc.${CLUSTER_DOMAIN}`;
  const virtual = (service.spec.clusterIPs ?? [service.spec.clusterIP ?? '']).filter((ip) => ip !== '' && ip !== 'None');
  const headless = virtual.length === 0;
  const endpoints = headless ? readyEndpoints(view.slices(namespace, serviceName)) : [];
  if (rest.length === 0) return { ips: headless ? endpoints.flatMap(({ addresses }) => addresses) : virtual };
  const [first = '', second = ''] = rest;
  if (rest.length === 2 && first.startsWith('_') && second.startsWith('_'))
    return serviceRecords(service, view, domain, first.slice(1), second.slice(1), virtual);
  if (rest.length !== 1 || !headless) return undefined;
  const named = endpoints.filter((endpoint) => endpointLabel(endpoint) === first || endpoint.hostname === first);
  return named.length === 0 ? undefined : { ips: named.flatMap(({ addresses }) => addresses) };
}

function serviceRecords(
  service: Service,
  view: DnsView,
  domain: string,
  portName: string,
  protocol: string,
  virtual: readonly IpAddress[],
): Found | undefined {
  const port = service.spec.ports?.find(
    (candidate) => candidate.name === portName && (candidate.protocol ?? 'TCP').toLowerCase() === protocol,
  );
  if (!port) return undefined;
  if (virtual.length > 0) return { ips: [], srv: [{ port: port.port, target: domain, ips: virtual }] };
  const { namespace = '', name } = service.metadata;
  const srv = view.slices(namespace, name).flatMap((slice) => {
    const number = slice.ports?.find((candidate) => candidate.name === portName)?.port;
    if (number === undefined || number === null) return [];
    return readyEndpoints([slice]).map((endpoint) => ({
      port: number,
      target: `${endpointLabel(endpoint)}.${domain}`,
      ips: endpoint.addresses,
    }));
  });
  return { ips: [], srv };
}

function podByAddress(labels: readonly string[], view: DnsView): Found | undefined {
  const [text, namespace] = labels;
  if (labels.length !== 3 || text === undefined || namespace === undefined) return labels.length < 3 ? { ips: [] } : undefined;
  const ip = parseIp(text.replaceAll('-', '.')) ?? parseIp(text.replaceAll('-', ':'));
  return ip !== undefined && view.namespaceExists(namespace) ? { ips: [ip] } : undefined;
}

const readyEndpoints = (slices: readonly EndpointSlice[]): SliceEndpoint[] =>
  slices
    .filter(({ addressType }) => addressType !== 'FQDN')
    .flatMap(({ endpoints }) => (endpoints ?? []).filter(({ conditions }) => conditions?.ready !== false));

/** An endpoint's own name below its headless service. */
const endpointLabel = ({ hostname, addresses }: SliceEndpoint): string => hostname ?? (addresses[0] ?? '').replaceAll(/[.:]/g, '-');

function address(name: string, ip: IpAddress, v4: boolean, v6: boolean): Answer[] {
  if (isIpv6(ip)) return v6 ? [{ name, type: 'AAAA', data: ip }] : [];
  return v4 ? [{ name, type: 'A', data: ip }] : [];
}
