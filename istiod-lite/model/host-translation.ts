/** VirtualServices and DestinationRules → what each waypoint is told of a service, and what their own statuses say. */
import type { PortRoutes, ServiceRoutes, ServiceTraffic, Subset, TrafficPolicy } from '../../common/codec/gen/waypoint.ts';
import type { CertificateSource, FoundCertificates } from './certificate-sources.ts';
import { type Condition, WAYPOINT_ACCEPTED } from './conditions.ts';
import type { DestinationRule } from './destination-rule.ts';
import type { HostRequest } from './host-inputs.ts';
import type { Inputs } from './inputs.ts';
import type { LabelInterest } from './label-interests.ts';
import { type MeshService, serviceKeyOf } from './mesh-service.ts';
import type { VirtualService } from './virtual-service.ts';
import { delegateProblem, destinationsOf, resolveDestination, type VirtualView, virtualPorts } from './virtual-service-table.ts';

/** What came of an object for one of the services that it is about, at one waypoint. */
export interface Outcome {
  readonly place: string;
  readonly ok: boolean;
  readonly reason: 'Accepted' | 'TargetNotFound' | 'AncestorNotBound' | 'Invalid' | 'Conflicted';
  readonly message: string;
  /** Gateways whose waypoints carry it out, `namespace/name`. */
  readonly waypoints: readonly string[];
}

/** The settings of a DestinationRule as a whole, or one of its subsets. */
export type RulePart = 'policy' | { readonly subset: string };

export class HostTranslation {
  readonly #inputs: Inputs;
  readonly #waypointsOf: (source: string) => string[];
  readonly #view: VirtualView;

