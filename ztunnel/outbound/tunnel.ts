/**
 * The TLS connections under tunnels: dialled from the pod's namespace with the pod's certificate, and only to identities that we meant. And
 * the tunnel within a tunnel that leads through a gateway into another network (Istio's ztunnel, src/proxy/outbound.rs).
 */
import type { TLSSocket } from 'node:tls';
import { formatSocketAddress, type SocketAddress } from '../../common/base/address.ts';
import { formatSpiffeId } from '../../common/base/spiffe.ts';
import type { Workload } from '../../common/decision/mesh-view.ts';
import type { DoubleTunnel } from '../../common/decision/outbound.ts';
import { HboneClient } from '../../common/hbone/client.ts';
import type { PoolKey } from '../../common/hbone/pool.ts';
import { duplexOf } from '../../common/hbone/stream-duplex.ts';
import type { Headers, StreamPipe } from '../../common/hbone/types.ts';
import { secureTunnel } from '../../common/tls/tunnel-handshake.ts';
import type { PodContext } from '../worker/context.ts';
import { dialPeer } from '../worker/dial.ts';
import { clientLimits } from './limits.ts';

/** @throws {ProxyError} IDENTITY_UNAVAILABLE, UPSTREAM_CONNECT, UPSTREAM_TIMEOUT, TLS_FAILURE; the signal's reason */
export async function dialTunnel(pod: PodContext, key: PoolKey, signal: AbortSignal): Promise<TLSSocket> {
  // The certificate first: without one there is no point in knocking.
  await pod.parts.certificates.get(key.source, signal);
  const socket = await dialPeer(pod, key.to, signal);
  return secureTunnel(pod.parts, { socket, source: key.source, peers: key.destinations, about: formatSocketAddress(key.to) }, signal);
}

export interface DoubleTunnelRequest {
  readonly route: DoubleTunnel;
  readonly source: Workload;
  readonly from: SocketAddress;
  readonly headers: Headers;
}

/**
 * The outer tunnel to the gateway is pooled like any other; the inner one belongs to this connection alone, since whoever shares it would be
 * bound to the same remote pod.
 * @throws {ProxyError} as dialTunnel, for either end; {TunnelRefused} where either end refuses
 */
export async function openDoubleTunnel(pod: PodContext, request: DoubleTunnelRequest, signal: AbortSignal): Promise<StreamPipe> {
  const { route, source, from, headers } = request;
  const identity = formatSpiffeId(source);
  const outer = await pod.pool.connect(
    { source: identity, destinations: route.peers, to: route.to, sourceIp: from.ip },
    { authority: route.authority, headers, signal },
  );
  const about = `${route.authority} behind ${formatSocketAddress(route.to)}`;
  const tls = await secureTunnel(pod.parts, { socket: duplexOf(outer), source: identity, peers: route.innerPeers, about }, signal);
  const { settings, clock } = pod.parts;
  const client: HboneClient = new HboneClient(tls, {
    limits: clientLimits(settings),
    clock,
    maxStreams: 1,
    onClose: () => undefined,
    // One tunnel and no more: the connection closes when that one has ended.
    onStreamEnd: () => client.goAway(),
  });
  try {
    const inner: Headers = [...headers, ['x-forwarded-network', settings.network]];
    return await client.connect({ authority: route.authority, headers: inner, signal });
  } catch (error) {
    client.destroy();
    throw error;
  }
}
