/** A whole istiod-lite in this process, before a fake API server, on ports of its own; with clients that speak to it as proxies do. */
import { ChannelCredentials, Client, type ClientDuplexStream, Metadata, type ServiceError } from '@grpc/grpc-js';
import { type Clock, systemClock } from '../../common/base/clock.ts';
import { readSettings, type Settings } from '../../common/base/settings.ts';
import { type IstioCertificateRequest, type IstioCertificateResponse, IstioCertificateServiceService } from '../../common/codec/gen/ca.ts';
import { AggregatedDiscoveryServiceService, DeltaDiscoveryRequest, type DeltaDiscoveryResponse } from '../../common/codec/gen/discovery.ts';
import { type Istiod, startIstiod } from '../../istiod-lite/istiod.ts';
import { settingsTable } from '../../istiod-lite/settings.ts';
import { FakeKubeApi } from './fake-kube-api.ts';
import { type RecordingLog, recordingLog } from './recording-log.ts';
import { until } from './until.ts';

export const ADDRESS = 'type.googleapis.com/istio.workload.Address';
export const AUTHORIZATION = 'type.googleapis.com/istio.security.Authorization';

export interface TestIstiod {
  readonly kube: FakeKubeApi;
  readonly log: RecordingLog;
  readonly istiod: Istiod;
  /** Roots that clients trust, as the cluster hands them out. */
  readonly roots: string;
  readonly target: string;
  /** A stream with this token; `''` for none. */
  stream(token: string): TestStream;
  /** With a client certificate too, where one is given. */
  sign(token: string, request: Partial<IstioCertificateRequest>, client?: ClientCertificate): Promise<IstioCertificateResponse>;
  /** Body of an answer of the monitoring port. */
  http(path: string): Promise<string>;
}

export interface ClientCertificate {
  readonly chainPem: string;
  readonly keyPem: string;
}

type After = { after(run: () => Promise<void>): void };

/** Ready, unless `awaitReady` is false. Everything ends with the test. */
export async function startTestIstiod(
  t: After,
  options: {
    settings?: Partial<Settings<typeof settingsTable>>;
    prepare?: (kube: FakeKubeApi) => void;
    awaitReady?: boolean;
    clock?: Clock;
    api?: FakeKubeApi;
  } = {},
): Promise<TestIstiod> {
  const closers: (() => Promise<void> | void)[] = [];
  t.after(async () => {
    for (const close of closers.reverse()) await close();
  });
  const kube = options.api ?? (await FakeKubeApi.start({ after: (run) => void closers.push(run) }));
  kube.put('/api/v1/namespaces', { metadata: { name: 'istio-system' } });
  kube.put('/api/v1/namespaces', { metadata: { name: 'shop' } });
  ztunnelOf(kube, 'node1');
  options.prepare?.(kube);
  const log = recordingLog();
  const settings = {
    ...readSettings(settingsTable, {}),
    grpcPort: 0,
    monitoringPort: 0,
    httpsPort: 0,
    httpPort: 0,
    rootCaDirectory: '/nonexistent',
    drainMs: 500,
    ...options.settings,
  };
  const istiod = await startIstiod({ settings, api: kube.client('istiod'), clock: options.clock ?? systemClock, random: Math.random, log });
  closers.push(() => istiod.close());
  if (options.awaitReady !== false) await until(() => istiod.ready);
  const secret = kube.get('/api/v1/secrets', 'istio-system/istio-ca-secret') as { data?: Record<string, string> } | undefined;
  const roots = Buffer.from(secret?.data?.['ca-cert.pem'] ?? '', 'base64').toString('utf8');
  const target = `localhost:${istiod.grpcPort}`;
  const connect = (certificate?: ClientCertificate): Client => {
    const client = grpcClient(target, roots, certificate);
    closers.push(() => client.close());
    return client;
  };
  return {
    kube,
    log,
    istiod,
    roots,
    target,
    stream: (token) => new TestStream(connect(), token),
    sign: (token, request, certificate) => sign(connect(certificate), token, request),
    http: async (path) => (await fetch(`http://localhost:${istiod.monitoringPort}${path}`)).text(),
  };
}

/** A node with its ztunnel and a token `ztunnel-NODE` for it. */
export function ztunnelOf(kube: FakeKubeApi, node: string): void {
  kube.put('/api/v1/nodes', { metadata: { name: node } });
  const name = `ztunnel-${node}`;
  const pod = kube.put('/api/v1/pods', {
    metadata: { name, namespace: 'istio-system', labels: { app: 'ztunnel' } },
    spec: { nodeName: node, serviceAccountName: 'ztunnel' },
    status: { phase: 'Running', podIP: '10.0.0.2', podIPs: [{ ip: '10.0.0.2' }] },
  });
  kube.tokens.set(name, { username: 'system:serviceaccount:istio-system:ztunnel', podName: name, podUid: pod.metadata.uid ?? '' });
}

