/**
 * Collections of objects in memory that answer like an API server: lists, watches from a version, compare and swap, conditions merged by their
 * type. No I/O; what is kept over a restart is told to `keep`.
 */
import {
  KubeApiError,
  type KubeObject,
  type ListPage,
  type PatchOptions,
  type Query,
  type WatchEvent,
} from '../../common/client/kube-api.ts';
import { at, list, records, text } from '../model/objects.ts';

interface Collection {
  readonly objects: Map<string, KubeObject>;
  readonly watchers: Set<(event: Event) => void>;
  /** The latest events, for watches that begin a little in the past. */
  readonly history: Event[];
  /** Watches from before this version must list again. */
  forgottenBefore: number;
}

interface Event {
  readonly version: number;
  readonly event: WatchEvent<KubeObject>;
}

interface Target {
  readonly collection: string;
  readonly namespace: string;
  readonly name: string;
  readonly subresource: string;
}

const MAX_HISTORY = 10_000;

export class ObjectTable {
  readonly #collections = new Map<string, Collection>();
  /** Types of conditions by object and field manager: what a manager stops saying is taken away. */
  readonly #owned = new Map<string, ReadonlySet<string>>();
  #version = 0;

  /** Creates or replaces; nothing happens where only the status would differ. @returns whether it was new or different */
  put(collection: string, object: KubeObject): boolean {
    const found = this.#collection(collection);
    const key = keyOf(object);
    const before = found.objects.get(key);
    if (before && sameWish(before, object)) return false;
    const { namespace = '', name = '' } = object.metadata;
    const generation = (before?.metadata.generation ?? 0) + 1;
    const uid = before?.metadata.uid ?? `${collection}/${namespace}/${name}`;
    const status = before?.status === undefined ? {} : { status: before.status };
    this.#store(found, key, { ...object, ...status, metadata: { ...object.metadata, uid, generation } });
    return true;
  }

  remove(collection: string, key: string): void {
    const found = this.#collection(collection);
    const before = found.objects.get(key);
    if (!before) return;
    found.objects.delete(key);
    this.#tell(found, 'DELETED', before);
  }

  /** @throws {KubeApiError} 404 */
  get(path: string): KubeObject {
    const { collection, namespace, name } = parse(path);
    const object = this.#collection(collection).objects.get(namespace === '' ? name : `${namespace}/${name}`);
    if (!object) throw new KubeApiError(404, 'NotFound', `${path}: not found`);
    return object;
  }

