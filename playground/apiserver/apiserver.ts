/**
 * A small Kubernetes API server for the playground: HTTPS for kubectl and clients, and the same store in-process for controllers and
 * kubelets. README.md beside this file says what it leaves out.
 */
import { randomBytes } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import https from 'node:https';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Clock } from '../../common/base/clock.ts';
import type { Log } from '../../common/base/log.ts';
import { Webhooks } from './admission/webhooks.ts';
import { ApiError } from './api-error.ts';
import { builtInTypes } from './built-in-types.ts';
import { seedDefinitions } from './controllers/built-in-definitions.ts';
import { serveCustomTypes } from './controllers/custom-types.ts';
import { expireEvents } from './controllers/event-expiry.ts';
import { collectGarbage } from './controllers/garbage-collector.ts';
import { keepNamespaces } from './controllers/namespaces.ts';
import { discoveryContentType, discoveryDocument } from './http/discovery.ts';
import { Exchange, type SchemaLookup } from './http/exchange.ts';
import { EMPTY_OPENAPI_V2, OPENAPI_V2_TYPE, OpenApi } from './http/openapi.ts';
import { parseResourcePath, type ResourcePath } from './http/path.ts';
import { connectService, servePodProxy, serveServiceProxy } from './http/proxy.ts';
import { Resources } from './http/resources.ts';
import { serveReview } from './http/reviews.ts';
import { ADMIN, ANONYMOUS, authenticate } from './identity/authenticate.ts';
import { createServingCertificate } from './identity/certificates.ts';
import { type TokenRequestFields, Tokens } from './identity/tokens.ts';
import { builtInBehaviours } from './kinds/behaviours.ts';
import type { KubeletStreams } from './kubelet.ts';
import { Registry, splitApiVersion } from './registry.ts';
import { loadDefinitions } from './schemas/definitions.ts';
import { Store } from './store/store.ts';
import { serveLogs } from './streams/logs.ts';
import { type Kubelets, podTarget } from './streams/pod-target.ts';
import { refuseUpgrade, serveUpgrade } from './streams/upgrade.ts';

export interface ApiServerOptions {
  readonly clock: Clock;
  readonly log: Log;
  /** The node's streams; undefined where no such node runs. */
  readonly kubelets: (nodeName: string) => KubeletStreams | undefined;
  /** DNS names and addresses of the serving certificate, beside loopback and `kubernetes.default.svc`. */
  readonly serverNames?: readonly string[];
  readonly serviceAccountIssuer?: string;
  readonly random?: () => number;
}

export interface ListenOptions {
  /** A listening socket that was made elsewhere, in another network namespace. */
  readonly fd?: number;
  readonly host?: string;
  readonly port?: number;
}

const MAX_CONNECTIONS = 10_000;
const DEFAULT_ISSUER = 'https://kubernetes.default.svc.cluster.local';
const OWN_NAMES = [
  'localhost',
  '127.0.0.1',
  '::1',
  '10.96.0.1',
  'fd00:10:96::1',
  'kubernetes',
  'kubernetes.default',
  'kubernetes.default.svc',
  'kubernetes.default.svc.cluster.local',
];
const FIRST_NAMESPACES = ['default', 'kube-system', 'kube-public', 'kube-node-lease'];
const VERSION = {
  major: '1',
  minor: '32',
  gitVersion: 'v1.32.0+warren-playground',
  gitCommit: '',
  gitTreeState: 'clean',
  buildDate: '1970-01-01T00:00:00Z',
  goVersion: 'none',
  compiler: 'node',
  platform: 'linux/amd64',
};

export class ApiServer {
  readonly store: Store;
  readonly caPem: string;
  readonly #log: Log;
  readonly #kubelets: Kubelets;
  readonly #tokens: Tokens;
  readonly #adminToken = randomBytes(24).toString('base64url');
  readonly #openApi: OpenApi;
  readonly #resources: Resources;
  readonly #serving: { key: string; cert: string };
  readonly #stopSweeping: () => void;
  readonly #servers = new Set<https.Server>();
  /** Those that left HTTP included, which a server does not close by itself. */
  readonly #connections = new Set<Socket>();

