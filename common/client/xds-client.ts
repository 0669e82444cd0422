/**
 * Delta xDS over one aggregated stream that is opened again for ever: subscribes to whole types, hands each push on, answers it with ACK
 * or with the names that were not taken, and tells a new stream what it already has (Istio's ztunnel, src/xds/client.rs).
 */
import { Client, type ClientDuplexStream, connectivityState, status as GrpcStatus, type StatusObject } from '@grpc/grpc-js';
import { type Clock, sleep } from '../base/clock.ts';
import { errorMessage } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { AggregatedDiscoveryServiceService, type DeltaDiscoveryRequest, type Node } from '../codec/gen/discovery.ts';
import { DeltaResponse, type ReceivedResource } from './delta-response.ts';
import { callMetadata, channelCredentials, channelOptions, type GrpcEndpoint, type TokenSource } from './grpc-endpoint.ts';

export interface XdsPush {
  readonly typeUrl: string;
  /** Can be gone through again; each time makes its texts again. */
  readonly resources: Iterable<ReceivedResource>;
  readonly removed: readonly string[];
  /** The response that it came in. */
  readonly encoded?: Uint8Array;
}

export type XdsTermination = 'ConnectionError' | 'Error' | 'Reconnect' | 'Complete';

export interface XdsClientOptions {
  readonly endpoint: GrpcEndpoint;
  readonly token: TokenSource;
  readonly clusterId: string;
  readonly node: Node;
  /** Subscribed to in this order. */
  readonly typeUrls: readonly string[];
  /** Of these types only what `want` named is subscribed to, and what the control plane sends without being asked is taken. */
  readonly onDemand?: ReadonlySet<string>;
  readonly clock: Clock;
  readonly log: Log;
  /** What is held of a type, by name: the first request of a stream says it, so that only what changed is sent. */
  versions(typeUrl: string): ReadonlyMap<string, string>;
  /** Takes what it can; what it rejects is reported and does not stop the rest. */
  apply(push: XdsPush): { readonly rejected: readonly { readonly name: string; readonly reason: string }[] };
  /** Names and aliases of what was applied, and of what is not there. */
  onNamed?(typeUrl: string, names: readonly string[]): void;
  onMessage?(typeUrl: string, bytes: number): void;
  onTermination?(reason: XdsTermination): void;
  /** Once, when every type that is subscribed to as a whole has had its first push that was taken as a whole. */
  onSynced?(): void;
}

export interface XdsStatus {
  readonly at: 'connecting' | 'streaming' | 'waiting' | 'stopped';
  readonly synced: boolean;
  /** Why the last stream ended; undefined before the first end and while streaming. */
  readonly lastError: string | undefined;
}

const FIRST_WAIT_MS = 20;
const LONGEST_WAIT_MS = 15_000;
/** A server that restarts or rebalances says so; there is no reason to stay away from it. */
const QUICK_WAIT_MS = 10;
const CONNECT_TIMEOUT_MS = 5000;
const MAX_ERROR_DETAIL = 16_384;
/** As many as istiod takes of one proxy. */
const MAX_WANTED = 100_000;
const WILDCARD = '*';

type Stream = ClientDuplexStream<DeltaDiscoveryRequest, DeltaResponse>;
type End = { readonly reason: XdsTermination; readonly error?: string };

export class XdsClient {
  readonly #options: XdsClientOptions;
  readonly #stop = new AbortController();
  readonly #acked = new Set<string>();
  readonly #wanted = new Map<string, Set<string>>();
  #open: Stream | undefined;
  #at: XdsStatus['at'] = 'connecting';
  #lastError: string | undefined;
  #waitMs = FIRST_WAIT_MS;
  /** Whether the present stream has brought anything. */
  #useful = false;
  #running: Promise<void> | undefined;

  constructor(options: XdsClientOptions) {
    this.#options = options;
  }

