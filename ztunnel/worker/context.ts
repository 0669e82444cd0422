/** What the parts of a connection's path are given: what all pods of a worker share, and what belongs to one pod. */
import type { SocketAddress } from '../../common/base/address.ts';
import type { Clock } from '../../common/base/clock.ts';
import type { Log } from '../../common/base/log.ts';
import type { HostnameResolver } from '../../common/client/hostname-resolver.ts';
import type { MeshView } from '../../common/decision/mesh-view.ts';
import type { HbonePool } from '../../common/hbone/pool.ts';
import type { Lane } from '../../common/hbone/turn-shares.ts';
import type { Netns } from '../../common/linux/netns.ts';
import type { Keepalive } from '../../common/linux/sockets.ts';
import type { Revocations } from '../../common/tls/revocations.ts';
import type { WorkerCertificates } from '../../common/tls/worker-certificates.ts';
import type { PodSpec } from '../protocol.ts';
import type { ZtunnelSettings } from '../settings.ts';
import type { Admission } from './admission.ts';
import type { ConnectionTable } from './connections.ts';
import type { GatewayLoad } from './gateway-load.ts';
import type { Lanes } from './lanes.ts';
import type { LocalWorkload, StateChanges } from './local-workload.ts';
import type { OnDemand } from './on-demand.ts';
import type { Telemetry } from './telemetry.ts';

/** What every pod of a worker shares. */
export interface WorkerParts {
  readonly settings: ZtunnelSettings;
  readonly view: MeshView;
  readonly changes: StateChanges;
  readonly clock: Clock;
  readonly random: () => number;
  /** Fresh random hexadecimal digits. */
  randomHex(digits: number): string;
  readonly log: Log;
  readonly certificates: WorkerCertificates;
  readonly connections: ConnectionTable;
  readonly telemetry: Telemetry;
  readonly admission: Admission;
  /** How much of a processor this worker used lately, 0 to 1. */
  readonly load: () => number;
  readonly gatewayLoad: GatewayLoad;
  readonly lanes: Lanes;
  readonly revocations: Revocations;
  /** Only where the control plane is asked for what is needed instead of for everything. */
  readonly onDemand: OnDemand | undefined;
  readonly resolver: HostnameResolver;
  readonly nameservers: readonly SocketAddress[];
}

/** One pod, as those see it who carry its connections. */
export interface PodContext {
  readonly parts: WorkerParts;
  readonly spec: PodSpec;
  /** `namespace/name` */
  readonly name: string;
  /** Where its sockets are made; undefined for the process's own namespace. */
  readonly netns: Netns | undefined;
  readonly local: LocalWorkload;
  readonly pool: HbonePool;
  /** What its own connections use of a turn. */
  readonly lane: Lane;
  readonly mark: number | undefined;
  readonly keepalive: Keepalive | undefined;
  /** Aborted when the pod is removed. */
  readonly removed: AbortSignal;
}
