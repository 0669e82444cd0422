/**
 * Definitions of the Istio kinds that Warren reads, for clusters that have none: names, versions, short names and columns as Istio's own, and
 * fields left open, since istiod-lite says what is wrong with an object. Istio's kinds that Warren does not enforce (EnvoyFilter, Sidecar,
 * WasmPlugin …) are left out: the API server then refuses them, rather than anybody believing in them.
 */
import yaml from 'js-yaml';
import { ownDefinitions } from './own-crds.ts';

const CRDS_FILE = 'manifests/charts/warren/crds/istio.yaml';
const OWN_CRDS_FILE = 'manifests/charts/warren/crds/warren.yaml';
/** On every definition of ours, so that whoever removes them removes no other. */
const DEFINITION_LABEL = 'warren.dev/definition';

interface Kind {
  readonly kind: string;
  readonly plural: string;
  readonly shortNames: readonly string[];
  /** The first one is stored. */
  readonly versions: readonly string[];
  /** Name, JSON path, description. */
  readonly columns: readonly (readonly [name: string, path: string, description: string])[];
}

const ALL = ['v1', 'v1beta1', 'v1alpha3'];
const SECURITY = ['v1', 'v1beta1'];

const groups: Readonly<Record<string, readonly Kind[]>> = {
  'networking.istio.io': [
    {
      kind: 'DestinationRule',
      plural: 'destinationrules',
      shortNames: ['dr'],
      versions: ALL,
      columns: [['Host', '.spec.host', 'The service that it is about']],
    },
    {
      kind: 'ServiceEntry',
      plural: 'serviceentries',
      shortNames: ['se'],
      versions: ALL,
      columns: [
        ['Hosts', '.spec.hosts', 'Its names'],
        ['Location', '.spec.location', 'Whether it is inside the mesh'],
        ['Resolution', '.spec.resolution', 'How its addresses are found'],
      ],
    },
    {
      kind: 'VirtualService',
      plural: 'virtualservices',
      shortNames: ['vs'],
      versions: ALL,
      columns: [
        ['Gateways', '.spec.gateways', 'Where its routes hold'],
        ['Hosts', '.spec.hosts', 'Whose requests it routes'],
      ],
    },
    {
      kind: 'WorkloadEntry',
      plural: 'workloadentries',
      shortNames: ['we'],
      versions: ALL,
      columns: [['Address', '.spec.address', 'Where the workload is']],
    },
  ],
  'security.istio.io': [
    {
      kind: 'AuthorizationPolicy',
      plural: 'authorizationpolicies',
      shortNames: ['ap'],
      versions: SECURITY,
      columns: [['Action', '.spec.action', 'What happens to what matches']],
    },
    {
      kind: 'PeerAuthentication',
      plural: 'peerauthentications',
      shortNames: ['pa'],
      versions: SECURITY,
      columns: [['Mode', '.spec.mtls.mode', 'Whether plaintext is accepted']],
    },
    { kind: 'RequestAuthentication', plural: 'requestauthentications', shortNames: ['ra'], versions: SECURITY, columns: [] },
  ],
  'telemetry.istio.io': [
    { kind: 'Telemetry', plural: 'telemetries', shortNames: ['telemetry'], versions: ['v1', 'v1alpha1'], columns: [] },
  ],
};

const OWN_NOTE = `# Made by scripts/generate.ts from scripts/own-crds.ts: Warren's own kinds. \`kubectl apply\` brings an older version up to date.
`;
const NOTE = `# Made by scripts/generate.ts from scripts/crds.ts: the Istio kinds that Warren reads, for clusters that do not have them.
# \`kubectl create -f\` leaves those alone that are there (\`apply\` would overwrite Istio's own).
`;

/** Files and texts, as scripts/generate.ts takes them. */
export function generatedCrds(): [string, string][] {
  const definitions = Object.entries(groups).flatMap(([group, kinds]) => kinds.map((kind) => definitionOf(group, kind)));
  return [
    [CRDS_FILE, NOTE + written(definitions)],
    [OWN_CRDS_FILE, OWN_NOTE + written(ownDefinitions())],
  ];
}

const written = (definitions: readonly object[]): string =>
  definitions.map((definition) => yaml.dump(definition, { lineWidth: 140, noRefs: true })).join('---\n');

function definitionOf(group: string, { kind, plural, shortNames, versions, columns }: Kind): object {
  const open = { type: 'object', 'x-kubernetes-preserve-unknown-fields': true };
  return {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: {
      name: `${plural}.${group}`,
      labels: { 'app.kubernetes.io/part-of': 'warren', [DEFINITION_LABEL]: 'istio' },
      annotations: { 'helm.sh/resource-policy': 'keep' },
    },
    spec: {
      group,
      names: {
        kind,
        listKind: `${kind}List`,
        plural,
        singular: kind.toLowerCase(),
        shortNames,
        categories: ['istio-io', group.replaceAll('.', '-')],
      },
      scope: 'Namespaced',
      versions: versions.map((name, i) => ({
        name,
        served: true,
        storage: i === 0,
        subresources: { status: {} },
        additionalPrinterColumns: [
          ...columns.map(([column, jsonPath, description]) => ({ name: column, type: 'string', jsonPath, description })),
          { name: 'Age', type: 'date', jsonPath: '.metadata.creationTimestamp', description: 'Time since it was created' },
        ],
        schema: { openAPIV3Schema: { type: 'object', properties: { spec: open, status: open } } },
      })),
    },
  };
}
