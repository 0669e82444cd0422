/**
 * What the supervisor and its data workers tell each other: plain data, by postMessage. The mesh's state, counters and the heartbeat are not
 * here; they are shared memory.
 */
import type { LogLevel } from '../common/base/log.ts';
import type { CountedRefusal } from '../common/base/refusal-tally.ts';
import type { JournalAnswer } from '../common/decision/journal.ts';
import type { TapBatch, TapSpec } from '../common/server/event-tap.ts';
import type { SeriesAnnouncement, SeriesSegment } from '../common/server/shared-series.ts';
import type { SharedMeshState } from '../common/state/shared.ts';
import type { IdentityCertificate } from '../common/tls/mesh-tls.ts';
import type { WaypointSettings } from './settings.ts';
import type { ConfigurationPush } from './worker/configuration.ts';

export interface WorkerStart {
  readonly index: number;
  readonly settings: WaypointSettings;
  readonly state: SharedMeshState;
  readonly segment: SeriesSegment;
  /** Of rate limits, for all workers. */
  readonly buckets: SharedArrayBuffer;
  /** One Int32 that the worker counts up while it lives. */
  readonly heartbeat: SharedArrayBuffer;
}

export type ToWorker =
  /** There is a newer picture in the shared memory. */
  | { readonly type: 'state' }
  | { readonly type: 'configuration'; readonly push: ConfigurationPush }
  | { readonly type: 'certificate'; readonly certificate: IdentityCertificate }
  | { readonly type: 'certificate-failed'; readonly identity: string; readonly reason: string }
  /** All taps that are open; the worker's events are theirs. */
  | { readonly type: 'taps'; readonly taps: readonly TapSpec[] }
  | { readonly type: 'log-level'; readonly level: LogLevel; readonly accessLevel: LogLevel }
  /** With an id, of the requests and connections that have it; else everything since a time. */
  | { readonly type: 'journal'; readonly question: number; readonly sinceMs: number; readonly id: string }
  /** Everything that is asked for has come: open the ports. */
  | { readonly type: 'listen' }
  /** Peers are asked to go elsewhere; new connections are still served. */
  | { readonly type: 'drain' }
  /** No new connections any more. */
  | { readonly type: 'close' }
  | { readonly type: 'drain-deadline' };

export type FromWorker =
  | { readonly type: 'ready' }
  | { readonly type: 'listening'; readonly problem?: string }
  | { readonly type: 'certificate-wanted'; readonly identity: string }
  | { readonly type: 'series'; readonly series: readonly SeriesAnnouncement[] }
  | { readonly type: 'tapped'; readonly batches: readonly TapBatch[] }
  | { readonly type: 'refused'; readonly refusals: readonly CountedRefusal[] }
  | { readonly type: 'journal'; readonly question: number; readonly answer: JournalAnswer }
  /** After `close`: nothing is open any more. */
  | { readonly type: 'drained' };