  constructor(inputs: Inputs, waypointsOf: (source: string) => string[]) {
    this.#inputs = inputs;
    this.#waypointsOf = waypointsOf;
    this.#view = {
      service: (host, { namespace }) => this.service(host, namespace),
      delegate: (key) => this.#inputs.hosts.virtualService(key),
    };
  }

  /** The service that a hostname means, seen from a namespace. */
  service(hostname: string, namespace: string): MeshService | undefined {
    const owners = this.#inputs.claims.owners(hostname);
    return owners.byNamespace.get(namespace) ?? owners.canonical;
  }

  /** What VirtualServices make of a service at a waypoint, for the ports that the Gateway API's routes leave to them. */
  virtualPorts(service: MeshService, waypoint: string, taken: readonly PortRoutes[]): PortRoutes[] {
    const virtual = this.#inputs.hosts.virtualFor(requestOf(service, waypoint));
    if (!virtual || taken.some(({ port }) => port === EVERY_PORT)) return [];
    const ports = virtualPorts(service, virtual, this.#view);
    return ports.filter(({ port, table, connections }) => {
      if (taken.some((other) => other.port === port)) return false;
      return table.length > 0 || connections.length > 0 || virtual.http.length > 0;
    });
  }

  /** undefined where nothing is asked for. @param used takes the Secrets that are */
  traffic(service: MeshService, waypoint: string, used: Set<CertificateSource>): ServiceTraffic | undefined {
    const rules = this.#inputs.hosts.rulesFor(requestOf(service, waypoint));
    if (rules.length === 0) return undefined;
    const withPolicy = ownerOf(rules, 'policy') ?? rules[0];
    const subsets = new Map<string, Subset>();
    for (const rule of rules) for (const subset of rule.subsets) if (!subsets.has(subset.name)) subsets.set(subset.name, subset);
    const complete = (policy: TrafficPolicy | undefined): TrafficPolicy | undefined =>
      this.#withCredential(withServerName(policy, service), rules[0], waypoint, used);
    return {
      namespace: service.namespace,
      hostname: service.hostname,
      policy: complete(withPolicy?.policy),
      ports: (withPolicy?.ports ?? []).map(({ port, policy }) => ({ port, policy: complete(policy) })),
      subsets: [...subsets.values()].map((subset) => ({
        ...subset,
        policy: complete(subset.policy),
        ports: subset.ports.map(({ port, policy }) => ({ port, policy: complete(policy) })),
      })),
    };
  }

  /**
   * A Secret is read in the namespace of the waypoint's Gateway, and only for a rule of that namespace: nobody else may lend its certificate.
   * What cannot be had refuses the requests.
   */
  #withCredential(
    policy: TrafficPolicy | undefined,
    rule: DestinationRule | undefined,
    waypoint: string,
    used: Set<CertificateSource>,
  ): TrafficPolicy | undefined {
    const wanted = policy?.tls?.credential ?? '';
    if (!policy?.tls || wanted === '') return policy;
    const found = this.#credential(wanted, rule, waypoint, used);
    if (typeof found === 'string') {
      return { ...policy, tls: undefined, refuse: [policy.refuse, found].filter((reason) => reason !== '').join('; ') };
    }
    const { roots, certificate, privateKey, source } = found;
    return {
      ...policy,
      tls: {
        ...policy.tls,
        credential: source.slice('Secret '.length),
        roots: roots || policy.tls.roots,
        ...(wanted.startsWith('MUTUAL ') && { clientCertificate: { certificate, privateKey } }),
      },
    };
  }

  /** @param wanted mode and name @returns why it cannot be had */
  #credential(
    wanted: string,
    rule: DestinationRule | undefined,
    waypoint: string,
    used: Set<CertificateSource>,
  ): (FoundCertificates & { readonly source: CertificateSource }) | string {
    const [mode = '', name = ''] = wanted.split(' ');
    const [namespace = ''] = waypoint.split('/');
    if (rule?.namespace !== namespace)
      return `tls.credentialName ${name}: a rule of another namespace than the waypoint's (${namespace}) cannot use its Secrets`;
    const source: CertificateSource = `Secret ${namespace}/${name}`;
    used.add(source);
    const found = this.#inputs.certificates.at(source);
    if (!found) return `${source} has not been read: istiod needs a Role there (get, list and watch on this Secret)`;
    if (found.problem !== undefined) return found.problem;
    if (mode === 'MUTUAL' && found.certificate === '') return `${source} has no certificate (tls.crt and tls.key)`;
    return { ...found, source };
  }

  /** What its Secrets lack, at the waypoints that it counts for. @param used takes the Secrets that are asked for */
  credentialProblems(rule: DestinationRule, used = new Set<CertificateSource>()): string[] {
    const policies = [rule.policy, ...rule.ports.map(({ policy }) => policy)];
    for (const { policy, ports } of rule.subsets) policies.push(policy, ...ports.map((port) => port.policy));
    const wanted = new Set(policies.flatMap((policy) => policy?.tls?.credential || []));
    const problems = new Set<string>();
    for (const service of wanted.size > 0 ? this.#inputs.claims.servicesOfHost(rule.host) : []) {
      const waypoints = this.#waypointsOf(`${service.source}/${service.key}`);
      for (const waypoint of waypoints.filter((one) =>
        this.#inputs.hosts.mayConcern(rule, { namespace: service.namespace, waypoint: one }),
      )) {
        for (const one of wanted) {
          const found = this.#credential(one, rule, waypoint, used);
          if (typeof found === 'string') problems.add(`requests are refused at ${waypoint}: ${found}`);
        }
      }
    }
    return [...problems];
  }

  /** Labels that a waypoint must know to carry out what it is told of a service. */
  interests(service: MeshService, waypoint: string, traffic: ServiceTraffic | undefined): LabelInterest[] {
    const [waypointNamespace = ''] = waypoint.split('/');
    const subsetNames = [...new Set((traffic?.subsets ?? []).flatMap(({ labels }) => Object.keys(labels)))];
    const policies = [traffic?.policy, ...(traffic?.ports ?? []).map(({ policy }) => policy)];
    const near = policies
      .flatMap((policy) => policy?.loadBalancer?.locality?.failoverPriority ?? [])
      .map((label) => label.replace(/=.*$/, ''));
    return [
      ...(subsetNames.length + near.length > 0 ? [{ namespace: service.namespace, names: [...subsetNames, ...near] }] : []),
      ...(near.length > 0 && waypointNamespace !== service.namespace ? [{ namespace: waypointNamespace, names: near }] : []),
    ];
  }

  /** Labels of callers that a service's routes ask for; callers may be anywhere. */
  callerInterests(routes: readonly ServiceRoutes[]): LabelInterest[] {
    const names = new Set<string>();
    for (const { ports } of routes) {
      for (const { table, connections } of ports) {
        for (const { match } of table) for (const name of Object.keys(match?.source?.labels ?? {})) names.add(name);
        for (const { source } of connections) for (const name of Object.keys(source?.labels ?? {})) names.add(name);
      }
    }
    return names.size > 0 ? [{ namespace: undefined, names: [...names].sort() }] : [];
  }

  virtualServiceCondition(virtual: VirtualService): Condition {
    const outcomes = this.virtualOutcomes(virtual);
    const problems = [...unusable(virtual), ...this.delegateProblems(virtual), ...this.missingDestinations(virtual)];
    if (!virtual.mesh)
      return condition(virtual, false, 'Invalid', 'it is for gateways alone (spec.gateways), and none of them is served here');
    if (virtual.hosts.length === 0 && problems.length === 0)
      return condition(virtual, true, 'Accepted', 'a delegate: it counts where others delegate to it');
    return summary(virtual, outcomes, problems);
  }

  /** For each service that it is about, whether it counts there; one that nobody has stored yet counts where no other one does. */
  virtualOutcomes(virtual: VirtualService): Outcome[] {
    if (!virtual.mesh) return [];
    return this.#outcomes(virtual.hosts, virtual, (request, service) => {
      const counts = this.#inputs.hosts.virtualFor(request);
      if (counts && counts.key !== virtual.key) return `VirtualService ${counts.key} counts there`;
      return this.#routedByGatewayApi(service) ? 'routes of the Gateway API are attached there and count instead' : undefined;
    });
  }

  destinationRuleCondition(rule: DestinationRule): Condition {
    const used = new Set<CertificateSource>();
    const lacking = this.credentialProblems(rule, used);
    this.#inputs.certificates.record(`rule ${rule.key}`, used);
    return summary(rule, this.ruleOutcomes(rule), [...rule.problems, ...lacking]);
  }

  /** @param part where it is about a part of the rule: another rule's may count although both rules do */
  ruleOutcomes(rule: DestinationRule, part?: RulePart): Outcome[] {
    return this.#outcomes([rule.host], rule, (request) => {
      const counting = this.#inputs.hosts.rulesFor(request);
      if (counting.length > 0 && !counting.some(({ key }) => key === rule.key)) return 'another DestinationRule counts there';
      const owner = part && ownerOf(counting, part);
      if (!owner || owner.key === rule.key) return undefined;
      return `that of DestinationRule ${owner.key} counts there`;
    });
  }

  /** Whether some VirtualService sends to a subset. */
  isSubsetUsed(rule: DestinationRule, subset: string): boolean {
    return this.#inputs.claims
      .servicesOfHost(rule.host)
      .some(({ hostname }) =>
        this.#inputs.hosts
          .mentioning(hostname)
          .some((virtual) => destinationsOf(virtual).some((to) => to.host === hostname && to.subset === subset)),
      );
  }

  #outcomes(
    written: readonly string[],
    object: VirtualService | DestinationRule,
    why: (request: HostRequest, service: MeshService) => string | undefined,
  ): Outcome[] {
    return written.flatMap((host): Outcome[] => {
      const services = this.#inputs.claims.servicesOfHost(host);
      if (services.length === 0)
        return [{ place: host, ok: false, reason: 'TargetNotFound', message: `there is no service ${host}`, waypoints: [] }];
      return services.map((service): Outcome => {
        const place = serviceKeyOf(service);
        const waypoints = this.#waypointsOf(`${service.source}/${service.key}`);
        const no = (reason: Outcome['reason'], message: string): Outcome => ({ place, ok: false, reason, message, waypoints: [] });
        if (waypoints.length === 0)
          return no('AncestorNotBound', `${place} has no waypoint (istio.io/use-waypoint), and nobody else reads this`);
        const own = waypoints.filter((waypoint) => this.#inputs.hosts.mayConcern(object, { namespace: service.namespace, waypoint }));
        if (own.length === 0) return no('Invalid', `waypoints read objects of the namespace of ${place} and of their own only`);
        const conflict = own.map((waypoint) => why(requestOf(service, waypoint), service)).find((reason) => reason !== undefined);
        if (conflict !== undefined) return no('Conflicted', `${place}: ${conflict}`);
        return { place, ok: true, reason: 'Accepted', message: `${place} at waypoint ${own.join(' and ')}`, waypoints: own };
      });
    });
  }

  #routedByGatewayApi(service: MeshService): boolean {
    return this.#inputs.routes.attachments(`${service.source}/${service.key}`).some(({ port }) => port === undefined);
  }

  /** Rules without effect on account of whom they delegate to. */
  delegateProblems(virtual: VirtualService): string[] {
    return virtual.http.flatMap(({ name, delegate }) => {
      if (delegate === undefined) return [];
      const problem = delegateProblem(this.#inputs.hosts.virtualService(delegate));
      return problem === undefined ? [] : [`${name} has no effect: its delegate ${delegate} ${problem}`];
    });
  }

  /** Destinations that are not there; their share of requests is answered with an error. */
  missingDestinations(virtual: VirtualService): string[] {
    return [...new Set(destinationsOf(virtual).map(({ host, subset, port }) => JSON.stringify([host, subset, port])))].flatMap((text) => {
      const [host, subset, port] = JSON.parse(text) as [string, string, number | null];
      const service = this.service(host, virtual.namespace);
      if (!service) return [`there is no service ${host}`];
      const asked = service.ports[0]?.port ?? 0;
      const to = { host, subset, port: port ?? undefined };
      if (port !== null && !resolveDestination(this.#view, to, virtual, asked)) return [`${host} has no port ${port}`];
      return subset !== '' && !this.#hasSubset(service, subset) ? [`${host} has no subset ${subset}`] : [];
    });
  }

  #hasSubset({ hostname }: MeshService, subset: string): boolean {
    return this.#inputs.hosts.rulesAbout(hostname).some(({ subsets }) => subsets.some(({ name }) => name === subset));
  }
}

const EVERY_PORT = 0;

/** Of several rules that make one, the rule whose part it is. */
const ownerOf = (rules: readonly DestinationRule[], part: RulePart): DestinationRule | undefined =>
  rules.find(({ policy, ports, subsets }) =>
    part === 'policy' ? policy !== undefined || ports.length > 0 : subsets.some(({ name }) => name === part.subset),
  );

/** What of its rules is written so that nothing can be made of it. */
export const unusable = ({ http }: VirtualService): string[] => [
  ...http.flatMap(({ name, problems }) => (problems.length > 0 ? [`${name} answers 500: ${problems.join(', ')}`] : [])),
  ...http.flatMap(({ name, unreadable }) =>
    unreadable.length > 0 ? [`${name} is left without matches that cannot be read: ${unreadable.join(', ')}`] : [],
  ),
];

const requestOf = ({ hostname, namespace }: MeshService, waypoint: string): HostRequest => ({ hostname, namespace, waypoint });

/** Without a name of its own the server's is the host's. */
function withServerName(policy: TrafficPolicy | undefined, { hostname }: MeshService): TrafficPolicy | undefined {
  if (!policy?.tls) return policy;
  const { tls } = policy;
  if (tls.serverName !== '') return policy;
  return { ...policy, tls: { ...tls, serverName: hostname.startsWith('*') ? '' : hostname } };
}

/** One condition for everything that the object is about: False where nothing of it counts, and with what differs from what was written. */
function summary(object: VirtualService | DestinationRule, outcomes: readonly Outcome[], problems: readonly string[]): Condition {
  const failed = outcomes.filter(({ ok }) => !ok);
  const first = failed[0];
  if (outcomes.length > 0 && failed.length === outcomes.length) {
    return condition(object, false, first?.reason ?? 'Invalid', sentences(failed.map(({ message }) => message)));
  }
  const more =
    failed.length > 0
      ? [`without effect for ${failed.map(({ place }) => place).join(', ')}: ${sentences(failed.map(({ message }) => message))}`]
      : [];
  if (problems.length > 0) return condition(object, true, 'UnsupportedValue', sentences([...problems, ...more]));
  if (more.length > 0) return condition(object, true, 'PartiallyInvalid', sentences(more));
  return condition(object, true, 'Accepted', sentences(outcomes.map(({ message }) => message)));
}

const condition = ({ generation }: { readonly generation: number }, ok: boolean, reason: string, message: string): Condition => ({
  type: WAYPOINT_ACCEPTED,
  status: ok ? 'True' : 'False',
  reason,
  message: message.length > LONGEST ? `${message.slice(0, LONGEST - 3)}...` : message,
  observedGeneration: generation,
});

const sentences = (list: readonly string[]): string => [...new Set(list)].join('; ');

// The API server takes 32 KiB of a message.
const LONGEST = 2000;
