/** What the store is asked and what it tells: options, patches, events, and a write on its way. */
import type { KubeObject, ManagedFieldsEntry } from '../object.ts';
import type { ResourceType, ServedVersion } from '../registry.ts';
import type { LabelSelector } from '../selectors.ts';

export interface WriteOptions {
  readonly fieldManager?: string;
  readonly dryRun?: boolean;
  /** What happens to unknown fields: refused, named in a warning, or dropped silently. Ignore where it is not given. */
  readonly fieldValidation?: 'Strict' | 'Warn' | 'Ignore';
  readonly onWarning?: (text: string) => void;
  /** `status`, `scale`, … */
  readonly subresource?: string;
}

export interface DeleteOptions {
  readonly gracePeriodSeconds?: number;
  readonly propagationPolicy?: 'Foreground' | 'Background' | 'Orphan';
  readonly preconditions?: { readonly uid?: string; readonly resourceVersion?: string };
  readonly dryRun?: boolean;
}

export type Patch =
  | { readonly type: 'json' | 'merge' | 'strategic'; readonly body: unknown }
  | { readonly type: 'apply'; readonly body: unknown; readonly force?: boolean };

export interface ListOptions {
  readonly namespace?: string;
  readonly labelSelector?: string | LabelSelector;
  readonly fieldSelector?: string;
}

export interface WatchEvent<T extends KubeObject = KubeObject> {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED';
  readonly object: T;
  /** The state before; absent for what is new to the watcher. */
  readonly previous?: T;
}

/** A write on its way: admission may change `object` before it is committed. */
export interface Draft {
  readonly verb: 'CREATE' | 'UPDATE';
  readonly type: ResourceType;
  readonly version: ServedVersion;
  readonly old: KubeObject | undefined;
  object: KubeObject;
  readonly options: WriteOptions;
  /** Set by a server-side apply, which computes ownership itself. */
  readonly managers?: ManagedFieldsEntry[];
}
