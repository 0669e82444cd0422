/**
 * Requests to a Kubernetes API server over node:https: JSON in and out, paths as the API writes them (`/api/v1/namespaces/x/pods`).
 * Failures carry the server's own Status. What to do about them (retry, back off, relist) is the caller's; kube-watch.ts does it for watches.
 */
import type { Agent as HttpAgent, IncomingMessage, OutgoingHttpHeaders } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest, type RequestOptions } from 'node:https';
import { http } from '../base/node-http.ts';
import { type KubeConfigOptions, type KubeCredentials, loadKubeCredentials } from './kube-config.ts';

export interface OwnerReference {
  apiVersion: string;
  kind: string;
  name: string;
  uid: string;
  controller?: boolean;
  blockOwnerDeletion?: boolean;
}

export interface ObjectMeta {
  name?: string;
  namespace?: string;
  generateName?: string;
  uid?: string;
  resourceVersion?: string;
  generation?: number;
  creationTimestamp?: string;
  deletionTimestamp?: string;
  labels?: Record<string, string>;
  annotations?: Record<string, string>;
  ownerReferences?: OwnerReference[];
  finalizers?: string[];
  managedFields?: unknown[];
}

export interface KubeObject {
  apiVersion?: string;
  kind?: string;
  metadata: ObjectMeta;
  [field: string]: unknown;
}

export interface ListPage<T> {
  /** Each with the `apiVersion` and `kind` that the server leaves out inside lists. */
  readonly items: T[];
  readonly resourceVersion: string;
  /** Empty on the last page. */
  readonly continue: string;
}

export type WatchEvent<T> =
  | { readonly type: 'ADDED' | 'MODIFIED' | 'DELETED'; readonly object: T }
  | { readonly type: 'BOOKMARK'; readonly object: T };

export type Query = Readonly<Record<string, string | number | boolean | undefined>>;

export interface PatchOptions {
  readonly type: 'merge' | 'json' | 'strategic' | 'apply';
  /** Needed for `apply`. */
  readonly fieldManager?: string;
  /** `apply` takes over fields that others own. */
  readonly force?: boolean;
  /** The server goes through everything and keeps nothing. */
  readonly dryRun?: boolean;
}

/** The API server refused or failed: HTTP status, and `reason` as Kubernetes names it ("NotFound", "Conflict", "Expired"; may be empty). */
export class KubeApiError extends Error {
  readonly status: number;
  readonly reason: string;
  /** What a 429 or 503 asked for; undefined where it did not. */
  readonly retryAfterMs: number | undefined;

  constructor(status: number, reason: string, message: string, retryAfterMs?: number) {
    super(message);
    this.name = 'KubeApiError';
    this.status = status;
    this.reason = reason;
    this.retryAfterMs = retryAfterMs;
  }
}

const PATCH_TYPES = {
  merge: 'application/merge-patch+json',
  json: 'application/json-patch+json',
  strategic: 'application/strategic-merge-patch+json',
  apply: 'application/apply-patch+yaml',
} as const;

const PAGE_ITEMS = 500;
const REQUEST_TIMEOUT_MS = 30_000;
// A page of 500 objects at etcd's limit of 1.5 MB each would be 750 MB; nothing real comes near this.
const MAX_BODY_BYTES = 256 * 2 ** 20;
const MAX_EVENT_BYTES = 8 * 2 ** 20;

/** One API server. Connections are kept and shared; a watch has one for itself. */
export class KubeApi {
  /** `https://host:port`. */
  readonly server: string;
  readonly #credentials: KubeCredentials;
  readonly #agent: HttpAgent | HttpsAgent;

  constructor(credentials: KubeCredentials) {
    this.server = credentials.server;
    this.#credentials = credentials;
    // Probes on idle connections let a watch notice a peer that vanished without a FIN.
    const keep = { keepAlive: true, keepAliveMsecs: 15_000, maxFreeSockets: 4 };
    this.#agent = this.server.startsWith('http:') ? new http.Agent(keep) : new HttpsAgent({ ...keep, ...credentials.tls });
  }

  /** Given file, else $KUBECONFIG, else the pod's service account, else ~/.kube/config. @throws Error naming what is missing */
  static load(options: KubeConfigOptions): KubeApi {
    return new KubeApi(loadKubeCredentials(options));
  }

  /** @throws {KubeApiError} where the server answers with anything but 2xx; Error where it cannot be reached */
  get<T>(path: string, query: Query = {}): Promise<T> {
    return this.#json<T>('GET', path, query);
  }

