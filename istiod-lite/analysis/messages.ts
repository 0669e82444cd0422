/**
 * The one table of what analysis can say. Codes that begin with IST are Istio's (pkg/config/analysis/msg/messages.yaml), with its names and
 * levels, so that suppressions and CI rules made for istioctl go on working; codes that begin with WRN are for what Istio does not look for.
 * docs/analyze.md is made from it.
 */

export type Level = 'Error' | 'Warning' | 'Info';

export interface MessageType {
  readonly code: string;
  readonly name: string;
  readonly level: Level;
  /** What is said of an object; `{}` stands for what is told of it in particular. */
  readonly template: string;
  /** What it means and what to do about it. */
  readonly doc: string;
  /** No later object could make it right, so admission refuses it (decision 8). */
  readonly final: boolean;
}

const type = (code: string, name: string, level: Level, template: string, doc: string, final?: 'final'): MessageType => ({
  code,
  name,
  level,
  template,
  doc,
  final: final === 'final',
});

export const messageTypes = {
  internal: type('IST0001', 'InternalError', 'Error', 'internal error: {}', 'A fault of Warren: please report it with the object.'),
  notFound: type(
    'IST0101',
    'ReferencedResourceNotFound',
    'Error',
    '{}',
    'Something that the object names is not there: a Service, a port, a subset, a Gateway, a namespace. Correct the name, or create it.',
  ),
  unreadable: type(
    'IST0106',
    'SchemaValidationError',
    'Error',
    'schema validation: {}',
    'A value that the schema lets through and that makes no sense: an address range that is none, an expression that cannot be compiled, a port of 0. What depends on it is read in the stricter way.',
    'final',
  ),
  misplacedAnnotation: type(
    'IST0107',
    'MisplacedAnnotation',
    'Warning',
    'misplaced: {}',
    'An annotation on a kind of object that nobody reads it from, or a label written as an annotation: it does nothing. Move it.',
  ),
  unknownAnnotation: type(
    'IST0108',
    'UnknownAnnotation',
    'Warning',
    'unknown {}',
    'There is no such annotation of Istio or Warren, so it does nothing: a misspelt one, or one of another version.',
  ),
  conflictingHosts: type(
    'IST0109',
    'ConflictingMeshGatewayVirtualServiceHosts',
    'Error',
    'VirtualServices {}',
    'Several VirtualServices are for the same host in the mesh, and only one can count: merge them.',
  ),
  portRequired: type(
    'IST0112',
    'VirtualServiceDestinationPortSelectorRequired',
    'Error',
    'destination {}',
    'The service has several ports and the destination names none. Waypoints then take the port that the caller asked for, sidecars refuse the rule: name the port.',
  ),
  portName: type(
    'IST0118',
    'PortNameIsNotUnderNamingConvention',
    'Info',
    'port {}',
    'Neither appProtocol nor the name says which protocol the port speaks, so waypoints look at the first bytes. A protocol in which the server speaks first needs `appProtocol: tcp`.',
  ),
  noWorkloads: type(
    'IST0127',
    'NoMatchingWorkloadsFound',
    'Warning',
    'no workload is selected: {}',
    'No pod, Deployment, StatefulSet, DaemonSet, Job or WorkloadEntry has these labels: the policy protects nothing. Correct the selector.',
  ),
  unverifiedHost: type(
    'IST0128',
    'NoServerCertificateVerificationDestinationLevel',
    'Warning',
    '{}',
    'TLS to that host without roots to verify its certificate with.',
  ),
  unverifiedPort: type(
    'IST0129',
    'NoServerCertificateVerificationPortLevel',
    'Warning',
    '{}',
    'TLS to that port without roots to verify its certificate with.',
  ),
  unreachableRule: type(
    'IST0130',
    'VirtualServiceUnreachableRule',
    'Warning',
    'rule {}',
    'No request reaches the rule, as earlier rules take all that it could match: change the order, or drop it.',
  ),
  ineffectiveMatch: type(
    'IST0131',
    'VirtualServiceIneffectiveMatch',
    'Info',
    'rule {}',
    'An earlier match takes all that this match could match.',
  ),
  mild: type(
    'IST0133',
    'SchemaWarning',
    'Warning',
    'schema: {}',
    'A value that changes nothing, or less than its author may think. What the object is for works.',
  ),
  addressesRequired: type(
    'IST0134',
    'ServiceEntryAddressesRequired',
    'Warning',
    'addresses are required: {}',
    'A port of TCP is known by its address alone. Name addresses, or let istiod give the entry one (`PILOT_ENABLE_IP_AUTOALLOCATE`, on by default).',
  ),
  claimsUnverified: type(
    'IST0149',
    'JwtClaimBasedRoutingWithoutRequestAuthN',
    'Error',
    'routes by {}',
    'A rule that matches claims of a token is taken only where a RequestAuthentication has verified one: write one for the service or its waypoint.',
  ),
  externalName: type(
    'IST0150',
    'ExternalNameServiceTypeInvalidPortName',
    'Warning',
    'port {}',
    'Ports of an ExternalName Service need a name that says their protocol (`tcp`, `http-web`).',
  ),
  ineffectiveSelector: type(
    'IST0166',
    'IneffectiveSelector',
    'Warning',
    'selector on Gateway {}',
    'Policies reach the proxy of a Gateway by targetRefs, never by the labels of its pods.',
  ),
  ineffective: type(
    'IST0167',
    'IneffectivePolicy',
    'Warning',
    'no effect: {}',
    'A Sidecar resource configures sidecars, and the pods that it is for have none.',
  ),
  condition: type(
    'IST0171',
    'NegativeConditionStatus',
    'Warning',
    '{}',
    'A condition in the status of the object says that something is wrong; its message says what.',
  ),
  subsetWithoutPods: type(
    'IST0173',
    'DestinationRuleSubsetNotSelectPods',
    'Error',
    'subset {}',
    'Requests for the subset are answered with an error, as no workload of the service has its labels.',
  ),
  unknownHost: type(
    'IST0174',
    'UnknownDestinationRuleHost',
    'Warning',
    'host {}',
    'No service of that name is known: the rule is about nothing.',
  ),
  conflictingProtocols: type(
    'IST0177',
    'ConflictingServiceEntryProtocol',
    'Warning',
    'ServiceEntries {}',
    'Several ServiceEntries give the same host and port another protocol each.',
  ),
  noWaypoint: type(
    'WRN0101',
    'WaypointNotFound',
    'Error',
    '{}',
    '`istio.io/use-waypoint` names a waypoint that is not there. Its services are refused rather than served without what the waypoint would enforce: deploy it (`meshctl waypoint apply`), or mend the label.',
  ),
  rejected: type(
    'WRN0102',
    'WaypointRejects',
    'Warning',
    '{}',
    'The waypoint does not take the object, so its traffic goes past the waypoint: see allowedRoutes of its listener and its label `istio.io/waypoint-for`.',
  ),
  wildcard: type('WRN0103', 'WildcardWithoutWaypoint', 'Warning', '{}', 'Bind the ServiceEntry to a waypoint.'),
  requireWaypoint: type(
    'WRN0104',
    'RequiredWaypointMissing',
    'Error',
    '{}',
    '`warren.dev/require-waypoint` on a pod or namespace is for what comes past a waypoint, and none is bound: name one (`istio.io/use-waypoint`).',
  ),
  unknownLabel: type(
    'WRN0105',
    'UnknownLabel',
    'Warning',
    'unknown {}',
    'There is no such label of Istio or Warren, so it does nothing: a misspelt `istio.io/use-waypoint` binds nothing to a waypoint.',
  ),
  misplacedLabel: type(
    'WRN0106',
    'MisplacedLabel',
    'Warning',
    'misplaced: {}',
    'A label on a kind of object that nobody reads it from (a Deployment, instead of the pods of its template), or an annotation written as a label.',
  ),
  grantNotNeeded: type(
    'WRN0303',
    'GrantNotNeeded',
    'Info',
    '{}',
    'Routes of the mesh may send to Services of any namespace, whose waypoints and policies decide what is let in: without the ReferenceGrant they do just the same. It counts for the gateways of other controllers.',
  ),
  never: type(
    'WRN0201',
    'NeverEnforced',
    'Error',
    'nobody will enforce this: {}',
    'No object that could be created later would make anybody enforce it as it is written. Change the object itself.',
    'final',
  ),
  httpAtL4: type(
    'WRN0202',
    'HttpRuleWithoutWaypoint',
    'Warning',
    '{}',
    'A policy with a selector is enforced by ztunnels, which see no HTTP. Name a waypoint, or a service behind one, in targetRefs.',
  ),
  denyAll: type(
    'WRN0203',
    'AllowIsDenyAll',
    'Error',
    '{}',
    'Each of its rules has something that ztunnels cannot match, and a rule that cannot be matched allows nothing. Name a waypoint, or a service behind one, in targetRefs.',
  ),
  unbound: type(
    'WRN0204',
    'TargetWithoutWaypoint',
    'Warning',
    'not enforced yet: {}',
    'The object is for waypoints, and its target has none: label the Service or its namespace with `istio.io/use-waypoint`.',
  ),
  stricter: type(
    'WRN0205',
    'EnforcedMoreStrictly',
    'Warning',
    'enforced more strictly than written: {}',
    'Warren does not do what the object asks for, and refuses what it cannot decide.',
  ),
  idle: type('WRN0206', 'WithoutEffect', 'Warning', 'without effect: {}', 'Nothing that there is now follows the object.'),
  outOfMesh: type(
    'WRN0207',
    'SelectsOutsideMesh',
    'Warning',
    'selects workloads that are not in the mesh: {}',
    'Only pods of the mesh are protected: label the namespace with `istio.io/dataplane-mode: ambient` (`meshctl ambient enable`).',
  ),
  conflict: type(
    'WRN0208',
    'AnotherCounts',
    'Warning',
    'without effect: {}',
    'Another object for the same host counts instead of this one.',
  ),
  uncaptured: type(
    'WRN0209',
    'StrictWithUncapturedCallers',
    'Warning',
    'STRICT refuses {}',
    'Callers that are not in the mesh have no identity, so STRICT refuses them. Enrol them, or leave the port PERMISSIVE.',
  ),
  family: type(
    'WRN0210',
    'AddressFamilyUnused',
    'Warning',
    '{}',
    'The ranges are of an address family that no workload of the mesh has, so the rule matches nothing.',
  ),
  shadowed: type(
    'WRN0301',
    'ShadowedRoute',
    'Warning',
    '{}',
    'No request reaches the rule: others that go before it take everything that it matches (precedence of the Gateway API, then the older route).',
  ),
  ignored: type(
    'WRN0302',
    'RouteIgnored',
    'Warning',
    'no waypoint reads this route: {}',
    'Routes of the mesh are carried out by the waypoint of the service that they attach to.',
  ),
  unenforcedKind: type(
    'WRN0401',
    'KindNotEnforced',
    'Warning',
    '{}',
    'The kind belongs to Istio’s sidecars, gateways or Envoy. Warren carries out nothing of it.',
  ),
  claim: type(
    'WRN0501',
    'ClaimRefused',
    'Warning',
    '{}',
    'A ServiceEntry claims names or addresses that are another namespace’s, or nobody’s to claim. An administrator can grant the host (`WARREN_GRANTED_HOSTS`).',
  ),
} as const satisfies Record<string, MessageType>;

