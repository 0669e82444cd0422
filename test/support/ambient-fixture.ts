/** What the tables of Istio's ambient tests put around a pod, a service or an entry, as the inputs of our translation. */
import { Action, type Authorization, Scope } from '../../common/codec/gen/authorization.ts';
import { IPFamilies, Service_Visibility } from '../../common/codec/gen/workload.ts';
import type { MeshModelConfig, Visibility } from '../../istiod-lite/model/config.ts';
import { readEndpointSlice } from '../../istiod-lite/model/endpoint-slice.ts';
import type { Gateway } from '../../istiod-lite/model/gateway.ts';
import { Inputs } from '../../istiod-lite/model/inputs.ts';
import type { MeshService } from '../../istiod-lite/model/mesh-service.ts';
import type { Labels } from '../../istiod-lite/model/objects.ts';
import { labelSelectorPicks } from '../../istiod-lite/model/selectors.ts';
import { readService } from '../../istiod-lite/model/service.ts';
import { Translation } from '../../istiod-lite/model/translation.ts';
import { isJson, type Json, kubernetesObject, typeOf } from './go-objects.ts';
import { gatewayAddress } from './workloadapi.ts';

export const CONFIG: MeshModelConfig = {
  clusterId: 'cluster0',
  domain: 'domain.suffix',
  rootNamespace: 'istio-system',
  trustDomain: 'cluster.local',
  network: 'testnetwork',
};

export interface Fixture {
  readonly config: MeshModelConfig;
  readonly inputs: Inputs;
  readonly translation: Translation;
}

const quiet = (): void => {};
const NO_WORDS = { labels: {}, annotations: {} };

export function fixture(given: readonly unknown[]): Fixture {
  const config = { ...CONFIG, ...visibilityOf(given) };
  const inputs = new Inputs(config.rootNamespace);
  for (const gateway of remoteGateways()) inputs.setGateway(gateway.key, gateway);
  for (const item of given) place(config, inputs, item);
  return { config, inputs, translation: new Translation(config, inputs) };
}

function place(config: MeshModelConfig, inputs: Inputs, item: unknown): void {
  const fields = isJson(item) ? item : {};
  const type = typeOf(item);
  if (type === 'Waypoint') placeWaypoint(inputs, fields);
  else if (type === 'TypedServiceInfo') placeService(inputs, fields.ServiceInfo as Json);
  else if (type === 'model.ServiceInfo') placeService(inputs, fields);
  else if (type === 'model.WorkloadAuthorization') placePolicy(inputs, fields);
  else if (type !== 'meshwatcher.MeshConfigResource') placeObject(config, inputs, kubernetesObject(item) as Json, type);
}

function placeObject(config: MeshModelConfig, inputs: Inputs, object: Json, type: string): void {
  const { name = '', namespace = '', labels = {}, annotations = {} } = (object.metadata ?? {}) as Record<string, never>;
  const kind = type.startsWith('call:') ? object.kind : type.split('.').at(-1);
  if (kind === 'Namespace') inputs.setNamespace(name, { labels, annotations });
  else if (kind === 'EndpointSlice') inputs.slices.set(`${namespace}/${name}`, readEndpointSlice(object, quiet));
  else if (kind === 'Node') inputs.setNode(String(object.name), { subzone: '', ...(object.locality as { region: string; zone: string }) });
  else if (kind === 'Service') {
    const service = readService(config, object, quiet);
    if (service)
      inputs.setServices('Service', service.key, { key: service.key, namespace: service.namespace, words: NO_WORDS, services: [service] });
  } else throw new Error(`the case needs ${type}, which is not supplied`);
}

function placeWaypoint(inputs: Inputs, fields: Json): void {
  const { Name, Namespace } = fields.Named as { Name: string; Namespace: string };
  const allowed = (fields.AllowedRoutes ?? {}) as Json;
  const binding = fields.DefaultBinding as { Port: number; Protocol: string } | undefined;
  const gateway: Gateway = {
    key: `${Namespace}/${Name}`,
    namespace: Namespace,
    name: Name,
    className: '',
    labels: { 'istio.io/waypoint-for': String(fields.TrafficType) },
    annotations: binding ? { 'ambient.istio.io/waypoint-inbound-binding': `${binding.Protocol}/${binding.Port}` } : {},
    listeners: [
      {
        name: 'mesh',
        protocol: 'HBONE',
        port: 15008,
        from: String(allowed.FromNamespaces ?? 'Same'),
        selector: kubernetesObject(allowed.Selector),
      },
    ],
    generation: 1,
    serviceName: Name,
    revision: undefined,
    address: gatewayAddress(fields.Address)?.destination,
  };
  inputs.setGateway(gateway.key, gateway);
}