  /** An answer that is no JSON: logs, metrics, what a pod answers through the proxy subresource. @throws like get */
  async getText(path: string, query: Query = {}): Promise<string> {
    return (await this.#exchange('GET', path, query)).toString('utf8');
  }

  /** All items, page by page. @throws like get; a list that expires between two pages is a KubeApiError with status 410 */
  async list<T>(path: string, query: Query = {}): Promise<T[]> {
    const items: T[] = [];
    let next = '';
    do {
      const page = await this.listPage<T>(path, { ...query, continue: next || undefined });
      items.push(...page.items);
      next = page.continue;
    } while (next !== '');
    return items;
  }

  /** One page; `query.continue` asks for the next. @throws like get */
  async listPage<T>(path: string, query: Query = {}, signal?: AbortSignal): Promise<ListPage<T>> {
    const answer = await this.#json<RawList<T>>('GET', path, { limit: PAGE_ITEMS, ...query }, undefined, signal);
    const kind = answer.kind?.endsWith('List') ? answer.kind.slice(0, -4) : undefined;
    const typed = { ...(answer.apiVersion && { apiVersion: answer.apiVersion }), ...(kind && { kind }) };
    return {
      items: (answer.items ?? []).map((item) => ({ ...typed, ...item })),
      resourceVersion: answer.metadata?.resourceVersion ?? '',
      continue: answer.metadata?.continue ?? '',
    };
  }

  create<T>(path: string, body: unknown, query: Query = {}): Promise<T> {
    return this.#json<T>('POST', path, query, { type: 'application/json', content: body });
  }

  /** The body's resourceVersion, where it has one, makes this compare-and-swap: status 409 when somebody was faster. */
  replace<T>(path: string, body: unknown, query: Query = {}): Promise<T> {
    return this.#json<T>('PUT', path, query, { type: 'application/json', content: body });
  }

  patch<T>(path: string, body: unknown, { type, fieldManager, force, dryRun }: PatchOptions): Promise<T> {
    return this.#json<T>(
      'PATCH',
      path,
      { fieldManager, force, dryRun: dryRun ? 'All' : undefined },
      { type: PATCH_TYPES[type], content: body },
    );
  }

  async delete(path: string, query: Query = {}): Promise<void> {
    await this.#exchange('DELETE', path, query);
  }

  /**
   * Calls `onEvent` for each event, in order; resolves when the server ends the watch.
   * @throws {KubeApiError} where the server refuses, or sends an ERROR event (410: relist); whatever `onEvent` throws; the signal's reason
   */
  async watch<T>(path: string, query: Query, onEvent: (event: WatchEvent<T>) => void, signal: AbortSignal): Promise<void> {
    const response = await this.#send('GET', path, { ...query, watch: true }, undefined, signal);
    if (!isSuccess(response)) throw await failure(response, `watch ${path}`);
    response.socket.setKeepAlive(true, 15_000);
    try {
      for await (const line of jsonLines(response)) onEvent(decodeEvent<T>(line));
    } catch (error) {
      throw signal.aborted ? signal.reason : error;
    } finally {
      response.destroy();
    }
  }

  /** Lines of an answer that goes on, until the server ends it or the signal is aborted. @throws like get; the signal's reason */
  async *lines(path: string, query: Query, signal: AbortSignal): AsyncGenerator<string> {
    const response = await this.#send('GET', path, query, undefined, signal);
    if (!isSuccess(response)) throw await failure(response, `GET ${path}`);
    try {
      for await (const line of jsonLines(response)) yield line.toString('utf8');
    } catch (error) {
      throw signal.aborted ? signal.reason : error;
    } finally {
      response.destroy();
    }
  }

  /** The same server and credentials, with more headers on each request; has connections of its own to close. */
  withHeaders(headers: Readonly<Record<string, string>>): KubeApi {
    const credentials = this.#credentials;
    return new KubeApi({
      ...credentials,
      async apply() {
        const extra = await credentials.apply();
        return { ...extra, headers: { ...(extra.headers as OutgoingHttpHeaders | undefined), ...headers } };
      },
    });
  }

  /** Ends all idle connections. */
  close(): void {
    this.#agent.destroy();
  }