/** A ready pod of service account `account`, in the mesh. */
export function runPod(
  kube: FakeKubeApi,
  o: { name: string; ip: string; node?: string; namespace?: string; account?: string; app?: string },
): void {
  const { name, ip, node = 'node1', namespace = 'shop', account = 'default', app = 'web' } = o;
  kube.put('/api/v1/pods', {
    metadata: { name, namespace, labels: { app }, annotations: { 'ambient.istio.io/redirection': 'enabled' } },
    spec: { nodeName: node, serviceAccountName: account, containers: [{ name: 'c' }] },
    status: { phase: 'Running', podIP: ip, podIPs: [{ ip }], conditions: [{ type: 'Ready', status: 'True' }] },
  });
}

/** One ADS stream as a test drives it: what came is kept, and can be waited for. */
export class TestStream {
  readonly #call: ClientDuplexStream<DeltaDiscoveryRequest | Buffer, DeltaDiscoveryResponse>;
  readonly #received: DeltaDiscoveryResponse[] = [];
  #wake: () => void = () => undefined;
  /** How it ended; undefined while it is open. */
  error: ServiceError | undefined;
  ended = false;

  constructor(client: Client, token: string) {
    const { path, responseDeserialize } = AggregatedDiscoveryServiceService.deltaAggregatedResources;
    const metadata = new Metadata();
    if (token !== '') metadata.set('authorization', `Bearer ${token}`);
    // Bytes go as they are, so that tests can send what is no request.
    const serialize = (request: DeltaDiscoveryRequest | Buffer): Buffer =>
      Buffer.isBuffer(request) ? request : Buffer.from(DeltaDiscoveryRequest.encode(request).finish());
    this.#call = client.makeBidiStreamRequest(path, serialize, responseDeserialize, metadata);
    this.#call.on('data', (response: DeltaDiscoveryResponse) => {
      this.#received.push(response);
      this.#wake();
    });
    this.#call.on('error', (error: ServiceError) => {
      this.error = error;
      this.#wake();
    });
    this.#call.on('end', () => {
      this.ended = true;
      this.#wake();
    });
  }

  send(request: Partial<DeltaDiscoveryRequest>): void {
    this.#call.write({
      typeUrl: '',
      resourceNamesSubscribe: [],
      resourceNamesUnsubscribe: [],
      initialResourceVersions: {},
      responseNonce: '',
      ...request,
    });
  }

  sendBytes(bytes: Buffer): void {
    this.#call.write(bytes);
  }

  /** The first request for a type, as ztunnel writes it. */
  subscribe(typeUrl: string, more: Partial<DeltaDiscoveryRequest> = {}): void {
    this.send({ typeUrl, node: ztunnelNode('ztunnel-node1'), ...more });
  }

  ack({ typeUrl, nonce }: DeltaDiscoveryResponse): void {
    this.send({ typeUrl, responseNonce: nonce });
  }

  /** The next response. @throws the stream's error where it ended instead */
  async next(): Promise<DeltaDiscoveryResponse> {
    await this.#until(() => this.#received.length > 0 || this.error !== undefined || this.ended);
    const response = this.#received.shift();
    if (response) return response;
    throw this.error ?? new Error('the stream ended');
  }

  /** Resolves with the status in which the stream ended. */
  async failure(): Promise<ServiceError> {
    await this.#until(() => this.error !== undefined);
    if (!this.error) throw new Error('no error');
    return this.error;
  }

  /** Waiting for more, nothing came. */
  get silent(): boolean {
    return this.#received.length === 0 && this.error === undefined;
  }

  pause(): void {
    this.#call.pause();
  }

  cancel(): void {
    this.#call.cancel();
  }

  async #until(condition: () => boolean): Promise<void> {
    while (!condition())
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
  }
}

export const ztunnelNode = (name: string, namespace = 'istio-system') => ({
  id: `ztunnel~10.0.0.2~${name}.${namespace}~${namespace}.svc.cluster.local`,
  cluster: 'ztunnel',
  buildVersion: '',
  metadata: { NAME: name, NAMESPACE: namespace, NODE_NAME: 'node1', CLUSTER_ID: 'Kubernetes', ISTIO_VERSION: '1.30.0' },
});

/** A connection of its own; the server's name is not checked, since tests reach it as localhost. */
export function grpcClient(target: string, roots: string, certificate?: ClientCertificate): Client {
  const [key, chain] = certificate ? [Buffer.from(certificate.keyPem), Buffer.from(certificate.chainPem)] : [null, null];
  const credentials = ChannelCredentials.createSsl(Buffer.from(roots), key, chain, { checkServerIdentity: () => undefined });
  return new Client(target, credentials, { 'grpc.max_receive_message_length': -1, 'grpc.use_local_subchannel_pool': 1 });
}

export function sign(client: Client, token: string, request: Partial<IstioCertificateRequest>): Promise<IstioCertificateResponse> {
  const { path, requestSerialize, responseDeserialize } = IstioCertificateServiceService.createCertificate;
  const metadata = new Metadata();
  if (token !== '') metadata.set('authorization', `Bearer ${token}`);
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(
      path,
      requestSerialize,
      responseDeserialize,
      { csr: '', validityDuration: 0n, metadata: undefined, ...request },
      metadata,
      (error: ServiceError | null, response?: IstioCertificateResponse) => (error || !response ? reject(error) : resolve(response)),
    );
  });
}
