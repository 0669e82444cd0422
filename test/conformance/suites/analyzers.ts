/**
 * Istio's cases of its analyzers: objects and the messages about them. Of each case those messages count that concern an ambient mesh (CODES);
 * a case that is about none of them is skipped with the reason. A message is compared by its code and by the object that it is about.
 */
import { readFileSync } from 'node:fs';
import yaml from 'js-yaml';
import { analyze } from '../../../istiod-lite/analysis/analyze.ts';
import { friendlyName, messageTypes } from '../../../istiod-lite/analysis/messages.ts';
import { ObjectSet } from '../../../istiod-lite/analysis/object-set.ts';
import type { AutoAddressRanges } from '../../../istiod-lite/model/auto-addresses.ts';
import { attempt, type CaseResult, type Suite, uniqueNames } from '../suite.ts';

const folder = 'istio/pkg/config/analysis';
const CASES = 'istio/derived/analyzers-cases.json';

interface Expected {
  readonly code: string;
  /** `Kind namespace/name`, or without the namespace where the object says none. */
  readonly origin: string;
}

interface Case {
  readonly name: string;
  readonly analyzer: string;
  readonly inputFiles: readonly string[];
  readonly expected: readonly Expected[];
  readonly meshConfigFile?: string;
}

/** Which of our codes each of Istio's analyzers stands for; what it says beside them is not about an ambient mesh. */
const CODES: Readonly<Record<string, readonly string[]>> = {
  'annotations.K8sAnalyzer': ['IST0107', 'IST0108'],
  'authn.BlockedCIDRsAnalyzer': ['IST0175'],
  'authz.AuthorizationPoliciesAnalyzer': ['IST0127', 'IST0101'],
  'call:schema.CollectionValidationAnalyzer': ['IST0130', 'IST0131'],
  'conditions.ConditionAnalyzer': ['IST0171'],
  'destinationrule.CaCertificateAnalyzer': ['IST0128', 'IST0129'],
  'destinationrule.PodNotSelectedAnalyzer': ['IST0173', 'IST0174'],
  'k8sgateway.SelectorAnalyzer': ['IST0166'],
  'service.PortNameAnalyzer': ['IST0118', 'IST0150'],
  'serviceentry.ConflictingServiceEntryProtocolAnalyzer': ['IST0177'],
  'serviceentry.ProtocolAddressesAnalyzer': ['IST0134'],
  'sidecar.SelectorAnalyzer': ['IST0167'],
  'virtualservice.ConflictingMeshGatewayHostsAnalyzer': ['IST0109'],
  'virtualservice.DestinationHostAnalyzer': ['IST0101', 'IST0112'],
  'virtualservice.DestinationRuleAnalyzer': ['IST0101'],
};

/** Analyzers whose cases say nothing about an ambient mesh, and why. */
const SKIPPED: Readonly<Record<string, string>> = {
  'maturity.AlphaAnalyzer': 'annotations of sidecars',
  'deprecation.FieldAnalyzer': 'deprecated fields that the API no longer has, and Sidecar resources',
  'deployment.ApplicationUIDAnalyzer': 'user 1337 is the sidecar’s',
  'deployment.ServiceAssociationAnalyzer': 'ports of Deployments with sidecars',
  'envoyfilter.EnvoyPatchAnalyzer': 'how Envoy is patched; here each EnvoyFilter is told of as not enforced (WRN0401)',
  'externalcontrolplane.ExternalControlPlaneAnalyzer': 'webhooks of Istio’s external control plane',
  'gateway.ConflictingGatewayAnalyzer': 'Istio’s Gateway, whose kind is told of as not enforced (WRN0401)',
  'gateway.IngressGatewayPortAnalyzer': 'Istio’s Gateway, whose kind is told of as not enforced (WRN0401)',
  'gateway.SecretAnalyzer': 'Istio’s Gateway, whose kind is told of as not enforced (WRN0401)',
  'injection.Analyzer': 'injection of sidecars',
  'injection.ImageAutoAnalyzer': 'injection of sidecars',
  'k8sgateway.CRDVersionAnalyzer': 'a definition’s version; `meshctl check --pre` looks at what is installed',
  'multicluster.MeshNetworksAnalyzer': 'several clusters',
  'telemetry.DefaultSelectorAnalyzer': 'telemetry of sidecars',
  'telemetry.LightstepAnalyzer': 'a provider that is not carried out',
  'telemetry.ProviderAnalyzer': 'providers of telemetry',
  'telemetry.SelectorAnalyzer': 'Telemetry with selectors is for sidecars',
  'virtualservice.GatewayAnalyzer': 'VirtualServices of Istio’s gateways, told of as without effect (WRN0206)',
  'virtualservice.JWTClaimRouteAnalyzer': 'VirtualServices of Istio’s gateways',
  'webhook.Analyzer': 'webhooks of the sidecar injector',
};

