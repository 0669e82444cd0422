/**
 * One cohesive machine: every object of the cluster and the course of its changes, with conflicts by resource version, generations,
 * finalizers, graceful deletion and field ownership, synchronous from call to commit. Controllers and kubelets call it directly; the HTTP server calls
 * the same methods and only puts admission webhooks between `prepare…` and `commit`.
 * What it hands out is frozen: copy before changing.
 */
import { randomUUID } from 'node:crypto';
import type { Clock } from '../../../common/base/clock.ts';
import { ApiError, type FieldCause } from '../api-error.ts';
import { cloneDeep, equalDeep, freezeDeep, isObject, stringOf } from '../json.ts';
import type { Behaviour, KindContext } from '../kinds/behaviour.ts';
import { checkMetadata } from '../kinds/names.ts';
import { type KubeObject, timestamp } from '../object.ts';
import { applyJsonPatch, applyMergePatch } from '../patch/json-patch.ts';
import { applyConfiguration, trackUpdate } from '../patch/managed-fields.ts';
import { applyStrategicMerge } from '../patch/strategic-merge.ts';
import { apiVersionOf, type Registry, type ResourceType, type ServedVersion, splitApiVersion } from '../registry.ts';
import { conform, missingFields, structuralCauses } from '../schemas/structure.ts';
import { Collection } from './collection.ts';
import type { Change, ChangeListener } from './journal.ts';
import {
  gracePeriod,
  inStorage,
  inVersion,
  isDoneDeleting,
  isNamespace,
  KEPT_IN_STATUS_APPLY,
  matcher,
  nameMismatch,
  preferred,
  specOf,
  statusCarriesMetadata,
  withManagers,
  withoutTimes,
} from './rules.ts';
import type { DeleteOptions, Draft, ListOptions, Patch, WatchEvent, WriteOptions } from './writes.ts';

export interface StoreOptions {
  readonly registry: Registry;
  readonly clock: Clock;
  readonly random: () => number;
  readonly behaviours: ReadonlyMap<string, Behaviour>;
}

const NAME_ALPHABET = 'bcdfghjklmnpqrstvwxz2456789';
const MAX_NAME = 253;
/** Of one type. A controller that creates without end should hear of it before the memory is gone. */
const MAX_OBJECTS = 50_000;

export class Store implements KindContext {
  readonly registry: Registry;
  readonly clock: Clock;
  readonly random: () => number;
  readonly #behaviours: ReadonlyMap<string, Behaviour>;
  readonly #collections = new Map<string, Collection>();
  readonly #observers = new Set<(type: ResourceType, change: Change) => void>();
  #version = 1;

  constructor({ registry, clock, random, behaviours }: StoreOptions) {
    this.registry = registry;
    this.clock = clock;
    this.random = random;
    this.#behaviours = behaviours;
  }

  /** The resource version of the latest change. */
  get resourceVersion(): number {
    return this.#version;
  }

  // ---- for controllers and kubelets -------------------------------------------------------------------------------------------------

  /** @param kind `Pod`, or `Gateway.networking.istio.io` where several groups have the kind */
  get<T extends KubeObject = KubeObject>(kind: string, name: string, namespace = ''): T | undefined {
    return this.collection(this.typeOf(kind)).get(namespace, name) as T | undefined;
  }

  list<T extends KubeObject = KubeObject>(kind: string, options: ListOptions = {}): T[] {
    const matches = matcher(options);
    return [...this.collection(this.typeOf(kind)).values(options.namespace || undefined)].filter(matches) as T[];
  }

  /** @throws {ApiError} Invalid, AlreadyExists, NotFound (namespace) */
  create<T extends KubeObject = KubeObject>(object: T, options: WriteOptions = {}): T {
    const { type, version } = this.resolve(object.apiVersion, object.kind);
    return this.commit(this.prepareCreate(type, version, object, options)) as T;
  }

  /** Replaces all but the status. @throws {ApiError} Conflict where `metadata.resourceVersion` is set and not the current one */
  update<T extends KubeObject = KubeObject>(object: T, options: WriteOptions = {}): T {
    const { type, version } = this.resolve(object.apiVersion, object.kind);
    return this.commit(this.prepareUpdate(type, version, object, options)) as T;
  }

