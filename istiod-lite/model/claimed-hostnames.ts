/** Hostnames and who claims them: of several in one namespace one has it, and of the namespaces one stands for all. Their addresses too, where claims are guarded. */
import { ClaimedAddresses } from './claimed-addresses.ts';
import { addressText } from './entry-claims.ts';
import { Groups } from './groups.ts';
import { type HostnameOwners, hostnameOwners } from './hostnames.ts';
import { hostCovers } from './istio-values.ts';
import type { MeshService } from './mesh-service.ts';

export class ClaimedHostnames {
  readonly #claims = new Groups<MeshService>();
  readonly #addresses = new ClaimedAddresses();
  readonly #rootNamespace: string;
  readonly #guarded: boolean;

  constructor(rootNamespace: string, guarded: boolean) {
    this.#rootNamespace = rootNamespace;
    this.#guarded = guarded;
  }

  owners(hostname: string): HostnameOwners {
    return hostnameOwners([...this.#claims.of(hostname)]);
  }

  /** All that claim exactly this hostname. */
  of(hostname: string): ReadonlySet<MeshService> {
    return this.#claims.of(hostname);
  }

  /**
   * All that claim a host, which may begin with `*`: those that are published. In one order, whatever the order of the changes: a status that names them
   * would be written again by each replica that takes over.
   */
  servicesOfHost(host: string): MeshService[] {
    const claims = host.startsWith('*')
      ? [...this.#claims.keys()].filter((hostname) => hostCovers(host, hostname)).flatMap((hostname) => [...this.#claims.of(hostname)])
      : [...this.#claims.of(host)];
    const published = claims.filter((service) => this.isPublished(service));
    return published.length < 2 ? published : published.sort(byName);
  }

  isPublished(service: MeshService): boolean {
    const claims = this.#claims.of(service.hostname);
    return claims.size < 2 || this.owners(service.hostname).byNamespace.get(service.namespace) === service;
  }

  /** Addresses that a ServiceEntry, `ServiceEntry/namespace/name`, claims and a Kubernetes Service of another namespace has; only where claims are guarded. */
  taken(source: string, services: readonly MeshService[]): string[] {
    if (!this.#guarded) return [];
    const [, namespace = ''] = source.split('/');
    const claims = services.flatMap(({ addresses }) => addresses);
    if (claims.length === 0 || namespace === this.#rootNamespace || !source.startsWith('ServiceEntry/')) return [];
    return [...new Set(claims.filter((claim) => this.#addresses.isTaken(claim, namespace)).map(addressText))];
  }

  /** @returns sources for which this may change which addresses they have */
  add(service: MeshService): ReadonlySet<string> {
    this.#claims.add(service.hostname, service);
    return this.#guarded ? this.#addresses.add(service) : NOBODY;
  }

  /** @returns sources for which this may change which addresses they have */
  remove(service: MeshService): ReadonlySet<string> {
    this.#claims.remove(service.hostname, service);
    return this.#guarded ? this.#addresses.remove(service) : NOBODY;
  }
}

const nameOf = ({ hostname, namespace }: MeshService): string => `${hostname} ${namespace}`;
const byName = (a: MeshService, b: MeshService): number => (nameOf(a) < nameOf(b) ? -1 : 1);

const NOBODY: ReadonlySet<string> = new Set();
