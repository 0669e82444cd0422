/** Watches every kind that the translation reads, and hands each change on in the order in which it came. Objects are not kept here. */
import type { Clock } from '../../common/base/clock.ts';
import type { Log } from '../../common/base/log.ts';
import type { KubeObject } from '../../common/client/kube-api.ts';
import { keepIdentity, type ObjectChange, type WatchableApi, watchObjects } from '../../common/client/kube-watch.ts';
import { type WatchedKind, type WatchedKindName, watchedKinds } from '../model/watched-kinds.ts';

export interface ClusterWatchOptions {
  readonly api: WatchableApi;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
  readonly signal: AbortSignal;
  onChange(kind: WatchedKindName, change: ObjectChange<KubeObject>): void;
  /** Once, when the first list of every kind has been handed on. */
  onSynced(): void;
}

export interface ClusterWatch {
  readonly synced: boolean;
  /** Kinds whose first list is still missing. */
  readonly missing: readonly WatchedKindName[];
}

export function watchCluster(options: ClusterWatchOptions): ClusterWatch {
  const missing = new Set(Object.keys(watchedKinds) as WatchedKindName[]);
  for (const kind of [...missing]) {
    const { path, only }: WatchedKind = watchedKinds[kind];
    watchObjects<KubeObject>(options.api, {
      ...options,
      path,
      ...(only !== undefined && { fieldSelector: `metadata.name=${only}` }),
      keep: keepIdentity,
      onChange: (change) => options.onChange(kind, change),
      onSynced() {
        missing.delete(kind);
        if (missing.size === 0) options.onSynced();
      },
    });
  }
  return {
    get synced() {
      return missing.size === 0;
    },
    get missing() {
      return [...missing];
    },
  };
}
