/**
 * The PROXY protocol header, version 2, that an application with a PROXY tunnel gets in front of each connection: who called and whom they
 * meant, and the caller's proven identity as a TLV (Istio's ztunnel, src/proxy/inbound.rs).
 */
import { ipBytes, type SocketAddress } from '../../common/base/address.ts';

const SIGNATURE = Buffer.from('0d0a0d0a000d0a515549540a', 'hex');
const VERSION_2_PROXY = 0x21;
const TCP_OVER_IPV4 = 0x11;
const TCP_OVER_IPV6 = 0x21;
/** Istio's TLV for the source's SPIFFE identity. */
const TLV_IDENTITY = 0xd0;
const MAX_IDENTITY_BYTES = 2048;

/** @throws {RangeError} for an identity beyond 2048 bytes, or an address that is none */
export function proxyHeader(source: SocketAddress, destination: SocketAddress, identity: string | undefined): Buffer {
  const from = ipBytes(source.ip);
  const to = ipBytes(destination.ip);
  if (!from || !to) throw new RangeError('PROXY protocol needs addresses');
  // One family for both: where they differ, IPv4 is written as IPv4-mapped IPv6.
  const wide = from.length === 16 || to.length === 16;
  const ports = Buffer.alloc(4);
  ports.writeUInt16BE(source.port, 0);
  ports.writeUInt16BE(destination.port, 2);
  const tlv = identity === undefined ? Buffer.alloc(0) : identityTlv(identity);
  const body = Buffer.concat([wide ? mapped(from) : from, wide ? mapped(to) : to, ports, tlv]);
  const head = Buffer.from([VERSION_2_PROXY, wide ? TCP_OVER_IPV6 : TCP_OVER_IPV4, body.length >> 8, body.length & 0xff]);
  return Buffer.concat([SIGNATURE, head, body]);
}

function identityTlv(identity: string): Buffer {
  const value = Buffer.from(identity);
  if (value.length > MAX_IDENTITY_BYTES) throw new RangeError('the identity is too long for PROXY protocol');
  return Buffer.concat([Buffer.from([TLV_IDENTITY, value.length >> 8, value.length & 0xff]), value]);
}

function mapped(address: Uint8Array): Uint8Array {
  if (address.length === 16) return address;
  const bytes = Buffer.alloc(16);
  bytes.fill(0xff, 10, 12);
  bytes.set(address, 12);
  return bytes;
}