  /** Replaces the status and nothing else. */
  updateStatus<T extends KubeObject = KubeObject>(object: T, options: WriteOptions = {}): T {
    return this.update(object, { ...options, subresource: 'status' });
  }

  patch<T extends KubeObject = KubeObject>(kind: string, name: string, namespace: string, patch: Patch, options: WriteOptions = {}): T {
    const type = this.typeOf(kind);
    return this.commit(this.preparePatch(type, preferred(type), namespace, name, patch, options)) as T;
  }

  /**
   * @returns the object as it waits for its finalizers or its kubelet, or as it was when it went at once
   * @throws {ApiError} NotFound, Conflict (preconditions)
   */
  delete<T extends KubeObject = KubeObject>(kind: string, name: string, namespace = '', options: DeleteOptions = {}): T {
    return this.remove(this.typeOf(kind), namespace, name, options) as T;
  }

  /**
   * Tells of every object that there is, then of every change, in order, each time in a microtask of its own (so that a handler may write).
   * An object that stops matching the selectors counts as deleted.
   */
  watch<T extends KubeObject = KubeObject>(kind: string, options: ListOptions, handler: (event: WatchEvent<T>) => void): { close(): void } {
    const type = this.typeOf(kind);
    let open = true;
    const deliver = (event: WatchEvent): void =>
      queueMicrotask(() => {
        if (open) handler(event as WatchEvent<T>);
      });
    for (const object of this.list(kind, options)) deliver({ type: 'ADDED', object });
    const stop = this.subscribe(type, this.#version, options, deliver);
    return {
      close() {
        open = false;
        stop();
      },
    };
  }

  // ---- for the HTTP server ----------------------------------------------------------------------------------------------------------

  /** @throws {ApiError} BadRequest where the type or version is not served */
  resolve(apiVersion: string, kind: string): { type: ResourceType; version: ServedVersion } {
    const { group, version } = splitApiVersion(stringOf(apiVersion));
    const type = this.registry.byKind(group, kind);
    const served = type?.versions.find(({ name }) => name === version);
    if (!type || !served) throw ApiError.badRequest(`no matches for kind "${stringOf(kind)}" in version "${stringOf(apiVersion)}"`);
    return { type, version: served };
  }

  collection(type: ResourceType): Collection {
    const key = `${type.group}/${type.plural}`;
    let collection = this.#collections.get(key);
    if (!collection) {
      collection = new Collection(this.#version);
      this.#collections.set(key, collection);
    }
    return collection;
  }

  /** Calls `listener` at once for each change after `version`. @throws {ApiError} Expired */
  subscribe(
    type: ResourceType,
    version: number,
    options: ListOptions,
    listener: (event: WatchEvent & { version: number }) => void,
  ): () => void {
    const matches = matcher(options);
    const { namespace } = options;
    const filtered: ChangeListener = (change) => {
      if (namespace && change.object.metadata.namespace !== namespace) return;
      const before = change.previous !== undefined && matches(change.previous);
      const after = change.type !== 'DELETED' && matches(change.object);
      if (!before && !after) return;
      const kind = after ? (before ? 'MODIFIED' : 'ADDED') : 'DELETED';
      listener({
        type: kind,
        object: change.object,
        version: change.version,
        ...(before && change.previous ? { previous: change.previous } : {}),
      });
    };
    return this.collection(type).journal.subscribe(version, filtered);
  }

  /** Calls `observer` synchronously after each committed change of any type. For the garbage collector and the like. */
  observe(observer: (type: ResourceType, change: Change) => void): void {
    this.#observers.add(observer);
  }

  prepareCreate(type: ResourceType, version: ServedVersion, input: KubeObject, options: WriteOptions): Draft {
    const object = this.#decode(type, version, input, options);
    const { metadata } = object;
    if (type.namespaced && !metadata.namespace) metadata.namespace = 'default';
    if (!type.namespaced) delete metadata.namespace;
    if (!metadata.name && metadata.generateName) metadata.name = this.#generateName(type, metadata.generateName, metadata.namespace);
    delete metadata.managedFields;
    if (metadata.resourceVersion) throw ApiError.badRequest('resourceVersion should not be set on objects to be created');
    if (metadata.namespace !== undefined) this.#checkNamespace(type, object);
    if (metadata.name && this.collection(type).get(metadata.namespace ?? '', metadata.name))
      throw ApiError.alreadyExists(type, metadata.name);
    if (this.collection(type).size >= MAX_OBJECTS)
      throw new ApiError(507, 'InsufficientStorage', `there are ${MAX_OBJECTS} ${type.plural} already, which is the limit`);
    delete metadata.deletionTimestamp;
    delete metadata.deletionGracePeriodSeconds;
    if (type.status) {
      delete object.status;
      const initial = version.schema.field('status')?.schema.default;
      if (initial !== undefined) object.status = cloneDeep(initial);
    }
    metadata.uid = randomUUID();
    metadata.creationTimestamp = timestamp(this.clock.now());
    metadata.generation = 1;
    this.#behaviour(type)?.create?.(object, this);
    return { verb: 'CREATE', type, version, old: undefined, object, options };
  }

  prepareUpdate(type: ResourceType, version: ServedVersion, input: KubeObject, options: WriteOptions): Draft {
    const { name, namespace = '' } = input.metadata;
    const old = this.require(type, type.namespaced ? namespace : '', name);
    const { resourceVersion, uid } = input.metadata;
    if (resourceVersion && resourceVersion !== old.metadata.resourceVersion) throw ApiError.staleVersion(type, name);
    if (uid && uid !== old.metadata.uid) {
      throw ApiError.conflict(type, name, `Precondition failed: UID in precondition: ${uid}, UID in object meta: ${old.metadata.uid}`);
    }
    return this.#updateDraft(type, version, old, input, options);
  }

  /** Server-side apply creates what is not there, but not by way of a subresource; every other patch needs its object. */
  preparePatch(type: ResourceType, version: ServedVersion, namespace: string, name: string, patch: Patch, options: WriteOptions): Draft {
    const live = this.collection(type).get(type.namespaced ? namespace : '', name);
    if (!live && (patch.type !== 'apply' || options.subresource)) throw ApiError.notFound(type, name);
    if (patch.type === 'apply') return this.#prepareApply(type, version, namespace, name, live, patch, options);
    if (!live) throw ApiError.notFound(type, name);
    const current = cloneDeep(inVersion(live, type, version));
    const patched =
      patch.type === 'json'
        ? applyJsonPatch(current, patch.body)
        : patch.type === 'merge'
          ? applyMergePatch(current, patch.body)
          : applyStrategicMerge(current, patch.body, version.schema);
    if (!isObject(patched) || !isObject(patched.metadata)) throw ApiError.badRequest('the patched object has no metadata');
    const object = patched as KubeObject;
    const { resourceVersion } = object.metadata;
    if (resourceVersion && resourceVersion !== live.metadata.resourceVersion) throw ApiError.staleVersion(type, name);
    return this.#updateDraft(type, version, live, object, options);
  }

  /** Takes what a mutating webhook made of a draft: decoded anew, since nobody has looked at it yet. */
  readmit(draft: Draft, object: KubeObject): void {
    const { name, namespace } = draft.object.metadata;
    const decoded = this.#decode(draft.type, draft.version, object, { ...draft.options, fieldValidation: 'Ignore' });
    Object.assign(decoded.metadata, { name }, namespace === undefined ? {} : { namespace });
    draft.object = decoded;
  }

  /** Checks a draft and makes it the current state. @throws {ApiError} Invalid, Conflict where the state changed since it was prepared */
  commit(draft: Draft): KubeObject {
    const { type, version, old, options } = draft;
    const object = this.#finish(draft);
    const current = this.collection(type).get(object.metadata.namespace ?? '', object.metadata.name);
    if (current !== old) throw old ? ApiError.staleVersion(type, object.metadata.name) : ApiError.alreadyExists(type, object.metadata.name);
    this.#check(type, version, object, old, options);
    if (options.dryRun) return freezeDeep(object);
    if (old && equalDeep(withoutTimes(object), withoutTimes(old))) return old;
    if (old && object.metadata.deletionTimestamp && isDoneDeleting(object)) {
      this.erase(type, object);
      return object;
    }
    return this.#publish(type, old ? 'MODIFIED' : 'ADDED', object, old);
  }

  remove(type: ResourceType, namespace: string, name: string, options: DeleteOptions): KubeObject {
    const old = this.require(type, namespace, name);
    const { uid, resourceVersion } = options.preconditions ?? {};
    if ((uid && uid !== old.metadata.uid) || (resourceVersion && resourceVersion !== old.metadata.resourceVersion)) {
      throw ApiError.conflict(type, name, 'the precondition on its UID or resource version does not hold');
    }
    const grace = gracePeriod(type, old, options.gracePeriodSeconds);
    const finalizers = new Set(old.metadata.finalizers ?? []);
    if (options.propagationPolicy === 'Foreground') finalizers.add('foregroundDeletion');
    if (options.propagationPolicy === 'Orphan') finalizers.add('orphan');
    const object = cloneDeep(old);
    const { metadata } = object;
    if (finalizers.size > 0) metadata.finalizers = [...finalizers];
    const { deletionGracePeriodSeconds: previousGrace } = old.metadata;
    if (!metadata.deletionTimestamp || previousGrace === undefined || grace < previousGrace) {
      metadata.deletionTimestamp ??= timestamp(this.clock.now() + grace * 1000);
      if (previousGrace !== undefined) metadata.deletionTimestamp = timestamp(this.clock.now() + grace * 1000);
      metadata.deletionGracePeriodSeconds = grace;
      if (!old.metadata.deletionTimestamp) metadata.generation = (metadata.generation ?? 1) + 1;
    }
    if (isNamespace(type)) object.status = { ...(isObject(object.status) ? object.status : {}), phase: 'Terminating' };
    if (options.dryRun) return freezeDeep(object);
    if (isDoneDeleting(object)) return this.erase(type, old);
    if (equalDeep(object, old)) return old;
    return this.#publish(type, 'MODIFIED', object, old);
  }

  /** Changes an object past the rules for clients: for the server's own controllers. Deletes it if that was what it waited for. */
  rewrite(type: ResourceType, old: KubeObject, change: (object: KubeObject) => void): KubeObject {
    const object = cloneDeep(old);
    change(object);
    if (equalDeep(object, old)) return old;
    if (isDoneDeleting(object)) return this.erase(type, object);
    return this.#publish(type, 'MODIFIED', object, old);
  }

  /** Puts an object into the store as it is, owned by nobody: for what is there from the start. */
  seed(object: KubeObject): void {
    const { type } = this.resolve(object.apiVersion, object.kind);
    const metadata = { ...object.metadata, uid: randomUUID(), creationTimestamp: timestamp(this.clock.now()), generation: 1 };
    this.#publish(type, 'ADDED', { ...object, metadata }, undefined);
  }

  /** @throws {ApiError} NotFound */
  require(type: ResourceType, namespace: string, name: string): KubeObject {
    const object = this.collection(type).get(namespace, name);
    if (!object) throw ApiError.notFound(type, name);
    return object;
  }

  // ---- KindContext ------------------------------------------------------------------------------------------------------------------

  find(kind: string, name: string, namespace = ''): KubeObject | undefined {
    return this.get(kind, name, namespace);
  }

  each(kind: string, namespace?: string): Iterable<KubeObject> {
    return this.collection(this.typeOf(kind)).values(namespace);
  }

  /** @throws {Error} for a kind that is not served: the caller's mistake */
  typeOf(kind: string): ResourceType {
    const type = this.registry.find(kind);
    if (!type) throw new Error(`no type is served for kind ${kind}`);
    return type;
  }

  // -----------------------------------------------------------------------------------------------------------------------------------

  #prepareApply(
    type: ResourceType,
    version: ServedVersion,
    namespace: string,
    name: string,
    live: KubeObject | undefined,
    patch: Patch & { type: 'apply' },
    options: WriteOptions,
  ): Draft {
    if (!options.fieldManager) throw ApiError.badRequest('fieldManager is required for apply patch');
    if (!isObject(patch.body)) throw ApiError.badRequest('an apply patch is an object');
    const config = this.#decode(type, version, patch.body as KubeObject, options, 'keep defaults out');
    if (config.metadata.managedFields) throw ApiError.badRequest('metadata.managedFields must be nil');
    if (config.metadata.name && config.metadata.name !== name) throw ApiError.badRequest(nameMismatch(config.metadata.name, name));
    config.metadata.name = name;
    if (type.namespaced) config.metadata.namespace = namespace;
    const { resourceVersion } = config.metadata;
    if (resourceVersion && resourceVersion !== live?.metadata.resourceVersion) throw ApiError.staleVersion(type, name);
    if (type.status) {
      // Each endpoint takes only its own part of what is applied.
      if (options.subresource === 'status')
        for (const field of Object.keys(config)) if (!KEPT_IN_STATUS_APPLY.has(field)) delete config[field];
      if (options.subresource !== 'status') delete config.status;
    }
    const current = live && inVersion(live, type, version);
    const { object, managers } = applyConfiguration(current, config, version.schema, {
      ...this.#writer(type, version, options),
      force: patch.force ?? false,
      type,
    });
    object.apiVersion = config.apiVersion;
    object.kind = type.kind;
    const draft = live ? this.#updateDraft(type, version, live, object, options) : this.prepareCreate(type, version, object, options);
    return { ...draft, managers };
  }

  #updateDraft(type: ResourceType, version: ServedVersion, old: KubeObject, input: KubeObject, options: WriteOptions): Draft {
    const decoded = this.#decode(type, version, input, options);
    if (decoded.metadata.name !== old.metadata.name) throw ApiError.badRequest(nameMismatch(decoded.metadata.name, old.metadata.name));
    const base = cloneDeep(inVersion(old, type, version));
    let object: KubeObject;
    if (options.subresource === 'status') {
      const { resourceVersion: _, ...metadata } = base.metadata;
      object = { ...base, metadata };
      if (statusCarriesMetadata(type)) {
        for (const field of ['labels', 'annotations'] as const) {
          const written = decoded.metadata[field];
          if (written) metadata[field] = written;
          else delete metadata[field];
        }
      }
      if (decoded.status === undefined) delete object.status;
      else object.status = decoded.status;
    } else {
      object = decoded;
      if (type.status) {
        if (base.status === undefined) delete object.status;
        else object.status = base.status;
      }
    }
    const { metadata } = object;
    // What the server set stays as it is, whatever the client sends.
    for (const field of [
      'namespace',
      'uid',
      'creationTimestamp',
      'deletionTimestamp',
      'deletionGracePeriodSeconds',
      'generation',
      'generateName',
    ] as const) {
      if (base.metadata[field] === undefined) delete metadata[field];
      else Object.assign(metadata, { [field]: base.metadata[field] });
    }
    if (metadata.deletionTimestamp) {
      const before = new Set(base.metadata.finalizers ?? []);
      if ((metadata.finalizers ?? []).some((finalizer) => !before.has(finalizer))) {
        throw ApiError.invalid(type, metadata.name, [
          {
            field: 'metadata.finalizers',
            reason: 'FieldValueForbidden',
            message: 'Forbidden: no new finalizers can be added if the object is being deleted',
          },
        ]);
      }
    }
    if (options.subresource !== 'status') this.#behaviour(type)?.update?.(object, old, this);
    return { verb: 'UPDATE', type, version, old, object, options };
  }

