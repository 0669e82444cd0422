/**
 * Simulated ztunnels, in a process of their own: `xds-clients.ts TARGET ROOTS-FILE COUNT EXPECTED`, the token in XDS_TOKEN. All connect at once,
 * each over a connection of its own, come back where they are refused, acknowledge everything, and tell the parent when the last of them has
 * all that was expected, and when the last has each name that is new. Nothing is decoded but names: the peer is what is measured.
 */
import { readFileSync } from 'node:fs';
import { BinaryReader } from '@bufbuild/protobuf/wire';
import { ChannelCredentials, Client, type ClientDuplexStream, Metadata, type ServiceError } from '@grpc/grpc-js';
import { AggregatedDiscoveryServiceService, DeltaDiscoveryRequest } from '../../common/codec/gen/discovery.ts';

const [target = '', rootsFile = '', count = '1', expected = '0'] = process.argv.slice(2);
const ADDRESS = 'type.googleapis.com/istio.workload.Address';
const AUTHORIZATION = 'type.googleapis.com/istio.security.Authorization';
const ALL = Number(count);
const now = (): number => Number(process.hrtime.bigint()) / 1e6;
const credentials = ChannelCredentials.createSsl(readFileSync(rootsFile), null, null, { checkServerIdentity: () => undefined });
const started = now();
let refused = 0;
// What the bench creates is called so.
const NEW = /\/change-[^/]*$/;
/** Names that came after the first answer, and which clients have them: one that loses its stream and comes back counts once. */
const seen = new Map<string, Set<number>>();
/** Those that have had everything once. */
const complete = new Set<number>();

interface Response {
  readonly typeUrl: string;
  readonly nonce: string;
  readonly names: string[];
}

// Fields 2 (resources), 4 (type_url) and 5 (nonce); of a resource field 3 (name).
function read(bytes: Buffer): Response {
  const reader = new BinaryReader(bytes);
  const names: string[] = [];
  let [typeUrl, nonce] = ['', ''];
  while (reader.pos < reader.len) {
    const tag = reader.uint32();
    if (tag === 34) typeUrl = reader.string();
    else if (tag === 42) nonce = reader.string();
    else if (tag === 18) {
      const end = reader.uint32() + reader.pos;
      while (reader.pos < end) {
        const inner = reader.uint32();
        if (inner === 26) names.push(reader.string());
        else reader.skip(inner & 7);
      }
    } else reader.skip(tag & 7);
  }
  return { typeUrl, nonce, names };
}

function connect(n: number, wait = 50): void {
  const { path } = AggregatedDiscoveryServiceService.deltaAggregatedResources;
  const client = new Client(target, credentials, { 'grpc.max_receive_message_length': -1, 'grpc.use_local_subchannel_pool': 1 });
  const metadata = new Metadata();
  metadata.set('authorization', `Bearer ${process.env.XDS_TOKEN}`);
  const serialize = (request: DeltaDiscoveryRequest): Buffer => Buffer.from(DeltaDiscoveryRequest.encode(request).finish());
  const stream: ClientDuplexStream<DeltaDiscoveryRequest, Response> = client.makeBidiStreamRequest(path, serialize, read, metadata);
  const node = {
    id: `ztunnel~10.0.0.${n % 250}~ztunnel-${n}.istio-system~istio-system.svc.cluster.local`,
    cluster: '',
    buildVersion: '',
    metadata: {
      NAME: `ztunnel-${n}`,
      NAMESPACE: 'istio-system',
      NODE_NAME: `node${n}`,
      CLUSTER_ID: 'Kubernetes',
      ISTIO_VERSION: 'bench',
    },
  };
  const send = (typeUrl: string, responseNonce: string): void =>
    void stream.write({
      // As ztunnel writes it: in the first requests, and in no acknowledgement.
      node: responseNonce === '' ? node : undefined,
      typeUrl,
      responseNonce,
      resourceNamesSubscribe: [],
      resourceNamesUnsubscribe: [],
      initialResourceVersions: {},
      errorDetail: undefined,
    });
  let have = 0;
  let failed = false;
  stream.on('data', ({ typeUrl, nonce, names }: Response) => {
    send(typeUrl, nonce);
    if (typeUrl !== ADDRESS) return;
    if (!complete.has(n)) {
      have += names.length;
      if (have < Number(expected)) return;
      complete.add(n);
      if (complete.size === ALL) process.send?.({ synced: now() - started, refused });
      return;
    }
    const at = now();
    for (const name of names) {
      if (!NEW.test(name)) continue;
      const holders = seen.get(name) ?? new Set();
      if (holders.size === ALL) continue;
      seen.set(name, holders.add(n));
      if (holders.size === ALL) process.send?.({ reached: name.slice(name.lastIndexOf('/') + 1), at });
    }
  });
  stream.on('error', ({ message }: ServiceError) => {
    if (failed) return;
    failed = true;
    refused++;
    client.close();
    if (complete.has(n)) process.send?.({ lost: message });
    setTimeout(() => connect(n, Math.min(wait * 2, 1000)), wait * (0.5 + Math.random()));
  });
  send(AUTHORIZATION, '');
  send(ADDRESS, '');
}

process.on('disconnect', () => process.exit(0));
for (let n = 0; n < ALL; n++) connect(n);
