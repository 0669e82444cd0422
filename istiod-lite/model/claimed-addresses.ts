/**
 * Addresses of Kubernetes Services, and what ServiceEntries claim of them. Kept from both sides, so that a Service that comes or goes costs what
 * claims its addresses, however many Services and entries there are.
 */
import { ipBytes } from '../../common/base/address.ts';
import type { NetworkAddress } from '../../common/codec/gen/workload.ts';
import { addressText, covers } from './entry-claims.ts';
import { Groups } from './groups.ts';
import type { MeshService } from './mesh-service.ts';

type Claimer = Pick<MeshService, 'source' | 'key' | 'namespace' | 'addresses'>;

export class ClaimedAddresses {
  /** Namespaces of the Kubernetes Services that have an address. */
  readonly #services = new Groups<string>();
  /** Sources of the ServiceEntries that claim an address. */
  readonly #claimants = new Groups<string>();
  /** The same of ranges, which are few. */
  readonly #ranges = new Map<string, { readonly range: NetworkAddress; readonly claimants: Set<string> }>();

  /** @returns sources of entries for which this may change what they may have */
  add(service: Claimer): Set<string> {
    if (service.source === 'ServiceEntry') return this.#claim(service);
    for (const address of service.addresses) this.#services.add(addressText(address), service.namespace);
    return this.#claimantsOf(service.addresses);
  }

  remove(service: Claimer): Set<string> {
    if (service.source === 'ServiceEntry') return this.#withdraw(service);
    for (const address of service.addresses) this.#services.remove(addressText(address), service.namespace);
    return this.#claimantsOf(service.addresses);
  }

  /** Whether a Kubernetes Service of another namespace has this address, or one of this range. */
  isTaken(claim: NetworkAddress, namespace: string): boolean {
    const isForeign = (text: string): boolean => [...this.#services.of(text)].some((owner) => owner !== namespace);
    if (claim.length === undefined) return isForeign(addressText(claim));
    for (const text of this.#services.keys()) {
      const bytes = ipBytes(text);
      if (bytes && covers(claim, bytes) && isForeign(text)) return true;
    }
    return false;
  }

  #claim({ source, key, addresses }: Claimer): Set<string> {
    for (const address of addresses) {
      const text = addressText(address);
      const range = this.#ranges.get(text);
      if (address.length === undefined) this.#claimants.add(text, `${source}/${key}`);
      else if (range) range.claimants.add(`${source}/${key}`);
      else this.#ranges.set(text, { range: address, claimants: new Set([`${source}/${key}`]) });
    }
    return new Set();
  }

  #withdraw({ source, key, addresses }: Claimer): Set<string> {
    for (const address of addresses) {
      const text = addressText(address);
      if (address.length === undefined) this.#claimants.remove(text, `${source}/${key}`);
      const claimants = this.#ranges.get(text)?.claimants;
      if (claimants?.delete(`${source}/${key}`) && claimants.size === 0) this.#ranges.delete(text);
    }
    return new Set();
  }

  #claimantsOf(addresses: readonly NetworkAddress[]): Set<string> {
    const found = new Set(addresses.flatMap((address) => [...this.#claimants.of(addressText(address))]));
    for (const { range, claimants } of this.#ranges.values()) {
      if (!addresses.some(({ address }) => covers(range, address))) continue;
      for (const source of claimants) found.add(source);
    }
    return found;
  }
}
