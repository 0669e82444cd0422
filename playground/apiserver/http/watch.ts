/**
 * A watch over HTTP: one JSON line per event, serialised once for all watchers of the same form. A reader that is too slow is cut off (it
 * will list again), so no queue grows without bound.
 */
import type { Clock } from '../../../common/base/clock.ts';
import { ApiError } from '../api-error.ts';
import type { KubeObject } from '../object.ts';
import { apiVersionOf, type ResourceType, type ServedVersion } from '../registry.ts';
import { inVersion } from '../store/rules.ts';
import type { Store } from '../store/store.ts';
import type { ListOptions } from '../store/writes.ts';
import { type IncludeObject, partialMetadata, tableOf } from '../tables/table.ts';
import type { Exchange } from './exchange.ts';

export type Form =
  | { readonly as: 'object' }
  | { readonly as: 'metadata' }
  | { readonly as: 'table'; readonly includeObject: IncludeObject };

const BOOKMARK_MS = 60_000;
const DEFAULT_TIMEOUT_S = 1800;
const MAX_BEHIND_BYTES = 16 << 20;

export interface WatchTarget {
  readonly store: Store;
  readonly clock: Clock;
  readonly type: ResourceType;
  readonly version: ServedVersion;
  readonly options: ListOptions;
  readonly form: Form;
}

export function serveWatch(exchange: Exchange, { store, clock, type, version, options, form }: WatchTarget): void {
  if (exchange.flag('sendInitialEvents')) {
    // Clients take this answer as "list first", which every server without the feature gives.
    const why = 'Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled';
    throw ApiError.invalid({ group: 'meta.k8s.io', plural: 'listoptions', kind: 'ListOptions' }, '', [
      { field: 'sendInitialEvents', reason: 'FieldValueForbidden', message: why },
    ]);
  }
  const asked = exchange.query.get('resourceVersion') ?? '';
  const from = asked === '' || asked === '0' ? undefined : Number(asked);
  if (from !== undefined && !Number.isSafeInteger(from)) throw ApiError.badRequest(`invalid resource version "${asked}"`);
  const initial = from === undefined ? listMatching(store, type, options) : [];
  const { response } = exchange;
  const pending: string[] = [];
  let started = false;
  const write = (line: string): void => {
    if (!started) pending.push(line);
    else if (response.writableLength > MAX_BEHIND_BYTES) response.destroy();
    else response.write(line);
  };
  const send = (kind: string, object: KubeObject): void => write(eventLine(kind, object, type, version, form, clock.now()));
  // Subscribed before anything is answered: a version that is too old must be refused with a status.
  const stop = store.subscribe(type, from ?? store.resourceVersion, options, (event) => send(event.type, event.object));
  exchange.stream('application/json');
  started = true;
  for (const object of initial) send('ADDED', object);
  for (const line of pending) write(line);
  const bookmark = (): void => {
    write(`${JSON.stringify({ type: 'BOOKMARK', object: bookmarkObject(store, type, version, form) })}\n`);
    bookmarks = clock.after(BOOKMARK_MS, bookmark);
  };
  let bookmarks = exchange.flag('allowWatchBookmarks') ? clock.after(BOOKMARK_MS, bookmark) : undefined;
  const timeout = clock.after((exchange.count('timeoutSeconds') ?? DEFAULT_TIMEOUT_S) * 1000, () => {
    if (bookmarks) write(`${JSON.stringify({ type: 'BOOKMARK', object: bookmarkObject(store, type, version, form) })}\n`);
    response.end();
  });
  response.once('close', () => {
    stop();
    bookmarks?.cancel();
    timeout.cancel();
  });
}

function listMatching(store: Store, type: ResourceType, options: ListOptions): KubeObject[] {
  return store.list(`${type.kind}.${type.group}`, options);
}

const lines = new WeakMap<KubeObject, Map<string, string>>();

/** Kept per object, event and form: every watcher of the same kind gets the same text. */
function eventLine(kind: string, object: KubeObject, type: ResourceType, version: ServedVersion, form: Form, now: number): string {
  if (form.as === 'table') {
    return `${JSON.stringify({ type: kind, object: tableOf(type, version, [object], { now, includeObject: form.includeObject, metadata: versionOf(object) }) })}\n`;
  }
  const key = `${kind} ${form.as} ${version.name}`;
  let known = lines.get(object);
  if (!known) {
    known = new Map();
    lines.set(object, known);
  }
  let line = known.get(key);
  if (line === undefined) {
    line = `${JSON.stringify({ type: kind, object: form.as === 'metadata' ? partialMetadata(object) : inVersion(object, type, version) })}\n`;
    known.set(key, line);
  }
  return line;
}

const versionOf = (object: KubeObject): { resourceVersion?: string } => {
  const { resourceVersion } = object.metadata;
  return resourceVersion ? { resourceVersion } : {};
};

function bookmarkObject(store: Store, type: ResourceType, version: ServedVersion, form: Form): object {
  const metadata = { resourceVersion: String(store.resourceVersion), creationTimestamp: null };
  if (form.as === 'table') return { kind: 'Table', apiVersion: 'meta.k8s.io/v1', metadata, columnDefinitions: [], rows: [] };
  if (form.as === 'metadata') return { kind: 'PartialObjectMetadata', apiVersion: 'meta.k8s.io/v1', metadata };
  return { kind: type.kind, apiVersion: apiVersionOf(type.group, version.name), metadata };
}
