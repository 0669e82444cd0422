/**
 * A live copy of one collection: paginated LIST, then WATCH from there, for ever. Lost watches resume from the last resourceVersion;
 * where the server has forgotten it (410) the list is read again and compared, so that what vanished meanwhile is reported as deleted.
 * Types that the cluster does not have (404) are an empty store that is asked for again calmly. Handlers that throw are logged, and the
 * watch goes on.
 */
import { Backoff } from '../base/backoff.ts';
import { type Clock, minutes, seconds, sleep } from '../base/clock.ts';
import { errorMessage } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { type KubeApi, KubeApiError, type KubeObject, type Query, type WatchEvent } from './kube-api.ts';

export interface ObjectStore<T> {
  /** By `namespace/name`, or `name` where the type has no namespaces. */
  get(key: string): T | undefined;
  values(): Iterable<T>;
  /** The first list is complete (or the type is absent). Never turns back. */
  readonly synced: boolean;
}

export interface WatchedStore<T> extends ObjectStore<T> {
  /** `inScope` answers otherwise than before: everything is listed again, and what is new in scope or no longer in it is reported. */
  review(): void;
}

export interface ObjectChange<T> {
  readonly type: 'added' | 'modified' | 'deleted';
  /** For `deleted` the last state known: where the watch missed the deletion, what the store kept. `metadata.managedFields` is taken off. */
  readonly object: T;
  readonly previous?: T;
}

/** What a watch needs of KubeApi. */
export type WatchableApi = Pick<KubeApi, 'listPage' | 'watch'>;

export interface WatchOptions<T> {
  /** Of the collection: `/api/v1/pods`. */
  readonly path: string;
  readonly labelSelector?: string;
  readonly fieldSelector?: string;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
  /** Ends the watch. */
  readonly signal: AbortSignal;
  /** What the store keeps of an object, for those who only follow changes; must keep name, namespace, uid and resourceVersion. */
  keep?(object: T): T;
  /** Objects for which this says no are as good as not there; all are taken where it is missing. */
  inScope?(object: T): boolean;
  /** Once, after the changes of the first list. */
  onSynced?(): void;
  /** In the server's order. An object that was replaced by another of the same name (new uid) is a `deleted` and an `added`. */
  onChange(change: ObjectChange<T>): void;
}

/** Starts at once; the store belongs to the caller, its objects must not be changed. */
export function watchObjects<T extends KubeObject>(api: WatchableApi, options: WatchOptions<T>): WatchedStore<T> {
  const watcher = new Watcher<T>(api, options);
  void watcher.run();
  return watcher;
}

/** For `keep`: enough to notice changes and to report deletions. */
export function keepIdentity<T extends KubeObject>({ apiVersion, kind, metadata }: T): T {
  const { name, namespace, uid, resourceVersion } = metadata;
  return {
    ...(apiVersion && { apiVersion }),
    ...(kind && { kind }),
    metadata: {
      ...(name && { name }),
      ...(namespace && { namespace }),
      ...(uid && { uid }),
      ...(resourceVersion && { resourceVersion }),
    },
  } as T;
}

/** `namespace/name`, or `name` where there is no namespace. */
export function objectKey({ metadata }: KubeObject): string {
  return metadata.namespace ? `${metadata.namespace}/${metadata.name ?? ''}` : (metadata.name ?? '');
}

const ABSENT_RETRY_MS = seconds(10);
const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = seconds(30);
// Kubernetes bookmarks each minute, so three minutes of silence mean that nobody is there.
const INACTIVITY_MS = minutes(3);
// A process that did not run for minutes (stopped, or a machine that was asleep or far too busy) finds its timers due before it reads what has
// come meanwhile: all watches would be thought dead at once.
const SECOND_LOOK_MS = seconds(10);
// Servers end watches by themselves; a spread keeps all watchers from coming back at once.
const WATCH_S = 300;
// A watch that ended sooner than this is no success, or a server that closes at once would be asked in a tight loop.
const HEALTHY_WATCH_MS = seconds(5);
const EXPIRED = 410;

class Watcher<T extends KubeObject> implements WatchedStore<T> {
  readonly #api: WatchableApi;
  readonly #options: WatchOptions<T>;
  readonly #log: Log;
  readonly #backoff: Backoff;
  readonly #objects = new Map<string, T>();
  #resourceVersion: string | undefined;
  /** Ends the list or watch under way, to begin again. */
  #round = new AbortController();
  #synced = false;
  #absent = false;

  constructor(api: WatchableApi, options: WatchOptions<T>) {
    this.#api = api;
    this.#options = options;
    this.#log = options.log.child({ path: options.path });
    this.#backoff = new Backoff({ firstMs: FIRST_RETRY_MS, maxMs: LONGEST_RETRY_MS, jitter: 0.3, random: options.random });
  }

  get synced(): boolean {
    return this.#synced;
  }

  get(key: string): T | undefined {
    return this.#objects.get(key);
  }

  values(): Iterable<T> {
    return this.#objects.values();
  }

  review(): void {
    this.#round.abort(new Error('listed again'));
  }

