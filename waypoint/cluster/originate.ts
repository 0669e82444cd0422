/**
 * What a service's settings want said before the application speaks: a PROXY header with the caller's address (PROXY protocol, versions 1 and
 * 2), and TLS that the waypoint begins itself, for servers outside the mesh.
 */
import { isIP } from 'node:net';
import {
  type ConnectionOptions,
  checkServerIdentity,
  connect as connectTls,
  type PeerCertificate,
  rootCertificates,
  type TLSSocket,
} from 'node:tls';
import { ipBytes, isIpv6, type SocketAddress } from '../../common/base/address.ts';
import type { Clock } from '../../common/base/clock.ts';
import { errorMessage, ProxyError } from '../../common/base/errors.ts';
import type { UpstreamTls } from '../../common/codec/gen/waypoint.ts';
import { pipeOf } from '../../common/hbone/duplex-pipe.ts';
import { endpointOf } from '../../common/hbone/endpoint.ts';
import { duplexOf } from '../../common/hbone/stream-duplex.ts';
import type { Pipe } from '../../common/hbone/types.ts';

export interface Origination {
  readonly tls: UpstreamTls | undefined;
  readonly proxyProtocol: 0 | 1 | 2;
  /** What is spoken inside TLS. */
  readonly alpn: 'h2' | 'http/1.1' | undefined;
  /** Whom a PROXY header names; undefined says that it is nobody's connection (`UNKNOWN`, LOCAL). */
  readonly from: SocketAddress | undefined;
  readonly to: SocketAddress;
  readonly clock: Clock;
}

const HANDSHAKE_MS = 10_000;

/** @throws {ProxyError} TLS_FAILURE, saying what was wrong with the server's certificate; the signal's reason */
export async function originate(pipe: Pipe, options: Origination, signal: AbortSignal): Promise<Pipe> {
  const { proxyProtocol, tls, from, to } = options;
  if (proxyProtocol !== 0) endpointOf(pipe).writeSlice(proxyHeader(proxyProtocol, from, to));
  if (!tls) return pipe;
  const socket = await handshake(connectTls({ ...tlsOptions(tls, options.alpn), socket: duplexOf(pipe) }), tls, options, signal);
  return pipeOf(socket, { local: { ip: '', port: 0 }, remote: to });
}

function tlsOptions(tls: UpstreamTls, alpn: Origination['alpn']): ConnectionOptions {
  const { serverName, clientCertificate: own } = tls;
  return {
    // An address is no name (RFC 6066, section 3).
    ...(serverName !== '' && isIP(serverName) === 0 ? { servername: serverName } : {}),
    ...(alpn === undefined ? {} : { ALPNProtocols: [alpn] }),
    ...(own ? { cert: own.certificate, key: own.privateKey } : {}),
    ca: tls.roots === '' ? [...rootCertificates] : [tls.roots],
    rejectUnauthorized: !tls.unverified,
    checkServerIdentity: (_, certificate) => identityProblem(tls, certificate),
  };
}

/** Any of the names that were asked for; where none were, the one that SNI asks for. */
function identityProblem({ subjectAltNames, serverName }: UpstreamTls, certificate: PeerCertificate): Error | undefined {
  const wanted = subjectAltNames.length > 0 ? subjectAltNames : [serverName];
  const uris = (certificate.subjectaltname ?? '').split(', ').map((name) => name.replace(/^URI:/, ''));
  const fits = wanted.some((name) => (name.includes('://') ? uris.includes(name) : checkServerIdentity(name, certificate) === undefined));
  return fits ? undefined : new Error(`its certificate is for ${certificate.subjectaltname ?? 'nobody'}, and not for ${wanted.join(', ')}`);
}

function handshake(socket: TLSSocket, { serverName }: UpstreamTls, { clock, to }: Origination, signal: AbortSignal): Promise<TLSSocket> {
  const about = `TLS with ${serverName || to.ip}`;
  return new Promise((resolve, reject) => {
    const settle = (): void => {
      timer.cancel();
      signal.removeEventListener('abort', abort);
      socket.off('secureConnect', secured).off('error', fail).off('close', closed);
    };
    const fail = (error: unknown): void => {
      settle();
      // Whatever comes after the first failure is of no use to anybody.
      socket.on('error', () => undefined).destroy();
      reject(error instanceof ProxyError ? error : new ProxyError('TLS_FAILURE', `${about}: ${errorMessage(error)}`, { cause: error }));
    };
    const secured = (): void => {
      settle();
      resolve(socket);
    };
    const closed = (): void => fail(new Error('the server closed the connection during the handshake'));
    const abort = (): void => fail(signal.reason);
    const timer = clock.after(HANDSHAKE_MS, () => fail(new Error(`no handshake within ${HANDSHAKE_MS / 1000} s`)));
    socket.once('secureConnect', secured).once('error', fail).once('close', closed);
    signal.addEventListener('abort', abort, { once: true });
    if (signal.aborted) abort();
  });
}

const SIGNATURE = Buffer.from('0d0a0d0a000d0a515549540a', 'hex');
const VERSION2_PROXY = 0x21;
const VERSION2_LOCAL = 0x20;
const TCP4 = 0x11;
const TCP6 = 0x21;

/** @param to what the caller asked for; an address of another family than the caller's is written as unknown */
export function proxyHeader(version: 1 | 2, from: SocketAddress | undefined, to: SocketAddress): Buffer {
  const same = from !== undefined && isIpv6(from.ip) === isIpv6(to.ip);
  if (version === 1) {
    if (!same) return Buffer.from('PROXY UNKNOWN\r\n');
    return Buffer.from(`PROXY ${isIpv6(from.ip) ? 'TCP6' : 'TCP4'} ${from.ip} ${to.ip} ${from.port} ${to.port}\r\n`);
  }
  const [source, destination] = [same ? ipBytes(from.ip) : undefined, ipBytes(to.ip)];
  if (!same || !source || !destination) return Buffer.concat([SIGNATURE, Buffer.from([VERSION2_LOCAL, 0, 0, 0])]);
  const addresses = Buffer.concat([source, destination, Buffer.alloc(4)]);
  addresses.writeUInt16BE(from.port, addresses.length - 4);
  addresses.writeUInt16BE(to.port, addresses.length - 2);
  const head = Buffer.from([VERSION2_PROXY, isIpv6(from.ip) ? TCP6 : TCP4, 0, addresses.length]);
  return Buffer.concat([SIGNATURE, head, addresses]);
}
