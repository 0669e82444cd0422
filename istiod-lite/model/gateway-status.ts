/** The status of a waypoint's Gateway (Istio, pilot/pkg/config/kube/gateway): whether it is as a waypoint must be, and where it is. */
import { ipFromBytes } from '../../common/base/address.ts';
import type { Condition, StatusBody, WantedStatus } from './conditions.ts';
import type { MeshModelConfig } from './config.ts';
import type { Gateway, GatewayClass, Listener } from './gateway.ts';
import type { MeshService } from './mesh-service.ts';
import * as names from './names.ts';

/** Why a Gateway is not deployed as it is written: what the spec refers to cannot be used. */
export interface GatewayProblem {
  readonly reason: 'InvalidParameters' | 'Invalid';
  readonly message: string;
}

export interface GatewaySurroundings {
  /** That leads to its pods; undefined as long as there is none. */
  readonly service: MeshService | undefined;
  /** At least one of its pods is. */
  readonly ready: boolean;
  readonly problem: GatewayProblem | undefined;
}

/** Whether this control plane looks after it. */
export const isOurs = (config: MeshModelConfig, { revision }: Gateway, gatewayClass: GatewayClass | undefined): boolean =>
  gatewayClass?.controller === names.WAYPOINT_CONTROLLER && (revision === undefined || revision === config.revision);

export const classAccepted = ({ generation, problem }: GatewayClass): Condition => ({
  type: 'Accepted',
  ...(problem === ''
    ? { status: 'True', reason: 'Accepted', message: 'handled by istiod-lite' }
    : { status: 'False', reason: 'InvalidParameters', message: problem }),
  observedGeneration: generation,
});

export function gatewayStatus(gateway: Gateway, { service, ready, problem }: GatewaySurroundings): WantedStatus {
  const condition = (type: string, status: Condition['status'], reason: string, message: string): Condition => ({
    type,
    status,
    reason,
    message,
    observedGeneration: gateway.generation,
  });
  const accepted = problem
    ? condition('Accepted', 'False', problem.reason, problem.message)
    : condition('Accepted', 'True', 'Accepted', 'the Gateway is accepted');
  return ({ addresses: shown = [] }): StatusBody => {
    const addresses = gatewayAddresses(service, ready, shown);
    const hostname = `${gateway.serviceName}.${gateway.namespace}`;
    const programmed =
      addresses.length > 0
        ? condition('Programmed', 'True', 'Programmed', `served by Service ${hostname}`)
        : condition('Programmed', 'False', ...whyNoAddress(hostname, service));
    return {
      ...(addresses.length > 0 ? { addresses } : {}),
      conditions: [accepted, programmed, condition('ResolvedRefs', 'True', 'ResolvedRefs', 'all references are resolved')],
      listeners: gateway.listeners.map((listener) => listenerStatus(listener, condition)),
    };
  };
}

/**
 * An address that was shown is never withdrawn: whoever is bound would be told that there is no waypoint, each time that its last pod
 * restarts. It follows the Service's all the same.
 */
function gatewayAddresses(service: MeshService | undefined, ready: boolean, shown: readonly object[]): readonly object[] {
  const ips = service?.addresses.map(({ address }) => ipFromBytes(address)) ?? [];
  if (!service || ips.length === 0 || !(ready || shown.length > 0)) return shown;
  return [...ips.map((value) => ({ type: 'IPAddress', value })), { type: 'Hostname', value: service.hostname }];
}

function whyNoAddress(hostname: string, service: MeshService | undefined): [reason: string, message: string] {
  if (!service) return ['AddressNotUsable', `there is no Service ${hostname}`];
  if (service.addresses.length === 0) return ['AddressNotUsable', `Service ${hostname} has no address`];
  return ['AddressNotAssigned', `no pod behind Service ${hostname} is ready yet`];
}

type MakeCondition = (type: string, status: Condition['status'], reason: string, message: string) => Condition;

function listenerStatus({ name, port, protocol }: Listener, condition: MakeCondition): object {
  const valid = port === names.HBONE_PORT && protocol === 'HBONE';
  return {
    name,
    // Routes attach to the services behind a waypoint, never to its listener.
    attachedRoutes: 0,
    supportedKinds: (ROUTE_KINDS.get(protocol) ?? []).map((kind) => ({ group: 'gateway.networking.k8s.io', kind })),
    conditions: [
      valid
        ? condition('Accepted', 'True', 'Accepted', 'the listener is accepted')
        : condition(
            'Accepted',
            'False',
            'UnsupportedProtocol',
            `a waypoint has one listener, on port ${names.HBONE_PORT} with protocol HBONE`,
          ),
      condition('Conflicted', 'False', 'NoConflicts', 'the listener conflicts with no other'),
      condition('Programmed', 'True', 'Programmed', 'the listener is programmed'),
      condition('ResolvedRefs', 'True', 'ResolvedRefs', 'all references are resolved'),
    ],
  };
}

const ROUTE_KINDS: ReadonlyMap<string, readonly string[]> = new Map([
  ['HTTP', ['HTTPRoute', 'GRPCRoute']],
  ['HTTPS', ['HTTPRoute', 'GRPCRoute']],
  ['TCP', ['TCPRoute']],
  ['TLS', ['TLSRoute']],
]);
