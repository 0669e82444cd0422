/** Which waypoint services and workloads are bound to, from what they and their namespaces say and from the Gateways that there are. */
import type { Condition } from './conditions.ts';
import type { MeshModelConfig } from './config.ts';
import { applicationTunnel } from './gateway.ts';
import type { Inputs, ServiceSource } from './inputs.ts';
import * as names from './names.ts';
import type { Labels } from './objects.ts';
import {
  type BindingRequest,
  type BindingWords,
  bindWaypoint,
  type GatewayView,
  publishedWaypoint,
  tellWaypoints,
  type WaypointBinding,
  waypointCondition,
} from './waypoint-binding.ts';

/** What of a workload says which waypoint is its own. */
export interface Bound {
  readonly namespace: string;
  readonly bindingLabels: Labels;
}

export class Bindings {
  readonly #config: MeshModelConfig;
  readonly #inputs: Inputs;

  constructor(config: MeshModelConfig, inputs: Inputs) {
    this.#config = config;
    this.#inputs = inputs;
  }

  /** The Gateways that are waypoints of a Service or ServiceEntry, `namespace/name`, whether they are ready or not. */
  waypointsOf(source: string): string[] {
    const found = this.#inputs.services.get(source);
    if (!found) return [];
    const used = new Set<string>();
    const view = this.#view(used);
    const request = this.#request(found);
    const waypoints = tellWaypoints(request, bindWaypoint(this.#config, request, view), view);
    this.#inputs.recordGateways('service', source, used);
    return waypoints;
  }

  /** Of a Service or ServiceEntry; it is made anew when one of the gateways that it was made from changes. */
  ofService(source: string, found: ServiceSource): WaypointBinding {
    const used = new Set<string>();
    const view = this.#view(used);
    const request = this.#request(found);
    const binding = bindWaypoint(this.#config, request, view);
    // The canary is one of its gateways too, even where nothing comes of it yet.
    tellWaypoints(request, binding, view);
    this.#inputs.recordGateways('service', source, used);
    return binding;
  }

  /** The same of one that need not be stored. */
  ofGiven(found: ServiceSource): WaypointBinding {
    return bindWaypoint(this.#config, this.#request(found), this.#view(new Set()));
  }

  /** Whether what comes in through gateways goes through the waypoint as well. */
  ingress({ words, namespace }: ServiceSource): string | undefined {
    return words.labels[names.INGRESS_USE_WAYPOINT] ?? this.#inputs.namespace(namespace).labels[names.INGRESS_USE_WAYPOINT];
  }

  /** A waypoint's own instances go through no waypoint, but may want their connections in a form of their own. */
  ofWorkload({ namespace, bindingLabels }: Bound, used: Set<string>) {
    const view = this.#view(used);
    const ownName = bindingLabels[names.GATEWAY_NAME];
    const ownKey = ownName ? `${namespace}/${ownName}` : undefined;
    const own = ownKey === undefined ? undefined : view.gateway(ownKey);
    if (own?.address) {
      const tunnel = applicationTunnel(own, view.gatewayClass(own.className));
      return { binding: { at: 'unbound' } as const, waypoint: undefined, applicationTunnel: tunnel };
    }
    const inherited = this.#inputs.namespace(namespace);
    const request = {
      traffic: 'workload' as const,
      namespace,
      own: { labels: bindingLabels, annotations: {} },
      inherited,
      namespaceLabels: inherited.labels,
      namespaceOnly: false,
    };
    const binding = bindWaypoint(this.#config, request, view);
    // A waypoint that is about to become ready must not wait for itself.
    const itself = binding.at === 'absent' && binding.waypoint === ownKey;
    return { binding, waypoint: itself ? undefined : publishedWaypoint(binding), applicationTunnel: undefined };
  }

  /** What would become of a namespace's services on account of what the namespace says of waypoints. */
  namespaceCondition(namespace: string, words: BindingWords): Condition | undefined {
    const nothing = { labels: {}, annotations: {} };
    const request = {
      traffic: 'service' as const,
      namespace,
      own: nothing,
      inherited: words,
      namespaceLabels: words.labels,
      namespaceOnly: false,
    };
    return waypointCondition(bindWaypoint(this.#config, request, this.#view(new Set())), undefined);
  }

  /** Of the binding of a workload with these labels. */
  memberCondition(namespace: string, labels: Labels): Condition | undefined {
    return waypointCondition(this.ofWorkload({ namespace, bindingLabels: labels }, new Set()).binding, undefined);
  }

  #request({ namespace, words, services }: ServiceSource): BindingRequest {
    const inherited = this.#inputs.namespace(namespace);
    return {
      traffic: 'service' as const,
      namespace,
      own: words,
      inherited,
      namespaceLabels: inherited.labels,
      // What only clients of the namespace may see, as the administrator says; a claim that is for them alone may well leave by another one's.
      namespaceOnly:
        services.some((service) => service.source === 'ServiceEntry') &&
        this.#config.serviceEntryVisibility?.(inherited.labels) === 'NAMESPACE',
    };
  }

  /** Notes down every gateway that is asked for, also those that are not there. */
  #view(used: Set<string>): GatewayView {
    return {
      gateway: (key) => {
        used.add(key);
        return this.#inputs.gateways.get(key);
      },
      gatewayClass: (name) => this.#inputs.gatewayClasses.get(name),
    };
  }
}
