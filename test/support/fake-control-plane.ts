/** A control plane in the test's hand: an ADS server in this process that records what it is asked and sends what it is told to. */
import type { TestContext } from 'node:test';
import { type Metadata, Server, ServerCredentials, type ServerDuplexStream } from '@grpc/grpc-js';
import {
  AggregatedDiscoveryServiceService,
  type DeltaDiscoveryRequest,
  type DeltaDiscoveryResponse,
} from '../../common/codec/gen/discovery.ts';

type Stream = ServerDuplexStream<DeltaDiscoveryRequest, DeltaDiscoveryResponse>;

export interface FakeStream {
  readonly metadata: Metadata;
  readonly requests: readonly DeltaDiscoveryRequest[];
  /** Resolves with the n-th request (from 0). */
  request(n: number): Promise<DeltaDiscoveryRequest>;
  push(response: Partial<DeltaDiscoveryResponse> & { typeUrl: string }): void;
  /** Ends the stream with OK. */
  end(): void;
  fail(code: number, details: string): void;
}

export interface FakeControlPlane {
  /** `127.0.0.1:port` */
  readonly target: string;
  /** Resolves with the n-th stream since the start (from 0). */
  stream(n: number): Promise<FakeStream>;
}

export interface FakeControlPlaneOptions {
  readonly address?: string;
  readonly credentials?: ServerCredentials;
}

export async function startControlPlane(t: TestContext, options: FakeControlPlaneOptions = {}): Promise<FakeControlPlane> {
  const server = new Server({ 'grpc.max_receive_message_length': -1 });
  const streams = new Growing<FakeStream>();
  server.addService(AggregatedDiscoveryServiceService, {
    deltaAggregatedResources: (stream: Stream) => streams.add(fakeStream(stream)),
  });
  const host = options.address ?? '127.0.0.1';
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync(`${host}:0`, options.credentials ?? ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    ),
  );
  t.after(() => server.forceShutdown());
  return { target: `${host}:${port}`, stream: (n) => streams.at(n) };
}

function fakeStream(stream: Stream): FakeStream {
  const requests = new Growing<DeltaDiscoveryRequest>();
  stream.on('data', (request: DeltaDiscoveryRequest) => requests.add(request));
  stream.on('error', () => undefined);
  let nonce = 0;
  return {
    metadata: stream.metadata,
    requests: requests.items,
    request: (n) => requests.at(n),
    push: (response) =>
      void stream.write({ systemVersionInfo: '', resources: [], removedResources: [], nonce: `nonce-${++nonce}`, ...response }),
    end: () => stream.end(),
    fail: (code, details) => void stream.emit('error', { code, details, message: details }),
  };
}

/** A list whose future items can be waited for. */
class Growing<T> {
  readonly items: T[] = [];
  #waiting: { n: number; resolve(item: T): void }[] = [];

  add(item: T): void {
    this.items.push(item);
    const n = this.items.length - 1;
    for (const waiter of this.#waiting.filter((one) => one.n === n)) waiter.resolve(item);
    this.#waiting = this.#waiting.filter((one) => one.n !== n);
  }

  at(n: number): Promise<T> {
    const item = this.items[n];
    if (item !== undefined) return Promise.resolve(item);
    return new Promise((resolve) => this.#waiting.push({ n, resolve }));
  }
}
