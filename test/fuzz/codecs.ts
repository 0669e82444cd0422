/**
 * Throws mutated bytes at every parser of a ztunnel that reads what others wrote: valid input, bent. Each may say no in its own words; none
 * may throw anything else, hang, or keep memory. `node test/fuzz/codecs.ts [SECONDS] [CODEC] [SEED]`, SECONDS for each codec.
 */
import { X509Certificate } from 'node:crypto';
import { encode, RECURSION_DESIRED } from 'dns-packet';
import { parseCidr, parseIp, parseSocketAddress } from '../../common/base/address.ts';
import { logDirectives } from '../../common/base/proxy-settings.ts';
import { formatSpiffeId, parseSpiffeId } from '../../common/base/spiffe.ts';
import { DeltaDiscoveryResponse } from '../../common/codec/gen/discovery.ts';
import { Version, WorkloadRequest, ZdsHello } from '../../common/codec/gen/zds.ts';
import { Http2ConnectionError } from '../../common/codec/http2/errors.ts';
import { HpackDecoder } from '../../common/codec/http2/hpack-decoder.ts';
import { HpackEncoder } from '../../common/codec/http2/hpack-encoder.ts';
import { CrlError, certificateKey, parseCrls } from '../../common/codec/x509/crl.ts';
import { CsrError, parseCsr } from '../../common/codec/x509/csr.ts';
import { decodePem } from '../../common/codec/x509/pem.ts';
import { formatForwarded, parseBaggage, parseForwardedHost, traceIdOf } from '../../common/decision/headers.ts';
import { resolveInbound } from '../../common/decision/inbound.ts';
import { decodeAddress, decodePolicy, ResourceRejected } from '../../common/state/decode.ts';
import { encodePolicy, encodeService, encodeWorkload } from '../../common/state/encode.ts';
import { staticResources } from '../../common/state/static-config.ts';
import { uriNames } from '../../common/tls/mesh-tls.ts';
import { encodeAnswer, fitUdp, parseQuery } from '../../ztunnel/dns/message.ts';
import { DnsFramer } from '../../ztunnel/dns/tcp-framing.ts';
import { policy, service, workload } from '../support/builders.ts';
import { testAuthority } from '../support/certificates.ts';
import { PlainMesh } from '../support/plain-mesh.ts';
import { revocationList } from '../support/revocation-list.ts';
import { type Random, randomOf } from '../support/seeded-random.ts';
import { isProgram, secondsOf, seedOf } from './campaign.ts';

interface Codec {
  readonly name: string;
  /** Valid input, from which the mutations start. */
  readonly seeds: readonly Buffer[];
  run(bytes: Buffer): void;
  /** Whether it may say no like this. */
  expected(error: unknown): boolean;
}

const never = (): boolean => false;
const anyError = (error: unknown): boolean => error instanceof Error && !(error instanceof TypeError) && !(error instanceof ReferenceError);
const text = (...values: readonly string[]): Buffer[] => values.map((value) => Buffer.from(value));

const authority = testAuthority();
const ids = ['spiffe://cluster.local/ns/shop/sa/a', 'spiffe://a/ns/b/sa/c'];
const certificates = ids.map((id) => authority.issue(id).chain);
const own = workload({ name: 'a', addresses: ['10.0.0.1', 'fd00::1'], protocol: 'HBONE', authorizationPolicies: ['shop/p'] });
const mesh = new PlainMesh();
mesh.put({ workload: own });
const question = (name: string, type: 'A' | 'AAAA' | 'TXT'): Buffer =>
  encode({ type: 'query', id: 7, flags: RECURSION_DESIRED, questions: [{ type, name, class: 'IN' }] });