/** The tests' networks: one that a gateway's address leads to, and one by name. */
const remoteGateways = (): Gateway[] => [
  remoteGateway('remote-network', { $case: 'address', value: { network: '', address: Uint8Array.of(9, 9, 9, 9), length: undefined } }),
  remoteGateway('remote-network-hostname', { $case: 'hostname', value: { namespace: 'ns-gtw', hostname: 'networkgateway.example.com' } }),
];

const remoteGateway = (network: string, address: Gateway['address']): Gateway => ({
  key: `ns-gtw/${network}`,
  namespace: 'ns-gtw',
  name: network,
  className: 'istio-remote',
  labels: { 'topology.istio.io/network': network },
  annotations: {},
  listeners: [],
  generation: 1,
  serviceName: network,
  revision: undefined,
  address,
});

function placeService(inputs: Inputs, info: Json): void {
  const service = meshService(info);
  const key = service.key;
  inputs.setServices(service.source, key, { key, namespace: service.namespace, words: NO_WORDS, services: [service] });
}

export function meshService(info: Json): MeshService {
  const { Name, Namespace, Hostname, Ports, Visibility: visibility } = info.Service as Record<string, never>;
  const portNames = (info.PortNames ?? {}) as Record<string, { PortName?: string; TargetPortName?: string }>;
  const selector = kubernetesObject(info.LabelSelector) as Labels | undefined;
  const ports = (Ports ?? []) as { ServicePort: number; TargetPort: number }[];
  return {
    source: (info.Source as Json | undefined)?.Kind === 'ServiceEntry' ? 'ServiceEntry' : 'Service',
    key: `${Namespace}/${Name}`,
    namespace: Namespace ?? '',
    name: Name ?? '',
    hostname: Hostname ?? '',
    createdAt: String(kubernetesObject(info.CreationTime) ?? ''),
    selector: selector && Object.keys(selector).length > 0 ? selector : undefined,
    ports: ports.map(({ ServicePort, TargetPort }) => ({
      port: ServicePort,
      target: TargetPort,
      // Slices carry the Service's port names; the tests that use them leave the names different.
      name: portNames[ServicePort]?.PortName ?? '',
      targetName: portNames[ServicePort]?.TargetPortName ?? '',
      appProtocol: 0,
    })),
    addresses: [],
    loadBalancing: undefined,
    distribution: undefined,
    allowUnhealthy: false,
    ipFamilies: IPFamilies.AUTOMATIC,
    subjectAltNames: [],
    visibility: visibility === 'NAMESPACE' ? Service_Visibility.NAMESPACE : Service_Visibility.PUBLIC,
  };
}

function placePolicy(inputs: Inputs, fields: Json): void {
  const { Name: name, Namespace: namespace } = fields.Authorization as { Name: string; Namespace: string };
  const selector = kubernetesObject(fields.LabelSelector) as Labels;
  const authorization: Authorization = {
    name,
    namespace,
    scope: Scope.WORKLOAD_SELECTOR,
    action: Action.ALLOW,
    groups: [],
    dryRun: false,
    extensions: [],
  };
  const key = `${namespace}/${name}`;
  inputs.setPolicy(key, { key, namespace, selector, authorization, condition: undefined, httpFields: [] });
}

/** meshConfig.serviceEntryVisibility: the first policy that picks the namespace, else the default. */
function visibilityOf(given: readonly unknown[]): Pick<MeshModelConfig, 'serviceEntryVisibility'> {
  const resource = given.find((item) => typeOf(item) === 'meshwatcher.MeshConfigResource') as Json | undefined;
  const settings = (resource?.MeshConfig as Json | undefined)?.ServiceEntryVisibility as Json | undefined;
  if (!settings) return {};
  const policies = (settings.Policies ?? []) as { Visibility: Visibility; MatchingRules: { Matcher: { NamespaceSelector: unknown } }[] }[];
  return {
    serviceEntryVisibility: (labels) => {
      const first = policies.find(({ MatchingRules }) =>
        MatchingRules.some(({ Matcher }) => labelSelectorPicks(kubernetesObject(Matcher.NamespaceSelector), labels)),
      );
      return first?.Visibility ?? (settings.DefaultVisibility as Visibility | undefined) ?? 'PUBLIC';
    },
  };
}
