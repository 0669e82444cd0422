/** Which service accounts are waypoints of which Gateways, and under which hostname a Gateway's waypoints are bound. */
import type { KubeObject } from '../../common/client/kube-api.ts';
import { at, list, text } from '../model/objects.ts';
import { accountOf } from './render.ts';

interface Facts {
  readonly account: string;
  readonly host: string;
}

const NAME_OVERRIDE = 'gateway.istio.io/name-override';

export class WaypointAccounts {
  /** By `namespace/name` of the Gateway. */
  readonly #gateways = new Map<string, Facts>();
  /** `namespace/account`, and how many Gateways run as it. */
  readonly #accounts = new Map<string, number>();

  gatewayChanged(gateway: KubeObject, deleted: boolean): void {
    const { namespace = '', name = '' } = gateway.metadata;
    const key = `${namespace}/${name}`;
    const before = this.#gateways.get(key);
    if (before) this.#count(`${namespace}/${before.account}`, -1);
    this.#gateways.delete(key);
    if (deleted) return;
    const facts = { account: accountOf(gateway), host: hostOf(gateway) };
    this.#gateways.set(key, facts);
    this.#count(`${namespace}/${facts.account}`, 1);
  }

  /** Why this account, of the Gateway's namespace, is none of its waypoints; undefined where it is one. */
  notOf(key: string, serviceAccount: string): string | undefined {
    const gateway = this.#gateways.get(key);
    if (!gateway) return `there is no Gateway ${key}`;
    const { account } = gateway;
    return account === serviceAccount ? undefined : `waypoints of Gateway ${key} run as ${account}, not as ${serviceAccount}`;
  }

  isAccount(namespace: string, serviceAccount: string): boolean {
    return this.#accounts.has(`${namespace}/${serviceAccount}`);
  }

  /** First label of the hostname of the Gateway's service. */
  hostOf(key: string): string {
    return this.#gateways.get(key)?.host ?? key.slice(key.indexOf('/') + 1);
  }

  #count(account: string, by: number): void {
    const now = (this.#accounts.get(account) ?? 0) + by;
    if (now > 0) this.#accounts.set(account, now);
    else this.#accounts.delete(account);
  }
}

/** Of a waypoint that somebody runs by hand the address says it. */
function hostOf(gateway: KubeObject): string {
  const { name = '', annotations = {} } = gateway.metadata;
  const given = list(at(gateway, 'spec', 'addresses')).find((address) => at(address, 'type') === 'Hostname');
  return text(at(given, 'value')).split('.')[0] || annotations[NAME_OVERRIDE] || name;
}
