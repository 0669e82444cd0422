/**
 * `warren.dev/require-waypoint`, as a workload carries it: an extension of our own, which a foreign ztunnel passes over as it does with every
 * extension. Its configuration is a google.protobuf.StringValue: `always` (the pod asks for it) or `bound` (its namespace does: of pods that
 * have a waypoint), and the ports that are left out, separated by spaces.
 */
import { parsePort } from '../base/address.ts';
import { StringValue } from '../codec/gen/google/protobuf/wrappers.ts';
import type { Extension } from '../codec/gen/workload.ts';
import type { RequiredWaypoint } from '../decision/mesh-view.ts';

const NAME = 'warren.dev/require-waypoint';
const TYPE = 'type.googleapis.com/google.protobuf.StringValue';

/** What a control plane adds to `Workload.extensions`; nothing where nobody asks for it. */
export function requiredWaypointExtension(required: RequiredWaypoint | undefined): Extension[] {
  if (!required) return [];
  const value = [required.always ? 'always' : 'bound', ...required.exceptPorts].join(' ');
  return [{ name: NAME, config: { typeUrl: TYPE, value: StringValue.encode({ value }).finish() } }];
}

/** @throws {Error} for a word that is none of these: what a user wrote must not be passed over */
export function requiredWaypointOf(extensions: readonly Extension[]): RequiredWaypoint | undefined {
  const found = extensions.find(({ name }) => name === NAME);
  if (!found) return undefined;
  const { value } = StringValue.decode(found.config?.value ?? new Uint8Array(0));
  const [word = '', ...ports] = value.split(' ');
  const exceptPorts = ports.map((port) => parsePort(port) ?? -1);
  if ((word !== 'always' && word !== 'bound') || exceptPorts.includes(-1)) {
    throw new Error(`unknown requirement of a waypoint ${JSON.stringify(value.slice(0, 40))}`);
  }
  return { always: word === 'always', exceptPorts };
}
