/**
 * An API server for tests, in this process, over real HTTPS: collections with resource versions, pages, watches with bookmarks, 410, TokenReview.
 * No schemas, no admission, no selectors but `metadata.name`. Tests make it fail, forget and hang up.
 */

import { createPublicKey, generateKeyPairSync } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { KubeApi, type KubeObject, type ObjectMeta } from '../../common/client/kube-api.ts';
import { issueCertificate, readIssuer, selfSignedRoot } from '../../common/codec/x509/certificate.ts';

/** An object as tests write it: `metadata` with whatever they care about. */
export interface Manifest {
  readonly metadata: ObjectMeta;
  readonly [field: string]: unknown;
}

export interface FakeToken {
  readonly username: string;
  readonly audiences?: readonly string[];
  readonly podName?: string;
  readonly podUid?: string;
}

interface Watcher {
  readonly namespace: string | undefined;
  readonly name: string | undefined;
  readonly response: ServerResponse;
}

interface Collection {
  readonly objects: Map<string, KubeObject>;
  readonly watchers: Set<Watcher>;
  /** Of events that a watch can still be given. */
  readonly history: { readonly version: number; readonly type: string; readonly object: KubeObject }[];
  /** Watches from before this version get 410. */
  forgottenBefore: number;
}

interface Target {
  readonly collection: string;
  readonly namespace: string | undefined;
  readonly name: string | undefined;
  readonly subresource: string | undefined;
}

export interface RecordedRequest {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly headers: IncomingMessage['headers'];
  readonly body: unknown;
}

const TLS = (() => {
  const now = Date.now();
  const life = { notBefore: now - 60_000, notAfter: now + 3_600_000 };
  const root = selfSignedRoot({ trustDomain: 'fake', ...life });
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const publicKeySpkiDer = createPublicKey(privateKey).export({ type: 'spki', format: 'der' });
  const cert = issueCertificate({ issuer: readIssuer(root), publicKeySpkiDer, dnsNames: ['localhost'], ...life });
  return { ca: root.certificatePem, cert, key: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString() };
})();

export class FakeKubeApi {
  readonly #server: Server;
  readonly #collections = new Map<string, Collection>();
  readonly #absent = new Set<string>();
  #version = 100;
  #apis: KubeApi[] = [];
  readonly requests: RecordedRequest[] = [];
  readonly tokens = new Map<string, FakeToken>();
  /** Answers instead of the server where it returns a status. */
  intercept: ((request: RecordedRequest) => { status: number; reason?: string; message?: string } | undefined) | undefined;

  private constructor(server: Server) {
    this.#server = server;
  }

