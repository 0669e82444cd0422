/** A reader for each watched kind: what of an object counts goes to the inputs; what it says that nothing depends on, straight to the outputs. */
import { Service_Visibility } from '../../common/codec/gen/workload.ts';
import { type AuthorizationPolicy, readAuthorizationPolicy } from './authorization-policy.ts';
import { ENFORCED } from './conditions.ts';
import type { MeshModelConfig } from './config.ts';
import { readDestinationRule } from './destination-rule.ts';
import { readEndpointSlice } from './endpoint-slice.ts';
import { checkEnrolment } from './enrolment.ts';
import { isForEverybody } from './entry-claims.ts';
import { readGateway, readGatewayClass } from './gateway.ts';
import { classAccepted } from './gateway-status.ts';
import { readRoute } from './http-route.ts';
import { type Inputs, inheritedAnnotations, type ServiceSource } from './inputs.ts';
import { MESH_CONFIG_MAP, readMeshConfig } from './mesh-config.ts';
import type { MeshService } from './mesh-service.ts';
import * as names from './names.ts';
import { pick, type Report, readMeta } from './objects.ts';
import type { Outputs } from './outputs.ts';
import { readPeerAuthentication } from './peer-authentication.ts';
import { readPod } from './pod.ts';
import { readTargetedPolicy } from './policy-targets.ts';
import { hasTargets } from './request-authentication.ts';
import { readWaypointWords } from './required-waypoint.ts';
import { authorizationResource } from './resources.ts';
import type { RouteKind } from './routes.ts';
import { readService } from './service.ts';
import { entryServices, readServiceEntry, type ServiceEntry } from './service-entry.ts';
import { readTelemetry } from './telemetry.ts';
import { whyUnenforced } from './unenforced-kinds.ts';
import { readVirtualService } from './virtual-service.ts';
import { isUnenforced, type KindName, type UnenforcedKindName, unenforcedKinds, type WatchedKindName } from './watched-kinds.ts';
import { type BindingWords, readBindingWords } from './waypoint-binding.ts';
import { nodeLocality } from './workload.ts';
import { readWorkloadEntry } from './workload-entry.ts';

export class ObjectReaders {
  readonly #config: MeshModelConfig;
  readonly #inputs: Inputs;
  readonly #outputs: Outputs;

  constructor(config: MeshModelConfig, inputs: Inputs, outputs: Outputs) {
    this.#config = config;
    this.#inputs = inputs;
    this.#outputs = outputs;
  }

  /** Takes an object, or undefined where it is gone. */
  read(kind: KindName, key: string, object: unknown, report: Report): void {
    if (isUnenforced(kind)) this.#setUnenforced(kind, key, object, report);
    else this.#setters[kind](key, object, report);
  }

