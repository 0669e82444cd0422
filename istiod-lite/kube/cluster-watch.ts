/**
 * Watches every kind that the translation reads, and hands each change on in the order in which it came. Objects are not kept here. Where only
 * some namespaces are in scope, Namespaces come first, and everything is listed again when another one comes into scope or leaves it.
 */
import type { Clock, Timer } from '../../common/base/clock.ts';
import type { Log } from '../../common/base/log.ts';
import type { KubeObject } from '../../common/client/kube-api.ts';
import { keepIdentity, type ObjectChange, type WatchableApi, type WatchedStore, watchObjects } from '../../common/client/kube-watch.ts';
import { allKinds, type KindName, type WatchedKind } from '../model/watched-kinds.ts';
import type { Scope } from './scope.ts';

export interface ClusterWatchOptions {
  readonly api: WatchableApi;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
  readonly signal: AbortSignal;
  readonly scope: Scope;
  onChange(kind: KindName, change: ObjectChange<KubeObject>): void;
  /** Once, when the first list of every kind has been handed on. */
  onSynced(): void;
}

export interface ClusterWatch {
  readonly synced: boolean;
  /** Kinds whose first list is still missing. */
  readonly missing: readonly KindName[];
}

// A namespace and what is in it are often made together: one list for all of it.
const REVIEW_AFTER_MS = 100;

export function watchCluster(options: ClusterWatchOptions): ClusterWatch {
  const { scope, clock } = options;
  const kinds = Object.keys(allKinds) as KindName[];
  const missing = new Set(kinds);
  const stores: WatchedStore<KubeObject>[] = [];
  let soon: Timer | undefined;
  const review = (): void => {
    soon?.cancel();
    soon = clock.after(REVIEW_AFTER_MS, () => {
      for (const store of stores) store.review();
    });
  };
  const start = (kind: KindName): WatchedStore<KubeObject> => {
    const { path, only }: WatchedKind = allKinds[kind];
    return watchObjects<KubeObject>(options.api, {
      ...options,
      path,
      ...(only !== undefined && { fieldSelector: `metadata.name=${only}` }),
      keep: keepIdentity,
      inScope: (object) => scope.includes(kind, object),
      onChange(change) {
        const { name = '' } = change.object.metadata;
        if (kind === 'Namespace' && scope.namespaceChanged(name, change.type !== 'deleted') && !scope.isWhole) review();
        options.onChange(kind, change);
      },
      onSynced() {
        missing.delete(kind);
        if (kind === 'Namespace' && !scope.isWhole) for (const other of kinds) if (other !== 'Namespace') stores.push(start(other));
        if (missing.size === 0) options.onSynced();
      },
    });
  };
  for (const kind of kinds) if (kind === 'Namespace' || scope.isWhole) start(kind);
  return {
    get synced() {
      return missing.size === 0;
    },
    get missing() {
      return [...missing];
    },
  };
}