/** Parts of cases in which an ambient mesh is another one, by case and object. */
const ELSEWHERE: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  virtualServiceDestinationHosts: {
    'VirtualService default/reviews-bookinfo-other': 'exportTo of Services and ServiceEntries is not read in an ambient mesh',
    'VirtualService istio-system/cross-namespace-details': 'exportTo of Services and ServiceEntries is not read in an ambient mesh',
    'VirtualService hello/hello-export-to-bogus': 'exportTo of Services and ServiceEntries is not read in an ambient mesh',
    'VirtualService default/reviews-bookinfo-eu': 'a destination is a service that is there, and no host below one with a wildcard',
    'VirtualService default/reviews-bookinfo-eu-wildcard': 'a destination is a service that is there, and no host with a wildcard',
  },
  'Route Rule no effect on Ingress': { 'VirtualService default/testing-service-01-test-01': 'rules of Istio’s ingress gateways' },
};

const DOMAIN = 'cluster.local';
const config = {
  clusterId: 'Kubernetes',
  domain: DOMAIN,
  rootNamespace: 'istio-system',
  trustDomain: DOMAIN,
  network: '',
  guardClaims: false,
};
const ranges: AutoAddressRanges = {
  v4: { bytes: new Uint8Array([240, 240, 0, 0]), length: 16 },
  v6: { bytes: new Uint8Array(16), length: 48 },
};

const REVIEWS = {
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name: 'reviews', namespace: 'default' },
  spec: { ports: [{ name: 'http', port: 80 }], clusterIPs: ['10.96.0.9'] },
};

export const suite: Suite = {
  suite: folder,
  *run(cases) {
    const unique = uniqueNames();
    const { cases: all } = JSON.parse(readFileSync(cases.fixture(CASES), 'utf8')) as { cases: Case[] };
    for (const one of all) {
      const name = unique(one.name);
      const codes = CODES[one.analyzer];
      if (codes)
        yield attempt(name, () => run(name, one, codes, (file) => readFileSync(cases.fixture(`${folder}/analyzers/${file}`), 'utf8')));
      else yield { case: name, verdict: 'skip', reason: SKIPPED[one.analyzer] ?? `nobody has looked at ${one.analyzer} yet` };
    }
  },
};

function run(name: string, one: Case, codes: readonly string[], read: (file: string) => string): CaseResult {
  const set = new ObjectSet();
  // Objects without a namespace keep none, as the cases name them.
  for (const file of one.inputFiles) for (const object of documents(read(file))) set.add(object, { defaultNamespace: '', reference: file });
  const allocates = one.meshConfigFile !== undefined && read(one.meshConfigFile).includes('ISTIO_META_DNS_AUTO_ALLOCATE');
  const elsewhere = ELSEWHERE[one.name] ?? {};
  const left = ({ code, origin }: Expected): boolean => codes.includes(code) && !Object.hasOwn(elsewhere, origin);
  const aboutSubsets = one.analyzer === 'virtualservice.DestinationRuleAnalyzer';
  // That analyzer looks at rules alone, and its case has not the service that they are about.
  if (aboutSubsets) set.add(REVIEWS, { defaultNamespace: '' });
  const messages = analyze(set, { config: allocates ? { ...config, autoAddresses: ranges } : config })
    .filter(({ type, text }) => type.code !== 'IST0101' || text.includes(' has no subset ') === aboutSubsets)
    .map(({ type, origin }) => ({ code: type.code, origin: friendlyName(origin) }));
  const [actual, expected] = [messages, one.expected].map((list) =>
    list
      .filter(left)
      .map(({ code, origin }) => `${code} ${origin}`)
      .sort(),
  );
  const missing = without(expected ?? [], actual ?? []);
  const surplus = without(actual ?? [], expected ?? []);
  if (missing.length + surplus.length > 0)
    return {
      case: name,
      verdict: 'fail',
      reason: `missing: ${missing.join('; ') || 'nothing'}. Too many: ${surplus.join('; ') || 'nothing'}`,
    };
  const unknown = one.expected.filter(left).filter(({ code }) => !Object.values(messageTypes).some((type) => type.code === code));
  if (unknown.length > 0) return { case: name, verdict: 'fail', reason: `no such code: ${unknown.map(({ code }) => code).join(', ')}` };
  return { case: name, verdict: 'pass', reason: '' };
}

/** What is in the first list more often than in the second one. */
function without(list: readonly string[], other: readonly string[]): string[] {
  const left = [...other];
  return list.filter((item) => {
    const at = left.indexOf(item);
    if (at >= 0) left.splice(at, 1);
    return at < 0;
  });
}

function* documents(text: string): Generator<unknown> {
  for (const document of yaml.loadAll(text, undefined, { schema: yaml.CORE_SCHEMA })) {
    const items = (document as { kind?: string; items?: unknown[] } | null)?.items;
    if (Array.isArray(items)) yield* items;
    else yield document;
  }
}