export const codecs: readonly Codec[] = [
  {
    name: 'dns',
    seeds: [question('orders.shop.svc.cluster.local', 'A'), question('a', 'AAAA'), question('_x._tcp.example.com', 'TXT')],
    run(bytes) {
      const parsed = parseQuery(bytes);
      if (!parsed || 'refusal' in parsed) return;
      try {
        fitUdp(parsed.query, encodeAnswer(parsed.query, { rcode: 'NOERROR', authoritative: true, addresses: ['10.0.0.1'] }));
      } catch {
        // A name that can be read and not be written again: the server answers nothing (dns/server.ts).
      }
      new DnsFramer(() => undefined).push(bytes);
    },
    expected: never,
  },
  {
    name: 'xds',
    seeds: [Buffer.from(encodeWorkload(own)), Buffer.from(encodeService(service({ name: 's', vips: ['10.96.0.1'] })))],
    run: (bytes) => void decodeAddress(bytes),
    expected: (error) => error instanceof ResourceRejected,
  },
  {
    name: 'policy',
    seeds: [Buffer.from(encodePolicy(policy({ name: 'p', action: 'DENY' })))],
    run: (bytes) => void decodePolicy(bytes),
    expected: (error) => error instanceof ResourceRejected,
  },
  {
    name: 'messages',
    seeds: [
      Buffer.from(WorkloadRequest.encode({ payload: { $case: 'keep', value: { uid: 'uid' } } }).finish()),
      Buffer.from(ZdsHello.encode({ version: Version.V1 }).finish()),
    ],
    run(bytes) {
      WorkloadRequest.decode(bytes);
      DeltaDiscoveryResponse.decode(bytes);
    },
    expected: (error) => error instanceof Error,
  },
  {
    name: 'static',
    seeds: text(
      'workloads:\n- {name: a, namespace: b, workloadIps: ["10.0.0.1"], services: {"b/c.d": {80: 81}}}\npolicies:\n- {name: p, namespace: b, scope: Global, action: Deny, rules: [[[{principals: [{Exact: x}]}]]]}\n',
    ),
    run: (bytes) => void staticResources(bytes.toString()),
    expected: anyError,
  },
  {
    name: 'hpack',
    seeds: [
      new HpackEncoder({ unindexed: new Set() }).encode([
        [':method', 'CONNECT'],
        [':authority', '10.0.0.1:80'],
        ['baggage', 'a=b'],
      ]),
    ],
    run: (bytes) => void new HpackDecoder(16 << 10).decode(bytes),
    expected: (error) => error instanceof Http2ConnectionError,
  },
  {
    name: 'certificates',
    seeds: [
      ...certificates.map((pem) => new X509Certificate(pem).raw),
      ...decodePem(revocationList(...certificates)).map(({ der }) => der),
      ...text(revocationList(...certificates)),
    ],
    run(bytes) {
      for (const read of [certificateKey, parseCrls]) {
        try {
          read(bytes);
        } catch (error) {
          if (!(error instanceof CrlError)) throw error;
        }
      }
      parseCsr(bytes.toString('latin1'));
    },
    expected: (error) => error instanceof CsrError,
  },
  {
    name: 'text',
    seeds: text(
      '10.0.0.1:8080',
      '[fd00::1]:80',
      'orders.shop.svc.cluster.local:80',
      'k8s.cluster.name=c,k8s.namespace.name=n,k8s.deployment.name=d,service.name=s',
      formatForwarded({ ip: 'fd00::1', port: 5 }, 'orders.shop'),
      '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
      `URI:${ids[0]}, DNS:"a, URI:b"`,
      '10.0.0.0/8',
      ...ids,
    ),
    run(bytes) {
      const value = bytes.toString('latin1');
      for (const read of [parseSocketAddress, parseIp, parseCidr, traceIdOf, uriNames]) read(value);
      const id = parseSpiffeId(value);
      if (id && formatSpiffeId(id) !== value) throw new TypeError(`an identity that is written otherwise than read: ${value}`);
      parseBaggage([value]);
      parseForwardedHost([value]);
      resolveInbound(mesh, { local: own, podIp: '10.0.0.1', network: '', authority: value });
    },
    expected: never,
  },
  {
    name: 'levels',
    seeds: text('info,access=debug', 'warn'),
    run: (bytes) => void logDirectives.parse(bytes.toString()),
    expected: anyError,
  },
];

function mutated(random: Random, { seeds }: Codec): Buffer {
  let bytes = Buffer.from(seeds[random(seeds.length)] ?? Buffer.alloc(0));
  for (let i = random(6); i >= 0; i--) {
    const at = random(bytes.length + 1);
    switch (random(6)) {
      case 0:
        bytes = bytes.subarray(0, at);
        break;
      case 1:
        bytes = Buffer.concat([bytes.subarray(0, at), Buffer.from([random(256)]), bytes.subarray(at)]);
        break;
      case 2:
        if (at < bytes.length) bytes[at] = [0, 0x7f, 0x80, 0xff, random(256)][random(5)] ?? 0;
        break;
      case 3:
        if (at < bytes.length) bytes[at] = (bytes[at] ?? 0) ^ (1 << random(8));
        break;
      case 4:
        // A piece twice: lengths that lie, keys that come again.
        bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(random(at + 1))]).subarray(0, 65_536);
        break;
      default:
        bytes = Buffer.concat([bytes.subarray(0, at), Buffer.from(seeds[random(seeds.length)] ?? Buffer.alloc(0)).subarray(random(20))]);
    }
  }
  return bytes;
}

/** One case. @throws where the codec does what it may not, with the seed in the message */
export function fuzzOnce(codec: Codec, seed: number): void {
  const bytes = mutated(randomOf(seed), codec);
  const startedAt = performance.now();
  try {
    codec.run(bytes);
  } catch (error) {
    if (!codec.expected(error)) throw new Error(`${codec.name}, seed ${seed}, ${bytes.toString('hex').slice(0, 2000)}`, { cause: error });
  }
  const tookMs = performance.now() - startedAt;
  if (tookMs > MAX_MS) throw new Error(`${codec.name}, seed ${seed}: ${Math.round(tookMs)} ms for ${bytes.length} bytes`);
}

/** Generous: the machine may be busy with something else. */
const MAX_MS = 5000;
const MAX_HEAP_BYTES = 512 << 20;

/** @returns how many cases there were */
export function fuzz(codec: Codec, ms: number, firstSeed: number): number {
  const end = performance.now() + ms;
  let seed = firstSeed;
  for (; performance.now() < end; seed++) {
    fuzzOnce(codec, seed);
    if (seed % 10_000 === 0 && process.memoryUsage().heapUsed > MAX_HEAP_BYTES) throw new Error(`${codec.name} keeps memory`);
  }
  return seed - firstSeed;
}

if (isProgram(import.meta.url)) {
  const [seconds, name, seed] = process.argv.slice(2);
  const wanted = codecs.filter((codec) => name === undefined || name === '' || codec.name === name);
  if (wanted.length === 0) throw new Error(`no codec ${name}: there are ${codecs.map((codec) => codec.name).join(', ')}`);
  for (const codec of wanted) {
    const count = fuzz(codec, secondsOf(seconds, 600) * 1000, seedOf(seed));
    console.log(`${codec.name}: ${count} cases, nothing found`);
  }
}