  readonly #setters: Readonly<Record<WatchedKindName, (key: string, object: unknown, report: Report) => void>> = {
    Namespace: (key, object, report) => {
      const words = object === undefined ? undefined : namespaceWords(object);
      if (words) {
        checkEnrolment(words.labels, report);
        readWaypointWords(words.annotations, report);
      }
      this.#inputs.setNamespace(key, words);
      if (this.#config.serviceEntryVisibility) this.#reviewVisibility(key);
    },
    Node: (key, object) => this.#inputs.setNode(key, object === undefined ? undefined : nodeLocality(object)),
    Pod: (key, object, report) => this.#inputs.setPod(key, readPod(object, report)),
    Service: (key, object, report) => {
      this.#outputs.observe('Service', key, object);
      const service = readService(this.#config, object, report);
      this.#inputs.setServices('Service', key, service && sourceOf(service, readBindingWords(object), [service]));
    },
    ServiceEntry: (key, object, report) => {
      this.#outputs.observe('ServiceEntry', key, object);
      this.#outputs.autoAddresses?.set(key, object);
      const entry = readServiceEntry(this.#config, object, report);
      this.#inputs.setServiceEntry(key, entry);
      this.#inputs.setServices('ServiceEntry', key, entry && sourceOf(entry, readBindingWords(object), this.#entryServices(entry)));
    },
    WorkloadEntry: (key, object, report) => {
      this.#outputs.observe('WorkloadEntry', key, object);
      this.#inputs.setWorkloadEntry(key, readWorkloadEntry(object, report));
    },
    ConfigMap: (key, object, report) => {
      const { rootNamespace, systemNamespace = rootNamespace } = this.#config;
      if (key !== `${systemNamespace}/${MESH_CONFIG_MAP}`) return;
      const read = readMeshConfig(object, this.#config, report);
      if (read) this.#inputs.setMeshConfig(read);
    },
    EndpointSlice: (key, object, report) => this.#inputs.slices.set(key, readEndpointSlice(object, report)),
    Gateway: (key, object, report) => {
      this.#outputs.observeWhole('Gateway', key, object);
      this.#inputs.setGateway(key, readGateway(this.#config, object, report));
    },
    GatewayClass: (key, object, report) => {
      const found = readGatewayClass(object, report);
      const ours = found?.controller === names.WAYPOINT_CONTROLLER;
      if (found && found.problem !== '') report(found.problem);
      this.#outputs.observe('GatewayClass', key, ours ? object : undefined);
      this.#outputs.statuses.want('GatewayClass', key, found && ours ? [classAccepted(found)] : []);
      this.#inputs.setGatewayClass(key, found);
    },
    HTTPRoute: (key, object, report) => this.#setRoute('HTTPRoute', key, object, report),
    GRPCRoute: (key, object, report) => this.#setRoute('GRPCRoute', key, object, report),
    TCPRoute: (key, object, report) => this.#setRoute('TCPRoute', key, object, report),
    TLSRoute: (key, object, report) => this.#setRoute('TLSRoute', key, object, report),
    VirtualService: (key, object, report) => {
      this.#outputs.observe('VirtualService', key, object);
      this.#inputs.hosts.setVirtualService(key, readVirtualService(this.#config, object, report));
    },
    DestinationRule: (key, object, report) => {
      this.#outputs.observe('DestinationRule', key, object);
      this.#inputs.hosts.setDestinationRule(key, readDestinationRule(this.#config, object, report));
    },
    AuthorizationPolicy: (key, object, report) => {
      this.#outputs.observe('ZtunnelPolicy', key, object);
      this.#outputs.observe('WaypointPolicy', key, object);
      this.#inputs.targeted.set(`AuthorizationPolicy ${key}`, readTargetedPolicy(object, report));
      this.#setPolicy(key, readAuthorizationPolicy(this.#config, object, report));
    },
    RequestAuthentication: (key, object, report) => {
      this.#outputs.observe('RequestAuthentication', key, object);
      this.#inputs.targeted.set(`RequestAuthentication ${key}`, readTargetedPolicy(object, report, 'RequestAuthentication'));
      if (object !== undefined && !hasTargets(object)) report('only targetRefs are read: without them it holds for nothing here');
    },
    BackendTLSPolicy: (key, object, report) => {
      this.#outputs.observeWhole('BackendTLSPolicy', key, object);
      this.#inputs.targeted.set(`BackendTLSPolicy ${key}`, readTargetedPolicy(object, report, 'BackendTLSPolicy'));
    },
    RateLimitPolicy: (key, object, report) => {
      this.#outputs.observeWhole('RateLimitPolicy', key, object);
      this.#inputs.targeted.set(`RateLimitPolicy ${key}`, readTargetedPolicy(object, report, 'RateLimitPolicy'));
    },
    Telemetry: (key, object) => {
      this.#outputs.observe('Telemetry', key, object);
      this.#inputs.telemetry.set(key, readTelemetry(object));
    },
    PeerAuthentication: (key, object, report) =>
      this.#inputs.peers.set(key, readPeerAuthentication(this.#config.rootNamespace, object, report)),
  };

  #setUnenforced(kind: UnenforcedKindName, key: string, object: unknown, report: Report): void {
    this.#outputs.observe(kind, key, object);
    if (object === undefined) return;
    const [group = ''] = unenforcedKinds[kind].apiVersion.split('/');
    const message = `not enforced: ${whyUnenforced[`${kind}.${group}`] ?? 'nothing here carries it out'}`;
    report(message);
    this.#outputs.statuses.want(kind, key, [{ type: ENFORCED, status: 'False', reason: 'NotImplemented', message }]);
  }

  #setRoute(kind: RouteKind, key: string, object: unknown, report: Report): void {
    this.#outputs.observeWhole(kind, key, object);
    this.#inputs.routes.set(`${kind} ${key}`, readRoute(kind, object, report));
    this.#inputs.targeted.staleSource(`${kind}/${key}`);
  }

  #setPolicy(key: string, policy: AuthorizationPolicy | undefined): void {
    this.#inputs.setPolicy(key, policy);
    if (policy?.authorization) this.#outputs.authorizations.set(authorizationResource(policy.authorization));
    else this.#outputs.authorizations.delete(key);
    this.#outputs.statuses.want('ZtunnelPolicy', key, policy?.condition ? [policy.condition] : []);
  }

  #entryServices(entry: ServiceEntry): MeshService[] {
    const labels = this.#inputs.namespace(entry.namespace).labels;
    const services = entryServices(entry, this.#config.serviceEntryVisibility?.(labels) ?? 'PUBLIC');
    return services.map((service) =>
      isForEverybody(this.#config, entry.namespace, service.hostname) ? service : { ...service, visibility: Service_Visibility.NAMESPACE },
    );
  }

  /** Who may see a namespace's ServiceEntries depends on its labels. */
  #reviewVisibility(namespace: string): void {
    for (const entry of this.#inputs.serviceEntries.values()) {
      const words = this.#inputs.services.get(`ServiceEntry/${entry.key}`)?.words;
      if (entry.namespace !== namespace || !words) continue;
      this.#inputs.setServices('ServiceEntry', entry.key, sourceOf(entry, words, this.#entryServices(entry)));
    }
  }
}

function namespaceWords(object: unknown): BindingWords {
  const meta = readMeta(object);
  return { labels: meta?.labels ?? {}, annotations: pick(meta?.annotations ?? {}, inheritedAnnotations) };
}

const sourceOf = (
  { key, namespace }: { key: string; namespace: string },
  words: BindingWords,
  services: readonly MeshService[],
): ServiceSource => ({
  key,
  namespace,
  words,
  services,
});