export type MessageName = keyof typeof messageTypes;

/** Where a code is explained: Istio's own pages for its codes. */
export const docsLink = ({ code }: Pick<MessageType, 'code'>): string =>
  code.startsWith('IST')
    ? `https://istio.io/latest/docs/reference/config/analysis/${code.toLowerCase()}/`
    : `docs/analyze.md#${code.toLowerCase()}`;

/** Where an object comes from: `Kind namespace/name`, and the file's place where it is from one. */
export interface Origin {
  readonly kind: string;
  /** Empty for objects of the cluster. */
  readonly namespace: string;
  readonly name: string;
  /** `file.yaml:12`; undefined for objects of a live cluster. */
  readonly reference?: string | undefined;
}

export interface Message {
  readonly type: MessageType;
  readonly origin: Origin;
  readonly text: string;
}

export const message = (name: MessageName, origin: Origin, detail: string): Message => {
  const found = messageTypes[name];
  return { type: found, origin, text: found.template.replace('{}', () => detail) };
};

/** `AuthorizationPolicy shop/web`. */
export const friendlyName = ({ kind, namespace, name }: Origin): string => `${kind} ${namespace === '' ? name : `${namespace}/${name}`}`;

const RANK: Readonly<Record<Level, number>> = { Info: 0, Warning: 1, Error: 2 };

export const atLeast = (level: Level, threshold: Level): boolean => RANK[level] >= RANK[threshold];

/** The gravest first, then by code and object, so that two runs print the same. */
export function byGravity(a: Message, b: Message): number {
  return (
    RANK[b.type.level] - RANK[a.type.level] ||
    compare(a.type.code, b.type.code) ||
    compare(friendlyName(a.origin), friendlyName(b.origin)) ||
    compare(a.text, b.text)
  );
}

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);
