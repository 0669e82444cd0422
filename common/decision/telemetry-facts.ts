/**
 * What telemetry can say about a request, or about a connection that carries no HTTP, when it is over; and the attributes under which expressions
 * know it (Envoy, "Attributes"). Everything is asked for when somebody wants it, so that what nobody wants costs nothing.
 */
import type { SocketAddress } from '../base/address.ts';
import type { CelAttribute, CelAttributes } from './cel.ts';
import { CelTime } from './cel-values.ts';

/** A workload at one end, as metrics name it; what is not known is empty. */
export interface PeerFacts {
  /** Of the pod. */
  readonly name: string;
  readonly namespace: string;
  /** Of the Deployment or the like. */
  readonly workload: string;
  readonly type: string;
  readonly cluster: string;
  /** Canonical name and revision. */
  readonly service: string;
  readonly revision: string;
  /** `spiffe://…` */
  readonly identity: string;
}

/** undefined is what there is not, or what this kind of traffic does not have. Header names are in lower case. */
export interface TelemetryFacts {
  /** Milliseconds since 1970. */
  readonly startedAt: number;
  readonly durationMs: number;
  /** From the start to the response's head. */
  readonly answeredMs: number | undefined;
  readonly method: string | undefined;
  /** As it was received, with the query. */
  readonly path: string | undefined;
  readonly authority: string | undefined;
  readonly scheme: string | undefined;
  /** `HTTP/1.1` */
  readonly protocol: string | undefined;
  requestHeader(name: string): string | undefined;
  responseHeader(name: string): string | undefined;
  responseTrailer(name: string): string | undefined;
  readonly requestId: string | undefined;
  readonly responseCode: number | undefined;
  /** Envoy's letters, `-` for none. */
  readonly responseFlags: string;
  readonly responseCodeDetails: string | undefined;
  readonly grpcStatus: number | undefined;
  /** Of bodies, or of the connection. */
  readonly bytesReceived: number;
  readonly bytesSent: number;
  readonly downstreamRemote: SocketAddress;
  readonly downstreamLocal: SocketAddress;
  readonly upstreamHost: SocketAddress | undefined;
  readonly upstreamCluster: string | undefined;
  readonly upstreamFailure: string | undefined;
  readonly routeName: string | undefined;
  readonly serverName: string | undefined;
  readonly attempts: number;
  readonly traceId: string | undefined;
  readonly spanId: string | undefined;
  /** The caller's identity and ours; empty for plaintext. */
  readonly principal: string;
  readonly localPrincipal: string;
  readonly source: PeerFacts | undefined;
  readonly destination: PeerFacts | undefined;
  /** Why it was refused or failed, and the policy that decided. */
  readonly code: string | undefined;
  readonly policy: string | undefined;
}

type Facts = TelemetryFacts;
type Simple = Extract<CelAttribute<Facts>, { type: unknown }>;

const int = (read: (facts: Facts) => number | undefined): Simple => ({
  type: 'int',
  read: (facts) => {
    const value = read(facts);
    return value === undefined ? undefined : BigInt(Math.round(value));
  },
});
const string = (read: (facts: Facts) => string | undefined): Simple => ({ type: 'string', read });
const duration = (read: (facts: Facts) => number | undefined): Simple => ({
  type: 'duration',
  read: (facts) => {
    const ms = read(facts);
    return ms === undefined ? undefined : new CelTime('duration', ms);
  },
});
const entries = (read: (facts: Facts, name: string) => string | undefined): CelAttribute<Facts> => ({ entries: 'string', read });
const filled = (value: string | undefined): string | undefined => (value === '' ? undefined : value);
const ofAddress = (address: SocketAddress | undefined): string | undefined =>
  address && (address.ip.includes(':') ? `[${address.ip}]:${address.port}` : `${address.ip}:${address.port}`);

/** `/a?b=c` is `/a` and `b=c`. */
const withoutQuery = (path: string | undefined): string | undefined => path?.split('?', 1)[0];
const query = (path: string | undefined): string | undefined => path?.slice((withoutQuery(path)?.length ?? 0) + 1);

// In the order of their bits (Envoy, envoy/stream_info/stream_info.h, CoreResponseFlag).
const FLAGS = 'LH UH UT LR UR UF UC UO NR DI FI RL UAEX RLSE DC URX SI IH DPE UMSDR RFCF NFCF DT UPE NC OM DF'.split(' ');