  async #json<T>(method: string, path: string, query: Query, body?: Body, signal?: AbortSignal): Promise<T> {
    const answer = await this.#exchange(method, path, query, body, signal);
    try {
      return JSON.parse(answer.toString('utf8')) as T;
    } catch {
      // Reported as the server's fault rather than as a syntax error without a place.
      throw new KubeApiError(502, 'InternalError', `${method} ${path}: the answer is no JSON`);
    }
  }

  async #exchange(method: string, path: string, query: Query, body?: Body, signal?: AbortSignal): Promise<Buffer> {
    const limit = AbortSignal.timeout(REQUEST_TIMEOUT_MS);
    const response = await this.#send(method, path, query, body, signal ? AbortSignal.any([signal, limit]) : limit);
    if (!isSuccess(response)) throw await failure(response, `${method} ${path}`);
    return readBody(response, MAX_BODY_BYTES);
  }

  async #send(method: string, path: string, query: Query, body: Body | undefined, signal: AbortSignal): Promise<IncomingMessage> {
    signal.throwIfAborted();
    const extra = await this.#credentials.apply();
    const content = body && Buffer.from(JSON.stringify(body.content));
    const options: RequestOptions = {
      agent: this.#agent,
      ...extra,
      method,
      signal,
      headers: {
        accept: 'application/json',
        'user-agent': 'warren',
        ...extra.headers,
        ...(body && content && { 'content-type': body.type, 'content-length': content.length }),
      },
    };
    return send(new URL(`${this.server}${path}${queryText(query)}`), options, content);
  }
}

interface Body {
  readonly type: string;
  readonly content: unknown;
}

interface RawList<T> {
  readonly apiVersion?: string;
  readonly kind?: string;
  readonly metadata?: { readonly resourceVersion?: string; readonly continue?: string };
  readonly items?: T[];
}

function send(url: URL, options: RequestOptions, content: Buffer | undefined, retry = true): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const request = url.protocol === 'http:' ? http.request(url, options) : httpsRequest(url, options);
    request.once('response', resolve);
    request.on('error', (error: NodeJS.ErrnoException) => {
      // A kept connection may be closed by the server just as we use it; the request was not handled, so one more try is safe.
      if (retry && request.reusedSocket && error.code === 'ECONNRESET' && options.method === 'GET')
        send(url, options, content, false).then(resolve, reject);
      else if (options.signal?.aborted) reject(options.signal.reason);
      else reject(new Error(`${options.method} ${url.origin}${url.pathname}: ${error.message || error.code}`, { cause: error }));
    });
    request.end(content);
  });
}

function queryText(query: Query): string {
  const pairs = Object.entries(query).flatMap(([key, value]) => (value === undefined ? [] : [[key, String(value)]]));
  return pairs.length === 0 ? '' : `?${new URLSearchParams(pairs)}`;
}

const isSuccess = (response: IncomingMessage): boolean => {
  const status = response.statusCode ?? 0;
  return status >= 200 && status < 300;
};

async function readBody(response: IncomingMessage, limit: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > limit) throw new Error(`the API server's answer is larger than ${limit} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, length);
}

async function failure(response: IncomingMessage, what: string): Promise<KubeApiError> {
  const text = (await readBody(response, 2 ** 20)).toString('utf8');
  const status = response.statusCode ?? 0;
  const wait = Number(response.headers['retry-after']);
  const retryAfterMs = response.headers['retry-after'] && Number.isFinite(wait) ? wait * 1000 : undefined;
  let reason = '';
  let message = text.slice(0, 500) || (response.statusMessage ?? '');
  try {
    const body = JSON.parse(text) as { reason?: unknown; message?: unknown };
    if (typeof body.reason === 'string') reason = body.reason;
    if (typeof body.message === 'string') message = body.message;
  } catch {
    // A proxy in between answers in its own format; its text is the message then.
  }
  return new KubeApiError(status, reason, `${what}: ${status} ${message}`, retryAfterMs);
}

async function* jsonLines(response: IncomingMessage): AsyncGenerator<Buffer> {
  let kept: Buffer[] = [];
  let keptBytes = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    let start = 0;
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, start)) {
      const line = kept.length === 0 ? chunk.subarray(start, end) : Buffer.concat([...kept, chunk.subarray(start, end)]);
      kept = [];
      keptBytes = 0;
      start = end + 1;
      if (line.length > 0) yield line;
    }
    if (start < chunk.length) {
      kept.push(chunk.subarray(start));
      keptBytes += chunk.length - start;
      if (keptBytes > MAX_EVENT_BYTES) throw new Error(`a line of the answer is larger than ${MAX_EVENT_BYTES} bytes`);
    }
  }
}

function decodeEvent<T>(line: Buffer): WatchEvent<T> {
  const event = JSON.parse(line.toString('utf8')) as { type?: string; object?: unknown };
  switch (event.type) {
    case 'ADDED':
    case 'MODIFIED':
    case 'DELETED':
    case 'BOOKMARK':
      return { type: event.type, object: event.object as T };
    case 'ERROR': {
      const status = event.object as { code?: number; reason?: string; message?: string };
      throw new KubeApiError(status.code ?? 500, status.reason ?? '', `watch: ${status.message ?? 'error event'}`);
    }
    default:
      throw new Error(`watch: unknown event type ${JSON.stringify(event.type)}`);
  }
}
