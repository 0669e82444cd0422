/** Objects and what surrounds them, put together: a part for each output, each made for one source at a time, as things are now. */
import { Bindings } from './bindings.ts';
import type { WantedStatus } from './conditions.ts';
import type { MeshModelConfig } from './config.ts';
import { gatewayStatus, isOurs } from './gateway-status.ts';
import { HostTranslation } from './host-translation.ts';
import type { Inputs } from './inputs.ts';
import { PolicyTranslation } from './policy-translation.ts';
import { RouteTranslation } from './route-translation.ts';
import { ServiceTranslation } from './service-translation.ts';
import { TelemetryTranslation } from './telemetry-translation.ts';
import { TrafficTranslation } from './traffic-translation.ts';
import { WorkloadTranslation } from './workload-translation.ts';

export class Translation {
  readonly #config: MeshModelConfig;
  readonly #inputs: Inputs;
  readonly bindings: Bindings;
  readonly workloads: WorkloadTranslation;
  readonly services: ServiceTranslation;
  readonly hosts: HostTranslation;
  readonly routes: RouteTranslation;
  readonly policies: PolicyTranslation;
  readonly traffic: TrafficTranslation;
  readonly telemetry: TelemetryTranslation;

  constructor(config: MeshModelConfig, inputs: Inputs) {
    this.#config = config;
    this.#inputs = inputs;
    const bindings = new Bindings(config, inputs);
    const waypointsOf = (source: string) => bindings.waypointsOf(source);
    const hosts = new HostTranslation(inputs, waypointsOf);
    const routes = new RouteTranslation(inputs, bindings, hosts);
    const policies = new PolicyTranslation(config, inputs, bindings, routes);
    this.bindings = bindings;
    this.workloads = new WorkloadTranslation(config, inputs, bindings);
    this.services = new ServiceTranslation(inputs, bindings);
    this.hosts = hosts;
    this.routes = routes;
    this.policies = policies;
    this.traffic = new TrafficTranslation(inputs, bindings, hosts, policies);
    this.telemetry = new TelemetryTranslation({
      config,
      inputs,
      waypointsOf,
      targetStatus: (policy, target) => policies.targetStatus(policy, target),
    });
  }

  /** undefined for Gateways that this control plane does not look after. */
  gatewayStatus(key: string): WantedStatus | undefined {
    const { gatewayStatuses } = this.#inputs;
    const gateway = this.#inputs.gateways.get(key);
    if (!gateway || !isOurs(this.#config, gateway, this.#inputs.gatewayClasses.get(gateway.className))) return undefined;
    const service = this.#inputs.service(`${gateway.namespace}/${gateway.serviceName}`);
    return gatewayStatus(gateway, { service, ready: gatewayStatuses.hasReadyPod(key), problem: gatewayStatuses.problem(key) });
  }
}