  /** Closed when the test ends, which fails if something still holds it open. */
  static async start(t: { after(run: () => Promise<void>): void }): Promise<FakeKubeApi> {
    const server = createServer({ cert: TLS.cert, key: TLS.key });
    const fake = new FakeKubeApi(server);
    server.on('request', (request: IncomingMessage, response: ServerResponse) => void fake.#handle(request, response));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    t.after(() => fake.#close());
    return fake;
  }

  get url(): string {
    return `https://localhost:${(this.#server.address() as AddressInfo).port}`;
  }

  get ca(): string {
    return TLS.ca;
  }

  /** A client of it, with a bearer token. */
  client(token = 'admin'): KubeApi {
    const api = new KubeApi({
      server: this.url,
      tls: { ca: TLS.ca },
      apply: async () => ({ headers: { authorization: `Bearer ${token}` } }),
    });
    this.#apis.push(api);
    return api;
  }

  /** Creates or replaces, and tells the watches. `collection` as in `/api/v1/pods`. */
  put(collection: string, manifest: Manifest): KubeObject {
    const found = this.#collection(collection);
    const key = keyOf(manifest.metadata);
    const before = found.objects.get(key);
    const object: KubeObject = {
      ...manifest,
      metadata: { uid: before?.metadata.uid ?? `uid-${++this.#version}`, ...manifest.metadata, resourceVersion: String(++this.#version) },
    };
    found.objects.set(key, object);
    this.#tell(found, before ? 'MODIFIED' : 'ADDED', object);
    return object;
  }

  remove(collection: string, key: string): void {
    const found = this.#collection(collection);
    const before = found.objects.get(key);
    if (!before) return;
    found.objects.delete(key);
    this.#tell(found, 'DELETED', { ...before, metadata: { ...before.metadata, resourceVersion: String(++this.#version) } });
  }

  get(collection: string, key: string): KubeObject | undefined {
    return this.#collection(collection).objects.get(key);
  }

  keys(collection: string): string[] {
    return [...this.#collection(collection).objects.keys()];
  }

  /** The type does not exist (404) until `install`. */
  uninstall(collection: string): void {
    this.#absent.add(collection);
    this.endWatches(collection);
  }

  install(collection: string): void {
    this.#absent.delete(collection);
  }

  watchers(collection: string): number {
    return this.#collection(collection).watchers.size;
  }

  /** Ends the watches as the server does after a while. */
  endWatches(collection: string): void {
    for (const { response } of this.#collection(collection).watchers) response.end();
  }

  /** Cuts them, as a crash does. */
  cutWatches(collection: string): void {
    for (const { response } of this.#collection(collection).watchers) response.destroy();
  }

  /** History up to now is gone: whoever watches from before must list again. */
  forget(collection: string): void {
    const found = this.#collection(collection);
    found.history.length = 0;
    found.forgottenBefore = ++this.#version;
  }

  bookmark(collection: string): void {
    const object = { metadata: { resourceVersion: String(++this.#version) } };
    for (const watcher of this.#collection(collection).watchers) send(watcher, 'BOOKMARK', object);
  }

  async #close(): Promise<void> {
    for (const { watchers } of this.#collections.values()) for (const { response } of watchers) response.destroy();
    for (const api of this.#apis) api.close();
    await new Promise((resolve) => {
      this.#server.close(resolve);
      this.#server.closeAllConnections();
    });
  }

  #collection(path: string): Collection {
    const known = this.#collections.get(path);
    if (known) return known;
    const created: Collection = { objects: new Map(), watchers: new Set(), history: [], forgottenBefore: 0 };
    this.#collections.set(path, created);
    return created;
  }

  #tell(collection: Collection, type: string, object: KubeObject): void {
    collection.history.push({ version: Number(object.metadata.resourceVersion), type, object });
    for (const watcher of collection.watchers) if (concerns(watcher, object)) send(watcher, type, object);
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', 'https://fake');
    const chunks: Buffer[] = [];
    for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk);
    const text = Buffer.concat(chunks).toString('utf8');
    const recorded: RecordedRequest = {
      method: request.method ?? 'GET',
      path: url.pathname,
      query: url.searchParams,
      headers: request.headers,
      body: text === '' ? undefined : JSON.parse(text),
    };
    this.requests.push(recorded);
    const refused = this.intercept?.(recorded);
    if (refused) {
      answer(response, refused.status, { reason: refused.reason ?? '', message: refused.message ?? 'refused by the test' });
      return;
    }
    if (url.pathname === '/apis/authentication.k8s.io/v1/tokenreviews') {
      answer(response, 201, this.#review(recorded.body));
      return;
    }
    const target = targetOf(url.pathname);
    if (!target || this.#absent.has(target.collection)) answer(response, 404, { reason: 'NotFound', message: `no ${url.pathname}` });
    else if (recorded.method === 'GET' && url.searchParams.get('watch') === 'true') this.#watch(target, url.searchParams, response);
    else this.#answer(target, recorded, response);
  }

  #answer(target: Target, { method, query, headers, body }: RecordedRequest, response: ServerResponse): void {
    const { objects } = this.#collection(target.collection);
    const key = target.namespace && target.name ? `${target.namespace}/${target.name}` : (target.name ?? '');
    const existing = objects.get(key);
    switch (method) {
      case 'GET':
        if (target.name === undefined) answer(response, 200, this.#list(target, query));
        else if (existing) answer(response, 200, existing);
        else answer(response, 404, { reason: 'NotFound', message: `${key} not found` });
        return;
      case 'POST': {
        const created = withName(withNamespace(body as Manifest, target.namespace), ++this.#version);
        if (objects.has(keyOf(created.metadata))) answer(response, 409, { reason: 'AlreadyExists', message: 'already exists' });
        else answer(response, 201, this.put(target.collection, created));
        return;
      }
      case 'PUT': {
        const wanted = (body as Manifest).metadata.resourceVersion;
        if (!existing) answer(response, 404, { reason: 'NotFound', message: `${key} not found` });
        else if (wanted !== undefined && wanted !== existing.metadata.resourceVersion)
          answer(response, 409, { reason: 'Conflict', message: 'the object has been modified' });
        else answer(response, 200, this.put(target.collection, body as Manifest));
        return;
      }
      case 'PATCH': {
        if (!existing && headers['content-type']?.includes('apply-patch') && target.subresource === undefined) {
          answer(response, 201, this.put(target.collection, withNamespace(body as Manifest, target.namespace)));
          return;
        }
        if (!existing) {
          answer(response, 404, { reason: 'NotFound', message: `${key} not found` });
          return;
        }
        const { metadata: _, ...fields } = body as Manifest;
        answer(response, 200, this.put(target.collection, { ...existing, ...fields }));
        return;
      }
      case 'DELETE':
        this.remove(target.collection, key);
        answer(response, existing ? 200 : 404, { reason: existing ? '' : 'NotFound', message: '' });
        return;
      default:
        answer(response, 405, { reason: 'MethodNotAllowed', message: method });
    }
  }

  #list(target: Target, query: URLSearchParams): unknown {
    const name = selectedName(query);
    const all = [...this.#collection(target.collection).objects.values()].filter((object) =>
      concerns({ namespace: target.namespace, name }, object),
    );
    const start = Number(query.get('continue') ?? 0);
    const limit = Number(query.get('limit') ?? all.length);
    const more = start + limit < all.length;
    return {
      kind: 'ThingList',
      apiVersion: 'v1',
      metadata: { resourceVersion: String(this.#version), ...(more && { continue: String(start + limit) }) },
      items: all.slice(start, start + limit),
    };
  }

  #watch(target: Target, query: URLSearchParams, response: ServerResponse): void {
    const collection = this.#collection(target.collection);
    const from = Number(query.get('resourceVersion') ?? 0);
    const watcher: Watcher = { namespace: target.namespace, name: selectedName(query), response };
    response.writeHead(200, { 'content-type': 'application/json' });
    response.flushHeaders();
    if (from < collection.forgottenBefore) {
      send(watcher, 'ERROR', { kind: 'Status', code: 410, reason: 'Expired', message: 'too old resource version' });
      response.end();
      return;
    }
    for (const { version, type, object } of collection.history)
      if (version > from && concerns(watcher, object)) send(watcher, type, object);
    collection.watchers.add(watcher);
    response.on('close', () => collection.watchers.delete(watcher));
  }

  #review(body: unknown): unknown {
    const { token, audiences = [] } = (body as { spec: { token: string; audiences?: string[] } }).spec;
    const known = this.tokens.get(token);
    if (!known) return { status: { authenticated: false, error: 'invalid bearer token' } };
    const shared = audiences.filter((audience) => (known.audiences ?? ['istio-ca']).includes(audience));
    if (shared.length === 0) return { status: { authenticated: false, error: 'token audiences do not match' } };
    const extra = {
      ...(known.podName && { 'authentication.kubernetes.io/pod-name': [known.podName] }),
      ...(known.podUid && { 'authentication.kubernetes.io/pod-uid': [known.podUid] }),
    };
    const groups = known.username.startsWith('system:serviceaccount:') ? ['system:serviceaccounts'] : [];
    return { status: { authenticated: true, audiences: shared, user: { username: known.username, groups, extra } } };
  }
}

const PATH = /^(\/api\/v1|\/apis\/[^/]+\/[^/]+)\/(?:namespaces\/([^/]+)\/)?([^/]+)(?:\/([^/]+))?(?:\/([^/]+))?$/;

function targetOf(path: string): Target | undefined {
  const namespaces = /^\/api\/v1\/namespaces(?:\/([^/]+))?$/.exec(path);
  if (namespaces) return { collection: '/api/v1/namespaces', namespace: undefined, name: namespaces[1], subresource: undefined };
  const match = PATH.exec(path);
  return match ? { collection: `${match[1]}/${match[3]}`, namespace: match[2], name: match[4], subresource: match[5] } : undefined;
}

const keyOf = ({ namespace, name }: ObjectMeta): string => (namespace ? `${namespace}/${name}` : (name ?? ''));

/** What `generateName` asks for. */
function withName(manifest: Manifest, number: number): Manifest {
  const { name, generateName } = manifest.metadata;
  if (name !== undefined || generateName === undefined) return manifest;
  return { ...manifest, metadata: { ...manifest.metadata, name: `${generateName}${number.toString(36)}` } };
}

const withNamespace = (manifest: Manifest, namespace: string | undefined): Manifest =>
  namespace ? { ...manifest, metadata: { ...manifest.metadata, namespace } } : manifest;

const selectedName = (query: URLSearchParams): string | undefined => /metadata\.name=([^,]+)/.exec(query.get('fieldSelector') ?? '')?.[1];

const concerns = (filter: { namespace: string | undefined; name: string | undefined }, { metadata }: KubeObject): boolean =>
  (filter.namespace === undefined || filter.namespace === metadata.namespace) &&
  (filter.name === undefined || filter.name === metadata.name);

const send = ({ response }: Watcher, type: string, object: unknown): void => void response.write(`${JSON.stringify({ type, object })}\n`);

function answer(response: ServerResponse, status: number, body: unknown): void {
  const error = status >= 400 ? { kind: 'Status', status: 'Failure', code: status, ...(body as object) } : body;
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify(error));
}
