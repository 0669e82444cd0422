/**
 * What the supervisor and its data workers tell each other: plain data, by postMessage. State, counters and the heartbeat are not here;
 * they are shared memory. Descriptors are the process's, so their numbers mean the same in every thread.
 */
import type { SocketAddress } from '../common/base/address.ts';
import type { LogLevel } from '../common/base/log.ts';
import type { CountedRefusal } from '../common/base/refusal-tally.ts';
import type { RevokedSerials } from '../common/codec/x509/crl.ts';
import type { JournalAnswer } from '../common/decision/journal.ts';
import type { TapBatch, TapSpec } from '../common/server/event-tap.ts';
import type { SeriesAnnouncement, SeriesSegment } from '../common/server/shared-series.ts';
import type { SharedMeshState } from '../common/state/shared.ts';
import type { IdentityCertificate } from '../common/tls/mesh-tls.ts';
import type { PodInfo, ZtunnelSettings } from './settings.ts';

/** Who a data worker listens for. */
export interface PodSpec {
  /** Kubernetes's pod UID; `dedicated` and `self` for the two that come from no node agent. */
  readonly uid: string;
  readonly info: PodInfo;
  /** The pod's network namespace; undefined for the process's own. The supervisor's, open until every worker has let go of the pod. */
  readonly netnsFd: number | undefined;
  /** `pod`: all three listeners. `self`: HBONE only, for this process's own endpoints (Istio's ztunnel, src/proxyfactory.rs). */
  readonly kind: 'pod' | 'self';
  /** What its workers know together of its new connections: `sharedGathering()`. */
  readonly gathering: SharedArrayBuffer;
}

export interface WorkerStart {
  /** Counts workers since the start. */
  readonly index: number;
  readonly settings: ZtunnelSettings;
  readonly state: SharedMeshState;
  readonly segment: SeriesSegment;
  /** Where the node resolves names: for what the mesh's DNS does not know. */
  readonly nameservers: readonly SocketAddress[];
  /** Descriptors that this process may have. */
  readonly openFiles: number;
  /** One Int32 that the worker counts up four times a second. */
  readonly heartbeat: SharedArrayBuffer;
}

export type ToWorker =
  | { readonly type: 'pod-add'; readonly pod: PodSpec }
  | { readonly type: 'pod-remove'; readonly uid: string }
  /** There is a newer picture in the shared memory. */
  | { readonly type: 'state'; readonly policiesChanged: boolean }
  | { readonly type: 'certificate'; readonly certificate: IdentityCertificate }
  | { readonly type: 'certificate-failed'; readonly identity: string; readonly reason: string }
  /** All taps that are open; the worker's events are theirs. */
  | { readonly type: 'taps'; readonly taps: readonly TapSpec[] }
  | { readonly type: 'log-level'; readonly level: LogLevel; readonly accessLevel: LogLevel }
  | { readonly type: 'connections'; readonly question: number }
  /** With an id, of the connections that have it; else everything since a time. */
  | { readonly type: 'journal'; readonly question: number; readonly sinceMs: number; readonly id: string }
  | { readonly type: 'revoked'; readonly revoked: RevokedSerials }
  /** New connections of this pod are refused, for want of memory; `cut` ends those that hold most. */
  | { readonly type: 'shed'; readonly uid: string | undefined; readonly cut: boolean }
  /** What the control plane has of these is in the shared memory. */
  | { readonly type: 'addresses-known'; readonly names: readonly string[] }
  /** Stop accepting; connections may go on until `drain-deadline`. */
  | { readonly type: 'drain' }
  | { readonly type: 'drain-deadline' };

export type FromWorker =
  /** `tid` is the kernel's number of the thread. */
  | { readonly type: 'ready'; readonly tid: number }
  | { readonly type: 'pod-bound'; readonly uid: string; readonly problem?: string }
  /** Nothing of the pod is left in this worker. */
  | { readonly type: 'pod-removed'; readonly uid: string }
  | { readonly type: 'certificate-wanted'; readonly identity: string }
  /** On-demand discovery: a connection needs to know what has this name. */
  | { readonly type: 'address-wanted'; readonly name: string }
  | { readonly type: 'series'; readonly series: readonly SeriesAnnouncement[] }
  | { readonly type: 'connections'; readonly question: number; readonly connections: readonly ConnectionDump[] }
  | { readonly type: 'journal'; readonly question: number; readonly answer: JournalAnswer }
  | { readonly type: 'usage'; readonly pods: readonly PodUsage[] }
  | { readonly type: 'tapped'; readonly batches: readonly TapBatch[] }
  | { readonly type: 'refused'; readonly refusals: readonly CountedRefusal[] }
  | { readonly type: 'drained' };

/** What a pod takes of one worker. */
export interface PodUsage {
  readonly uid: string;
  readonly connections: number;
  /** Roughly: what waits, and what its connections cost. */
  readonly bytes: number;
}

/** One open connection as `config_dump` shows it. */
export interface ConnectionDump {
  readonly uid: string;
  readonly direction: 'inbound' | 'outbound';
  readonly src: string;
  readonly originalDst: string | null;
  readonly actualDst: string;
  readonly protocol: 'TCP' | 'HBONE' | 'DOUBLEHBONE';
}
