/** Under which keys a resource is found: the hashes that its block is entered under in the index. */
import { type Policy, policyKey, type Service, serviceKey, type Workload } from '../decision/mesh-view.ts';
import { hashRange, hashText, keyKinds } from './hash.ts';
import { GLOBAL_POLICIES, namespacePoliciesKey } from './packed-view.ts';

/** Of a workload's primary key. */
export const workloadKeyHash = (seed: number, uid: string): number => hashText(seed, keyKinds.workloadUid, uid);
/** Of a service's primary key, `namespace/hostname`. */
export const serviceKeyHash = (seed: number, key: string): number => hashText(seed, keyKinds.service, key);
/** Of a policy's primary key, `namespace/name`. */
export const policyKeyHash = (seed: number, key: string): number => hashText(seed, keyKinds.policy, key);

/** Each hash once, the one of the primary key first. */
export function workloadHashes(seed: number, workload: Workload): number[] {
  const { uid, name, namespace, network, hostname, hostNetwork, addresses } = workload;
  return distinct([
    workloadKeyHash(seed, uid),
    hashText(seed, keyKinds.workloadPod, namespace, name),
    ...(hostNetwork ? [] : addresses.map((ip) => hashText(seed, keyKinds.workloadAddress, network, ip))),
    ...(hostname === '' ? [] : [hashText(seed, keyKinds.workloadHostname, namespace, hostname)]),
  ]);
}

/** Each hash once, the one of the primary key first. */
export function serviceHashes(seed: number, service: Service): number[] {
  return distinct([
    serviceKeyHash(seed, serviceKey(service)),
    hashText(seed, keyKinds.serviceHostname, service.hostname),
    ...service.addresses.map(({ network, ip }) => hashText(seed, keyKinds.serviceAddress, network, ip)),
    ...service.ranges.map(({ network, cidr }) => hashRange(seed, network, cidr.bytes, cidr.length)),
  ]);
}

/** The list that a policy is on; none where workloads name it themselves. */
export function policyListKey(policy: Policy): string | undefined {
  if (policy.scope === 'GLOBAL') return GLOBAL_POLICIES;
  return policy.scope === 'NAMESPACE' ? namespacePoliciesKey(policy.namespace) : undefined;
}

/** Of a policy's primary key; policies are entered under no other. */
export const policyHash = (seed: number, policy: Policy): number => policyKeyHash(seed, policyKey(policy));

const distinct = (hashes: readonly number[]): number[] => [...new Set(hashes)];