  /** @throws {KubeApiError} 409 where it is there already */
  create(path: string, object: KubeObject): KubeObject {
    const { collection, namespace } = parse(path);
    const placed = { ...object, metadata: { ...object.metadata, ...(namespace !== '' && { namespace }) } };
    if (this.#collection(collection).objects.has(keyOf(placed))) throw new KubeApiError(409, 'AlreadyExists', `${path}: exists already`);
    this.put(collection, placed);
    return this.get(`${path}/${object.metadata.name}`);
  }

  /** @throws {KubeApiError} 404; 409 where the object has another version by now */
  replace(path: string, object: KubeObject): KubeObject {
    const before = this.get(path);
    const { resourceVersion } = object.metadata;
    if (resourceVersion !== undefined && resourceVersion !== before.metadata.resourceVersion)
      throw new KubeApiError(409, 'Conflict', `${path}: the object has been modified`);
    this.put(parse(path).collection, object);
    return this.get(path);
  }

  /** Statuses only, as a server-side apply. @throws {KubeApiError} 404; 405 for anything else */
  patch(path: string, body: KubeObject, { fieldManager = '' }: Pick<PatchOptions, 'fieldManager'>): KubeObject {
    const { collection, subresource } = parse(path);
    if (subresource !== 'status')
      throw new KubeApiError(405, 'MethodNotAllowed', `${path}: files are the operator's, and nobody runs what is not in them`);
    const before = this.get(path);
    const owner = `${path} ${fieldManager}`;
    const said = records(at(body, 'status', 'conditions'));
    const types = new Set(said.map(({ type }) => text(type)));
    const gone = this.#owned.get(owner) ?? new Set();
    this.#owned.set(owner, types);
    const others = records(at(before, 'status', 'conditions')).filter(({ type }) => !types.has(text(type)) && !gone.has(text(type)));
    const status = { ...(before.status as object | undefined), ...(body.status as object | undefined), conditions: [...others, ...said] };
    const found = this.#collection(collection);
    if (JSON.stringify(status) !== JSON.stringify(before.status)) this.#store(found, keyOf(before), { ...before, status });
    return this.get(path);
  }

  list(path: string, query: Query): ListPage<KubeObject> {
    const { collection, namespace } = parse(`${path}/*`);
    const items = [...this.#collection(collection).objects.values()].filter((object) => concerns(object, namespace, query));
    return { items: structuredClone(items), resourceVersion: String(this.#version), continue: '' };
  }

  /** Tells of everything after the version that the query names. @returns what ends it @throws {KubeApiError} 410 where that is too long ago */
  watch(path: string, query: Query, onEvent: (event: WatchEvent<KubeObject>) => void): () => void {
    const { collection, namespace } = parse(`${path}/*`);
    const found = this.#collection(collection);
    const from = Number(query.resourceVersion ?? 0);
    if (from < found.forgottenBefore) throw new KubeApiError(410, 'Expired', `${path}: version ${from} is too old`);
    const tell = ({ version, event }: Event): void => {
      if (version > from && concerns(event.object, namespace, query)) onEvent(structuredClone(event));
    };
    for (const event of found.history) tell(event);
    found.watchers.add(tell);
    return () => void found.watchers.delete(tell);
  }

  /** An event without an object: whoever watches knows that we are there. */
  bookmark(): WatchEvent<KubeObject> {
    return { type: 'BOOKMARK', object: { metadata: { resourceVersion: String(this.#version) } } };
  }

  #collection(path: string): Collection {
    const known = this.#collections.get(path);
    if (known) return known;
    const made: Collection = { objects: new Map(), watchers: new Set(), history: [], forgottenBefore: 0 };
    this.#collections.set(path, made);
    return made;
  }

  #store(collection: Collection, key: string, object: KubeObject): void {
    const type = collection.objects.has(key) ? 'MODIFIED' : 'ADDED';
    const stored = { ...object, metadata: { ...object.metadata, resourceVersion: String(++this.#version) } };
    collection.objects.set(key, stored);
    this.#tell(collection, type, stored);
  }

  #tell(collection: Collection, type: 'ADDED' | 'MODIFIED' | 'DELETED', object: KubeObject): void {
    const version = type === 'DELETED' ? ++this.#version : Number(object.metadata.resourceVersion);
    const event: Event = {
      version,
      event: { type, object: { ...object, metadata: { ...object.metadata, resourceVersion: String(version) } } },
    };
    collection.history.push(event);
    if (collection.history.length > MAX_HISTORY) {
      const [oldest] = collection.history.splice(0, MAX_HISTORY / 2);
      collection.forgottenBefore = collection.history[0]?.version ?? oldest?.version ?? 0;
    }
    for (const watcher of collection.watchers) watcher(event);
  }
}

const keyOf = ({ metadata: { namespace, name = '' } }: KubeObject): string => (namespace ? `${namespace}/${name}` : name);

/** `/apis/GROUP/VERSION/namespaces/NAMESPACE/PLURAL/NAME/SUBRESOURCE`, with fewer parts for others. */
function parse(path: string): Target {
  const parts = path.split('/').slice(1);
  const prefix = parts.splice(0, parts[0] === 'api' ? 2 : 3);
  const namespaced = parts[0] === 'namespaces' && parts.length > 2;
  const [, namespace = ''] = namespaced ? parts.splice(0, 2) : [];
  const [plural = '', name = '', subresource = ''] = parts;
  return { collection: `/${[...prefix, plural].join('/')}`, namespace, name, subresource };
}

function concerns({ metadata }: KubeObject, namespace: string, { fieldSelector, labelSelector }: Query): boolean {
  if (namespace !== '' && metadata.namespace !== namespace) return false;
  const byName = /^metadata\.name=(.+)$/.exec(String(fieldSelector ?? ''))?.[1];
  if (byName !== undefined && metadata.name !== byName) return false;
  return String(labelSelector ?? '')
    .split(',')
    .every((term) => {
      const [key = '', value] = term.split('=');
      return key === '' || (value === undefined ? metadata.labels?.[key] !== undefined : metadata.labels?.[key] === value);
    });
}

/** What the API server sets is not compared. */
function sameWish(before: KubeObject, object: KubeObject): boolean {
  const wish = ({ status: _status, metadata, ...rest }: KubeObject): string => {
    const { resourceVersion: _version, generation: _generation, uid: _uid, ...own } = metadata;
    return JSON.stringify([own, rest], (_key, value: unknown) =>
      isPlain(value) ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))) : value,
    );
  };
  return wish(before) === wish(object);
}

const isPlain = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null && list(value) !== value;
