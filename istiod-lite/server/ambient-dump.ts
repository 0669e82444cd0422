/** /debug/ambientz: what is served, as JSON for people: addresses as text, enums by name, fields with their default left out. */
import { ipFromBytes } from '../../common/base/address.ts';
import { Action, Authorization, Scope } from '../../common/codec/gen/authorization.ts';
import { HttpAuthorization, ServiceRoutes } from '../../common/codec/gen/waypoint.ts';
import {
  Address,
  IPFamilies,
  LoadBalancing_HealthPolicy,
  LoadBalancing_Mode,
  LoadBalancing_Scope,
  NetworkMode,
  Service_Visibility,
  TunnelProtocol,
  WorkloadStatus,
  WorkloadType,
} from '../../common/codec/gen/workload.ts';

import { ADDRESS_TYPE, AUTHORIZATION_TYPE, HTTP_AUTHORIZATION_TYPE, ROUTES_TYPE } from '../model/resources.ts';
import type { StoredResource } from '../xds/resource-store.ts';
import { contents } from '../xds/response.ts';

export interface AmbientDump {
  readonly workloads: readonly unknown[];
  readonly services: readonly unknown[];
  readonly policies: readonly unknown[];
}

export function ambientDump(addresses: Iterable<Address>, authorizations: Iterable<Authorization>): AmbientDump {
  const workloads: unknown[] = [];
  const services: unknown[] = [];
  for (const { type } of addresses) {
    if (type?.$case === 'workload') workloads.push(readable(type.value, WORKLOAD_ENUMS));
    else if (type?.$case === 'service') services.push(readable(type.value, SERVICE_ENUMS));
  }
  return { workloads, services, policies: [...authorizations].map((policy) => readable(policy, POLICY_ENUMS)) };
}

/** What one proxy is served of one type. */
export function configDump({ typeUrl, values }: { readonly typeUrl: string; values(): Iterable<StoredResource> }): unknown {
  const codec = CODECS.get(typeUrl);
  return {
    typeUrl,
    resources: [...values()].map((stored) => ({
      name: stored.name,
      version: stored.version,
      ...(codec && { resource: readable(codec.decode(contents(stored)), ALL_ENUMS) }),
    })),
  };
}

type Enums = Readonly<Record<string, Readonly<Record<string, number>>>>;

// By field name, which is unique enough inside each of the three messages.
const WORKLOAD_ENUMS: Enums = {
  tunnelProtocol: TunnelProtocol,
  workloadType: WorkloadType,
  status: WorkloadStatus,
  networkMode: NetworkMode,
};
const SERVICE_ENUMS: Enums = {
  ipFamilies: IPFamilies,
  mode: LoadBalancing_Mode,
  routingPreference: LoadBalancing_Scope,
  healthPolicy: LoadBalancing_HealthPolicy,
  visibility: Service_Visibility,
};
const POLICY_ENUMS: Enums = { scope: Scope, action: Action };
const ALL_ENUMS: Enums = { ...WORKLOAD_ENUMS, ...SERVICE_ENUMS };

const CODECS: ReadonlyMap<string, { decode(bytes: Uint8Array): unknown }> = new Map<string, { decode(bytes: Uint8Array): unknown }>([
  [ADDRESS_TYPE, Address],
  [AUTHORIZATION_TYPE, Authorization],
  [ROUTES_TYPE, ServiceRoutes],
  [HTTP_AUTHORIZATION_TYPE, HttpAuthorization],
]);

function readable(value: unknown, enums: Enums, field = ''): unknown {
  if (value instanceof Uint8Array)
    return value.length === 4 || value.length === 16 ? ipFromBytes(value) : Buffer.from(value).toString('base64');
  if (typeof value === 'bigint') return String(value);
  if (typeof value === 'number') return nameOf(enums[field], value);
  if (Array.isArray(value)) return value.map((item) => readable(item, enums, field));
  if (typeof value !== 'object' || value === null) return value;
  if ('$case' in value && 'value' in value) return { [String(value.$case)]: readable(value.value, enums) };
  const entries = Object.entries(value).filter(([name, content]) => enums[name] !== undefined || !isDefault(content));
  return Object.fromEntries(entries.map(([name, content]) => [name, readable(content, enums, name)]));
}

const nameOf = (names: Readonly<Record<string, number>> | undefined, value: number): string | number =>
  (names && Object.keys(names).find((name) => names[name] === value)) ?? value;

const isDefault = (value: unknown): boolean =>
  value === undefined || value === '' || value === 0 || value === false || (Array.isArray(value) && value.length === 0);
