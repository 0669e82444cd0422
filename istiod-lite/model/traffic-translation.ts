/** DestinationRules and BackendTLSPolicies → how each waypoint chooses and reaches the endpoints of a service. */
import type { ServiceTraffic } from '../../common/codec/gen/waypoint.ts';
import { backendTls } from './backend-tls-policy.ts';
import { type WantedTls, withBackendTls } from './backend-tls-traffic.ts';
import type { Bindings } from './bindings.ts';
import type { CertificateSource } from './certificate-sources.ts';
import type { HostTranslation } from './host-translation.ts';
import type { Inputs } from './inputs.ts';
import type { LabelInterest } from './label-interests.ts';
import type { MeshService } from './mesh-service.ts';
import type { TargetedPolicy } from './policy-targets.ts';
import type { PolicyTranslation } from './policy-translation.ts';

export class TrafficTranslation {
  readonly #inputs: Inputs;
  readonly #bindings: Bindings;
  readonly #hosts: HostTranslation;
  readonly #policies: PolicyTranslation;

  constructor(inputs: Inputs, bindings: Bindings, hosts: HostTranslation, policies: PolicyTranslation) {
    this.#inputs = inputs;
    this.#bindings = bindings;
    this.#hosts = hosts;
    this.#policies = policies;
  }

  /** How a service's endpoints are chosen, for each waypoint that serves it or sends to it. @param key `namespace/hostname` */
  of(key: string): Map<string, ServiceTraffic> {
    const slash = key.indexOf('/');
    const [namespace, hostname] = [key.slice(0, slash), key.slice(slash + 1)];
    const made = new Map<string, ServiceTraffic>();
    const interests = new Map<string, LabelInterest[]>();
    const owner = this.#inputs.claims.owners(hostname).byNamespace.get(namespace);
    const policies = owner ? this.#backendPolicies(owner) : [];
    const service = policies.length > 0 || this.#inputs.hosts.concerns(hostname) ? owner : undefined;
    const used = new Set<CertificateSource>(policies.flatMap(({ policy }) => policy.tls?.roots ?? []));
    if (service) {
      for (const waypoint of new Set([...this.#bindings.waypointsOf(`${service.source}/${service.key}`), ...this.#inputs.usersOf(key)])) {
        const ruled = this.#hosts.traffic(service, waypoint, used);
        const traffic = policies.length > 0 ? withBackendTls(service, ruled, this.#wantedTls(policies)) : ruled;
        if (traffic) made.set(waypoint, traffic);
        const wanted = this.#hosts.interests(service, waypoint, traffic);
        if (wanted.length > 0) interests.set(waypoint, wanted);
      }
    }
    this.#inputs.recordInterests(`endpoints of ${key}`, interests);
    this.#inputs.certificates.record(`traffic ${key}`, used);
    return made;
  }

  /** BackendTLSPolicies that count for a service, each with the port that it names. */
  #backendPolicies(service: MeshService): { readonly policy: TargetedPolicy; readonly section: string }[] {
    return this.#inputs.targeted
      .of(`${service.source}/${service.key}`)
      .flatMap((policy) =>
        !policy.tls || policy.namespace !== service.namespace
          ? []
          : policy.targets.flatMap((target) =>
              target.kind === service.source &&
              `${target.namespace}/${target.name}` === service.key &&
              this.#policies.older(policy, target) === undefined
                ? [{ policy, section: target.section }]
                : [],
            ),
      );
  }

  #wantedTls(policies: readonly { readonly policy: TargetedPolicy; readonly section: string }[]): WantedTls[] {
    return policies.flatMap(({ policy: { id, tls }, section }) =>
      tls ? [{ section, origin: id, ...backendTls(tls, (source) => this.#inputs.certificates.at(source)) }] : [],
    );
  }
}
