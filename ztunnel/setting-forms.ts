/** Forms of settings that only ztunnel has (Istio's ztunnel, src/config.rs). */
import { isAbsolute } from 'node:path';
import { type IpAddress, parsePort, parseSocketAddress } from '../common/base/address.ts';
import { count, type Form } from '../common/base/settings.ts';

export const mark: Form<number | undefined> = {
  name: 'packet mark',
  parse(value) {
    const number = /^0x[0-9a-f]{1,8}$/i.test(value) ? Number.parseInt(value, 16) : count.parse(value);
    if (number > 0xffffffff) throw new Error('expected a 32-bit mark');
    return number;
  },
};

export interface PodInfo {
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
}

export interface DnsProxyAddress {
  readonly port: number;
  /** Undefined for both loopback addresses. */
  readonly address?: IpAddress;
}

/** `localhost:PORT`, or an address in each pod. */
export const dnsAddress: Form<DnsProxyAddress> = {
  name: 'localhost:PORT, or ADDRESS:PORT',
  parse(value) {
    const local = /^localhost:(\d+)$/.exec(value)?.[1];
    const found = local === undefined ? parseSocketAddress(value) : { port: parsePort(local) ?? 0 };
    if (!found || found.port === 0) throw new Error('expected localhost:PORT, or ADDRESS:PORT');
    return 'ip' in found ? { address: found.ip, port: found.port } : { port: found.port };
  },
};

/** Kubernetes's quantity of processors, rounded up. */
export const cpuQuantity: Form<number | undefined> = {
  name: 'processors',
  parse(value) {
    if (value === '') return undefined;
    const found = /^((?:\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})(?:e[+-]?\d{1,2})?)(m?)$/i.exec(value);
    const processors = Number(found?.[1] ?? Number.NaN) / (found?.[2] ? 1000 : 1);
    if (!(processors > 0)) throw new Error('expected processors such as 500m or 1.5');
    return Math.ceil(processors);
  },
};

export const positive: Form<number> = {
  name: 'whole number from 1',
  parse(value) {
    const number = count.parse(value);
    if (number < 1) throw new Error('expected a whole number from 1');
    return number;
  },
};

/** Empty is an answer too. */
export const folder: Form<string | undefined> = {
  name: 'folder',
  parse(value) {
    if (value !== '' && !isAbsolute(value)) throw new Error('expected an absolute path');
    return value;
  },
};

export const podInfo: Form<PodInfo | undefined> = {
  name: 'namespace/name/serviceaccount',
  parse(value) {
    const [namespace, name, serviceAccount, ...more] = value.split('/');
    if (!namespace || !name || !serviceAccount || more.length > 0) throw new Error('expected namespace/name/serviceaccount');
    return { namespace, name, serviceAccount };
  },
};
