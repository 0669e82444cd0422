/**
 * Fields of Istio's kinds that there are not. Our definitions of these kinds leave their fields open, so that objects of any Istio pass, and then
 * `rulez` would be an AuthorizationPolicy without rules: a DENY that denies nothing, in silence. Names are those of Istio's API (v1).
 */
import { isRecord } from '../model/objects.ts';
import type { ObjectCheck } from './analyzer.ts';
import { type Message, message, type Origin } from './messages.ts';

/** Names of fields, each with what is below it; `true` where anything may be. Lists have the shape of their items. */
interface Shape {
  readonly [field: string]: Shape | true;
}

const names = (text: string): Shape => Object.fromEntries(text.split(' ').map((name) => [name, true] as const));

const TARGET = names('group kind name namespace sectionName');
const SELECTOR: Shape = { matchLabels: true };
const DESTINATION = names('host subset port');
const ROUTE: Shape = { destination: DESTINATION, weight: true };
const POLICY = names('loadBalancer connectionPool outlierDetection tls tunnel proxyProtocol retryBudget');
const TRAFFIC_POLICY: Shape = { ...POLICY, portLevelSettings: { port: true, ...POLICY } };
const CONNECTION = 'destinationSubnets gateways port sourceLabels sourceNamespace';

const SHAPES: Readonly<Record<string, Shape>> = {
  'AuthorizationPolicy.security.istio.io': {
    selector: SELECTOR,
    targetRef: TARGET,
    targetRefs: TARGET,
    action: true,
    provider: names('name'),
    rules: {
      from: {
        source: names(
          'principals notPrincipals requestPrincipals notRequestPrincipals namespaces notNamespaces serviceAccounts notServiceAccounts ipBlocks notIpBlocks remoteIpBlocks notRemoteIpBlocks trustDomains notTrustDomains',
        ),
      },
      to: { operation: names('hosts notHosts ports notPorts methods notMethods paths notPaths') },
      when: names('key values notValues'),
    },
  },
  'PeerAuthentication.security.istio.io': { selector: SELECTOR, mtls: names('mode'), portLevelMtls: true },
  'RequestAuthentication.security.istio.io': {
    selector: SELECTOR,
    targetRef: TARGET,
    targetRefs: TARGET,
    jwtRules: names(
      'issuer audiences jwksUri jwks_uri jwks fromHeaders fromParams fromCookies outputPayloadToHeader outputClaimToHeaders forwardOriginalToken timeout spaceDelimitedClaims presence',
    ),
  },
  'VirtualService.networking.istio.io': {
    ...names('hosts gateways exportTo'),
    http: {
      ...names(
        'name redirect directResponse rewrite timeout retries fault mirror mirrorPercent mirror_percent mirrorPercentage mirrors corsPolicy',
      ),
      delegate: names('name namespace'),
      headers: names('request response'),
      match: names(
        'name uri scheme method authority headers port sourceLabels gateways queryParams ignoreUriCase withoutHeaders sourceNamespace statPrefix',
      ),
      route: { ...ROUTE, headers: names('request response') },
    },
    tls: { match: names(`sniHosts ${CONNECTION}`), route: ROUTE },
    tcp: { match: names(`sourceSubnet ${CONNECTION}`), route: ROUTE },
  },
  'DestinationRule.networking.istio.io': {
    ...names('host exportTo workloadSelector'),
    trafficPolicy: TRAFFIC_POLICY,
    subsets: { name: true, labels: true, trafficPolicy: TRAFFIC_POLICY },
  },
  'ServiceEntry.networking.istio.io': {
    ...names('hosts addresses location resolution exportTo subjectAltNames'),
    ports: names('number protocol name targetPort'),
    endpoints: names('address ports labels network locality weight serviceAccount'),
    workloadSelector: names('labels'),
  },
  'WorkloadEntry.networking.istio.io': names('address ports labels network locality weight serviceAccount'),
  'Telemetry.telemetry.istio.io': {
    selector: SELECTOR,
    targetRef: TARGET,
    targetRefs: TARGET,
    tracing: names(
      'match providers randomSamplingPercentage disableSpanReporting customTags useRequestIdForTraceSampling enableIstioTags disableContextPropagation',
    ),
    metrics: names('providers overrides reportingInterval'),
    accessLogging: names('match providers disabled filter'),
  },
};

export const unknownFields: ObjectCheck = {
  name: 'schema.UnknownFields',
  doc: "fields that Istio's kinds do not have, a misspelt one among them",
  check({ kind, group, origin, object }) {
    const id = `${kind}.${group}`;
    const found: Message[] = [];
    if (Object.hasOwn(SHAPES, id)) compare(object.spec, SHAPES[id] ?? true, 'spec', origin, found);
    return found;
  },
};

const MOST = 20;

function compare(value: unknown, shape: Shape | true, path: string, origin: Origin, found: Message[]): void {
  if (shape === true || found.length >= MOST) return;
  if (Array.isArray(value)) {
    for (const [index, item] of value.entries()) compare(item, shape, `${path}[${index}]`, origin, found);
    return;
  }
  if (!isRecord(value)) return;
  for (const [name, field] of Object.entries(value)) {
    if (found.length >= MOST) return;
    const below = Object.hasOwn(shape, name) ? shape[name] : undefined;
    if (below === undefined) found.push(message('unreadable', origin, `${path}.${name.slice(0, 60)}: there is no such field`));
    else compare(field, below, `${path}.${name}`, origin, found);
  }
}
