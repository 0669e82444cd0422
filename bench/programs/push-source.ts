/**
 * A control plane that pushes when its parent says so, and tells when it did and when it was acknowledged: `push-source.ts PORT FILE WORKLOADS`,
 * with the mesh that FILE describes to begin with. Times are of the system's monotonic clock, in milliseconds, the same in all programs of a bench.
 */
import { readFileSync } from 'node:fs';
import { Server, ServerCredentials, type ServerDuplexStream } from '@grpc/grpc-js';
import { AggregatedDiscoveryServiceService, type DeltaDiscoveryRequest, DeltaDiscoveryResponse } from '../../common/codec/gen/discovery.ts';
import { staticResources } from '../../common/state/static-config.ts';
import type { ListedPush } from '../../common/state/writer.ts';
import { syntheticPush } from './synthetic-mesh.ts';

/** What a YAML of the mesh says otherwise than before, or all of the made-up workloads and their services. */
export type PushOrder = { readonly yaml: string } | 'everything';

type Stream = ServerDuplexStream<DeltaDiscoveryRequest, DeltaDiscoveryResponse>;

const now = (): number => Number(process.hrtime.bigint()) / 1e6;
const [port = '', file = '', workloads = ''] = process.argv.slice(2);
let held = read(readFileSync(file, 'utf8'));
let current: Stream | undefined;
let nonce = 0;
/** The push that the parent waits for. */
let awaited = '';

function read(yaml: string): ListedPush[] {
  return staticResources(yaml).map(({ typeUrl, resources }) => ({ typeUrl, resources, removed: [] }));
}

function push(stream: Stream, changes: ListedPush): void {
  stream.write(response(changes, String(++nonce)));
}

const response = ({ typeUrl, resources, removed }: ListedPush, version: string): DeltaDiscoveryResponse => ({
  systemVersionInfo: '',
  typeUrl,
  nonce: version,
  resources: resources.map(({ name, bytes }) => ({ name, version, aliases: [], resource: { typeUrl, value: bytes } })),
  removedResources: [...removed],
});

// Encoded before anybody waits for it: what that takes is the control plane's own matter.
const EVERYTHING = 'everything';
const everything = Buffer.from(DeltaDiscoveryResponse.encode(response(syntheticPush(Number(workloads)), EVERYTHING)).finish());
const { deltaAggregatedResources } = AggregatedDiscoveryServiceService;
const service = {
  ...AggregatedDiscoveryServiceService,
  deltaAggregatedResources: {
    ...deltaAggregatedResources,
    responseSerialize: (answer: DeltaDiscoveryResponse): Buffer =>
      answer.nonce === EVERYTHING ? everything : deltaAggregatedResources.responseSerialize(answer),
  },
};

function changed(before: readonly ListedPush[], after: readonly ListedPush[]): ListedPush | undefined {
  for (const { typeUrl, resources } of after) {
    const old = new Map(before.find((one) => one.typeUrl === typeUrl)?.resources.map(({ name, bytes }) => [name, bytes]));
    const fresh = resources.filter(({ name, bytes }) => !Buffer.from(bytes).equals(old.get(name) ?? Buffer.alloc(0)));
    for (const { name } of resources) old.delete(name);
    if (fresh.length + old.size > 0) return { typeUrl, resources: fresh, removed: [...old.keys()] };
  }
  return undefined;
}

process.on('message', (order: PushOrder) => {
  if (!current) throw new Error('nobody to push to');
  const after = order === EVERYTHING ? held : read(order.yaml);
  const changes = changed(held, after);
  held = after;
  const at = now();
  if (changes) push(current, changes);
  else current.write(response({ typeUrl: '', resources: [], removed: [] }, EVERYTHING));
  awaited = changes ? String(nonce) : EVERYTHING;
  process.send?.({ event: 'pushed', at });
});
process.on('disconnect', () => process.exit(0));

const server = new Server();
server.addService(service, {
  deltaAggregatedResources(stream: Stream) {
    current = stream;
    stream.on('data', ({ responseNonce, errorDetail, typeUrl }: DeltaDiscoveryRequest) => {
      if (errorDetail) throw new Error(`refused: ${errorDetail.message}`);
      if (responseNonce === '') push(stream, held.find((one) => one.typeUrl === typeUrl) ?? { typeUrl, resources: [], removed: [] });
      else if (responseNonce === awaited) process.send?.({ event: 'acked', at: now() });
    });
    stream.on('error', () => undefined);
  },
});
server.bindAsync(`127.0.0.1:${port}`, ServerCredentials.createInsecure(), () => process.send?.({ event: 'listening', at: now() }));