  constructor({ clock, log, kubelets, serverNames = [], serviceAccountIssuer = DEFAULT_ISSUER, random = Math.random }: ApiServerOptions) {
    this.#log = log;
    this.#kubelets = kubelets;
    const definitions = loadDefinitions();
    const registry = new Registry(builtInTypes(definitions));
    this.store = new Store({ registry, clock, random, behaviours: builtInBehaviours });
    const { caPem, keyPem, certificatePem } = createServingCertificate([...OWN_NAMES, ...serverNames], clock.now());
    this.caPem = caPem;
    this.#serving = { key: keyPem, cert: certificatePem };
    this.#tokens = new Tokens({
      clock,
      issuer: serviceAccountIssuer,
      find: (kind, name, namespace) => this.store.get(kind, name, namespace),
    });
    this.#openApi = new OpenApi(registry, definitions);
    const webhooks = new Webhooks({
      store: this.store,
      log,
      connectService: (namespace, name, port) => connectService(this.store, kubelets, namespace, name, port),
    });
    this.#resources = new Resources({
      store: this.store,
      clock,
      admit: (draft, exchange) => webhooks.admit(draft, exchange),
      admitDelete: (type, object, exchange, dryRun) => webhooks.admitDelete(type, object, exchange, dryRun),
    });
    seedDefinitions(this.store);
    serveCustomTypes(this.store, definitions);
    collectGarbage(this.store);
    keepNamespaces(this.store, this.caPem);
    this.#stopSweeping = expireEvents(this.store);
    for (const name of FIRST_NAMESPACES) this.store.create({ apiVersion: 'v1', kind: 'Namespace', metadata: { name } });
  }

  /** May be called several times: once for each socket. @returns the port (0 where the descriptor has none to tell) */
  async listen({ fd, host = '127.0.0.1', port = 0 }: ListenOptions): Promise<{ port: number }> {
    const server = https.createServer(
      { ...this.#serving, keepAliveTimeout: 90_000 },
      (request, response) => void this.#serve(request, response),
    );
    server.maxConnections = MAX_CONNECTIONS;
    server.on('upgrade', (request, socket, head) => this.#upgrade(request, socket, head));
    server.on('connection', (socket) => {
      this.#connections.add(socket);
      socket.once('close', () => this.#connections.delete(socket));
    });
    server.on('tlsClientError', (error) => this.#log.debug({ error: error.message }, 'TLS handshake failed'));
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(fd === undefined ? { host, port } : { fd }, resolve);
    });
    this.#servers.add(server);
    const address = server.address();
    return { port: typeof address === 'object' && address ? address.port : 0 };
  }

  /** An administrator's kubeconfig. @param server `https://HOST:PORT` */
  kubeconfig(server: string): string {
    const name = 'warren-playground';
    return [
      'apiVersion: v1',
      'kind: Config',
      `current-context: ${name}`,
      'clusters:',
      `- name: ${name}`,
      '  cluster:',
      `    server: ${server}`,
      `    certificate-authority-data: ${Buffer.from(this.caPem).toString('base64')}`,
      'contexts:',
      `- name: ${name}`,
      '  context:',
      `    cluster: ${name}`,
      `    user: ${ADMIN.username}`,
      'users:',
      `- name: ${ADMIN.username}`,
      '  user:',
      `    token: ${this.#adminToken}`,
      '',
    ].join('\n');
  }

  /** A service account's token, as TokenRequest gives it. @throws {ApiError} NotFound */
  issueToken(fields: TokenRequestFields): string {
    const issued = this.#tokens.issue(fields);
    if (!issued) throw ApiError.notFound(this.store.typeOf('ServiceAccount'), fields.serviceAccount);
    return issued.token;
  }

  async close(): Promise<void> {
    this.#stopSweeping();
    const closed = [...this.#servers].map((server) => new Promise<void>((resolve) => server.close(() => resolve())));
    this.#servers.clear();
    for (const socket of this.#connections) socket.destroy();
    await Promise.all(closed);
  }

  readonly #schemaOf: SchemaLookup = (apiVersion, kind) => {
    const { group, version } = splitApiVersion(apiVersion);
    return this.store.registry.byKind(group, kind)?.versions.find(({ name }) => name === version)?.schema;
  };

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.on('error', (error) => this.#log.debug({ error: error.message }, 'client is gone'));
    const url = urlOf(request);
    const user = authenticate(request, this.#tokens, this.#adminToken);
    const exchange = new Exchange({ request, response, url, user: user ?? ANONYMOUS, schemaOf: this.#schemaOf });
    try {
      if (this.#open(exchange)) return;
      if (!user) throw ApiError.unauthorized();
      if (this.#described(exchange)) return;
      const path = parseResourcePath(url.pathname);
      if (!path) throw ApiError.noSuchPath();
      if (await serveReview(exchange, path, { store: this.store, tokens: this.#tokens })) return;
      if (await this.#streamed(exchange, path)) return;
      await this.#resources.serve(exchange, path);
    } catch (error) {
      if (request.destroyed && !request.complete) this.#log.debug({ path: url.pathname }, 'client went away in the middle of its request');
      else if (!(error instanceof ApiError)) this.#log.error({ method: request.method, path: url.pathname, err: error }, 'request failed');
      exchange.fail(error);
    } finally {
      this.#log.debug({ method: request.method, path: url.pathname, code: response.statusCode, user: exchange.user.username }, 'request');
    }
  }

  /** What is told to everybody. */
  #open(exchange: Exchange): boolean {
    const { pathname } = exchange.url;
    if (pathname === '/healthz' || pathname === '/readyz' || pathname === '/livez') exchange.text(200, 'ok');
    else if (pathname === '/version' || pathname === '/version/') exchange.json(200, VERSION);
    else if (pathname === '/openid/v1/jwks') exchange.json(200, this.#tokens.jwks());
    else if (pathname === '/.well-known/openid-configuration') {
      const { issuer } = this.#tokens;
      exchange.json(200, {
        issuer,
        jwks_uri: `${issuer}/openid/v1/jwks`,
        response_types_supported: ['id_token'],
        subject_types_supported: ['public'],
        id_token_signing_alg_values_supported: ['ES256'],
      });
    } else return false;
    return true;
  }

  #described(exchange: Exchange): boolean {
    const { pathname } = exchange.url;
    if (pathname === '/openapi/v3') {
      exchange.json(200, this.#openApi.index());
      return true;
    }
    if (pathname === '/openapi/v2') {
      exchange.response.writeHead(200, { 'content-type': OPENAPI_V2_TYPE }).end(EMPTY_OPENAPI_V2);
      return true;
    }
    if (pathname.startsWith('/openapi/v3/')) {
      const document = this.#openApi.document(pathname.slice('/openapi/v3/'.length));
      if (document === undefined) throw ApiError.noSuchPath();
      exchange.json(200, document);
      return true;
    }
    const document = discoveryDocument(this.store.registry, pathname, exchange.accept);
    if (!document) return false;
    exchange.response.writeHead(200, { 'content-type': discoveryContentType(document), vary: 'Accept' }).end(JSON.stringify(document));
    return true;
  }

  #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    socket.on('error', () => socket.destroy());
    try {
      if (!authenticate(request, this.#tokens, this.#adminToken)) throw ApiError.unauthorized();
      const url = urlOf(request);
      const path = parseResourcePath(url.pathname);
      if (!path) throw ApiError.noSuchPath();
      serveUpgrade(request, socket, head, url, path, { store: this.store, kubelets: this.#kubelets });
    } catch (error) {
      refuseUpgrade(socket, error);
    }
  }

  /** The parts of pods and services that are no objects. */
  async #streamed(exchange: Exchange, path: ResourcePath): Promise<boolean> {
    if (path.group !== '' || path.name === '') return false;
    if (path.plural === 'services' && path.subresource === 'proxy') await serveServiceProxy(exchange, path, this.store, this.#kubelets);
    else if (path.plural !== 'pods') return false;
    else if (path.subresource === 'proxy') await servePodProxy(exchange, path, this.store, this.#kubelets);
    else if (path.subresource === 'log') await serveLogs(exchange, podTarget(this.store, this.#kubelets, path.namespace, path.name));
    else if (path.subresource === 'exec' || path.subresource === 'portforward') throw ApiError.badRequest('Upgrade request required');
    else return false;
    return true;
  }
}

/** A request's target may be anything; what is no URL is a path that nothing is served at. */
const urlOf = ({ url = '/' }: IncomingMessage): URL => URL.parse(url, 'https://apiserver') ?? new URL('https://apiserver/');
