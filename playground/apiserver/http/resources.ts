/** The verbs on resources: get, list, watch, create, update, patch, delete, and the subresources that are objects (status, scale, finalize). */
import type { Clock } from '../../../common/base/clock.ts';
import { ApiError } from '../api-error.ts';
import { at, cloneDeep, isObject, type JsonObject, objectOf, stringOf } from '../json.ts';
import type { KubeObject } from '../object.ts';
import { applyJsonPatch, applyMergePatch } from '../patch/json-patch.ts';
import { apiVersionOf, type ResourceType, type ServedVersion } from '../registry.ts';
import { formatLabelSelector } from '../selectors.ts';
import { inVersion, matcher } from '../store/rules.ts';
import type { Store } from '../store/store.ts';
import type { DeleteOptions, Draft, ListOptions, Patch, WriteOptions } from '../store/writes.ts';
import { compileJsonPath } from '../tables/json-path.ts';
import { partialMetadata, tableOf } from '../tables/table.ts';
import type { Exchange } from './exchange.ts';
import type { ResourcePath } from './path.ts';
import { type Form, serveWatch } from './watch.ts';

/** Webhooks: may change a draft's object, or throw. */
export type Admission = (draft: Draft, exchange: Exchange) => Promise<void>;
export type DeleteAdmission = (type: ResourceType, object: KubeObject, exchange: Exchange, dryRun: boolean) => Promise<void>;

export interface ResourcesOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly admit: Admission;
  readonly admitDelete: DeleteAdmission;
}

interface Target extends ResourcePath {
  readonly type: ResourceType;
  readonly served: ServedVersion;
}

const PATCH_TYPES: Readonly<Record<string, Patch['type']>> = {
  'application/json-patch+json': 'json',
  'application/merge-patch+json': 'merge',
  'application/strategic-merge-patch+json': 'strategic',
  'application/apply-patch+yaml': 'apply',
  'application/apply-patch+json': 'apply',
};

const MAX_ATTEMPTS = 5;

export class Resources {
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #admit: Admission;
  readonly #admitDelete: DeleteAdmission;

  constructor({ store, clock, admit, admitDelete }: ResourcesOptions) {
    this.#store = store;
    this.#clock = clock;
    this.#admit = admit;
    this.#admitDelete = admitDelete;
  }

  /** @throws {ApiError} where the type is not served */
  target(path: ResourcePath): Target {
    const type = this.#store.registry.byPlural(path.group, path.plural);
    const served = type?.versions.find(({ name }) => name === path.version);
    if (!type || !served) throw ApiError.noSuchPath();
    return { ...path, type, served };
  }

  async serve(exchange: Exchange, path: ResourcePath): Promise<void> {
    const target = this.target(path);
    const { type, subresource, name } = target;
    if (subresource === 'scale' && type.scale) return this.#scale(exchange, target);
    if (type.kind === 'Pod' && type.group === '' && subresource === 'binding') return this.#bind(exchange, target);
    if (type.kind === 'Pod' && type.group === '' && subresource === 'eviction') return this.#evict(exchange, target);
    if (subresource === 'finalize' && type.kind === 'Namespace') return this.#finalize(exchange, target);
    if (subresource !== '' && !(subresource === 'status' && type.status)) throw ApiError.noSuchPath();
    switch (exchange.method) {
      case 'GET':
      case 'HEAD':
        return name === '' ? this.#list(exchange, target) : this.#get(exchange, target);
      case 'POST':
        if (name !== '') throw ApiError.methodNotAllowed();
        return this.#create(exchange, target);
      case 'PUT':
        return this.#update(exchange, target);
      case 'PATCH':
        return this.#patch(exchange, target);
      case 'DELETE':
        return name === '' ? this.#deleteCollection(exchange, target) : this.#delete(exchange, target);
      default:
        throw ApiError.methodNotAllowed();
    }
  }