  get status(): XdsStatus {
    return { at: this.#at, synced: this.#acked.size === this.#wholeTypes.length, lastError: this.#lastError };
  }

  /** Runs until `stop`; connection problems are logged and retried. */
  start(): void {
    this.#running ??= this.#run();
  }

  /**
   * Subscribes to one name, or alias, of a type that is on demand; now, and on every stream to come. `onNamed` tells of it when it has come.
   * @throws {RangeError} beyond a hundred thousand names
   */
  want(typeUrl: string, name: string): void {
    const wanted = this.#wanted.get(typeUrl) ?? new Set();
    this.#wanted.set(typeUrl, wanted);
    if (wanted.has(name)) return;
    if (wanted.size >= MAX_WANTED) throw new RangeError(`${MAX_WANTED} names of ${typeUrl} are subscribed to already`);
    wanted.add(name);
    this.#open?.write({ ...emptyRequest(typeUrl), resourceNamesSubscribe: [name] });
  }

  get #wholeTypes(): readonly string[] {
    const { typeUrls, onDemand } = this.#options;
    return onDemand ? typeUrls.filter((typeUrl) => !onDemand.has(typeUrl)) : typeUrls;
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
    this.#enter('stopped');
  }

  async #run(): Promise<void> {
    const { clock, log, onTermination } = this.#options;
    while (!this.#stop.signal.aborted) {
      this.#enter('connecting');
      const end = await this.#connectAndStream();
      if (this.#stop.signal.aborted) return;
      this.#lastError = end.error;
      onTermination?.(end.reason);
      const waitMs = this.#nextWait(end.reason);
      log.warn({ reason: end.reason, error: end.error, retryMs: waitMs }, 'connection to the control plane ended');
      this.#enter('waiting');
      await sleep(clock, waitMs, this.#stop.signal).catch(() => undefined);
    }
  }

  #nextWait(reason: XdsTermination): number {
    // A server that ends every stream before it has said anything is not restarting but broken; it must not be called without pause.
    if (this.#useful && reason === 'Complete') return 0;
    if (this.#useful && reason === 'Reconnect') return QUICK_WAIT_MS;
    const wait = this.#waitMs;
    this.#waitMs = Math.min(wait * 2, LONGEST_WAIT_MS);
    return wait;
  }

  async #connectAndStream(): Promise<End> {
    const { endpoint, token, clusterId } = this.#options;
    let client: Client | undefined;
    try {
      this.#useful = false;
      // A client for each attempt: its roots are the file's of now.
      client = new Client(endpoint.target, channelCredentials(endpoint), channelOptions(endpoint));
      const { path, requestSerialize } = AggregatedDiscoveryServiceService.deltaAggregatedResources;
      const stream: Stream = client.makeBidiStreamRequest(
        path,
        requestSerialize,
        DeltaResponse.decode,
        callMetadata(endpoint, token, clusterId),
      );
      return await this.#stream(client, stream);
    } catch (error) {
      return { reason: 'ConnectionError', error: `${endpoint.target}: ${errorMessage(error)}` };
    } finally {
      client?.close();
    }
  }

  #stream(client: Client, stream: Stream): Promise<End> {
    const { promise, resolve } = Promise.withResolvers<End>();
    const cancel = (): void => stream.cancel();
    const tooSlow = this.#options.clock.after(CONNECT_TIMEOUT_MS, () => {
      if (client.getChannel().getConnectivityState(false) === connectivityState.READY) return;
      resolve({ reason: 'ConnectionError', error: `no connection within ${CONNECT_TIMEOUT_MS / 1000} s` });
      cancel();
    });
    this.#stop.signal.addEventListener('abort', cancel, { once: true });
    // The status below says the same and more; without a listener the event would end the process.
    stream.on('error', () => undefined);
    stream.on('status', (status: StatusObject) => resolve(endOf(status)));
    stream.on('data', (message: DeltaResponse) => {
      try {
        this.#received(stream, message);
      } catch (error) {
        // Not a bad resource but a fault of ours: the stream is of no use any more, a new one starts from what is held.
        this.#options.log.error({ type: message.typeUrl, error: errorMessage(error) }, 'applying a push failed');
        resolve({ reason: 'Error', error: errorMessage(error) });
        stream.cancel();
      }
    });
    for (const typeUrl of this.#options.typeUrls) stream.write(this.#subscribe(typeUrl));
    this.#open = stream;
    return promise.finally(() => {
      this.#open = undefined;
      tooSlow.cancel();
      this.#stop.signal.removeEventListener('abort', cancel);
    });
  }

  #subscribe(typeUrl: string): DeltaDiscoveryRequest {
    const { node, onDemand, versions } = this.#options;
    return {
      ...emptyRequest(typeUrl),
      node,
      initialResourceVersions: Object.fromEntries(versions(typeUrl)),
      // Everything, and then not everything: how "nothing yet" is said (Istio's ztunnel, src/xds/client.rs).
      ...(onDemand?.has(typeUrl)
        ? { resourceNamesSubscribe: [WILDCARD, ...(this.#wanted.get(typeUrl) ?? [])], resourceNamesUnsubscribe: [WILDCARD] }
        : {}),
    };
  }

  #received(stream: Stream, message: DeltaResponse): void {
    const { apply, log, onMessage, onNamed, onSynced, typeUrls } = this.#options;
    const { typeUrl, nonce } = message;
    this.#enter('streaming');
    onMessage?.(typeUrl, message.encoded.length);
    // Whoever sends is well: the next failure starts with a short wait again.
    this.#waitMs = FIRST_WAIT_MS;
    this.#useful = true;
    this.#lastError = undefined;
    const known = typeUrls.includes(typeUrl);
    if (!known) log.warn({ type: typeUrl }, 'the control plane sent a type that nobody asked for');
    const { rejected } = known ? apply(message) : { rejected: [] };
    if (known && onNamed) onNamed(typeUrl, [...message.names()]);
    const request: DeltaDiscoveryRequest = { ...emptyRequest(typeUrl), responseNonce: nonce };
    if (rejected.length === 0) {
      stream.write(request);
      if (this.#wholeTypes.includes(typeUrl) && !this.#acked.has(typeUrl)) {
        this.#acked.add(typeUrl);
        if (this.#acked.size === this.#wholeTypes.length) onSynced?.();
      }
      return;
    }
    const detail = rejected.map(({ name, reason }) => `${name}: ${reason}`).join('; ');
    log.warn({ type: typeUrl, rejected: rejected.length, error: detail.slice(0, 1000) }, 'resources rejected');
    stream.write({ ...request, errorDetail: { code: 0, message: detail.slice(0, MAX_ERROR_DETAIL), details: [] } });
  }

  #enter(at: XdsStatus['at']): void {
    if (this.#at !== at) this.#options.log.debug({ from: this.#at, to: at }, 'xds state');
    this.#at = at;
  }
}

const emptyRequest = (typeUrl: string): DeltaDiscoveryRequest => ({
  typeUrl,
  resourceNamesSubscribe: [],
  resourceNamesUnsubscribe: [],
  initialResourceVersions: {},
  responseNonce: '',
});

// How grpc-js words it; the rest of its sentence says why.
const NEVER_CONNECTED = /^No connection established|^Name resolution failed/;
const RECONNECT: readonly number[] = [GrpcStatus.UNKNOWN, GrpcStatus.CANCELLED, GrpcStatus.DEADLINE_EXCEEDED];

function endOf({ code, details }: StatusObject): End {
  if (code === GrpcStatus.OK) return { reason: 'Complete' };
  const error = `${GrpcStatus[code] ?? code}: ${details}`;
  if (code === GrpcStatus.UNAVAILABLE && NEVER_CONNECTED.test(details)) return { reason: 'ConnectionError', error };
  const goingAway = code === GrpcStatus.UNAVAILABLE && /transport is closing|received prior goaway|GOAWAY/i.test(details);
  return { reason: RECONNECT.includes(code) || goingAway ? 'Reconnect' : 'Error', error };
}
