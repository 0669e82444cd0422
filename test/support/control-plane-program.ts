/**
 * A control plane as a program, for a ztunnel in a namespace that the test's own process cannot listen in: serves the mesh that a YAML file
 * describes, and pushes what changed when it gets SIGHUP. Arguments: port, file.
 */
import { readFileSync } from 'node:fs';
import { Server, ServerCredentials, type ServerDuplexStream } from '@grpc/grpc-js';
import {
  AggregatedDiscoveryServiceService,
  type DeltaDiscoveryRequest,
  type DeltaDiscoveryResponse,
} from '../../common/codec/gen/discovery.ts';
import { staticResources } from '../../common/state/static-config.ts';

type Stream = ServerDuplexStream<DeltaDiscoveryRequest, DeltaDiscoveryResponse>;
type Held = Map<string, Map<string, Uint8Array>>;

const [port = '', file = ''] = process.argv.slice(2);
const streams = new Set<Stream>();
let nonce = 0;
let held = read();

function read(): Held {
  return new Map(
    staticResources(readFileSync(file, 'utf8')).map(({ typeUrl, resources }) => [
      typeUrl,
      new Map(resources.map(({ name, bytes }) => [name, bytes])),
    ]),
  );
}

function push(stream: Stream, typeUrl: string, before: ReadonlyMap<string, Uint8Array> = new Map()): void {
  const now = held.get(typeUrl) ?? new Map<string, Uint8Array>();
  const changed = [...now].filter(([name, bytes]) => !Buffer.from(bytes).equals(before.get(name) ?? Buffer.alloc(0)));
  stream.write({
    systemVersionInfo: '',
    typeUrl,
    nonce: `nonce-${++nonce}`,
    resources: changed.map(([name, value]) => ({ name, version: `v${nonce}`, aliases: [], resource: { typeUrl, value } })),
    removedResources: [...before.keys()].filter((name) => !now.has(name)),
  });
}

const server = new Server();
server.addService(AggregatedDiscoveryServiceService, {
  deltaAggregatedResources(stream: Stream) {
    streams.add(stream);
    stream.on('data', (request: DeltaDiscoveryRequest) => {
      if (request.responseNonce === '') push(stream, request.typeUrl);
      else if (request.errorDetail) console.log('NACK', request.errorDetail.message);
      else console.log('ACK', request.responseNonce, request.typeUrl);
    });
    stream.on('end', () => stream.end());
    stream.on('close', () => streams.delete(stream));
    stream.on('error', () => streams.delete(stream));
  },
});
process.on('SIGHUP', () => {
  const before = held;
  held = read();
  for (const typeUrl of held.keys()) for (const stream of streams) push(stream, typeUrl, before.get(typeUrl));
});
server.bindAsync(`127.0.0.1:${port}`, ServerCredentials.createInsecure(), () => console.log('listening'));
