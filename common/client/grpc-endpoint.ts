/**
 * What xDS and CA clients share about reaching a control plane over gRPC: the server's roots and accepted names, and the caller's token.
 * Roots and token are read again for each connection and each call, since Kubernetes rotates both under us.
 */
import { existsSync, readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { checkServerIdentity, createSecureContext, getCACertificates, type PeerCertificate } from 'node:tls';
import { ChannelCredentials, type ChannelOptions, Metadata } from '@grpc/grpc-js';
import { errorMessage } from '../base/errors.ts';

export interface GrpcEndpoint {
  /** `host:port`. */
  readonly target: string;
  readonly tls: boolean;
  /** A file, the word SYSTEM, or PEM text. */
  readonly root: string;
  /** Accepted in the server's certificate beside the target's host. */
  readonly alternativeName: string | undefined;
  /** Sent with each call. */
  readonly headers: Readonly<Record<string, string>>;
}

/** The roots that the setting names. @throws {Error} naming the file that cannot be read or holds no certificate */
export function readRoots(root: string): string[] {
  if (root === 'SYSTEM') return getCACertificates('system');
  const text = existsSync(root) ? readFileSync(root, 'utf8') : root;
  if (!text.includes('-----BEGIN CERTIFICATE-----')) {
    throw new Error(
      text === root ? `root certificates: no such file, and no PEM text: ${root.slice(0, 200)}` : `no certificate in ${root}`,
    );
  }
  return [text];
}

/** Credentials of one connection: TLS 1.3 with AES-GCM, the server's name checked. @throws {Error} where the roots cannot be read */
export function channelCredentials({ tls, root, alternativeName, target }: GrpcEndpoint): ChannelCredentials {
  if (!tls) return ChannelCredentials.createInsecure();
  const host = hostOf(target);
  const context = createSecureContext({
    ca: readRoots(root),
    minVersion: 'TLSv1.3',
    ciphers: 'TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256',
  });
  return ChannelCredentials.createFromSecureContext(context, {
    checkServerIdentity: (_: string, certificate: PeerCertificate) => {
      const problem = checkServerIdentity(host, certificate);
      if (!problem || alternativeName === undefined) return problem;
      return checkServerIdentity(alternativeName, certificate);
    },
  });
}

/** Reads the bearer token; undefined where none is used. @throws {Error} for a file that is empty or cannot be read */
export type TokenSource = () => string | undefined;

/** @param setting a file, or the token itself; where it is undefined, `fallbackFile` is used if it exists */
export function tokenSource(setting: string | undefined, fallbackFile: string): TokenSource {
  if (setting !== undefined && !existsSync(setting)) return () => setting;
  const file = setting ?? fallbackFile;
  if (setting === undefined && !existsSync(file)) return () => undefined;
  return () => {
    let token: string;
    try {
      // A newline at the end would make an illegal header.
      token = readFileSync(file, 'utf8').trim();
    } catch (error) {
      throw new Error(`cannot read the token: ${errorMessage(error)}`, { cause: error });
    }
    if (token === '') throw new Error(`the token file ${file} is empty`);
    return token;
  };
}

/** Call metadata: bearer token and `clusterid` where there is a token, then the endpoint's own headers. */
export function callMetadata(endpoint: GrpcEndpoint, token: TokenSource, clusterId: string): Metadata {
  const metadata = new Metadata();
  const bearer = token();
  if (bearer !== undefined) {
    metadata.set('authorization', `Bearer ${bearer}`);
    metadata.set('clusterid', clusterId);
  }
  for (const [name, value] of Object.entries(endpoint.headers)) metadata.set(name, value);
  return metadata;
}

/** Pings as ztunnel sends them (Istio's ztunnel, src/xds/client.rs), and no reconnecting behind our back: that is the caller's loop. */
const CHANNEL_OPTIONS = {
  'grpc.keepalive_time_ms': 30_000,
  'grpc.keepalive_timeout_ms': 10_000,
  'grpc.keepalive_permit_without_calls': 1,
  'grpc.max_receive_message_length': 200 << 20,
  // A mesh comes in one message: with HTTP/2's own 64 KB the sender would wait for us a thousand times.
  'grpc-node.flow_control_window': 4 << 20,
  'grpc.service_config_disable_resolution': 1,
  'grpc.enable_retries': 0,
} as const;

// TLS has no names for addresses, and grpc-js would give one as a name (RFC 6066, section 3). Which name goes in its place says nothing: the
// certificate is compared with the address itself.
const NAME_FOR_ADDRESSES = 'istiod.istio-system.svc';

/** Options of one channel to this endpoint, whose host may be an address. */
export function channelOptions({ target, alternativeName = NAME_FOR_ADDRESSES }: GrpcEndpoint): ChannelOptions {
  return isIP(hostOf(target)) === 0 ? CHANNEL_OPTIONS : { ...CHANNEL_OPTIONS, 'grpc.ssl_target_name_override': alternativeName };
}

/** Of `host:port`, IPv6 in brackets. */
const hostOf = (target: string): string => target.slice(0, target.lastIndexOf(':')).replace(/^\[(.*)\]$/, '$1');