  /** After admission: the server's own fields, generation and ownership. */
  #finish({ type, version, old, object: admitted, options, managers }: Draft): KubeObject {
    const object = cloneDeep(admitted);
    const { metadata } = object;
    if (old && !equalDeep(specOf(object, type), specOf(old, type))) metadata.generation = (old.metadata.generation ?? 1) + 1;
    delete metadata.resourceVersion;
    const writer = this.#writer(type, version, options);
    const cleared = old && metadata.managedFields?.length === 0;
    const before = old && inVersion(old, type, version);
    const tracked = managers ?? (cleared ? [] : trackUpdate(before, withManagers(object, before), version.schema, writer));
    if (tracked.length > 0) metadata.managedFields = tracked;
    else delete metadata.managedFields;
    return inStorage(object, type);
  }

  #check(type: ResourceType, version: ServedVersion, object: KubeObject, old: KubeObject | undefined, options: WriteOptions): void {
    const status = options.subresource === 'status';
    const causes: FieldCause[] = checkMetadata(object);
    if (version.check) {
      const found = version.check(object);
      const seen = new Set(found.map(({ field }) => field));
      const more = structuralCauses(object, version.schema).filter(({ field }) => !seen.has(field));
      causes.push(...[...found, ...more].filter(({ field }) => field.startsWith('status') === status));
    }
    if (!version.check && !status) causes.push(...missingFields(object, version.schema));
    if (!status && causes.length === 0) causes.push(...(this.#behaviour(type)?.check?.(object, old, this) ?? []));
    if (causes.length > 0) throw ApiError.invalid(type, object.metadata.name ?? '', causes);
  }

  #decode(
    type: ResourceType,
    version: ServedVersion,
    input: KubeObject,
    options: WriteOptions,
    defaults?: 'keep defaults out',
  ): KubeObject {
    if (!isObject(input)) throw ApiError.badRequest('the request body is no object');
    const apiVersion = apiVersionOf(type.group, version.name);
    const where = `${type.kind} in version "${version.name}" cannot be handled as a ${type.kind}`;
    if (input.kind !== undefined && input.kind !== type.kind)
      throw ApiError.badRequest(`the kind in the data (${shown(input.kind)}) does not match the expected kind (${type.kind})`);
    if (input.apiVersion !== undefined && input.apiVersion !== apiVersion) {
      throw ApiError.badRequest(
        `the API version in the data (${shown(input.apiVersion)}) does not match the expected API version (${apiVersion})`,
      );
    }
    if (input.metadata !== undefined && !isObject(input.metadata)) throw ApiError.badRequest(`${where}: metadata: expected object`);
    const { object, unknown, mismatches } = conform({ ...input, metadata: input.metadata ?? {} }, version.schema, {
      defaults: defaults === undefined,
    });
    if (mismatches.length > 0) throw ApiError.badRequest(`${where}: ${mismatches.join(', ')}`);
    if (unknown.length > 0) {
      const names = unknown.map((path) => `unknown field "${path}"`);
      if (options.fieldValidation === 'Strict') throw ApiError.badRequest(`${where}: strict decoding error: ${names.join(', ')}`);
      if (options.fieldValidation === 'Warn') for (const name of names) options.onWarning?.(name);
    }
    return { ...object, apiVersion, kind: type.kind } as KubeObject;
  }

  #publish(type: ResourceType, kind: 'ADDED' | 'MODIFIED', object: KubeObject, previous: KubeObject | undefined): KubeObject {
    const version = ++this.#version;
    object.metadata.resourceVersion = String(version);
    freezeDeep(object);
    const collection = this.collection(type);
    collection.set(object);
    this.#announce(type, { type: kind, object, previous, version });
    return object;
  }

  /** Takes an object out of the store at once, whatever its finalizers say. */
  erase(type: ResourceType, object: KubeObject): KubeObject {
    const collection = this.collection(type);
    const previous = collection.get(object.metadata.namespace ?? '', object.metadata.name);
    const version = ++this.#version;
    const last = cloneDeep(object);
    last.metadata.resourceVersion = String(version);
    freezeDeep(last);
    collection.delete(object);
    this.#announce(type, { type: 'DELETED', object: last, previous: previous ?? last, version });
    return last;
  }

  #announce(type: ResourceType, change: Change): void {
    this.collection(type).journal.publish(change);
    for (const observer of this.#observers) observer(type, change);
  }

  #checkNamespace(type: ResourceType, object: KubeObject): void {
    const { namespace = '', name } = object.metadata;
    const home = this.get('Namespace', namespace);
    if (!home) throw ApiError.notFound(this.typeOf('Namespace'), namespace);
    if (home.metadata.deletionTimestamp) {
      throw ApiError.forbidden(type, name ?? '', `unable to create new content in namespace ${namespace} because it is being terminated`);
    }
  }

  #generateName(type: ResourceType, prefix: string, namespace = ''): string {
    for (;;) {
      let suffix = '';
      for (let i = 0; i < 5; i++) suffix += NAME_ALPHABET[Math.floor(this.random() * NAME_ALPHABET.length)];
      const name = prefix.slice(0, MAX_NAME - suffix.length) + suffix;
      if (!this.collection(type).get(namespace, name)) return name;
    }
  }

  #writer(type: ResourceType, version: ServedVersion, { fieldManager = 'playground', subresource }: WriteOptions) {
    return {
      manager: fieldManager,
      apiVersion: apiVersionOf(type.group, version.name),
      time: timestamp(this.clock.now()),
      disownsStatus: type.status && subresource !== 'status',
      ...(subresource ? { subresource } : {}),
    };
  }

  #behaviour(type: ResourceType): Behaviour | undefined {
    return this.#behaviours.get(`${type.kind}.${type.group}`);
  }
}

/** Anything that a client may have sent, for a message: `String` throws for an object whose toString is none. */
const shown = (value: unknown): string => (typeof value === 'string' ? value : JSON.stringify(value));
