/** Whom a route's backends are. In the mesh a route may send to any namespace: no ReferenceGrant is asked for. */
import type { BackendRef } from '../../common/codec/gen/waypoint.ts';
import type { Inputs } from './inputs.ts';
import type { MeshService } from './mesh-service.ts';
import { type BackendReference, backendSource, type Route } from './routes.ts';

export interface ResolvedBackend {
  /** undefined where there is nothing to send to. */
  readonly to: BackendRef | undefined;
  /** Why, as a route's status says it. */
  readonly problem: BackendProblem | undefined;
}

export interface BackendProblem {
  readonly reason: 'InvalidKind' | 'BackendNotFound';
  readonly message: string;
}

export class Backends {
  readonly #inputs: Inputs;

  constructor(inputs: Inputs) {
    this.#inputs = inputs;
  }

  resolve(reference: BackendReference, route: Route): ResolvedBackend {
    const { group, kind, namespace, name, port } = reference;
    // A kind that is known; there is none as long as clusters are not joined.
    if (kind === 'ServiceImport' && group === 'multicluster.x-k8s.io')
      return no('BackendNotFound', `there is no ServiceImport ${namespace}/${name}`);
    if (!backendSource(reference)) return no('InvalidKind', `a backend cannot be of kind ${kind}${group === '' ? '' : `.${group}`}`);
    const service = kind === 'Service' ? this.#inputs.service(`${namespace}/${name}`) : this.#owner(name, route.namespace);
    const place = kind === 'Service' ? `Service ${namespace}/${name}` : `hostname ${name}`;
    if (!service) return no('BackendNotFound', `there is no ${place}`);
    if (port === undefined || !service.ports.some((known) => known.port === port))
      return no('BackendNotFound', port === undefined ? `no port of ${place} is named` : `${place} has no port ${port}`);
    return { to: { namespace: service.namespace, hostname: service.hostname, port, subset: '' }, problem: undefined };
  }

  #owner(hostname: string, namespace: string): MeshService | undefined {
    const owners = this.#inputs.claims.owners(hostname);
    return owners.byNamespace.get(namespace) ?? owners.canonical;
  }
}

const no = (reason: BackendProblem['reason'], message: string): ResolvedBackend => ({ to: undefined, problem: { reason, message } });