  async run(): Promise<void> {
    const { clock, signal } = this.#options;
    while (!signal.aborted) {
      if (this.#round.signal.aborted) {
        this.#resourceVersion = undefined;
        this.#round = new AbortController();
      }
      const round = AbortSignal.any([signal, this.#round.signal]);
      try {
        if (this.#resourceVersion === undefined) await this.#list(round);
        const started = clock.monotonic();
        await this.#watch(this.#resourceVersion ?? '', round);
        if (clock.monotonic() - started >= HEALTHY_WATCH_MS) this.#backoff.reset();
        else await sleep(clock, this.#backoff.next(), round);
      } catch (error) {
        if (round.aborted) continue;
        await sleep(clock, this.#waitAfter(error), round).catch(() => {
          // Aborted while waiting: the loop looks why.
        });
      }
    }
  }

  async #list(signal: AbortSignal): Promise<void> {
    const { path, inScope } = this.#options;
    const listed = new Map<string, T>();
    // With nothing before it, nothing can have vanished: a page is handed on and forgotten, where 10,000 pods kept together take 100 MB.
    const first = this.#objects.size === 0;
    let next = '';
    let resourceVersion = '';
    do {
      const page = await this.#api.listPage<T>(path, { ...this.#selectors(), continue: next || undefined }, signal);
      for (const object of page.items) {
        if (inScope && !inScope(object)) continue;
        if (first) this.#store(objectKey(object), object);
        else listed.set(objectKey(object), object);
      }
      next = page.continue;
      resourceVersion = page.resourceVersion;
    } while (next !== '');
    this.#absent = false;
    if (first) this.#becomeSynced();
    else this.#reconcile(listed);
    this.#resourceVersion = resourceVersion;
  }

  async #watch(resourceVersion: string, signal: AbortSignal): Promise<void> {
    const { path, clock, random } = this.#options;
    const silence = new AbortController();
    const giveUp = (): void => silence.abort(new Error(`no event and no bookmark for ${INACTIVITY_MS / 1000} s`));
    const doubt = (): void => {
      timer = clock.after(SECOND_LOOK_MS, giveUp);
    };
    let timer = clock.after(INACTIVITY_MS, doubt);
    const query = {
      ...this.#selectors(),
      resourceVersion,
      allowWatchBookmarks: true,
      timeoutSeconds: Math.round(WATCH_S * (1 + random())),
    };
    const onEvent = (event: WatchEvent<T>): void => {
      timer.cancel();
      timer = clock.after(INACTIVITY_MS, doubt);
      this.#backoff.reset();
      this.#apply(event);
    };
    try {
      await this.#api.watch<T>(path, query, onEvent, AbortSignal.any([signal, silence.signal]));
    } finally {
      timer.cancel();
    }
  }

  #apply({ type, object }: WatchEvent<T>): void {
    this.#resourceVersion = object.metadata.resourceVersion ?? this.#resourceVersion;
    if (type === 'BOOKMARK') return;
    const { inScope } = this.#options;
    if (type === 'DELETED' || (inScope && !inScope(object))) this.#remove(objectKey(object), object);
    else this.#store(objectKey(object), object);
  }

  // Deletions first: an address may already belong to an object that the same list adds.
  #reconcile(listed: Map<string, T>): void {
    for (const [key, object] of [...this.#objects]) if (!listed.has(key)) this.#remove(key, object);
    for (const [key, object] of listed) this.#store(key, object);
    this.#becomeSynced();
  }

  #store(key: string, object: T): void {
    delete object.metadata.managedFields;
    let previous = this.#objects.get(key);
    if (previous && previous.metadata.uid !== object.metadata.uid) {
      this.#remove(key, previous);
      previous = undefined;
    }
    if (previous && previous.metadata.resourceVersion === object.metadata.resourceVersion) return;
    this.#objects.set(key, this.#options.keep?.(object) ?? object);
    this.#report(previous ? { type: 'modified', object, previous } : { type: 'added', object });
  }

  #remove(key: string, object: T): void {
    const previous = this.#objects.get(key);
    if (!previous) return;
    delete object.metadata.managedFields;
    this.#objects.delete(key);
    this.#report({ type: 'deleted', object, previous });
  }

  #report(change: ObjectChange<T>): void {
    try {
      this.#options.onChange(change);
    } catch (error) {
      this.#log.error({ err: error, change: change.type, object: objectKey(change.object) }, 'handler of a change failed');
    }
  }

  #becomeSynced(): void {
    if (this.#synced) return;
    this.#synced = true;
    try {
      this.#options.onSynced?.();
    } catch (error) {
      this.#log.error({ err: error }, 'handler of the first list failed');
    }
  }

  #waitAfter(error: unknown): number {
    const status = error instanceof KubeApiError ? error.status : 0;
    if (status === 404) return this.#typeIsAbsent();
    if (status === EXPIRED) {
      this.#resourceVersion = undefined;
      this.#log.debug({}, 'resource version expired, listing again');
    } else {
      this.#log.warn({ error: errorMessage(error), status }, 'watch failed, trying again');
    }
    return Math.max(this.#backoff.next(), (error instanceof KubeApiError && error.retryAfterMs) || 0);
  }

  #typeIsAbsent(): number {
    if (!this.#absent) this.#log.info({}, 'type is not known to the cluster, asking again every 10 s');
    this.#absent = true;
    this.#resourceVersion = undefined;
    this.#reconcile(new Map());
    return ABSENT_RETRY_MS * (1 + 0.2 * (this.#options.random() * 2 - 1));
  }

  #selectors(): Query {
    const { labelSelector, fieldSelector } = this.#options;
    return { labelSelector, fieldSelector };
  }
}
