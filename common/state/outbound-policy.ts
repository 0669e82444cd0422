/**
 * A namespace's outboundTrafficPolicy, as a workload carries it: an extension of our own, which a foreign ztunnel passes over as it does
 * with every extension. Its configuration is a google.protobuf.StringValue with Istio's word.
 */
import { StringValue } from '../codec/gen/google/protobuf/wrappers.ts';
import type { Extension } from '../codec/gen/workload.ts';
import { type OutboundTrafficPolicy, outboundTrafficPolicies } from '../decision/mesh-view.ts';

const NAME = 'warren.dev/outbound-traffic-policy';
const TYPE = 'type.googleapis.com/google.protobuf.StringValue';

/** What a control plane adds to `Workload.extensions`; nothing where the namespace says nothing. */
export const outboundPolicyExtension = (policy: OutboundTrafficPolicy | undefined): Extension[] =>
  policy === undefined ? [] : [{ name: NAME, config: { typeUrl: TYPE, value: StringValue.encode({ value: policy }).finish() } }];

/** @throws {Error} for a word that is none of Istio's: what a user wrote must not be passed over */
export function outboundPolicyOf(extensions: readonly Extension[]): OutboundTrafficPolicy | undefined {
  const found = extensions.find(({ name }) => name === NAME);
  if (!found) return undefined;
  const { value } = StringValue.decode(found.config?.value ?? new Uint8Array(0));
  const known = outboundTrafficPolicies.find((policy) => policy === value);
  if (!known) throw new Error(`unknown outbound traffic policy ${JSON.stringify(value.slice(0, 40))}`);
  return known;
}