/** Envoy's number for its letters, `UF,URX`. */
export const flagBits = (flags: string): number =>
  flags.split(',').reduce((bits, flag) => bits | (FLAGS.includes(flag) ? 1 << FLAGS.indexOf(flag) : 0), 0);

function peer(
  name: 'downstream_peer' | 'upstream_peer',
  of: (facts: Facts) => PeerFacts | undefined,
): (readonly [string, CelAttribute<Facts>])[] {
  const field = (read: (facts: PeerFacts) => string): Simple =>
    string((facts) => {
      const found = of(facts);
      return found && filled(read(found));
    });
  const fields: Readonly<Record<string, Simple>> = {
    name: field((facts) => facts.name),
    namespace: field((facts) => facts.namespace),
    workload: field((facts) => facts.workload),
    type: field((facts) => facts.type),
    cluster: field((facts) => facts.cluster),
    service: field((facts) => facts.service),
    revision: field((facts) => facts.revision),
    app: field((facts) => facts.service),
    version: field((facts) => facts.revision),
    identity: field((facts) => facts.identity),
  };
  return Object.entries(fields).map(([key, attribute]) => [`filter_state.${name}.${key}`, attribute]);
}

/** What expressions of Telemetry objects can ask for. */
export const telemetryAttributes: CelAttributes<Facts> = new Map<string, CelAttribute<Facts>>([
  ['request.path', string(({ path }) => path)],
  ['request.url_path', string(({ path }) => withoutQuery(path))],
  ['request.query', string(({ path }) => query(path))],
  ['request.host', string(({ authority }) => authority)],
  ['request.scheme', string(({ scheme }) => scheme)],
  ['request.method', string(({ method }) => method)],
  ['request.headers', entries((facts, name) => facts.requestHeader(name))],
  ['request.referer', string((facts) => facts.requestHeader('referer'))],
  ['request.useragent', string((facts) => facts.requestHeader('user-agent'))],
  ['request.time', { type: 'timestamp', read: ({ startedAt }: Facts) => new CelTime('timestamp', startedAt) }],
  ['request.id', string(({ requestId }) => requestId)],
  ['request.protocol', string(({ protocol }) => protocol)],
  ['request.duration', duration(({ durationMs }) => durationMs)],
  ['request.size', int(({ bytesReceived }) => bytesReceived)],
  ['response.code', int(({ responseCode }) => responseCode)],
  ['response.code_details', string(({ responseCodeDetails }) => responseCodeDetails)],
  ['response.flags', int(({ responseFlags }) => flagBits(responseFlags))],
  ['response.grpc_status', int(({ grpcStatus }) => grpcStatus)],
  ['response.headers', entries((facts, name) => facts.responseHeader(name))],
  ['response.trailers', entries((facts, name) => facts.responseTrailer(name))],
  ['response.size', int(({ bytesSent }) => bytesSent)],
  ['response.backend_latency', duration(({ answeredMs }) => answeredMs)],
  ['source.address', string(({ downstreamRemote }) => ofAddress(downstreamRemote))],
  ['source.port', int(({ downstreamRemote }) => downstreamRemote.port)],
  ['destination.address', string(({ downstreamLocal }) => ofAddress(downstreamLocal))],
  ['destination.port', int(({ downstreamLocal }) => downstreamLocal.port)],
  ['connection.mtls', { type: 'bool', read: ({ principal }: Facts) => principal !== '' }],
  ['connection.requested_server_name', string(({ serverName }) => serverName)],
  ['connection.tls_version', string(({ principal }) => (principal === '' ? undefined : 'TLSv1.3'))],
  ['connection.uri_san_peer_certificate', string(({ principal }) => filled(principal))],
  ['connection.uri_san_local_certificate', string(({ localPrincipal }) => filled(localPrincipal))],
  ['upstream.address', string(({ upstreamHost }) => ofAddress(upstreamHost))],
  ['upstream.port', int(({ upstreamHost }) => upstreamHost?.port)],
  ['upstream.transport_failure_reason', string(({ upstreamFailure }) => upstreamFailure)],
  ['upstream.request_attempt_count', int(({ attempts }) => attempts)],
  ['xds.cluster_name', string(({ upstreamCluster }) => upstreamCluster)],
  ['xds.route_name', string(({ routeName }) => routeName)],
  ['warren.code', string(({ code }) => code)],
  ['warren.policy', string(({ policy }) => policy)],
  ...peer('downstream_peer', ({ source }) => source),
  ...peer('upstream_peer', ({ destination }) => destination),
]);