  #get(exchange: Exchange, { type, served, namespace, name }: Target): void {
    const object = this.#store.require(type, type.namespaced ? namespace : '', name);
    this.#answer(exchange, 200, type, served, object);
  }

  #list(exchange: Exchange, { type, served, namespace }: Target): void {
    const options = listOptions(exchange, type.namespaced ? namespace : '');
    const form = formOf(exchange);
    if (exchange.flag('watch')) {
      serveWatch(exchange, { store: this.#store, clock: this.#clock, type, version: served, options, form });
      return;
    }
    exchange.json(200, this.#listAnswer(exchange, type, served, options, form));
  }

  #listAnswer(exchange: Exchange, type: ResourceType, served: ServedVersion, options: ListOptions, form: Form): object {
    const page = this.#page(exchange, type, options);
    const metadata = { resourceVersion: String(this.#store.resourceVersion), ...page.metadata };
    const { objects } = page;
    if (form.as === 'table') {
      return tableOf(type, served, objects, { now: this.#clock.now(), includeObject: form.includeObject, metadata });
    }
    if (form.as === 'metadata') {
      return { kind: 'PartialObjectMetadataList', apiVersion: 'meta.k8s.io/v1', metadata, items: objects.map(partialMetadata) };
    }
    return {
      kind: `${type.kind}List`,
      apiVersion: apiVersionOf(type.group, served.name),
      metadata,
      items: objects.map((object) => inVersion(object, type, served)),
    };
  }

  /** One page of a list; the token names the last object, so a page that follows is never stale, only newer. */
  #page(
    exchange: Exchange,
    type: ResourceType,
    options: ListOptions,
  ): { objects: KubeObject[]; metadata: { continue?: string; remainingItemCount?: number } } {
    const limit = exchange.count('limit') ?? 0;
    const after = continueToken(exchange.query.get('continue') ?? '');
    const matches = matcher(options);
    const objects: KubeObject[] = [];
    let remaining = 0;
    for (const object of this.#store.collection(type).values(options.namespace || undefined)) {
      if (!matches(object)) continue;
      const { namespace = '', name } = object.metadata;
      if (after && (namespace < after.namespace || (namespace === after.namespace && name <= after.name))) continue;
      if (limit > 0 && objects.length >= limit) remaining++;
      else objects.push(object);
    }
    const last = objects.at(-1);
    if (remaining === 0 || !last) return { objects, metadata: {} };
    const token = Buffer.from(JSON.stringify([last.metadata.namespace ?? '', last.metadata.name])).toString('base64url');
    return { objects, metadata: { continue: token, remainingItemCount: remaining } };
  }

  async #create(exchange: Exchange, { type, served, namespace }: Target): Promise<void> {
    const body = (await exchange.bodyObject()) as KubeObject;
    const metadata = objectOf(body.metadata);
    if (type.namespaced) {
      if (metadata.namespace && namespace && metadata.namespace !== namespace) throw namespaceMismatch();
      metadata.namespace = namespace || metadata.namespace || 'default';
    }
    const input = { ...body, metadata: metadata as unknown as KubeObject['metadata'] };
    const draft = this.#store.prepareCreate(type, served, input, writeOptions(exchange));
    await this.#admit(draft, exchange);
    this.#answer(exchange, 201, type, served, this.#store.commit(draft));
  }

  async #update(exchange: Exchange, target: Target): Promise<void> {
    const body = (await exchange.bodyObject()) as KubeObject;
    const { type, served, name, namespace, subresource } = target;
    const metadata = { ...objectOf(body.metadata) };
    if (metadata.name === undefined) throw ApiError.badRequest('the object provided has no name');
    if (metadata.name !== name)
      throw ApiError.badRequest(`the name of the object (${stringOf(metadata.name)}) does not match the name on the URL (${name})`);
    if (type.namespaced) {
      if (metadata.namespace && metadata.namespace !== namespace) throw namespaceMismatch();
      metadata.namespace = namespace;
    }
    const input = { ...body, metadata: metadata as unknown as KubeObject['metadata'] };
    const draft = this.#store.prepareUpdate(type, served, input, writeOptions(exchange, subresource));
    await this.#admit(draft, exchange);
    this.#answer(exchange, 200, type, served, this.#store.commit(draft));
  }

  async #patch(exchange: Exchange, target: Target): Promise<void> {
    const { type, served, name, namespace, subresource } = target;
    const patch = await this.#readPatch(exchange, type);
    const options = writeOptions(exchange, subresource);
    const existed = this.#store.collection(type).get(type.namespaced ? namespace : '', name) !== undefined;
    for (let attempt = 1; ; attempt++) {
      const draft = this.#store.preparePatch(type, served, namespace, name, patch, options);
      await this.#admit(draft, exchange);
      try {
        return this.#answer(exchange, existed ? 200 : 201, type, served, this.#store.commit(draft));
      } catch (error) {
        // The object changed while webhooks were asked: the patch is made again on top of the change.
        const stale = error instanceof ApiError && error.reason === 'Conflict';
        if (!stale || attempt >= MAX_ATTEMPTS || at(patch.body, 'metadata', 'resourceVersion') !== undefined) throw error;
      }
    }
  }

  async #readPatch(exchange: Exchange, { custom }: ResourceType): Promise<Patch> {
    const contentType = (exchange.request.headers['content-type'] ?? '').split(';')[0]?.trim() ?? '';
    const type = PATCH_TYPES[contentType];
    if (type === undefined || (custom && type === 'strategic')) {
      const accepted = Object.keys(PATCH_TYPES).filter((each) => !(custom && PATCH_TYPES[each] === 'strategic'));
      const why = `the body of the request was in an unknown format - accepted media types include: ${accepted.join(', ')}`;
      throw new ApiError(415, 'UnsupportedMediaType', why);
    }
    const body = await exchange.body();
    return type === 'apply' ? { type, body, force: exchange.flag('force') } : { type, body };
  }

  async #delete(exchange: Exchange, { type, served, namespace, name, subresource }: Target): Promise<void> {
    if (subresource !== '') throw ApiError.methodNotAllowed();
    const options = deleteOptions(exchange, await exchange.bodyObject());
    const before = this.#store.require(type, type.namespaced ? namespace : '', name);
    await this.#admitDelete(type, before, exchange, options.dryRun ?? false);
    const object = this.#store.remove(type, type.namespaced ? namespace : '', name, options);
    const still = this.#store.collection(type).get(object.metadata.namespace ?? '', name);
    if (still || type.kind === 'Pod') return this.#answer(exchange, 200, type, served, object);
    const details = { name, ...(type.group ? { group: type.group } : {}), kind: type.plural, uid: object.metadata.uid };
    exchange.json(200, { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Success', details });
  }

  async #deleteCollection(exchange: Exchange, { type, served, namespace }: Target): Promise<void> {
    const options = deleteOptions(exchange, await exchange.bodyObject());
    const { objects } = this.#page(exchange, type, listOptions(exchange, type.namespaced ? namespace : ''));
    const items: KubeObject[] = [];
    for (const { metadata } of objects) {
      const object = this.#store.collection(type).get(metadata.namespace ?? '', metadata.name);
      if (!object) continue;
      await this.#admitDelete(type, object, exchange, options.dryRun ?? false);
      items.push(inVersion(this.#store.remove(type, metadata.namespace ?? '', metadata.name, options), type, served));
    }
    const metadata = { resourceVersion: String(this.#store.resourceVersion) };
    exchange.json(200, { kind: `${type.kind}List`, apiVersion: apiVersionOf(type.group, served.name), metadata, items });
  }

  async #scale(exchange: Exchange, { type, served, namespace, name }: Target): Promise<void> {
    const paths = type.scale;
    if (!paths) throw ApiError.noSuchPath();
    const object = this.#store.require(type, type.namespaced ? namespace : '', name);
    if (exchange.method === 'GET') return exchange.json(200, scaleOf(object, type));
    if (exchange.method !== 'PUT' && exchange.method !== 'PATCH') throw ApiError.methodNotAllowed();
    const wanted = exchange.method === 'PUT' ? await exchange.bodyObject() : await this.#patchedScale(exchange, object, type);
    const replicas = at(wanted, 'spec', 'replicas') ?? 0;
    if (!Number.isInteger(replicas) || Number(replicas) < 0)
      throw ApiError.badRequest(`spec.replicas: expected a whole number, found ${JSON.stringify(replicas)}`);
    const { resourceVersion } = objectOf(wanted.metadata);
    if (resourceVersion && resourceVersion !== object.metadata.resourceVersion) throw ApiError.staleVersion(type, name);
    const next = cloneDeep(object);
    setPath(next, paths.specReplicasPath, replicas);
    const options = { ...writeOptions(exchange), subresource: 'scale' };
    const draft = this.#store.prepareUpdate(type, served, inVersion(next, type, served), options);
    await this.#admit(draft, exchange);
    exchange.json(200, scaleOf(this.#store.commit(draft), type));
  }

  async #patchedScale(exchange: Exchange, object: KubeObject, type: ResourceType): Promise<JsonObject> {
    const patch = await this.#readPatch(exchange, type);
    const scale = scaleOf(object, type);
    const patched = patch.type === 'json' ? applyJsonPatch(scale, patch.body) : applyMergePatch(scale, patch.body);
    if (!isObject(patched)) throw ApiError.badRequest('the patched scale is no object');
    return patched;
  }

  /** What a scheduler says: the pod's node. */
  async #bind(exchange: Exchange, { type, namespace, name }: Target): Promise<void> {
    if (exchange.method !== 'POST') throw ApiError.methodNotAllowed();
    const node = stringOf(at(await exchange.bodyObject(), 'target', 'name'));
    if (node === '') throw ApiError.badRequest('target.name: Required value');
    const pod = this.#store.require(type, namespace, name);
    const current = stringOf(at(pod, 'spec', 'nodeName'));
    if (current !== '') throw ApiError.conflict(type, name, `pod ${name} is already assigned to node "${current}"`);
    this.#store.rewrite(type, pod, (object) => {
      object.spec = { ...objectOf(object.spec), nodeName: node };
    });
    exchange.json(201, { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Success', code: 201 });
  }

  /** `kubectl drain`: a deletion, since disruption budgets are stored and not enforced. */
  async #evict(exchange: Exchange, { type, namespace, name }: Target): Promise<void> {
    if (exchange.method !== 'POST') throw ApiError.methodNotAllowed();
    const options = deleteOptions(exchange, objectOf((await exchange.bodyObject()).deleteOptions));
    await this.#admitDelete(type, this.#store.require(type, namespace, name), exchange, options.dryRun ?? false);
    this.#store.remove(type, namespace, name, options);
    exchange.json(201, { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Success', code: 201 });
  }

  /** A namespace's own finalizers, which only this endpoint changes. */
  async #finalize(exchange: Exchange, { type, served, name }: Target): Promise<void> {
    if (exchange.method !== 'PUT') throw ApiError.methodNotAllowed();
    const body = await exchange.bodyObject();
    const finalizers = at(body, 'spec', 'finalizers');
    const object = finalizeNamespace(this.#store, name, Array.isArray(finalizers) ? finalizers.map(stringOf) : []);
    this.#answer(exchange, 200, type, served, object);
  }

  #answer(exchange: Exchange, code: number, type: ResourceType, served: ServedVersion, object: KubeObject): void {
    const form = formOf(exchange);
    const now = this.#clock.now();
    if (form.as === 'table') exchange.json(code, tableOf(type, served, [object], { now, includeObject: form.includeObject }));
    else exchange.json(code, form.as === 'metadata' ? partialMetadata(object) : inVersion(object, type, served));
  }
}

/** Sets a namespace's finalizers; with none left, a namespace that is being deleted goes. */
function finalizeNamespace(store: Store, name: string, finalizers: readonly string[]): KubeObject {
  const type = store.typeOf('Namespace');
  return store.rewrite(type, store.require(type, '', name), (namespace) => {
    namespace.spec = { ...objectOf(namespace.spec), finalizers: [...finalizers] };
  });
}

function formOf(exchange: Exchange): Form {
  for (const option of exchange.accept.split(',')) {
    if (!option.includes('json')) continue;
    if (/as=Table/.test(option)) {
      const include = exchange.query.get('includeObject');
      return { as: 'table', includeObject: include === 'None' || include === 'Object' ? include : 'Metadata' };
    }
    return /as=PartialObjectMetadata/.test(option) ? { as: 'metadata' } : { as: 'object' };
  }
  return { as: 'object' };
}

const listOptions = (exchange: Exchange, namespace: string): ListOptions => ({
  namespace,
  labelSelector: exchange.query.get('labelSelector') ?? '',
  fieldSelector: exchange.query.get('fieldSelector') ?? '',
});

function writeOptions(exchange: Exchange, subresource = ''): WriteOptions {
  const validation = exchange.query.get('fieldValidation') ?? '';
  if (!['', 'Strict', 'Warn', 'Ignore'].includes(validation))
    throw ApiError.badRequest(`"${validation}" is no fieldValidation: expected Strict, Warn or Ignore`);
  const agent = (exchange.request.headers['user-agent'] ?? 'unknown').split('/')[0] ?? 'unknown';
  const apply = (exchange.request.headers['content-type'] ?? '').startsWith('application/apply-patch');
  const fieldManager = exchange.query.get('fieldManager') || (apply ? '' : agent);
  return {
    fieldManager,
    dryRun: isDryRun(exchange.query.getAll('dryRun')),
    // As Kubernetes: silence only for those who ask for it.
    fieldValidation: validation === 'Strict' || validation === 'Ignore' ? validation : 'Warn',
    onWarning: (text) => exchange.warn(text),
    ...(subresource ? { subresource } : {}),
  };
}

function isDryRun(values: readonly unknown[]): boolean {
  for (const value of values) if (value !== 'All') throw ApiError.badRequest(`"${String(value)}" is no dryRun: expected All`);
  return values.length > 0;
}

function deleteOptions(exchange: Exchange, body: JsonObject): DeleteOptions {
  const grace = body.gracePeriodSeconds ?? exchange.count('gracePeriodSeconds');
  const orphan = body.orphanDependents;
  const asked = body.propagationPolicy ?? exchange.query.get('propagationPolicy') ?? (orphan === true ? 'Orphan' : 'Background');
  if (asked !== 'Foreground' && asked !== 'Background' && asked !== 'Orphan') {
    throw ApiError.badRequest(`"${String(asked)}" is no propagationPolicy: expected Foreground, Background or Orphan`);
  }
  const { uid, resourceVersion } = objectOf(body.preconditions);
  const dryRun = Array.isArray(body.dryRun) ? body.dryRun : exchange.query.getAll('dryRun');
  return {
    ...(typeof grace === 'number' ? { gracePeriodSeconds: grace } : {}),
    propagationPolicy: asked,
    preconditions: { ...(typeof uid === 'string' ? { uid } : {}), ...(typeof resourceVersion === 'string' ? { resourceVersion } : {}) },
    dryRun: isDryRun(dryRun),
  };
}

function scaleOf(object: KubeObject, type: ResourceType): JsonObject {
  const { name, namespace, uid, resourceVersion, creationTimestamp } = object.metadata;
  const paths = type.scale;
  const value = (path: string | undefined): unknown => (path ? compileJsonPath(path)(object)[0] : undefined);
  const selector = value(paths?.labelSelectorPath);
  return {
    kind: 'Scale',
    apiVersion: 'autoscaling/v1',
    metadata: { name, namespace, uid, resourceVersion, creationTimestamp },
    spec: { replicas: value(paths?.specReplicasPath) ?? 0 },
    status: {
      replicas: value(paths?.statusReplicasPath) ?? 0,
      selector: typeof selector === 'string' ? selector : formatLabelSelector(selector),
    },
  };
}

function setPath(object: JsonObject, path: string, value: unknown): void {
  const names = path.split('.').filter((name) => name !== '');
  const last = names.pop() ?? '';
  let current = object;
  for (const name of names) {
    const inner = isObject(current[name]) ? current[name] : {};
    current[name] = inner;
    current = inner;
  }
  current[last] = value;
}

function continueToken(token: string): { namespace: string; name: string } | undefined {
  if (token === '') return undefined;
  try {
    const parsed: unknown = JSON.parse(Buffer.from(token, 'base64url').toString());
    if (Array.isArray(parsed) && typeof parsed[0] === 'string' && typeof parsed[1] === 'string')
      return { namespace: parsed[0], name: parsed[1] };
  } catch {
    // Falls through to the one answer for all bad tokens.
  }
  throw ApiError.badRequest('continue key is not valid');
}

const namespaceMismatch = (): ApiError =>
  ApiError.badRequest('the namespace of the provided object does not match the namespace sent on the request');
